"""UNITER's features: a folder of .npz files, or the LMDB that its scripts/convert_imgdir.py makes of one.

An image is `features` (N, 2048), `norm_bb` (N, 6): (x1, y1, x2, y2, w, h) in [0, 1], and where they were kept `conf`
(N,) and `soft_labels` (N, 1601) with the background in column 0, which is no label (model/pretrain.py, `forward_mrc`).
All boxes that are stored are taken: UNITER itself cuts them by `conf` when it makes the LMDB.
"""

import importlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from crossgrain.config import UserError
from crossgrain.data.features.rows import (
    MAX_BOXES,
    FeatureRow,
    RowError,
    best_classes,
    existing,
    row_or_dropped,
    wanted,
)
from crossgrain.data.records import Dropped
from crossgrain.data.regions import MAX_BYTES, RegionFeatures, read_npz

_NAMES = ("features", "norm_bb", "conf", "soft_labels")
_ZIP = b"PK"  # how an .npz begins


def read_npz_folder(path: Path) -> Iterator[FeatureRow | Dropped]:
    """The files `*.npz` of a folder and those below it, in the order of their names."""
    for file in sorted(existing(path, "features", folder=True).rglob("*.npz")):
        yield row_or_dropped(partial(_read_file, file), file.name)


def read_lmdb(path: Path) -> Iterator[FeatureRow | Dropped]:
    """The images of an LMDB (a folder with `data.mdb`), in the order of their names. UserError without package lmdb."""
    existing(path, "LMDB", folder=True)
    existing(path / "data.mdb", "LMDB", folder=False)
    lmdb = _package("lmdb")
    with (
        lmdb.open(str(path), readonly=True, lock=False, create=False, readahead=False) as environment,
        environment.begin(buffers=True) as transaction,
    ):
        for key, value in transaction.cursor():
            name = bytes(key).decode("utf-8", "backslashreplace")
            if name != "__keys__":
                yield row_or_dropped(partial(_read_value, name, value), f"{path.name} {name}")


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"these features need the package {name}: pip install {name}") from None


def _read_file(file: Path) -> FeatureRow:
    if file.stat().st_size > MAX_BYTES:
        raise RowError("too many bytes", str(file.stat().st_size))
    return _row(file.stem, _unpacked(file.read_bytes()), file.name)


def _read_value(name: str, value: memoryview) -> FeatureRow:
    data = bytes(value)
    if data.startswith(_ZIP):
        return _row(name, _unpacked(data), name)
    msgpack = _package("msgpack")
    try:
        values = msgpack.unpackb(data, raw=False, object_hook=_array)
    except (ValueError, TypeError, LookupError, RecursionError, msgpack.UnpackException) as error:
        raise RowError("malformed msgpack", f"{type(error).__name__}: {error}") from None
    return _row(name, values if isinstance(values, dict) else {}, name)


def _unpacked(data: bytes) -> dict[str, np.ndarray]:
    try:
        return read_npz(data, _NAMES)
    except (BadZipFile, ValueError, EOFError, OSError, RuntimeError) as error:
        raise RowError("malformed npz", str(error)) from None


def _array(values: dict[Any, Any]) -> Any:
    """An array from the map that the package msgpack-numpy writes in its place."""
    if b"nd" not in values:
        return values
    dtype = np.dtype(values[b"type"])
    if dtype.kind not in "biuf":
        raise ValueError(f"array of type {dtype}")
    return np.frombuffer(values[b"data"], dtype).reshape(values.get(b"shape", ()))


def _row(name: str, values: Mapping[Any, Any], where: str) -> FeatureRow:
    features, boxes = wanted(values, "features", "norm_bb")
    conf, probs = values.get("conf"), values.get("soft_labels")
    arrays = [array for array in (features, boxes, conf, probs) if array is not None]
    if (
        not all(isinstance(array, np.ndarray) and array.ndim for array in arrays)
        or boxes.ndim != 2
        or boxes.shape[1] < 4
    ):
        raise RowError("malformed features", f"norm_bb of shape {getattr(boxes, 'shape', None)}")
    if len(boxes) > MAX_BOXES:
        raise RowError("malformed features", f"{len(boxes)} boxes")
    labels = best = None
    if probs is not None:
        labels, best = best_classes(probs)
    corners = boxes[:, :4].astype(np.float32)
    if not ((corners > -0.01) & (corners < 1.01)).all():
        raise RowError("box outside the image", str(corners.tolist()[:3]))
    scores = best if conf is None else conf.reshape(-1)
    return FeatureRow(name.removesuffix(".npz"), RegionFeatures.of(corners, features, labels, scores, probs), where)
