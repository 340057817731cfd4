"""Lists: addresses of pages, and tables of image addresses with their texts (as `img2dataset` reads them).

Text (an address a line), CSV, TSV, JSON lines, all of them gzipped or not, and Parquet; read as streams.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from crossgrain.collect.candidates import Candidate, Page, PageText
from crossgrain.collect.fetch import FetchConfig, Request, fetch_all
from crossgrain.collect.pages.urls import normalise
from crossgrain.config import UserError
from crossgrain.data.records import Dropped

_KINDS = {".txt": "text", ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_TSV_FIELD = re.compile(r'(?:^|\t)(?:"((?:[^"]|"")*+)"(?=\t|$)|([^\t]*))')
_BATCH = 4096  # rows of a Parquet file at a time

Row = tuple[str, str]  # address and text


def list_kind(path: Path) -> str | None:
    """Which kind of list a file is by its name; None for none."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    return _KINDS.get(suffixes[0] if suffixes[-1:] == [".gz"] and len(suffixes) == 2 else "".join(suffixes[-1:]))


def count_rows(path: Path, url_column: str, text_column: str) -> int:
    """How many rows a list has; UserError where it cannot be read or lacks a column."""
    if list_kind(path) == "parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                _check_columns(path, file.schema_arrow.names, url_column, text_column)
                return file.metadata.num_rows
        except (pyarrow.ArrowException, OSError) as error:
            raise UserError(f"{path} is no Parquet file: {error}") from None
    return sum(1 for _ in read_rows(path, url_column, text_column))


def read_rows(
    path: Path, url_column: str, text_column: str = "", begin: int = 0, end: int | None = None
) -> Iterator[Row]:
    """(address, text) of the rows from `begin` to `end`; the text is "" where no column is named."""
    kind = list_kind(path) or "text"
    if kind == "parquet":
        yield from _parquet_rows(path, url_column, text_column, begin, end)
        return
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
            lines = io.TextIOWrapper(cast(BinaryIO, file), encoding="utf-8-sig", errors="replace", newline="")
            if kind == "text":
                rows: Iterator[Row] = ((line.strip(), "") for line in lines if line.strip() and line[:1] != "#")
            elif kind == "jsonl":
                rows = (_json_row(line, url_column, text_column) for line in lines if line.strip())
            else:
                plain = (line.replace("\0", "") for line in lines)
                fields = csv.reader(plain) if kind == "csv" else map(_tsv_fields, plain)
                rows = _table_rows(path, fields, url_column, text_column)
            yield from islice(rows, begin, end)
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def _tsv_fields(line: str) -> list[str]:
    """The fields of a line; a quote is a letter like others where it does not begin and end its field."""
    line = line.rstrip("\r\n")
    return [match[2] or (match[1] or "").replace('""', '"') for match in _TSV_FIELD.finditer(line)] if line else []


def _table_rows(path: Path, fields: Iterator[list[str]], url_column: str, text_column: str) -> Iterator[Row]:
    names = next(fields, [])
    _check_columns(path, names, url_column, text_column)
    url, text = names.index(url_column), names.index(text_column) if text_column else -1
    while True:
        try:
            row = next(fields)
        except StopIteration:
            return
        except csv.Error:  # such as a field of more than 128 KiB: this row is lost, and counted as one without address
            row = [""]
        if row:
            yield (row[url] if url < len(row) else "", row[text] if 0 <= text < len(row) else "")


def _json_row(line: str, url_column: str, text_column: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return "", ""
    if isinstance(row, str):
        return _plain(row), ""
    if not isinstance(row, dict):
        return "", ""
    return _plain(row.get(url_column)), _plain(row.get(text_column)) if text_column else ""


def _plain(value: object) -> str:
    """A value of a list as text that can be written: JSON has halves of characters, Parquet bytes."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")
    return text.encode("utf-8", "replace").decode()


def _parquet_rows(path: Path, url_column: str, text_column: str, begin: int, end: int | None) -> Iterator[Row]:
    import pyarrow.parquet

    columns = [url_column, text_column] if text_column else [url_column]
    with pyarrow.parquet.ParquetFile(path) as file:
        groups, position = [], 0
        stop = file.metadata.num_rows if end is None else end
        first = None
        for number in range(file.num_row_groups):
            rows = file.metadata.row_group(number).num_rows
            if position + rows > begin and position < stop:
                first = position if first is None else first
                groups.append(number)
            position += rows
        skip = begin - (first or 0)
        left = stop - begin
        for batch in file.iter_batches(_BATCH, row_groups=groups, columns=columns, use_threads=False) if groups else ():
            part = batch.slice(min(skip, len(batch)), left)
            skip = max(0, skip - len(batch))
            left -= len(part)
            urls = _parquet_texts(part.column(url_column))
            texts = _parquet_texts(part.column(text_column)) if text_column else [""] * len(part)
            yield from zip(urls, texts, strict=True)
            if left <= 0:
                return


def _parquet_texts(column: Any) -> list[str]:
    import pyarrow

    if pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type):
        column = column.cast(pyarrow.large_binary())  # what is no UTF-8 would raise
    return [_plain(value) for value in column.to_pylist()]


def _check_columns(path: Path, names: list[str], url_column: str, text_column: str) -> None:
    for column in (url_column, text_column):
        if column and column not in names:
            raise UserError(f"{path} has no column {column!r}: its columns are {', '.join(names[:20]) or 'none'}")


def read_pairs(path: Path, url_column: str, text_column: str, begin: int, end: int) -> Iterator[Candidate | Dropped]:
    """Candidates of a table of image addresses and texts; the text counts as an alt."""
    for number, (address, text) in enumerate(read_rows(path, url_column, text_column, begin, end), begin):
        url = normalise(address)
        if url is None:
            reason = "address unusable" if address else "row without address"
            yield Dropped(reason=reason, where=f"{path.name}, row {number}", detail=address[:200])
        else:
            texts = (PageText("alt", " ".join(text.split())),) if text.strip() else ()
            yield Candidate(page_url="", image_url=url, texts=texts)


def read_urls(path: Path, url_column: str, begin: int, end: int, fetch: FetchConfig) -> Iterator[Page | Dropped]:
    """The pages of a list of addresses, fetched; what cannot be had with its reason. In the order of the list."""
    wanted: list[str] = []
    seen: set[str] = set()
    for number, (address, _) in enumerate(read_rows(path, url_column, "", begin, end), begin):
        url = normalise(address)
        if url is None:
            yield Dropped(reason="page: address unusable", where=f"{path.name}, row {number}", detail=address[:200])
        elif url in seen:
            yield Dropped(reason="page: address named twice", where=url)
        else:
            seen.add(url)
            wanted.append(url)
    for fetched in fetch_all((Request(url, "page") for url in wanted), fetch):
        if fetched.data is None:
            yield Dropped(reason=f"page: {fetched.reason}", where=fetched.request.url, detail=fetched.detail[:200])
        else:
            final = fetched.final_url or fetched.request.url
            yield Page(url=final, html=fetched.data, headers=fetched.headers, source=fetched.request.url)
