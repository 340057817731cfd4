"""The annotated boxes of an image as its regions: a detector describes them like boxes of its own.

VL-BERT learns VCR from the annotated objects alone, and RefCOCO+ from a detector's boxes with the annotated ones behind
them (jackroos/VL-BERT, refcoco/data/datasets/refcoco.py, `boxes`: "gt" and "proposal+gt").

Shape letters: H W pixels, N boxes.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from crossgrain.config import UserError
from crossgrain.data.records import WHOLE_IMAGE, Record
from crossgrain.data.regions import RegionFeatures, joined
from crossgrain.detection.interface import Detector, stamp_name

Boxes = Literal["detected", "annotated", "both"]
NO_BOXES = "no annotated boxes"
_BELOW_ONE = np.nextafter(np.float32(1), np.float32(0))


def check_describes(detector: Detector) -> None:
    """UserError for a detector that cannot describe boxes of others."""
    if type(detector).describe_boxes is Detector.describe_boxes:
        detector.describe_boxes([], [])  # says why


def annotated_boxes(record: Record) -> Float32[np.ndarray, "N 4"]:
    """The boxes of a record's regions, in their order, as (x1, y1, x2, y2) in [0, 1]."""
    return np.array([region.box for region in record.regions], np.float32).reshape(-1, 4)


def regions_of_images(
    detector: Detector,
    images: Sequence[UInt8[Tensor, "3 H W"]],
    annotated: Sequence[Float32[np.ndarray, "_ 4"] | None],
    with_detected: bool,
) -> list[RegionFeatures]:
    """The regions of images of one size. None in `annotated` stands for an image that has detected boxes alone.

    With `with_detected` all images have what the detector finds, then their annotated boxes. Annotated boxes keep their
    order and their numbers to the last bit, and score 1; of detected ones beside them none scores as much, so that
    these are what `max_regions` leaves out first.
    """
    found: list[RegionFeatures | None] = [None] * len(images)
    asked = [i for i, boxes in enumerate(annotated) if with_detected or boxes is None]
    if asked:
        for i, regions in zip(asked, detector.detect([images[i] for i in asked]), strict=True):
            found[i] = regions
    whole = detector.chosen.whole_image and not with_detected
    border = np.array([WHOLE_IMAGE] * whole, np.float32).reshape(-1, 4)
    given = {i: np.concatenate([border, boxes]) for i, boxes in enumerate(annotated) if boxes is not None}
    given = {i: boxes for i, boxes in given.items() if len(boxes)}
    if given:
        described = _describe(detector, [images[i] for i in given], list(given.values()))
        for i, regions in zip(given, described, strict=True):
            scores = np.concatenate([regions.scores[: len(border)], np.ones(len(regions) - len(border), np.float32)])
            regions = replace(regions, boxes=given[i], scores=scores)
            if (before := found[i]) is not None:
                regions = joined(replace(before, scores=np.minimum(before.scores, _BELOW_ONE)), regions)
            found[i] = regions
    nothing = RegionFeatures.empty(detector.feature_size, detector.num_classes)
    return [nothing if regions is None else regions for regions in found]


def _describe(
    detector: Detector, images: list[Tensor], boxes: Sequence[Float32[np.ndarray, "_ 4"]]
) -> list[RegionFeatures]:
    height, width = images[0].shape[1:]
    sides = torch.tensor([width, height, width, height], dtype=torch.float32)
    described = detector.describe_boxes(images, [torch.from_numpy(one) * sides for one in boxes])
    counts = [len(regions) for regions in described]
    if counts != [len(one) for one in boxes]:
        raise UserError(
            f"{stamp_name(type(detector))} was given {', '.join(str(len(one)) for one in boxes)} boxes, "
            f"and described {', '.join(map(str, counts)) or 'none'}"
        )
    return described
