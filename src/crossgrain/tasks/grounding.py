"""A phrase points at its object, by a regressed box, by a choice among regions, or by what matching looked at.

Scored by the share of boxes that cover the true one with an IoU of 0.5 or more, as RefCOCO/+/g are; heat maps also by
the pointing game.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from crossgrain.config import Count, Share, configclass
from crossgrain.data.records import Box, Record
from crossgrain.data.text import Tokenizer
from crossgrain.data.types import Image
from crossgrain.metrics.grounding import accuracy_at, accuracy_interval, iou, pointing_game
from crossgrain.metrics.proportion import wilson_interval
from crossgrain.models.interface import Fused, VisionLanguageModel
from crossgrain.objectives.itm import ITM
from crossgrain.tasks.gradcam import HeatMaps, Queries, chosen_layer, saliencies
from crossgrain.tasks.grounding_heads import BoxHead, MatchingHead, ProposalHead, every, regions_of_rows
from crossgrain.tasks.interface import Line, Task, Track, Trained, per_cent, per_cent_range, untracked

NUM_GUESSES = 20  # rounds that the chance level is averaged over


class Phrase(NamedTuple):
    """What is asked of an image: a text, the box that it names (None: not told), and its number in the data set."""

    text: str
    box: Box | None
    id: int | str | None = None


class Grounding(Task):
    """Accuracy at IoU 0.5. A line is one phrase: {key, text, box, truth, iou, method}, its id where it has one.

    - "box": from the fused [CLS] (X-VLM). Fine-tuned, or with the `box` objective of pre-training.
    - "proposals": the region whose logit is highest (VL-BERT), with its "score". Fine-tuned.
    - "gradcam": weakly supervised, from the gradient of the matching logit (X-VLM), with the "point" where the heat map
      is highest, and the map itself ("heat", tasks/heat.py). Asks the `itm` objective, or is fine-tuned without boxes.
    """

    name = "grounding"
    texts = "expressions"

    @configclass
    class Config:
        """The batch sizes bound the memory."""

        method: Literal["box", "proposals", "gradcam"] = "box"
        weight: float = 1.0  # of the loss in fine-tuning
        images_per_batch: Count = 64
        phrases_per_batch: Count = 256
        unambiguous: bool = False  # ask only texts that name a single region of their record
        dropout: Share = 0.0  # of proposals, before the last layer
        # Grad-CAM: the attention of which layer, counted among those that look at the image. None: as published, see
        # tasks/gradcam.py. X-VLM calls it critical and searches it (run.py:271-278).
        layer: Annotated[int, Field(ge=0)] | None = None
        queries: Queries = "text"
        # Which boxes Grad-CAM ranks: those that a detector found where there are any, or the annotated ones. With none
        # of them ("peak") a model that reads pixels gives the box around the peak of its map.
        candidates: Literal["detected", "annotated", "peak"] = "detected"
        area_exponent: float = 0.5  # boxes are ranked by their heat over their area to this power
        matching: ITM.Config = ITM.Config()  # how Grad-CAM's head is fine-tuned

    config: Config

    @property
    def ranks_detected(self) -> bool:
        """Grad-CAM does."""
        return self.config.method == "gradcam" and self.config.candidates == "detected"

    def head(self, model: VisionLanguageModel, tokenizer: Tokenizer) -> nn.Module:
        c = self.config
        if c.method == "box":
            return BoxHead(BoxHead.Config(weight=c.weight), model)
        if c.method == "proposals":
            return ProposalHead(ProposalHead.Config(weight=c.weight, dropout=c.dropout), model)
        return MatchingHead(c.matching, model)

    def missing(self, trained: Trained) -> str | None:
        if self.config.method == "gradcam" and not trained.model.image_attention:
            return "a model that tells where its words look"
        told = {
            "box": "a box objective",
            "proposals": "a head that chooses proposals",
            "gradcam": "a matching objective",
        }
        return None if self._asked_head(trained) is not None else told[self.config.method]

    def _asked_head(self, trained: Trained) -> Any:
        """The fine-tuned head, or that of pre-training; None where neither can answer by this method."""
        able = {"box": "boxes", "proposals": "logits", "gradcam": "match"}[self.config.method]
        heads = (trained.objectives.get(name) for name in (self.name, "box", "itm"))
        return next((head for head in heads if hasattr(head, able)), None)

    def predict(self, trained: Trained, records: Sequence[Record], track: Track = untracked) -> Iterator[Line]:
        answer = {"box": self._boxes, "proposals": self._proposals, "gradcam": self._heat_maps}[self.config.method]
        if self.config.method == "gradcam":
            chosen_layer(trained.model, self.config.layer)
        for batch, image in trained.images(records, self.config.images_per_batch, track, "ground phrases"):
            asked = [(row, one) for row, record in enumerate(batch) for one in phrases(record, self.config.unambiguous)]
            if not asked:
                continue
            rows = [row for row, _ in asked]
            answers = answer(trained, batch, image, rows, [phrase.text for _, phrase in asked])
            for (row, phrase), found in zip(asked, answers, strict=True):
                yield {"key": batch[row].key, **self._line(phrase, found)}

    def _line(self, phrase: Phrase, found: dict[str, Any]) -> Line:
        box = np.array([found["box"]], dtype=np.float64)
        overlap = None if phrase.box is None else round(float(iou(box, np.array([phrase.box]))[0]), 6)
        told = {} if phrase.id is None else {"id": phrase.id}
        truth = None if phrase.box is None else _rounded(phrase.box)
        found = {name: _rounded(value) if name in ("box", "point") else value for name, value in found.items()}
        return {**told, "text": phrase.text, **found, "truth": truth, "iou": overlap, "method": self.config.method}

    def _boxes(
        self, trained: Trained, batch: Sequence[Record], image: Image, rows: Sequence[int], texts: Sequence[str]
    ) -> list[dict[str, Any]]:
        """The box that each text names."""
        head = self._asked_head(trained)
        (boxes,) = self._read(trained, image, rows, texts, lambda fused, _: fused.cls, lambda x, _: [head.boxes(x)])
        return [{"box": box} for box in boxes]

    def _proposals(
        self, trained: Trained, batch: Sequence[Record], image: Image, rows: Sequence[int], texts: Sequence[str]
    ) -> list[dict[str, Any]]:
        """The region that each text names; the whole image where the model is shown none at all."""
        head = self._asked_head(trained)
        boxes, real = regions_of_rows(image)  # type: ignore[arg-type]

        def choose(states: Tensor, asked: Tensor) -> list[Tensor]:
            best = head.logits(states).masked_fill(~real[asked], -1e4).max(1)
            shown = real[asked].any(1)[:, None]
            named = boxes[asked, best.indices].float()
            return [named.where(shown, named.new_tensor([0.0, 0.0, 1.0, 1.0])), best.values.sigmoid()]

        found = self._read(trained, image, rows, texts, lambda f, asked: f.image_tokens(every(real[asked])), choose)
        return [{"box": box, "score": round(float(score), 6)} for box, score in zip(*found, strict=True)]

    def _heat_maps(
        self, trained: Trained, batch: Sequence[Record], image: Image, rows: Sequence[int], texts: Sequence[str]
    ) -> Iterator[dict[str, Any]]:
        """A heat map for each text, with its peak and the box that it speaks for."""
        c, match = self.config, self._asked_head(trained).match
        found = saliencies(trained, match, image, rows, texts, c.phrases_per_batch, c.layer, c.queries)
        maps = HeatMaps(trained.model, image)
        return (
            maps.answer(values, row, self._candidates(trained, batch[row]), c.area_exponent)
            for values, row in zip(found, rows, strict=True)
        )

    def _candidates(self, trained: Trained, record: Record) -> np.ndarray | None:
        """The boxes that are ranked; None where the model's own tokens are, or the peak."""
        if self.config.candidates == "annotated":
            return np.array([region.box for region in record.regions])
        if self.config.candidates == "peak" or trained.model.reads != "pixels" or record.detected is None:
            return None
        return record.detected.boxes.astype(np.float64)

    def _read(
        self,
        trained: Trained,
        image: Image,
        rows: Sequence[int],
        texts: Sequence[str],
        look: Callable[[Fused, Tensor], Tensor],
        answer: Callable[[Tensor, Tensor], Sequence[Tensor]],
    ) -> list[Float[np.ndarray, "P ..."]]:
        """What `answer` makes of the fused states that `look` takes, of each text with its row of the images.

        The images are encoded once for all their texts; answers are made outside of autocast, in float32.
        """
        model, asked = trained.model, torch.tensor(rows, device=trained.device)
        parts = []
        with trained.answering():
            with trained.autocast():
                images = model.prepare(model.encode_image(image))
            for start in range(0, len(rows), self.config.phrases_per_batch):
                few = slice(start, start + self.config.phrases_per_batch)
                with trained.autocast():
                    fused = model.fuse(images.take(asked[few]), model.encode_text(trained.texts(texts[few])))
                    states = look(fused, asked[few])
                parts.append([x.float().cpu().numpy() for x in answer(states.float(), asked[few])])
        return [np.concatenate(column).astype(np.float64) for column in zip(*parts, strict=True)]

    @staticmethod
    def score(lines: Sequence[Line]) -> dict[str, Any]:
        """The block of the first method; those of further methods stand in it under their names."""
        methods: dict[str, list[Line]] = {}
        for line in lines:
            methods.setdefault(line.get("method", "box"), []).append(line)
        first, *others = [{"method": method, **_block(some)} for method, some in methods.items()]
        return {**first, **{block["method"]: block for block in others}}


