"""Ranking: the right partner before the wrong ones, for models that compare an image and a text by fusing them.

Shape letters: B pairs, P candidates of each query (the right one among them), K = P - 1, D width.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from crossgrain.config import Count, UserError, configclass
from crossgrain.models.interface import VisionLanguageModel
from crossgrain.objectives.interface import Loss, Views, mean_where
from crossgrain.objectives.itc import same_concept
from crossgrain.objectives.itm import HeadForm, matching_head

LAST_LAYER: dict[str, HeadForm] = {"head.weight": "linear", "head.2.weight": "pooler", "head.3.weight": "mlp"}
EARLIER = ("retrieval", "ranking", "itm")  # heads that can be gone on with, the nearest first


class Candidates(NamedTuple):
    """For each pair, K other rows of the batch, and which of them are indeed wrong."""

    row: Int[Tensor, "B K"]
    wrong: Bool[Tensor, "B K"]


class Judged(NamedTuple):
    """The log-odds of the candidates of B images (among texts) and of the texts of B pairs (among images)."""

    right: Float[Tensor, "B 1"]  # the pair itself, which is asked in both directions
    others: Float[Tensor, "B 2 K"]
    wrong: Bool[Tensor, "B 2 K"]  # False where a candidate does not count


class Ranking(nn.Module):
    """Each image ranks P texts and each text P images, by the log-odds of matching; losses are summed.

    - "binary": every candidate for itself, right or wrong.
    - "multiclass": the right one among its P, by cross-entropy over their log-odds (Pixel-BERT).
    - "triplet": the right one above the hardest of the others, by `margin` in probability (UNITER model/itm.py).

    ImageBERT compares all three and sums of them, and finds binary alone the best.
    Wrong candidates are other rows of this process's batch: none about the same image, and none with the same words.
    """

    @configclass
    class Config:
        weight: float = 1.0
        losses: Annotated[tuple[Literal["binary", "multiclass", "triplet"], ...], Field(min_length=1)] = ("binary",)
        num_candidates: Annotated[int, Field(ge=2)] = 2  # P
        # "random", or "hardest": those that the model itself, as it is, ranks highest of `pool` random ones.
        negatives: Literal["random", "hardest"] = "random"
        pool: Count | None = None  # None: all of the batch
        margin: Annotated[float, Field(gt=0)] = 0.2
        head: HeadForm = "mlp"  # as that of the run which this one starts from

        def __post_init__(self) -> None:
            if len(set(self.losses)) < len(self.losses):
                raise ValueError(f"losses {list(self.losses)}: name each once")
            if self.pool is not None and self.pool < self.num_candidates - 1:
                raise ValueError(f"a pool of {self.pool} has no {self.num_candidates - 1} wrong candidates")

    def __init__(self, config: Config, model: VisionLanguageModel):
        super().__init__()
        self.config = config
        self.head = matching_head(config.head, model.dim)

    def match(self, cls: Float[Tensor, "B D"]) -> Float[Tensor, "B 2"]:
        """Logits of (wrong, matched), in float32, shifted so that the first is 0: the second alone ranks."""
        logits = self.head(cls).float()
        return logits - logits[:, :1]

    def adopt(self, model: VisionLanguageModel, weights: Mapping[str, Mapping[str, Tensor]]) -> list[str]:
        """The matching head of pre-training, or of an earlier fine-tuning. UserError where it is of another form."""
        name = next((name for name in EARLIER if any(last in weights.get(name, {}) for last in LAST_LAYER)), None)
        if name is None:
            return []
        form = next(form for last, form in LAST_LAYER.items() if last in weights[name])
        if form != self.config.head:
            raise UserError(
                f"ranking has a head {self.config.head!r}, the run that it starts from {form!r}: write head: {form}"
            )
        self.load_state_dict(dict(weights[name]))
        return ["head"]

    def forward(self, views: Views) -> Loss:
        if "itm" in views.batch.targets:
            raise UserError("ranking makes wrong pairs itself: set pairs.swapped to 0")
        image, text = views.image(), views.text()
        texts, images = self.draw(views), self.draw(views, wrong_images=True)
        rows = torch.arange(len(text.x), device=text.x.device)[:, None]
        repeated = rows.expand_as(texts.row)
        of_image = torch.cat([rows, repeated, images.row], dim=1)  # the right pair, wrong texts, wrong images
        of_text = torch.cat([rows, texts.row, repeated], dim=1)
        cls = views.model.fuse(image.take(of_image.flatten()), text.take(of_text.flatten())).cls
        odds = self.match(cls)[:, 1].view_as(of_image)
        wrong = torch.stack([texts.wrong, images.wrong], dim=1)
        judged = Judged(odds[:, :1], odds[:, 1:].view_as(wrong), wrong)
        losses = {name: LOSSES[name](judged, self.config.margin) for name in self.config.losses}
        beaten = (judged.others >= judged.right[..., None]) & wrong
        metrics = {name: value.detach() for name, value in losses.items()} if len(losses) > 1 else {}
        metrics["accuracy"] = (~beaten.any(2)).float().mean()
        return Loss(torch.stack([*losses.values()]).sum(), metrics)

    @torch.no_grad()
    def draw(self, views: Views, *, wrong_images: bool = False) -> Candidates:
        """Wrong texts for each image, or wrong images for each text; filled up where the batch has too few."""
        ids, count = views.batch.text["clean"].ids, self.config.num_candidates - 1
        if len(ids) <= count:
            raise UserError(f"ranking: a batch of {len(ids)} pairs has no {count} other candidates: make it larger")
        same = same_concept(views.batch.group) | (ids[:, None] == ids[None]).all(-1)
        order = torch.rand(same.shape, device=same.device).masked_fill(same, -1.0)
        if self.config.negatives == "hardest":
            pool = order.topk(min(self.config.pool or len(ids), len(ids)), dim=1)
            odds = self.odds(views, pool.indices, wrong_images)
            order = torch.full_like(order, float("-inf")).scatter(1, pool.indices, odds.sigmoid())
            order = order.masked_fill(same, -1.0)
        drawn = order.topk(count, dim=1)
        return Candidates(drawn.indices, drawn.values >= 0)

    def odds(self, views: Views, others: Int[Tensor, "B K"], wrong_images: bool) -> Float[Tensor, "B K"]:
        """The log-odds of each row with other rows, without gradient; a batch of them at a time."""
        image, text = views.image(), views.text()
        columns = []
        for other in others.unbind(1):
            pair = (image.take(other), text) if wrong_images else (image, text.take(other))
            columns.append(self.match(views.model.fuse(*pair).cls)[:, 1])
        return torch.stack(columns, dim=1)


def binary(judged: Judged, margin: float) -> Float[Tensor, ""]:
    """Cross-entropy of right or wrong, as in matching (ITM): the mean over all candidates."""
    odds = torch.cat([judged.right, judged.others.flatten(1)], dim=1)
    counted = torch.cat([torch.ones_like(judged.right, dtype=torch.bool), judged.wrong.flatten(1)], dim=1)
    target = torch.zeros_like(odds)
    target[:, 0] = 1.0
    return mean_where(F.binary_cross_entropy_with_logits(odds, target, reduction="none"), counted)


def multiclass(judged: Judged, margin: float) -> Float[Tensor, ""]:
    """Cross-entropy of the right one among its candidates: the mean over both directions."""
    others = judged.others.masked_fill(~judged.wrong, float("-inf"))
    odds = torch.cat([judged.right[..., None].expand(-1, 2, 1), others], dim=2)
    return -odds.log_softmax(2)[..., 0].mean()


def triplet(judged: Judged, margin: float) -> Float[Tensor, ""]:
    """How far the hardest of the others comes within `margin` of the right one, in probability: the mean."""
    hardest = judged.others.sigmoid().masked_fill(~judged.wrong, 0.0).amax(2)
    return mean_where((margin + hardest - judged.right.sigmoid()).clamp(min=0), judged.wrong.any(2))


LOSSES: dict[str, Callable[[Judged, float], Tensor]] = {
    "binary": binary,
    "multiclass": multiclass,
    "triplet": triplet,
}
