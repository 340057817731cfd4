"""Whether a statement is true of two images (NLVR2, Suhr et al. 2019).

The heads stand in nlvr2_heads.py: two passes for any model, X-VLM's cross layers doubled. Scored by accuracy, and by
consistency: the share of statements that are judged rightly beside every pair of images they are said of.
"""

import re
from collections.abc import Hashable, Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import nn

from crossgrain.config import Choice, Count, config_owner, configclass
from crossgrain.data.partners import Partners, TextsAlone
from crossgrain.data.records import Record
from crossgrain.data.text import Tokenizer
from crossgrain.data.types import Image
from crossgrain.metrics.nlvr2 import CHANCE, accuracy, chance_consistency, consistent, statement_of
from crossgrain.metrics.proportion import wilson_interval
from crossgrain.models.interface import VisionLanguageModel
from crossgrain.models.xvlm import XVLM
from crossgrain.tasks.interface import Line, Task, Track, Trained, per_cent, per_cent_range, untracked
from crossgrain.tasks.nlvr2_heads import HEADS, TRUE, Doubled, PairHead, TwoPasses

OFFICIAL = re.compile(r"[^-]+-\d+-\d+-\d+")  # identifiers of the data set: split-set-pair-sentence


class _Asked(NamedTuple):
    """One statement: about which two records, and what stands in the first of them."""

    first: int
    second: int
    key: str
    id: str
    item: dict[str, Any]


class NLVR2(Task):
    """Accuracy and consistency. A line is one statement with two images.

    {key, partner, id, statement, answer: true or false, probability: of true, label: true, false or null}.
    """

    name = "nlvr2"
    texts = "pairs"

    @configclass
    class Config:
        """Without a head, X-VLM doubles its cross layers and any other model makes two passes, as published.

        The batch sizes bound the memory.
        """

        head: Annotated[Any, Choice(HEADS)] | None = None
        images_per_batch: Annotated[int, Field(ge=2)] = 64
        pairs_per_batch: Count = 128

    config: Config

    def head(self, model: VisionLanguageModel, tokenizer: Tokenizer) -> nn.Module:
        config = self.config.head or (Doubled if isinstance(model, XVLM) else TwoPasses).Config()
        return config_owner(config)(config, model)

    def missing(self, trained: Trained) -> str | None:
        return None if self.name in trained.objectives else "a head fine-tuned on pairs (task nlvr2)"

    def predict(self, trained: Trained, records: Sequence[Record], track: Track = untracked) -> Iterator[Line]:
        plan = _Plan(Partners(records).records, asked(records), self.config.images_per_batch)
        waiting = iter(plan.batches)
        for _, image in trained.images(plan, self.config.images_per_batch, track, "judge pairs"):
            few, rows = next(waiting)
            chances = self._probabilities(trained, image, rows, [ask.item["statement"] for ask in few])
            for ask, chance in zip(few, chances.tolist(), strict=True):
                answer = {"answer": chance > 0.5, "probability": round(chance, 6), "label": ask.item.get("label")}
                said = {"id": ask.id, "statement": ask.item["statement"]}
                yield {"key": ask.key, "partner": ask.item["partner"], **said, **answer}

    def _probabilities(
        self, trained: Trained, image: Image, rows: Sequence[tuple[int, int]], statements: Sequence[str]
    ) -> Float[np.ndarray, " P"]:
        """How likely each statement is true of its two rows of the images, which are encoded once for all."""
        model, head = trained.model, trained.objectives[self.name]
        assert isinstance(head, PairHead)
        parts = []
        with trained.answering():
            with trained.autocast():
                images = model.prepare(model.encode_image(image))
            for start in range(0, len(rows), self.config.pairs_per_batch):
                few = slice(start, start + self.config.pairs_per_batch)
                first, second = torch.tensor(rows[few], device=trained.device).unbind(1)
                with trained.autocast():
                    text = model.encode_text(trained.texts(statements[few]))
                    states = head.states(model, images.take(first), images.take(second), text)
                parts.append(head.judge(states.float()).softmax(1)[:, TRUE].cpu().numpy())
        return np.concatenate(parts).astype(np.float64)

    @staticmethod
    def score(lines: Sequence[Line]) -> dict[str, Any]:
        known = [line for line in lines if line["label"] is not None]
        unscored = {"unscored": len(lines) - len(known)} if len(known) < len(lines) else {}
        if not known:
            return unscored
        right = np.array([line["answer"] == line["label"] for line in known])
        statements = [statement_key(line) for line in known]
        whole = consistent(right, statements)
        shares = {"accuracy": accuracy(right), "consistency": float(whole.mean())}
        intervals = {
            name: wilson_interval(int(hits.sum()), len(hits)) for name, hits in zip(shares, (right, whole), strict=True)
        }
        return {
            **per_cent(shares),
            "pairs": len(known),
            "statements": len(whole),
            **unscored,
            "confidence_95": per_cent_range(intervals),
            "chance": per_cent({"accuracy": CHANCE, "consistency": chance_consistency(statements)}),
        }


def asked(records: Sequence[Record]) -> list[_Asked]:
    """Every statement of these records. UserError where a partner is none of them.

    A statement without an id of its own is named KEY#N, by its number in the record.
    """
    partners = Partners(records)
    found = []
    for place in range(len(records)):
        record = records.texts(place) if isinstance(records, TextsAlone) else records[place]
        for number, item in enumerate(record.extra.get("pairs", ())):
            name = f"{record.key}#{number}" if item.get("id") is None else str(item["id"])
            found.append(_Asked(place, partners.number(item["partner"]), record.key, name, item))
    return found


class _Plan(Sequence[Record]):
    """The images of all statements, in batches of one size in which no image stands twice.

    A batch takes statements in their order until the next one's images find no place. What is left empty in it is
    filled with its last image again, one place at most: batches are read ahead, and that needs one size.
    """

    def __init__(self, records: Sequence[Record], asks: Sequence[_Asked], images_per_batch: int):
        self.records = records
        self.batches: list[tuple[list[_Asked], list[tuple[int, int]]]] = []
        self.numbers: list[int] = []
        places: dict[int, int] = {}
        for ask in asks:
            wanted = {ask.first, ask.second}
            if not self.batches or len(places.keys() | wanted) > images_per_batch:
                self.numbers += [self.numbers[-1]] * (images_per_batch - len(places)) if self.batches else []
                self.batches.append(([], []))
                places = {}
            for number in (ask.first, ask.second):
                if number not in places:
                    places[number] = len(places)
                    self.numbers.append(number)
            self.batches[-1][0].append(ask)
            self.batches[-1][1].append((places[ask.first], places[ask.second]))

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Record:  # pyright: ignore[reportIncompatibleMethodOverride] - no slices
        return self.records[self.numbers[index]]


def statement_key(line: Line) -> Hashable:
    """What tells statements apart: the identifier without its pair, elsewhere the words and the first image."""
    return statement_of(line["id"]) if OFFICIAL.fullmatch(line["id"]) else (line["key"], line["statement"])
