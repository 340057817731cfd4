"""From token ids and detector regions to vectors of model width."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from crossgrain.data.types import Regions, Text
from crossgrain.nn.boxes import centre_from_corners

BoxForm = Literal["centre", "corners"]


class BertEmbedding(nn.Module):
    """Token plus position plus segment, normalised, as in BERT. B batch, L length, D width."""

    def __init__(self, dim: int, *, vocab_size: int, max_length: int, num_segments: int = 2, dropout: float = 0.1):
        super().__init__()
        self.token = nn.Embedding(vocab_size, dim)
        self.position = nn.Embedding(max_length, dim)
        self.segment = nn.Embedding(num_segments, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, text: Text) -> Float[Tensor, "B L D"]:
        return self.finished(self.summed(text))

    def summed(self, text: Text, first: int = 0) -> Float[Tensor, "B L D"]:
        """The three parts, for models that add a fourth before they normalise. Positions count from `first`."""
        length = text.ids.shape[1]
        x = self.token(text.ids) + self.position.weight[first : first + length]
        return x + (self.segment.weight[0] if text.segment is None else self.segment(text.segment))

    def finished(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """A sum of parts, normalised."""
        return self.dropout(self.norm(x))


class RegionEmbedding(nn.Module):
    """ImageBERT's visual tokens (section 3.1): LN(feature + segment + location + sequence position), all of width D.

    The sequence position is one dummy that all regions share: their order says nothing. A hidden region's feature is
    zeroed, which leaves the bias of its projection; its location stays. I images, N regions, F size of a feature.

    With `global_feature` region 0 is the whole image and its feature the mean of the others. Where regions are hidden
    the mean is taken of those that are not, or it would give them away. With `normalised_parts` projected features and
    locations get a LayerNorm each before they are summed, as in UNITER (model/model.py:267-270): a location is five
    numbers below 1, a feature some hundred that are not, and the plain sum starts nearly blind to where a region is.
    """

    def __init__(
        self,
        dim: int,
        *,
        feature_dim: int,
        global_feature: bool = False,
        normalised_parts: bool = False,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.global_feature = global_feature
        self.feature = nn.Linear(feature_dim, dim)
        self.location = nn.Linear(5, dim)
        self.position = nn.Embedding(1, dim)
        self.feature_norm = nn.LayerNorm(dim, eps=1e-12) if normalised_parts else nn.Identity()
        self.location_norm = nn.LayerNorm(dim, eps=1e-12) if normalised_parts else nn.Identity()
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, regions: Regions, segment: Float[Tensor, " D"]) -> Float[Tensor, "I N D"]:
        feature = self.feature_norm(self.project(regions) + self.feature.bias)
        location = self.location_norm(self.location(five_numbers(regions.boxes)))
        return self.dropout(self.norm(feature + location + self.position.weight[0] + segment))

    def project(self, regions: Regions) -> Float[Tensor, "I N D"]:
        """The features times the projection's matrix; zero where a region is hidden."""
        # Zeroing what is projected is zeroing the features, at a third of the memory: the matrix is all there is.
        x = F.linear(regions.features.to(self.feature.weight.dtype), self.feature.weight)
        if regions.hidden is None:
            return x
        x = x.masked_fill(regions.hidden[..., None], 0.0)
        if not self.global_feature:
            return x
        whole = mean_where(x[:, 1:], (regions.mask & ~regions.hidden)[:, 1:])
        return torch.cat([whole[:, None], x[:, 1:]], dim=1)


def five_numbers(boxes: Float[Tensor, "*B 4"]) -> Float[Tensor, "*B 5"]:
    """ImageBERT's location: x1, y1, x2, y2 and the area, in units of the image."""
    width, height = (boxes[..., 2:] - boxes[..., :2]).unbind(-1)
    return torch.cat([boxes, (width * height)[..., None]], dim=-1)


def mean_where(x: Float[Tensor, "I N D"], chosen: Bool[Tensor, "I N"]) -> Float[Tensor, "I D"]:
    """The mean of the chosen rows of each image; 0 where there are none."""
    return x.masked_fill(~chosen[..., None], 0.0).sum(1) / chosen.sum(1, keepdim=True).clamp(min=1)


class VisualFeatureEmbedding(nn.Module):
    """What a region looks like and where it is, as one vector (VL-BERT, section 3.2; fast_rcnn.py:105-109, 174).

    N regions, F size of a feature, G of the geometry embedding, D width.
    """

    def __init__(self, dim: int, *, feature_dim: int, geometry_dim: int, form: BoxForm, dropout: float = 0.1):
        super().__init__()
        self.geometry_dim = geometry_dim
        self.form: BoxForm = form
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(geometry_dim + feature_dim, dim)

    def forward(self, features: Float[Tensor, "I N F"], boxes: Float[Tensor, "I N 4"]) -> Float[Tensor, "I N D"]:
        geometry = geometry_embedding(boxes, self.geometry_dim // 8, self.form)
        x = torch.cat([geometry, features.to(geometry.dtype)], dim=-1)
        return F.relu(self.linear(self.dropout(x)))


def geometry_embedding(
    boxes: Float[Tensor, "*N 4"], num_waves: int, form: BoxForm = "centre"
) -> Float[Tensor, "*N {8*num_waves}"]:
    """Sines and cosines of a box's four numbers in per cent of the image, at wavelengths of 2 pi to 2 pi * 1000.

    Each number gives `num_waves` sines, then as many cosines. `form` says which four numbers: "centre" (cx, cy, w, h)
    as in VL-BERT's code (bbox.py:33-65), "corners" (x1, y1, x2, y2) as in its paper.
    """
    numbers = 100 * (centre_from_corners(boxes) if form == "centre" else boxes).float()
    waves = 1000 ** (torch.arange(num_waves, device=boxes.device) / num_waves)
    angles = numbers[..., None] / waves
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)
