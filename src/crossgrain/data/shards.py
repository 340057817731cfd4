"""A data set on disk: tar shards that any WebDataset reader reads, with an index that makes every record one read.

    000000.tar       KEY.jpg, KEY.json, KEY.jpg, ... in the WebDataset convention, the same bytes for the same records
    000000.parquet   one row a record: key, split, byte offsets, sizes of image and texts
    manifest.json    format, source, records by split, shards with their SHA-256; a folder without it is unfinished

All splits live together; `split` is a column. No torch; pyarrow is imported when a file is read or written.
"""

import hashlib
import json
import os
import re
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, overload

import numpy as np

from crossgrain.config import UserError
from crossgrain.data.records import Record, record_from_json, record_to_json

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
_WORK = ".partial"  # everything is written here and renamed into the data set's folder when it is whole
_SHARD_NAME = re.compile(r"\d{6,}")
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
    "image_sha256": "string",
}
_POSITION = ("image_offset", "image_size", "json_offset", "json_size")


class ShardWriter:
    """Writes records into shards, in the order that they come.

    A context manager: leaving it finishes the data set by renames with the manifest last, leaving it with an error
    removes what was begun. Files put into `folder` by the caller (a vocabulary, a report) are renamed along. A folder
    that holds a data set is a UserError unless `overwrite` is set; one that holds other tars always is.
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
        self._rows: list[dict[str, Any]] = []
        self._counts: Counter[str] = Counter()
        self._tar: IO[bytes] | None = None
        self._digest = hashlib.sha256()

    def __enter__(self) -> "ShardWriter":
        _make_free(self.path, self.overwrite)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._made_folder = not self.path.exists()
        self.folder.mkdir(parents=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if kind is None:
            self._finish()
        elif self._tar is not None:
            self._tar.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        if kind is not None and self._made_folder:
            self.path.rmdir()

    def write(self, record: Record, extension: str, width: int, height: int) -> None:
        """Append one record, whose `image` is the encoded file's bytes; `extension` names its format ("jpg", "png")."""
        assert isinstance(record.image, bytes)
        if self._tar is None:
            self._tar = (self.folder / f"{self._shard_name()}.tar").open("wb")
            self._digest = hashlib.sha256()
        texts = json.dumps(record_to_json(record), ensure_ascii=True, separators=(",", ":")).encode()
        row = {
            "key": record.key,
            "split": record.split,
            "image_extension": extension,
            "image_offset": self._member(f"{record.key}.{extension}", record.image),
            "image_size": len(record.image),
            "json_offset": self._member(f"{record.key}.json", texts),
            "json_size": len(texts),
            "width": width,
            "height": height,
            "num_captions": len(record.captions),
            "num_regions": len(record.regions),
            "image_sha256": hashlib.sha256(record.image).hexdigest(),
        }
        self._rows.append(row)
        self._counts[record.split] += 1
        if len(self._rows) == self.records_per_shard:
            self._end_shard()

    def _shard_name(self) -> str:
        return f"{len(self._shards):06d}"

    def _append(self, data: bytes) -> None:
        assert self._tar is not None
        self._tar.write(data)
        self._digest.update(data)

    def _member(self, name: str, data: bytes) -> int:
        """Append one file to the tar, with a header that depends on nothing but name and size; where its data begin."""
        assert self._tar is not None
        header = tarfile.TarInfo(name)  # mtime, uid and gid 0, mode 0644, no names: TarInfo's own defaults
        header.size = len(data)
        self._append(header.tobuf(tarfile.PAX_FORMAT))
        offset = self._tar.tell()
        self._append(data + bytes(-len(data) % tarfile.BLOCKSIZE))
        return offset

    def _end_shard(self) -> None:
        import pyarrow
        import pyarrow.parquet

        assert self._tar is not None
        end = self._tar.tell() + 2 * tarfile.BLOCKSIZE
        self._append(bytes(2 * tarfile.BLOCKSIZE + -end % tarfile.RECORDSIZE))
        self._tar.close()
        self._tar = None
        name = self._shard_name()
        schema = pyarrow.schema([(column, getattr(pyarrow, kind)()) for column, kind in _COLUMNS.items()])
        table = pyarrow.Table.from_pylist(self._rows, schema=schema)
        pyarrow.parquet.write_table(table, self.folder / f"{name}.parquet", compression="zstd")
        self._shards.append({"name": name, "records": len(self._rows), "sha256": self._digest.hexdigest()})
        self._rows = []

    def _finish(self) -> None:
        if self._rows:
            self._end_shard()
        manifest = {
            "format": "crossgrain shards",
            "format_version": FORMAT_VERSION,
            "source": self.source,
            "splits": dict(sorted(self._counts.items())),
            "shards": self._shards,
        }
        (self.folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        _remove_data(self.path)
        for file in sorted(self.folder.iterdir(), key=lambda file: (file.name == MANIFEST, file.name)):
            file.replace(self.path / file.name)


def _make_free(path: Path, overwrite: bool) -> None:
    """Refuse a folder that holds data; clear what a run left behind that was killed while it renamed its shards."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file: --out names a folder")
    if (path / MANIFEST).exists():
        if not overwrite:
            raise UserError(f"{path} already holds a data set: choose another folder, or say --overwrite")
    elif (path / _WORK / MANIFEST).exists():
        for name in _shard_files(path / _WORK):
            (path / name).unlink(missing_ok=True)
    listed = _shard_files(path) if (path / MANIFEST).exists() else []
    strangers = [file for file in sorted(path.glob("*.tar")) if file.name not in listed]
    if strangers:
        raise UserError(f"{strangers[0]} belongs to no finished data set: choose another folder for --out")


def _shard_files(folder: Path) -> list[str]:
    names = [shard["name"] for shard in read_manifest(folder)["shards"]]
    return [name + suffix for name in names for suffix in (".tar", ".parquet")]


def _remove_data(path: Path) -> None:
    """Remove the data set that stands in a folder, its manifest first, and nothing else."""
    old = _shard_files(path) if (path / MANIFEST).exists() else []
    (path / MANIFEST).unlink(missing_ok=True)
    for name in [*old, "vocab.txt", "validation.json"]:
        (path / name).unlink(missing_ok=True)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a finished data set; UserError where there is none or it is of another format."""
    file = path / MANIFEST
    if not file.is_file():
        raise UserError(f"no data set in {path}: it has no {MANIFEST} (`crossgrain prepare` makes one)")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        version, shards = manifest["format_version"], manifest["shards"]
        named = all(_SHARD_NAME.fullmatch(shard["name"]) for shard in shards)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is no manifest of a data set: {error}") from None
    if version != FORMAT_VERSION or not named:
        raise UserError(f"{file} has format version {version!r}; this version of crossgrain reads {FORMAT_VERSION}")
    return manifest


class Shards(Sequence[Record]):
    """The records of a data set, or of one split of it, by number; `shards[i].image` is the encoded file's bytes.

    The index is a few numpy arrays, whatever the number of records; an access opens the tar, reads image and texts at
    once and closes it, so that an object may be pickled, forked and used by threads. UserError if the folder holds no
    data set or `split` is none of its splits.
    """

    def __init__(self, path: Path | str, split: str | None = None):
        self.path = Path(path)
        self.split = split
        self.manifest = read_manifest(self.path)
        self._names = [shard["name"] for shard in self.manifest["shards"]]
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
        image, texts = self._read(index)
        return record_from_json(json.loads(texts), image)

    def texts(self, index: int) -> Record:
        """The record without its image (empty bytes): what is needed to list captions, at a fraction of the reading."""
        return record_from_json(json.loads(self._read(index, image=False)[1]), b"")

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))

    def _read(self, index: int, image: bool = True) -> tuple[bytes, bytes]:
        image_offset, image_size, json_offset, json_size = (int(v) for v in self._position[index])
        start = image_offset if image else json_offset
        file = self.path / f"{self._names[self._shard[index]]}.tar"
        handle = os.open(file, os.O_RDONLY)
        try:
            data = os.pread(handle, json_offset + json_size - start, start)
        finally:
            os.close(handle)
        if len(data) != json_offset + json_size - start:
            raise UserError(f"{file} is shorter than its index says: run `crossgrain prepare` again")
        return data[: image_size if image else 0], data[json_offset - start :]

    def _read_columns(self, *names: str) -> list[np.ndarray]:
        """Columns over all shards. Text becomes fixed-width numpy strings: no Python object per record remains."""
        import pyarrow.parquet

        parts: list[list[np.ndarray]] = [[] for _ in names]
        for shard, length in zip(self._names, self._lengths, strict=True):
            file = self.path / f"{shard}.parquet"
            if not file.is_file():
                raise UserError(f"{file} is missing: run `crossgrain prepare` again")
            with pyarrow.parquet.ParquetFile(file) as sidecar:  # read_table is three times slower on small files
                table = sidecar.read(list(names), use_threads=False)
            if len(table) != length:
                raise UserError(f"{file} has {len(table)} records and the manifest says {length}")
            for name, part in zip(names, parts, strict=True):
                values = table[name].to_numpy()
                part.append(values.astype("U") if _COLUMNS[name] == "string" else values)
        return [np.concatenate(part) for part in parts]
