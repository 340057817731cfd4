"""VL-BERT on RefCOCO+ against numbers recorded from the original code: logits, chosen boxes, loss."""

import pytest
import torch
from recorded import cases

from crossgrain.config import UserError
from crossgrain.data.types import Batch, Named, Regions, Text
from crossgrain.interop.vlbert_refcoco import convert_vlbert_refcoco
from crossgrain.objectives.interface import Views
from crossgrain.tasks.grounding_heads import box_overlap

CLOSE = {"atol": 2e-5, "rtol": 1e-4}
CLS, SEP = 6, 7
every_case = pytest.mark.parametrize("case", cases("vlbert", "refcoco"))


def convert(case, weights=None):
    heads = case.meta["network"]["VLBERT"]["num_attention_heads"]
    state = case.load("weights") if weights is None else weights
    return convert_vlbert_refcoco(state, num_heads=heads, whole_image="given")


def recorded_batch(io):
    """[CLS] expression [SEP], and the regions in units of the image."""
    words = io["expression"]
    lengths = (words > 0).sum(1)
    ids = torch.cat([words.new_full((len(words), 1), CLS), words, words.new_zeros(len(words), 1)], 1)
    ids[torch.arange(len(ids)), lengths + 1] = SEP
    width, height = io["im_info"][:, None, :2].unbind(-1)
    regions = Regions(
        features=io["roi_feats_u8_div32"].float() / 32,
        boxes=io["boxes_xyxy"] / torch.stack([width, height, width, height], -1),
        mask=io["boxes_xyxy"][..., 0] > -1.5,
        image=torch.arange(len(ids)),
    )
    text = Text(ids=ids, mask=ids > 0)
    return Batch(image={"clean": regions}, text={"clean": text}, group=torch.arange(len(ids)))


@every_case
def test_logits_boxes_and_loss_match(case, monkeypatch):
    io = case.load("io")
    model, heads = convert(case).build()
    head, batch = heads["grounding"], recorded_batch(io)
    regions = batch.image["clean"]
    with torch.no_grad():
        states = Views(model, batch).fused().image[:, : regions.mask.shape[1]]
        logits = head.logits(states).masked_fill(~regions.mask, -1e4)
        expected = io["out.logits"].masked_fill(~regions.mask, -1e4)  # the original fills only what no row needs
        torch.testing.assert_close(logits, expected, **CLOSE)
        size = io["im_info"][:, [0, 1, 0, 1]]
        chosen = regions.boxes[torch.arange(len(logits)), logits.argmax(1)] * size / io["im_info"][:, [2, 3, 2, 3]]
        torch.testing.assert_close(chosen, io["out.pred_boxes"], **CLOSE)
        # The recorded labels were drawn: no box has them as its overlaps.
        named = Named(box=torch.zeros(len(logits), 4), overlap=torch.zeros(len(logits), 0))
        batch.targets["expressions"] = named
        monkeypatch.setattr("crossgrain.tasks.grounding_heads.box_overlap", lambda boxes, true: io["label"])
        assert head(Views(model, batch)).value.item() == pytest.approx(case.meta["loss"], rel=1e-4)


@every_case
def test_a_checkpoint_is_never_read_in_part(case):
    weights = case.load("weights")
    report = convert(case, {f"module.{key}": value for key, value in weights.items()}).report
    assert set(report.renamed) | set(report.dropped) == set(weights)
    with pytest.raises(UserError, match=r"unknown keys \['surprise'\]"):
        convert(case, weights | {"surprise": torch.zeros(1)})
    with pytest.raises(UserError, match=r"nothing fills \['grounding.score.bias'\]"):
        convert(case, {key: value for key, value in weights.items() if key != "final_mlp.2.bias"})
    with pytest.raises(UserError, match="no final_mlp"):
        convert(case, {key: value for key, value in weights.items() if not key.startswith("final_mlp")})


def test_overlap_of_boxes():
    a = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0], [0.6, 0.6, 1.0, 1.0]])
    b = torch.tensor([0.0, 0.0, 0.5, 1.0])
    torch.testing.assert_close(box_overlap(a, b), torch.tensor([0.5, 0.5, 0.0]))
