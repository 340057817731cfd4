"""What a collection is made of: counted over its shards, record by record, so that its size does not matter."""

from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from crossgrain.collect.domains import host_of, registrable_domain
from crossgrain.data.manifest import read_manifest
from crossgrain.data.shards import Shards

UNKNOWN = "not said"


@dataclass(kw_only=True)
class Composition:
    """Numbers and distributions; arrays have an entry for every text or image, in the order of the shards."""

    manifest: dict[str, Any]
    num_bytes: int = 0  # of the tars
    num_records: int = 0
    num_judged_unsafe: int = 0  # that a classifier of unsafe content has looked at
    words: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))  # NaN: none
    widths: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))  # pixels
    heights: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    image_bytes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    languages: Counter[str] = field(default_factory=Counter)
    text_kinds: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    image_domains: Counter[str] = field(default_factory=Counter)
    page_domains: Counter[str] = field(default_factory=Counter)
    checked: Counter[str] = field(default_factory=Counter)  # what was asked for opt-outs, by record


def measure(folder: Path) -> Composition:
    """Read a collection's shards, their pictures left out."""
    manifest = read_manifest(folder)
    num_bytes = sum((folder / f"{shard['name']}.tar").stat().st_size for shard in manifest["shards"])
    found = Composition(manifest=manifest, num_bytes=num_bytes)
    if not manifest["splits"]:
        return found
    shards = Shards(folder)
    found.num_records = len(shards)
    found.widths, found.heights = shards.column("width"), shards.column("height")
    found.image_bytes = shards.column("image_size")
    found.scores = np.full(len(shards), np.nan, np.float32)
    words = []
    for index in range(len(shards)):
        record = shards.texts(index)
        words += [len(text.split()) for text in record.captions]
        _add(found, index, record.extra.get("provenance") or {})
    found.words = np.array(words, np.int32)
    return found


def _add(found: Composition, index: int, told: dict[str, Any]) -> None:
    score = told.get("score")
    found.scores[index] = np.nan if score is None else score
    found.num_judged_unsafe += told.get("unsafe") is not None
    counters = (found.languages, "language"), (found.text_kinds, "text_kind"), (found.licences, "licence")
    for counter, name in counters:
        counter[str(told.get(name) or UNKNOWN)] += 1
    found.image_domains[_domain(told.get("image_url") or "")] += 1
    found.page_domains[_domain(told.get("page_url") or "")] += 1
    found.checked.update(set(told.get("opt_outs_checked") or ()))


def _domain(url: str) -> str:
    return _domain_of_host(host_of(url)) or UNKNOWN


@cache
def _domain_of_host(host: str) -> str:
    return registrable_domain(f"http://[{host}]/" if ":" in host else f"http://{host}/")
