"""What every layout shares: find an image file in its folder, name it, place it in a split, read its boxes."""

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from crossgrain.config import UserError
from crossgrain.data.records import Box, Dropped, Item, Record, Region, safe_key
from crossgrain.data.sets.annotations import clean_text

_MAX_KEY = 120  # characters: a key is a file name inside a tar
_EDGE = 1.0  # pixels: annotation tools round a box over the image's edge by up to this much
_VAL, _TEST = 0.05, 0.05  # shares held out where a layout has no splits of its own


class ImageFolders:
    """Finds image files by the name that an annotation gives, in the first of some folders that has it.

    A name may not lead out of its folder, by "..", as an absolute path or through a link.
    """

    def __init__(self, folders: Sequence[Path]):
        self.folders = [(folder, folder.resolve()) for folder in folders if folder.is_dir()]
        if not self.folders:
            raise UserError(f"no folder of images: looked for {', '.join(str(folder) for folder in folders)}")

    @classmethod
    def under(cls, root: Path, names: Sequence[str], given: Path | None = None) -> "ImageFolders":
        """The folders `names` of a layout under `root`, or the one that the user gave, as it stands or under `root`."""
        return cls([root / name for name in names] if given is None else [given, root / given])

    def find(self, where: str, *names: Any) -> Path | Dropped:
        """The file that has one of `names`, or why it cannot be used."""
        reason = "image missing"
        for name in names:
            if not isinstance(name, str) or not name or "\0" in name:
                return Dropped(reason="malformed image name", where=where, detail=repr(name)[:200])
            for folder, resolved in self.folders:
                path = folder / name
                try:
                    inside = path.resolve().is_relative_to(resolved)
                    if inside and path.is_file():
                        return path
                except (OSError, RuntimeError, ValueError) as error:  # a name too long, a loop of links, no UTF-8
                    return Dropped(reason="image missing", where=where, detail=f"{name[:200]}: {error}")
                if not inside:
                    reason = "image path leaves its folder"
        return Dropped(reason=reason, where=where, detail=str(names[0])[:200])


def digest(text: str) -> bytes:
    """SHA-256 of a text, whatever a file had in place of its characters."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class Keys:
    """Record keys from names: equal names have equal keys, unequal names unequal ones."""

    def __init__(self) -> None:
        self._taken: dict[int, int] = {}

    def of(self, name: str) -> str:
        """The name without its extension where that is free and plain enough, else with a piece of its hash."""
        key = safe_key(name.removesuffix(PurePosixPath(name).suffix))
        owner, taken = (int.from_bytes(digest(text)[:8]) for text in (name, key))
        if len(key) <= _MAX_KEY and self._taken.setdefault(taken, owner) == owner:
            return key
        return f"{key[:_MAX_KEY]}_{digest(name).hex()[:12]}"


def is_split_name(value: Any) -> TypeGuard[str]:
    """Whether a value may name a split: letters, digits and _ . - only."""
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", value) is not None


@dataclass(frozen=True)
class Splits:
    """Which split a record belongs to. `wanted` is what the user asked for: None is everything."""

    wanted: str | None

    def official(self, split: str) -> str | None:
        """For layouts with splits: the split, or None when it is not wanted. Karpathy's "restval" is training data."""
        split = {"restval": "train"}.get(split, split)
        return split if self.wanted in (None, split) else None

    def held_out(self, name: str) -> str:
        """For layouts without: the split asked for, else 90 % train, 5 % val, 5 % test by a hash of the name."""
        if self.wanted is not None:
            return self.wanted
        value = int.from_bytes(digest(name)[:8]) / 2**64
        return "test" if value < _TEST else "val" if value < _TEST + _VAL else "train"

    def place(self, name: str, split: str | None) -> str | None:
        """`official` where an annotation names a split, `held_out` where it names none."""
        return self.held_out(name) if split is None else self.official(split)


@dataclass(frozen=True, slots=True)
class Caption:
    """One text about the image called `image`. `split` is None where the layout has none."""

    image: str
    text: Any
    where: str
    split: str | None = None


