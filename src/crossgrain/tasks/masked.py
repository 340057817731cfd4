"""What pre-training asks, put to held-out data: hidden regions are classified, hidden words are named.

The same tokens are hidden in every run: they follow from the seed of the task and the number of the record. Beside the
accuracy stands that of the best constant answer, the class or word that is hidden most often.
"""

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from crossgrain.config import Count, configclass
from crossgrain.data.masking import mask_regions
from crossgrain.data.pairs import detected_regions
from crossgrain.data.records import Record
from crossgrain.data.types import Image, RawRegions, Regions
from crossgrain.metrics.proportion import wilson_interval
from crossgrain.models.interface import Fused
from crossgrain.tasks.interface import Line, Task, Track, Trained, per_cent, per_cent_range, untracked


class _Asked(NamedTuple):
    """A batch with hidden tokens, and the logits of what they were."""

    position: Int[np.ndarray, "B M"]
    truth: Int[np.ndarray, "B M"]  # below 0 where nobody knows, and to fill rows with fewer
    logits: Float[Tensor, "B M K"]


class Masked(Task):
    """Shared by both: the batches, the lines {key, position, truth, predicted}, the score."""

    description: str  # for the progress bar
    asked_name: str  # what is counted
    config: Any

    @abstractmethod
    def ask(self, trained: Trained, batch: Sequence[Record], image: Image, chances: Sequence[Any]) -> _Asked | None:
        """Hide something in each record with its own random generator; None where there is nothing to hide."""

    def predict(self, trained: Trained, records: Sequence[Record], track: Track = untracked) -> Iterator[Line]:
        first = 0
        for batch, image in trained.images(records, self.config.images_per_batch, track, self.description):
            chances = [np.random.default_rng([self.config.seed, first + row]) for row in range(len(batch))]
            first += len(batch)
            with trained.answering():
                asked = self.ask(trained, batch, image, chances)
            if asked is None:
                continue
            predicted = asked.logits.argmax(-1).cpu().numpy()
            for row, column in np.argwhere(asked.truth >= 0):
                answer = {"truth": int(asked.truth[row, column]), "predicted": int(predicted[row, column])}
                yield {"key": batch[row].key, "position": int(asked.position[row, column]), **answer}

    @classmethod
    def score(cls, lines: Sequence[Line]) -> dict[str, Any]:
        """Accuracy, and that of answering always what is most frequent in these very lines."""
        right = sum(line["truth"] == line["predicted"] for line in lines)
        most = max(Counter(line["truth"] for line in lines).values())
        return {
            **per_cent({"accuracy": right / len(lines), "majority": most / len(lines)}),
            cls.asked_name: len(lines),
            "images": len({line["key"] for line in lines}),
            "confidence_95": per_cent_range({"accuracy": wilson_interval(right, len(lines))}),
        }

    def fused(self, trained: Trained, image: Image, ids: Sequence[Sequence[int]]) -> Fused:
        """Each image with its text; called inside of autocast."""
        model = trained.model
        return model.fuse(model.prepare(model.encode_image(image)), model.encode_text(trained.padded(ids)))


class MaskedRegions(Masked):
    """Which class a hidden region has, as the detector named it; its caption (the first one) is in plain sight."""

    name = "masked_regions"
    description = "classify hidden regions"
    asked_name = "regions"

    @configclass
    class Config:
        """As many regions of an image are hidden as in training (`regions.masking` of the recipe), at least one."""

        seed: Annotated[int, Field(ge=0)] = 0
        images_per_batch: Count = 64

    def missing(self, trained: Trained) -> str | None:
        return None if "region_class" in trained.objectives else "a region_class objective"

    def ask(self, trained: Trained, batch: Sequence[Record], image: Image, chances: Sequence[Any]) -> _Asked | None:
        assert isinstance(image, Regions | RawRegions)
        first = int(trained.regions.whole_image)  # where the detector's own regions begin
        counts = image.mask[:, first:].sum(1).tolist()
        masking = trained.regions.masking
        chosen = [mask_regions(count, masking, chance)[0] for count, chance in zip(counts, chances, strict=True)]
        found = [detected_regions(record, trained.regions).labels for record in batch]
        truth = _padded([labels[places].tolist() for labels, places in zip(found, chosen, strict=True)], -100)
        position = _padded(chosen)
        if not position.size:
            return None
        at = torch.from_numpy(position + first).to(trained.device)
        hidden = torch.zeros_like(image.mask)
        for row, places in enumerate(chosen):
            hidden[row, [place + first for place in places]] = True
        ids = [trained.tokenize(record.captions[0] if record.captions else "") for record in batch]
        with trained.autocast():
            states = self.fused(trained, replace(image, hidden=hidden), ids).image_tokens(at)
        return _Asked(position, truth, trained.objectives["region_class"].head(states.float()))


class MaskedWords(Masked):
    """Which words are hidden in an image's first caption; the image is in plain sight. A word is named by its id."""

    name = "masked_words"
    description = "name hidden words"
    asked_name = "words"

    @configclass
    class Config:
        """Words are hidden as in training (`text.masking` of the recipe)."""

        seed: Annotated[int, Field(ge=0)] = 0
        images_per_batch: Count = 64

    def missing(self, trained: Trained) -> str | None:
        return None if "mlm" in trained.objectives else "a masked-word objective (mlm)"

    def ask(self, trained: Trained, batch: Sequence[Record], image: Image, chances: Sequence[Any]) -> _Asked | None:
        told = [
            trained.hide_words(trained.tokenize(record.captions[0]), chance)
            if record.captions
            else ([trained.pad], [], [])
            for record, chance in zip(batch, chances, strict=True)
        ]
        ids, positions, labels = zip(*told, strict=True)
        position, truth = _padded(positions), _padded(labels, -100)
        if not position.size:
            return None
        mlm = trained.objectives["mlm"]
        with trained.autocast():
            states = self.fused(trained, image, ids).words(torch.from_numpy(position).to(trained.device))
        return _Asked(position, truth, mlm.logits(states.float(), trained.model.token_embedding.weight))


def _padded(rows: Sequence[Sequence[int]], fill: int = 0) -> Int[np.ndarray, "B M"]:
    """Rows of numbers as a table."""
    table = np.full((len(rows), max(map(len, rows))), fill, dtype=np.int64)
    for number, row in enumerate(rows):
        table[number, : len(row)] = row
    return table