def _block(lines: Sequence[Line]) -> dict[str, Any]:
    """The score of one method's lines; those without a truth are counted and left out."""
    known = [line for line in lines if line["truth"] is not None]
    unscored = {"unscored": len(lines) - len(known)} if len(known) < len(lines) else {}
    if not known:
        return unscored
    truth = np.array([line["truth"] for line in known], dtype=np.float64)
    ious = iou(np.array([line["box"] for line in known], dtype=np.float64), truth)
    shares = {"accuracy@0.5": accuracy_at(ious)}
    ranges = {"accuracy@0.5": accuracy_interval(ious)}
    asked, other = _others(known)
    chance = {"accuracy@0.5": accuracy_at(iou(truth[other], truth[asked]))} if len(asked) else {}
    if all("point" in line for line in known):
        points = np.array([line["point"] for line in known], dtype=np.float64)
        hits = pointing_game(points, truth)
        shares["pointing"] = float(hits.mean())
        ranges["pointing"] = wilson_interval(int(hits.sum()), len(hits))
        if len(asked):
            chance["pointing"] = float(pointing_game(points[other], truth[asked]).mean())
    return {
        **per_cent({**shares, "mean_iou": float(ious.mean())}),
        "phrases": len(known),
        "images": len({line["key"] for line in known}),
        **unscored,
        "confidence_95": per_cent_range(ranges),
        **({"chance": per_cent(chance)} if chance else {}),
    }


