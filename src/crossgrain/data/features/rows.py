"""What every format of region features shares: the row, decoding, boxes, and one way to say what is wrong with it."""

from base64 import b64decode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, Shaped

from crossgrain.config import UserError
from crossgrain.data.records import Dropped
from crossgrain.data.regions import RegionFeatures

T = TypeVar("T")

MAX_BOXES = 1000  # of one image
_EDGE = 1.0  # pixels by which a box may lie over the image's edge


class FeatureRow(NamedTuple):
    """The regions of one image as a file gives them."""

    image_id: str
    regions: RegionFeatures
    where: str  # file, and line or member
    size: tuple[int, int] | None = None  # (width, height) of the image in pixels, where the file says it


class RowError(ValueError):
    """A row that cannot be used: `reason` is the rule in fixed words, so that equal ones are counted together."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def row_or_dropped(make: Callable[[], FeatureRow], where: str) -> FeatureRow | Dropped:
    """The row, or why it cannot be used."""
    try:
        return make()
    except RowError as error:
        return Dropped(reason=error.reason, where=where, detail=error.detail[:200])
    except ValueError as error:  # of RegionFeatures: not finite, a label out of range
        return Dropped(reason="malformed features", where=where, detail=str(error)[:200])


def existing(path: Path, what: str, folder: bool) -> Path:
    """`path` where it is a file (a folder); UserError else."""
    if path.is_dir() if folder else path.is_file():
        return path
    raise UserError(f"no {what} at {path}: it must be a {'folder' if folder else 'file'}")


def whole_number(value: Any, name: str, low: int, high: int) -> int:
    """An integer in [low, high], from a number or its digits."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        raise RowError("malformed number", f"{name} {str(value)[:40]!r}") from None
    if not low <= number <= high:
        raise RowError("malformed number", f"{name} {str(number)[:40]} is not between {low} and {high}")
    return number


def decoded(text: Any, dtype: str, rows: int, columns: int | None, name: str) -> Shaped[np.ndarray, "..."]:
    """The array that a base64 text holds: (rows, columns), or (rows,) for `columns` 0; None takes what there is."""
    try:
        data = b64decode(text, validate=True)
    except (TypeError, ValueError) as error:
        raise RowError("malformed base64", f"{name}: {error}") from None
    size = np.dtype(dtype).itemsize
    wanted = None if columns is None else rows * max(columns, 1) * size
    if (wanted is not None and len(data) != wanted) or len(data) % max(rows * size, 1) or (not rows and data):
        raise RowError("wrong number of values", f"{name}: {len(data)} bytes for {rows} boxes")
    values = np.frombuffer(data, dtype)
    return values if columns == 0 else values.reshape(rows, -1 if rows else columns or 0)


def fractions(boxes: Float[np.ndarray, "N 4"], width: int, height: int) -> Float[np.ndarray, "N 4"]:
    """Boxes (x1, y1, x2, y2) in pixels as fractions of the image."""
    size = np.array([width, height, width, height], np.float32)
    if not np.isfinite(boxes).all() or (boxes < -_EDGE).any() or (boxes > size + _EDGE).any():
        raise RowError("box outside the image", f"{boxes.tolist()[:3]} in {width} x {height}"[:200])
    if (boxes[:, :2] > boxes[:, 2:]).any():
        raise RowError("degenerate box", f"{boxes.tolist()[:3]}"[:200])
    return np.clip(boxes / size, 0, 1)


def best_classes(probs: Float[np.ndarray, "N K"]) -> tuple[np.ndarray, np.ndarray]:
    """Label and score of each region from its class probabilities; column 0 is background, which is no label."""
    if probs.ndim != 2 or probs.shape[1] < 2:
        raise RowError("malformed features", f"class probabilities of shape {probs.shape}")
    objects = probs[:, 1:].astype(np.float32)
    return objects.argmax(1) + 1, objects.max(1, initial=0)


def wanted(values: Mapping[Any, T], *names: str) -> list[T]:
    """Some values of a mapping from a file."""
    missing = [name for name in names if name not in values]
    if missing:
        raise RowError("malformed entry", f"no {', '.join(missing)}")
    return [values[name] for name in names]
