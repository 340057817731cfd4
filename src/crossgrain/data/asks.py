"""What a task puts to a model, in token ids: shared by training and prediction. No torch.

A record keeps the material of every task in `extra`, under the keys of `MATERIAL`; data/scenes/record.py says what
stands there, and the readers of official data sets write the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from crossgrain.data.records import Box, Record
from crossgrain.data.regions import RegionFeatures
from crossgrain.data.text import TextConfig, Tokenizer, clean_question

Material = Literal["questions", "pairs", "choices", "expressions"]
MATERIAL: tuple[Material, ...] = ("questions", "pairs", "choices", "expressions")
Kinds = Literal["answer", "rationale", "both"]  # of VCR's two questions: Q -> A, QA -> R
Token = str | Sequence[int]  # a word, or the objects that a tag names

TAGGED_OVERLAP = 0.5  # a tag's box and a detected region are the same thing from this IoU on


class Words(NamedTuple):
    """A text in token ids, with the segment of each token (None: 0) and the region it speaks about (None: none)."""

    ids: list[int]
    segments: list[int] | None = None
    tags: list[int] | None = None


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the texts of a task are read; a task says what differs from these values for its model."""

    tokenizer: Tokenizer
    text: TextConfig
    answers: Mapping[str, int] | None = None  # the answer vocabulary: normalised answer to place
    max_answers: int = 10  # different answers of a question that training keeps
    max_answer_tokens: int = 8
    answer_slot: bool = False  # a question is followed by [MASK] [SEP], where its answer is read (VL-BERT)
    segments: bool = False  # question and answer are segments 0 and 1
    tags: bool = False  # words that name objects take the features of their regions
    kinds: Kinds = "answer"
    num_references: int = 0  # captions of its image that every row of captions brings along


def question_words(text: str, reading: Reading) -> Words:
    """[CLS] question, with [SEP] as the recipe says; or [CLS] question [SEP] [MASK] [SEP] with an answer slot."""
    tokenizer, config = reading.tokenizer, reading.text
    text = clean_question(text, config.max_tokens) if config.clean else text
    if not reading.answer_slot:
        return Words(tokenizer.encode(text, config.max_tokens, config.end_token))
    room = config.max_tokens - 2
    question = tokenizer.encode(text, room, True)
    slot = [tokenizer.mask, tokenizer.sep]
    return Words([*question, *slot], [0] * len(question) + [1] * len(slot))


def answer_words(text: str, reading: Reading) -> list[int]:
    """[CLS] answer [SEP]."""
    return reading.tokenizer.encode(text, reading.max_answer_tokens, True)


def choice_words(
    context: Sequence[Token], choice: Sequence[Token], names: Sequence[str], rows: Sequence[int], reading: Reading
) -> Words:
    """[CLS] context [SEP] choice [SEP]. A tag becomes the name of its object.

    `names` and `rows` give the name of every object of the record, and the region that shows it (-1: none). Where the
    two parts are too long, the longer one loses its end.
    """
    first, second = (_named(tokens, names, rows, reading.tokenizer) for tokens in (context, choice))
    room = reading.text.max_tokens - 3
    while len(first) + len(second) > room:
        (first if len(first) > len(second) else second).pop()
    cls, sep = (reading.tokenizer.cls, -1), (reading.tokenizer.sep, -1)
    told = [cls, *first, sep, *second, sep]
    segments = [0] * (len(first) + 2) + [1] * (len(second) + 1)
    tags = [tag for _, tag in told] if reading.tags else None
    return Words([token for token, _ in told], segments if reading.segments else None, tags)


def choice_text(tokens: Sequence[Token], names: Sequence[str]) -> str:
    """The same for people: an object by its name and number, counted from 1."""
    return " ".join(
        token if isinstance(token, str) else " and ".join(f"{_name(names, i)}{i + 1}" for i in token)
        for token in tokens
    )


def choice_items(record: Record, kinds: Kinds) -> list[tuple[int, str, Sequence[Token], Sequence[Any], int | None]]:
    """VCR's questions of a record: (number of the item, kind, context, four choices, label or None).

    For a rationale, the context is the question with its right answer; without a label, there is none to give.
    """
    found = []
    for number, item in enumerate(record.extra.get("choices", ())):
        label = item.get("answer_label")
        if kinds != "rationale":
            found.append((number, "answer", item["question"], item["answer_choices"], label))
        if kinds != "answer" and label is not None:
            context = [*item["question"], *item["answer_choices"][label]]
            found.append((number, "rationale", context, item["rationale_choices"], item.get("rationale_label")))
    return found


def object_rows(record: Record, detected: RegionFeatures | None, first: int) -> list[int]:
    """For each object of the record the row of the region that shows it: the one with the highest IoU, -1 below 0.5.

    `first` is the row of the first detected region (1 where the whole image comes before them).
    """
    if detected is None or not len(detected) or not record.regions:
        return [-1] * len(record.regions)
    overlap = overlaps(np.array([region.box for region in record.regions]), detected.boxes)
    best = overlap.argmax(1)
    there = overlap[np.arange(len(best)), best] >= TAGGED_OVERLAP
    return [int(row) + first if found else -1 for row, found in zip(best, there, strict=True)]


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of all pairs of boxes (A, 4) and (B, 4): (A, B)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clip(min=0).prod(-1)
    areas = (a[:, 2:] - a[:, :2]).prod(-1)[:, None] + (b[:, 2:] - b[:, :2]).prod(-1)[None]
    return shared / np.maximum(areas - shared, 1e-12)


def named_boxes(record: Record) -> list[tuple[str, Box]]:
    """The referring expressions of a record with their boxes."""
    return [(asked["text"], record.regions[asked["index"]].box) for asked in record.extra.get("expressions", ())]


def _named(
    tokens: Sequence[Token], names: Sequence[str], rows: Sequence[int], tokenizer: Tokenizer
) -> list[tuple[int, int]]:
    """Pieces of the words, each with the region it speaks about. An object without a name is "person" in VCR's way."""
    told: list[tuple[int, int]] = []
    words: list[str] = []

    def flush() -> None:
        told.extend((piece, -1) for piece in tokenizer.split(" ".join(words)))
        words.clear()

    for token in tokens:
        if isinstance(token, str):
            words.append(token)
            continue
        flush()
        for place, index in enumerate(token):
            if place:
                told.extend((piece, -1) for piece in tokenizer.split("and"))
            row = rows[index] if index < len(rows) else -1
            told.extend((piece, row) for piece in tokenizer.split(_name(names, index)))
    flush()
    return told


def _name(names: Sequence[str], index: int) -> str:
    return names[index] if index < len(names) and names[index] else "object"
