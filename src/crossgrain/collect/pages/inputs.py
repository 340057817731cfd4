"""What a recipe names as its input, taken apart into shards: small values that a worker can be given.

A shard is a WARC or ARC, or some files of a folder, or some rows of a list. What lies on the web is downloaded by the
worker that reads it.
"""

import gzip
import hashlib
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from crossgrain.collect.candidates import ArchivedImage, Candidate, Page
from crossgrain.collect.fetch import FetchConfig, fetch_file
from crossgrain.collect.fetch.reasons import FetchError
from crossgrain.collect.pages.folders import page_files, read_files
from crossgrain.collect.pages.lists import count_rows, list_kind, read_pairs, read_urls
from crossgrain.collect.pages.warc import read_archive
from crossgrain.config import UserError, configclass
from crossgrain.data.records import Dropped, safe_key

Kind = Literal["warc", "html", "urls", "pairs"]
Found = Page | ArchivedImage | Candidate | Dropped

COMMON_CRAWL = "https://data.commoncrawl.org/"
_ARCHIVE = re.compile(r"\.w?arc(\.(gz|zst|lz4|bad|open))*$", re.IGNORECASE)  # as crawlers leave them, too
_PATHS = re.compile(r"\.paths(\.gz)?$", re.IGNORECASE)
_HTML = re.compile(r"\.x?html?(\.gz)?$", re.IGNORECASE)
_PAGES_PER_SHARD = 1000  # files of a folder, or addresses of a list
_PAIRS_PER_SHARD = 50_000
_FINGERPRINTED = 2**20  # bytes that a fingerprint covers, beside names, sizes and times: some clocks are coarse
_MAX_PATHS_BYTES = 2**28


@configclass
class Input:
    """One source of pages: exactly one of `path` (a file or folder), `url` and `pattern` ("crawl/*.warc.gz").

    `kind` is found out from names where it is "auto". A Common Crawl list (`*.paths`, `*.paths.gz`) names WARCs under
    `prefix`. Lists are text, CSV, TSV, JSON lines or Parquet.
    """

    path: Path | None = None
    url: str | None = None
    pattern: str | None = None
    kind: Literal["auto", "warc", "html", "urls", "pairs"] = "auto"
    url_column: str = "url"
    text_column: str = ""  # names the texts of a list of image addresses
    base_url: str = ""  # of a folder of pages: what its files' names are relative to
    prefix: str = COMMON_CRAWL
    limit: int | None = None  # of a list of WARCs: the first so many

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.path, self.url, self.pattern)) != 1:
            raise ValueError("name exactly one of path, url and pattern")
        if self.kind == "pairs" and not self.text_column:
            raise ValueError("a list of pairs needs text_column, the column of the texts")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputShard:
    """A part of the input. `path` is the local file or folder, `url` where it is downloaded from if it is not there;
    `begin` and `end` count files of a folder or rows of a list."""

    id: str
    kind: Kind
    path: str
    url: str = ""
    begin: int = 0
    end: int = 0
    url_column: str = ""
    text_column: str = ""
    base_url: str = ""

    def fingerprint(self) -> str:
        """Changes when the content does: names, sizes, times and beginnings of its files; of the web, the address."""
        digest = hashlib.sha256(repr((self.kind, self.begin, self.end, self.base_url)).encode())
        digest.update(repr((self.url_column, self.text_column)).encode())
        if self.url:
            digest.update(self.url.encode())
            return digest.hexdigest()
        room = _FINGERPRINTED
        path = Path(self.path)
        for file in page_files(path)[self.begin : self.end] if self.kind == "html" else [path]:
            status = file.stat()
            digest.update(os.fsencode(file.name) + f" {status.st_size} {status.st_mtime_ns}\n".encode())
            with file.open("rb") as opened:
                beginning = opened.read(room)
            digest.update(beginning)
            room = max(2**12, room - len(beginning))
        return digest.hexdigest()


def list_inputs(inputs: Sequence[Input], work: Path, fetch: FetchConfig | None = None) -> list[InputShard]:
    """The shards of all inputs, in their order; what is downloaded will lie in `work`/downloads.

    UserError where an input is not there, holds nothing, or is of no known kind.
    """
    page_files.cache_clear()
    downloads = work / "downloads"
    shards: list[InputShard] = []
    for one in inputs:
        found = [shard for place in _places(one) for shard in _shards(one, place, downloads, fetch or FetchConfig())]
        if not found:
            raise UserError(f"input {_name(one)} holds nothing to collect from")
        shards += found
    if not shards:
        raise UserError("the recipe names no input")
    twice, count = Counter(shard.id for shard in shards).most_common(1)[0]
    if count > 1:
        raise UserError(f"input {twice} is named twice")
    return shards


def read_pages(shard: InputShard, fetch: FetchConfig | None = None) -> Iterator[Found]:
    """Everything in a shard: pages, images of an archive, candidates of a list of pairs; what is broken is counted."""
    fetch = fetch or FetchConfig()
    if shard.url:
        try:
            fetch_file(shard.url, Path(shard.path), fetch)
        except FetchError as error:
            yield Dropped(reason=f"input: {error.reason}", where=shard.url, detail=str(error)[:200])
            return
    path = Path(shard.path)
    if shard.kind == "warc":
        yield from read_archive(path, fetch.tokens())
    elif shard.kind == "html":
        yield from read_files(path, shard.begin, shard.end, shard.base_url)
    elif shard.kind == "urls":
        yield from read_urls(path, shard.url_column, shard.begin, shard.end, fetch)
    else:
        yield from read_pairs(path, shard.url_column, shard.text_column, shard.begin, shard.end)


