"""From what a reader found to what a shard keeps: every image decoded once in full, ordinary files kept byte for byte.

These functions run in worker processes; a file that kills its worker is the pool's to report.
"""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from crossgrain.data.images import FORMATS, LIMITS, EncodedImage, ImageError
from crossgrain.data.records import Dropped, Item, Record

_ORDINARY = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
_JPEG_FAMILY = ("JPEG", "MPO")


@dataclass(frozen=True, slots=True)
class Checked:
    """A record ready for a shard: its image is bytes that decode, upright, to `width` x `height` pixels."""

    record: Record
    extension: str
    width: int
    height: int


def check(item: Item) -> list[Checked | Dropped]:
    """Make, read and decode one item of a reader. A record of no use becomes a `Dropped`, whatever is wrong with it."""
    try:
        found = item() if callable(item) else item
    except Exception as error:  # content that nothing expected: it is counted, and shown with its type
        return [Dropped(reason=f"unexpected {type(error).__name__}", where=_origin(item), detail=str(error)[:200])]
    several = found if isinstance(found, Sequence) else [found]
    return [result for one in several for result in (_check_record(one) if isinstance(one, Record) else [one])]


def place(item: Item) -> str:
    """Where an item comes from: file and line if its reader said so, else its key."""
    if isinstance(item, Dropped):
        return item.where
    return str(item.extra.get("source", item.key)) if isinstance(item, Record) else _origin(item)


def _origin(item: object) -> str:
    """The arguments of a thunk (a `functools.partial`) tell where it reads."""
    arguments = [str(a) for a in getattr(item, "args", ()) if isinstance(a, str | int | Path)]
    return ", ".join(arguments)[:200] or repr(item)[:200]


_OF_REGIONS = ("expressions", "choices", "entities")  # what names regions by their numbers, or has boxes of its own
_OF_IMAGES = ("questions", "pairs")


def _check_record(record: Record) -> list[Checked | Dropped]:
    try:
        data = record.image if isinstance(record.image, bytes) else _read_file(record.image)
        encoded = EncodedImage(data)
        image = encoded.decode()
    except ImageError as error:
        return [Dropped(reason=error.reason, where=place(record), detail=_detail(record, error.detail))]
    except (OSError, MemoryError) as error:
        return [Dropped(reason="image unreadable", where=place(record), detail=_detail(record, str(error)))]
    kept, extension = _kept_or_encoded(data, image, encoded.turned)
    if not encoded.turned:
        return [Checked(replace(record, image=kept), extension, *image.size)]
    # Nothing says whether these boxes were drawn on the image as stored or as shown.
    where, name = place(record), _detail(record, "")
    lost = [Dropped(reason="region: image with an EXIF rotation", where=where, detail=name) for _ in record.regions]
    extra = {key: value for key, value in record.extra.items() if key not in _OF_REGIONS}
    if lost and not record.captions and not any(map(extra.get, _OF_IMAGES)):
        return [*lost, Dropped(reason="no region", where=where, detail=name)]
    return [*lost, Checked(replace(record, image=kept, regions=(), extra=extra), extension, *image.size)]


def _read_file(path: Path) -> bytes:
    """The file, or the beginning of one over the limit, which `open_image` then refuses."""
    with path.open("rb") as file:
        return file.read(LIMITS.max_bytes + 1)


def _detail(record: Record, detail: str) -> str:
    name = record.image.name if isinstance(record.image, Path) else record.key
    return f"{name}: {detail}" if detail else name


def _kept_or_encoded(data: bytes, image: Image.Image, turned: bool) -> tuple[bytes, str]:
    """(file, extension): the file itself if every decoder reads it alike, else encoded anew.

    What was a JPEG stays one; the rest becomes PNG.
    """
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=FORMATS) as source:
        name = source.format or ""
        plain = source.mode in ("RGB", "L") and "transparency" not in source.info
        if name in _ORDINARY and plain and not turned and not getattr(source, "is_animated", False):
            return data, _ORDINARY[name]
    buffer = io.BytesIO()
    if name in _JPEG_FAMILY:
        image.save(buffer, "JPEG", quality=95)
        return buffer.getvalue(), "jpg"
    image.save(buffer, "PNG")
    return buffer.getvalue(), "png"
