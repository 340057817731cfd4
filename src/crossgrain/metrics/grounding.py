"""How well predicted boxes cover the true ones, and whether a point hits them.

Boxes are (x1, y1, x2, y2), in [0, 1] or in pixels; both sides alike. Points are (x, y) in the same units.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from crossgrain.metrics.proportion import wilson_interval

Convention = Literal["continuous", "pixel", "inclusive"]
Protocol = Literal["any", "merged"]
CUTOFFS = (1, 5, 10)


def iou(
    predicted: Float[np.ndarray, "N 4"], true: Float[np.ndarray, "N 4"], convention: Convention = "continuous"
) -> Float[np.ndarray, " N"]:
    """Intersection over union of each pair of boxes; 0 where they do not meet or a box has no area.

    "pixel" is X-VLM's `computeIoU` on boxes in pixels (dataset/utils.py:336). It takes 1 off the far corners and adds
    1 to the sides of the intersection only, which cancels, except that an overlap of one pixel or less in either
    direction counts as none. "inclusive", of boxes in pixels too, takes the far corners as the last pixels inside, so
    that every side is longer by 1 (VL-BERT common/utils/bbox.py:68).
    """
    longer = 1.0 if convention == "inclusive" else 0.0
    sides = np.minimum(predicted[:, 2:], true[:, 2:]) - np.maximum(predicted[:, :2], true[:, :2]) + longer
    smallest = 1.0 if convention == "pixel" else 0.0
    overlap = np.where((sides > smallest).all(1), sides.prod(1), 0.0)
    union = _area(predicted, longer) + _area(true, longer) - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def accuracy_at(ious: Float[np.ndarray, " N"], threshold: float = 0.5) -> float:
    """The share of boxes whose IoU reaches the threshold."""
    return float(np.mean(ious >= threshold))


def accuracy_interval(ious: Float[np.ndarray, " N"], threshold: float = 0.5) -> tuple[float, float]:
    """Wilson's 95 % interval of `accuracy_at`."""
    return wilson_interval(int(np.sum(ious >= threshold)), len(ious))


def pointing_game(
    points: Float[np.ndarray, "N 2"], true: Float[np.ndarray, "N 4"], tolerance: float = 0.0
) -> Bool[np.ndarray, " N"]:
    """Whether each point lies in its box, or no further from it than the tolerance in x and in y.

    Zhang et al. 2016 ("Top-down neural attention by excitation backprop") take the peak of a map and 15 pixels.
    """
    inside = (points >= true[:, :2] - tolerance) & (points <= true[:, 2:] + tolerance)
    return inside[:, 0] & inside[:, 1]


def peak(heat: Float[np.ndarray, "H W"]) -> tuple[float, float]:
    """Where a map is highest: the centre of the cell, as (x, y) in [0, 1]; of equal cells the first row by row."""
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    return (float(column) + 0.5) / heat.shape[1], (float(row) + 0.5) / heat.shape[0]


def merged(boxes: Float[np.ndarray, "T 4"]) -> Float[np.ndarray, " 4"]:
    """The smallest box around all boxes."""
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])


def phrase_recall(
    ranked: Sequence[Float[np.ndarray, "_ 4"]],
    true: Sequence[Float[np.ndarray, "_ 4"]],
    protocol: Protocol = "merged",
    cutoffs: Sequence[int] = CUTOFFS,
    threshold: float = 0.5,
) -> dict[str, float]:
    """Recall of Flickr30k Entities: the share of phrases of which one of the first k boxes covers the truth.

    A phrase may have several true boxes ("two dogs"): "merged" asks for the box around them all, "any" for one of them;
    both are in use (ashkamath/mdetr .github/flickr.md). `ranked` holds the boxes of each phrase, best first.
    """
    if not len(ranked):
        raise ValueError("no phrases to score")
    ranks = []
    for boxes, truth in zip(ranked, true, strict=True):
        wanted = merged(truth)[None] if protocol == "merged" else truth
        pairs = np.repeat(boxes, len(wanted), axis=0), np.tile(wanted, (len(boxes), 1))
        found = np.flatnonzero((iou(*pairs).reshape(len(boxes), len(wanted)) >= threshold).any(1))
        ranks.append(found[0] if len(found) else np.inf)
    return {f"R@{k}": float(np.mean(np.array(ranks) < k)) for k in cutoffs}


def _area(boxes: Float[np.ndarray, "N 4"], longer: float) -> Float[np.ndarray, " N"]:
    return np.clip(boxes[:, 2:] - boxes[:, :2] + longer, 0, None).prod(1)
