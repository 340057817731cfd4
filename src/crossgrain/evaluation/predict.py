"""Ask a trained model about the splits of a data set: predictions.jsonl, one line per question."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from crossgrain.config import UserError, config_owner, find_class
from crossgrain.data.records import Record
from crossgrain.data.regions import has_regions
from crossgrain.data.shards import Shards
from crossgrain.documents.writing import write_whole
from crossgrain.evaluation.score import PREDICTIONS, write_scores
from crossgrain.tasks.interface import TASKS, Line, Task, Track, Trained
from crossgrain.tasks.plan import Evaluation


def evaluate(
    trained: Trained, data: Path, plan: Evaluation, folder: Path, console: Console | None = None
) -> dict[str, Any]:
    """Write predictions.jsonl and scores.json into `folder`, and return the scores.

    A task is left out where its head was not trained or the data ask nothing of it; UserError where none is left, or
    where the data do not have the first split.
    """
    splits = existing_splits(data, plan.splits)
    tasks: list[Task] = [config_owner(config)(config, trained.answers) for config in plan.tasks]
    # A task may stand there twice, such as grounding by two methods.
    missing = [task.missing(trained) for task in tasks]
    asked = [task for task, what in zip(tasks, missing, strict=True) if what is None]
    if not asked:
        told = (f"{task.name} needs {what}" for task, what in zip(tasks, missing, strict=True))
        raise UserError("nothing to evaluate: " + "; ".join(told))
    folder.mkdir(parents=True, exist_ok=True)
    with _progress(console) as progress:
        tracker = partial(_tracker, progress, console)
        lines = _predict(trained, data, splits, asked, plan.limit_of, tracker)
        first = next(lines, None)  # before a file is opened: one of earlier predictions stays where there is nothing
        if first is None:
            names = ", ".join(task.name for task in asked)
            raise UserError(f"nothing to evaluate: the records of {', '.join(splits)} in {data} ask nothing of {names}")
        told = (json.dumps(line, ensure_ascii=False) + "\n" for line in chain([first], lines))
        write_whole(folder / PREDICTIONS, told)
    return write_scores(folder)


def narrowed(plan: Evaluation, task: str | None, split: str | None) -> Evaluation:
    """The plan with one task or one split only, where these are given."""
    if task is not None:
        named = tuple(config for config in plan.tasks if config_owner(config).name == task)
        plan = replace(plan, tasks=named or (find_class(task, TASKS).Config(),))
    return plan if split is None else replace(plan, splits=(split,), limits={})


def existing_splits(data: Path, wanted: Sequence[str]) -> list[str]:
    """The wanted splits that the data have; the first one must be among them."""
    known = Shards(data).split_names()
    if wanted[0] not in known:
        names = ", ".join(f"{name} ({count})" for name, count in known.items())
        raise UserError(f"{data} has no split {wanted[0]!r} to evaluate on: choose evaluation.splits from {names}")
    return [name for name in wanted if name in known]


def _predict(
    trained: Trained,
    data: Path,
    splits: Sequence[str],
    tasks: Sequence[Task],
    limit_of: Callable[[str], int | None],
    tracker: Callable[[str], Track],
) -> Iterator[Line]:
    for split in splits:
        reads = trained.model.reads
        wanted = any(task.ranks_detected for task in tasks) and has_regions(data)
        records = Shards(data, split, regions=reads != "pixels" or wanted, images=reads != "regions")
        for task in tasks:
            track = tracker(f"{task.name}, {split}")
            for line in task.predict(trained, _First(records, limit_of(split) or len(records)), track):
                yield {"task": task.name, "split": split, **line}


class _First(Sequence[Record]):
    """The first records of a split, still read one at a time."""

    def __init__(self, records: Shards, count: int):
        self.records = self.whole = records  # the partner of a picture may be beyond the first ones
        self._length = min(count, len(records))

    def __len__(self) -> int:
        return self._length

    def texts(self, index: int) -> Record:
        """A record without its image."""
        return self.records.texts(range(self._length)[index])

    def __getitem__(self, index: int) -> Record:  # pyright: ignore[reportIncompatibleMethodOverride] - no slices
        return self.records[range(self._length)[index]]


def _progress(console: Console | None) -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console, disable=console is None or not console.is_terminal)


def _tracker(progress: Progress, console: Console | None, title: str) -> Track:
    """Shows a task's way through its batches: a bar on a terminal, elsewhere one line for each stage of it."""

    def track(items: Sequence[Any], description: str) -> Iterable[Any]:
        if console and not console.is_terminal:
            console.print(f"{title}: {description}, {len(items)} batches", highlight=False, markup=False)
        return progress.track(items, total=len(items), description=f"{title}: {description}")

    return track
