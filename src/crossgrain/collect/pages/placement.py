"""How an image stands on its page: whether it is the subject or the furniture, by elements, sizes and links alone."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from selectolax.lexbor import LexborNode

from crossgrain.collect.candidates import Placement

_SUBJECT = frozenset(("figure", "article", "main"))
_FURNITURE = frozenset(("nav", "footer", "aside", "button", "header", "form"))
_FURNITURE_NAMES = frozenset(
    (
        *(
            "logo",
            "logos",
            "icon",
            "icons",
            "ico",
            "favicon",
            "sprite",
            "sprites",
            "avatar",
            "avatars",
            "gravatar",
            "badge",
        ),
        *(
            "badges",
            "button",
            "buttons",
            "btn",
            "arrow",
            "arrows",
            "bullet",
            "bullets",
            "emoji",
            "smiley",
            "smilies",
            "flag",
        ),
        *(
            "flags",
            "social",
            "share",
            "facebook",
            "twitter",
            "rss",
            "tracking",
            "captcha",
            "ad",
            "ads",
            "banner",
            "banners",
        ),
        *("widget", "pinit", "spinner"),
    )
)
_FURNITURE_WORDS = frozenset(name.encode() for name in _FURNITURE_NAMES)
_LETTERS_ALONE = bytes(code if ord("a") <= code <= ord("z") else 32 for code in range(256))
MAX_DEPTH = 512  # elements; what stands deeper is not looked at further up


class Surroundings(NamedTuple):
    """What stands above an element: how many elements, the nearest link and figure, and which kind of section."""

    depth: int = 0
    link: LexborNode | None = None
    figure: LexborNode | None = None
    subject: bool = False
    furniture: bool = False


class Ancestry:
    """The surroundings of elements of one page; each element above an image is looked at once."""

    def __init__(self) -> None:
        self._known: dict[int, _Above] = {}

    def above(self, node: LexborNode) -> Surroundings:
        """What stands above `node`."""
        chain: list[LexborNode] = []
        depth, sections = 0, _NOWHERE
        at = node.parent
        while at is not None and len(chain) < MAX_DEPTH:
            found = self._known.get(at.mem_id)
            if found is not None:
                depth, sections = found
                break
            chain.append(at)
            at = at.parent
        while chain:
            element = chain.pop()
            depth += 1
            if element.tag in _KINDS:
                sections = _within(element, sections)
            self._known[element.mem_id] = depth, sections
        return Surroundings(depth, *sections)


_KINDS = frozenset(("a", *_SUBJECT, *_FURNITURE))
_Sections = tuple[LexborNode | None, LexborNode | None, bool, bool]  # the fields of Surroundings but the depth
_Above = tuple[int, _Sections]
_NOWHERE: _Sections = (None, None, False, False)


def _within(element: LexborNode, above: _Sections) -> _Sections:
    tag = element.tag
    link, figure, subject, furniture = above
    link = element if tag == "a" else link
    figure = element if tag == "figure" else figure
    subject = subject or tag in _SUBJECT
    # The head of an article is part of it; that of the page is furniture.
    furniture = furniture or (tag in _FURNITURE and not (subject and tag == "header"))
    return link, figure, subject, furniture


def placement(
    *,
    size: tuple[int, int],
    position: float,
    surroundings: Surroundings,
    link_density: float,
    described: bool,
    chosen_by_page: bool,
    num_alike: int,
    names: str,
) -> Placement:
    """The placement of an image of `size` px (0: not said); `dominant` is a logistic sum of what speaks either way.

    `described`: it has a caption or a real alt; `chosen_by_page`: the page names it as its picture (`og:image`);
    `num_alike`: images of this size on the page; `names`: its class, id and file name. The weights are set by hand, for
    what the paper calls dominant images ("HTML tags and DOM-tree features") without saying how it weighs them.
    """
    score = 0.6 - 0.4 * position - 0.8 * link_density + 0.5 * described + 2.5 * chosen_by_page
    words = names.encode("ascii", "replace").translate(_LETTERS_ALONE).split()
    sides = [side for side in size if side]
    if sides:
        score += max(-3.0, min(1.5, 1.5 * math.log2(min(sides) / 250)))
        if len(sides) == 2 and max(sides) > 3.5 * min(sides):  # bars and banners
            score -= 1.5
    score += 0.8 * surroundings.subject - 1.2 * surroundings.furniture - 0.3 * (surroundings.link is not None)
    score -= 2.0 * (not _FURNITURE_WORDS.isdisjoint(words)) + 0.4 * (num_alike > 8)
    return Placement(
        declared_width=size[0],
        declared_height=size[1],
        position=round(position, 4),
        in_link=surroundings.link is not None,
        link_density=round(link_density, 4),
        depth=surroundings.depth,
        dominant=round(1 / (1 + math.exp(-score)), 4),
    )


def names_of(attributes: Mapping[str, str | None], url: str) -> str:
    """Class, id and file name of an image in lower case: what calls a logo a logo."""
    file = url.partition("?")[0].rpartition("/")[2][-80:]
    return f"{(attributes.get('class') or '')[:200]} {(attributes.get('id') or '')[:80]} {file}".lower()
