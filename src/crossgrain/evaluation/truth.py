"""What a data set asks of every task, and what it says is right: the questions of a record under their names."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from crossgrain.data.records import Record
from crossgrain.metrics.vcr import NUM_CHOICES
from crossgrain.tasks.grounding import phrases
from crossgrain.tasks.interface import Line

Values = Mapping[str, Any]
Question = tuple[str, Line]  # its name, and what a line of the task says of it, but the answer
Part = tuple[str, Values]  # the name of a question, and what is answered


class UnusableError(ValueError):
    """The rule that an answer breaks."""


def _itself(name: str, values: Values, asked: Mapping[str, Line]) -> list[Part]:
    return [(name, values)]


@dataclass(frozen=True)
class Judged:
    """How the data judge the answers of a task.

    `questions` are those of a record; a question has a truth where the value of its line under `truth` is neither None
    nor empty. `name` is that of the question which a line of ours answers, and `parts` are the questions of the data
    that an answer under this name, or under the id of an official file, is for. `answer` checks an answer and gives
    what it adds to the line of its question; it raises UnusableError. `text` is the field by which a question is found
    together with its record's key, where an answer does not tell its id.
    """

    questions: Callable[[Record], Iterable[Question]]
    truth: str
    name: Callable[[Values], str]
    answer: Callable[[Values], Line]
    parts: Callable[[str, Values, Mapping[str, Line]], Sequence[Part]] = _itself
    text: str | None = None


class Questions:
    """The questions of a split by name, in the order of the data; equal names are told apart by `numbered`."""

    def __init__(self, judged: Judged, records: Iterable[Record]):
        self.judged = judged
        self.asked: dict[str, Line] = {}
        self._keys: dict[int, str | None] = {}  # of records by the number that they end in, None of several
        self._by_text: dict[str, list[str]] = {}
        times: Counter[str] = Counter()
        for record in records:
            for name, line in judged.questions(record):
                times[name] += 1
                unique = numbered(name, times[name])
                self.asked[unique] = line
                if judged.text and line["id"] is not None:
                    self._by_text.setdefault(f"{record.key}: {line[judged.text]}", []).append(unique)
            number = image_number(record.key)
            if number is not None:
                self._keys[number] = None if number in self._keys else record.key

    def answered(self, values: Values, official: str | None) -> Sequence[Part]:
        """The questions that an answer is for. KeyError where a line of ours lacks what names its question."""
        name = self.judged.name(values) if official is None else official
        if official is not None and name not in self.asked and name.isdecimal():
            name = self._keys.get(int(name)) or name
        return self.judged.parts(name, values, self.asked)

    def named(self, name: str, number: int) -> str:
        """The name in the data of what is answered under a name for the `number`-th time; the name itself if none."""
        unique, of_text = numbered(name, number), self._by_text.get(name, ())
        if unique in self.asked or name in self.asked:
            return unique if unique in self.asked else name
        return of_text[number - 1] if number <= len(of_text) else name

    def open(self, answered: Iterable[str]) -> list[str]:
        """The questions with a truth that are not among these."""
        done = set(answered)
        known = (name for name, line in self.asked.items() if line[self.judged.truth] not in (None, []))
        return [name for name in known if name not in done]


def numbered(name: str, number: int) -> str:
    """The name of the `number`-th question of this name: the name itself, then "NAME (2)" and so on."""
    return name if number == 1 else f"{name} ({number})"


def image_number(key: str) -> int | None:
    """The number that a record's key ends in, COCO's id of the image ("COCO_val2014_000000391895"); None without."""
    digits = key[len(key.rstrip("0123456789")) :]
    return int(digits) if digits else None


def _vqa_questions(record: Record) -> Iterator[Question]:
    for item in record.extra.get("questions", ()):
        told = {"id": item.get("id"), "question": item["question"], "type": item.get("type")}
        line = {"key": record.key, **told, "answers": item.get("answers") or None}
        yield _by_id(line, "question"), line


def _nlvr2_questions(record: Record) -> Iterator[Question]:
    for number, item in enumerate(record.extra.get("pairs", ())):
        name = f"{record.key}#{number}" if item.get("id") is None else str(item["id"])
        told = {"partner": item["partner"], "id": name, "statement": item["statement"]}
        yield name, {"key": record.key, **told, "label": item.get("label")}


def _vcr_questions(record: Record) -> Iterator[Question]:
    """The answer, and the rationale for the right answer; where nobody knows that one, for each of the four."""
    for number, item in enumerate(record.extra.get("choices", ())):
        name = f"{record.key}#{number}" if item.get("id") is None else str(item["id"])
        line, right = {"key": record.key, "id": name, "number": number}, item.get("answer_label")
        yield f"{name} (answer)", {**line, "kind": "answer", "label": right}
        rationale = {**line, "kind": "rationale", "label": item.get("rationale_label")}
        if right is not None:
            yield f"{name} (rationale)", {**rationale, "given": right}
            continue
        for given in range(NUM_CHOICES):
            yield _rationale(name, given), {**rationale, "given": given}


def _rationale(name: str, given: Any) -> str:
    return f"{name} (rationale for answer {given})"


def _vcr_parts(name: str, values: Values, asked: Mapping[str, Line]) -> list[Part]:
    """Rationales for a wrong answer are left out: nothing is asked of them."""
    if "blocks" in values:
        answer, *rationales = values["blocks"]
        named = [(given, {"scores": block}) for given, block in enumerate(rationales)]
        parts = [(f"{name} (answer)", {"scores": answer})]
    elif values["kind"] == "answer":
        return [(f"{name} (answer)", values)]
    else:
        named, parts = [(values.get("given"), values)], []
    known = asked.get(f"{name} (rationale)")
    if known is None:
        return [*parts, *((_rationale(name, given), said) for given, said in named)]
    return [*parts, *((f"{name} (rationale)", said) for given, said in named if given in (None, known["given"]))]


def _grounding_questions(record: Record) -> Iterator[Question]:
    for phrase in phrases(record):
        truth = None if phrase.box is None else [*phrase.box]
        line = {"key": record.key, "id": phrase.id, "text": phrase.text, "truth": truth}
        yield _by_id(line, "text"), line


def _captioning_questions(record: Record) -> Iterator[Question]:
    yield record.key, {"key": record.key, "references": [*record.captions]}


def _by_id(line: Values, text: str) -> str:
    return f"{line['key']}: {line[text]}" if line.get("id") is None else str(line["id"])


def _text(field: str) -> Callable[[Values], Line]:
    def answer(values: Values) -> Line:
        if not isinstance(values.get(field), str):
            raise UnusableError(f"{field} {values.get(field)!r} is no text")
        return {field: values[field]}

    return answer


def _truth_value(values: Values) -> Line:
    if not isinstance(values.get("answer"), bool):
        raise UnusableError(f"answer {values.get('answer')!r} is neither true nor false")
    return {"answer": values["answer"]}


def _four_scores(values: Values) -> Line:
    return {"scores": _numbers(values, "scores", NUM_CHOICES)}


def _box(values: Values) -> Line:
    point = {"point": _numbers(values, "point", 2)} if "point" in values else {}
    method = {"method": values["method"]} if isinstance(values.get("method"), str) else {}
    return {"box": _numbers(values, "box", 4), **point, **method}


def _numbers(values: Values, field: str, count: int) -> list[float]:
    numbers = values.get(field)
    if not isinstance(numbers, list) or len(numbers) != count or not all(map(_is_finite, numbers)):
        raise UnusableError(f"{field} {numbers!r} are not {count} numbers")
    return [float(number) for number in numbers]


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


JUDGED: dict[str, Judged] = {
    "vqa": Judged(_vqa_questions, "answers", lambda line: _by_id(line, "question"), _text("answer"), text="question"),
    "nlvr2": Judged(_nlvr2_questions, "label", lambda line: str(line["id"]), _truth_value),
    "vcr": Judged(_vcr_questions, "label", lambda line: str(line["id"]), _four_scores, _vcr_parts),
    "grounding": Judged(_grounding_questions, "truth", lambda line: _by_id(line, "text"), _box, text="text"),
    "captioning": Judged(_captioning_questions, "references", lambda line: str(line["key"]), _text("caption")),
}
