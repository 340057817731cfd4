"""Grad-CAM: which tokens of an image the match with a text rests on, from a model that never saw a box.

The gradient of the matching logit with respect to the attention of one layer says which of it speaks for the match; its
positive part times the attention is the saliency of an image token (Selvaraju et al. 2017, as ALBEF and X-VLM apply it
to attention; X-VLM Grounding.py:70-119). X-VLM reads the cross-attention; in single-stream models it is the part of a
self-attention in which words look at the image.

Shape letters: B pairs, L words, M positions that look (all of them, or [CLS] alone in the last layer), K keys, N image
tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crossgrain.config import UserError
from crossgrain.data.types import Image, Pixels, Text
from crossgrain.metrics.grounding import peak
from crossgrain.models.interface import Tokens, VisionLanguageModel
from crossgrain.nn.transformer import CrossAttention, recorded_maps
from crossgrain.tasks.heat import box_around_peak, box_scores, painted, spread, to_line
from crossgrain.tasks.interface import Trained

# Whose looks are averaged: those of the whole text with its [CLS] and [SEP] (the original), of the words alone, of
# [CLS] alone.
Queries = Literal["text", "words", "cls"]
Match = Callable[[Tensor], Tensor]  # [CLS] (B, D) to logits (B, 2) of wrong and matched

SIDE = 128  # pixels of the map that boxes and the peak are read off
PAINTED = (16, 16)  # cells of the map in a line, where a model reads regions


def chosen_layer(model: VisionLanguageModel, layer: int | None) -> int:
    """The place of a layer among those whose words look at the image; None: where X-VLM has it in its twelve.

    That is the fourth of six cross layers, number 9 of 12 in all (run.py:259-269), so behind half of the cross layers
    and behind three quarters of those of a single stream. UserError for a layer that is not there.
    """
    layers = model.image_attention
    if layer is None:
        return len(layers) // 2 if isinstance(layers[0], CrossAttention) else len(layers) * 3 // 4
    if not 0 <= layer < len(layers):
        raise UserError(f"grounding.layer {layer}: {type(model).__name__} has layers 0 to {len(layers) - 1}")
    return layer


def saliency(
    model: VisionLanguageModel,
    match: Match,
    images: Tokens,
    text: Text,
    *,
    layer: int | None = None,
    queries: Queries = "text",
    words: Bool[Tensor, "B L"] | None = None,
) -> Float[Tensor, "B N"]:
    """ReLU(gradient) x attention: the mean over heads, and over the positions of the text, padding counted as 0.

    `images` are prepared; `words` marks what is a word and no special token. The map of an image token behind the last
    one that the model read is there too (VL-BERT's [END]). Parameters must not ask for gradients: see `only_attention`.
    """
    place = chosen_layer(model, layer)
    attention = model.image_attention[place]
    with torch.enable_grad(), recorded_maps(attention) as maps:
        logits = match(model.fuse(images, model.encode_text(text)).cls)
        (attended,) = maps  # texts of one batch stay together
        (gradient,) = torch.autograd.grad(logits[:, 1].sum(), [attended])
    seen = (attended.detach() * gradient.clamp(min=0)).mean(1)  # (B, M, K)
    length = text.ids.shape[1]
    first = 1 if isinstance(attention, CrossAttention) else length
    seen = seen[:, :length, first:]  # words at image tokens
    if queries == "cls":
        return seen[:, 0]
    counted = text.mask if queries == "text" or words is None else words
    if seen.shape[1] == 1:  # only [CLS] looks in the last layer, as nothing else of it reaches the logit
        if queries == "words":
            raise UserError(f"grounding.queries: only [CLS] counts in the last layer, {place}: choose text or cls")
        return seen[:, 0] / length
    total = (seen * counted[..., None]).sum(1)
    return total / (length if queries == "text" else counted.sum(1, keepdim=True).clamp(min=1))


@contextmanager
def only_attention(trained: Trained) -> Iterator[None]:
    """Nothing is kept for gradients but what follows the attention that `saliency` asks about."""
    modules = (trained.model, *trained.objectives.values())
    learnt = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learnt:
        parameter.requires_grad_(False)
    try:
        with trained.answering(), torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        for parameter in learnt:
            parameter.requires_grad_(True)


def saliencies(
    trained: Trained,
    match: Match,
    image: Image,
    rows: Sequence[int],
    texts: Sequence[str],
    batch_size: int,
    layer: int | None,
    queries: Queries,
) -> Float[np.ndarray, "P N"]:
    """That of each text with its row of the images, which are encoded once.

    Texts of one length stand together, so that none has padding and none depends on its company. In float32: what
    ranks answers is not rounded.
    """
    model, ids = trained.model, [trained.tokenize(text) for text in texts]
    special = {trained.tokenizer.cls, trained.tokenizer.sep} if trained.tokenizer else {ids[0][0]}
    asked = torch.tensor(rows, device=trained.device)
    found: list[np.ndarray] = [np.empty(0)] * len(texts)
    with only_attention(trained):
        images = model.prepare(model.encode_image(image))
        for few in _of_one_length(ids, batch_size):
            text = trained.padded([ids[place] for place in few])
            words = ~torch.isin(text.ids, torch.tensor(sorted(special), device=text.ids.device))
            pairs = images.take(asked[few])
            maps = saliency(model, match, pairs, text, layer=layer, queries=queries, words=words)
            for place, values in zip(few, maps.float().cpu().numpy(), strict=True):
                found[place] = values
    return np.stack(found).astype(np.float64)


def _of_one_length(ids: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
    """The places of texts with equally many tokens, at most `batch_size` at once."""
    lengths: dict[int, list[int]] = {}
    for place, tokens in enumerate(ids):
        lengths.setdefault(len(tokens), []).append(place)
    for places in lengths.values():
        yield from (places[start : start + batch_size] for start in range(0, len(places), batch_size))


class HeatMaps:
    """What the saliency of image tokens says about places in their images: a map, its peak, a box."""

    def __init__(self, model: VisionLanguageModel, image: Image):
        self.grid = model.grid(image) if isinstance(image, Pixels) else None
        self.image, self.whole_first = image, bool(model.whole_image_first)

    def answer(
        self, saliency: Float[np.ndarray, " N"], row: int, candidates: np.ndarray | None, exponent: float = 0.5
    ) -> dict[str, Any]:
        """The box, the point and the small map of one text about the image of this row, as a line has them.

        The box is the one of the candidates (in [0, 1]) with the most heat for its area. Without any, it is the region
        with the highest saliency, or what lies around the peak of a map of pixels. Regions other than the whole image
        count; where a model was shown none, the answer is the whole image.
        """
        if self.grid is not None:
            cells = saliency[: self.grid.rows * self.grid.columns].reshape(self.grid.rows, self.grid.columns)
            covered = self.grid.covered[row].tolist()
            rows, columns = (min(int(np.ceil(part)), count) for part, count in zip(covered, cells.shape, strict=True))
            heat = spread(cells[:rows, :columns], (SIDE, SIDE), covered)
            small = spread(cells[:rows, :columns], (rows, columns), covered)
            point, box = peak(heat), box_around_peak(heat)
        else:
            values, boxes = self._regions(saliency, row)
            heat, small = painted(values, boxes, (SIDE, SIDE)), painted(values, boxes, PAINTED)
            box = boxes[values.argmax()] if len(boxes) else np.array([0.0, 0.0, 1.0, 1.0])
            point = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        if candidates is not None and len(candidates):
            box = candidates[box_scores(heat, candidates * SIDE, exponent).argmax()]
        return {"box": box, "point": point, "heat": to_line(small)}

    def _regions(self, saliency: np.ndarray, row: int) -> tuple[np.ndarray, np.ndarray]:
        """The saliency and the boxes of the real regions, without the one that is the whole image."""
        assert not isinstance(self.image, Pixels)
        real = self.image.mask[row].cpu().numpy().copy()
        real[: int(self.whole_first)] = False
        boxes = self.image.boxes[row].float().cpu().numpy().astype(np.float64)
        return saliency[: len(real)][real], boxes[real]
