"""Our lines to the files that evaluation servers take; official.py scores them, too.

- VQA (visualqa.org, EvalAI): results JSON, [{"question_id": int, "answer": str}, ...]
- GQA (its eval.py), whose ids are texts: JSON, [{"questionId": str, "prediction": str}, ...]
- NLVR2 (lil-lab/nlvr nlvr2/eval/metrics.py): CSV without a header, identifier and True or False
- VCR (visualcommonsense.com): CSV of 20 probabilities a question, or NPZ (N, 5, 4) of the same; see answer_files.py
- COCO captions (cocodataset.org, EvalAI): results JSON, [{"image_id": int, "caption": str}, ...]
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossgrain.config import UserError
from crossgrain.data.records import Record
from crossgrain.data.shards import Shards
from crossgrain.documents.writing import write_whole
from crossgrain.evaluation.answer_files import GQA_FIELDS, VCR_ARRAYS, VCR_BLOCKS, VCR_COLUMNS, VQA_FIELDS
from crossgrain.evaluation.score import read_predictions
from crossgrain.evaluation.truth import JUDGED, Questions, image_number
from crossgrain.metrics.vcr import NUM_CHOICES
from crossgrain.tasks.interface import Line


def write_submissions(
    predictions: Path, out: Path, any_task: bool = False, data: Path | None = None
) -> dict[Path, int | None]:
    """Write the official file of every task and split of a predictions.jsonl: OUT/TASK_SPLIT.json or .csv.

    The files, each with how many questions of `data` it leaves open (None without data): servers take whole splits.
    Tasks without an official format are left out; UserError where no task has one. With `any_task` there may be none,
    and what nobody could submit is left out as well: lines without official ids, and VCR's rationales alone.
    """
    written: dict[Path, int | None] = {}
    for split, tasks in read_predictions(predictions).items():
        for task, lines in tasks.items():
            if task in SUFFIXES and not (any_task and _cannot_be_submitted(task, lines)):
                path = out / f"{task}_{split}{SUFFIXES[task]}"
                write_submission(task, lines, path)
                written[path] = None if data is None else _left_open(task, lines, Shards(data, split, images=False))
    if not written and not any_task:
        raise UserError(f"{predictions} holds answers of no task with an official format: {', '.join(SUFFIXES)}")
    return written


def _cannot_be_submitted(task: str, lines: Sequence[Line]) -> bool:
    """Whether ids are missing, or were made up here (KEY#N), or there are rationales without their answers."""
    if task == "vcr" and not {line["id"] for line in lines} <= {
        line["id"] for line in lines if line["kind"] == "answer"
    }:
        return True
    return any("id" in line and (line["id"] is None or "#" in str(line["id"])) for line in lines)


def _left_open(task: str, lines: Sequence[Line], records: Iterable[Record]) -> int:
    """How many questions of a split have no line."""
    questions, times = Questions(JUDGED[task], records), Counter[str]()
    for line in lines:
        times.update(name for name, _ in questions.answered(line, None))
    given = {questions.named(name, number + 1) for name, count in times.items() for number in range(count)}
    return len(questions.asked.keys() - given)


def write_submission(task: str, lines: Sequence[Line], path: Path) -> None:
    """Write the official file of one task. VCR's is NPZ where the path ends in ".npz", else CSV."""
    if task not in SUFFIXES:
        raise UserError(f"{task} has no official format: choose from {', '.join(SUFFIXES)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if task == "vcr" and path.suffix == ".npz":
        names, probabilities = vcr_probabilities(lines)
        partial = path.with_name(f".{path.name}")
        np.savez_compressed(partial, **dict(zip(VCR_ARRAYS, (names, probabilities), strict=True)))
        partial.replace(path)
    else:
        write_whole(path, [_WRITERS[task](lines)])


def _vqa_results(lines: Sequence[Line]) -> str:
    nameless = next((line for line in lines if line["id"] is None), None)
    if nameless is not None:
        raise UserError(f"the question {nameless['question']!r} of {nameless['key']} has no official id")
    name, answer = GQA_FIELDS if all(isinstance(line["id"], str) for line in lines) else VQA_FIELDS
    return _json({name: line["id"], answer: line["answer"]} for line in lines)


def _caption_results(lines: Sequence[Line]) -> str:
    """An image is named by the number that its key ends in, as COCO's are; by its key where two share the number."""
    times = Counter(image_number(line["key"]) for line in lines)

    def name(key: str) -> int | str:
        number = image_number(key)
        return key if number is None or times[number] > 1 else number

    return _json({"image_id": name(line["key"]), "caption": line["caption"]} for line in lines)


def _nlvr2_predictions(lines: Sequence[Line]) -> str:
    return _csv([[line["id"], str(bool(line["answer"]))] for line in lines])


def _vcr_table(lines: Sequence[Line]) -> str:
    names, probabilities = vcr_probabilities(lines)
    rows = [
        [name, *("" if np.isnan(value) else f"{value:.8g}" for value in blocks.ravel())]
        for name, blocks in zip(names.tolist(), probabilities, strict=True)
    ]
    return _csv([VCR_COLUMNS, *rows])


def vcr_probabilities(lines: Sequence[Line]) -> tuple[np.ndarray, np.ndarray]:
    """The ids (N,) of the questions and their probabilities (N, 5, 4): of the answers, then of the rationales for each.

    NaN, or an empty cell, where nothing was asked: where the right answer is known, the evaluation reads the rationales
    for that one alone. UserError where no answers were asked.
    """
    blocks: dict[str, np.ndarray] = {}
    for line in lines:
        if line["kind"] == "rationale" and line.get("given") is None:
            raise UserError(f"the rationale of {line['id']} does not say which answer it was asked for (given)")
        block = 0 if line["kind"] == "answer" else 1 + line["given"]
        table = blocks.setdefault(line["id"], np.full((len(VCR_BLOCKS), NUM_CHOICES), np.nan))
        scores = np.asarray(line["scores"], dtype=np.float64)
        likely = np.exp(scores - scores.max())
        table[block] = likely / likely.sum()
    bare = next((name for name, table in blocks.items() if np.isnan(table[0]).any()), None)
    if bare is not None:
        raise UserError(f"no answer to {bare}: the leaderboard needs answers and rationales (kinds: both)")
    return np.array(list(blocks)), np.stack(list(blocks.values()))


def _json(entries: Any) -> str:
    return "[" + ",\n ".join(json.dumps(entry, ensure_ascii=False) for entry in entries) + "]\n"


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


SUFFIXES = {"vqa": ".json", "nlvr2": ".csv", "vcr": ".csv", "captioning": ".json"}
_WRITERS: Mapping[str, Callable[[Sequence[Line]], str]] = {
    "vqa": _vqa_results,
    "nlvr2": _nlvr2_predictions,
    "vcr": _vcr_table,
    "captioning": _caption_results,
}
