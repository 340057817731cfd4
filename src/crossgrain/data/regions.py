"""What a detector found in the images: the noun, its bytes, and how it is kept beside the shards.

    000000.regions.tar      KEY.regions.npz of the records of 000000.tar, the same bytes for the same detections
    000000.regions.parquet  one row a record, in the order of 000000.parquet: key, offset, size, num (offset -1: none)
    regions.json            format, the detector's stamp, and whether all shards are done

A shard is done when its parquet file stands, which is renamed into place last: what was killed half way continues from
there, and several processes may do different shards. Features of different detectors are never mixed: the stamp says
which detector, weights and thresholds made them. No torch.
"""

import io
import json
import math
import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from crossgrain.config import UserError
from crossgrain.data.manifest import read_manifest, shard_names
from crossgrain.data.tars import TarWriter, read_columns, write_table

FORMAT_VERSION = 1
REGIONS = "regions.json"
REGIONS_TAR, REGIONS_TABLE = ".regions.tar", ".regions.parquet"
UNKNOWN_LABEL = -1  # of regions whose file says nothing of classes
MAX_BYTES = 64 * 2**20  # of one image's regions: 1000 regions of 2048 features, 1601 classes are 7 MB
_COLUMNS = {"key": "string", "offset": "int64", "size": "int64", "num": "int32"}
_DTYPES = {
    "boxes": "<f4",
    "features": "<f2",
    "labels": "<i4",
    "scores": "<f4",
    "class_probs": "<f2",
    "attributes": "<i4",
}
_CHOICE_OF_BOXES = ("boxes", "annotated_splits")  # of a stamp: not what described, but what was described
_LARGEST = 65504.0  # of float16


@dataclass(frozen=True, slots=True, eq=False)
class RegionFeatures:
    """The regions of one image. N is 0 where a detector found nothing, or could not read the image.

    `labels` index the columns of `class_probs` where there are any (official files with a background column keep it);
    -1 is unknown. ValueError where the arrays do not fit each other (checked here and always, not by types in tests:
    files and detectors of others make them).
    """

    boxes: np.ndarray  # float32 (N, 4): (x1, y1, x2, y2) in [0, 1], x1 <= x2, y1 <= y2
    features: np.ndarray  # float16 (N, F)
    labels: np.ndarray  # int32 (N,)
    scores: np.ndarray  # float32 (N,)
    class_probs: np.ndarray | None = None  # float16 (N, K)
    attributes: np.ndarray | None = None  # int32 (N,)

    def __post_init__(self) -> None:
        problem = _problem({name: array for name in _DTYPES if (array := getattr(self, name)) is not None})
        if problem:
            raise ValueError(f"regions: {problem}")

    @staticmethod
    def of(
        boxes: Any,
        features: Any,
        labels: Any = None,
        scores: Any = None,
        class_probs: Any = None,
        attributes: Any = None,
    ) -> "RegionFeatures":
        """From arrays of any dtype: boxes clipped to the image, features to the range of float16.

        Without `labels` they are unknown, without `scores` 1.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            boxes = np.clip(np.asarray(boxes, np.float32).reshape(-1, 4), 0, 1)
            features = np.clip(np.asarray(features, np.float32), -_LARGEST, _LARGEST).astype(np.float16)
            probs = None if class_probs is None else np.asarray(class_probs).astype(np.float16)
        num = len(boxes)
        return RegionFeatures(
            boxes=boxes,
            features=features,
            labels=np.full(num, UNKNOWN_LABEL, np.int32) if labels is None else np.asarray(labels, np.int32),
            scores=np.ones(num, np.float32) if scores is None else np.asarray(scores, np.float32),
            class_probs=probs,
            attributes=None if attributes is None else np.asarray(attributes, np.int32),
        )

    @staticmethod
    def empty(feature_size: int, num_classes: int = 0) -> "RegionFeatures":
        """No region; `num_classes` is K where the detector gives class probabilities."""
        probs = np.zeros((0, num_classes)) if num_classes else None
        return RegionFeatures.of(np.zeros((0, 4)), np.zeros((0, feature_size)), class_probs=probs)

    def __len__(self) -> int:
        return len(self.boxes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RegionFeatures):
            return False
        pairs = [(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)]
        return all(a is b or (a is not None and b is not None and np.array_equal(a, b)) for a, b in pairs)

    __hash__ = None  # pyright: ignore[reportAssignmentType] - arrays have no hash

    def to_bytes(self) -> bytes:
        """An .npz file, not compressed; equal regions give equal bytes on every machine."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, dtype in _DTYPES.items():
                array = getattr(self, name)
                if array is None:
                    continue
                info = zipfile.ZipInfo(f"{name}.npy")  # 1980-01-01
                info.create_system = 3  # as Unix writes it, also elsewhere
                member = io.BytesIO()
                np.lib.format.write_array(member, np.ascontiguousarray(array, dtype), version=(1, 0))
                archive.writestr(info, member.getvalue())
        return buffer.getvalue()

    @staticmethod
    def from_bytes(data: bytes) -> "RegionFeatures":
        """The inverse of `to_bytes`. ValueError for anything else, without unpickling or filling the memory."""
        try:
            arrays = read_npz(data)
        except (zipfile.BadZipFile, ValueError, EOFError, OSError, RuntimeError) as error:
            raise ValueError(f"no regions of an image: {error}") from None
        for name, array in arrays.items():
            if name not in _DTYPES or array.dtype != _DTYPES[name]:
                raise ValueError(f"no regions of an image: {name} of type {array.dtype}")
        if missing := [name for name in ("boxes", "features", "labels", "scores") if name not in arrays]:
            raise ValueError(f"no regions of an image: no {', '.join(missing)}")
        return RegionFeatures(**arrays)


