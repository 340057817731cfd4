from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossgrain.data.sets.questions import question_of
from crossgrain.metrics.vqa import best_constant, normalise_answer, vqa_accuracy, vqa_soft_scores

# Worked out by the rules, and the same as vqaEval.py's processPunctuation and processDigitArticle give.
TRICKY = {
    # case, spaces, articles
    "Yes": "yes", "  yes  ": "yes", "yes.": "yes", "Yes!": "yes", "no, thanks": "no thanks", "the dog": "dog",
    "A dog": "dog", "an apple": "apple", "a": "", "The": "", "theater": "theater", "the a an": "",
    "hello\tworld": "hello world", "hello\nworld": "hello world", "\n": "", "": "", "é clair": "é clair",
    # number words up to ten, whole words only
    "two": "2", "TWO dogs": "2 dogs", "none": "0", "none.": "0", "zero": "0", "Ten.": "10", "eleven": "eleven",
    "one's": "one's", "twenty one": "twenty 1", "ten-year": "10 year", "zero-sum": "0 sum",
    # periods and commas in numbers
    "1,000": "1000", "1,000,000": "1000000", "1, 2": "1 2", "10,5 cm": "105 cm", "3.5": "3.5", "3.": "3",
    "3.5.": "3.5", "5.0 feet": "5.0 feet", ".5": ".5", "no.1": "no.1", "No. 1": "no 1", "1.5-2.5": "1.5 2.5",
    "7:30": "7:30", "7:30 pm.": "7:30 pm",
    # periods elsewhere
    "U.S.A.": "usa", "u.s.": "us", "e.g. this": "eg this", "St. Louis": "st louis", "a.m.": "am", "Ph.D": "phd",
    "wait...": "wait", "wait... what": "wait what", "...": "",
    # a mark becomes a space, but nothing where a space stands beside it anywhere
    "t-shirt": "t shirt", "t - shirt": "t shirt", "t- shirt": "t shirt", "black-and-white": "black and white",
    "a-b-c d-e": "b c d e", "red/white": "red white", "red / white": "red white", "his/her.": "his her",
    "wi-fi": "wi fi", "wi-fi, tv": "wi fi tv", "tennis,ball": "tennis ball", "tennis, ball": "tennis ball",
    "(left)": "left", "the (left) side": "left side", "a(b)": "b", "[sic]": "sic", "{x}": "x", '"stop"': "stop",
    'say "stop" now': "say stop now", "`tick`": "tick", "back`tick": "back tick", "so;so": "so so", "5;6": "5 6",
    "x=y": "x y", "5+5": "5 5", "5 + 5": "5 5", "c++": "c", "A+": "", "me@home": "me home", "@home": "home",
    "under_score": "under score", "__": "", "c:\\temp": "c: temp", "5>3": "5 3", "<b>": "b", "why?": "why",
    "why?no": "why no", "wow!!": "wow",
    # nothing where a comma stands between digits anywhere
    "1,5;6": "156", "1,5-6": "156", "semi-1,000": "semi1000",
    # marks that stay
    "50%": "50%", "$5": "$5", "#1": "#1", "b&w": "b&w", "black & white": "black & white", "'stop'": "'stop'",
    # contractions that lack one apostrophe
    "dont": "don't", "dont know": "don't know", "don't": "don't", "isnt it": "isn't it", "hes": "he's",
    "youre": "you're", "yall": "y'all", "aint": "ain't", "couldnt've": "couldn't've", "couldn'tve": "couldn't've",
    "couldntve": "couldntve", "someonell": "someone'll", "5 oclock": "5 o'clock", "maam": "ma'am", "twas": "'twas",
    "ow's'at": "'ow's'at", "somebody'd": "somebodyd",
    # words that are not mended
    "im": "im", "Im": "im", "ive": "ive", "its": "its", "lets": "lets", "shes": "shes", "mens": "mens",
    "dogs'": "dogs'",
}  # fmt: skip


def test_answers_are_normalised_as_officially():
    assert len(TRICKY) > 100
    assert {answer: normalise_answer(answer) for answer in TRICKY} == TRICKY


def test_only_the_first_32_periods_go():
    assert normalise_answer("." * 40) == "." * 8


