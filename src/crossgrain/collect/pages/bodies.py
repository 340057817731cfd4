"""The body of an HTTP message as an archive keeps it: chunks joined, compression undone, never beyond a limit."""

import io
import zlib
from collections.abc import Iterable, Mapping

from fastwarc.stream_io import BrotliReader, ZstdReader

_CHUNK = 2**14  # bytes that are unpacked at a time
_GZIP = b"\x1f\x8b"
_BEGINNING = 4096  # bytes of a body that tell what it is
_SIGNATURES = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n", "image/png"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
)
_TAGS = (b"<!doctype html", b"<html", b"<head", b"<body")
_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class BodyError(ValueError):
    """A body of no use; its text is the reason, in few words."""


def whole_number(text: str) -> int | None:
    """The number that a head names; None where it is none, or one of more digits than any length has."""
    return int(text) if len(text) <= 18 and text.isascii() and text.isdigit() else None


def header_fields(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by lower-case name; the values of those that stand several times are joined by line breaks."""
    joined: dict[str, str] = {}
    for name, value in fields:
        key = name.strip().lower()
        joined[key] = f"{joined[key]}\n{value.strip()}" if key in joined else value.strip()
    return joined


def split_head(data: bytes) -> tuple[int, dict[str, str], int]:
    """(status, headers, where the body begins) of an HTTP response as it went over the wire.

    BodyError where it does not begin as one, or its head has no end.
    """
    if not data.startswith(b"HTTP/"):
        raise BodyError("not an HTTP response")
    ends = [(at + len(mark)) for mark in (b"\r\n\r\n", b"\n\n") if (at := data.find(mark)) >= 0]
    if not ends:
        raise BodyError("HTTP head without end")
    begin = min(ends)
    first, *lines = data[:begin].decode("latin-1").splitlines()
    status = "".join(first.split()[1:2])
    fields = [(name, value) for line in lines for name, colon, value in [line.partition(":")] if colon]
    return whole_number(status) or 0, header_fields(fields), begin


def decoded_body(raw: bytes, headers: Mapping[str, str], max_bytes: int) -> bytes:
    """`raw` as the page's server meant it, by its transfer and content encodings.

    Archives often keep headers of encodings that they have undone: what is not encoded stays as it is. BodyError where
    it is larger than `max_bytes`, or breaks off.
    """
    if "chunked" in headers.get("transfer-encoding", "").lower():
        raw = _joined_chunks(raw)
    for encoding in reversed(headers.get("content-encoding", "").lower().replace("\n", ",").split(",")):
        raw = _unpacked(raw, encoding.strip(), max_bytes)
    if len(raw) > max_bytes:
        raise BodyError("too large")
    return raw


def _joined_chunks(raw: bytes) -> bytes:
    parts: list[bytes] = []
    at = 0
    while True:
        line_end = raw.find(b"\n", at, at + 64)
        size = raw[at:line_end].split(b";")[0].strip() if line_end >= 0 else b""
        try:
            length = int(size, 16)
        except ValueError:
            return raw if not parts else b"".join(parts) + raw[at:]
        if length < 0 or b"_" in size:
            return raw
        parts.append(raw[line_end + 1 : line_end + 1 + length])
        at = line_end + 1 + length
        if length == 0 or at >= len(raw):
            return b"".join(parts)
        at += 2 if raw[at : at + 2] == b"\r\n" else 1 if raw[at : at + 1] == b"\n" else 0


def sniffed(data: bytes) -> str:
    """The content type of what declares none, as far as it is a page or an image; "" for anything else."""
    for signature, content_type in _SIGNATURES:
        if data.startswith(signature):
            return content_type
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    beginning = data[:_BEGINNING].lower()
    return "text/html" if any(tag in beginning for tag in _TAGS) else ""


def _unpacked(raw: bytes, encoding: str, max_bytes: int) -> bytes:
    if encoding in _WINDOWS:
        if encoding != "deflate" and not raw.startswith(_GZIP):
            return raw
        return _inflated(raw, _WINDOWS[encoding], max_bytes)
    if encoding == "br" and raw.lstrip()[:1] != b"<":
        try:
            return _read(BrotliReader(io.BytesIO(raw)), max_bytes)
        except BodyError:
            if sniffed(raw):  # it has no signature that would tell whether it has been undone
                return raw
            raise
    if encoding == "zstd" and raw.startswith(b"\x28\xb5\x2f\xfd"):
        return _read(ZstdReader(io.BytesIO(raw)), max_bytes)
    return raw


def _inflated(raw: bytes, window: int, max_bytes: int) -> bytes:
    if window == 15 and raw[:1] != b"\x78":  # deflate without zlib's head, as some servers send it, or not at all
        window = -15
    try:
        data, whole = inflated(raw, window, max_bytes + 1)
    except zlib.error:
        if window == -15:
            return raw
        raise BodyError("compression broken") from None
    if len(data) > max_bytes:
        raise BodyError("too large")
    if not whole and window != -15:
        raise BodyError("compression broken")
    return data


def inflated(raw: bytes, window: int, max_bytes: int) -> tuple[bytes, bool]:
    """(at most `max_bytes` of what deflate or gzip, of one member or many, holds; whether its end was there).

    `window` as in zlib, 31 for gzip. zlib.error where it is broken.
    """
    decoder = zlib.decompressobj(window)
    parts: list[bytes] = []
    at, room = 0, max_bytes
    while at < len(raw) and room > 0:
        if decoder.eof:
            if window != 31 or not raw.startswith(_GZIP, at):
                break
            decoder = zlib.decompressobj(window)
        part = decoder.decompress(raw[at : at + _CHUNK], room)
        parts.append(part)
        room -= len(part)
        at = min(len(raw), at + _CHUNK) - len(decoder.unused_data)
    return b"".join(parts), decoder.eof


def _read(reader: BrotliReader | ZstdReader, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    room = max_bytes + 1
    try:
        while room > 0 and (part := reader.read(min(room, _CHUNK))):
            parts.append(part)
            room -= len(part)
    except (OSError, ValueError, EOFError):
        raise BodyError("compression broken") from None
    if room <= 0:
        raise BodyError("too large")
    return b"".join(parts)
