"""NLVR2: a statement with each of its pairs of pictures and the verdicts on them."""

from collections.abc import Iterator, Sequence

from crossgrain.documents.markup import Html, join, plain, tag
from crossgrain.evaluation.examples.selection import Section, grouped, one_per_picture, percent, spread, verdict
from crossgrain.evaluation.pictures import Pictures
from crossgrain.tasks.interface import Line
from crossgrain.tasks.nlvr2 import statement_key

NUM_STATEMENTS = 6


def nlvr2_sections(lines: Sequence[Line], pictures: Pictures) -> Iterator[Section]:
    """Statements with all their pairs, and the mistakes that were made with most confidence."""
    note = (
        "Statements at equal distances through the split, with every pair of pictures that they are said of. One is "
        "judged consistently where the verdicts on all its pairs are right."
    )
    shown = spread(grouped(lines, statement_key), NUM_STATEMENTS)
    yield "Statements about two pictures", note, join(_statement(pairs, pictures) for pairs in shown)
    if worst := _worst(lines):
        note = "The wrong verdicts with the highest probability, at most one per first picture."
        said = (tag("div", tag("p", f"“{line['statement']}”"), _twins(line, pictures)) for line in worst)
        yield "Worst mistakes: NLVR2", note, tag("div", *said, class_="twins")


def nlvr2_mistakes(lines: Sequence[Line]) -> list[str]:
    """The wrong verdicts with the highest probability, in Markdown."""
    return [
        f"“{plain(line['statement'])}” of {plain(line['key'])} and {plain(line['partner'])}: "
        f"{_word(line['answer'])} ({percent(_certainty(line))}), it is {_word(line['label'])}"
        for line in _worst(lines)
    ]


def _statement(lines: Sequence[Line], pictures: Pictures) -> Html:
    known = [line for line in lines if line["label"] is not None]
    told = ""
    if len(known) > 1:
        right = sum(line["answer"] == line["label"] for line in known)
        told = f"{right} of {len(known)} right: {'consistent' if right == len(known) else 'not consistent'}"
    heading = tag("p", f"“{lines[0]['statement']}” ", tag("small", told))
    return tag("div", heading, tag("div", *(_twins(line, pictures) for line in lines), class_="twins"), class_="query")


def _twins(line: Line, pictures: Pictures) -> Html:
    """The two pictures side by side over the verdict on them."""
    right = None if line["label"] is None else line["answer"] == line["label"]
    truth = f", it is {_word(line['label'])}" if right is False else ""
    said = tag("div", verdict(_word(line["answer"]), right), f" · {percent(_certainty(line))}{truth}", class_="answer")
    both = tag("div", pictures.figure(line["key"]), pictures.figure(line["partner"]), class_="two")
    return tag("div", both, said)


def _worst(lines: Sequence[Line]) -> list[Line]:
    wrong = (line for line in lines if line["label"] is not None and line["answer"] != line["label"])
    return one_per_picture(sorted(wrong, key=lambda line: -_certainty(line)))


def _certainty(line: Line) -> float:
    """The probability of what was answered."""
    return line["probability"] if line["answer"] else 1 - line["probability"]


def _word(truth: bool | None) -> str:
    return "true" if truth else "false"