@pytest.mark.parametrize(("votes", "accuracy"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0), (10, 1.0)])
def test_accuracy_of_an_answer_by_the_votes_for_it(votes, accuracy):
    # one vote of ten: the nine rounds that keep the voter find 1 / 3, the round without him nothing: 9 / 10 * 1 / 3
    truth = ["red"] * votes + [f"other {n}" for n in range(10 - votes)]
    assert vqa_accuracy("Red.", truth) == pytest.approx(
        accuracy if votes < 10 else 0
    )  # "Red." is not "red" to a letter
    assert vqa_accuracy("red", truth) == pytest.approx(accuracy)


@given(st.lists(st.sampled_from(["2", "two", "a two", "dog", "dogs"]), min_size=2, max_size=10), st.just("two"))
def test_accuracy_is_the_mean_over_all_who_are_left_out(truth, answer):
    same = len(set(truth)) == 1
    plain = truth if same else [normalise_answer(one) for one in truth]
    told = answer if same else normalise_answer(answer)
    rounds = [min(1, (plain[:out] + plain[out + 1 :]).count(told) / 3) for out in range(len(plain))]
    assert vqa_accuracy(answer, truth) == pytest.approx(sum(rounds) / len(rounds))


def test_where_all_agree_the_answer_must_be_written_the_same():
    assert vqa_accuracy("t shirt", ["t-shirt"] * 10) == 0.0
    assert vqa_accuracy("t-shirt", ["t-shirt"] * 10) == 1.0
    assert vqa_accuracy("t shirt", ["t-shirt"] * 9 + ["shirt"]) == 1.0
    assert vqa_accuracy(" t-shirt\n", ["t-shirt"] * 10) == 1.0


@pytest.mark.parametrize(
    ("answers", "answer", "accuracy"),
    [
        (["red"] * 3 + ["blue"] * 6 + [""], "red", 0.9),
        (["yes"] * 9 + [" "], "Yes", 1.0),
        (["yes"] * 8 + [None, "y" * 9999], "Yes", 1.0),
    ],
)
def test_who_gave_no_usable_answer_is_one_of_the_annotators(answers, answer, accuracy):
    question, dropped = question_of("what?", answers, "file:1")
    assert question is not None and len(question["answers"]) == 10
    assert vqa_accuracy(answer, question["answers"]) == pytest.approx(accuracy)
    assert [drop.reason for drop in dropped] == ["malformed answer", "answer too long"] * (None in answers)


def test_a_question_that_nobody_answered_is_none():
    for answers, reason in ((["", " "], "empty answer"), ([], "no answer"), ("", "empty answer")):
        question, dropped = question_of("what?", answers, "file:1")
        assert question is None and {drop.reason for drop in dropped} == {reason}


def test_a_single_annotator_is_right_or_not():
    assert [vqa_accuracy(answer, ["Two dogs"]) for answer in ("2 dogs", "two dogs.", "dogs")] == [1.0, 1.0, 0.0]
    assert vqa_soft_scores(["Two dogs"]) == {"2 dogs": 1.0}


def test_soft_scores_count_equal_answers_together():
    truth = ["two", "2", "2.", "The two", "3", "3", "three", "blue", "", "a"]
    expected = {"2": 1.0, "3": 0.9, "blue": 0.3, "": 0.6}
    for order in list(permutations(range(4)))[:5]:
        shuffled = [truth[place] for place in order] + truth[4:]
        assert vqa_soft_scores(shuffled) == pytest.approx(expected)
    assert list(vqa_soft_scores(truth)) == ["2", "3", "blue", ""]


def test_the_best_constant_answer_is_found():
    truths = [["yes"] * 9 + ["no"], ["no"] * 10, ["yes"] * 6 + ["no"] * 4, ["dog"]]
    # yes: 1 + 0 + 1 + 0; no: 0.3 + 1 + 1 + 0
    assert best_constant(truths) == ("no", pytest.approx(2.3 / 4))


def test_nothing_to_score_is_an_error():
    with pytest.raises(ValueError, match="no annotator's answer"):
        vqa_accuracy("yes", [])
    with pytest.raises(ValueError, match="no questions"):
        best_constant([])
