"""Scores from predictions.jsonl alone: no metric needs the model again."""

import json
from pathlib import Path
from typing import Any

from crossgrain.config import UserError, find_class
from crossgrain.documents.writing import write_whole
from crossgrain.tasks.interface import TASKS, Line

PREDICTIONS, SCORES = "predictions.jsonl", "scores.json"
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


def score_file(path: Path) -> dict[str, Any]:
    """What scores.json must hold, from predictions.jsonl: the blocks of the first split at the top, those of the other
    splits under their names."""
    first, *others = ((split, _score_tasks(tasks)) for split, tasks in read_predictions(path).items())
    return {**first[1], **dict(others)}


def write_scores(folder: Path) -> dict[str, Any]:
    """Score the predictions.jsonl of a folder into its scores.json."""
    scores = score_file(folder / PREDICTIONS)
    write_whole(folder / SCORES, [json.dumps(scores, indent=2) + "\n"])
    return scores


def read_scores(folder: Path) -> dict[str, dict[str, Any]]:
    """The blocks of a folder's scores.json by split; the first split is that of the first prediction."""
    with (folder / PREDICTIONS).open(encoding="utf-8") as file:
        first = json.loads(next(file))["split"]
    scores = json.loads((folder / SCORES).read_text(encoding="utf-8"))
    others = {name: blocks for name, blocks in scores.items() if name not in TASKS}
    return {first: {name: block for name, block in scores.items() if name in TASKS}, **others}


def _score_tasks(tasks: dict[str, list[Line]]) -> dict[str, Any]:
    unknown = sorted(set(tasks) - set(TASKS))
    if unknown:
        raise UserError(f"predictions of an unknown task {unknown[0]!r}: the tasks are {', '.join(TASKS)}")
    return {name: find_class(name, TASKS).score(lines) for name, lines in tasks.items()}
