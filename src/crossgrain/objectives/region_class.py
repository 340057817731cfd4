"""The class of a hidden region: the detector's label (ImageBERT's MOC) or its whole distribution (VL-BERT's MVRC)."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from crossgrain.config import Count, configclass
from crossgrain.data.types import HiddenRegions
from crossgrain.models.interface import VisionLanguageModel
from crossgrain.nn.transformer import initialise_bert
from crossgrain.objectives.interface import Loss, Mean, Variant, Views, accuracy, hidden_loss, hidden_regions, mean_of


class RegionClass(nn.Module):
    """Cross-entropy over the detector's classes, at the regions that were chosen for masking.

    With the hard label it is masked object classification (ImageBERT, section 3.3). With `soft` it is masked RoI
    classification with linguistic clues (VL-BERT, section 3.3; resnet_vlbert_for_pretraining_multitask.py:250-262): the
    target is the detector's distribution, and a row of it that does not sum to 1 within 0.1 is not counted.
    """

    @configclass
    class Config:
        weight: float = 1.0
        num_classes: Count = 1600  # of the detector; its labels and distributions count from 0
        soft: bool = False
        mean: Mean = "tokens"
        head: Literal["linear", "transform"] = "linear"  # VL-BERT has a linear layer and a GELU before the last one
        image: Variant = "masked"
        text: Variant = "masked"  # one pass for words and regions; in it each pair hides what the recipe says

    def __init__(self, config: Config, model: VisionLanguageModel):
        super().__init__()
        self.config = config
        needs_regions("region_class", model, "regions", "raw_regions")
        self.head: nn.Module = nn.Linear(model.dim, config.num_classes)
        if config.head == "transform":
            self.head = nn.Sequential(nn.Linear(model.dim, model.dim), nn.GELU(), self.head)
        self.apply(initialise_bert)

    def forward(self, views: Views) -> Loss:
        target: HiddenRegions = views.batch.targets["regions"]
        logits = self.head(hidden_regions(views, self.config.image, self.config.text))
        if not self.config.soft:
            return hidden_loss(logits, target.label, self.config.mean)
        assert target.probs is not None, "region_class with soft: true needs a batch with the detector's distributions"
        return distribution_loss(logits, target.probs, target, self.config.mean)


def distribution_loss(
    logits: Float[Tensor, "B M K"], probs: Float[Tensor, "B M K"], target: HiddenRegions, mean: Mean = "tokens"
) -> Loss:
    """Mean cross-entropy with the distributions, and how often the detector's own label comes first."""
    probs = probs.float()
    known = (target.label != -100) & ((probs.sum(-1) - 1).abs() < 0.1)
    loss = -(probs * logits.float().log_softmax(-1)).sum(-1)
    return Loss(mean_of(loss, known, mean), {"accuracy": accuracy(logits, target.label, known)})


def needs_regions(name: str, model: VisionLanguageModel, *kinds: str) -> None:
    """ValueError where the model reads no regions of these kinds."""
    if model.reads not in kinds:
        raise ValueError(f"{name} predicts what a detector says of regions, and {type(model).__name__} reads pixels")
