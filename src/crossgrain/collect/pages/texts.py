"""What a page says about an image: alt, title, the caption of its figure, and text that stands near it."""

from collections.abc import Mapping, Sequence
from itertools import islice

from selectolax.lexbor import LexborNode

from crossgrain.collect.candidates import PageText, TextKind
from crossgrain.collect.pages.placement import Surroundings

MAX_TEXT = 2000  # characters of an alt, a title or a caption
_LEVELS = 4  # elements above an image beside which its text may stand
_NEIGHBOURS = 3  # elements and texts that are looked at on each side of it
_MAX_NODES = 12  # with comments and blanks between them
_BOUNDARY = frozenset(("body", "html", "main", "-document"))
_MIN_LETTERS = 8
_MAX_LINKS = 200  # of a block, that are read
_MAX_READ = 2**22  # characters and links of all blocks of a page: blocks inside each other are read again and again
_MAX_CHILDREN = 100  # of a figure, among which its caption is looked for


class TextFinder:
    """Finds the texts of images of one page; every element is read once, however many images stand beside it."""

    def __init__(self, kinds: Sequence[TextKind], near_chars: int, enough_words: int):
        self._kinds = frozenset(kinds)
        self._enough_spaces = enough_words - 1
        self._near_chars = near_chars
        self._read: dict[int, str] = {}
        self._captions: dict[int, str] = {}
        self._densities: dict[int, float] = {}
        self._left = _MAX_READ

    def texts(
        self, node: LexborNode, attributes: Mapping[str, str | None], surroundings: Surroundings
    ) -> tuple[PageText, ...]:
        """All texts of an image of the kinds that are wanted, each distinct one once, in the order of their kinds."""
        found: dict[str, TextKind] = {}
        if "alt" in self._kinds and (alt := _spaced(attributes.get("alt"))):
            found[alt] = "alt"
        if "title" in self._kinds:
            title = _spaced(attributes.get("title"))
            if not title and surroundings.link is not None:
                title = _spaced(surroundings.link.attributes.get("title"))
            if title:
                found.setdefault(title, "title")
        caption = self._caption(surroundings.figure)
        if caption and "figcaption" in self._kinds:
            found.setdefault(caption, "figcaption")
        if not any(text.count(" ") >= self._enough_spaces for text in found):
            for kind, text in self._near(node):
                if kind in self._kinds and text not in found:
                    found[text] = kind
        return tuple(PageText(kind, text) for text, kind in found.items())

    def link_density(self, node: LexborNode, link: LexborNode | None) -> float:
        """The share of the characters in the image's block that stand in links; 0 where nothing is written there.

        The block is the element above the image; of one in a link, what holds the link's neighbours as well.
        """
        block = node.parent
        if link is not None and (above := link.parent) is not None:
            block = above if above.tag in _BOUNDARY else above.parent
        if block is None or block.tag in _BOUNDARY:
            return float(link is not None)
        key = block.mem_id
        if key not in self._densities and self._left > 0:
            whole = len(block.text(strip=True))
            links = block.css("a") if whole else []
            linked = sum(len(link.text(strip=True)) for link in links[:_MAX_LINKS])
            self._densities[key] = min(1.0, linked / whole) if whole else 0.0
            self._left -= whole + len(links)
        return self._densities.get(key, 0.0)

    def _caption(self, figure: LexborNode | None) -> str:
        if figure is None:
            return ""
        if figure.mem_id not in self._captions:
            caption = figure.css_first("figcaption")
            if caption is not None and not _is_of(caption, figure):  # of a figure inside this one
                caption = next((at for at in islice(figure.iter(), _MAX_CHILDREN) if at.tag == "figcaption"), None)
            self._captions[figure.mem_id] = _spaced(caption.text(separator=" ")) if caption is not None else ""
        return self._captions[figure.mem_id]

    def _near(self, node: LexborNode) -> list[tuple[TextKind, str]]:
        """The text behind and before the image, at the lowest level that has any; of a caption by name, only that."""
        at = node
        for _ in range(_LEVELS):
            behind, is_caption = self._beside(at, forward=True)
            if behind and is_caption:
                return [("figcaption", behind[:MAX_TEXT])]
            before, _ = self._beside(at, forward=False)
            if behind or before:
                shortened = (_beginning(behind, self._near_chars), _end(before, self._near_chars))
                return [("near", text) for text in shortened if text]
            above = at.parent
            if above is None or above.tag in _BOUNDARY:
                break
            at = above
        return []

    def _beside(self, node: LexborNode, forward: bool) -> tuple[str, bool]:
        """The nearest text on one side of `node` among its siblings, and whether its class calls it a caption."""
        at, left = node, _NEIGHBOURS
        for _ in range(_MAX_NODES):
            at = at.next if forward else at.prev
            if at is None or not left:
                break
            if at.is_element_node:
                text = self._text(at)
                if len(text) >= _MIN_LETTERS:
                    return text, "caption" in (at.attributes.get("class") or "").lower()
                left -= 1
            elif at.is_text_node and not at.is_empty_text_node:
                text = _spaced(at.text_content)
                if len(text) >= _MIN_LETTERS:
                    return text, False
                left -= 1
        return "", False

    def _text(self, element: LexborNode) -> str:
        key = element.mem_id
        text = self._read.get(key)
        if text is None:
            whole = element.text(separator=" ", strip=True, skip_empty=True) if self._left > 0 else ""
            self._left -= len(whole)
            text = _spaced(whole)
            if len(text) > 2 * self._near_chars:
                text = text[: self._near_chars] + text[-self._near_chars :]
            self._read[key] = text
        return text


def _is_of(caption: LexborNode, figure: LexborNode) -> bool:
    at = caption.parent
    while at is not None and at.tag != "figure":
        at = at.parent
    return at is not None and at.mem_id == figure.mem_id


def _spaced(text: str | None) -> str:
    return " ".join(text[: 8 * MAX_TEXT].split())[:MAX_TEXT] if text else ""


def _beginning(text: str, length: int) -> str:
    """At most `length` characters, whole words."""
    return text if len(text) <= length else text[:length].rpartition(" ")[0]


def _end(text: str, length: int) -> str:
    return text if len(text) <= length else text[-length:].partition(" ")[2]