def joined(first: RegionFeatures, second: RegionFeatures) -> RegionFeatures:
    """The regions of an image behind other regions of it; both tell the same of each. ValueError where they do not."""
    if not len(first) or not len(second):
        return first if len(first) else second
    columns: dict[str, np.ndarray] = {}
    for name in _DTYPES:
        parts = [part for one in (first, second) if (part := getattr(one, name)) is not None]
        if len(parts) == 1:
            raise ValueError(f"regions: {name} of one part alone")
        if parts:
            columns[name] = np.concatenate(parts)
    return RegionFeatures(**columns)


def read_npz(data: bytes, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an .npz file of at most `MAX_BYTES` (unpacked), those of `names` or all: numbers, never objects.

    ValueError and zipfile's own errors for what is none.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        chosen = {name: member for name, member in members.items() if names is None or name in names}
        if sum(member.file_size for member in chosen.values()) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        return {name: _read_array(archive.read(member)) for name, member in chosen.items()}


def _read_array(data: bytes) -> np.ndarray:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"array of version {version}")
    shape, fortran, dtype = readers[version](file)
    if dtype.kind not in "biufSU":  # objects are pickles
        raise ValueError(f"array of type {dtype}")
    # By hand, as numpy makes room for whatever shape the header promises before it looks for the data.
    if math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"array of shape {shape} in {len(data) - file.tell()} bytes")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape, order="F" if fortran else "C").copy()


def _problem(arrays: Mapping[str, np.ndarray]) -> str:
    """Why some arrays are not the regions of one image, "" if they are."""
    num = len(arrays["boxes"]) if arrays["boxes"].ndim else 0
    shapes = {"boxes": (num, 4), "features": (num, None), "class_probs": (num, None)}
    for name, array in arrays.items():
        shape = shapes.get(name, (num,))
        fits = array.ndim == len(shape) and all(
            want in (None, got) for want, got in zip(shape, array.shape, strict=True)
        )
        if not fits or array.dtype != _DTYPES[name]:
            return f"{name} is {array.dtype} {array.shape}, not {np.dtype(_DTYPES[name])} {shape}"
        if array.dtype.kind == "f" and not _is_finite(array):
            return f"{name} is not finite"
    boxes = arrays["boxes"]
    if (boxes < 0).any() or (boxes > 1).any() or (boxes[:, :2] > boxes[:, 2:]).any():
        return "a box is not x1 <= x2, y1 <= y2 in [0, 1]"
    probs, labels = arrays.get("class_probs"), arrays["labels"]
    if (labels < UNKNOWN_LABEL).any() or (probs is not None and (labels >= probs.shape[1]).any()):
        return f"label {labels.max()} of {probs.shape[1] if probs is not None else 'unknown'} classes"
    return ""


def _is_finite(array: np.ndarray) -> bool:
    """As `np.isfinite(array).all()`; float16, which numpy converts first, by its exponent bits: ten times as fast."""
    if array.dtype == np.float16 and array.flags.c_contiguous:
        return bool(((array.view(np.uint16) & 0x7C00) != 0x7C00).all())
    return bool(np.isfinite(array).all())


def detector_of(stamp: Mapping[str, Any]) -> dict[str, Any]:
    """A stamp without what says which boxes were described: a model may read them all, from the same detector."""
    return {name: value for name, value in stamp.items() if name not in _CHOICE_OF_BOXES}


def stamp_text(stamp: Mapping[str, Any]) -> str:
    """A stamp on one line; the detector's own settings in brackets."""
    return ", ".join(f"{name} {_value_text(value)}" for name, value in stamp.items())


def _value_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({stamp_text(value)})"
    return value if isinstance(value, str) else json.dumps(value)


def read_stamp(folder: Path) -> dict[str, Any] | None:
    """The stamp of the regions in a data set, finished or not; None where there are none."""
    state = _read_state(folder)
    return None if state is None else state["stamp"]


def has_regions(folder: Path) -> bool:
    """Whether every shard of the data set has its regions."""
    state = _read_state(folder)
    return state is not None and state["complete"]


