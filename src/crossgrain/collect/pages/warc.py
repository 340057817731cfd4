"""Web archives as pages and images: which records are one of the two, and why the others are not."""

import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from crossgrain.collect.candidates import ArchivedImage, Page
from crossgrain.collect.opt_outs import AI_TOKENS, response_opt_out
from crossgrain.collect.pages.arc import arc_records, is_arc_line
from crossgrain.collect.pages.bodies import BodyError, decoded_body, sniffed, whole_number
from crossgrain.collect.pages.records import GZIP, ArchiveRecord, is_parser_error, warc_records
from crossgrain.collect.pages.urls import normalise
from crossgrain.data.records import Dropped

MAX_PAGE_BYTES = 8 * 2**20  # of a page, compressed or not; what is larger is no page for people
_BEGINNING = 4096  # bytes of an archive that tell what it is
_OTHERWISE_PACKED = (b"\x28\xb5\x2f", b"\x04\x22\x4d")  # by Zstandard or LZ4, which fastwarc reads from the beginning
_PAGES = ("text/html", "application/xhtml")
_UNKNOWN = ("", "application/octet-stream", "binary/octet-stream", "application/unknown", "unknown/unknown", "no-type")


def read_archive(path: Path, tokens: Collection[str] = AI_TOKENS) -> Iterator[Page | ArchivedImage | Dropped]:
    """Pages and images of a WARC or ARC, in their order; every other response with the reason why it is none.

    `tokens`: lower-case agents whose prohibitions in the headers of an image hold for us.
    """
    with path.open("rb") as file:
        beginning = file.read(len(GZIP))
        packed = beginning == GZIP or beginning.startswith(_OTHERWISE_PACKED)
        last = -1
        nothing = True
        for record in archive_records(path):
            nothing = False
            if isinstance(record, Dropped):
                yield record
                continue
            found = _page_or_image(record, f"{path.name}@{record.offset}", tokens)
            if isinstance(found, ArchivedImage) and packed:
                file.seek(record.offset)
                if record.offset == last or file.read(len(GZIP)) != GZIP:
                    # One compressed stream around many records, or no gzip: none of them can be read alone.
                    found = Dropped(reason="image inside one long compressed stream", where=found.url)
            last = record.offset
            yield found
        if nothing:
            yield Dropped(reason="archive without responses", where=path.name)


def read_archived(path: Path, offset: int, max_bytes: int) -> bytes:
    """The decoded body of the record at `offset` of an archive.

    BodyError, with a reason of few words, where there is none, it is broken, or has more than `max_bytes`.
    """
    try:
        records = archive_records(path, offset)  # holds the file open until the body is read
        record = next(records, None)
        if record is None or isinstance(record, Dropped) or record.offset != offset:
            raise BodyError("no record here")
        return _body(record, max_bytes)
    except OSError as error:
        raise BodyError("archive unreadable") from error


def archive_records(path: Path, offset: int = 0) -> Iterator[ArchiveRecord | Dropped]:
    """All responses and resources from a place on where a record begins. OSError where there is no such file."""
    with path.open("rb") as file:
        file.seek(offset)
        beginning = file.read(_BEGINNING)
        if beginning.startswith(GZIP):
            try:
                beginning = zlib.decompressobj(31).decompress(beginning, _BEGINNING)
            except zlib.error:
                beginning = b"\0"
        file.seek(offset)
        if is_arc_line(beginning, first=not offset):
            yield from arc_records(file, path.name)
        elif beginning.startswith(b"WARC/") or (beginning and not offset):
            yield from warc_records(file, path.name)  # one that is broken at its beginning may have good records
        else:
            yield Dropped(reason="no record here" if beginning else "archive is empty", where=f"{path.name}@{offset}")


def _body(record: ArchiveRecord, max_bytes: int) -> bytes:
    if record.size > 2 * max_bytes:
        raise BodyError("too large")
    try:
        raw = record.read(2 * max_bytes)
    except BaseException as error:
        if not is_parser_error(error):
            raise
        raise BodyError("broken record") from None
    if len(raw) < record.size and not _is_whole(raw, record.headers):
        raise BodyError("record cut off")
    return decoded_body(raw, record.headers, max_bytes)


def _is_whole(raw: bytes, headers: Mapping[str, str]) -> bool:
    """Whether a body that its archive ends in is all that the server sent: some archives say too large a length."""
    length = whole_number(headers.get("content-length", ""))
    return length is not None and length <= len(raw)


def _page_or_image(record: ArchiveRecord, where: str, tokens: Collection[str]) -> Page | ArchivedImage | Dropped:
    url = normalise(record.url)
    if url is None:
        return Dropped(reason="address is not of the web", where=where, detail=record.url[:200])
    if record.status != 200:
        reason = "answered with an error or a redirect" if record.status else "no HTTP answer"
        return Dropped(reason=reason, where=url, detail=str(record.status))
    declared = record.headers.get("content-type", "").partition(";")[0].strip().lower()
    if declared.startswith("image/"):
        return _image(record, url, declared, tokens)
    if not declared.startswith(_PAGES) and declared not in _UNKNOWN:
        return Dropped(reason="neither page nor image", where=url, detail=declared[:100])
    try:
        html = _body(record, MAX_PAGE_BYTES)
    except BodyError as error:
        return Dropped(reason=f"page: {error}", where=url)
    if declared in _UNKNOWN:
        found = sniffed(html)
        if found.startswith("image/"):
            return _image(record, url, found, tokens)
        if found != "text/html":
            return Dropped(reason="neither page nor image", where=url, detail=declared)
    return Page(url=url, html=html, headers=record.headers, source=where)


def _image(record: ArchiveRecord, url: str, content_type: str, tokens: Collection[str]) -> ArchivedImage | Dropped:
    if record.cut_off:
        return Dropped(reason="image cut off by the crawler", where=url)
    if refusal := response_opt_out(record.headers, tokens):
        return Dropped(reason=refusal, where=url)
    return ArchivedImage(url=url, offset=record.offset, size=record.size, content_type=content_type)
