"""A data set on disk: tar shards that any WebDataset reader reads, with an index that makes every record one read.

    000000.tar       KEY.jpg, KEY.json, KEY.jpg, ... in the WebDataset convention, the same bytes for the same records
    000000.parquet   one row a record: key, split, byte offsets, sizes of image and texts
    000000.regions.* what a detector found in them, once there is any (see `regions.py`)
    manifest.json    format, source, records by split, shards with their SHA-256; a folder without it is unfinished

All splits live together; `split` is a column. No torch; pyarrow is imported when a file is read or written.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np

from crossgrain.config import UserError
from crossgrain.data.manifest import FORMAT_VERSION, MANIFEST, read_manifest, shard_names
from crossgrain.data.records import Record, record_from_json, record_to_json
from crossgrain.data.regions import REGIONS_TAR, RegionFeatures, has_regions, read_positions, region_files
from crossgrain.data.removal import JOURNAL, finish_removal, locked
from crossgrain.data.tars import TarWriter, read_columns, read_member, write_table
from crossgrain.documents.writing import write_whole

_AGAIN = "crossgrain prepare"
_WORK = ".partial"  # everything is written here and renamed into the data set's folder when it is whole
_REPLACED = "replaced.json"  # in it: the files of the data set that goes
_COLUMNS = {  # what a sidecar says of each record, with its Arrow type
    "key": "string",
    "split": "string",
    "image_extension": "string",
    "image_offset": "int64",
    "image_size": "int64",
    "json_offset": "int64",
    "json_size": "int64",
    "width": "int32",
    "height": "int32",
    "num_captions": "int32",
    "num_regions": "int32",
    "num_questions": "int32",  # of each task's material, what has an answer to learn from
    "num_pairs": "int32",
    "num_choices": "int32",
    "num_expressions": "int32",
    "image_sha256": "string",
}
_COUNTED = [name.removeprefix("num_") for name in _COLUMNS if name.startswith("num_")]
_TRUTH = {"questions": "answers", "pairs": "label", "choices": "answer_label", "expressions": "index"}
_POSITION = ("image_offset", "image_size", "json_offset", "json_size")


def texts_of(record: Record, kind: str) -> Sequence[Any]:
    """Captions, regions, or a task's material of a record, as far as the truth is known that training needs."""
    if kind in ("captions", "regions"):
        return record.captions if kind == "captions" else record.regions
    truth = _TRUTH[kind]
    return [item for item in record.extra.get(kind, ()) if item.get(truth) not in (None, [])]


class ShardFile:
    """One shard that is being written: its tar, and the rows of its sidecar, which are written at the end."""

    def __init__(self, tar: Path):
        self._tar = TarWriter(tar)
        self._rows: list[dict[str, Any]] = []

    @property
    def num_records(self) -> int:
        """How many records it has so far."""
        return len(self._rows)

    def write(self, record: Record, extension: str, width: int, height: int) -> None:
        """See `ShardWriter.write`."""
        assert isinstance(record.image, bytes)
        texts = json.dumps(record_to_json(record), ensure_ascii=True, separators=(",", ":")).encode()
        row = {
            "key": record.key,
            "split": record.split,
            "image_extension": extension,
            "image_offset": self._tar.add(f"{record.key}.{extension}", record.image),
            "image_size": len(record.image),
            "json_offset": self._tar.add(f"{record.key}.json", texts),
            "json_size": len(texts),
            "width": width,
            "height": height,
            **{f"num_{texts}": len(texts_of(record, texts)) for texts in _COUNTED},
            "image_sha256": hashlib.sha256(record.image).hexdigest(),
        }
        self._rows.append(row)

    def finish(self, sidecar: Path) -> str:
        """Close the tar and write the sidecar; the SHA-256 of the tar."""
        sha256 = self._tar.finish()
        write_table(sidecar, _COLUMNS, self._rows)
        return sha256

    def close(self) -> None:
        """Close the tar as it is, unfinished."""
        self._tar.close()


def shard_name(number: int) -> str:
    """What the files of a shard are called: "000000"."""
    return f"{number:06d}"