def _name(one: Input) -> str:
    return str(one.path or one.url or one.pattern)


def _places(one: Input) -> list[str]:
    """The files, folders and addresses that an input names."""
    if one.pattern is not None:
        pattern = Path(one.pattern)
        anchor = Path(pattern.anchor or ".")
        relative = pattern.relative_to(anchor) if pattern.anchor else pattern
        found = sorted(anchor.glob(str(relative)))
        folders = {path for path in found if path.is_dir()}
        once = [path for path in found if folders.isdisjoint(path.parents) or not _is_in_folder(path)]
        return [place for path in once for place in _inside(path, one.kind)]
    if one.url is not None:
        if not one.url.startswith(("http://", "https://")):
            raise UserError(f"input {one.url!r} is no http or https address: a file is named by path")
        return [one.url]
    assert one.path is not None
    if not one.path.exists():
        raise UserError(f"input {one.path} does not exist")
    return _inside(one.path, one.kind)


def _is_in_folder(path: Path) -> bool:
    """Whether a folder's input has this path as well."""
    return path.is_dir() or bool(_ARCHIVE.search(path.name) or _HTML.search(path.name))


def _inside(path: Path, kind: str) -> list[str]:
    """The archives in a folder, and itself where it has pages; a file is itself."""
    if not path.is_dir() or kind in ("urls", "pairs"):
        return [str(path)]
    archives = (file for file in path.rglob("*") if _ARCHIVE.search(file.name) and file.is_file())
    found = sorted(map(str, archives)) if kind != "html" else []
    return [*found, str(path)] if kind != "warc" and page_files(path) else found


def _shards(one: Input, place: str, downloads: Path, fetch: FetchConfig) -> Iterator[InputShard]:
    remote = place if place.startswith(("http://", "https://")) else ""
    if _PATHS.search(place.partition("?")[0]):
        listed = _downloaded(remote, downloads, fetch) if remote else Path(place)
        for line in _paths(listed)[: one.limit]:
            address = line if line.startswith(("http://", "https://")) else one.prefix + line.lstrip("/")
            yield _archive_shard(address, downloads)
        return
    kind = _kind(one, place, remote)
    if kind == "warc":
        yield _archive_shard(remote, downloads) if remote else InputShard(id=_id(place), kind=kind, path=place)
    elif kind == "html":
        path = Path(place)
        for begin in range(0, number := len(page_files(path)), _PAGES_PER_SHARD):
            end = min(number, begin + _PAGES_PER_SHARD)
            about = {"begin": begin, "end": end, "base_url": one.base_url}
            yield InputShard(id=_id(place, begin), kind=kind, path=place, **about)
    else:
        path = _downloaded(remote, downloads, fetch) if remote else Path(place)
        size = _PAIRS_PER_SHARD if kind == "pairs" else _PAGES_PER_SHARD
        columns = {"url_column": one.url_column, "text_column": one.text_column}
        for begin in range(0, number := count_rows(path, one.url_column, one.text_column), size):
            end = min(number, begin + size)
            yield InputShard(id=_id(place, begin), kind=kind, path=str(path), begin=begin, end=end, **columns)


def _archive_shard(address: str, downloads: Path) -> InputShard:
    name = _id(address)
    suffix = _ARCHIVE.search(address.partition("?")[0])
    return InputShard(id=name, kind="warc", path=str(downloads / f"{name}{suffix[0] if suffix else ''}"), url=address)


def _kind(one: Input, place: str, remote: str) -> Kind:
    if one.kind != "auto":
        if remote and one.kind == "html":
            raise UserError(f"input {remote}: a folder of pages is local; a list of their addresses has kind urls")
        return one.kind
    name = place.partition("?")[0]
    if _ARCHIVE.search(name):
        return "warc"
    if not remote and (Path(place).is_dir() or _HTML.search(name)):
        return "html"
    if list_kind(Path(name)):
        return "pairs" if one.text_column else "urls"
    raise UserError(f"input {place}: its name does not say what it is; say kind: warc, html, urls or pairs")


def _id(place: str, begin: int = 0) -> str:
    """A name for a shard that stays the same whatever other inputs there are."""
    digest = hashlib.sha256(os.fsencode(place)).hexdigest()[:8]
    stem = safe_key(place.partition("?")[0].rstrip("/").rpartition("/")[2])[:60]
    return f"{stem}-{digest}" + (f"-{begin}" if begin else "")


def _downloaded(address: str, downloads: Path, fetch: FetchConfig) -> Path:
    suffix = "".join(Path(address.partition("?")[0]).suffixes[-2:])
    path = downloads / f"{_id(address)}{suffix}"
    try:
        fetch_file(address, path, fetch, max_bytes=_MAX_PATHS_BYTES)
    except FetchError as error:
        raise UserError(f"input {address} cannot be downloaded: {error}") from None
    return path


def _paths(path: Path) -> list[str]:
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
            text = file.read(_MAX_PATHS_BYTES).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"input {path} is no list of paths: {error}") from None
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
