"""VQA accuracy with the official normalisation of answers (Antol et al. 2015, section 5; GT-Vision-Lab/VQA
PythonEvaluationTools/vqaEvaluation/vqaEval.py).

An answer counts in full if three annotators gave it, less if fewer did; this is averaged over all ways to leave one
annotator out. What the official program does by accident is kept where it decides who is right, and said where it is.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

ENOUGH = 3  # annotators that make an answer right

ARTICLES = frozenset(("a", "an", "the"))
_COUNTED = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {"none": "0"} | {word: str(number) for number, word in enumerate(_COUNTED)}
# What annotators write with an apostrophe too few. "let's" and "she's" are not mended officially, nor is what begins
# with "I", which is looked up when it is in small letters already.
_CONTRACTED = """
    'ow's'at 'twas ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't
    he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't
    needn't not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll
    somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd
    there'd've there're there's they'd they'd've they'll they're they've wasn't we'd've we've weren't what'll what're
    what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've
"""


def _without_one_apostrophe() -> dict[str, str]:
    """Every contraction under the spellings that lack exactly one of its apostrophes."""
    mended = {
        word[:place] + word[place + 1 :]: word
        for word in _CONTRACTED.split()
        for place, letter in enumerate(word)
        if letter == "'"
    }
    return mended | {"somebody'd": "somebodyd"}  # this one the official table has the wrong way round


CONTRACTIONS = _without_one_apostrophe()

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DECIMAL_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_MOST_PERIODS = 32  # the official call hands re.UNICODE, which is 32, to the place of the number of replacements


@lru_cache(1 << 16)  # people write the same answers again and again
def normalise_answer(answer: str) -> str:
    """An answer without case, articles and punctuation, with digits for number words up to ten.

    A mark of punctuation is removed where it has a space beside it anywhere in the answer, or where the answer has a
    comma between digits ("1,000"); elsewhere it becomes a space ("t-shirt" to "t shirt"). A period goes unless a digit
    follows it.
    """
    answer = _plain(answer)
    kept, decimal = answer, _DECIMAL_COMMA.search(answer) is not None
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in answer or f" {mark}" in answer
        kept = kept.replace(mark, "" if beside_space or decimal else " ")
    words = _PERIOD.sub("", kept, count=_MOST_PERIODS).lower().split()
    words = [number for word in words if (number := NUMBERS.get(word, word)) not in ARTICLES]
    return " ".join(CONTRACTIONS.get(word, word) for word in words)


def vqa_accuracy(answer: str, truth: Sequence[str]) -> float:
    """How right an answer is among those of the annotators, in [0, 1].

    As in the official program, nothing is normalised where all annotators wrote the same, letter by letter: the answer
    must then be written so too. A question with a single annotator (GQA, Visual Genome, entailment) has no one to
    leave out: the normalised answers are equal or not.
    """
    if not truth:
        raise ValueError("no annotator's answer to score against")
    if len(truth) == 1:
        return float(normalise_answer(answer) == normalise_answer(truth[0]))
    given = [_plain(one) for one in truth]
    if len(set(given)) > 1:
        return _leave_one_out([normalise_answer(one) for one in given].count(normalise_answer(answer)), len(given))
    return _leave_one_out(len(given) * (_plain(answer) == given[0]), len(given))


def vqa_soft_scores(truth: Sequence[str]) -> dict[str, float]:
    """Every normalised answer of the annotators with its accuracy: the soft targets of training.

    In the order of their first mention; of ten annotators one, two, three and four or more give 0.3, 0.6, 0.9 and 1.
    """
    if len(truth) == 1:
        return {normalise_answer(truth[0]): 1.0}
    votes = Counter(normalise_answer(one) for one in truth)
    return {answer: _leave_one_out(count, len(truth)) for answer, count in votes.items()}


def best_constant(truths: Sequence[Sequence[str]]) -> tuple[str, float]:
    """The one answer that would score best if given to all questions, and the accuracy that it reaches."""
    if not truths:
        raise ValueError("no questions to score")
    total: Counter[str] = Counter()
    for truth in truths:
        total.update(vqa_soft_scores(truth))
    answer = max(total, key=lambda one: total[one])
    return answer, sum(vqa_accuracy(answer, truth) for truth in truths) / len(truths)


def _leave_one_out(votes: int, total: int) -> float:
    """Mean accuracy of an answer that `votes` of `total` annotators gave, over all ways to leave one of them out."""
    without_a_voter, without_another = min(1.0, (votes - 1) / ENOUGH), min(1.0, votes / ENOUGH)
    return (votes * without_a_voter + (total - votes) * without_another) / total


def _plain(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()
