"""Runs of words, counted: what BLEU and CIDEr compare. A word is anything hashable: a string, or a token id."""

from collections import Counter
from collections.abc import Hashable, Sequence

MAX_LENGTH = 4

Words = Sequence[Hashable]
NGram = tuple[Hashable, ...]


def count_ngrams(words: Words, max_length: int = MAX_LENGTH) -> list[Counter[NGram]]:
    """For each length from 1, how often every run of so many words occurs."""
    return [
        Counter(zip(*(words[start:] for start in range(length)), strict=False)) for length in range(1, max_length + 1)
    ]


def check_captions(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> None:
    """ValueError unless there are captions, each with at least one reference."""
    if len(candidates) != len(references):
        raise ValueError(f"{len(candidates)} captions but the references of {len(references)} images")
    if not len(candidates):
        raise ValueError("no captions to score")
    bare = next((place for place, texts in enumerate(references) if not len(texts)), None)
    if bare is not None:
        raise ValueError(f"caption {bare} (counted from 0) has no reference to score it against")
