"""Cut everything out of an image file that is not the image: where and when it was taken, by what, and what follows it.

A photo's EXIF often holds the place where somebody lives; so do XMP packets, makers' segments, provenance manifests,
second pictures and films appended to the file. What stays is named below, so what nobody has thought of goes. No pixel
changes. Reservations of rights in such fields are to be read from the file as it came, before this.
"""

from collections.abc import Callable, Iterator

from crossgrain.collect.images.gate import Header, Part, jpeg_parts, png_parts, webp_parts

_JPEG_TABLES = {"C4", "CC", "DB", "DC", "DD", "DA", "D9", "E0", "EE", *(f"C{digit}" for digit in "012356789ABDEF")}
_PNG_KEPT = {"IHDR", "PLTE", "IDAT", "IEND", "tRNS", "gAMA", "cHRM", "sRGB", "iCCP", "cICP", "sBIT", "pHYs"}
_WEBP_KEPT = {"VP8 ", "VP8L", "ALPH", "ICCP"}
_WEBP_METADATA_FLAGS = 0x08 | 0x04  # of VP8X: EXIF, XMP


def without_metadata(data: bytes, header: Header) -> bytes:
    """The same image without metadata and without what follows its end; the file itself where it has neither."""
    if not header.has_metadata and header.end == len(data):
        return data
    return _WRITERS[header.format](data)


def _jpeg(data: bytes) -> bytes:
    def kept(part: Part) -> bool:
        colour_profile = part.name == "E2" and data[part.body : part.body + 12] == b"ICC_PROFILE\0"
        return part.name in _JPEG_TABLES or colour_profile

    return data[:2] + _joined(data, jpeg_parts(data), kept)


def _png(data: bytes) -> bytes:
    return data[:8] + _joined(data, png_parts(data), lambda part: part.name in _PNG_KEPT)


def _webp(data: bytes) -> bytes:
    parts = list(webp_parts(data))
    chunks = b""
    if parts[0].name == "VP8X":
        first = bytearray(data[parts[0].start : parts[0].end])
        first[8] &= ~_WEBP_METADATA_FLAGS & 0xFF
        chunks = bytes(first)
    chunks += _joined(data, iter(parts), lambda part: part.name in _WEBP_KEPT)
    return b"RIFF" + (4 + len(chunks)).to_bytes(4, "little") + b"WEBP" + chunks


def _joined(data: bytes, parts: Iterator[Part], kept: Callable[[Part], bool]) -> bytes:
    return b"".join(data[part.start : part.end] for part in parts if kept(part))


_WRITERS: dict[str, Callable[[bytes], bytes]] = {"JPEG": _jpeg, "PNG": _png, "WEBP": _webp}