def phrases(record: Record, unambiguous: bool = False) -> list[Phrase]:
    """What can be asked of a record, with the true boxes.

    Its referring expressions where it has some (`extra["expressions"]`: text, id, and the index of the region where
    that is told); else the texts that name exactly one of its regions; else all texts of its regions, unless only
    `unambiguous` ones are asked: those that are said of a single region.
    """
    expressions: Sequence[Mapping[str, Any]] = record.extra.get("expressions") or ()
    if expressions:
        named = {(one["text"], one.get("index")) for one in expressions}
        named |= {(text, index) for index, region in enumerate(record.regions) for text in region.texts()}
        times = Counter(text for text, _ in named)
        boxes = [None if one.get("index") is None else record.regions[one["index"]].box for one in expressions]
        asked = [Phrase(one["text"], box, one.get("id")) for one, box in zip(expressions, boxes, strict=True)]
        return [phrase for phrase in asked if times[phrase.text] == 1 or not unambiguous]
    texts = [Phrase(text, region.box) for region in record.regions for text in dict.fromkeys(region.texts())]
    times = Counter(phrase.text for phrase in texts)
    single = [phrase for phrase in texts if times[phrase.text] == 1]
    return single if single or unambiguous else texts


def _rounded(values: Sequence[float] | np.ndarray) -> list[float]:
    return [round(float(value), 6) for value in values]


def _others(lines: Sequence[Line]) -> tuple[Int[np.ndarray, " G"], Int[np.ndarray, " G"]]:
    """Phrases, and for each of them one of another object in the same data, whose answer chance gives it."""
    objects: dict[Any, int] = {}
    number = np.array([objects.setdefault((line["key"], *line["truth"]), len(objects)) for line in lines])
    asked = np.arange(len(lines))
    shifts = np.unique(np.linspace(0, len(lines), NUM_GUESSES + 2)[1:-1].astype(int))
    pairs = np.concatenate([np.stack([asked, np.roll(asked, shift)]) for shift in shifts], axis=1)
    asked, other = pairs[:, number[pairs[0]] != number[pairs[1]]]
    return asked, other
