"""What fine-tuning trains for grounding: a box from [CLS], a choice among regions, or matching alone.

Shape letters: S expressions, each with an image of its own, N regions, D width.
"""

from collections.abc import Mapping
from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from crossgrain.config import Share, configclass
from crossgrain.data.types import Image, Named, Pixels
from crossgrain.models.interface import VisionLanguageModel
from crossgrain.objectives.box import Box, box_loss
from crossgrain.objectives.interface import Loss, Views, accuracy, mean_where
from crossgrain.objectives.itm import ITM

Learnt = Mapping[str, Mapping[str, Tensor]]  # the tensors of each objective of the initial run


class BoxHead(Box):
    """The box of an expression from the fused [CLS]: L1 plus GIoU (X-VLM, Grounding_bbox.py:46-51), for any model."""

    def forward(self, views: Views) -> Loss:
        true = views.batch.targets["expressions"].box
        return box_loss(self.boxes(views.fused().cls), true, true.new_ones(len(true), dtype=torch.bool))

    def adopt(self, model: VisionLanguageModel, weights: Learnt) -> list[str]:
        """All of the head of an earlier fine-tuning, or of box regression in pre-training."""
        return take_over(self, weights, "box")


class MatchingHead(ITM):
    """Image-text matching on the expressions, with no box seen: what Grad-CAM asks is trained by it.

    X-VLM adds the contrastive loss (Grounding.py:50-56): `objectives: [{type: itc}]` in the recipe.
    """

    def adopt(self, model: VisionLanguageModel, weights: Learnt) -> list[str]:
        """All of the head of an earlier fine-tuning, or of matching in pre-training."""
        return take_over(self, weights, "itm")


class ProposalHead(nn.Module):
    """Which of the regions an expression names: one logit for each that the model reads, the whole image included.

    A region is right where its IoU with the true box is above `overlap`. The loss is binary cross-entropy, its mean
    taken over all real regions of the batch (VL-BERT, resnet_vlbert_for_refcoco.py:41-47, 131-136; refcoco.py:186-189,
    which counts the far corners of boxes as pixels inside). The head is that of region classes with one class.
    """

    @configclass
    class Config:
        weight: float = 1.0
        dropout: Share = 0.0
        overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5

    def __init__(self, config: Config, model: VisionLanguageModel):
        super().__init__()
        self.config = config
        if model.reads == "pixels":
            raise ValueError(f"proposals are regions that a model reads, and {type(model).__name__} reads pixels")
        self.transform = nn.Linear(model.dim, model.dim)
        self.dropout = nn.Dropout(config.dropout)
        self.score = nn.Linear(model.dim, 1)
        for layer in (self.transform, self.score):  # as the original's (resnet_vlbert_for_refcoco.py:59-62)
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def logits(self, regions: Float[Tensor, "S N D"]) -> Float[Tensor, "S N"]:
        """In float32."""
        return self.score(self.dropout(F.gelu(self.transform(regions)))).squeeze(-1).float()

    def forward(self, views: Views) -> Loss:
        target: Named = views.batch.targets["expressions"]
        boxes, real = regions_of_rows(views.batch.image["clean"])
        logits = self.logits(views.fused().image_tokens(every(real)))
        right = box_overlap(boxes, target.box[:, None]) > self.config.overlap
        loss = F.binary_cross_entropy_with_logits(logits, right.float(), reduction="none")
        chosen = logits.masked_fill(~real, -torch.inf).argmax(1, keepdim=True)
        hit = right.gather(1, chosen).float().mean()
        return Loss(mean_where(loss, real), {"accuracy": hit, "judged": accuracy_of_signs(logits, right, real)})

    def adopt(self, model: VisionLanguageModel, weights: Learnt) -> list[str]:
        """All of the head of an earlier fine-tuning, or the transform of region classes (`final_mlp.0`)."""
        if taken := take_over(self, weights):
            return taken
        names = {"transform.weight": "head.0.weight", "transform.bias": "head.0.bias"}
        learnt = weights.get("region_class", {})
        if any(theirs not in learnt for theirs in names.values()):  # a linear head has no transform
            return []
        self.load_state_dict(self.state_dict() | {mine: learnt[theirs] for mine, theirs in names.items()})
        return ["transform"]


def take_over(head: nn.Module, weights: Learnt, objective: str | None = None) -> list[str]:
    """Fill a head from an earlier fine-tuning of its kind, or from this objective; the name of what was taken.

    Nothing is taken where the tensors are not those of this head.
    """
    own = {name: tensor.shape for name, tensor in head.state_dict().items()}
    for name in ("grounding", objective):
        learnt = weights.get(name, {}) if name else {}
        if own == {key: tensor.shape for key, tensor in learnt.items()}:
            head.load_state_dict(dict(learnt))
            return [str(name)]
    return []


def regions_of_rows(image: Image) -> tuple[Float[Tensor, "S N 4"], Bool[Tensor, "S N"]]:
    """The boxes of the regions that each row's image shows, and which of them are real."""
    assert not isinstance(image, Pixels), "pixels have no regions"
    return image.boxes.index_select(0, image.image), image.mask.index_select(0, image.image)


def every(mask: Bool[Tensor, "S N"]) -> Tensor:
    """The places of all tokens of every row: (S, N)."""
    return torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)


def box_overlap(a: Float[Tensor, "*N 4"], b: Float[Tensor, "*#N 4"]) -> Float[Tensor, "*N"]:
    """IoU of boxes that stand side by side; 0 where neither has an area."""
    sides = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    shared = sides.clamp(min=0).prod(-1)
    areas = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1)
    return shared / (areas - shared).clamp(min=1e-12)


def accuracy_of_signs(
    logits: Float[Tensor, "S N"], right: Bool[Tensor, "S N"], counted: Bool[Tensor, "S N"]
) -> Float[Tensor, ""]:
    """How often a logit's sign says the truth."""
    return accuracy(torch.stack([-logits, logits], -1), right, counted)
