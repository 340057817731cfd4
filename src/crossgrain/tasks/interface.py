"""What a task is: questions put to a trained model, answers as plain lines, a score from those lines alone.

One task is one file. `TASKS` names them for recipes; `Trained` is what they are asked of.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch

from crossgrain.data.collate import pad_texts
from crossgrain.data.images import ImageConfig, eval_image
from crossgrain.data.records import Record
from crossgrain.data.text import TextConfig, Tokenizer, encode_text
from crossgrain.data.types import Pixels, Text
from crossgrain.models.interface import VisionLanguageModel

T = TypeVar("T")

TASKS: dict[str, type | str] = {
    "retrieval": "crossgrain.tasks.retrieval:Retrieval",
    "grounding": "crossgrain.tasks.grounding:Grounding",
}

Line = dict[str, Any]  # one answer, as plain JSON values
Track = Callable[[Sequence[T], str], Iterable[T]]  # goes through the items and shows how far it is


def untracked(items: Sequence[T], description: str) -> Iterable[T]:
    """No progress is shown."""
    return items


@dataclass(frozen=True)
class Trained:
    """A trained model, with all that turns records into its inputs.

    `read_image` gives the uint8 picture (3, H, W) in the size that the model takes, `tokenize` the ids of a text with
    its special tokens. `precision` is that of autocast; float32 turns it off.
    """

    model: VisionLanguageModel
    objectives: Mapping[str, Any]  # modules; tasks ask "itm" to match and "box" for boxes
    read_image: Callable[[Record], np.ndarray]
    tokenize: Callable[[str], Sequence[int]]
    pad: int = 0  # id that fills short texts
    precision: torch.dtype = torch.float32

    @classmethod
    def of(
        cls,
        model: VisionLanguageModel,
        objectives: Mapping[str, Any],
        tokenizer: Tokenizer,
        text: TextConfig,
        image: ImageConfig,
        precision: torch.dtype = torch.float32,
    ) -> "Trained":
        """A model that reads pictures and texts as its recipe says."""
        read_image = partial(eval_image, config=image)
        tokenize = partial(encode_text, tokenizer=tokenizer, config=text)
        return cls(model, objectives, read_image, tokenize, tokenizer.pad, precision)

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
        ids = [self.tokenize(text) for text in texts]
        return pad_texts(ids, max(map(len, ids)), self.pad).to(self.device)

    def pixels(
        self, records: Sequence[Record], batch_size: int, track: Track = untracked, description: str = "encode images"
    ) -> Iterator[tuple[list[Record], Pixels]]:
        """The records in batches, with their pictures; threads decode the next batch while this one is computed."""
        with ThreadPoolExecutor(thread_name_prefix="decode") as pool:

            def submit(start: int) -> list[tuple[Record, Future[np.ndarray]]]:
                batch = [records[index] for index in range(start, min(start + batch_size, len(records)))]
                return [(record, pool.submit(self.read_image, record)) for record in batch]

            following = submit(0)
            for start in track(range(0, len(records), batch_size), description):
                batch, following = following, submit(start + batch_size)
                pixels = torch.from_numpy(np.stack([picture.result() for _, picture in batch])).to(self.device)
                yield [record for record, _ in batch], Pixels.whole(pixels)


class Task(ABC):
    """One kind of question; made from its `Config`."""

    name: ClassVar[str]  # also the block in scores.json and the "task" of every line

    def __init__(self, config: Any):
        self.config = config

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
