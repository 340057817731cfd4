"""Close hashes: no pair is missed, against brute force; crowds cost neither time nor memory."""

import tracemalloc

import numpy as np
import pytest

from crossgrain.collect import near
from crossgrain.collect.near import NearIndex, group_near


def flipped(hashes: np.ndarray, num_bits: int, rng: np.random.Generator) -> np.ndarray:
    """Each hash with `num_bits` different bits turned."""
    places = rng.permuted(np.tile(np.arange(64, dtype=np.uint64), (len(hashes), 1)), axis=1)[:, :num_bits]
    masks = np.bitwise_or.reduce(np.uint64(1) << places, axis=1, initial=0)
    return hashes ^ masks.astype(np.uint64)


def uniform(number: int, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 2**64, number, dtype=np.uint64)


def brute_groups(hashes: np.ndarray, distance: int) -> np.ndarray:
    close = np.bitwise_count(hashes[:, None] ^ hashes[None]) <= distance
    labels = np.arange(len(hashes))
    while True:
        lower = np.where(close, labels[None], len(hashes)).min(1)
        if np.array_equal(lower, labels):
            return labels
        labels = lower


@pytest.mark.parametrize("distance", [0, 1, 2, 3, 4, 7, 8, 10])
def test_groups_and_closest_are_those_of_brute_force(distance):
    rng = np.random.default_rng(distance)
    centres = uniform(250, rng)
    hashes = rng.permutation(np.concatenate([flipped(centres, bits, rng) for bits in (0, 0, 3, 4, 7, 8, 9, 11)]))
    assert len(hashes) ** 2 > 2**21, "so many that the bands are used"
    groups = group_near(hashes, distance)
    assert np.array_equal(groups, brute_groups(hashes, distance))
    asked = flipped(centres[rng.integers(0, 250, 1100)], 6, rng)
    bits = np.bitwise_count(asked[:, None] ^ hashes[None]).astype(int)
    closest = np.where(bits.min(1) <= distance, bits.argmin(1), -1)
    assert np.array_equal(NearIndex(hashes).find(asked, distance), closest)


def test_every_way_to_spread_eight_bits_over_the_hash_is_found():
    rng = np.random.default_rng(0)
    centres = uniform(3000, rng)
    pairs = np.concatenate([centres, flipped(centres, 8, rng)])
    groups = group_near(pairs)
    assert np.array_equal(groups[:3000], groups[3000:])
    assert len(np.unique(groups)) == 3000
    assert len(np.unique(group_near(np.concatenate([centres, flipped(centres, 9, rng)])))) == 6000


def test_groups_are_chained_and_named_by_their_first_row():
    hashes = np.array([0xFF00, 1 << 63 | 0x0F0F << 40, 0xFFFF, 0xFFFF_FF00_FF00, 0x00FF], dtype=np.uint64)
    assert group_near(hashes).tolist() == [0, 1, 0, 3, 0]


def test_small_and_empty_inputs():
    none = np.array([], dtype=np.uint64)
    assert group_near(none).tolist() == []
    assert group_near(np.array([7], dtype=np.uint64)).tolist() == [0]
    assert NearIndex(none).find(np.array([7], dtype=np.uint64)).tolist() == [-1]
    assert NearIndex(np.array([7], dtype=np.uint64)).find(none).tolist() == []
    assert NearIndex(np.array([6, 7, 7], dtype=np.uint64)).find(np.array([7], dtype=np.uint64)).tolist() == [1]


def test_far_too_wide_distances_are_refused():
    with pytest.raises(ValueError, match="0 to 16 bits, not 33"):
        group_near(np.arange(5, dtype=np.uint64), 33)


def test_crowds_are_cheap(monkeypatch):
    """Blank images, and variants of one image that share most bands: compared pair by pair they would be 10**10."""
    rng = np.random.default_rng(3)
    crowd = flipped(np.full(40_000, 0x0123_4567_89AB_CDEF, dtype=np.uint64), 3, rng)
    strays = flipped(np.full(200, 0x0123_4567_89AB_CDEF, dtype=np.uint64), 14, rng)
    hashes = np.concatenate([np.zeros(100_000, np.uint64), crowd, strays, uniform(20_000, rng)])
    compare, compared = near._compare, 0

    def counted(rows, *rest):
        nonlocal compared
        compared += len(rows)
        return compare(rows, *rest)

    monkeypatch.setattr(near, "_compare", counted)
    tracemalloc.start()
    groups = group_near(hashes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (groups[:100_000] == 0).all() and (groups[100_000:140_000] == 100_000).all()
    assert len(np.unique(groups[140_000:])) == 20_200
    assert peak < 500e6
    assert compared < 1e8
