"""Hashes that lie close together: every pair within a Hamming distance is found, none is missed, memory is bounded.

Multi-index hashing (Norouzi, Punjani and Fleet, CVPR 2012): 64 bits are cut into three bands. Where two hashes differ
in at most D bits, at least one band differs in at most as many bits as it is allowed below (the numbers allowed, each
plus one, add up to more than D: the pigeonhole principle). So each band is an index of its own, which is asked for
every value within the allowed distance, and only what it returns is compared in full.

Equal hashes are merged first, and pairs already known to be of one group are not compared again: a million copies of
the blank image, or a hundred thousand variants of it, cost no more than other hashes.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from crossgrain.collect.hashes import SAME_IMAGE

_BANDS = ((0, 22), (22, 21), (43, 21))  # (lowest bit, number of bits)
_PAIRS = 2**21  # compared at a time: 100 MB at most
_MUCH = 16  # rows with one value, beyond which it pays to look which of them are of one's own group
_MAX_DISTANCE = 16  # the numbers of neighbouring values grow fast beyond


def group_near(hashes: np.ndarray, distance: int = SAME_IMAGE) -> np.ndarray:
    """The group of each hash of `hashes` (N,) uint64: int64 (N,), the number of the first row that belongs to it.

    Two hashes within `distance` bits are of one group, and so is whatever is close to either: groups are chained.
    """
    values, first, inverse = np.unique(hashes.astype(np.uint64), return_index=True, return_inverse=True)
    groups = _Groups(len(values))
    _link_neighbours(values, distance, groups)
    for left, right in _close_pairs(values, values, distance, groups):
        groups.join(left, right)
    lowest = np.full(len(values), np.iinfo(np.int64).max)
    np.minimum.at(lowest, groups.labels, first)
    return lowest[groups.labels][inverse]


class NearIndex:
    """Reference hashes, asked for the closest to others."""

    def __init__(self, hashes: np.ndarray):
        """`hashes` (N,) uint64; the row number of a hash is its name."""
        self.hashes = np.ascontiguousarray(hashes, dtype=np.uint64)

    def find(self, hashes: np.ndarray, distance: int = SAME_IMAGE) -> np.ndarray:
        """The row of the closest reference within `distance` bits of each hash: int64 (M,), -1 where there is none.

        Of several that are equally close the first row is given.
        """
        asked, inverse = np.unique(hashes.astype(np.uint64), return_inverse=True)
        far = np.int64(65) * len(self.hashes)
        best = np.full(len(asked), far)
        if len(self.hashes):
            for left, right in _close_pairs(asked, self.hashes, distance, None):
                bits = np.bitwise_count(asked[left] ^ self.hashes[right]).astype(np.int64)
                np.minimum.at(best, left, bits * len(self.hashes) + right)
        return np.where(best < far, best % max(1, len(self.hashes)), -1)[inverse]


class _Groups:
    """Connected components of rows, kept as the smallest row that each is known to be joined to."""

    def __init__(self, num_rows: int):
        self.labels = np.arange(num_rows)

    def join(self, left: np.ndarray, right: np.ndarray) -> None:
        """Rows `left[i]` and `right[i]` are of one group."""
        labels = self.labels
        while len(left):
            a, b = labels[left], labels[right]
            apart = a != b
            left, right, a, b = left[apart], right[apart], a[apart], b[apart]
            np.minimum.at(labels, np.maximum(a, b), np.minimum(a, b))
            while True:  # what points at a row that points elsewhere points there as well
                shorter = labels[labels]
                if np.array_equal(shorter, labels):
                    break
                labels[:] = shorter


def _link_neighbours(values: np.ndarray, distance: int, groups: _Groups) -> None:
    """Join what is close and adjacent in a few orders: cheap, and makes most of a crowd one group beforehand."""
    for turn in range(0, 64, 8):
        turned = values if not turn else values << np.uint64(turn) | values >> np.uint64(64 - turn)
        order = np.argsort(turned)
        near = np.bitwise_count(values[order[1:]] ^ values[order[:-1]]) <= distance
        groups.join(order[:-1][near], order[1:][near])


def _close_pairs(
    left: np.ndarray, right: np.ndarray, distance: int, groups: _Groups | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rows of `left`, rows of `right`) within the distance, in parts; a pair may come more than once.

    With `groups` both are the same hashes, a pair comes in one order only, and pairs of one group are left out.
    """
    if not 0 <= distance <= _MAX_DISTANCE:
        raise ValueError(f"a distance is from 0 to {_MAX_DISTANCE} bits, not {distance}")
    if len(left) * len(right) <= _PAIRS:
        yield _compare(np.repeat(np.arange(len(left)), len(right)), np.tile(np.arange(len(right)), len(left)),
                       left, right, distance)  # fmt: skip
        return
    allowed = distance - len(_BANDS) + 1  # to be shared out, so that the numbers plus one add up to distance + 1
    for number, band in enumerate(_BANDS):
        errors = (allowed + len(_BANDS) - 1 - number) // len(_BANDS) if allowed >= 0 else -1
        if allowed < 0 and number <= distance:
            errors = 0
        if errors >= 0:
            yield from _band_pairs(left, right, band, errors, distance, groups)


