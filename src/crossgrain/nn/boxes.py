"""Boxes as tensors: (x1, y1, x2, y2) in [0, 1] everywhere inside; other forms only at the edges.

Shape letters: N boxes.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def corners_from_centre(boxes: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N 4"]:
    """(cx, cy, w, h) -> (x1, y1, x2, y2)."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def centre_from_corners(boxes: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N 4"]:
    """(x1, y1, x2, y2) -> (cx, cy, w, h)."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def giou_loss(a: Float[Tensor, "N 4"], b: Float[Tensor, "N 4"]) -> Float[Tensor, " N"]:
    """1 - GIoU of each pair (Rezatofighi et al., 2019); one of the two has an area.

    torchvision's selects overlapping pairs by their values, which waits for the device and breaks a compiled graph.
    """
    intersection = _area(torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:]))
    union = _area(a[:, :2], a[:, 2:]) + _area(b[:, :2], b[:, 2:]) - intersection
    hull = _area(torch.minimum(a[:, :2], b[:, :2]), torch.maximum(a[:, 2:], b[:, 2:]))
    tiny = torch.finfo(union.dtype).tiny  # two boxes without area, of which neither has any to share
    return 1 - intersection / union.clamp(min=tiny) + (hull - union) / hull.clamp(min=tiny)


def _area(low: Float[Tensor, "N 2"], high: Float[Tensor, "N 2"]) -> Float[Tensor, " N"]:
    """Zero where an upper edge is not above the lower one."""
    width, height = (high - low).clamp(min=0).unbind(1)
    return width * height


def patches_inside(boxes: Float[Tensor, "N 4"], grid: tuple[int, int]) -> Bool[Tensor, "N P"]:
    """Which patches of a (rows, columns) grid a box touches, row by row; at least one along each axis.

    From floor(low edge) to ceil(high edge) in patch units, as X-VLM counts them (pretrain_dataset.py:416-431).
    """
    rows, columns = grid
    inside_x = cells_inside(boxes[:, 0], boxes[:, 2], torch.full_like(boxes[:, 0], columns), columns)
    inside_y = cells_inside(boxes[:, 1], boxes[:, 3], torch.full_like(boxes[:, 1], rows), rows)
    return (inside_y[:, :, None] & inside_x[:, None, :]).flatten(1)


def cells_inside(
    low: Float[Tensor, "*N"], high: Float[Tensor, "*N"], count: Float[Tensor, "*N"], total: int
) -> Bool[Tensor, "*N total"]:
    """Which of `count` cells along an axis an interval of [0, 1] touches, at least one, as the first of `total`."""
    # A coordinate that was divided by the image size and comes back as 2.9999998 or 3.0000002 means 3.
    tolerance = 1e-4
    first = torch.minimum((low * count + tolerance).floor().clamp(min=0), count - 1)
    last = torch.minimum(torch.maximum((high * count - tolerance).ceil(), first + 1), count)
    cells = torch.arange(total, device=low.device)
    return (cells >= first[..., None]) & (cells < last[..., None])
