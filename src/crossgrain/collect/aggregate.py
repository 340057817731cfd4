"""Stage 5: of all pairs, which are kept. One image under many addresses and recompressions keeps its best text.

Everything here is a few numbers a pair; no image and no text is held, but for ties and examples.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossgrain.collect.near import NearIndex, group_near
from crossgrain.collect.tombstones import REASON

KEPT, TEXT_TOO_FREQUENT, BELOW_THRESHOLD, WORSE = (
    "",
    "its text stands on too many images",
    "score below the threshold",
    "another pair of the same image is better",
)
IN_TEST_SET = "image of the test set "  # and its name


@dataclass(kw_only=True)
class Pairs:
    """What the decision needs of N pairs, each an array (N,)."""

    image: np.ndarray  # number of the distinct image (by its perceptual hash)
    text: np.ndarray  # uint64, a hash of the text
    score: np.ndarray  # float32, NaN where there is no scorer
    taken_down: np.ndarray  # bool
    phashes: np.ndarray  # of the distinct images, uint64 (M,)

    @staticmethod
    def of(phash: np.ndarray, text: np.ndarray, score: np.ndarray, taken_down: np.ndarray) -> "Pairs":
        """From a hash for each pair."""
        phashes, image = np.unique(phash, return_inverse=True)
        return Pairs(image=image, text=text, score=score, taken_down=taken_down, phashes=phashes)


@dataclass(kw_only=True)
class Verdicts:
    """A reason for every pair, by number in `reasons`; 0 keeps it."""

    reasons: list[str]
    verdict: np.ndarray  # int16 (N,)

    def counts(self) -> dict[str, int]:
        """How many pairs were dropped for each reason."""
        numbers = np.bincount(self.verdict, minlength=len(self.reasons)).tolist()
        return {reason: number for reason, number in zip(self.reasons, numbers, strict=True) if reason and number}


def decide(
    pairs: Pairs,
    *,
    near_distance: int,
    max_images_per_text: int,
    threshold: float | None,
    test_sets: Mapping[str, np.ndarray],
    order: Callable[[np.ndarray], Sequence[Any]],
) -> Verdicts:
    """What becomes of every pair.

    Rules, in this order: take-downs; texts on more than `max_images_per_text` image groups (0: no limit); image groups
    of which one is within `near_distance` bits of a test set's (hashes of mirrored copies are among those); scores
    below `threshold`; and of what is left the best of each group. `order(rows)` gives for rows with equal scores what
    sorts them: the image's address, then the text.
    """
    groups = group_near(pairs.phashes, near_distance)
    group = groups[pairs.image]
    reasons = [KEPT, REASON, TEXT_TOO_FREQUENT, BELOW_THRESHOLD, WORSE]
    verdict = np.zeros(len(group), np.int16)
    verdict[pairs.taken_down] = reasons.index(REASON)
    if max_images_per_text:
        _mark(verdict, _on_many_images(pairs.text, group, max_images_per_text), reasons.index(TEXT_TOO_FREQUENT))
    for name, hashes in test_sets.items():
        reasons.append(f"{IN_TEST_SET}{name}")
        found = NearIndex(hashes).find(pairs.phashes, near_distance) >= 0
        _mark(verdict, np.isin(groups, groups[found])[pairs.image], len(reasons) - 1)
    if threshold is not None:
        _mark(verdict, ~(pairs.score >= np.float32(threshold)), reasons.index(BELOW_THRESHOLD))
    left = np.flatnonzero(verdict == 0)
    score = np.where(np.isnan(pairs.score), -np.inf, pairs.score)
    best = _best(group[left], score[left], lambda rows: order(left[rows]))
    verdict[left] = reasons.index(WORSE)
    verdict[left[best]] = 0
    return Verdicts(reasons=reasons, verdict=verdict)


def text_hash(text: str) -> int:
    """64 bits for a text."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8])


def _mark(verdict: np.ndarray, broken: np.ndarray, reason: int) -> None:
    """The first rule that is broken is the reason."""
    verdict[(verdict == 0) & broken] = reason


def _on_many_images(text: np.ndarray, group: np.ndarray, most: int) -> np.ndarray:
    """bool (N,): whether the pair's text stands on more than `most` image groups."""
    texts, number = np.unique(text, return_inverse=True)
    both = np.unique(np.stack([number, group], axis=1), axis=0) if len(group) else np.zeros((0, 2), np.int64)
    return (np.bincount(both[:, 0], minlength=len(texts)) > most)[number]


def _best(group: np.ndarray, score: np.ndarray, order: Callable[[np.ndarray], Sequence[Any]]) -> np.ndarray:
    """The row of each group with the highest score, of equal ones the first by `order`."""
    if not len(group):
        return np.zeros(0, np.int64)
    ranked = np.lexsort((-score, group))
    first = np.r_[True, np.diff(group[ranked]) != 0]
    number = np.cumsum(first) - 1  # of the group, in the order of `ranked`
    chosen = ranked[first]
    top = score[chosen][number] == score[ranked]
    tied = np.bincount(number, weights=top) > 1
    if tied.any():
        rows = ranked[top & tied[number]]
        key = dict(zip(rows.tolist(), order(rows), strict=True))
        best: dict[int, int] = {}
        for row, of in zip(rows.tolist(), number[top & tied[number]].tolist(), strict=True):
            best[of] = min(best.get(of, row), row, key=key.__getitem__)
        chosen[list(best)] = list(best.values())
    return np.sort(chosen)


def samples_of(verdicts: Verdicts, rank: np.ndarray, most: int) -> Iterator[tuple[int, str]]:
    """(row, reason) of the lowest-ranked rows of every reason for dropping."""
    for number, reason in enumerate(verdicts.reasons):
        rows = np.flatnonzero(verdicts.verdict == number) if reason else np.zeros(0, np.int64)
        yield from ((int(row), reason) for row in rows[np.argsort(rank[rows], kind="stable")[:most]])
