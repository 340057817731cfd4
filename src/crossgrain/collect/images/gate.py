"""The header gate: what an image file says of itself, read from its bytes before any decoder sees them.

A few hundred lines of a hostile file decide what a decoder allocates, so format, size, frames and number of scans are
read here, in bounded time, and judged. Only JPEG, PNG and WEBP pass; everything else is refused by its first bytes.
Formats: ITU-T T.81 annex B (JPEG), W3C PNG 11.2 and APNG's acTL, RFC 9649 (WEBP).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from crossgrain.data.images import ImageError

EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}

_PNG = b"\x89PNG\r\n\x1a\n"
_MAX_PARTS = 4096  # segments or chunks that are walked: a file of tiny ones costs no more than this
_MAX_SCANS = 100  # of a progressive JPEG; each is a pass over all its pixels, and ordinary files have about ten
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in coded data: neither a stuffed byte, a restart nor a fill byte
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF markers; the three are tables and a reserve
_START_OF_SCAN, _END = 0xDA, 0xD9
_OTHERS = {  # known files that are no photos: named, so that the report says what pages link to
    b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"<svg": "SVG", b"<?xm": "XML", b"%PDF": "PDF",
    b"<!DO": "HTML", b"<!do": "HTML", b"<htm": "HTML", b"<HTM": "HTML", b"\0\0\1\0": "ICO", b"\x1f\x8b": "gzip",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the bytes say: format, stored size in pixels (before any turning), and the length of the image in bytes."""

    format: str  # JPEG, PNG or WEBP
    width: int
    height: int
    animated: bool = False
    num_channels: int = 3
    end: int  # bytes from here on are no part of the image
    has_metadata: bool = False  # there is something about the image besides the image, such as EXIF


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What may go on to a decoder; sides in pixels."""

    min_side: int = 8
    max_aspect: float = 20.0  # longer side over shorter side
    max_pixels: int = 50_000_000
    min_bytes: int = 0
    max_bytes: int = 64 * 2**20
    animated: bool = False  # whether a file of several frames may pass; its first frame is what is seen


@dataclass(frozen=True, slots=True)
class Part:
    """A segment, chunk or run of coded data of a file: its name and where all of it lies."""

    name: str
    start: int
    end: int
    body: int  # where its content starts


def read_header(data: bytes) -> Header:
    """The header of an image file; raises `ImageError` where there is none."""
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg_header(data)
    if data.startswith(_PNG):
        return _png_header(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp_header(data)
    if not data:
        raise ImageError("empty file")
    known = next((name for magic, name in _OTHERS.items() if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(magic)), "")
    if not known and data[4:8] == b"ftyp":
        known = data[8:12].decode("ascii", "replace")
    raise ImageError("format not wanted" if known else "not an image", known or f"{len(data)} bytes")


def pass_gate(data: bytes, gate: Gate) -> Header:
    """The header of a file that may be decoded; raises `ImageError` with the rule that it breaks."""
    if len(data) > gate.max_bytes:
        raise ImageError("too many bytes", f"{len(data)} of at most {gate.max_bytes}")
    header = read_header(data)
    size = f"{header.width} x {header.height}"
    shorter, longer = sorted((header.width, header.height))
    if len(data) < gate.min_bytes:
        raise ImageError("too few bytes", f"{len(data)} of at least {gate.min_bytes}")
    if header.width * header.height > gate.max_pixels:
        raise ImageError("too many pixels", size)
    if shorter < gate.min_side:
        raise ImageError("too small", size)
    if longer > gate.max_aspect * shorter:
        raise ImageError("extreme aspect ratio", size)
    if header.animated and not gate.animated:
        raise ImageError("animated", size)
    return header


def jpeg_parts(data: bytes) -> Iterator[Part]:
    """The segments of a JPEG up to its end, named by marker ("E1"); coded data belongs to its scan ("DA")."""
    at, length = 2, len(data)
    for _ in range(_MAX_PARTS):
        if data[at : at + 1] != b"\xff":
            raise ImageError("broken header", f"no marker at byte {at}")
        start = at
        while data[at : at + 1] == b"\xff":
            at += 1
        if at >= length:
            raise ImageError("truncated", f"{length} bytes")
        marker = data[at]
        if marker == _END:
            yield Part("D9", start, at + 1, at + 1)
            return
        size = int.from_bytes(data[at + 1 : at + 3], "big")
        body, at = at + 3, at + 1 + size
        if size < 2:
            raise ImageError("broken header", f"segment {marker:02X} of {size} bytes")
        if marker == _START_OF_SCAN:
            found = _MARKER.search(data, at)
            at = found.start() if found else length
        if at >= length:
            yield Part(f"{marker:02X}", start, length, body)
            raise ImageError("truncated", f"{length} bytes")
        yield Part(f"{marker:02X}", start, at, body)
    raise ImageError("broken header", f"more than {_MAX_PARTS} segments")


def png_parts(data: bytes) -> Iterator[Part]:
    """The chunks of a PNG up to IEND."""
    at, length = len(_PNG), len(data)
    for number in range(_MAX_PARTS * 4):  # writers that flush often make many small IDATs
        size, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if not name.isalpha() or not name.isascii():
            raise ImageError("truncated" if number else "broken header", f"no chunk at byte {at}")
        part = Part(name.decode("ascii"), at, at + 12 + size, at + 8)
        if part.end > length:
            raise ImageError("truncated", f"{length} bytes")
        yield part
        if name == b"IEND":
            return
        at = part.end
    raise ImageError("broken header", "too many chunks")


def webp_parts(data: bytes) -> Iterator[Part]:
    """The chunks of a WEBP; the last may lack its padding."""
    at, length = 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    for _ in range(_MAX_PARTS):
        if at + 8 > length:
            return
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if at + 8 + size > length:
            raise ImageError("truncated", f"{len(data)} bytes")
        end = min(at + 8 + size + size % 2, length)
        yield Part(data[at : at + 4].decode("latin-1"), at, end, at + 8)
        at = end
    raise ImageError("broken header", f"more than {_MAX_PARTS} chunks")


def _jpeg_header(data: bytes) -> Header:
    width = height = num_channels = num_scans = 0
    has_metadata, end = False, len(data)
    for part in jpeg_parts(data):
        marker = int(part.name, 16)
        if marker in _FRAMES and not width:
            height, width = (int.from_bytes(data[part.body + i : part.body + i + 2], "big") for i in (1, 3))
            num_channels = data[part.body + 5] if part.body + 5 < len(data) else 0
        num_scans += marker == _START_OF_SCAN
        has_metadata |= (0xE1 <= marker <= 0xEF and marker != 0xEE) or marker == 0xFE
        end = part.end
        if num_scans > _MAX_SCANS:
            raise ImageError("too many scans", f"more than {_MAX_SCANS}")
    if not width or not height or not num_scans:
        raise ImageError("broken header", "no frame" if not width else "no scan or height")
    return Header(
        format="JPEG", width=width, height=height, num_channels=num_channels, end=end, has_metadata=has_metadata
    )


def _png_header(data: bytes) -> Header:
    parts = list(png_parts(data))
    if parts[0].name != "IHDR" or parts[0].end - parts[0].start != 25:
        raise ImageError("broken header", "no IHDR")
    width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
    names = {part.name for part in parts}
    if not width or not height or "IDAT" not in names:
        raise ImageError("broken header", f"{width} x {height}")
    return Header(
        format="PNG", width=width, height=height, animated="acTL" in names, end=parts[-1].end,
        has_metadata=not names <= {"IHDR", "PLTE", "IDAT", "IEND"},
    )  # fmt: skip


def _webp_header(data: bytes) -> Header:
    parts = list(webp_parts(data))
    first = parts[0] if parts else Part("", 0, 0, 0)
    body = data[first.body : first.body + 10]
    if len(body) < 10 and not (first.name == "VP8L" and len(body) >= 5):
        raise ImageError("broken header", f"{len(data)} bytes")
    if first.name == "VP8X":
        width, height = (1 + int.from_bytes(body[i : i + 3], "little") for i in (4, 7))
    elif first.name == "VP8L":
        bits = int.from_bytes(body[1:5], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif first.name == "VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width, height = (int.from_bytes(body[i : i + 2], "little") & 0x3FFF for i in (6, 8))
    else:
        raise ImageError("broken header", first.name)
    names = {part.name for part in parts}
    return Header(
        format="WEBP", width=width, height=height, animated=bool(names & {"ANIM", "ANMF"}), end=parts[-1].end,
        has_metadata=not names <= {"VP8X", "VP8 ", "VP8L", "ALPH"},
    )  # fmt: skip
