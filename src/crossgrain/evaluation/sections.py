"""What the report shows of single answers, for every task that has something to show."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from crossgrain.documents.markup import Table
from crossgrain.evaluation.examples.captioning import captioning_mistakes, captioning_sections
from crossgrain.evaluation.examples.grounding import grounding_mistakes, grounding_sections
from crossgrain.evaluation.examples.nlvr2 import nlvr2_mistakes, nlvr2_sections
from crossgrain.evaluation.examples.retrieval import retrieval_mistakes, retrieval_sections
from crossgrain.evaluation.examples.selection import Section
from crossgrain.evaluation.examples.vcr import vcr_mistakes, vcr_sections
from crossgrain.evaluation.examples.vqa import confusion_table, vqa_mistakes, vqa_sections
from crossgrain.evaluation.heatmaps import heat_map_sections
from crossgrain.evaluation.pictures import Pictures
from crossgrain.tasks.interface import Line

Tasks = Mapping[str, Sequence[Line]]  # the lines of one split by task


class _Shown(NamedTuple):
    """How a task is shown: sections with pictures, and its worst mistakes in Markdown."""

    sections: Sequence[Callable[[Sequence[Line], Pictures], Iterator[Section]]]
    mistakes: Callable[[Sequence[Line]], list[str]]


TASKS_SHOWN = {
    "retrieval": _Shown([retrieval_sections], retrieval_mistakes),
    "vqa": _Shown([vqa_sections], vqa_mistakes),
    "nlvr2": _Shown([nlvr2_sections], nlvr2_mistakes),
    "vcr": _Shown([vcr_sections], vcr_mistakes),
    "grounding": _Shown([grounding_sections, heat_map_sections], grounding_mistakes),
    "captioning": _Shown([captioning_sections], captioning_mistakes),
}


def task_sections(tasks: Tasks, pictures: Pictures) -> Iterator[Section]:
    """Examples and worst mistakes of every task, with pictures."""
    for name, shown in TASKS_SHOWN.items():
        if name in tasks:
            for make in shown.sections:
                yield from make(tasks[name], pictures)


def mistakes_text(tasks: Tasks) -> list[str]:
    """The worst mistakes of every task as lines of Markdown."""
    return [line for name, shown in TASKS_SHOWN.items() if name in tasks for line in shown.mistakes(tasks[name])]


def answer_tables(tasks: Tasks) -> dict[str, tuple[Table, str]]:
    """Tables of what was answered, which no score holds: title, table and the note under it."""
    table = confusion_table(tasks["vqa"]) if "vqa" in tasks else None
    note = (
        "The most frequent wrong answers to each type of question: what was said for what most people say, how often, "
    )
    note += "and of how many questions with that right answer."
    return {} if table is None else {"VQA: what is confused": (table, note)}
