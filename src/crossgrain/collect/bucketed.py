"""Tables cut into buckets, so that a later task reads its bucket of every part and nothing else: a shuffle on disk.

A part is a Parquet file whose rows are sorted by the column `bucket`; a row group holds rows of one bucket only, and
at most `ROWS_AT_ONCE` of them, which is all that a reader holds of it.
"""

import hashlib
import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

ROWS_AT_ONCE = 5000

Row = dict[str, Any]


def bucket_of(name: str | bytes, num_buckets: int) -> int:
    """A bucket for a name: the same on every machine, evenly spread."""
    data = name.encode("utf-8", "surrogatepass") if isinstance(name, str) else name
    return int.from_bytes(hashlib.sha256(data).digest()[:8]) % num_buckets


def write_rows(path: Path, columns: Mapping[str, str], rows: Iterable[Row], **metadata: str) -> int:
    """Rows, sorted by their `bucket` where they have one, to a Parquet file; how many there were.

    `columns` gives the Arrow type of each ("string", "int64").
    """
    fields = [(name, getattr(pyarrow, kind)()) for name, kind in columns.items()]
    schema = pyarrow.schema(fields, metadata=metadata or None)
    written = 0
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for chunk in _chunks(rows):
            writer.write_table(pyarrow.Table.from_pylist(chunk, schema=schema))
            written += len(chunk)
    return written


def read_rows(path: Path, bucket: int | None = None, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows of a part (of one bucket of it), in order; one row group is in memory at a time."""
    for table in read_tables(path, bucket, columns):
        yield from table.to_pylist()


def read_tables(path: Path, bucket: int | None = None, columns: Sequence[str] | None = None) -> Iterator[pyarrow.Table]:
    """The row groups of a part (of one bucket of it)."""
    with pyarrow.parquet.ParquetFile(path) as file:
        position = file.schema_arrow.get_field_index("bucket")
        for index in range(file.metadata.num_row_groups):
            if bucket is None or file.metadata.row_group(index).column(position).statistics.min == bucket:
                yield file.read_row_group(index, columns=list(columns) if columns else None, use_threads=False)


def read_metadata(path: Path) -> dict[str, str]:
    """What `write_rows` was told to say of a part; nothing where there is no such file."""
    try:
        found = pyarrow.parquet.read_schema(path).metadata or {}
    except (OSError, pyarrow.ArrowInvalid):
        return {}
    return {name.decode(): value.decode() for name, value in found.items() if name != b"ARROW:schema"}


def read_sorted(paths: Iterable[Path], bucket: int, key: Callable[[Row], Any]) -> Iterator[Row]:
    """The rows of one bucket of many parts, merged by `key`, by which each part's bucket is sorted already."""
    return heapq.merge(*(read_rows(path, bucket) for path in paths), key=key)


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    for _, group in groupby(rows, key=lambda row: row.get("bucket")):
        chunk: list[Row] = []
        for row in group:
            chunk.append(row)
            if len(chunk) == ROWS_AT_ONCE:
                yield chunk
                chunk = []
        if chunk:
            yield chunk
