"""BLEU of captions (Papineni et al. 2002), as pycocoevalcap computes it: over the whole corpus, against the reference
length that is closest, with tiny terms where nothing matches (bleu/bleu_scorer.py).
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from crossgrain.metrics.ngrams import MAX_LENGTH, NGram, Words, check_captions, count_ngrams

_TINY, _SMALL = 1e-15, 1e-9  # added to what is counted above and below the bars of the precisions and of the lengths


class BleuCounts:
    """What BLEU needs to know of a corpus; sums over captions are what it is computed from.

    `right` and `tried` (N, 4) are how many runs of 1 to 4 words of each caption stand in its references (none more
    often than in the reference that has it most often), and how many there are; `length` and `wanted` (N,) the words
    of each caption and of the reference that is closest in length, of two equally close ones the shorter.
    """

    def __init__(self, candidates: Sequence[Words], references: Sequence[Sequence[Words]]):
        check_captions(candidates, references)
        counts = [_count(words, texts) for words, texts in zip(candidates, references, strict=True)]
        self.right = np.array([right for right, _ in counts], dtype=np.float64)
        self.length = np.array([len(words) for words in candidates], dtype=np.float64)
        self.wanted = np.array([wanted for _, wanted in counts], dtype=np.float64)
        self.tried = np.clip(self.length[:, None] - np.arange(MAX_LENGTH), 0, None)

    def corpus(self) -> Float[np.ndarray, "4"]:
        """BLEU-1 to BLEU-4 of all captions together, in [0, 1]."""
        return _bleu(*(counted.sum(axis=0, keepdims=True) for counted in self._counted()))[0]

    def captions(self) -> Float[np.ndarray, "N 4"]:
        """The same of each caption alone."""
        return _bleu(*self._counted())

    def resampled(self, rounds: int = 1000, seed: int = 0) -> Float[np.ndarray, "R 4"]:
        """BLEU of corpora of the same size, drawn from this one with replacement: how far it depends on the images."""
        total = len(self.length)
        times = np.random.default_rng(seed).multinomial(total, np.full(total, 1 / total), size=rounds)
        return _bleu(*(times @ counted for counted in self._counted()))

    def _counted(self) -> tuple[np.ndarray, ...]:
        return self.right, self.tried, self.length, self.wanted


def bleu(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> dict[str, float]:
    """{"BLEU-1", ..., "BLEU-4"} of a corpus, in [0, 1]; ValueError where there is nothing to score."""
    scores = BleuCounts(candidates, references).corpus()
    return {f"BLEU-{length}": float(score) for length, score in enumerate(scores, start=1)}


def _count(words: Words, references: Sequence[Words]) -> tuple[list[int], int]:
    most: list[Counter[NGram]] = [Counter() for _ in range(MAX_LENGTH)]
    for reference in references:
        most = [known | counted for known, counted in zip(most, count_ngrams(reference), strict=True)]
    right = [(counted & known).total() for counted, known in zip(count_ngrams(words), most, strict=True)]
    return right, min((abs(len(reference) - len(words)), len(reference)) for reference in references)[1]


def _bleu(right: np.ndarray, tried: np.ndarray, length: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    precision = np.cumprod((right + _TINY) / (tried + _SMALL), axis=-1) ** (1 / np.arange(1, MAX_LENGTH + 1))
    ratio = (length + _TINY) / (wanted + _SMALL)
    # where a caption is empty the ratio is nearly 0 and exp(1 - 1 / ratio) underflows to 0, as it should
    brevity = np.where(ratio < 1, np.exp(1 - 1 / np.minimum(ratio, 1)), 1.0)
    return precision * brevity[..., None]
