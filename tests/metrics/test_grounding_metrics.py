import numpy as np
import pytest

from crossgrain.metrics.grounding import accuracy_at, iou, merged, peak, phrase_recall, pointing_game


def corners(boxes):
    boxes = np.array(boxes, dtype=float)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def test_iou_of_boxes_worked_out_by_hand():
    a = np.array([[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.4, 0.4], [0.2, 0.2, 0.2, 0.2]])
    b = np.array([[0.25, 0.0, 0.75, 0.5], [0.5, 0.5, 1.0, 1.0], [0.0, 0.0, 0.4, 0.4], [0.2, 0.2, 0.2, 0.2]])
    assert iou(a, b) == pytest.approx([1 / 3, 0.0, 1.0, 0.0])


def test_iou_equals_values_recorded_from_the_original():
    # recorded case bbox_swin: boxes as the original decoded them (x, y, w, h in pixels), and its computeIoU
    predicted = [
        [75.42287, 21.359276, 163.6561, 107.91551],
        [77.6548, 38.566734, 165.48746, 88.21985],
        [79.11206, 19.599785, 161.09955, 99.644165],
    ]
    true = [[40, 30, 90, 70], [83, 42, 165, 88], [60, 30, 90, 70]]
    expected = [0.18968616, 0.87366307, 0.2853376]
    assert iou(corners(predicted), corners(true), "pixel") == pytest.approx(expected, abs=1e-6)


def original_iou(box1, box2):
    """X-VLM dataset/utils.py:336 on (x, y, w, h)."""
    near = [max(box1[i], box2[i]) for i in (0, 1)]
    far = [min(box1[i] + box1[i + 2] - 1, box2[i] + box2[i + 2] - 1) for i in (0, 1)]
    meet = near[0] < far[0] and near[1] < far[1]
    overlap = (far[0] - near[0] + 1) * (far[1] - near[1] + 1) if meet else 0
    return overlap / (box1[2] * box1[3] + box2[2] * box2[3] - overlap)


def test_the_pixel_convention_is_the_original_also_where_boxes_hardly_meet():
    generator = np.random.default_rng([7])
    a, b = (np.concatenate([g, s], 1) for g, s in [
        (generator.integers(0, 9, (300, 2)), generator.integers(1, 9, (300, 2))) for _ in range(2)
    ])  # fmt: skip
    expected = [original_iou(x, y) for x, y in zip(a, b, strict=True)]
    assert iou(corners(a), corners(b), "pixel") == pytest.approx(expected)
    assert iou(corners(a), corners(b)).sum() > np.sum(expected)  # some overlaps are one pixel wide


def test_an_iou_of_exactly_one_half_counts():
    assert accuracy_at(np.array([0.5, 0.49, 0.9, 0.0])) == 0.5


def test_the_inclusive_convention_takes_far_corners_as_pixels_inside():
    a, b = (
        np.array([[0.0, 0, 9, 9], [0, 0, 4, 4], [3, 3, 3, 3]]),
        np.array([[5.0, 0, 14, 9], [5, 0, 9, 4], [3, 3, 3, 3]]),
    )
    # 10 x 10 each, sharing 5 x 10; side by side; the same single pixel
    assert iou(a, b, "inclusive") == pytest.approx([50 / 150, 0.0, 1.0])
    # VL-BERT common/utils/bbox.py:68 on boxes drawn by chance
    generator = np.random.default_rng([8])
    a, b = (corners(generator.integers(0, 12, (200, 4))) for _ in range(2))
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    shared = np.clip(high - low + 1, 0, None).prod(1)
    areas = [(box[:, 2:] - box[:, :2] + 1).prod(1) for box in (a, b)]
    assert iou(a, b, "inclusive") == pytest.approx(shared / (areas[0] + areas[1] - shared))


def test_a_point_hits_its_box_with_a_margin():
    points = np.array([[0.5, 0.5], [0.1, 0.5], [0.15, 0.5], [0.5, 0.9], [0.2, 0.8]])
    boxes = np.tile([[0.2, 0.2, 0.8, 0.8]], (5, 1))
    assert pointing_game(points, boxes).tolist() == [True, False, False, False, True]
    assert pointing_game(points, boxes, tolerance=0.06).tolist() == [True, False, True, False, True]


def test_the_peak_is_the_centre_of_the_highest_cell():
    heat = np.zeros((2, 4))
    heat[1, 2] = heat[1, 3] = 3.0
    assert peak(heat) == (2.5 / 4, 1.5 / 2)


def test_recall_of_phrases_worked_out_by_hand():
    two_dogs = np.array([[0.0, 0.0, 0.2, 1.0], [0.8, 0.0, 1.0, 1.0]])
    assert merged(two_dogs).tolist() == [0.0, 0.0, 1.0, 1.0]
    one, whole, none = [0.0, 0.0, 0.2, 0.9], [0.0, 0.0, 1.0, 0.9], [0.4, 0.4, 0.5, 0.5]
    ranked = [np.array([none, one, whole]), np.array([none, none]), np.array([one])]
    truth = [two_dogs, two_dogs[:1], two_dogs[:1]]
    # merged: found at place 3, never, at place 1; any: at place 2, never, at place 1
    assert phrase_recall(ranked, truth, cutoffs=(1, 2, 3)) == pytest.approx({"R@1": 1 / 3, "R@2": 1 / 3, "R@3": 2 / 3})
    assert phrase_recall(ranked, truth, "any", (1, 2)) == pytest.approx({"R@1": 1 / 3, "R@2": 2 / 3})
    with pytest.raises(ValueError, match="no phrases"):
        phrase_recall([], [])
