"""How well predicted boxes cover the true ones.

Boxes are (x1, y1, x2, y2), in [0, 1] or in pixels; both sides alike.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float

from crossgrain.metrics.proportion import wilson_interval

Convention = Literal["continuous", "pixel"]


def iou(
    predicted: Float[np.ndarray, "N 4"], true: Float[np.ndarray, "N 4"], convention: Convention = "continuous"
) -> Float[np.ndarray, " N"]:
    """Intersection over union of each pair of boxes; 0 where they do not meet or a box has no area.

    "pixel" is X-VLM's `computeIoU` on boxes in pixels (dataset/utils.py:336). It takes 1 off the far corners and adds
    1 to the sides of the intersection only, which cancels, except that an overlap of one pixel or less in either
    direction counts as none.
    """
    sides = np.minimum(predicted[:, 2:], true[:, 2:]) - np.maximum(predicted[:, :2], true[:, :2])
    smallest = 1.0 if convention == "pixel" else 0.0
    overlap = np.where((sides > smallest).all(1), sides.prod(1), 0.0)
    union = _area(predicted) + _area(true) - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def accuracy_at(ious: Float[np.ndarray, " N"], threshold: float = 0.5) -> float:
    """The share of boxes whose IoU reaches the threshold."""
    return float(np.mean(ious >= threshold))


def accuracy_interval(ious: Float[np.ndarray, " N"], threshold: float = 0.5) -> tuple[float, float]:
    """Wilson's 95 % interval of `accuracy_at`."""
    return wilson_interval(int(np.sum(ious >= threshold)), len(ious))


def _area(boxes: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, " N"]:
    return np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1)
