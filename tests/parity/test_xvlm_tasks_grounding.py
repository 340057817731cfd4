"""X-VLM's grounding against numbers recorded from the original code: boxes, heat maps, what these make of boxes."""

import re

import numpy as np
import pytest
import torch
from recorded import cases
from test_xvlm import CLOSE, convert, pixels, text

from crossgrain.data.types import Batch, Named, Pixels
from crossgrain.metrics.grounding import accuracy_at, iou
from crossgrain.nn.boxes import corners_from_centre
from crossgrain.objectives.interface import Views
from crossgrain.tasks.gradcam import saliency
from crossgrain.tasks.grounding_heads import BoxHead
from crossgrain.tasks.heat import box_scores, spread

weak_cases = pytest.mark.parametrize("case", cases("xvlm", "retrieval_"))


def corners(boxes):
    """(x, y, w, h) to (x1, y1, x2, y2)."""
    boxes = np.asarray(boxes, dtype=np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)


@pytest.mark.parametrize("case", cases("xvlm", "bbox_"))
def test_boxes_losses_and_official_overlap_match(case):
    model, heads = convert(case).build()
    io = case.load("io")
    true = corners_from_centre(io["target_bbox"])
    batch = Batch(
        image={"clean": Pixels.whole(pixels(io["image"]))},
        text={"clean": text(io, "")},
        targets={"expressions": Named(box=true, overlap=torch.zeros(len(true), 0))},
        group=torch.arange(len(true)),
    )
    head = BoxHead(BoxHead.Config(), model)
    assert head.adopt(model, {"box": heads["box"].state_dict()}) == ["box"]
    views = Views(model, batch)
    with torch.no_grad():
        predicted, loss = head.boxes(views.fused().cls), head(views)
    torch.testing.assert_close(predicted, corners_from_centre(io["out.coord"]), **CLOSE)
    for name, value in loss.metrics.items():
        assert value.item() == pytest.approx(case.meta["losses"][name], rel=1e-4), name

    refs, decoded = case.meta["toy_refs"], io["out.decoded_xywh_iou"].double().numpy()
    size = np.array([[ref["width"], ref["height"]] * 2 for ref in refs])
    boxes = predicted.double().numpy() * size
    np.testing.assert_allclose(boxes, corners(decoded[:, :4]), rtol=1e-4, atol=1e-2)
    ious = iou(boxes, corners([ref["bbox"] for ref in refs]), "pixel")
    np.testing.assert_allclose(ious, decoded[:, 4], rtol=1e-4, atol=2e-4)
    assert accuracy_at(ious) == pytest.approx(case.meta["eval"]["score"])


def heat_maps(case):
    """The recorded and our map of every recorded layer, by the layer's name."""
    converted = convert(case)
    model, heads = converted.build()
    model.requires_grad_(False)
    heads["itm"].requires_grad_(False)
    io = case.load("io")
    recorded = {key: io[key] for key in io if re.fullmatch(r"gradcam\.out\.block\d+", key)}
    words = text(io, "gradcam.")
    images = model.prepare(model.encode_image(Pixels.whole(pixels(io["eval.images"][: len(words.ids)]))))
    for key, expected in recorded.items():
        block = int(key.removeprefix("gradcam.out.block"))
        layer = block - converted.config.text_depth
        yield f"block{block}", expected, saliency(model, heads["itm"].match, images, words, layer=layer)


@weak_cases
def test_heat_maps_match(case):
    if not any(key.startswith("gradcam.out.") for key in case.load("io")):
        pytest.skip("no recorded heat maps")
    compared = 0
    for name, expected, found in heat_maps(case):
        scale = expected.abs().max().item()
        found = found.view(expected.shape)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * scale, msg=lambda m, n=name: f"{n}: {m}")
        compared += int(scale > 0)
    assert compared


@weak_cases
def test_boxes_ranked_by_heat_match(case):
    meta, compared = case.meta.get("gradcam", {}), 0
    for name, _, found in heat_maps(case):
        if f"det_scores_{name}" not in meta:
            continue
        overlaps = []
        for heat, ref, expected in zip(found, meta["toy_refs"], meta[f"det_scores_{name}"], strict=True):
            boxes = corners(ref["dets"])
            side = round(len(heat) ** 0.5)
            cells = heat.double().view(side, side).numpy()
            scores = box_scores(spread(cells, (ref["height"], ref["width"])), boxes)
            np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-5)
            overlaps.append(iou(boxes[[scores.argmax()]], corners([ref["bbox"]]), "pixel")[0])
        result = meta[f"grounding_eval_vlue_{name}"]["score"]
        assert accuracy_at(np.array(overlaps)) == pytest.approx(result)
        compared += 1
    if not compared:
        pytest.skip("no recorded ranking")
