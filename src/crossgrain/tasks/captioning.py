"""Captioning: one sentence about an image, written word by word by the model's body (X-VLM section 4.4; unified VLP).

Scored by BLEU, ROUGE-L and CIDEr as the official evaluation of COCO captions computes them (metrics/captioning.py).
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any
from zlib import crc32

from crossgrain.config import Count, configclass
from crossgrain.data.records import Record
from crossgrain.data.text import Tokenizer
from crossgrain.data.types import Image
from crossgrain.metrics.captioning import CaptionScores, caption_scores
from crossgrain.models.interface import VisionLanguageModel
from crossgrain.tasks.captioning_head import CaptionHead
from crossgrain.tasks.generation import Decoding
from crossgrain.tasks.interface import Line, Task, Track, Trained, per_cent, per_cent_range, untracked

_BEHIND_WORDS = re.compile(r" ([,.;:!?])(?!\S)")
# A hyphen, not a dash: of 400 captions of COCO and 4,000 of Flickr8k 102 have hyphens, and none a dash between words.
_BETWEEN_WORDS = re.compile(r"(?<=\w) (?:(-)|(')(?= (?:s|t|d|m|ll|re|ve)\b)) (?=\w)")


class Captioning(Task):
    """Captions of whole images. A line is one of them: {key, caption, references}, with no references where none are.

    The block's "chance" is the score of giving each image a caption that was written about another one of the same
    data: what captions of this kind have in common without looking.
    """

    name = "captioning"
    texts = "captions"

    @configclass
    class Config(CaptionHead.Config):
        """What the head learns (tasks/captioning_head.py), and how captions are written. CIDEr rewards with `scst`."""

        decoding: Decoding = Decoding()
        images_per_batch: Count = 32

    config: Config

    def head(self, model: VisionLanguageModel, tokenizer: Tokenizer) -> CaptionHead:
        return CaptionHead(self.config, model, tokenizer)

    def reading(self, model: VisionLanguageModel) -> dict[str, Any]:
        return {} if self.config.scst is None else {"num_references": self.config.scst.num_references}

    def missing(self, trained: Trained) -> str | None:
        return None if self.name in trained.objectives else "a head that writes: fine-tune it on captions"

    def predict(self, trained: Trained, records: Sequence[Record], track: Track = untracked) -> Iterator[Line]:
        head: CaptionHead = trained.objectives[self.name]
        for batch, image in trained.images(records, self.config.images_per_batch, track, "write captions"):
            seeds = [crc32(record.key.encode(errors="backslashreplace")) for record in batch]
            for record, caption in zip(batch, self._write(trained, head, image, seeds), strict=True):
                yield {"key": record.key, "caption": caption, "references": list(record.captions)}

    def _write(self, trained: Trained, head: CaptionHead, image: Image, seeds: Sequence[int]) -> list[str]:
        """One caption for each image; the same ones each time, also where words are drawn."""
        model = trained.model
        with trained.answering(), trained.autocast():
            past = model.begin(model.prepare(model.encode_image(image)))
            written = head.write(model, past, self.config.decoding, seeds)
        return [readable(text) for text in head.captions(written.ids)]

    @staticmethod
    def score(lines: Sequence[Line]) -> dict[str, Any]:
        told = [line for line in lines if line["references"]]
        if not told:
            return {"unscored": len(lines)}
        references = [line["references"] for line in told]
        scores = caption_scores([line["caption"] for line in told], references)
        others = [texts[0] for texts in [*references[len(told) // 2 :], *references[: len(told) // 2]]]
        chance = {"chance": _rounded(caption_scores(others, references, java=False))} if len(told) > 1 else {}
        return {
            **_rounded(scores),
            "images": len(told),
            "references": sum(map(len, references)),
            "confidence_95": per_cent_range(scores.confidence_95),
            **chance,
        }


def readable(text: str) -> str:
    """Words of a tokenizer with their punctuation where people put it: "a well - lit hut ." is "a well-lit hut.".

    An apostrophe is joined within "it's" and its like alone: elsewhere it may be a quotation mark.
    """
    return _BETWEEN_WORDS.sub(r"\1\2", _BEHIND_WORDS.sub(r"\1", text))


def _rounded(scores: CaptionScores) -> dict[str, float]:
    """Times 100, as papers print them."""
    return per_cent(scores.corpus)
