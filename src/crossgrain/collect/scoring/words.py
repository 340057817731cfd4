"""What the feature scorer reads of a text: its words and pairs of words as hashes, and how it is written. No torch."""

import re
import zlib
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int, UInt32

from crossgrain.collect.scoring.pictures import COLOURS

MAX_WORDS = 32  # of a text that are compared with the image
MAX_UNITS = 2 * MAX_WORDS  # words and pairs of neighbours
NUM_WRITING = 12  # text-only features
COLOUR_NAMES: dict[str, str] = {
    **{name: name for name in COLOURS},
    "gray": "grey", "silver": "grey", "ivory": "white", "crimson": "red", "scarlet": "red", "tangerine": "orange",
    "golden": "yellow", "gold": "yellow", "emerald": "green", "navy": "blue", "azure": "blue", "turquoise": "blue",
    "violet": "purple", "lilac": "purple", "magenta": "pink", "rose": "pink", "chestnut": "brown", "beige": "brown",
}  # fmt: skip
_PLACE = {name: place for place, name in enumerate(COLOURS)}
_WORD = re.compile(r"\w+(?:['’]\w+)?")
_MARK = re.compile(r"[^\w\s]|_")


def words_of(text: str) -> list[str]:
    """The words of a text in lower case."""
    return [word.lower() for word in _WORD.findall(text)]


def units_of(words: Sequence[str]) -> list[str]:
    """The first words and their neighbouring pairs: "red star" is more than "red" and "star"."""
    words = words[:MAX_WORDS]
    return [*words, *(f"{a} {b}" for a, b in pairwise(words))]


def hash_units(units: Iterable[str]) -> UInt32[np.ndarray, " N"]:
    """CRC-32 of each: the same in every process and on every machine."""
    return np.array([zlib.crc32(unit.encode("utf-8")) for unit in units], dtype=np.uint32)


def places_in(vocabulary: UInt32[np.ndarray, " V"], units: Iterable[str]) -> Int[np.ndarray, " N"]:
    """Where the known ones of these units stand in a sorted vocabulary; -1 for the others."""
    hashes = hash_units(units)
    if not len(vocabulary):
        return np.full(len(hashes), -1)
    place = np.minimum(np.searchsorted(vocabulary, hashes), len(vocabulary) - 1)
    return np.where(vocabulary[place] == hashes, place, -1)


def colours_named(words: Iterable[str]) -> Float[np.ndarray, " K"]:
    """1 for each basic colour that is named."""
    named = np.zeros(len(COLOURS), dtype=np.float32)
    for word in words:
        if (name := COLOUR_NAMES.get(word)) is not None:
            named[_PLACE[name]] = 1
    return named


def writing(text: str, words: Sequence[str], rarity: Float[np.ndarray, " N"]) -> Float[np.ndarray, " F"]:
    """Text-only features: length, repetition, ratios of characters, and the rarity of its words.

    `rarity` is -log of each word's share in the training texts, a fixed large number for unknown ones.
    """
    characters = max(1, len(text))
    count = max(1, len(words))
    values = [
        np.log1p(len(words)),
        np.log1p(len(text)),
        sum(map(len, words)) / count,
        len(set(words)) / count,
        sum(c.isupper() for c in text) / characters,
        sum(c.isdigit() for c in text) / characters,
        len(_MARK.findall(text)) / characters,
        sum(c.isspace() for c in text) / characters,
        sum(len(word) == 1 for word in words) / count,
        rarity.mean() if len(rarity) else 0.0,
        rarity.max() if len(rarity) else 0.0,
        float(text.rstrip().endswith((".", "!", "?"))),
    ]
    return np.array(values, dtype=np.float32)
