"""The records of a WARC, by fastwarc, compressed or not, one after the other.

What is broken is passed over: reading goes on at the next place where a record begins.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType

from crossgrain.collect.pages.bodies import header_fields
from crossgrain.data.records import Dropped

GZIP = b"\x1f\x8b\x08"
_BEGINNING = 512  # bytes of a compressed record that tell what it is
_SEARCH = 2**20  # bytes that are searched at a time for the next record
_WANTED = WarcRecordType.response | WarcRecordType.resource


@dataclass(frozen=True, slots=True)
class ArchiveRecord:
    """What was served for an address. `status` is 0 where no HTTP was spoken; `size` the bytes of the body as it is
    stored, of which `read(n)` gives the first n, once."""

    url: str
    offset: int
    status: int
    headers: dict[str, str]
    size: int
    read: Callable[[int], bytes]
    cut_off: bool = False  # by whoever wrote the archive


def warc_records(file: BinaryIO, name: str) -> Iterator[ArchiveRecord | Dropped]:
    """The records of a WARC from where `file` stands; `name` is what it is called in reports."""
    position = file.tell()
    compressed = file.read(3) == GZIP
    file.seek(position)
    records: Iterator[WarcRecord] | None = None
    broken = False  # something was, and has not been counted yet
    while True:
        error: BaseException | None = None
        record: WarcRecord | None = None
        try:
            records = iter(ArchiveIterator(file)) if records is None else records
            record = next(records, None)
        except BaseException as caught:
            if not is_parser_error(caught):
                raise
            error = caught
        if broken or (error is not None and records is None):
            yield Dropped(reason="broken record", where=f"{name}@{position}", detail=str(error or "")[:100])
        broken = False
        if error is not None:
            broken = records is not None
            following = _next_record(file, position + 1, compressed)
            records = None
            if following is None:
                if broken:
                    yield Dropped(reason="broken record", where=f"{name}@{position}", detail=str(error)[:100])
                return
            position = following
            file.seek(position)
            continue
        if record is None:
            following = _next_record(file, position + 1, compressed) if _runs_out(file, position) else None
            if following is None:
                return
            records = None
            position = following
            file.seek(position)
            continue
        position = record.stream_pos
        if record.record_type & _WANTED:
            yield _from_warc(record)
        elif record.record_type == WarcRecordType.revisit:
            yield Dropped(reason="a revisit: its body was stored earlier", where=_target(record))


def is_parser_error(error: BaseException) -> bool:
    """Whether an exception is about the data: fastwarc's Rust code panics on some of it, as a BaseException."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _from_warc(record: WarcRecord) -> ArchiveRecord:
    http = record.http_headers if record.is_http else None
    if http is not None:
        status, headers = http.status_code or 0, header_fields(http.to_tuples())
    else:
        status, headers = 0, {"content-type": record.headers.get("Content-Type") or ""}
    truncated = record.headers.get("WARC-Truncated") is not None
    is_resource = record.record_type == WarcRecordType.resource
    return ArchiveRecord(
        _target(record),
        record.stream_pos,
        status or (200 if is_resource else 0),
        headers,
        record.content_length,
        record.reader.read,
        truncated,
    )


def _target(record: WarcRecord) -> str:
    return (record.headers.get("WARC-Target-URI") or "").strip().strip("<>")


def _runs_out(file: BinaryIO, position: int) -> bool:
    """Whether the record at `position` says a length beyond the end: what stands behind it was taken for its body."""
    file.seek(position)
    try:
        record = next(iter(ArchiveIterator(file)), None)
        if record is None:
            return False
        left = record.content_length
        while left > 0 and (data := record.reader.read(_SEARCH)):
            left -= len(data)
    except BaseException as error:
        if not is_parser_error(error):
            raise
        return True
    return left > 0


def next_member(file: BinaryIO, begin: int) -> int | None:
    """Where the next member of a compressed archive that holds a record begins, at or behind `begin`."""
    return next((at for at in _places(file, begin, GZIP) if _begins_record(file, at)), None)


def _next_record(file: BinaryIO, begin: int, compressed: bool) -> int | None:
    return next_member(file, begin) if compressed else next(_places(file, begin, b"WARC/1."), None)


def _places(file: BinaryIO, begin: int, mark: bytes) -> Iterator[int]:
    """Where `mark` stands in a file."""
    at = begin
    while True:
        file.seek(at)
        data = file.read(_SEARCH)
        found = data.find(mark)
        while found >= 0:
            yield at + found
            found = data.find(mark, found + 1)
        if len(data) < _SEARCH:
            return
        at += len(data) - len(mark) + 1


def _begins_record(file: BinaryIO, at: int) -> bool:
    file.seek(at)
    try:
        data = zlib.decompressobj(31).decompress(file.read(_BEGINNING), 64)
    except zlib.error:
        return False
    return data.startswith((b"WARC/", b"http://", b"https://"))
