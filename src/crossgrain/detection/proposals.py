"""Anchors, box deltas and region proposals of Faster R-CNN (Ren et al., 2015), as tensors. Boxes here are in pixels.

Shape letters: A anchors, R rows (boxes), H W cells of a feature map.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.ops import nms

MAX_GROWTH = math.log(1000 / 16)  # exp of a delta never makes a box larger than this; the usual bound of Fast R-CNN
Weights = tuple[float, float, float, float]


def grid_anchors(
    grid: tuple[int, int], stride: int, sizes: Sequence[float], ratios: Sequence[float], offset: float = 0.0
) -> Float[Tensor, "A 4"]:
    """Anchors of every cell, row by row, all sizes and height-to-width ratios of a cell together.

    `offset` is the place of the centres inside a cell: 0 its upper left corner (Caffe, Detectron2), 0.5 its middle.
    """
    shapes = [(size / math.sqrt(ratio), size * math.sqrt(ratio)) for size in sizes for ratio in ratios]
    half = torch.tensor([(-w / 2, -h / 2, w / 2, h / 2) for w, h in shapes])
    y, x = torch.meshgrid(*((torch.arange(n) + offset) * stride for n in grid), indexing="ij")
    centres = torch.stack([x, y, x, y], dim=-1).view(-1, 1, 4)
    return (centres + half).view(-1, 4)


def apply_deltas(
    deltas: Float[Tensor, "*R 4"], boxes: Float[Tensor, "*R 4"], weights: Weights = (1.0, 1.0, 1.0, 1.0)
) -> Float[Tensor, "*R 4"]:
    """Boxes moved by (dx, dy, dw, dh): shifts in units of the box, sizes by their logarithm, all times `weights`."""
    dx, dy, dw, dh = (delta / weight for delta, weight in zip(deltas.unbind(-1), weights, strict=True))
    x, y, w, h = _centre(boxes)
    x, y = x + dx * w, y + dy * h
    w, h = w * dw.clamp(max=MAX_GROWTH).exp(), h * dh.clamp(max=MAX_GROWTH).exp()
    return torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], dim=-1)


def deltas_between(boxes: Float[Tensor, "*R 4"], targets: Float[Tensor, "*R 4"]) -> Float[Tensor, "*R 4"]:
    """The deltas that move each box onto its target (`apply_deltas` with weights of 1)."""
    x, y, w, h = _centre(boxes)
    to_x, to_y, to_w, to_h = _centre(targets)
    return torch.stack([(to_x - x) / w, (to_y - y) / h, (to_w / w).log(), (to_h / h).log()], dim=-1)


def _centre(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x1, y1, x2, y2 = boxes.unbind(-1)
    w, h = (x2 - x1).clamp(min=1e-3), (y2 - y1).clamp(min=1e-3)
    return x1 + w / 2, y1 + h / 2, w, h


def clip(boxes: Float[Tensor, "*R 4"], size: tuple[int, int]) -> Float[Tensor, "*R 4"]:
    """Boxes cut at the borders of an image of this (height, width)."""
    height, width = size
    x1, y1, x2, y2 = boxes.unbind(-1)
    cut = [x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)]
    return torch.stack(cut, dim=-1)


def propose(
    scores: Float[Tensor, " A"],
    boxes: Float[Tensor, "A 4"],
    size: tuple[int, int],
    *,
    before: int,
    after: int,
    overlap: float,
) -> Float[Tensor, "R 4"]:
    """The best boxes of one image: the `before` highest scores, cut at the borders, at most `after` of them after NMS.

    Boxes thinner than a pixel are dropped.
    """
    top = scores.topk(min(before, len(scores))).indices
    boxes, scores = clip(boxes[top], size), scores[top]
    real = rows_with_area(boxes)
    boxes, scores = boxes[real], scores[real]
    return boxes[nms(boxes, scores, overlap)[:after]]


def rows_with_area(boxes: Float[Tensor, "R 4"]) -> Int[Tensor, " K"]:
    """The rows whose boxes are at least a pixel wide and high."""
    return ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1).nonzero().flatten()
