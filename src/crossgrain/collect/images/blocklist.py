"""Lists of known URLs and files that must never be fetched or kept, as hashes that the operator supplies.

Such lists (of illegal images, of take-downs) come under contract and are never part of this library. A text file holds
one hexadecimal digest a line, of MD5 (32 digits), SHA-1 (40) or SHA-256 (64); what follows it on the line and lines
that start with "#" are passed over. What matches is dropped before anything is written; only its digest is logged.
"""

import re
from collections.abc import Sequence
from functools import cache
from hashlib import new
from pathlib import Path

import numpy as np

from crossgrain.config import UserError, configclass

BLOCKED = "on a block list"

_NAMES = {32: "md5", 40: "sha1", 64: "sha256"}
_LINE = re.compile(rb"\s*(?:#.*|([0-9a-fA-F]+)\b.*|)$", re.DOTALL)


@configclass
class BlocklistConfig:
    """Text files of digests."""

    url_hashes: tuple[Path, ...] = ()  # of URLs as they stand in pages once resolved, in UTF-8
    file_hashes: tuple[Path, ...] = ()  # of image files as they are served


class Blocklist:
    """The digests of both kinds of list, sorted: 14 million of them take 0.3 GB."""

    def __init__(self, config: BlocklistConfig):
        self._urls = _read_lists(config.url_hashes)
        self._files = _read_lists(config.file_hashes)

    def blocks_url(self, url: str) -> str:
        """ "md5 DIGEST" (or another hash) of a URL that is listed, else empty."""
        return _first_listed(self._urls, url.encode("utf-8", "surrogatepass"))

    def blocks_file(self, data: bytes) -> str:
        """ "sha256 DIGEST" (or another hash) of a file that is listed, else empty."""
        return _first_listed(self._files, data)


@cache
def load_blocklist(config: BlocklistConfig) -> Blocklist:
    """The lists of a configuration, read once per process."""
    return Blocklist(config)


def _first_listed(lists: dict[str, np.ndarray], content: bytes) -> str:
    for name, listed in lists.items():
        digest = new(name, content, usedforsecurity=False)
        value = np.array(digest.digest(), dtype=listed.dtype)
        at = np.searchsorted(listed, value)
        if at < len(listed) and listed[at] == value:
            return f"{name} {digest.hexdigest()}"
    return ""


def _read_lists(paths: Sequence[Path]) -> dict[str, np.ndarray]:
    """The digests of all files by the name of their hash, as sorted arrays of fixed-size bytes."""
    found: dict[str, set[bytes]] = {}
    for path in paths:
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    match = _LINE.match(line)
                    digits = match[1] if match else b"?"
                    if digits is None:
                        continue
                    if len(digits) not in _NAMES:
                        raise UserError(
                            f"{path}:{number}: no MD5, SHA-1 or SHA-256 in hexadecimal (32, 40 or 64 digits)"
                        )
                    found.setdefault(_NAMES[len(digits)], set()).add(bytes.fromhex(digits.decode()))
        except OSError as error:
            raise UserError(f"block list {path} cannot be read ({error.strerror})") from None
    return {
        name: np.sort(np.array(list(values), dtype=f"S{len(next(iter(values)))}")) for name, values in found.items()
    }
