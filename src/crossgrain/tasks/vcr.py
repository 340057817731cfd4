"""Four answers to a question, and four reasons for the right answer: which one? (VCR, Zellers et al. 2019).

Every choice is read with its question beside the image, and the highest score wins (vcr_heads.py). Words that name an
object carry the feature of its region in VL-BERT; other models read its name.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from crossgrain.config import Count, configclass
from crossgrain.data.asks import Kinds, Reading, Token, Words, choice_items, choice_text, choice_words, object_rows
from crossgrain.data.pairs import detected_regions
from crossgrain.data.records import Record
from crossgrain.data.text import Tokenizer
from crossgrain.data.types import Image
from crossgrain.metrics.proportion import wilson_interval
from crossgrain.metrics.vcr import CHANCE, NUM_CHOICES, hits
from crossgrain.models.interface import VisionLanguageModel
from crossgrain.models.vlbert import VLBERT
from crossgrain.tasks.interface import Line, Task, Track, Trained, per_cent, per_cent_range, untracked
from crossgrain.tasks.vcr_heads import Choices

KINDS = {"answer": "Q->A", "rationale": "QA->R"}


class Item(NamedTuple):
    """One question with its choices."""

    number: int  # of the item in its record
    kind: str
    context: Sequence[Token]
    choices: Sequence[Sequence[Token]]
    label: int | None
    given: int | None = None  # the answer that a rationale is for


class VCR(Task):
    """Q -> A, QA -> R, and both right. A line is one question of one kind.

    {key, id, number: of the item in the record, kind: "answer" or "rationale", question, choices: four texts, scores:
    four logits, answer: the best one, label: the right one or null}; a rationale's line also says for which answer it
    was `given`: the right one, or where nobody knows it each of the four, as the leaderboard asks.
    """

    name = "vcr"
    texts = "choices"

    @configclass
    class Config:
        """`kinds` are the questions that are trained and asked. The batch sizes bound the memory."""

        kinds: Kinds = "both"
        head: Choices.Config = Choices.Config()
        images_per_batch: Count = 64
        texts_per_batch: Count = 256

    config: Config

    def head(self, model: VisionLanguageModel, tokenizer: Tokenizer) -> nn.Module:
        return Choices(self.config.head, model)

    def reading(self, model: VisionLanguageModel) -> dict[str, Any]:
        tagged = isinstance(model, VLBERT)
        return {"kinds": self.config.kinds, "segments": tagged, "tags": tagged}

    def missing(self, trained: Trained) -> str | None:
        return None if self.name in trained.objectives else "a head fine-tuned on choices (task vcr)"

    def predict(self, trained: Trained, records: Sequence[Record], track: Track = untracked) -> Iterator[Line]:
        reading = trained.reading(**self.reading(trained.model))
        for batch, image in trained.images(records, self.config.images_per_batch, track, "choose answers"):
            asked = [(row, item) for row, record in enumerate(batch) for item in items(record, self.config.kinds)]
            if not asked:
                continue
            words = [text for row, item in asked for text in _words(batch[row], item, trained, reading)]
            rows = [row for row, _ in asked for _ in range(NUM_CHOICES)]
            scores = self._scores(trained, image, rows, words).reshape(-1, NUM_CHOICES)
            for (row, item), logits in zip(asked, scores, strict=True):
                yield _line(batch[row], item, logits)

    def _scores(
        self, trained: Trained, image: Image, rows: Sequence[int], words: Sequence[Words]
    ) -> Float[np.ndarray, " P"]:
        """The logit of each choice beside its row of the images, which are encoded once for all their texts."""
        model, score = trained.model, trained.objectives[self.name].score
        shown, parts = torch.tensor(rows, device=trained.device), []
        with trained.answering():
            with trained.autocast():
                images = model.prepare(model.encode_image(image))
            for start in range(0, len(rows), self.config.texts_per_batch):
                few = slice(start, start + self.config.texts_per_batch)
                with trained.autocast():
                    cls = model.fuse(images.take(shown[few]), model.encode_text(trained.words(words[few]))).cls
                parts.append(score(cls.float()).cpu().numpy())
        return np.concatenate(parts).astype(np.float64)

    @staticmethod
    def score(lines: Sequence[Line]) -> dict[str, Any]:
        """Q->AR is over the items that have a line of either kind."""
        known = [line for line in lines if line["label"] is not None]
        unscored = {"unscored": len(lines) - len(known)} if len(known) < len(lines) else {}
        if not known:
            return unscored
        right = hits(np.array([line["scores"] for line in known]), np.array([line["label"] for line in known]))
        by_kind: dict[str, dict[tuple[str, int], bool]] = {kind: {} for kind in KINDS}
        for line, hit in zip(known, right.tolist(), strict=True):
            by_kind[line["kind"]][line["key"], line["number"]] = hit
        answered, justified = by_kind["answer"], by_kind["rationale"]
        told = {KINDS[kind]: list(hit.values()) for kind, hit in by_kind.items() if hit}
        if both := answered.keys() & justified.keys():
            told["Q->AR"] = [answered[item] and justified[item] for item in both]
        return {
            **per_cent({name: sum(found) / len(found) for name, found in told.items()}),
            "questions": len(answered.keys() | justified.keys()),
            "images": len({line["key"] for line in known}),
            **unscored,
            "confidence_95": per_cent_range({name: wilson_interval(sum(f), len(f)) for name, f in told.items()}),
            "chance": per_cent({name: CHANCE[name] for name in told}),
        }


def items(record: Record, kinds: Kinds) -> list[Item]:
    """The questions of a record. Where the right answer is not known, its rationale is asked for each of the four."""
    found = []
    for number, kind, context, choices, label in choice_items(record, kinds):
        given = record.extra["choices"][number].get("answer_label") if kind == "rationale" else None
        found.append(Item(number, kind, context, choices, label, given))
    if kinds != "answer":
        for number, item in enumerate(record.extra.get("choices", ())):
            if item.get("answer_label") is None:
                for given, answer in enumerate(item["answer_choices"]):
                    context = [*item["question"], *answer]
                    found.append(Item(number, "rationale", context, item["rationale_choices"], None, given))
    return found


def _words(record: Record, item: Item, trained: Trained, reading: Reading) -> list[Words]:
    """Each choice with its question."""
    detected = None if trained.model.reads == "pixels" else detected_regions(record, trained.regions)
    rows = object_rows(record, detected, int(trained.regions.whole_image))
    names = [region.label for region in record.regions]
    return [choice_words(item.context, choice, names, rows, reading) for choice in item.choices]


def _line(record: Record, item: Item, logits: Float[np.ndarray, " C"]) -> Line:
    names = [region.label for region in record.regions]
    known, scores = record.extra["choices"][item.number].get("id"), [round(float(logit), 6) for logit in logits]
    return {
        "key": record.key,
        "id": f"{record.key}#{item.number}" if known is None else str(known),
        "number": item.number,
        "kind": item.kind,
        "question": choice_text(item.context, names),
        "choices": [choice_text(choice, names) for choice in item.choices],
        "scores": scores,
        "answer": int(np.argmax(scores)),
        "label": item.label,
        **({} if item.given is None else {"given": item.given}),
    }
