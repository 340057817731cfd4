import numpy as np
import pytest

from crossgrain.metrics.nlvr2 import accuracy, chance_consistency, consistency, consistent, statement_of
from crossgrain.metrics.proportion import mean_interval
from crossgrain.metrics.vcr import CHANCE, hits, vcr_accuracy

IDENTIFIERS = ["dev-850-0-0", "dev-850-1-0", "dev-850-0-1", "dev-851-0-0", "dev-850-2-0", "dev-850-3-1"]


def test_a_statement_is_all_of_its_identifier_but_the_pair():
    assert statement_of("dev-850-2-1") == statement_of("dev-850-0-1") != statement_of("dev-850-2-0")
    assert statement_of("dev-85-0-1") != statement_of("dev-850-0-1") != statement_of("test1-850-0-1")
    with pytest.raises(ValueError, match="'dev-850-2' is no identifier"):
        statement_of("dev-850-2")


def test_consistency_of_judgements_worked_out_by_hand():
    statements = [statement_of(name) for name in IDENTIFIERS]
    right = np.array([True, True, True, False, True, False])
    # statements: 850-0 (three pairs, all right), 850-1 (one of two right), 851-0 (wrong)
    assert consistent(right, statements).tolist() == [True, False, False]
    assert (accuracy(right), consistency(right, statements)) == pytest.approx((4 / 6, 1 / 3))
    assert chance_consistency(statements) == pytest.approx((1 / 8 + 1 / 4 + 1 / 2) / 3)


def test_the_highest_score_is_the_choice():
    scores = np.array([[0.1, 0.2, 0.4, 0.3], [5.0, 5.0, 1.0, 2.0], [-1.0, -2.0, -3.0, -0.5]])
    assert hits(scores, np.array([2, 1, 3])).tolist() == [True, False, True]
    with pytest.raises(ValueError, match="NaN"):
        hits(np.array([[np.nan, 0, 0, 0]]), np.array([0]))


def test_vcr_of_four_questions_worked_out_by_hand():
    answered, justified = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert vcr_accuracy(answered, justified) == {"Q->A": 0.5, "QA->R": 0.5, "Q->AR": 0.25}
    assert CHANCE == {"Q->A": 0.25, "QA->R": 0.25, "Q->AR": 0.0625}


def test_the_interval_of_a_mean():
    values = np.array([0.3, 0.6, 0.9, 1.0, 0.0])
    low, high = mean_interval(values)
    assert (low + high) / 2 == pytest.approx(values.mean())
    assert high - low == pytest.approx(2 * 1.959964 * np.std(values, ddof=1) / np.sqrt(5), rel=1e-6)
    assert mean_interval(np.array([0.4])) == (0.4, 0.4)


@pytest.mark.parametrize(
    "score",
    [
        lambda: accuracy(np.zeros(0, dtype=bool)),
        lambda: vcr_accuracy(np.zeros(0, dtype=bool), np.zeros(0, dtype=bool)),
        lambda: mean_interval(np.zeros(0)),
    ],
)
def test_nothing_to_score_is_an_error(score):
    with pytest.raises(ValueError, match=r"no (judgements|questions|values)"):
        score()
