"""The outlines of the 20 kinds of object, as polygons in a unit box around the origin (x to the right, y down).

A shape is a list of parts painted one after the other. The tone of a part says with what: the object's own "body"
colour (with its filling and an outline), a "dark" or "light" shade of it, or "hole" (what lies behind shows again).
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

Points = np.ndarray  # (P, 2) float64
Part = tuple[str, Points]
Number = int | float  # coordinates below are written as they are shortest


@dataclass(frozen=True, eq=False)
class Shape:
    """The parts of one kind: `points` (P, 2) stacks all polygons, `spans` says which rows and tone each part has."""

    points: Points
    spans: tuple[tuple[str, int, int], ...]


def _arc(x: Number, y: Number, rx: Number, ry: Number | None = None, start: Number = 0, end: Number = 360) -> Points:
    """Points on an ellipse around (x, y) from `start` to `end` degrees, clockwise from three o'clock."""
    steps = max(6, round(abs(end - start) / 12))
    angle = np.radians(np.linspace(start, end, steps, endpoint=abs(end - start) < 360))
    return np.stack([x + rx * np.cos(angle), y + (rx if ry is None else ry) * np.sin(angle)], axis=1)


def _polygon(*points: tuple[Number, Number]) -> Points:
    return np.array(points, dtype=np.float64)


def _rectangle(x1: Number, y1: Number, x2: Number, y2: Number) -> Points:
    return _polygon((x1, y1), (x2, y1), (x2, y2), (x1, y2))


def _star() -> Points:
    angle = np.radians(-90 + 36 * np.arange(10))
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.where(np.arange(10) % 2, 0.24, 0.53)[:, None]


def _heart() -> Points:
    t = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x / 32, y / 32], axis=1)


def _cross() -> Points:
    a, b = 0.17, 0.48
    corners = [
        (-a, -b),
        (a, -b),
        (a, -a),
        (b, -a),
        (b, a),
        (a, a),
        (a, b),
        (-a, b),
        (-a, a),
        (-b, a),
        (-b, -a),
        (-a, -a),
    ]
    return _polygon(*corners)


def _umbrella() -> list[Part]:
    dome = [_arc(0, 0.05, 0.5, 0.48, 180, 360)]
    dome += [_arc(x, 0.05, 0.125, 0.08, 0, -180) for x in (0.375, 0.125, -0.125, -0.375)]
    handle = _polygon((-0.03, 0), (0.03, 0), (0.03, 0.36), (0.05, 0.4), (0.1, 0.4), (0.12, 0.33), (0.18, 0.33))
    hook = _polygon((0.17, 0.42), (0.11, 0.48), (0.03, 0.48), (-0.03, 0.4))
    return [("dark", np.concatenate([handle, hook])), ("body", np.concatenate(dome))]


def _flower() -> list[Part]:
    stem = [("dark", _rectangle(-0.03, 0, 0.03, 0.5)), ("dark", _arc(0.14, 0.38, 0.13, 0.06))]
    angles = np.radians(-90 + 72 * np.arange(5))
    petals = [("body", _arc(0.21 * np.cos(a), -0.13 + 0.21 * np.sin(a), 0.155)) for a in angles]
    return [*stem, *petals, ("light", _arc(0, -0.13, 0.115))]


def _car() -> list[Part]:
    side = [(-0.5, 0.2), (-0.5, 0.02), (-0.46, -0.04), (-0.32, -0.06), (-0.2, -0.28), (0.16, -0.28), (0.32, -0.06)]
    side += [(0.46, -0.02), (0.5, 0.04), (0.5, 0.2)]
    windows = [_polygon((-0.24, -0.07), (-0.15, -0.21), (-0.04, -0.21), (-0.04, -0.07))]
    windows += [_polygon((0.03, -0.07), (0.03, -0.21), (0.12, -0.21), (0.22, -0.07))]
    wheels = [part for x in (-0.27, 0.27) for part in (("dark", _arc(x, 0.2, 0.13)), ("light", _arc(x, 0.2, 0.055)))]
    return [("body", _polygon(*side)), *(("light", window) for window in windows), *wheels]


def _butterfly() -> list[Part]:
    upper = [("body", _arc(x, -0.15, 0.25, 0.24)) for x in (-0.26, 0.26)]
    lower = [("body", _arc(x, 0.21, 0.18, 0.19)) for x in (-0.18, 0.18)]
    feelers = [("dark", _polygon((0, -0.2), (s * 0.1, -0.46), (s * 0.14, -0.45), (s * 0.04, -0.2))) for s in (-1, 1)]
    return [*lower, *upper, *feelers, ("dark", _arc(0, 0.05, 0.05, 0.34))]


def _cat() -> list[Part]:
    ears = [("body", _polygon((s * 0.4, -0.5), (s * 0.42, 0.02), (s * 0.1, -0.24))) for s in (-1, 1)]
    eyes = [("dark", _arc(s * 0.17, -0.01, 0.055, 0.08)) for s in (-1, 1)]
    nose = ("dark", _polygon((-0.06, 0.14), (0.06, 0.14), (0, 0.21)))
    whiskers = [
        ("dark", _polygon((s * 0.15, 0.2), (s * 0.46, y), (s * 0.46, y + 0.025), (s * 0.15, 0.225)))
        for s in (-1, 1)
        for y in (0.13, 0.26)
    ]
    return [*ears, ("body", _arc(0, 0.08, 0.42, 0.38)), *eyes, nose, *whiskers]


