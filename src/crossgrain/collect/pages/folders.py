"""A folder of saved pages. What address a page had is read from it, where the folder has no base address."""

import os
import re
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

from crossgrain.collect.candidates import Page
from crossgrain.collect.pages.bodies import inflated
from crossgrain.collect.pages.urls import normalise
from crossgrain.collect.pages.warc import MAX_PAGE_BYTES
from crossgrain.data.records import Dropped

NOWHERE = "https://localhost.invalid/"  # a name that never resolves (RFC 2606): the address of pages that have none
_SUFFIXES = tuple(f".{kind}{packed}" for kind in ("html", "htm", "xhtml") for packed in ("", ".gz"))
_HEAD = 2**16  # bytes in which a page says its address
_TAG = re.compile(rb"<(?:link|meta)\b[^>]{1,2000}>", re.IGNORECASE)
_IS_ADDRESS = re.compile(rb"""(?:rel\s*=\s*["']?canonical\b|property\s*=\s*["']?og:url\b)""", re.IGNORECASE)
_ADDRESS = re.compile(rb"""(?:href|content)\s*=\s*["']?(https?://[^"'\s>]{4,2000})""", re.IGNORECASE)


@lru_cache(maxsize=8)
def page_files(path: Path) -> tuple[Path, ...]:
    """The pages of a folder and its folders, sorted by name; of a file, the file itself."""
    if path.is_file():
        return (path,)
    return tuple(sorted(file for file in path.rglob("*") if file.name.lower().endswith(_SUFFIXES) and file.is_file()))


def read_files(path: Path, begin: int, end: int, base_url: str = "") -> Iterator[Page | Dropped]:
    """The pages of a folder from number `begin` up to `end`."""
    for file in page_files(path)[begin:end]:
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        place, name = quote(os.fsencode(name)), os.fsencode(name).decode("utf-8", "replace")
        try:
            html = _content(file)
        except (OSError, zlib.error) as error:
            yield Dropped(reason="page: unreadable file", where=name, detail=str(error)[:200])
            continue
        if len(html) > MAX_PAGE_BYTES:
            yield Dropped(reason="page: too large", where=name)
            continue
        url = normalise(base_url.rstrip("/") + "/" + place) if base_url else _own_address(html)
        content_type = "application/xhtml+xml" if ".xhtml" in name.lower() else "text/html"
        yield Page(url=url or NOWHERE + place, html=html, headers={"content-type": content_type}, source=name)


def _content(file: Path) -> bytes:
    """The file, unpacked; of one over the limit, a byte more than it. An endless gzip ends there as well."""
    with file.open("rb") as opened:
        data = opened.read(MAX_PAGE_BYTES + 1)
    if not data.startswith(b"\x1f\x8b"):
        return data
    html, whole = inflated(data, 31, MAX_PAGE_BYTES + 1)
    if not whole and len(html) <= MAX_PAGE_BYTES:
        raise zlib.error("the file is cut off")
    return html


def _own_address(html: bytes) -> str | None:
    """What a page gives as its canonical address."""
    for tag in _TAG.findall(html, 0, _HEAD):
        if _IS_ADDRESS.search(tag):
            address = _ADDRESS.search(tag)
            if address:
                return normalise(address[1].decode("utf-8", "replace").replace("&amp;", "&"))
    return None
