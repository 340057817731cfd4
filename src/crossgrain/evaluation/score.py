"""Scores from predictions.jsonl alone: no metric needs the model again."""

import json
from pathlib import Path
from typing import Any

from crossgrain.config import UserError, find_class
from crossgrain.documents.writing import write_whole
from crossgrain.tasks.interface import TASKS, Line

Groups = dict[str, dict[str, list[Line]]]  # split -> task -> lines


def read_predictions(path: Path) -> Groups:
    """The lines of a predictions.jsonl by split and task, in the order of the file."""
    if not path.is_file():
        raise UserError(f"no predictions at {path}: run `crossgrain evaluate` first")
    groups: Groups = {}
    with path.open(encoding="utf-8") as file:
        for number, text in enumerate(file, start=1):
            try:
                line = json.loads(text)
                groups.setdefault(line["split"], {}).setdefault(line["task"], []).append(line)
            except (ValueError, KeyError, TypeError):
                raise UserError(f"{path}, line {number}: no prediction with a task and a split") from None
    if not groups:
        raise UserError(f"{path} holds no predictions")
    return groups


def score_groups(groups: Groups) -> dict[str, Any]:
    """The blocks of scores.json: those of the first split at the top, the other splits' under their names."""
    scores = [_score_tasks(tasks) for tasks in groups.values()]
    return {**scores[0], **dict(zip(list(groups)[1:], scores[1:], strict=True))}


def score_file(path: Path) -> dict[str, Any]:
    """What scores.json must hold, from predictions.jsonl."""
    return score_groups(read_predictions(path))


def write_scores(predictions: Path, path: Path) -> dict[str, Any]:
    """Score a predictions.jsonl into a scores.json."""
    scores = score_file(predictions)
    write_whole(path, [json.dumps(scores, indent=2) + "\n"])
    return scores


def _score_tasks(tasks: dict[str, list[Line]]) -> dict[str, Any]:
    unknown = sorted(set(tasks) - set(TASKS))
    if unknown:
        raise UserError(f"predictions of an unknown task {unknown[0]!r}: the tasks are {', '.join(TASKS)}")
    return {name: find_class(name, TASKS).score(lines) for name, lines in tasks.items()}
