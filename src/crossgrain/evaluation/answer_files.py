"""Files of answers, in our lines or in the formats of evaluation servers, to answers with their places.

What is wrong with a file is a UserError that names file, line and rule.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from zipfile import BadZipFile

import numpy as np

from crossgrain.config import UserError
from crossgrain.data.records import Dropped
from crossgrain.data.sets.annotations import JsonElements, read_json_lines, read_table
from crossgrain.metrics.vcr import NUM_CHOICES
from crossgrain.tasks.interface import TASKS

# The leaderboard's columns: what is asked, then four probabilities each (rowanz/r2c models/eval_for_leaderboard.py).
VCR_BLOCKS = ("answer", *(f"rationale_conditioned_on_a{given}" for given in range(NUM_CHOICES)))
VCR_COLUMNS = ("annot_id", *(f"{block}_{choice}" for block in VCR_BLOCKS for choice in range(NUM_CHOICES)))
VCR_ARRAYS = ("annot_id", "probabilities")  # (N,) text and (N, 5, 4) numbers, blocks in the order of the columns
VQA_FIELDS, GQA_FIELDS = ("question_id", "answer"), ("questionId", "prediction")
NLVR2_COLUMNS = ("identifier", "prediction")
_TRUTH_VALUES = {"true": True, "false": False}
_FORMATS = (
    "our predictions.jsonl, VQA, GQA or COCO caption results in JSON, NLVR2 in CSV or JSON lines, "
    "or VCR's leaderboard in CSV or NPZ"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: `where` it stands (file and line), and `values` in the words of the task's own lines.

    `official` is the id that an official file gives its question; None for our own lines, which know their `split`.
    The values of VCR's official files are {"blocks": five times four numbers, NaN where there is none}.
    """

    file: Path
    where: str
    task: str
    values: Mapping[str, Any]
    official: str | None = None
    split: str | None = None


def read_answers(path: Path) -> Iterator[Answer]:
    """The answers of a file, whose format is told by what stands in it."""
    if not path.is_file():
        raise UserError(f"no predictions at {path}")
    with path.open("rb") as file:
        start = file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n")
    if not start:
        raise UserError(f"{path} is empty: expected {_FORMATS}")
    if start.startswith(b"PK\x03\x04"):
        return _vcr_arrays(path)
    if start.startswith(b"["):
        return (_answer(path, element.where, element.value) for element in JsonElements(path))
    if start.startswith(b"{"):
        return _json_lines(path)
    return _table(path)


def _json_lines(path: Path) -> Iterator[Answer]:
    for line in read_json_lines(path):
        if isinstance(line, Dropped):
            raise UserError(f"{line.where}: {line.reason}: {line.detail}")
        yield _answer(path, *line)


def _answer(path: Path, where: str, values: Any) -> Answer:
    """An answer in JSON: ours where it names task and split, else by the fields that it has."""
    if not isinstance(values, dict):
        _refuse(where, f"a {type(values).__name__}, not an object")
    if isinstance(values.get("task"), str) and isinstance(values.get("split"), str):
        if values["task"] not in TASKS:
            _refuse(where, f"unknown task {values['task']!r}: choose from {', '.join(TASKS)}")
        return Answer(path, where, values["task"], values, split=values["split"])
    for fields, (task, convert) in _OFFICIAL.items():
        if all(name in values for name in fields):
            name = values[fields[0]]
            if isinstance(name, bool) or not isinstance(name, int | str):
                _refuse(where, f"{fields[0]} {name!r} is no id")
            return Answer(path, where, task, convert(where, values), official=str(name))
    _refuse(where, f"no answer in a known form: expected {_FORMATS}")


def _judgement(where: str, prediction: Any) -> dict[str, bool]:
    truth = _TRUTH_VALUES.get(str(prediction).strip().lower())
    if truth is None:
        _refuse(where, f"prediction {prediction!r} is neither True nor False")
    return {"answer": truth}


_OFFICIAL: dict[tuple[str, str], tuple[str, Callable[[str, Mapping[str, Any]], Mapping[str, Any]]]] = {
    VQA_FIELDS: ("vqa", lambda _, values: {"answer": values["answer"]}),
    GQA_FIELDS: ("vqa", lambda _, values: {"answer": values["prediction"]}),
    ("image_id", "caption"): ("captioning", lambda _, values: {"caption": values["caption"]}),
    NLVR2_COLUMNS: ("nlvr2", lambda where, values: _judgement(where, values["prediction"])),
}


def _table(path: Path) -> Iterator[Answer]:
    rows = ((f"{path.name}:{number}", row) for number, row in read_table(path, ","))
    first = next(rows, None)
    assert first is not None  # the file is not empty
    where, header = first
    if header and header[0].strip() == VCR_COLUMNS[0]:
        yield from _vcr_rows(path, where, header, rows)
        return
    if header is None or tuple(name.strip().lower() for name in header) != NLVR2_COLUMNS:
        yield _nlvr2_row(path, where, header)
    for where, row in rows:
        yield _nlvr2_row(path, where, row)


def _nlvr2_row(path: Path, where: str, row: list[str] | None) -> Answer:
    if row is None or len(row) != len(NLVR2_COLUMNS):
        _refuse(where, f"{row!r} is no line identifier,prediction; nor is the file in another form: {_FORMATS}")
    return Answer(path, where, "nlvr2", _judgement(where, row[1]), official=row[0].strip())


def _vcr_rows(
    path: Path, where: str, header: Sequence[str], rows: Iterator[tuple[str, list[str] | None]]
) -> Iterator[Answer]:
    columns = [name.strip() for name in header]
    missing = [name for name in VCR_COLUMNS if name not in columns]
    if missing:
        _refuse(where, f"the leaderboard's column {missing[0]} is missing")
    places = [columns.index(name) for name in VCR_COLUMNS]
    for where, row in rows:
        if row is None or len(row) != len(columns):
            _refuse(where, f"{len(row or ())} values in place of {len(columns)}")
        name, *cells = (row[place].strip() for place in places)
        try:
            numbers = np.array([float(cell) if cell else np.nan for cell in cells])
        except ValueError as error:
            _refuse(where, str(error))
        yield _vcr_answer(path, where, name, numbers)


def _vcr_arrays(path: Path) -> Iterator[Answer]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names, numbers = (arrays[name] for name in VCR_ARRAYS)
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise UserError(f"{path} is no NPZ of {' and '.join(VCR_ARRAYS)}: {error}") from None
    shape = len(names), len(VCR_BLOCKS), NUM_CHOICES
    if names.ndim != 1 or numbers.shape != shape or not np.issubdtype(numbers.dtype, np.number):
        raise UserError(f"{path}: probabilities have the shape {numbers.shape}, not {shape}, or are no numbers")
    for row, (name, values) in enumerate(zip(names, numbers, strict=True)):
        yield _vcr_answer(path, f"{path.name} [{row}]", str(name), values)


def _vcr_answer(path: Path, where: str, name: str, numbers: np.ndarray) -> Answer:
    blocks = numbers.reshape(len(VCR_BLOCKS), NUM_CHOICES).astype(float)
    return Answer(path, where, "vcr", {"blocks": blocks.tolist()}, official=name)


def _refuse(where: str, rule: str) -> NoReturn:
    raise UserError(f"{where}: {rule}")