def write_manifest(
    folder: Path, source: Mapping[str, Any], splits: Mapping[str, int], shards: Sequence[Mapping[str, Any]]
) -> None:
    """Write the manifest of shards that stand in a folder; each has `name`, `records` and the `sha256` of its tar."""
    manifest = {
        "format": "crossgrain shards",
        "format_version": FORMAT_VERSION,
        "source": dict(source),
        "splits": dict(sorted(splits.items())),
        "shards": [*shards],
    }
    write_whole(folder / MANIFEST, [json.dumps(manifest, indent=1), "\n"])


class ShardWriter:
    """Writes records into shards, in the order that they come.

    A context manager: leaving it finishes the data set by renames with the manifest last, leaving it with an error
    removes what was begun. Files put into `folder` by the caller (a vocabulary, a report) are renamed along. A folder
    that holds a data set is a UserError unless `overwrite` is set; one that holds other tars always is, and one that
    another process writes to.
    """

    def __init__(
        self,
        path: Path,
        records_per_shard: int = 1000,
        *,
        source: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ):
        self.path = Path(path)
        self.folder = self.path / _WORK
        self.records_per_shard = records_per_shard
        self.source = dict(source or {})
        self.overwrite = overwrite
        self._shards: list[dict[str, Any]] = []
        self._shard: ShardFile | None = None
        self._counts: Counter[str] = Counter()

    def __enter__(self) -> "ShardWriter":
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file: --out names a folder")
        self._made_folder = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(locked(self.path))
            _make_free(self.path, self.overwrite)
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir()
            self._lock = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        with self._lock:
            if kind is None:
                self._finish()
            elif self._shard is not None:
                self._shard.close()
            shutil.rmtree(self.folder, ignore_errors=True)
            if kind is not None and self._made_folder:
                self.path.rmdir()

    def write(self, record: Record, extension: str, width: int, height: int) -> None:
        """Append one record, whose `image` is the encoded file's bytes; `extension` names its format ("jpg", "png")."""
        if self._shard is None:
            self._shard = ShardFile(self.folder / f"{shard_name(len(self._shards))}.tar")
        self._shard.write(record, extension, width, height)
        self._counts[record.split] += 1
        if self._shard.num_records == self.records_per_shard:
            self._end_shard()

    def _end_shard(self) -> None:
        assert self._shard is not None
        name, num_records = shard_name(len(self._shards)), self._shard.num_records
        sha256 = self._shard.finish(self.folder / f"{name}.parquet")
        self._shard = None
        self._shards.append({"name": name, "records": num_records, "sha256": sha256})

    def _finish(self) -> None:
        if self._shard is not None:
            self._end_shard()
        write_manifest(self.folder, self.source, self._counts, self._shards)
        files = sorted(self.folder.iterdir(), key=lambda file: (file.name == MANIFEST, file.name))
        old = _shard_files(self.path)
        write_whole(self.folder / _REPLACED, [json.dumps(old)])
        (self.path / MANIFEST).unlink(missing_ok=True)
        for name in [*old, "vocab.txt", "validation.json", JOURNAL]:
            (self.path / name).unlink(missing_ok=True)
        for file in files:
            file.replace(self.path / file.name)


def _make_free(path: Path, overwrite: bool) -> None:
    """Refuse a folder that holds data; clear what a run left behind that was killed while it renamed its shards."""
    work = path / _WORK
    if (path / MANIFEST).exists():
        if not overwrite:
            raise UserError(f"{path} already holds a data set: choose another folder, or say --overwrite")
        finish_removal(path)
    elif (work / MANIFEST).exists():
        old = json.loads((work / _REPLACED).read_text(encoding="utf-8")) if (work / _REPLACED).exists() else []
        for name in [*_shard_files(work), *old]:
            (path / name).unlink(missing_ok=True)
    listed = _shard_files(path)
    strangers = [file for file in sorted(path.glob("*.tar")) if file.name not in listed]
    if strangers:
        raise UserError(f"{strangers[0]} belongs to no finished data set: choose another folder for --out")


