"""Heat maps in numpy: brought to the size of an image, their peak, boxes ranked by them, and their form in a line.

Shape letters: R x C cells, H x W pixels, N boxes. Boxes are (x1, y1, x2, y2).
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

A = -0.75  # of the cubic kernel, as torch's interpolation has it


def spread(
    cells: Float[np.ndarray, "R C"], size: tuple[int, int], covered: Sequence[float] | None = None
) -> Float[np.ndarray, "H W"]:
    """Cells brought to (H, W) pixels by bicubic interpolation, which may go a little below the lowest of them.

    The image lies under the first `covered` rows and columns, which need not be whole numbers. Under all of them, as
    without it, this is torch's `F.interpolate(mode="bicubic")`.
    """
    parts = covered or [float(count) for count in cells.shape]
    rows, columns = (_cubic(count, part, to) for count, part, to in zip(cells.shape, parts, size, strict=True))
    return rows @ cells @ columns.T


def _cubic(cells: int, covered: float, samples: int) -> Float[np.ndarray, "samples cells"]:
    """What each cell adds to each of the samples, which stand at equal distances over the covered part."""
    at = (np.arange(samples) + 0.5) * (covered / samples) - 0.5
    taps = np.floor(at)[:, None] + np.arange(-1, 3)
    d = np.abs(at[:, None] - taps)
    near = ((A + 2) * d - (A + 3)) * d * d + 1
    far = ((A * d - 5 * A) * d + 8 * A) * d - 4 * A
    kernel = np.where(d <= 1, near, np.where(d < 2, far, 0.0))
    weights = np.zeros((samples, cells))
    places = np.clip(taps, 0, cells - 1).astype(int)  # beyond the border lies what is on it
    np.add.at(weights, (np.arange(samples)[:, None], places), kernel)
    return weights


def painted(
    values: Float[np.ndarray, " N"], boxes: Float[np.ndarray, "N 4"], size: tuple[int, int]
) -> Float[np.ndarray, "H W"]:
    """A map of boxes in [0, 1]: each pixel has the largest value of the boxes over its centre, or 0."""
    x, y = ((np.arange(count) + 0.5) / count for count in reversed(size))
    inside_x = (x >= boxes[:, :1]) & (x <= boxes[:, 2:3])
    inside_y = (y >= boxes[:, 1:2]) & (y <= boxes[:, 3:])
    over = inside_y[:, :, None] & inside_x[:, None, :]
    return np.where(over, values[:, None, None], 0.0).max(axis=0, initial=0.0)


def box_scores(
    heat: Float[np.ndarray, "H W"], boxes: Float[np.ndarray, "N 4"], exponent: float = 0.5
) -> Float[np.ndarray, " N"]:
    """The heat inside each box, in pixels, over its area to the power of `exponent` (X-VLM, dataset/utils.py:181-185).

    Edges are cut off to whole pixels, as there.
    """
    total = np.zeros((heat.shape[0] + 1, heat.shape[1] + 1))
    total[1:, 1:] = heat.cumsum(0).cumsum(1)
    x1, y1, x2, y2 = np.clip(np.trunc(boxes), 0, [heat.shape[1], heat.shape[0]] * 2).astype(int).T
    inside = total[y2, x2] - total[y1, x2] - total[y2, x1] + total[y1, x1]
    area = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1)
    return np.divide(inside, area**exponent, out=np.zeros(len(boxes)), where=area > 0)


def box_around_peak(heat: Float[np.ndarray, "H W"], share: float = 0.2) -> Float[np.ndarray, " 4"]:
    """The box, in [0, 1], around the connected part of the map that holds its peak and is above `share` of it.

    As class activation maps are turned into boxes (Zhou et al. 2016, section 3.2), but for the part: theirs is the
    largest. The whole image where the map has no peak above 0.
    """
    height, width = heat.shape
    if heat.max() <= 0:
        return np.array([0.0, 0.0, 1.0, 1.0])
    hot = heat >= share * heat.max()
    part = np.zeros_like(hot)
    part.flat[heat.argmax()] = True
    while True:
        grown = part.copy()
        grown[1:] |= part[:-1]
        grown[:-1] |= part[1:]
        grown[:, 1:] |= part[:, :-1]
        grown[:, :-1] |= part[:, 1:]
        grown &= hot
        if (grown == part).all():
            break
        part = grown
    rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
    return np.array([columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height])


def to_line(heat: Float[np.ndarray, "R C"]) -> dict[str, Any]:
    """A small map as plain JSON: its rows and columns, and bytes in base64, 255 at its highest; none below 0."""
    heat = np.clip(heat, 0, None)
    levels = np.rint(255 * heat / max(float(heat.max()), 1e-30)).astype(np.uint8)
    return {"size": list(heat.shape), "levels": base64.b64encode(levels.tobytes()).decode()}


def from_line(told: Mapping[str, Any]) -> Float[np.ndarray, "R C"]:
    """The inverse of `to_line`, in [0, 1]."""
    levels = np.frombuffer(base64.b64decode(told["levels"]), dtype=np.uint8)
    return levels.reshape(told["size"]) / 255
