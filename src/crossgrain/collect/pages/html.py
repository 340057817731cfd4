"""The images of a web page with what the page says about them, and why it gives up the others."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from selectolax.lexbor import LexborHTMLParser, LexborNode, SelectolaxError

from crossgrain.collect.candidates import Candidate, Page, PageText, TextKind
from crossgrain.collect.opt_outs import AI_TOKENS, page_opt_out
from crossgrain.collect.pages.charset import as_utf8
from crossgrain.collect.pages.licences import Licences
from crossgrain.collect.pages.nesting import nested_too_deeply
from crossgrain.collect.pages.placement import Ancestry, names_of, placement
from crossgrain.collect.pages.sources import Attributes, ImageSource, file_size, image_source
from crossgrain.collect.pages.texts import TextFinder
from crossgrain.collect.pages.urls import Resolver
from crossgrain.config import Count, configclass

_WITHOUT_EVENTS = 1  # lexbor's option: nothing here listens to changes of the tree
_LOOKED_AT = (
    'img, amp-img, meta, base, svg, script[type*="ld+json" i], [rel~="license"], a[href*="creativecommons.org/"]'
)
_IMAGE = re.compile(rb"<(?:amp-)?im(?:g|age)", re.IGNORECASE)  # a parser makes an img of an image
_SELF_CLOSED = re.compile(rb"<(script|style|title|textarea|iframe)(\s[^<>]*)?/>", re.IGNORECASE)
_MAX_NAME_SIZE = 16  # characters of a match of the following and what stands behind it
_NAME_SIZE = re.compile(r"[-_](?:\d{2,4}x\d{2,4}|scaled)(?=\.[a-z]{3,4}$)", re.IGNORECASE)


@configclass
class PageConfig:
    """What is taken from a page."""

    texts: tuple[TextKind, ...] = ("alt", "title", "figcaption", "near")
    near_chars: Count = 300  # of text behind and before an image
    enough_words: Count = 6  # of an alt, title or caption: text that stands near is read where all have fewer
    preferred_width: Count = 1024  # px, of the files that a srcset offers: the smallest that has it, else the widest
    min_declared_side: int = 150  # px; smaller by what the page says is not fetched, 0: whatever it says
    min_dominance: float = 0.1  # 0 to 1, see `Placement.dominant`
    max_images: Count = 500  # of one page
    languages: tuple[str, ...] = ()  # of pages that declare one ("en"); none: every language


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a page gave: `num_images` = candidates + all of `dropped`. `num_recovered` candidates have an address from a
    lazy loader or a `srcset` where the plain `src` has none."""

    candidates: tuple[Candidate, ...] = ()
    num_images: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    opted_out: str | None = None
    language: str = ""
    num_recovered: int = 0


def find_candidates(page: Page, config: PageConfig, tokens: Collection[str] = AI_TOKENS) -> Findings:
    """The image candidates of a page. Nothing in a page raises: what cannot be used is counted.

    `tokens`: lower-case agents whose prohibitions on the page hold for us.
    """
    content_type = page.headers.get("content-type", "")
    html = as_utf8(page.html, content_type)
    if not _IMAGE.search(html):
        return Findings()
    if "xhtml" in content_type.lower():
        html = _SELF_CLOSED.sub(rb"<\1\2></\1>", html)
    if nested_too_deeply(html):
        return _unread(html, "page nested too deeply")
    try:
        tree = LexborHTMLParser(html, options=_WITHOUT_EVENTS)
        return _PageReader(page, config, tree).findings(tokens)
    except (SelectolaxError, MemoryError):
        return _unread(html, "page unreadable")


def _unread(html: bytes, reason: str) -> Findings:
    number = len(_IMAGE.findall(html))
    return Findings(num_images=number, dropped=Counter({reason: number}))


@dataclass(slots=True)
class _Found:
    """An image whose address is known, until all of its page are."""

    url: str
    node: LexborNode
    attributes: Attributes
    source: ImageSource
    size: tuple[int, int]
    number: int


