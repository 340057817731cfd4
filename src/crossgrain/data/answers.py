"""The answer vocabulary of visual question answering: the answers that a model may give. No torch.

Answers are compared in the official normalisation (metrics/vqa.py), under which "Two dogs." and "2 dogs" are one.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from crossgrain.config import UserError
from crossgrain.data.progress import progress_bar
from crossgrain.data.records import Record
from crossgrain.metrics.vqa import normalise_answer

UNKNOWN = "<unk>"  # what VL-BERT's file of answers calls all others: a place that no answer has
_EVERY = 1000  # records between two updates of the progress bar


class AnswerVocabulary(Mapping[str, int]):
    """Normalised answers with their places. `names` are the answers as they are given, one for each place.

    Of names that are one answer when normalised the first has its place; the others keep theirs, and are no target.
    Nor is a name of which nothing is left ("the"), as people who had no answer gave none.
    """

    def __init__(self, names: Sequence[str]):
        self.names = tuple(names)
        self._places: dict[str, int] = {}
        for place, name in enumerate(self.names):
            if name != UNKNOWN and (answer := normalise_answer(name)):
                self._places.setdefault(answer, place)

    @staticmethod
    def of(places: Mapping[str, int]) -> "AnswerVocabulary":
        """From answers with their places, which count from 0 without a gap."""
        if isinstance(places, AnswerVocabulary):
            return places
        return AnswerVocabulary(sorted(places, key=places.__getitem__))

    def __getitem__(self, answer: str) -> int:
        return self._places[answer]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def place(self, answer: str) -> int:
        """The place of an answer as somebody wrote it; -1 where it has none."""
        return self._places.get(normalise_answer(answer), -1)

    def save(self, path: Path) -> None:
        """One answer a line, in the order of the places; the file appears whole."""
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text("".join(f"{name}\n" for name in self.names), encoding="utf-8")
        partial.replace(path)


def build_answers(
    data: Sequence[Sequence[Record]],
    min_count: int = 9,
    max_answers: int | None = None,
    console: Console | None = None,
) -> AnswerVocabulary:
    """The answers that are the most frequent one of at least `min_count` questions, the most frequent ones first.

    In VQA v2, 9 questions of train and val together leave the 3,129 answers that most systems are trained on
    (github.com/hengyuan-hu/bottom-up-attention-vqa, tools/compute_softscore.py:108-121). Of answers that people gave
    equally often the first mentioned counts. Open shards with `images=False`. UserError where no answer is left.
    """
    seen: dict[str, str] = {}  # people write the same answers again and again
    counts: Counter[str] = Counter()
    with progress_bar(console) as progress:
        task = progress.add_task("count answers", total=sum(map(len, data)), rate="")
        number = 0
        for number, record in enumerate((record for records in data for record in records), start=1):
            for question in record.extra.get("questions", ()):
                given = (answer for answer in question.get("answers") or () if answer)  # of those who had one
                if votes := Counter(_normalised(answer, seen) for answer in given):
                    counts[max(votes, key=votes.__getitem__)] += 1
            if number % _EVERY == 0:
                progress.update(task, completed=number)
        progress.update(task, completed=number)
    counts.pop("", None)  # "the" alone is no answer
    if not counts:
        raise UserError("no answers to choose from: the data have no questions with answers")
    kept = sorted((answer for answer, count in counts.items() if count >= min_count), key=lambda a: (-counts[a], a))
    if not kept:
        most = max(counts.values())
        raise UserError(f"no answer is the most frequent one of {min_count} questions: the best one is of {most}")
    return AnswerVocabulary(kept[:max_answers])


def load_answers(path: Path) -> AnswerVocabulary:
    """From a text file with one answer a line (ours, VL-BERT's answers_vqa.txt) or a JSON list (X-VLM's
    answer_list.json), places in the order of the file. UserError where it holds no answers."""
    if not path.is_file():
        raise UserError(f"no file of answers at {path}")
    try:
        text = path.read_text(encoding="utf-8")
        names = json.loads(text) if path.suffix == ".json" else [line.strip() for line in text.split("\n")]
    except ValueError as error:  # of the encoding, or of JSON
        raise UserError(f"{path} is no file of answers: {error}") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} is no file of answers: it holds no list of texts")
    names = [name for name in names if name]
    if not names:
        raise UserError(f"{path} holds no answer")
    return AnswerVocabulary(names)


def _normalised(answer: str, seen: dict[str, str]) -> str:
    if answer not in seen:
        seen[answer] = normalise_answer(answer)
    return seen[answer]