@dataclass(slots=True)
class _Picture:
    where: str
    split: str | None
    texts: list[str] = field(default_factory=list)


class CaptionedImages:
    """The items of a layout that lists captions: one record an image, in order of first mention, with all its texts.

    Captions without a usable text are dropped alone. Its length hint is known once the annotations have been read.
    """

    def __init__(self, captions: Iterable[Caption | Dropped], folders: ImageFolders, splits: Splits):
        self.captions = captions
        self.folders = folders
        self.splits = splits
        self._length = 0

    def __length_hint__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Item]:
        pictures: dict[str, _Picture] = {}
        dropped = 0
        for caption in self.captions:
            cleaned = caption if isinstance(caption, Dropped) else _clean(caption)
            if isinstance(cleaned, Dropped):
                dropped += 1
                yield cleaned
                continue
            picture = pictures.setdefault(cleaned.image, _Picture(cleaned.where, cleaned.split))
            picture.texts.append(cleaned.text)
        self._length = dropped + len(pictures)
        keys = Keys()
        for name, picture in pictures.items():
            split = self.splits.place(name, picture.split)
            if split is None:
                continue
            file = self.folders.find(picture.where, name)
            if isinstance(file, Dropped):
                yield file
                continue
            source = {"source": picture.where}
            yield Record(key=keys.of(name), image=file, captions=tuple(picture.texts), split=split, extra=source)


def _clean(caption: Caption) -> Caption | Dropped:
    text, rule = clean_text(caption.text)
    if rule:
        detail = f"{caption.image[:100]}: {str(caption.text)[:100]!r}"
        return Dropped(reason=rule, where=caption.where, detail=detail)
    return replace(caption, image=str(PurePosixPath(caption.image)), text=text)  # ./a.jpg is a.jpg


def pixel_box(values: Any, width: float, height: float) -> Box | str:
    """(x, y, width, height) in pixels as a box of an image of `width` x `height`, or the rule that it breaks."""
    if not isinstance(values, list | tuple) or len(values) != 4:
        return "region: malformed box"
    try:
        x, y, w, h = (float(v) for v in values)
    except (TypeError, ValueError, OverflowError):
        return "region: malformed box"
    if not all(math.isfinite(v) for v in (x, y, w, h)):
        return "region: malformed box"
    if w <= 0 or h <= 0:
        return "region: degenerate box"
    if x < -_EDGE or y < -_EDGE or x + w > width + _EDGE or y + h > height + _EDGE:
        return "region: box outside the image"
    box = (max(x / width, 0.0), max(y / height, 0.0), min((x + w) / width, 1.0), min((y + h) / height, 1.0))
    x1, y1, x2, y2 = (round(v, 6) for v in box)
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else "region: degenerate box"


def image_size(width: Any, height: Any) -> tuple[float, float] | None:
    """The size that an annotation gives for its image, None if it is none."""
    numbers = isinstance(width, int | float) and isinstance(height, int | float)
    return (float(width), float(height)) if numbers and 0 < width < 1e6 and 0 < height < 1e6 else None


def region(
    box: Any,
    size: tuple[float, float],
    where: str,
    *,
    label: Any = "",
    attributes: Iterable[Any] = (),
    phrases: Iterable[Any] = (),
) -> Region | Dropped:
    """A region from a box (x, y, width, height) in pixels and the texts about it, or why it cannot be used."""
    corners = pixel_box(box, *size)
    if isinstance(corners, str):
        return Dropped(reason=corners, where=where, detail=f"{str(box)[:100]} in an image of {size[0]:g} x {size[1]:g}")
    texts = [text for text, rule in map(clean_text, phrases) if not rule]
    name, _ = clean_text(label)
    kinds = [text for text, rule in map(clean_text, attributes) if not rule]
    if not name and not texts:
        return Dropped(reason="region: empty text", where=where, detail=str(box)[:100])
    return Region(box=corners, label=name, attributes=tuple(kinds), phrases=tuple(dict.fromkeys(texts)))
