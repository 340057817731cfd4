import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossgrain.collect.aggregate import (
    BELOW_THRESHOLD,
    IN_TEST_SET,
    TEXT_TOO_FREQUENT,
    WORSE,
    Pairs,
    decide,
    samples_of,
    text_hash,
)
from crossgrain.collect.tombstones import REASON

A, B, FAR = 0x0F0F_1234_5678_9ABC, 0x0F0F_1234_5678_9ABD, 0xF0F0_EDCB_A987_6543


def judged(rows, taken_down=(), **rules):
    """Reasons of pairs (perceptual hash, image URL, text, score)."""
    pairs = Pairs.of(
        np.array([row[0] for row in rows], np.uint64),
        np.array([text_hash(row[2]) for row in rows], np.uint64),
        np.array([row[3] for row in rows], np.float32),
        np.isin(np.arange(len(rows)), list(taken_down)),
    )
    given_rules = {"near_distance": 8, "max_images_per_text": 10, "threshold": None, "test_sets": {}, **rules}
    verdicts = decide(pairs, **given_rules, order=lambda found: [rows[row][1:3] for row in found.tolist()])
    assert verdicts.counts().get("", 0) == 0
    assert sum(verdicts.counts().values()) == np.count_nonzero(verdicts.verdict)
    return [verdicts.reasons[number] for number in verdicts.verdict]


def test_one_image_under_five_addresses_keeps_the_best_of_its_texts():
    hashes = [A, B, A ^ 0b1100, A ^ 0xFF, B]  # recompressions, within 8 bits of the first
    rows = [(hashes[n % 5], f"https://a.example/{n % 5}.jpg", f"text {n}", n / 10) for n in range(6)]
    assert judged(rows) == [WORSE] * 5 + [""]


def test_of_equal_scores_the_first_address_and_then_the_first_text_is_kept():
    rows = [
        (A, "https://b.example/", "a", 0.5),
        (B, "https://a.example/", "z", 0.5),
        (B, "https://a.example/", "y", 0.5),
        (A, "https://0.example/", "0", 0.4),
        (FAR, "https://z.example/", "another image", 0.1),
    ]
    for order in itertools.permutations(range(5)):
        reasons = judged([rows[n] for n in order])
        assert sorted(n for n, reason in zip(order, reasons, strict=True) if not reason) == [2, 4]


def test_without_scores_the_tie_break_decides():
    rows = [(A, "https://b.example/", "a", np.nan), (A, "https://a.example/", "z", np.nan)]
    assert judged(rows) == [WORSE, ""]


def test_a_score_that_is_missing_is_worse_than_any_other():
    rows = [(A, "https://a.example/", "a", np.nan), (A, "https://b.example/", "z", -0.9)]
    assert judged(rows) == [WORSE, ""]


def distinct_images(count):
    return [int(value) for value in np.random.default_rng(0).integers(0, 2**64, count, dtype=np.uint64)]


def test_a_text_on_eleven_images_is_dropped_and_one_on_ten_is_not():
    rows = [(h, f"https://a.example/{h}", "a stock photo", 0.9) for h in distinct_images(11)]
    assert judged(rows) == [TEXT_TOO_FREQUENT] * 11
    assert judged(rows[:10]) == [""] * 10
    assert judged(rows, max_images_per_text=0) == [""] * 11
    assert judged([*rows[:10], (rows[0][0] ^ 1, "https://copy.example/", "a stock photo", 0.1)])[:10] == [""] * 10


def test_where_the_frequent_text_goes_the_next_best_of_the_image_is_kept():
    rows = [(h, f"https://a.example/{h}", "a stock photo", 0.9) for h in distinct_images(11)]
    assert judged([*rows, (rows[0][0], "https://a.example/", "a harbour", 0.2)])[-1] == ""


def test_every_address_of_an_image_of_a_test_set_is_dropped_whatever_else_is_true_of_it():
    rows = [(A, "u", "one", 0.1), (A ^ 0xFF, "v", "two", 0.9), (FAR, "w", "three", 0.9)]
    sets = {"coco": np.array([A ^ 0xFF00], np.uint64)}
    assert judged(rows, test_sets=sets, threshold=0.5) == [f"{IN_TEST_SET}coco"] * 2 + [""]


def test_a_score_at_the_threshold_is_kept_and_one_that_is_missing_is_not():
    rows = [(h, "u", f"text {n}", score) for n, (h, score) in enumerate(zip([A, FAR], [0.25, 0.2499], strict=True))]
    assert judged(rows, threshold=0.25) == ["", BELOW_THRESHOLD]
    assert judged([(A, "u", "text", np.nan)], threshold=0.25) == [BELOW_THRESHOLD]


def test_what_was_taken_down_says_so_first():
    rows = [(A, "u", "one", 0.9), (A, "v", "two", 0.1)]
    assert judged(rows, taken_down=[0], threshold=0.5) == [REASON, BELOW_THRESHOLD]


def test_nothing_gives_nothing():
    assert judged([]) == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([A, B, FAR, 0]), st.sampled_from("uvw"), st.sampled_from("xyz"),
                          st.sampled_from([0.1, 0.5])), max_size=12, unique_by=lambda row: row[1:3]))  # fmt: skip
def test_every_group_keeps_one_and_the_order_does_not_matter(rows):
    kept = {row for row, reason in zip(rows, judged(rows), strict=True) if not reason}
    groups = {0 if row[0] in (A, B) else row[0] or 1 for row in rows}
    assert len(kept) == len(groups)
    assert {row for row, reason in zip(rows[::-1], judged(rows[::-1]), strict=True) if not reason} == kept


def test_examples_are_the_lowest_ranked_of_each_reason():
    from crossgrain.collect.aggregate import Verdicts

    verdicts = Verdicts(reasons=["", "a", "b"], verdict=np.array([1, 0, 1, 2, 1], np.int16))
    assert list(samples_of(verdicts, np.array([9, 0, 3, 5, 4], np.uint64), 2)) == [(2, "a"), (4, "a"), (3, "b")]


@pytest.mark.parametrize("count", [1000])
def test_many_pairs_take_no_time(count):
    rows = [(h, f"u{n}", f"t{n % 700}", (n % 7) / 7) for n, h in enumerate(distinct_images(count) * 3)]
    assert judged(rows).count("") <= count
