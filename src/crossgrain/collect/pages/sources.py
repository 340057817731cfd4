"""Where the image of an `<img>` lies and how large it is, as the page says: lazy loaders, `srcset`, `<picture>`."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

Attributes = Mapping[str, str | None]

_SRCSETS = ("srcset", "data-srcset", "data-lazy-srcset", "data-src-set", "lazy-srcset", "data-original-set")
_LAZY = (  # what lazy loaders and galleries call the true address, the most used first
    "data-src",
    "data-lazy-src",
    "data-original",
    "data-lazy",
    "data-large-file",
    "data-orig-file",
    "data-full-src",
    "data-original-src",
    "data-img-src",
    "data-hi-res-src",
    "data-echo",
    "data-url",
    "data-image",
    "data-image-src",
    "data-delayed-url",
    "data-actualsrc",
    "lazy-src",
    "lazysrc",
    "lazyload",
)
_SRCSET_NAMES, _LAZY_NAMES = frozenset(_SRCSETS), frozenset(_LAZY)
_OTHER_NAMES = _SRCSET_NAMES | _LAZY_NAMES
_CANDIDATE = re.compile(r"[\s,]*(\S*[^\s,])(?:\s+(\d{1,6}(?:\.\d{1,6})?)([wx])[^,]*)?(?:,|\s|$)", re.ASCII)
_BETWEEN = " \t\n\r\f\v,"  # what stands between the candidates of a srcset; at its end it would be searched in vain
_MAX_SRCSET = 2**14  # characters
_MAX_LAZY = 2**12
_IMAGE_NAME = re.compile(r"\.(?:jpe?g|png|webp)(?:[?#]|$)", re.IGNORECASE)
_NO_ADDRESS = re.compile(r"[\n{}<>]|,\s|^\[")
_SURE = r"(?:1x1|blank|lazyload|load(?:er|ing)|placeholder|spacer|transparent)"
_WORD = rf"(?:{_SURE}|clear|dot|gr[ae]y|lazy|pixel|px|trans)"
_MORE = rf"(?:[_.-]?(?:{_WORD}|\d[\dx]*|image|img|white))*+"
_PLACEHOLDER = re.compile(rf"{_WORD}{_MORE}\.(?:jpe?g|webp)", re.IGNORECASE)  # of the file's name
_DRAWN = re.compile(rf"(?:.*[_.-])?{_WORD}[\w-]{{0,20}}\.(?:gif|svg)", re.IGNORECASE)
_PLACEHOLDERS = {
    ".png": re.compile(rf"(?:{_WORD}|.*[_.-]{_SURE}){_MORE}\.png", re.IGNORECASE),
    ".gif": _DRAWN,  # seldom the photo of a pixel or a dot
    ".svg": _DRAWN,
}
_MAX_PLACEHOLDER = 40  # characters of such a name
_UNREADABLE = ("image/avif", "image/svg", "image/jxl", "image/heic", "image/jp2", "video/")
_SIDE = re.compile(r"\s*(\d{1,5})(?:\.\d+)?\s*(?:px)?\s*", re.IGNORECASE)
_STYLE = re.compile(r"(?<![\w-])(width|height)\s*:\s*(\d{1,5})(?:\.\d+)?px", re.IGNORECASE)
_SIZE_IN_NAME = re.compile(r"[-_](\d{2,4})x(\d{2,4})\.[a-z]{3,4}$|/(\d{2,4})px-[^/]*$", re.IGNORECASE)
_MAX_NAME = 120  # characters of an address that may tell a size


class ImageSource(NamedTuple):
    """The reference that was chosen, the file's width where the page gives it (px, 0: not said), and whether the plain
    `src` would have given nothing."""

    reference: str
    width: int = 0
    recovered: bool = False


def image_source(attributes: Attributes, picture: Sequence[Attributes], preferred_width: int) -> ImageSource | None:
    """The best file of an image; None where there is none but inline data or a placeholder.

    Of a `srcset`, and the `<source>`s of the image's `<picture>`, the smallest that is at least `preferred_width` wide,
    else the widest; else the address that a lazy loader would load; else `src`.
    """
    plain = (attributes.get("src") or "").strip()
    usable = bool(plain) and not _is_inline(plain) and not _is_placeholder(plain)
    if usable and not picture and _OTHER_NAMES.isdisjoint(attributes):
        return ImageSource(plain)
    sets = []
    if not _SRCSET_NAMES.isdisjoint(attributes):
        sets = [text for name in _SRCSETS if (text := attributes.get(name))]
    for source in picture:
        if not (source.get("type") or "").strip().lower().startswith(_UNREADABLE):
            sets += [text for name in _SRCSETS if (text := source.get(name))]
    if sets:
        best = _best_size(sets, attributes, preferred_width)
        if best:
            return ImageSource(*best, recovered=not usable)
    for name in _LAZY if not _LAZY_NAMES.isdisjoint(attributes) else ():
        value = (attributes.get(name) or "").strip()
        if value and _is_address(value, surely="src" in name or not usable):
            return ImageSource(value, recovered=not usable)
    if usable:
        return ImageSource(plain)
    for name, value in attributes.items():
        value = (value or "").strip()
        if name.startswith("data-") and " " not in value and _is_address(value, surely=False):
            return ImageSource(value, recovered=True)
    return None


def _is_address(value: str, surely: bool) -> bool:
    """Whether an attribute of a lazy loader holds an address: by an image's name, or (`surely`) by any."""
    if len(value) > _MAX_LAZY or _is_inline(value) or _NO_ADDRESS.search(value):
        return False
    return _IMAGE_NAME.search(value) is not None or (surely and " " not in value and ("." in value or "/" in value))


