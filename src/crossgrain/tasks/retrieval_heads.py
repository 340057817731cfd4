"""What fine-tuning for retrieval trains: X-VLM's contrast and matching, or ranking for models that fuse."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crossgrain.config import configclass
from crossgrain.models.interface import DualEncoder, VisionLanguageModel
from crossgrain.objectives.interface import Loss, Views
from crossgrain.objectives.itc import ITC
from crossgrain.objectives.itm import ITM
from crossgrain.objectives.ranking import EARLIER, Ranking
from crossgrain.tasks.adopting import take_fitting


class ContrastAndMatch(nn.Module):
    """The contrastive loss, with texts of one image sharing the target, plus matching with hard negatives.

    As X-VLM is fine-tuned (models/model_retrieval.py); the similarities then pick candidates, which `match` re-ranks.
    """

    @configclass
    class Config:
        weight: float = 1.0
        itc: ITC.Config = ITC.Config()
        itm: ITM.Config = ITM.Config()

    def __init__(self, config: Config, model: VisionLanguageModel):
        super().__init__()
        self.config = config
        self.itc, self.itm = ITC(config.itc, model), ITM(config.itm, model)

    def forward(self, views: Views) -> Loss:
        losses: dict[str, Loss] = {"itc": self.itc(views), "itm": self.itm(views)}
        weights = {"itc": self.config.itc.weight, "itm": self.config.itm.weight}
        parts = [weights[name] * loss.value.float() for name, loss in losses.items()]
        logs = {f"{name}_{key}": value for name, loss in losses.items() for key, value in loss.metrics.items()}
        logs |= {f"{name}_loss": loss.value.detach() for name, loss in losses.items()}
        return Loss(torch.stack(parts).sum(), logs)

    def match(self, cls: Float[Tensor, "B D"]) -> Float[Tensor, "B 2"]:
        """Logits of (wrong, matched), in float32."""
        return self.itm.match(cls)

    def adopt(self, model: VisionLanguageModel, weights: Mapping[str, Mapping[str, Tensor]]) -> list[str]:
        """The matching head of pre-training, or the heads of an earlier fine-tuning."""
        return take_fitting(self, weights.get("retrieval", {})) or take_fitting(self.itm, weights.get("itm", {}))


HEADS: dict[str, type | str] = {"contrast_and_match": ContrastAndMatch, "ranking": Ranking}

# As published; VL-BERT's paper has no retrieval. Pixel-BERT's does not say how many candidates there are.
_PUBLISHED: dict[str, Any] = {"PixelBERT": Ranking.Config(losses=("multiclass",), num_candidates=4)}


def published_head(model: VisionLanguageModel) -> Any:
    """The configuration of the head that the model's paper has."""
    if isinstance(model, DualEncoder):
        return ContrastAndMatch.Config()
    return _PUBLISHED.get(type(model).__name__, Ranking.Config())


def matcher(objectives: Mapping[str, Any]) -> Any | None:
    """The head that can tell whether an image and a text belong together, by `match`; None where there is none."""
    return next((objectives[name] for name in EARLIER if hasattr(objectives.get(name), "match")), None)