def _fish() -> list[Part]:
    tail = _polygon((0.18, 0), (0.5, -0.26), (0.43, 0), (0.5, 0.26))
    fin = _polygon((-0.1, -0.18), (0.1, -0.36), (0.14, -0.14))
    mouth = ("dark", _polygon((-0.5, 0.03), (-0.38, 0.06), (-0.38, 0.09), (-0.48, 0.06)))
    return [
        ("body", tail),
        ("body", fin),
        ("body", _arc(-0.13, 0, 0.37, 0.24)),
        ("light", _arc(-0.3, -0.06, 0.06)),
        ("dark", _arc(-0.31, -0.06, 0.03)),
        mouth,
    ]


def _tree() -> list[Part]:
    tiers = [(0.36, 0.43), (0.14, 0.35), (-0.12, 0.26)]  # lower edge and half width
    boughs = [("body", _polygon((0, bottom - 0.38), (half, bottom), (-half, bottom))) for bottom, half in tiers]
    return [("dark", _rectangle(-0.08, 0.3, 0.08, 0.5)), *boughs]


def _bottle() -> Points:
    half = [(0.09, -0.4), (0.09, -0.22), (0.24, -0.02), (0.24, 0.5)]
    return _polygon(*half, *((-x, y) for x, y in reversed(half)))


def silhouette(kind: str, points: Points, width: int) -> Image.Image:
    """The mask (mode "1", `width` x `width`) of a shape whose polygons stand at `points` in image coordinates."""
    mask = Image.new("1", (width, width))
    pen = ImageDraw.Draw(mask)
    pixels = (points * width).tolist()
    for tone, start, end in shape(kind).spans:
        pen.polygon([tuple(point) for point in pixels[start:end]], fill=int(tone != "hole"))
    return mask


@cache
def shape(kind: str) -> Shape:
    """The shape of a kind named in `world.KINDS`."""
    parts: dict[str, list[Part]] = {
        "circle": [("body", _arc(0, 0, 0.47))],
        "square": [("body", _rectangle(-0.42, -0.42, 0.42, 0.42))],
        "triangle": [("body", _polygon((0, -0.45), (0.5, 0.42), (-0.5, 0.42)))],
        "star": [("body", _star())],
        "heart": [("body", _heart())],
        "moon": [("body", np.concatenate([_arc(0.1, 0, 0.5, 0.5, 50, 310), _arc(0.3, 0, 0.38, 0.39, 288, 72)]))],
        "ring": [("body", _arc(0, 0, 0.49)), ("hole", _arc(0, 0, 0.25))],
        "cross": [("body", _cross())],
        "house": [
            ("body", _rectangle(-0.36, -0.1, 0.36, 0.48)),
            ("body", _polygon((0, -0.5), (0.5, -0.08), (-0.5, -0.08))),
            ("dark", _rectangle(-0.24, 0.12, -0.04, 0.48)),
            ("light", _rectangle(0.08, 0.1, 0.26, 0.28)),
        ],
        "tree": _tree(),
        "fish": _fish(),
        "car": _car(),
        "cup": [
            ("body", _arc(0.28, 0.02, 0.21, 0.22)),
            ("hole", _arc(0.29, 0.02, 0.11, 0.12)),
            ("body", _polygon((-0.45, -0.4), (0.3, -0.4), (0.24, 0.42), (-0.39, 0.42))),
            ("dark", _arc(-0.075, -0.4, 0.36, 0.06)),
        ],
        "flower": _flower(),
        "boat": [
            ("dark", _rectangle(-0.04, -0.5, 0.01, 0.2)),
            ("body", _polygon((0.04, -0.46), (0.42, 0.1), (0.04, 0.1))),
            ("light", _polygon((-0.07, -0.38), (-0.07, 0.1), (-0.36, 0.1))),
            ("body", _polygon((-0.5, 0.17), (0.5, 0.17), (0.34, 0.44), (-0.34, 0.44))),
        ],
        "umbrella": _umbrella(),
        "mushroom": [
            ("light", _polygon((-0.13, 0), (0.13, 0), (0.17, 0.44), (-0.17, 0.44))),
            ("body", np.concatenate([_arc(0, 0.06, 0.5, 0.5, 180, 360), _arc(0, 0.06, 0.5, 0.08, 0, 180)])),
        ],
        "butterfly": _butterfly(),
        "cat": _cat(),
        "bottle": [
            ("dark", _rectangle(-0.11, -0.5, 0.11, -0.4)),
            ("body", _bottle()),
        ],
    }  # fmt: skip
    spans, start = [], 0
    for tone, points in parts[kind]:
        spans.append((tone, start, start + len(points)))
        start += len(points)
    return Shape(points=np.concatenate([points for _, points in parts[kind]]), spans=tuple(spans))
