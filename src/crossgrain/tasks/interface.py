"""What a task is: questions put to a trained model, answers as plain lines, a score from those lines alone.

One task is one file. `TASKS` names them for recipes; `Trained` is what they are asked of.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import nn

from crossgrain.data.asks import Reading, Words
from crossgrain.data.collate import pad_texts, pad_words, pixels_of, raw_regions_of, regions_of
from crossgrain.data.images import ImageConfig
from crossgrain.data.masking import mask_tokens
from crossgrain.data.pairs import Reads, RegionsConfig
from crossgrain.data.records import Record
from crossgrain.data.text import TextConfig, Tokenizer, encode_text
from crossgrain.data.types import Image, Text
from crossgrain.models.interface import VisionLanguageModel

T = TypeVar("T")

TASKS: dict[str, type | str] = {
    "retrieval": "crossgrain.tasks.retrieval:Retrieval",
    "grounding": "crossgrain.tasks.grounding:Grounding",
    "vqa": "crossgrain.tasks.vqa:VQA",
    "nlvr2": "crossgrain.tasks.nlvr2:NLVR2",
    "vcr": "crossgrain.tasks.vcr:VCR",
    "captioning": "crossgrain.tasks.captioning:Captioning",
    "masked_regions": "crossgrain.tasks.masked:MaskedRegions",
    "masked_words": "crossgrain.tasks.masked:MaskedWords",
}
READ_AHEAD = 4  # batches of images that threads decode while one is computed

Line = dict[str, Any]  # one answer, as plain JSON values
HideWords = Callable[[Sequence[int], np.random.Generator], tuple[list[int], list[int], list[int]]]
Track = Callable[[Sequence[T], str], Iterable[T]]  # goes through the items and shows how far it is


def no_words_to_hide(ids: Sequence[int], chance: np.random.Generator) -> tuple[list[int], list[int], list[int]]:
    """Nothing is hidden: (ids, no positions, no labels)."""
    return list(ids), [], []


def untracked(items: Sequence[T], description: str) -> Iterable[T]:
    """No progress is shown."""
    return items


@dataclass(frozen=True)
class Trained:
    """A trained model, with all that turns records into its inputs.

    `read_images` gives what the model reads of these records' images (pixels, regions or both), one concept for each:
    the whole of it. `tokenize` gives the ids of a text with its special tokens, `hide_words` hides some of them and
    says which (data/masking.py). `precision` is that of autocast; float32 turns it off. `regions` says which of a
    detector's regions the model sees.
    """

    model: VisionLanguageModel
    objectives: Mapping[str, Any]  # modules; tasks ask "itm" to match and "box" for boxes
    read_images: Callable[[Sequence[Record]], Image]
    tokenize: Callable[[str], Sequence[int]]
    pad: int = 0  # id that fills short texts
    precision: torch.dtype = torch.float32
    hide_words: HideWords = no_words_to_hide
    regions: RegionsConfig = RegionsConfig()
    tokenizer: Tokenizer | None = None
    text: TextConfig | None = None
    answers: Mapping[str, int] | None = None  # the answer vocabulary of a run that has one
    blind: bool = False  # the images show nothing: a baseline

    @classmethod
    def of(
        cls,
        model: VisionLanguageModel,
        objectives: Mapping[str, Any],
        tokenizer: Tokenizer,
        text: TextConfig,
        image: ImageConfig,
        regions: RegionsConfig,
        precision: torch.dtype = torch.float32,
        answers: Mapping[str, int] | None = None,
        blind: bool = False,
    ) -> "Trained":
        """A model that reads pictures, regions and texts as its recipe says."""
        readers: dict[Reads, Callable[[Sequence[Record]], Image]] = {
            "pixels": partial(pixels_of, config=image),
            "regions": partial(regions_of, config=regions),
            "raw_regions": partial(raw_regions_of, image=image, config=regions),
        }
        tokenize = partial(encode_text, tokenizer=tokenizer, config=text)
        hide = partial(_hide_words, tokenizer=tokenizer, text=text)
        read = readers[model.reads]
        if blind:
            read = partial(_read_nothing, read)
        told = (tokenizer, text, answers, blind)
        return cls(model, objectives, read, tokenize, tokenizer.pad, precision, hide, regions, *told)

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return next(self.model.parameters()).device

    @contextmanager
    def answering(self) -> Iterator[None]:
        """No dropout and no gradients; every module is put back as it was."""
        modules = [module for root in (self.model, *self.objectives.values()) for module in root.modules()]
        training = [module.training for module in modules]
        for module in modules:
            module.training = False
        try:
            with torch.inference_mode():
                yield
        finally:
            for module, was_training in zip(modules, training, strict=True):
                module.training = was_training

    def autocast(self) -> torch.autocast:
        """The precision of training, for the body of the model; what ranks answers is computed outside of it."""
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    def texts(self, texts: Sequence[str]) -> Text:
        """Token ids on the device, padded to the longest of these texts."""
        return self.padded([self.tokenize(text) for text in texts])

    def padded(self, ids: Sequence[Sequence[int]]) -> Text:
        """The same, of token ids."""
        return pad_texts(ids, max(map(len, ids)), self.pad).to(self.device)

    def words(self, rows: Sequence[Words]) -> Text:
        """Texts of a task with their segments and tags, on the device, padded to the longest."""
        return pad_words(rows, max(len(row.ids) for row in rows), self.pad).to(self.device)

    def reading(self, **values: Any) -> Reading:
        """How this model reads the texts of a task, whose `reading` gives the values."""
        assert self.tokenizer is not None and self.text is not None
        return Reading(tokenizer=self.tokenizer, text=self.text, answers=self.answers, **values)

    def images(
        self, records: Sequence[Record], batch_size: int, track: Track = untracked, description: str = "encode images"
    ) -> Iterator[tuple[list[Record], Image]]:
        """The records in batches, with their images on the device; threads read further batches meanwhile."""

        def read(start: int) -> tuple[list[Record], Image]:
            batch = [records[index] for index in range(start, min(start + batch_size, len(records)))]
            return batch, self.read_images(batch)

        starts = range(0, len(records), batch_size)
        with ThreadPoolExecutor(READ_AHEAD, thread_name_prefix="read") as pool:
            coming = iter(starts)
            reading = deque(pool.submit(read, start) for start in islice(coming, READ_AHEAD))
            for _ in track(starts, description):
                batch, image = reading.popleft().result()
                reading.extend(pool.submit(read, start) for start in islice(coming, 1))
                yield batch, image.to(self.device)


def _read_nothing(read: Callable[[Sequence[Record]], Image], records: Sequence[Record]) -> Image:
    return read(records).blind()


def _hide_words(
    ids: Sequence[int], rng: np.random.Generator, tokenizer: Tokenizer, text: TextConfig
) -> tuple[list[int], list[int], list[int]]:
    return mask_tokens(list(ids), tokenizer, text.masking, rng)


class Task(ABC):
    """One kind of question; made from its `Config`."""

    name: ClassVar[str]  # also the block in scores.json and the "task" of every line
    texts: ClassVar[str | None] = None  # the kind of source that it is fine-tuned on; None: it only asks

    def __init__(self, config: Any, answers: Mapping[str, int] | None = None):
        self.config = config
        self.answers = answers  # the answer vocabulary of the run, for tasks that have one: answer to place

    def head(self, model: VisionLanguageModel, tokenizer: Tokenizer) -> nn.Module:
        """What fine-tuning trains beside the model: `forward(views) -> Loss`, with `config.weight`.

        `predict` finds it under the task's name. It may have `adopt(model, weights)`, see finetuning.py.
        """
        raise ValueError(f"{self.name} has nothing to fine-tune")

    def reading(self, model: VisionLanguageModel) -> dict[str, Any]:
        """What of data/asks.py `Reading` differs for this task with this model."""
        return {}

    @property
    def ranks_detected(self) -> bool:
        """Whether it asks for what a detector found, where there is any, also of a model that reads pixels."""
        return False

    @abstractmethod
    def missing(self, trained: Trained) -> str | None:
        """What this task needs and the model does not have, in a few words; None where it can be asked."""

    @abstractmethod
    def predict(self, trained: Trained, records: Sequence[Record], track: Track = untracked) -> Iterator[Line]:
        """Answers for these records; none where the records ask nothing."""

    @staticmethod
    @abstractmethod
    def score(lines: Sequence[Line]) -> dict[str, Any]:
        """The block of scores.json, in per cent with two decimals, from at least one line."""


def per_cent(values: Mapping[str, float]) -> dict[str, float]:
    """Shares in per cent with two decimals, as scores.json holds them."""
    return {name: round(100 * value, 2) for name, value in values.items()}


def per_cent_range(values: Mapping[str, tuple[float, float]]) -> dict[str, list[float]]:
    """Intervals of shares in per cent with two decimals."""
    return {name: [round(100 * end, 2) for end in ends] for name, ends in values.items()}
