"""VQA: questions with their pictures, what was answered and what people said, and which answers are confused."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from crossgrain.documents.markup import Html, Table, join, plain, tag
from crossgrain.evaluation.examples.selection import Section, cards, one_per_picture, percent, spread, verdict
from crossgrain.evaluation.pictures import Pictures
from crossgrain.metrics.vqa import normalise_answer, vqa_accuracy
from crossgrain.tasks.interface import Line

NUM_QUESTIONS = 12
NUM_TYPES = 8  # that confusions are told of: those with the most questions
NUM_CONFUSIONS = 3  # of each type
ENOUGH = 0.5  # an answer counts as right from this accuracy on: two of ten people said it


class _Confusion(NamedTuple):
    """An answer in the place of the one that most people gave."""

    kind: str | None
    truth: str
    answer: str


def vqa_sections(lines: Sequence[Line], pictures: Pictures) -> Iterator[Section]:
    """Questions with their answers, and the mistakes that were made with most confidence."""
    note = "Questions at equal distances through the split; the share is the answer's probability."
    shown = spread(lines, NUM_QUESTIONS)
    yield "Questions and answers", note, cards(_figure(line, pictures) for line in shown)
    if worst := _worst(lines):
        note = "The wrong answers with the highest probability, at most one per picture."
        yield "Worst mistakes: VQA", note, cards(_figure(line, pictures) for line in worst)


def vqa_mistakes(lines: Sequence[Line]) -> list[str]:
    """The wrong answers with the highest probability, in Markdown."""
    return [
        f"“{plain(line['question'])}” of {plain(line['key'])}: {plain(line['answer'])} ({percent(line['score'])}), "
        f"people said {plain(_said(line))}"
        for line in _worst(lines)
    ]


def confusion_table(lines: Sequence[Line]) -> Table | None:
    """The most frequent wrong answers of each type of question; None where no answer is known to be wrong.

    A row tells how often an answer was given where most people gave another one, and of how many questions of the type.
    """
    types: Counter[str | None] = Counter()
    asked: Counter[tuple[str | None, str]] = Counter()
    confused: Counter[_Confusion] = Counter()
    for line in lines:
        if not line["answers"]:
            continue
        kind, truth = line["type"], _most_said(line)[0][0]
        types[kind] += 1
        asked[kind, truth] += 1
        if not _right(line):
            confused[_Confusion(kind, truth, _plainest(line["answer"]))] += 1
    rows = []
    for kind, _ in types.most_common(NUM_TYPES):
        frequent = [(one, times) for one, times in confused.most_common() if one.kind == kind]
        for one, times in frequent[:NUM_CONFUSIONS]:
            title = f"“{one.answer}” for “{one.truth}”"
            rows.append([title if kind is None else f"{kind}: {title}", str(times), str(asked[kind, one.truth])])
    return Table(["", "times", "of questions"], rows) if rows else None


def _figure(line: Line, pictures: Pictures) -> Html:
    told = [tag("b", line["question"]), tag("small", line["type"]) if line["type"] else ""]
    answer = join([verdict(line["answer"], _right(line)), f" · {percent(line['score'])}"])
    people = [tag("div", f"people: {_said(line)}")] if line["answers"] else []
    return pictures.figure(line["key"], join([*told, tag("div", answer, class_="answer"), *people]))


def _right(line: Line) -> bool | None:
    return vqa_accuracy(line["answer"], line["answers"]) >= ENOUGH if line["answers"] else None


def _worst(lines: Sequence[Line]) -> list[Line]:
    wrong = (line for line in lines if _right(line) is False)
    return one_per_picture(sorted(wrong, key=lambda line: -line["score"]))


def _most_said(line: Line) -> list[tuple[str, int]]:
    """What people answered and how many of them, the most frequent first."""
    return Counter(map(_plainest, line["answers"])).most_common()


def _plainest(answer: str) -> str:
    """Normalised, where anything is left then: "a" alone is an article."""
    return normalise_answer(answer) or answer


def _said(line: Line) -> str:
    if len(line["answers"]) == 1:
        return line["answers"][0]
    return ", ".join(f"{answer or 'nothing'} ({times})" for answer, times in _most_said(line))
