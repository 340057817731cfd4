"""Tars whose bytes depend on nothing but what is put in, and the tables that say where in them it stands.

No torch; pyarrow is imported when a table is read or written.
"""

import hashlib
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossgrain.config import UserError


class TarWriter:
    """Writes one tar: no times, no owners, so that equal members give equal bytes."""

    def __init__(self, path: Path):
        self._file = path.open("wb")
        self._digest = hashlib.sha256()

    def add(self, name: str, data: bytes) -> int:
        """Append one file; where in the tar its data begin."""
        header = tarfile.TarInfo(name)  # mtime, uid and gid 0, mode 0644, no names: TarInfo's own defaults
        header.size = len(data)
        self._append(header.tobuf(tarfile.PAX_FORMAT))
        offset = self._file.tell()
        self._append(data + bytes(-len(data) % tarfile.BLOCKSIZE))
        return offset

    def finish(self) -> str:
        """End the tar and close its file; the SHA-256 of its bytes."""
        end = self._file.tell() + 2 * tarfile.BLOCKSIZE
        self._append(bytes(2 * tarfile.BLOCKSIZE + -end % tarfile.RECORDSIZE))
        self._file.close()
        return self._digest.hexdigest()

    def close(self) -> None:
        """Close the file as it is, unfinished."""
        self._file.close()

    def _append(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)


def write_table(path: Path, columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows to a parquet file; `columns` gives the Arrow type of each ("string", "int64")."""
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([(column, getattr(pyarrow, kind)()) for column, kind in columns.items()])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([*rows], schema=schema), path, compression="zstd")


def read_columns(files: Mapping[Path, int], columns: Mapping[str, str], again: str) -> list[np.ndarray]:
    """Columns of some tables, one behind the other; text becomes fixed-width numpy strings, no Python object remains.

    `files` gives the number of rows that each must have; UserError where that is not so, with the command `again` that
    makes the files anew.
    """
    import pyarrow.parquet

    parts: list[list[np.ndarray]] = [[] for _ in columns]
    for file, length in files.items():
        if not file.is_file():
            raise UserError(f"{file} is missing: run `{again}` again")
        with pyarrow.parquet.ParquetFile(file) as sidecar:  # read_table is three times slower on small files
            table = sidecar.read(list(columns), use_threads=False)
        if len(table) != length:
            raise UserError(f"{file} has {len(table)} records and the manifest says {length}")
        for (name, kind), part in zip(columns.items(), parts, strict=True):
            values = table[name].to_numpy()
            part.append(values.astype("U") if kind == "string" else values)
    return [np.concatenate(part) for part in parts]


def read_member(tar: Path, offset: int, size: int, again: str) -> bytes:
    """`size` bytes of a tar from `offset` on; UserError, with the command that makes it anew, where it has fewer."""
    handle = os.open(tar, os.O_RDONLY)
    try:
        data = os.pread(handle, size, offset)
    finally:
        os.close(handle)
    if len(data) != size:
        raise UserError(f"{tar} is shorter than its index says: run `{again}` again")
    return data
