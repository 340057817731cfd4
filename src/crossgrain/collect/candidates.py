"""The nouns of collecting: a page, an image on it, and what the page says about that image."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

TextKind = Literal["alt", "title", "figcaption", "near"]


@dataclass(frozen=True, slots=True)
class PageText:
    """What a page says about an image: its alt, its title, its figure's caption, or text that stands near it."""

    kind: TextKind
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A web page as it was served. `headers` have lower-case names; `source` says where it was read (FILE@OFFSET)."""

    url: str
    html: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedImage:
    """An image that lies in a WARC: `offset` is that of its record, `size` the bytes of its body as far as is known."""

    url: str
    offset: int
    size: int
    content_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """How an image stands on its page: what tells its subject from its furniture before any byte of it is fetched."""

    declared_width: int = 0  # px as the page declares them, 0: not said
    declared_height: int = 0
    position: float = 0.0  # of the page's images in document order, 0 the first, 1 the last
    in_link: bool = False
    link_density: float = 0.0  # share of the characters of its block that stand in links
    depth: int = 0  # elements above it
    dominant: float = 0.0  # 0 to 1: how much it looks like what the page is about


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An image of a page with all texts that may describe it."""

    page_url: str
    image_url: str
    texts: tuple[PageText, ...]
    placement: Placement = Placement()
    page_language: str = ""  # as the page declares it ("en-GB"), empty where it does not
    licence: str = ""  # a licence's URL or name where the page gives one
