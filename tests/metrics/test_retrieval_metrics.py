import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossgrain.metrics.proportion import wilson_interval
from crossgrain.metrics.retrieval import both_directions, chance_recall, rank_of_truth, recall


def test_a_rank_is_the_place_of_the_best_right_candidate():
    scores = np.array([[0.9, 0.1, 0.5], [0.2, 0.3, 0.4], [0.0, 1.0, 2.0]])
    assert rank_of_truth(scores, [[0], [0], [0, 1]]).tolist() == [0, 2, 1]


def test_of_equal_scores_the_later_candidate_comes_first_as_in_the_original():
    scores = np.array([[5.0, -100.0, -100.0, -100.0]])
    assert [rank_of_truth(scores, [[i]])[0] for i in range(4)] == [0, 3, 2, 1]


@given(st.lists(st.lists(st.integers(-3, 3), min_size=7, max_size=7), min_size=1, max_size=4))
def test_ranks_equal_those_of_the_original_program(rows):
    scores = np.array(rows, dtype=float)
    truth = [[q % 7, (3 * q + 1) % 7] for q in range(len(rows))]
    expected = []  # Retrieval.py:156-166, with numpy's sort asked to be stable
    for row, right in zip(scores, truth, strict=True):
        order = np.argsort(row, kind="stable")[::-1]
        expected.append(min(np.where(order == i)[0][0] for i in right))
    assert rank_of_truth(scores, truth).tolist() == expected


def test_recall_of_a_matrix_worked_out_by_hand_in_both_directions():
    # texts 0, 1 belong to image 0, text 2 to image 1; image 2 has no text and is only a candidate
    scores = np.array([[0.9, 0.1, 0.0], [0.1, 0.8, 0.0], [0.3, 0.2, 0.5]])
    result = both_directions(scores, np.array([0, 0, 1]))
    # texts: the first is right at once, the second is second, the third is last
    assert result["text_to_image"] == pytest.approx({"R@1": 1 / 3, "R@5": 1.0, "R@10": 1.0})
    # images: image 0 has its text 0 first; image 1 has text 1 (0.8) before its own text 2 (0.2)
    assert result["image_to_text"] == pytest.approx({"R@1": 0.5, "R@5": 1.0, "R@10": 1.0})


def test_recall_at_k_counts_ranks_below_k():
    assert recall(np.array([0, 4, 5, 9, 10])) == {"R@1": 0.2, "R@5": 0.4, "R@10": 0.8}


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        rank_of_truth(np.array([[np.nan, 1.0]]), [[0]])


def test_wilson_interval_equals_published_values():
    # Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_chance_is_the_recall_of_a_random_order():
    assert chance_recall(500, [1] * 7) == pytest.approx({"R@1": 0.002, "R@5": 0.01, "R@10": 0.02})
    order = np.random.default_rng([3]).permuted(np.tile(np.arange(30), (20000, 1)), axis=1)
    drawn = {f"R@{k}": float((order[:, :k] < 5).any(1).mean()) for k in (1, 5, 10)}  # candidates 0 to 4 are right
    assert chance_recall(30, [5, 5]) == pytest.approx(drawn, abs=0.012)
    assert chance_recall(4, [1])["R@10"] == 1.0
