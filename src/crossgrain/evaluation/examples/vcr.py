"""VCR: a picture with the objects that are spoken of, the question, and the four choices of answer and reason."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from crossgrain.data.asks import choice_text
from crossgrain.documents.markup import Html, join, plain, tag
from crossgrain.evaluation.examples.selection import Section, first_of_each, grouped, percent, spread
from crossgrain.evaluation.pictures import Pictures, place
from crossgrain.tasks.interface import Line

NUM_QUESTIONS = 6
NUM_COLOURS = 6  # that style.py has for objects
NO_ROOM = 0.08  # a box that begins as high in its picture has its name inside
TITLES = {"answer": "Q → A", "rationale": "QA → R"}


class _Item(NamedTuple):
    """One question of a record, with a line for its answer, one for its reason, or both."""

    key: str
    number: int
    lines: list[Line]


def vcr_sections(lines: Sequence[Line], pictures: Pictures) -> Iterator[Section]:
    """Questions with their choices, and the mistakes that were made with most confidence."""
    note = (
        "Questions at equal distances through the split. A choice stands with its probability among the four; the "
        "right one is green, a wrong one that was chosen is red. Reasons are chosen with the right answer given."
    )
    shown = spread(grouped(lines, _name), NUM_QUESTIONS)
    yield "Questions with four choices", note, join(_question(_item(some), pictures) for some in shown)
    if worst := _worst(lines):
        note = "Wrong choices that were furthest ahead of the right one, at most one per question."
        yield "Worst mistakes: VCR", note, join(_question(_item([line]), pictures) for line in worst)


def vcr_mistakes(lines: Sequence[Line]) -> list[str]:
    """The wrong choices that were furthest ahead of the right one, in Markdown."""
    return [
        f"{TITLES[line['kind']]} “{plain(line['question'])}” of {plain(line['key'])}: "
        f"“{plain(line['choices'][line['answer']])}” ({percent(_shares(line)[line['answer']])}), "
        f"right is “{plain(line['choices'][line['label']])}” ({percent(_shares(line)[line['label']])})"
        for line in _worst(lines)
    ]


def _item(lines: list[Line]) -> _Item:
    """Where nobody knows the right answer there is a reason for each of the four: that for the chosen one is shown."""
    answer = next((line for line in lines if line["kind"] == "answer"), None)
    reasons = [line for line in lines if line["kind"] == "rationale"]
    if answer is not None and len(reasons) > 1:
        reasons = [line for line in reasons if line.get("given") == answer["answer"]]
    kept = [line for line in (answer, *reasons[:1]) if line is not None]
    return _Item(kept[0]["key"], kept[0]["number"], kept)


def _question(item: _Item, pictures: Pictures) -> Html:
    blocks = [block for line in item.lines for block in _choices(line)]
    return tag("div", tag("div", _picture(item, pictures), tag("div", *blocks), class_="scene"), class_="query")


def _picture(item: _Item, pictures: Pictures) -> Html:
    """The picture with a box and a name for every object that the question or its choices speak of."""
    record = pictures.record(item.key)
    asked = record.extra["choices"][item.number]
    texts = [asked["question"], *asked["answer_choices"], *asked["rationale_choices"]]
    named = sorted({index for text in texts for token in text if not isinstance(token, str) for index in token})
    names = [region.label for region in record.regions]
    over = []
    for number, index in enumerate(index for index in named if index < len(names)):
        box = record.regions[index].box
        kind = f"object hue{number % NUM_COLOURS}{' high' if box[1] < NO_ROOM else ''}"
        over.append(tag("i", tag("b", choice_text([[index]], names)), class_=kind, style=place(box)))
    return pictures.figure(item.key, over=over)


def _choices(line: Line) -> list[Html]:
    shares = _shares(line)
    entries = []
    for number, choice in enumerate(line["choices"]):
        told = [percent(shares[number]), *(["chosen"] if number == line["answer"] else [])]
        right, wrong = number == line["label"], line["label"] is not None and number == line["answer"]
        mark = " ✓" if right else " ✗" if wrong else ""
        kind = "right" if right else "wrong" if wrong else "chosen" if number == line["answer"] else None
        entries.append(tag("li", f"{choice}{mark}", tag("small", ", ".join(told)), class_=kind))
    return [tag("p", line["question"], " ", tag("small", TITLES[line["kind"]])), tag("ol", *entries)]


def _worst(lines: Sequence[Line]) -> list[Line]:
    """Wrong choices by how far they are ahead, one of each question."""

    def lead(line: Line) -> float:
        shares = _shares(line)
        return shares[line["answer"]] - shares[line["label"]]

    wrong = (line for line in lines if line["label"] is not None and line["answer"] != line["label"])
    return first_of_each(sorted(wrong, key=lead, reverse=True), _name)


def _name(line: Line) -> tuple[str, int]:
    return line["key"], line["number"]


def _shares(line: Line) -> list[float]:
    """The probability of each choice among the four."""
    scores = np.array(line["scores"])
    likely = np.exp(scores - scores.max())
    return (likely / likely.sum()).tolist()