def open_regions(folder: Path, stamp: Mapping[str, Any], overwrite: bool = False) -> set[str]:
    """Begin or continue to give a data set its regions; the shards that are done already with this stamp.

    UserError, showing both stamps, where regions of another detector stand there, unless `overwrite` removes them.
    """
    names = shard_names(read_manifest(folder))
    found = read_stamp(folder)
    done = {name for name in names if (folder / f"{name}{REGIONS_TABLE}").exists()}
    begun = found == _plain(stamp) and not has_regions(folder)  # by the same call, which was broken off
    if (overwrite and not begun) or (found is None and not done):
        remove_regions(folder, names)
        _write_state(folder, {**_NEW, "stamp": _plain(stamp)})
        return set()
    if found != _plain(stamp):
        shown = "no known detector" if found is None else stamp_text(found)
        raise UserError(
            f"{folder} already holds regions of another detector; say overwrite=true to replace them\n"
            f"  there:  {shown}\n  wanted: {stamp_text(stamp)}"
        )
    return done


def write_region_shard(folder: Path, shard: str, items: Iterable[tuple[str, RegionFeatures]]) -> None:
    """Write the regions of one shard's records, in any order; they stand in it when all are written, or not at all.

    ValueError for a key that the shard has not, or twice. A record that no item names stays without regions.
    """
    keys = _keys(folder, shard)
    rows: dict[str, dict[str, Any]] = {key: {"key": key, "offset": -1, "size": 0, "num": 0} for key in keys}
    parts = [folder / f".{shard}{suffix}.{os.getpid()}" for suffix in (REGIONS_TAR, REGIONS_TABLE)]
    tar = TarWriter(parts[0])
    try:
        for key, regions in items:
            if rows.get(key, {}).get("offset") != -1:
                raise ValueError(f"{key!r} is no record of shard {shard}, or came twice")
            data = regions.to_bytes()
            rows[key].update(offset=tar.add(f"{key}.regions.npz", data), size=len(data), num=len(regions))
        tar.finish()
        write_table(parts[1], _COLUMNS, list(rows.values()))
        for part, suffix in zip(parts, (REGIONS_TAR, REGIONS_TABLE), strict=True):
            part.replace(folder / f"{shard}{suffix}")
    finally:
        tar.close()
        for part in parts:
            part.unlink(missing_ok=True)


def finish_regions(folder: Path) -> bool:
    """Say in `regions.json` which shards are done, and whether these are all; the latter is returned too."""
    names = shard_names(read_manifest(folder))
    done = [name for name in names if (folder / f"{name}{REGIONS_TABLE}").exists()]
    state = _read_state(folder)
    if state is None:
        raise UserError(f"{folder} has no {REGIONS}: its regions were not begun with open_regions")
    _write_state(folder, {**state, "shards": done, "complete": done == names})
    for part in folder.glob(".[0-9]*.regions.*"):  # of processes that were killed
        part.unlink(missing_ok=True)
    return done == names


def remove_regions(folder: Path, names: Sequence[str]) -> None:
    """Remove the regions of the shards `names` from a data set, `regions.json` first."""
    for name in region_files(names):
        (folder / name).unlink(missing_ok=True)


def region_files(names: Sequence[str]) -> list[str]:
    """The files that hold the regions of the shards `names`, there or not."""
    return [REGIONS, *(name + suffix for name in names for suffix in (REGIONS_TABLE, REGIONS_TAR))]


def read_positions(folder: Path, lengths: Mapping[str, int]) -> Int64[np.ndarray, "R 2"]:
    """Offset and size of each record's regions, over the shards with their numbers of records; offset -1: none.

    UserError where not every shard has its regions.
    """
    if not has_regions(folder):
        there = "no" if read_stamp(folder) is None else "not all of its"
        raise UserError(f"{folder} has {there} regions: run `crossgrain detect {folder}`")
    files = {folder / f"{name}{REGIONS_TABLE}": length for name, length in lengths.items()}
    columns = {name: _COLUMNS[name] for name in ("offset", "size")}
    return np.stack(read_columns(files, columns, "crossgrain detect"), axis=1)


_NEW = {"format": "crossgrain regions", "format_version": FORMAT_VERSION, "stamp": {}, "shards": [], "complete": False}


def _plain(stamp: Mapping[str, Any]) -> dict[str, Any]:
    """A stamp as JSON gives it back (tuples are lists)."""
    return json.loads(json.dumps(dict(stamp)))


def _keys(folder: Path, shard: str) -> list[str]:
    lengths = {entry["name"]: entry["records"] for entry in read_manifest(folder)["shards"]}
    if shard not in lengths:
        raise ValueError(f"{folder} has no shard {shard!r}")
    files = {folder / f"{shard}.parquet": lengths[shard]}
    return read_columns(files, {"key": "string"}, "crossgrain prepare")[0].tolist()


def _read_state(folder: Path) -> dict[str, Any] | None:
    file = folder / REGIONS
    if not file.is_file():
        return None
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        version, stamp, complete = state["format_version"], state["stamp"], state["complete"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is not readable: {error}") from None
    if version != FORMAT_VERSION or not isinstance(stamp, dict) or not isinstance(complete, bool):
        raise UserError(f"{file} has format version {version!r}; this version of crossgrain reads {FORMAT_VERSION}")
    return state


def _write_state(folder: Path, state: Mapping[str, Any]) -> None:
    part = folder / f".{REGIONS}.{os.getpid()}"
    part.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    part.replace(folder / REGIONS)
