"""ARC files, the predecessors of WARC: a line of fields, then as many bytes as it says (archive.org's format)."""

import os
import re
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from crossgrain.collect.pages.bodies import BodyError, split_head, whole_number
from crossgrain.collect.pages.records import GZIP, ArchiveRecord, next_member
from crossgrain.data.records import Dropped

_MAX_HEAD = 2**16  # bytes of an HTTP head
_MAX_LINE = 2**14
_BLOCK = 2**15  # bytes that are read at a time
_DATE = re.compile(r"\d{8,20}")
_LINE = re.compile(rb"\S.* \S+ \d{8,20} \S+ .*\d+\s*")  # URL (with spaces, in some), IP, date, type, ..., length


def is_arc_line(beginning: bytes, first: bool) -> bool:
    """Whether an ARC begins with these bytes, or (not `first`) one of its records."""
    return beginning.startswith(b"filedesc:") if first else bool(_LINE.fullmatch(beginning.partition(b"\n")[0]))


class _Lines:
    """Lines and blocks of a file that may be compressed, with the place in the file where each record begins."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._begin = self._member = file.tell()
        self._compressed = file.read(len(GZIP)) == GZIP
        file.seek(self._begin)
        self._decoder = zlib.decompressobj(31)
        self._buffer = b""
        self._taken = 0
        self._broken = False

    @property
    def place(self) -> int:
        """Where the next byte stands: of a compressed file, where its member begins."""
        if not self._compressed:
            return self._begin + self._taken
        if not self._buffer:
            self._fill()
        return self._member

    def recover(self) -> bool:
        """Go on behind a broken member; False where nothing is broken."""
        if not self._broken:
            return False
        following = next_member(self._file, self._member + 1)
        self._broken = False
        self._buffer = b""
        self._decoder = zlib.decompressobj(31)
        if following is None:
            self._file.seek(0, os.SEEK_END)
        else:
            self._file.seek(following)
            self._member = following
        return True

    def _fill(self) -> bool:
        data = b"" if self._broken else self._unpacked() if self._compressed else self._file.read(_BLOCK)
        self._buffer += data
        return bool(data)

    def _unpacked(self) -> bytes:
        """The next bytes of a compressed file, never of two members at once."""
        while True:
            if self._decoder.eof:
                fed = self._decoder.unused_data or self._file.read(_BLOCK)
                self._member = self._file.tell() - len(fed)
                self._decoder = zlib.decompressobj(31)
            else:
                fed = self._decoder.unconsumed_tail or self._file.read(_BLOCK)
            if not fed:
                return b""
            try:
                data = self._decoder.decompress(fed, _BLOCK)
            except zlib.error:
                self._broken = True
                return b""
            if data:
                return data

    def line(self) -> bytes:
        """The next line, b"" at the end; one without an end comes in pieces."""
        while b"\n" not in self._buffer and len(self._buffer) < _MAX_LINE and self._fill():
            pass
        end = self._buffer.find(b"\n", 0, _MAX_LINE) + 1 or min(len(self._buffer), _MAX_LINE)
        return self._take(end)

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end."""
        while len(self._buffer) < size and self._fill():
            pass
        return self._take(size)

    def skip(self, size: int) -> int:
        """Pass over `size` bytes; how many there were."""
        left = size
        while left > 0:
            if not self._buffer and not self._fill():
                break
            left -= len(self._take(left))
        return size - left

    def _take(self, size: int) -> bytes:
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        self._taken += len(data)
        return data


def arc_records(file: BinaryIO, name: str) -> Iterator[ArchiveRecord | Dropped]:
    """The records of an ARC of version 1 or 2 from where `file` stands: lines `URL IP date type ... length`."""
    lines = _Lines(file)
    fields = 5
    while True:
        place = lines.place
        line = lines.line()
        if not line:
            if not lines.recover():
                return
            yield Dropped(reason="broken record", where=f"{name}@{place}", detail="compression")
            continue
        if not line.strip():
            continue
        url, *rest = line.decode("utf-8", "replace").strip().rsplit(" ", fields - 1)
        if len(rest) != fields - 1 or not _DATE.fullmatch(rest[1]):
            if "://" in url or "://" in line[:64].decode("latin-1"):
                yield Dropped(reason="broken record", where=f"{name}@{place}", detail=line[:80].decode("latin-1"))
            continue
        content_type, length = rest[2], whole_number(rest[-1])
        if url.startswith("filedesc:"):
            # The second line says which version follows, the third names the fields of its lines.
            version, names = lines.line(), lines.line()
            fields = max(5, len(names.split())) if version[:1] in (b"1", b"2") else fields
            if length is not None and length > len(version) + len(names):
                lines.skip(length - len(version) - len(names))
            continue
        if length is None:
            yield Dropped(reason="broken record", where=f"{name}@{place}", detail=line[:80].decode("latin-1"))
            continue
        head = lines.read(min(length, _MAX_HEAD))
        left = length - len(head)
        used = [0]

        def read(size: int, head: bytes = head, left: int = left, used: list[int] = used) -> bytes:
            more = lines.read(min(left, max(0, size - len(head))))
            used[0] = len(more)
            return head + more

        yield _from_arc(url, place, content_type, length, head, read)
        lines.skip(left - used[0])


def _from_arc(
    url: str, place: int, content_type: str, length: int, beginning: bytes, read: Callable[[int], bytes]
) -> ArchiveRecord:
    try:
        status, headers, begin = split_head(beginning)
    except BodyError:  # HTTP 0.9, or another protocol: a body alone
        return ArchiveRecord(url, place, 200, {"content-type": content_type}, length, read)

    def body(size: int) -> bytes:
        return read(size + begin)[begin:]

    return ArchiveRecord(url, place, status, headers, length - begin, body)
