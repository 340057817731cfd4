"""What was ever asked to be removed from a collection, and what falls under it.

    tombstones.jsonl   one line each: {"kind": "url", "value": "https://..."}; kinds are url, domain, sha256, md5, phash

It stands in the folder of the collection, or of the shards where they have none, and every later run honours it.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossgrain.collect.domains import host_of, is_public_suffix
from crossgrain.collect.pages.urls import normalise
from crossgrain.collect.tasks import write_durably
from crossgrain.config import UserError

TOMBSTONES = "tombstones.jsonl"
REASON = "taken down"  # of whatever a later run drops because of the list
DISTANCE = 8  # bits in which the perceptual hashes of copies of one picture may differ
_HASHES = {64: "sha256", 32: "md5", 16: "phash"}  # by their hexadecimal digits
_HASH = re.compile(rf"(?:(?P<kind>{'|'.join(_HASHES.values())}):|0x)?(?P<digits>[0-9a-f]+)")
_KINDS = ("url", "domain", *_HASHES.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is known of a picture: enough to tell whether it was taken down. What is not known is left empty."""

    image_url: str = ""
    page_url: str = ""
    hashes: Sequence[str] = ()  # sha256 and md5 in hexadecimal
    phash: int | None = None


class Tombstones:
    """Everything that was asked to be removed."""

    def __init__(self, entries: Iterable[tuple[str, str]] = ()):
        self.entries = list(dict.fromkeys(entries))
        self._of = {kind: {value for k, value in self.entries if k == kind} for kind in _KINDS}
        self._addresses = {_without_scheme(url): url for url in self._of["url"]}  # http and https: one picture
        self._phashes = np.array(sorted(int(value, 16) for value in self._of["phash"]), dtype=np.uint64)

    @staticmethod
    def of(urls: Iterable[str] = (), hashes: Iterable[str] = (), domains: Iterable[str] = ()) -> "Tombstones":
        """From what a user writes. UserError for what is no URL, no hash, or a domain that many sites share."""
        given = ((urls, _url), (hashes, _hash), (domains, _domain))
        return Tombstones(check(value) for values, check in given for value in values)

    @staticmethod
    def load(path: Path) -> "Tombstones":
        """The list of a file, or of the collection in a folder; empty where there is none."""
        file = tombstone_file(path) if path.is_dir() else path
        if not file.is_file():
            return Tombstones()
        entries = []
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                entry = json.loads(line)
                kind, value = entry["kind"], entry["value"]
            except (ValueError, KeyError, TypeError):
                kind, value = "", ""
            if kind not in _KINDS or not isinstance(value, str):
                raise UserError(f"{file}, line {number}: no take-down of a known kind ({', '.join(_KINDS)})")
            entries.append((kind, value))
        return Tombstones(entries)

    def save(self, path: Path) -> None:
        """Write the list; whole or not at all."""
        write_durably(path, "".join(json.dumps({"kind": kind, "value": value}) + "\n" for kind, value in self.entries))

    def digest(self) -> str:
        """A name for what the list says: a later run that honours another list has other results."""
        return hashlib.sha256(json.dumps(sorted(self.entries)).encode()).hexdigest()

    def __or__(self, other: "Tombstones") -> "Tombstones":
        return Tombstones([*self.entries, *other.entries])

    def __bool__(self) -> bool:
        return bool(self.entries)

    def blocks(
        self, url: str, sha256: str = "", *, page_url: str = "", md5: str = "", phash: int | None = None
    ) -> bool:
        """Whether a picture was taken down: by its URL, its page's, their sites, or its hash."""
        return bool(self.match(Seen(image_url=url, page_url=page_url, hashes=(sha256, md5), phash=phash)))

    def match(self, seen: Seen) -> tuple[str, str] | None:
        """The entry that a picture falls under, None where none does."""
        if not self.entries:
            return None
        for address in filter(None, (seen.image_url, seen.page_url)):
            if url := self._addresses.get(_without_scheme(normalise(address) or address)):
                return "url", url
            for domain in _parents(host_of(address)) if self._of["domain"] else ():
                if domain in self._of["domain"]:
                    return "domain", domain
        for value in seen.hashes:
            kind = _HASHES.get(len(value))
            if kind and value.lower() in self._of[kind]:
                return kind, value.lower()
        if seen.phash is not None and len(self._phashes):
            distances = np.bitwise_count(self._phashes ^ np.uint64(seen.phash))
            nearest = int(distances.argmin())
            if distances[nearest] <= DISTANCE:
                return "phash", f"{int(self._phashes[nearest]):016x}"
        return None


def tombstone_file(path: Path) -> Path:
    """Where the take-downs of a collection or of a data set are listed."""
    return (run_folder(path) or path) / TOMBSTONES


def run_folder(path: Path) -> Path | None:
    """The folder of the collection that `path` is, or whose shards it holds; None for shards of another origin."""
    above = [path.parent] if path.resolve().name == "shards" else []
    found = (f for f in (path, *above) if (f / "recipe.yaml").is_file() and (f / "shards").is_dir())
    return next(found, None)


def _without_scheme(url: str) -> str:
    return url.partition("://")[2]


def _parents(host: str) -> Iterator[str]:
    """A host and every domain above it."""
    labels = host.split(".")
    return (".".join(labels[start:]) for start in range(len(labels)))


def _url(value: str) -> tuple[str, str]:
    url = normalise(value.strip())
    if url is None:
        raise UserError(f"{value!r} is no URL of the web: it begins with http:// or https:// and a host")
    return "url", url


def is_hash(value: str) -> bool:
    """Whether a user means a hash: digits alone, or with "0x" or the name of the hash before them."""
    return _HASH.fullmatch(value.strip().lower()) is not None


def _hash(value: str) -> tuple[str, str]:
    given = _HASH.fullmatch(value.strip().lower())
    digits = given["digits"] if given else ""
    if not given or given["kind"] not in (None, _HASHES.get(len(digits))) or len(digits) not in _HASHES:
        kinds = ", ".join(f"{name} ({length} digits)" for length, name in _HASHES.items())
        raise UserError(f"{value!r} is no hash: {kinds}, in hexadecimal")
    return _HASHES[len(digits)], digits


def _domain(value: str) -> tuple[str, str]:
    domain = value.strip().lower().removeprefix("*.").strip(".")
    if "/" in domain or not domain or not host_of(f"https://{domain}/"):
        raise UserError(f"{value!r} is no domain: write example.org")
    domain = host_of(f"https://{domain}/")
    if is_public_suffix(domain):
        raise UserError(f"{value!r} is no single site: everybody may register below it")
    return "domain", domain
