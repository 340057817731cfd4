"""VL-BERT's features: one JSON file an image with base64 values (pretrain/data/datasets/conceptual_captions.py:98-116).

    {"image_w", "image_h", "num_boxes", "boxes", "classes", "features"}

Boxes are in pixels; `classes` are probabilities, with the background in column 0 of 1601; all are float32. Regions are
sorted by their largest probability, as the original does when it reads them.
"""

import json
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from crossgrain.config import UserError
from crossgrain.data.features.rows import (
    MAX_BOXES,
    FeatureRow,
    RowError,
    best_classes,
    decoded,
    existing,
    fractions,
    row_or_dropped,
    wanted,
    whole_number,
)
from crossgrain.data.records import Dropped
from crossgrain.data.regions import MAX_BYTES, RegionFeatures


def read(path: Path) -> Iterator[FeatureRow | Dropped]:
    """The images of a folder of JSON files (and those below it), of a zip of them, or of one such file."""
    if path.is_dir():
        for file in sorted(path.rglob("*.json")):
            yield row_or_dropped(partial(_read_file, file), file.name)
    elif path.suffix == ".zip":
        yield from _read_zip(existing(path, "features", folder=False))
    else:
        file = existing(path, "features", folder=False)
        yield row_or_dropped(partial(_read_file, file), file.name)


def _read_zip(path: Path) -> Iterator[FeatureRow | Dropped]:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.endswith(".json"):
                    where = f"{path.name} {member.filename}"
                    yield row_or_dropped(partial(_read_member, archive, member, where), where)
    except zipfile.BadZipFile as error:
        raise UserError(f"{path}: {error}") from None


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> FeatureRow:
    _check_size(member.file_size)
    try:
        data = archive.read(member)
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError) as error:  # among them unknown compressions
        raise RowError("broken zip member", str(error)) from None
    return _row(PurePosixPath(member.filename).stem, data, where)


def _read_file(file: Path) -> FeatureRow:
    _check_size(file.stat().st_size)
    return _row(file.stem, file.read_bytes(), file.name)


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise RowError("too many bytes", str(size))


def _row(image_id: str, data: bytes, where: str) -> FeatureRow:
    try:
        values: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RowError("malformed JSON", str(error)) from None
    if not isinstance(values, dict):
        raise RowError("malformed entry", f"a {type(values).__name__}, not an object")
    num, width, height = wanted(values, "num_boxes", "image_w", "image_h")
    num = whole_number(num, "num_boxes", 0, MAX_BOXES)
    size = (whole_number(width, "image_w", 1, 10**6), whole_number(height, "image_h", 1, 10**6))
    texts = wanted(values, "boxes", "classes", "features")
    boxes, probs, features = (
        decoded(text, "<f4", num, columns, name)
        for text, name, columns in zip(texts, ("boxes", "classes", "features"), (4, None, None), strict=True)
    )
    order = np.argsort(-probs.max(1, initial=0), kind="stable")
    labels, scores = best_classes(probs[order]) if num else (None, None)
    corners = fractions(boxes, *size)[order]
    return FeatureRow(image_id, RegionFeatures.of(corners, features[order], labels, scores, probs[order]), where, size)
