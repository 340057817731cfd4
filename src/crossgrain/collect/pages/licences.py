"""Licence hints: links with rel=license, links to Creative Commons deeds, and `license` in JSON-LD.

A hint, not a grant: a page may mean its text, or be wrong. It is kept as provenance.
"""

import re

from selectolax.lexbor import LexborNode

from crossgrain.collect.pages.urls import Resolver

_DEED = re.compile(r"creativecommons\.org/(?:licenses|publicdomain)/", re.IGNORECASE)
_LINKED = re.compile(r'"license"\s*:\s*"([^"\\]{4,300}|https?:[^"]{4,300})"')
_MAX_LINKED_DATA = 2**18  # characters of a page's JSON-LD that are looked at
_LEVELS = 5  # elements above a licence's link that it may speak for


class Licences:
    """The licences that one page names: the one nearest to an image, else the only one of the page."""

    def __init__(self) -> None:
        self._links: list[tuple[str, LexborNode]] = []
        self._linked: set[str] = set()
        self._left = _MAX_LINKED_DATA
        self._nearby: dict[int, str] = {}
        self._whole = ""

    def add(self, node: LexborNode) -> None:
        """Take up an element that may name a licence."""
        href = (node.attributes.get("href") or "").strip()
        if href and ("license" in (node.attributes.get("rel") or "").lower() or _DEED.search(href)):
            self._links.append((href, node))

    def read(self, linked_data: str) -> None:
        """Take up a piece of JSON-LD."""
        self._linked |= {match.replace("\\/", "/") for match in _LINKED.findall(linked_data[: self._left])}
        self._left -= min(self._left, len(linked_data))

    def resolve(self, resolver: Resolver) -> None:
        """To be called when all have been added: make addresses absolute, find out what each speaks for."""
        distinct: dict[str, None] = {}
        for href, node in self._links[:100]:
            url = resolver.resolve(href)
            if url is None:
                continue
            distinct[url] = None
            at = node.parent
            for _ in range(_LEVELS):
                if at is None or at.tag in ("body", "html", "main"):
                    break
                # An element that holds two licences says of neither what it is for.
                self._nearby[at.mem_id] = url if self._nearby.get(at.mem_id, url) == url else ""
                at = at.parent
        # Several licences on a page, and none near: nothing tells whose is whose.
        whole = distinct or self._linked
        self._whole = next(iter(whole)) if len(whole) == 1 else ""

    def of(self, node: LexborNode) -> str:
        """The licence hint for an image, "" where there is none."""
        if len(self._nearby) and not self._whole:
            at = node.parent
            for _ in range(_LEVELS):
                if at is None:
                    break
                if at.mem_id in self._nearby:
                    return self._nearby[at.mem_id]
                at = at.parent
        return self._whole
