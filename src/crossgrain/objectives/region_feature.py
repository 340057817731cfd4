"""MRFR, masked region feature regression: what the detector's feature of a hidden region was."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crossgrain.config import Count, configclass
from crossgrain.data.types import HiddenRegions, Regions
from crossgrain.models.interface import VisionLanguageModel
from crossgrain.nn.transformer import initialise_bert
from crossgrain.objectives.interface import Loss, Variant, Views, hidden_regions, mean_where
from crossgrain.objectives.region_class import needs_regions


class RegionFeature(nn.Module):
    """Squared L2 distance to the feature, at the regions that were chosen for masking (ImageBERT, section 3.3).

    The distance is the mean over the numbers of a feature, as UNITER takes it (model/pretrain.py, forward_mrfr): in the
    paper's sum, the 2048 numbers of a feature would outweigh every other loss; `weight: 2048` is that sum.
    """

    @configclass
    class Config:
        weight: float = 1.0
        feature_dim: Count | None = None  # None: as many numbers as the features that the model reads have
        image: Variant = "masked"
        text: Variant = "masked"

    def __init__(self, config: Config, model: VisionLanguageModel):
        super().__init__()
        self.config = config
        needs_regions("region_feature", model, "regions")
        size = config.feature_dim or getattr(model, "feature_dim", None)
        if size is None or size != getattr(model, "feature_dim", size):
            known = f"features of {model.feature_dim} numbers" if size else "features of a size that it does not tell"
            raise ValueError(f"feature_dim is {size}, but {type(model).__name__} reads {known}")
        self.head = nn.Linear(model.dim, size)
        self.apply(initialise_bert)

    def forward(self, views: Views) -> Loss:
        target: HiddenRegions = views.batch.targets["regions"]
        regions = views.batch.image[self.config.image]
        assert isinstance(regions, Regions), type(regions)
        wanted = features_at(regions, target)
        predicted = self.head(hidden_regions(views, self.config.image, self.config.text)).float()
        known = target.label != -100
        error = mean_where((predicted - wanted).square().mean(-1), known)
        length = mean_where(wanted.square().mean(-1), known)
        return Loss(error, {"relative_error": error.detach() / length.clamp(min=1e-12)})


def features_at(regions: Regions, target: HiddenRegions) -> Float[Tensor, "B M F"]:
    """The features at the chosen positions, in float32. They stand there whether the model may see them or not."""
    num_regions = regions.mask.shape[1]
    rows = regions.image.clamp(min=0)[:, None] * num_regions + target.position
    found = regions.features.flatten(0, 1).index_select(0, rows.flatten())
    return torch.unflatten(found, 0, target.position.shape).float()
