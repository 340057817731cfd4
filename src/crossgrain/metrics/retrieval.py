"""Recall at k in both directions, from scores or from ranks (X-VLM Retrieval.py:153-218).

Shape letters: Q queries, C candidates, T texts, I images. Shares are fractions in [0, 1].
"""

from collections.abc import Collection, Sequence
from math import comb

import numpy as np
from jaxtyping import Float, Int

from crossgrain.metrics.proportion import wilson_interval

CUTOFFS = (1, 5, 10)


def rank_of_truth(scores: Float[np.ndarray, "Q C"], truth: Sequence[Collection[int]]) -> Int[np.ndarray, " Q"]:
    """0-based rank of the best-placed right candidate of each query.

    Ties: of two equal scores the candidate with the larger index is placed first, which is what the original's
    `np.argsort(scores)[::-1]` does wherever that sort is stable. It matters where re-ranking leaves all candidates
    outside the top k at -100 and k is below the cutoff.
    """
    if len(scores) != len(truth):
        raise ValueError(f"{len(scores)} rows of scores but the right answers of {len(truth)} queries")
    if np.isnan(scores).any():
        raise ValueError("scores hold NaN, which has no rank")
    order = np.argsort(scores, axis=1, kind="stable")[:, ::-1]
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(scores.shape[1])[None], axis=1)
    return np.array([row[list(right)].min() for row, right in zip(place, truth, strict=True)], dtype=np.int64)


def recall(ranks: Int[np.ndarray, " Q"], cutoffs: Sequence[int] = CUTOFFS) -> dict[str, float]:
    """The share of queries whose 0-based rank is below each cutoff: {"R@1": ..., "R@5": ..., "R@10": ...}."""
    return {f"R@{k}": float(np.mean(ranks < k)) for k in cutoffs}


def recall_interval(ranks: Int[np.ndarray, " Q"], cutoffs: Sequence[int] = CUTOFFS) -> dict[str, tuple[float, float]]:
    """Wilson's 95 % interval of each recall."""
    return {f"R@{k}": wilson_interval(int(np.sum(ranks < k)), len(ranks)) for k in cutoffs}


def both_directions(
    scores: Float[np.ndarray, "T I"], image_of_text: Int[np.ndarray, " T"]
) -> dict[str, dict[str, float]]:
    """Recall of texts finding their image, and of images finding any of their texts, from one score matrix.

    Images without a text are candidates, but no queries.
    """
    texts_of_image = [np.flatnonzero(image_of_text == image) for image in range(scores.shape[1])]
    asked = [image for image, texts in enumerate(texts_of_image) if len(texts)]
    to_image = rank_of_truth(scores, [[int(image)] for image in image_of_text])
    to_text = rank_of_truth(scores.T[asked], [texts_of_image[image].tolist() for image in asked])
    return {"text_to_image": recall(to_image), "image_to_text": recall(to_text)}


def chance_recall(num_candidates: int, num_right: Sequence[int], cutoffs: Sequence[int] = CUTOFFS) -> dict[str, float]:
    """Expected recall of a random order, where query q has `num_right[q]` right candidates."""

    def hit(right: int, k: int) -> float:
        return 1 - comb(num_candidates - right, k) / comb(num_candidates, k)

    # few different counts stand for many queries, and the binomials of a large gallery are large numbers
    counts, weights = np.unique(np.asarray(num_right), return_counts=True)
    return {
        f"R@{k}": float(np.average([hit(int(c), min(k, num_candidates)) for c in counts], weights=weights))
        for k in cutoffs
    }
