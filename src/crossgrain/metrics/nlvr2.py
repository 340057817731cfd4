"""NLVR2: how many judgements are right, and of how many statements all are (lil-lab/nlvr nlvr2/eval/metrics.py).

A statement is put to up to four pairs of images; consistency is the share of statements whose pairs are all judged
right (Suhr et al. 2019, section 4).
"""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Bool

CHANCE = 0.5


def statement_of(identifier: str) -> str:
    """What names the statement in "split-set-pair-sentence" (dev-850-2-0): all but the pair."""
    parts = identifier.split("-")
    if len(parts) != 4:
        raise ValueError(f"{identifier!r} is no identifier of the form split-set-pair-sentence")
    return "-".join((*parts[:2], "", parts[3]))


def accuracy(right: Bool[np.ndarray, " N"]) -> float:
    """The share of judgements that are right."""
    _check(right)
    return float(np.mean(right))


def consistent(right: Bool[np.ndarray, " N"], statements: Sequence[Hashable]) -> Bool[np.ndarray, " S"]:
    """For each statement, in the order of first mention, whether all its judgements are right.

    `statements` names the statement of each judgement.
    """
    _check(right)
    holds: dict[Hashable, bool] = {}
    for statement, one in zip(statements, right, strict=True):
        holds[statement] = holds.get(statement, True) and bool(one)
    return np.array(list(holds.values()), dtype=np.bool_)


def consistency(right: Bool[np.ndarray, " N"], statements: Sequence[Hashable]) -> float:
    """The share of statements whose judgements are all right."""
    return float(np.mean(consistent(right, statements)))


def chance_consistency(statements: Sequence[Hashable]) -> float:
    """The consistency to expect of tossing a coin for every judgement."""
    return float(np.mean([CHANCE**pairs for pairs in Counter(statements).values()]))


def _check(right: Bool[np.ndarray, " N"]) -> None:
    if not len(right):
        raise ValueError("no judgements to score")