class _PageReader:
    def __init__(self, page: Page, config: PageConfig, tree: LexborHTMLParser):
        self.page, self.config = page, config
        self.dropped: Counter[str] = Counter()
        self.images: list[LexborNode] = []
        self.metas: list[tuple[str, str]] = []
        self.licences = Licences()
        drawings: list[LexborNode] = []
        base = ""
        for node in tree.css(_LOOKED_AT):
            match node.tag:
                case "img" | "amp-img":
                    self.images.append(node)
                case "meta":
                    values = node.attributes
                    name = values.get("name") or values.get("property") or values.get("http-equiv")
                    if name and (content := values.get("content")):
                        self.metas.append((name.strip().lower(), content))
                case "base":
                    base = base or node.attributes.get("href") or ""
                case "svg":
                    drawings.append(node)
                case "script":
                    self.licences.read(node.text())
                case _:
                    self.licences.add(node)
        with_images = any(drawing.css_first("img, amp-img") for drawing in drawings)  # in a foreignObject
        tree.strip_tags(["script", "style"] if with_images else ["script", "style", "svg"], recursive=True)
        self.resolver = Resolver(page.url, base.strip())
        self.licences.resolve(self.resolver)
        self.language = self._language(tree.root)
        self.ancestry = Ancestry()

    def findings(self, tokens: Collection[str]) -> Findings:
        opted_out = page_opt_out(self.metas, self.page.headers, tokens)
        reason = opted_out or self._wrong_language()
        if reason:
            self.dropped[reason] += len(self.images)
            return self._findings([], opted_out)
        return self._findings(self._candidates(self._located()), None)

    def _findings(self, found: Sequence[tuple[Candidate, bool]], opted_out: str | None) -> Findings:
        return Findings(
            candidates=tuple(candidate for candidate, _ in found),
            num_images=len(self.images),
            dropped=+self.dropped,  # without zeros
            opted_out=opted_out,
            language=self.language,
            num_recovered=sum(recovered for _, recovered in found),
        )

    def _language(self, root: LexborNode | None) -> str:
        declared = root.attributes if root is not None else {}
        metas = dict(reversed(self.metas))
        found = declared.get("lang") or declared.get("xml:lang") or metas.get("content-language")
        found = found or self.page.headers.get("content-language") or metas.get("og:locale") or ""
        return found.split(",")[0].strip().replace("_", "-")[:35]

    def _wrong_language(self) -> str | None:
        wanted, declared = self.config.languages, self.language.lower().partition("-")[0]
        return "page in another language" if wanted and declared and declared not in wanted else None

    def _located(self) -> list[_Found]:
        """Images that have an address and that the page does not declare to be small."""
        found = []
        least = self.config.min_declared_side
        over = len(self.images) - self.config.max_images
        if over > 0:
            self.dropped["too many images on the page"] += over
        for number, node in enumerate(self.images[: self.config.max_images]):
            attributes = node.attributes
            above = node.parent
            picture = []
            if above is not None and above.tag == "picture":
                picture = [source.attributes for source in above.iter() if source.tag == "source"]
            source = image_source(attributes, picture, self.config.preferred_width)
            if source is None:
                src = (attributes.get("src") or "").strip()
                self.dropped["inline data only" if src[:5] == "data:" else "placeholder" if src else "no address"] += 1
                continue
            url = self.resolver.resolve(source.reference)
            if url is None:
                self.dropped["address unusable"] += 1
            elif url.partition("?")[0][-4:].lower() == ".svg":
                self.dropped["vector image"] += 1
            else:
                size = file_size(source, attributes)
                if 0 < size[0] < least or 0 < size[1] < least:
                    self.dropped["declared too small"] += 1
                else:
                    found.append(_Found(url, node, attributes, source, size, number))
        return found

    def _candidates(self, found: list[_Found]) -> list[tuple[Candidate, bool]]:
        """Candidates, and whether the plain `src` would have missed each; one image shown twice is one candidate."""
        finder = TextFinder(self.config.texts, self.config.near_chars, self.config.enough_words)
        alike = Counter(image.size for image in found if any(image.size))
        subjects = {
            _stem(url)
            for name, content in self.metas
            if name in ("og:image", "og:image:url", "twitter:image") and (url := self.resolver.resolve(content.strip()))
        }
        last = max(1, len(self.images) - 1)
        kept: dict[str, tuple[Candidate, bool]] = {}
        for image in found:
            above = self.ancestry.above(image.node)
            texts = finder.texts(image.node, image.attributes, above)
            if not texts:
                self.dropped["no text"] += 1
                continue
            if image.url in kept:
                self.dropped["same image again"] += 1
                first, recovered = kept[image.url]
                kept[image.url] = _joined(first, texts), recovered
                continue
            placed = placement(
                size=image.size,
                position=image.number / last,
                surroundings=above,
                link_density=finder.link_density(image.node, above.link),
                described=_describes(texts[0]) or (len(texts) > 1 and _describes(texts[1])),
                chosen_by_page=bool(subjects) and _stem(image.url) in subjects,
                num_alike=alike[image.size],
                names=names_of(image.attributes, image.url),
            )
            if placed.dominant < self.config.min_dominance:
                self.dropped["not dominant"] += 1
            else:
                candidate = Candidate(
                    page_url=self.page.url,
                    image_url=image.url,
                    texts=texts,
                    placement=placed,
                    page_language=self.language,
                    licence=self.licences.of(image.node),
                )
                kept[image.url] = candidate, image.source.recovered
        return list(kept.values())


def _describes(text: PageText) -> bool:
    return text.kind == "figcaption" or text.text.count(" ") >= 2


def _stem(url: str) -> str:
    """The address without query and the size in its name: a page and its `og:image` often differ in those."""
    path = url.partition("?")[0]
    return path[:-_MAX_NAME_SIZE] + _NAME_SIZE.sub("", path[-_MAX_NAME_SIZE:])


def _joined(first: Candidate, texts: Sequence[PageText]) -> Candidate:
    """The candidate with the texts of the same image's other place on the page."""
    known = {text.text for text in first.texts}
    more = tuple(text for text in texts if text.text not in known)
    if not more:
        return first
    return Candidate(
        page_url=first.page_url,
        image_url=first.image_url,
        texts=first.texts + more,
        placement=first.placement,
        page_language=first.page_language,
        licence=first.licence,
    )