def _band_pairs(
    left: np.ndarray, right: np.ndarray, band: tuple[int, int], errors: int, distance: int, groups: _Groups | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs within the distance whose band differs in at most `errors` bits."""
    low, num_bits = band
    for num_flipped in range(errors + 1):
        asked = _Band(left, low, num_bits, groups)
        index = asked if groups else _Band(right, low, num_bits, None)
        for flipped in combinations(range(num_bits), num_flipped):
            wanted = asked.keys ^ np.int32(sum(1 << bit for bit in flipped))
            there = index.present[wanted]
            if groups:  # each pair of values is asked for once
                there &= wanted >= asked.keys
            rows = np.flatnonzero(there)
            rows, start, count = index.ranges(rows, wanted[rows], asked.labels)
            for part, at in _positions(start, count):
                one, other = _compare(rows[part], at, asked.values, index.values, distance)
                yield asked.order[one], index.order[other]


class _Band:
    """Rows sorted by one band of their hashes (and their groups as known now), and where each value's rows stand."""

    def __init__(self, hashes: np.ndarray, low: int, num_bits: int, groups: _Groups | None):
        keys = (hashes >> np.uint64(low) & np.uint64((1 << num_bits) - 1)).astype(np.int64)
        labels = groups.labels if groups else np.zeros(len(hashes), np.int64)
        self._ranks = keys * (len(hashes) + 1) + labels
        self.order = np.argsort(self._ranks, kind="stable")
        self._ranks, self.labels = self._ranks[self.order], labels[self.order]
        self.keys = keys[self.order].astype(np.int32)
        self.values = hashes[self.order]  # whole: what is compared with one lies together
        self._grouped = groups is not None
        counts = np.bincount(keys, minlength=1 << num_bits)
        self.present = counts > 0
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        filled = np.flatnonzero(self.present)
        self._alone = np.full(1 << num_bits, -1, np.int32)  # the group of all rows of a value, where they are of one
        first, last = self.labels[self._starts[filled]], self.labels[self._starts[filled + 1] - 1]
        self._alone[filled] = np.where(first == last, first, -1)  # rows of a value are sorted by group

    def ranges(
        self, rows: np.ndarray, wanted: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(row, first position, number of positions) of what has the value `wanted[i]`, for each of the `rows`.

        Where that is much, what is of the row's own group (`labels[row]`) is left out: before it and after it are two.
        """
        start = self._starts[wanted]
        count = self._starts[wanted + 1] - start
        much = count > _MUCH
        if not self._grouped or not much.any():
            return rows, start, count
        other = ~much | (self._alone[wanted] != labels[rows])
        rows, wanted, start, count, much = rows[other], wanted[other], start[other], count[other], much[other]
        own = wanted[much].astype(np.int64) * (len(self.order) + 1) + labels[rows[much]]
        first, last = (np.searchsorted(self._ranks, own, side=side) for side in ("left", "right"))
        little = ~much
        return (
            np.concatenate([rows[little], rows[much], rows[much]]),
            np.concatenate([start[little], start[much], last]),
            np.concatenate([count[little], first - start[much], start[much] + count[much] - last]),
        )


def _positions(start: np.ndarray, count: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(which range, position) of everything that the ranges hold, `_PAIRS` at a time; a range may be longer."""
    ends = np.cumsum(count)
    total = int(ends[-1]) if len(ends) else 0
    for offset in range(0, total, _PAIRS):
        until = min(total, offset + _PAIRS)
        first, last = np.searchsorted(ends, (offset, until - 1), side="right")
        part = np.arange(first, last + 1)
        begin = np.maximum(ends[part] - count[part], offset)
        length = np.minimum(ends[part], until) - begin
        which = np.repeat(part, length)
        yield which, np.arange(offset, until) - (ends - count)[which] + start[which]


def _compare(
    rows: np.ndarray, others: np.ndarray, left: np.ndarray, right: np.ndarray, distance: int
) -> tuple[np.ndarray, np.ndarray]:
    near = np.bitwise_count(left[rows] ^ right[others]) <= distance
    return rows[near], others[near]
