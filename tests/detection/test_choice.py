"""Which boxes are kept, and the arithmetic of anchors and deltas."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossgrain.config import UserError, read_config
from crossgrain.data.regions import RegionFeatures
from crossgrain.detection.interface import Selection, choose, regions_of, strictly_load, weights_hash
from crossgrain.detection.proposals import apply_deltas, clip, deltas_between, grid_anchors, propose

# Two pairs that overlap by 0.8 and one thin box; the classes of the first pair differ.
BOXES = torch.tensor(
    [[0, 0, 10, 10], [0, 0, 10, 8], [20, 20, 30, 30], [20, 20, 30, 28], [50, 50, 50.5, 90]], dtype=torch.float32
)
PROBS = torch.tensor([[0.9, 0.0], [0.1, 0.8], [0.5, 0.1], [0.4, 0.1], [1.0, 0.0]])


def kept(**keys) -> list[int]:
    selection = Selection(**{"score_threshold": 0.2, "min_boxes": 0, "max_boxes": 9, "nms": 0.5, **keys})
    return choose(BOXES, PROBS, selection).tolist()


def test_boxes_are_kept_by_score_overlap_and_number():
    assert kept() == [0, 2]  # never the thin one, whatever its score
    assert kept(class_agnostic=False) == [0, 1, 2]
    assert kept(nms=0.85) == [0, 1, 2, 3]
    assert kept(score_threshold=0.6) == [0]
    assert kept(score_threshold=0.6, min_boxes=2) == [0, 2]
    assert kept(nms=1.0, max_boxes=2) == [0, 1]
    assert kept(score_threshold=1.0, min_boxes=9) == [0, 2]  # as many as there are


def test_the_whole_image_comes_first_and_suppresses_nothing():
    boxes = torch.cat([torch.tensor([[0.0, 0.0, 10.0, 10.0]]), BOXES])
    probs = torch.cat([torch.tensor([[0.01, 0.01]]), PROBS])
    selection = Selection(min_boxes=0, max_boxes=2, whole_image=True)
    assert choose(boxes, probs, selection).tolist() == [0, 1, 3]


def test_a_selection_that_makes_no_sense_is_refused():
    for keys in ({"min_boxes": 5, "max_boxes": 4}, {"short_side": 800, "long_side": 600}, {"nms": 1.5}):
        with pytest.raises(UserError, match=next(iter(keys))):
            read_config(Selection, keys, "here")


def test_regions_are_in_shares_of_the_image_and_probabilities_sum_to_one():
    regions = regions_of(BOXES[:2], (20, 40), torch.full((2, 3), 1e6), PROBS[:2])
    assert isinstance(regions, RegionFeatures)
    assert regions.boxes.tolist() == [[0, 0, 0.25, 0.5], [0, 0, 0.25, pytest.approx(0.4)]]
    assert regions.class_probs.sum(1) == pytest.approx([1, 1], abs=1e-3)
    assert regions.scores == pytest.approx([0.9, 0.8])  # as the detector said, with background
    assert regions.labels.tolist() == [0, 1]
    assert regions.features.max() == 65504  # the largest of float16, never infinite


def test_a_hash_of_weights_sees_values_names_and_nothing_else():
    a, b = torch.arange(6.0).view(2, 3), torch.ones(2)
    hashes = [
        weights_hash({"a": a, "b": b}),
        weights_hash({"a": a + 1, "b": b}),
        weights_hash({"c": a, "b": b}),
        weights_hash({"a": a.T, "b": b}),
        weights_hash({"a": a.bfloat16(), "b": b}),
    ]
    assert len(set(hashes)) == len(hashes)
    assert weights_hash({"b": b, "a": a.T.contiguous().T}) == hashes[0]


def test_weights_that_do_not_fit_are_told_key_by_key():
    layer = torch.nn.Linear(2, 3)
    with pytest.raises(
        UserError, match=r"FILE.*unknown keys \['c'\] \(1\); missing \['bias'\] \(1\); shapes \['weight"
    ):
        strictly_load(layer, {"weight": torch.zeros(3, 3), "c": torch.zeros(1)}, "FILE")
    strictly_load(layer, {"weight": torch.ones(3, 2), "bias": torch.ones(3)}, "FILE")
    assert layer.weight.sum() == 6


def test_anchors_stand_on_their_cells():
    anchors = grid_anchors((2, 3), 16, (32.0, 64.0), (0.5, 1.0, 2.0))
    assert anchors.shape == (2 * 3 * 6, 4)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert centres[0].tolist() == [0, 0]
    assert centres[-1].tolist() == [32, 16]  # the last column and row
    sides = anchors[:, 2:] - anchors[:, :2]
    assert (sides[:, 0] * sides[:, 1]).tolist() == pytest.approx(([32**2] * 3 + [64**2] * 3) * 6)
    assert (sides[0, 1] / sides[0, 0]).item() == pytest.approx(0.5)  # height to width
    assert grid_anchors((1, 1), 8, (8.0,), (1.0,), offset=0.5).tolist() == [[0, 0, 8, 8]]


side = st.floats(4, 200)  # `apply_deltas` lets no box grow more than 62 times
box = st.tuples(st.floats(-50, 300), st.floats(-50, 300), side, side).map(lambda b: (*b[:2], b[0] + b[2], b[1] + b[3]))


@given(box, box)
def test_deltas_lead_from_a_box_to_its_target(start, target):
    start, target = torch.tensor([start]), torch.tensor([target])
    weights = (10.0, 10.0, 5.0, 5.0)
    deltas = deltas_between(start, target) * torch.tensor(weights)
    assert torch.allclose(apply_deltas(deltas, start, weights), target, atol=1e-2)


def test_proposals_are_the_best_cut_at_the_border_and_apart():
    boxes = torch.tensor([[-5, -5, 10, 10], [-4, -5, 10, 10], [30, 30, 60, 60], [50, 50, 90, 90], [39.5, 0, 80, 9]])
    scores = torch.tensor([1.0, 0.9, 0.8, 0.7, 2.0])
    found = propose(scores, boxes, (40, 40), before=4, after=9, overlap=0.5)
    assert found.tolist() == [[0, 0, 10, 10], [30, 30, 40, 40]]  # the last one is thin, the fourth not among the best
    assert clip(boxes[3:4], (40, 60)).tolist() == [[50, 40, 60, 40]]