def _is_inline(reference: str) -> bool:
    return reference[:6].lower().startswith(("data:", "blob:", "about:"))


def _is_placeholder(reference: str) -> bool:
    name = reference.partition("?")[0].rpartition("/")[2]
    pattern = _PLACEHOLDERS.get(name[-4:].lower(), _PLACEHOLDER)
    return len(name) < _MAX_PLACEHOLDER and pattern.fullmatch(name) is not None


def _best_size(sets: Sequence[str], attributes: Attributes, preferred_width: int) -> tuple[str, int] | None:
    """(reference, width in px or 0) of the best candidate in some `srcset`s."""
    shown = declared_size(attributes)[0]
    best: tuple[tuple[bool, float], str, int] | None = None
    for text in sets:
        for match in _CANDIDATE.finditer(text[:_MAX_SRCSET].rstrip(_BETWEEN)):
            reference, number, unit = match.groups()
            width = float(number or 1) if unit == "w" else float(number or 1) * shown
            enough = width >= preferred_width
            # "2x" of an unknown size is better than "1x" of it; of two equal ones the first stands for the older format
            size = width or float(number or 1) / 100
            rank = (enough, -size if enough else size)
            if (best is None or rank > best[0]) and not _is_inline(reference) and not _is_placeholder(reference):
                best = rank, reference, int(width) if unit == "w" or unit == "x" else 0
    return (best[1], best[2]) if best else None


def declared_size(attributes: Attributes) -> tuple[int, int]:
    """(width, height) in px as attributes or style say, 0 where they do not; a percentage says nothing."""
    width, height = _side(attributes.get("width")), _side(attributes.get("height"))
    style = attributes.get("style")
    if style:
        for name, number in _STYLE.findall(style):
            if name.lower() == "width":
                width = width or int(number)
            else:
                height = height or int(number)
    return width, height


def file_size(source: ImageSource, attributes: Attributes) -> tuple[int, int]:
    """(width, height) in px of the chosen file as the page tells: by `srcset`, by its name, else as it is shown."""
    width, height = declared_size(attributes)
    named = _SIZE_IN_NAME.search(source.reference.partition("?")[0][-_MAX_NAME:])
    if named:
        if named[1]:
            return int(named[1]), int(named[2])
        known = int(named[3])
    else:
        known = source.width
    if known:
        return known, round(height * known / width) if width else 0
    return width, height


def _side(value: str | None) -> int:
    if not value:
        return 0
    if len(value) <= 5 and value.isascii() and value.isdigit():
        return int(value)
    match = _SIDE.fullmatch(value)
    return int(match[1]) if match else 0