def _shard_files(folder: Path) -> list[str]:
    """The files of the data set in a folder but its manifest; none where there is none."""
    if not (folder / MANIFEST).exists():
        return []
    names = shard_names(read_manifest(folder))
    return [*(name + suffix for name in names for suffix in (".tar", ".parquet")), *region_files(names)]


class Shards(Sequence[Record]):
    """The records of a data set, or of one split of it, by number; `shards[i].image` is the encoded file's bytes.

    The index is a few numpy arrays, whatever the number of records; an access opens the tar, reads image and texts at
    once and closes it, so that an object may be pickled, forked and used by threads. With `regions`, records come with
    what a detector found in them (`detected`, None where it was not asked); without `images` their own files are not
    read, and `image` is empty. UserError if the folder holds no data set, `split` is none of its splits, or regions are
    wanted and not all there.
    """

    def __init__(self, path: Path | str, split: str | None = None, regions: bool = False, images: bool = True):
        self.path = Path(path)
        self._images = images
        self.split = split
        self.manifest = read_manifest(self.path)
        self._names = shard_names(self.manifest)
        self._lengths = [shard["records"] for shard in self.manifest["shards"]]
        splits = self.split_names()
        if split is not None and split not in splits:
            raise UserError(f"{self.path} has no split {split!r}: its splits are {', '.join(splits) or 'none'}")
        if not splits:
            raise UserError(f"the data set in {self.path} is empty")
        chosen, *position = self._read_columns("split", *_POSITION)
        self._chosen = slice(None) if split is None else np.flatnonzero(chosen == split)
        self._shard = np.repeat(np.arange(len(self._names), dtype=np.int32), self._lengths)[self._chosen]
        self._position = np.stack([column[self._chosen] for column in position], axis=1)
        lengths = dict(zip(self._names, self._lengths, strict=True))
        self._regions = read_positions(self.path, lengths)[self._chosen] if regions else None

    def has_regions(self) -> bool:
        """Whether a detector has been over the whole data set, so that `regions=True` gives what it found."""
        return has_regions(self.path)

    def split_names(self) -> dict[str, int]:
        """The splits of the whole data set, with their numbers of records."""
        return dict(self.manifest["splits"])

    def column(self, name: str) -> np.ndarray:
        """One column of the index, for the records of this split: an array of numbers, or of text (dtype "U")."""
        if name not in _COLUMNS:
            raise ValueError(f"no column {name!r}: choose from {', '.join(_COLUMNS)}")
        return self._read_columns(name)[0][self._chosen]

    def __len__(self) -> int:
        return len(self._shard)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        image, texts = self._read(index, self._images)
        return replace(record_from_json(json.loads(texts), image), detected=self._detected(index))

    def texts(self, index: int) -> Record:
        """The record without its image (empty bytes): what is needed to list captions, at a fraction of the reading."""
        return record_from_json(json.loads(self._read(index, image=False)[1]), b"")

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))

    def _read(self, index: int, image: bool = True) -> tuple[bytes, bytes]:
        image_offset, image_size, json_offset, json_size = (int(v) for v in self._position[index])
        start = image_offset if image else json_offset
        data = read_member(self._file(index, ".tar"), start, json_offset + json_size - start, _AGAIN)
        return data[: image_size if image else 0], data[json_offset - start :]

    def _detected(self, index: int) -> RegionFeatures | None:
        offset, size = (-1, 0) if self._regions is None else (int(v) for v in self._regions[index])
        if offset < 0:
            return None
        file = self._file(index, REGIONS_TAR)
        try:
            return RegionFeatures.from_bytes(read_member(file, offset, size, "crossgrain detect"))
        except ValueError as error:
            raise UserError(f"{file}, byte {offset}: {error}") from None

    def _file(self, index: int, suffix: str) -> Path:
        return self.path / f"{self._names[self._shard[index]]}{suffix}"

    def _read_columns(self, *names: str) -> list[np.ndarray]:
        files = {self.path / f"{name}.parquet": rows for name, rows in zip(self._names, self._lengths, strict=True)}
        return read_columns(files, {name: _COLUMNS[name] for name in names}, _AGAIN)
