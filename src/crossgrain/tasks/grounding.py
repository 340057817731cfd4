"""A phrase points at its object: the cross encoder reads the whole image and predicts one box (X-VLM section 3.2).

Scored by the share of boxes that cover the true one with an IoU of 0.5 or more, as RefCOCO/+/g are.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from crossgrain.config import configclass
from crossgrain.data.records import Box, Record
from crossgrain.data.types import Image
from crossgrain.metrics.grounding import accuracy_at, accuracy_interval, iou
from crossgrain.tasks.interface import Line, Task, Track, Trained, per_cent, per_cent_range, untracked

NUM_GUESSES = 20  # rounds that the chance level is averaged over


class Grounding(Task):
    """Box accuracy at IoU 0.5. A line is one phrase: {key, text, box, truth, iou}."""

    name = "grounding"

    @configclass
    class Config:
        """The batch sizes bound the memory."""

        images_per_batch: int = 64
        phrases_per_batch: int = 256

    config: Config

    def missing(self, trained: Trained) -> str | None:
        return None if "box" in trained.objectives else "a box objective"

    def predict(self, trained: Trained, records: Sequence[Record], track: Track = untracked) -> Iterator[Line]:
        for batch, image in trained.images(records, self.config.images_per_batch, track, "ground phrases"):
            asked = [(row, text, box) for row, record in enumerate(batch) for text, box in phrases(record)]
            if not asked:
                continue
            rows, texts, truth = zip(*asked, strict=True)
            boxes = self._boxes(trained, image, rows, texts)
            for row, text, box, true, overlap in zip(
                rows, texts, boxes, truth, iou(boxes, np.array(truth)), strict=True
            ):
                answer = {"box": _rounded(box), "truth": _rounded(true), "iou": round(float(overlap), 6)}
                yield {"key": batch[row].key, "text": text, **answer}

    def _boxes(
        self, trained: Trained, image: Image, rows: Sequence[int], texts: Sequence[str]
    ) -> Float[np.ndarray, "P 4"]:
        """The box that each text names in its row of the images, which are encoded once for all their texts."""
        model, head = trained.model, trained.objectives["box"].boxes
        asked = torch.tensor(rows, device=trained.device)
        parts = []
        with trained.answering():
            with trained.autocast():
                images = model.prepare(model.encode_image(image))
            for start in range(0, len(rows), self.config.phrases_per_batch):
                few = slice(start, start + self.config.phrases_per_batch)
                with trained.autocast():
                    cls = model.fuse(images.take(asked[few]), model.encode_text(trained.texts(texts[few]))).cls
                parts.append(head(cls.float()).cpu().numpy())
        return np.concatenate(parts).astype(np.float64)

    @staticmethod
    def score(lines: Sequence[Line]) -> dict[str, Any]:
        truth = np.array([line["truth"] for line in lines], dtype=np.float64)
        ious = iou(np.array([line["box"] for line in lines], dtype=np.float64), truth)
        accuracy = {"accuracy@0.5": accuracy_at(ious)}
        return {
            **per_cent({**accuracy, "mean_iou": float(ious.mean())}),
            "phrases": len(lines),
            "images": len({line["key"] for line in lines}),
            "confidence_95": per_cent_range({"accuracy@0.5": accuracy_interval(ious)}),
            "chance": per_cent({"accuracy@0.5": _accuracy_of_guessing(truth)}),
        }


def phrases(record: Record) -> list[tuple[str, Box]]:
    """What can be asked of a record, with the true boxes.

    Its referring expressions where it has some (`extra["expressions"]`: text, and index of the region); else the texts
    that name exactly one of its regions; else all texts of its regions.
    """
    if expressions := record.extra.get("expressions"):
        return [(expression["text"], record.regions[expression["index"]].box) for expression in expressions]
    texts = [(text, region.box) for region in record.regions for text in dict.fromkeys(region.texts())]
    times = Counter(text for text, _ in texts)
    return [(text, box) for text, box in texts if times[text] == 1] or texts


def _rounded(box: Sequence[float] | np.ndarray) -> list[float]:
    return [round(float(side), 6) for side in box]


def _accuracy_of_guessing(truth: np.ndarray) -> float:
    """Accuracy of answering each phrase with the true box of another phrase of the same data."""
    shifts = np.unique(np.linspace(1, max(len(truth) - 1, 1), NUM_GUESSES).astype(int))
    return float(np.mean([accuracy_at(iou(np.roll(truth, shift, axis=0), truth)) for shift in shifts]))
