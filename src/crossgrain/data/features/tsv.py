"""Tab-separated files with base64 columns: bottom-up-attention's own (tools/generate_tsv.py), and LXMERT's.

    bottom_up   image_id image_w image_h num_boxes boxes features
    lxmert      img_id img_h img_w objects_id objects_conf attrs_id attrs_conf num_boxes boxes features

Boxes are (x1, y1, x2, y2) in pixels, float32; features are float32, most often 2048 to a box. LXMERT's objects and
attributes (src/utils.py, `load_obj_tsv`) are int64 with float32 scores, counted from 0 without a background class.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64

from crossgrain.data.features.rows import (
    MAX_BOXES,
    FeatureRow,
    RowError,
    decoded,
    existing,
    fractions,
    row_or_dropped,
    whole_number,
)
from crossgrain.data.records import Dropped
from crossgrain.data.regions import RegionFeatures
from crossgrain.data.sets.annotations import read_lines

_BOTTOM_UP = ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features")
_LXMERT = (
    *("img_id", "img_h", "img_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf"),
    *("num_boxes", "boxes", "features"),
)
_MAX_SIDE = 10**6  # pixels


def read_bottom_up(path: Path) -> Iterator[FeatureRow | Dropped]:
    """The rows of bottom-up-attention's file: boxes and features, no labels (-1), scores 1."""
    return _rows(path, _BOTTOM_UP, _bottom_up)


def read_lxmert(path: Path) -> Iterator[FeatureRow | Dropped]:
    """The rows of LXMERT's file: with labels of 1600 objects and 400 attributes, and the objects' scores."""
    return _rows(path, _LXMERT, _lxmert)


def _rows(
    path: Path, columns: tuple[str, ...], make: Callable[[dict[str, str], str], FeatureRow]
) -> Iterator[FeatureRow | Dropped]:
    for number, line in read_lines(existing(path, "features", folder=False)):
        if line.strip():
            where = f"{path.name}:{number}"
            yield row_or_dropped(partial(_row, line, columns, make, where), where)


def _row(
    line: str, columns: tuple[str, ...], make: Callable[[dict[str, str], str], FeatureRow], where: str
) -> FeatureRow:
    values = line.split("\t")
    if len(values) != len(columns):
        raise RowError("malformed line", f"{len(values)} columns instead of {len(columns)}: {', '.join(columns)}")
    row = make(dict(zip(columns, values, strict=True)), where)
    if not row.image_id or not row.image_id.isprintable():
        raise RowError("malformed image name", repr(row.image_id))
    return row


def _bottom_up(values: dict[str, str], where: str) -> FeatureRow:
    _, size, boxes, features = _boxes(values, "image_w", "image_h")
    return FeatureRow(values["image_id"], RegionFeatures.of(boxes, features), where, size)


def _lxmert(values: dict[str, str], where: str) -> FeatureRow:
    num, size, boxes, features = _boxes(values, "img_w", "img_h")
    labels = _ids(values, "objects_id", num, 1600)
    attributes = _ids(values, "attrs_id", num, 400)
    scores = decoded(values["objects_conf"], "<f4", num, 0, "objects_conf")
    regions = RegionFeatures.of(boxes, features, labels, scores, attributes=attributes)
    return FeatureRow(values["img_id"], regions, where, size)


def _ids(values: dict[str, str], name: str, num: int, classes: int) -> Int64[np.ndarray, " N"]:
    ids = decoded(values[name], "<i8", num, 0, name)
    if ((ids < 0) | (ids >= classes)).any():
        raise RowError("label out of range", f"{name} {ids.min()} to {ids.max()} of {classes}")
    return ids


def _boxes(
    values: dict[str, str], width_name: str, height_name: str
) -> tuple[int, tuple[int, int], Float[np.ndarray, "N 4"], Float[np.ndarray, "N F"]]:
    """Number of boxes, (width, height) of the image in pixels, boxes as fractions of it, features."""
    num = whole_number(values["num_boxes"], "num_boxes", 0, MAX_BOXES)
    width, height = (whole_number(values[name], name, 1, _MAX_SIDE) for name in (width_name, height_name))
    boxes = fractions(decoded(values["boxes"], "<f4", num, 4, "boxes"), width, height)
    return num, (width, height), boxes, decoded(values["features"], "<f4", num, None, "features")
