"""ROUGE-L of captions (Lin 2004), as pycocoevalcap computes it (rouge/rouge.py)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from crossgrain.metrics.ngrams import Words, check_captions

BETA = 1.2  # recall weighs BETA ** 2 as much as precision


def rouge_l(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> Float[np.ndarray, " N"]:
    """ROUGE-L of each caption, in [0, 1]; the corpus has their mean.

    Precision and recall are each taken at the reference where they are best, which need not be the same one. An empty
    caption or reference is one empty word, as in the original.
    """
    check_captions(candidates, references)
    return np.array([_one(words, texts) for words, texts in zip(candidates, references, strict=True)])


def longest_common_subsequence(a: Words, b: Words) -> int:
    """How many words of `a` stand in `b` in the same order, with or without others between them."""
    best = [0] * (len(b) + 1)
    for word in a:
        before = 0  # best[place] of the row above
        for place, other in enumerate(b, start=1):
            above = best[place]
            best[place] = before + 1 if word == other else max(above, best[place - 1])
            before = above
    return best[-1]


def _one(words: Words, references: Sequence[Words]) -> float:
    words, references = words or [""], [text or [""] for text in references]
    common = [longest_common_subsequence(words, reference) for reference in references]
    precision = max(common) / len(words)
    recall = max(shared / len(text) for shared, text in zip(common, references, strict=True))
    if not precision or not recall:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)
