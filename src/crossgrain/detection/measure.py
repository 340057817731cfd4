"""How well stored regions cover what is annotated in a data set. NumPy only.

Shape letters: G annotated boxes, N found ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from crossgrain.config import UserError
from crossgrain.data.shards import Shards

THRESHOLD = 0.5  # IoU from which an object counts as found


@dataclass
class Coverage:
    """Counts over the labelled objects of a split."""

    images: int = 0
    regions: int = 0
    objects: int = 0
    found: int = 0  # objects with a region of IoU 0.5 or more
    named: int | None = None  # of the found ones: the best region has their label; None where labels have no names

    def lines(self) -> list[str]:
        """For people."""
        share = f"{self.found / self.objects:.1%} of {self.objects:,} objects found at IoU {THRESHOLD}"
        named = "" if self.named is None else f", {self.named / max(1, self.found):.1%} of these with the right label"
        return [f"{share}{named}; {self.regions / self.images:.1f} regions an image, {self.images:,} images"]


def measure(data: Path, split: str, class_names: Sequence[str] = ()) -> Coverage:
    """Compare the regions stored in `data` with the annotated ones of a split; UserError where none is labelled."""
    coverage = Coverage(named=0 if class_names else None)
    for record in Shards(data, split, regions=True, images=False):
        objects = [region for region in record.regions if region.label]
        regions = record.detected
        if regions is None or not objects:
            continue
        coverage.images += 1
        coverage.regions += len(regions)
        coverage.objects += len(objects)
        if not len(regions):
            continue
        iou = overlaps(np.array([region.box for region in objects], np.float32), regions.boxes)
        found = iou.max(1) >= THRESHOLD
        coverage.found += int(found.sum())
        if coverage.named is not None:
            labels = [class_names[label] for label in regions.labels[iou.argmax(1)]]
            coverage.named += sum(
                bool(hit) and region.label == label for hit, region, label in zip(found, objects, labels, strict=True)
            )
    if not coverage.objects:
        raise UserError(f"{data}, split {split!r}: no annotated object to compare the regions with")
    return coverage


def overlaps(a: Float[np.ndarray, "G 4"], b: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, "G N"]:
    """IoU of every pair."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = (high - low).clip(min=0).prod(2)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(1), (b[:, 2:] - b[:, :2]).prod(1)
    return common / np.maximum(area_a[:, None] + area_b - common, 1e-12)
