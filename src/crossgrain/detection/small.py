"""A small Faster R-CNN for small pictures with few objects: it learns the embedded scenes in minutes on two cores.

Two stages as in Ren et al. (2015): boxes proposed from anchors on a map of stride 8, each described by RoIAlign from a
map of stride 4 that also knows what the coarser one saw. The vector of a region is the layer before its classifiers;
these name its class and its attributes, so the vector knows both.

Shape letters: B images, H W pixels, M objects at most, A anchors, R regions, K classes, T attributes, F feature size.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torchvision.ops import box_iou, roi_align, sigmoid_focal_loss

from crossgrain.config import Count, configclass
from crossgrain.data.types import Tensors
from crossgrain.detection.proposals import apply_deltas, clip, deltas_between, grid_anchors, propose

STRIDE = 8  # of the map that boxes are proposed from; their features come from one of half of it
PAD = -100  # the label of rows without an object
# Deltas are learnt in these units, so that errors in place and size weigh about as much as one in the class.
UNITS = (10.0, 10.0, 5.0, 5.0)


@dataclass(frozen=True, kw_only=True)
class Objects(Tensors):
    """What there is to find in B images."""

    boxes: Float[Tensor, "B M 4"]  # (x1, y1, x2, y2) in [0, 1]
    label: Int[Tensor, "B M"]  # PAD where there is none
    attributes: Float[Tensor, "B M T"]  # 1 for each attribute that the object has


class Described(NamedTuple):
    """R regions of several images."""

    feature: Float[Tensor, "R F"]
    classes: Float[Tensor, "R K1"]  # logits; the last column is background
    attributes: Float[Tensor, "R T"]  # logits
    deltas: Float[Tensor, "R 4"]


class SmallFasterRCNN(nn.Module):
    """See the module."""

    @configclass
    class Config:
        """`classes` and `attributes` are read from the data where a recipe leaves them out."""

        image_size: Count = 128  # pixels a side of the square that images are resized to
        widths: tuple[Count, Count, Count] = (24, 48, 96)  # channels at strides 2, 4 and 8
        anchors: tuple[float, ...] = (22.0, 36.0, 56.0)  # sides in pixels
        feature_dim: Count = 256
        pooled: Count = 7  # cells a side that RoIAlign takes of a region
        proposals: Count = 16  # regions of an image that the second stage sees
        classes: tuple[str, ...] = ()
        attributes: tuple[str, ...] = ()

        def __post_init__(self) -> None:
            if self.image_size % STRIDE:
                raise ValueError(f"image_size must be a multiple of {STRIDE}, not {self.image_size}")

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        first, fine, coarse = config.widths
        self.fine = nn.Sequential(_Conv(3, first, 2), _Conv(first, fine, 2), _Residual(fine))
        self.coarse = nn.Sequential(_Conv(fine, coarse, 2), _Residual(coarse))
        self.lateral, self.top_down = nn.Conv2d(fine, fine, 1), nn.Conv2d(coarse, fine, 1)
        num_anchors = len(config.anchors)
        self.proposal = _Conv(coarse, coarse, 1)
        self.objectness = nn.Conv2d(coarse, num_anchors, 1)
        self.anchor_deltas = nn.Conv2d(coarse, 4 * num_anchors, 1)
        self.describe = nn.Sequential(
            nn.Flatten(),
            nn.Linear(fine * config.pooled**2, config.feature_dim),
            nn.ReLU(),
            nn.Linear(config.feature_dim, config.feature_dim),
            nn.ReLU(),
        )
        self.classes = nn.Linear(config.feature_dim, len(config.classes) + 1)
        self.attributes = nn.Linear(config.feature_dim, len(config.attributes))
        self.deltas = nn.Linear(config.feature_dim, 4)
        self.objectness.bias = nn.Parameter(
            torch.full((num_anchors,), -4.0)
        )  # few anchors hold an object, and the focal loss counts on it
        for layer in (self.objectness, self.anchor_deltas, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
        anchors = grid_anchors(
            (config.image_size // STRIDE, config.image_size // STRIDE), STRIDE, config.anchors, [1.0], offset=0.5
        )
        self.register_buffer("anchors", anchors, persistent=False)
        self.size = (config.image_size, config.image_size)

    anchors: Tensor

    def new_parameters(self) -> set[str]:
        """All of them: nothing is pre-trained."""
        return {name for name, _ in self.named_parameters()}

    def maps(self, pixels: UInt8[Tensor, "B 3 H W"]) -> tuple[Tensor, Tensor]:
        """The maps that regions are described from (stride 4) and proposed from (stride 8)."""
        # Of activations, not of parameters: the optimizer's state comes back from a checkpoint in the usual layout.
        x = (pixels.float() / 127.5 - 1.0).contiguous(memory_format=torch.channels_last)
        fine = self.fine(x)
        coarse = self.coarse(fine)
        above = F.interpolate(self.top_down(coarse), scale_factor=2.0, mode="nearest")
        return F.relu(self.lateral(fine) + above), coarse

    def first_stage(self, coarse: Tensor) -> tuple[Float[Tensor, "B A"], Float[Tensor, "B A 4"]]:
        """Objectness logits and deltas of every anchor."""
        x = self.proposal(coarse)
        scores, deltas = self.objectness(x), self.anchor_deltas(x)
        batch = len(x)
        return (
            scores.permute(0, 2, 3, 1).reshape(batch, -1).float(),
            deltas.permute(0, 2, 3, 1).reshape(batch, -1, 4).float(),
        )

    @torch.no_grad()
    def propose(
        self, scores: Float[Tensor, "B A"], deltas: Float[Tensor, "B A 4"], overlap: float = 0.6
    ) -> list[Float[Tensor, "_ 4"]]:
        """The most promising boxes of each image, in pixels."""
        size, count = self.size, self.config.proposals
        boxes = apply_deltas(deltas, self.anchors.expand_as(deltas), UNITS)
        return [
            propose(s, b, size, before=4 * count, after=count, overlap=overlap)
            for s, b in zip(scores, boxes, strict=True)
        ]

    def second_stage(self, fine: Tensor, boxes: list[Tensor]) -> Described:
        """What the regions of all images are, image by image."""
        cells = roi_align(fine.float(), boxes, self.config.pooled, 1 / (STRIDE // 2), sampling_ratio=1, aligned=True)
        feature = self.describe(cells)
        outputs = (feature, self.classes(feature), self.attributes(feature), self.deltas(feature))
        return Described(*(x.float() for x in outputs))

    def losses(self, pixels: UInt8[Tensor, "B 3 H W"], objects: Objects) -> dict[str, Float[Tensor, ""]]:
        """The four losses of Faster R-CNN (here focal for the anchors), and that of the attributes."""
        real = objects.label != PAD
        truth = objects.boxes * self.config.image_size
        fine, coarse = self.maps(pixels)
        scores, deltas = self.first_stage(coarse)
        losses = self._anchor_losses(scores, deltas, truth, real)
        with torch.no_grad():
            found = self.propose(scores, deltas)
            boxes = [torch.cat([t[r], p]) for t, r, p in zip(truth, real, found, strict=True)]
            matched = [_match(b, t, r) for b, t, r in zip(boxes, truth, real, strict=True)]
        described = self.second_stage(fine, boxes)
        rows = torch.cat([torch.full_like(m, i) for i, m in enumerate(matched)])
        return losses | self._region_losses(described, torch.cat(boxes), rows, torch.cat(matched), truth, objects)

    def _anchor_losses(
        self,
        scores: Float[Tensor, "B A"],
        deltas: Float[Tensor, "B A 4"],
        truth: Float[Tensor, "B M 4"],
        real: Bool[Tensor, "B M"],
    ) -> dict[str, Tensor]:
        """An anchor is an object's from IoU 0.5, or if it is the object's best; between 0.35 and 0.5 it is neither."""
        batch, objects = real.shape
        iou = box_iou(self.anchors, truth.reshape(-1, 4)).view(-1, batch, objects).transpose(0, 1)
        iou = iou.masked_fill(~real[:, None], 0.0)  # (B, A, M)
        best = (iou == iou.amax(1, keepdim=True)) & (iou > 0.1)
        nearest = torch.where(best, iou + 1, iou).max(2)
        positive, unsure = nearest.values >= 0.5, (nearest.values >= 0.35) & (nearest.values < 0.5)
        count = positive.sum().clamp(min=1)
        focal = sigmoid_focal_loss(scores, positive.float(), alpha=0.5, gamma=2.0)
        target = truth.gather(1, nearest.indices[..., None].expand(-1, -1, 4))
        wanted = deltas_between(self.anchors.expand_as(target), target) * deltas.new_tensor(UNITS)
        error = F.smooth_l1_loss(deltas, wanted, reduction="none", beta=1.0).sum(2)
        return {
            "objectness": focal.masked_fill(unsure, 0.0).sum() / count,
            "anchor_box": error.masked_fill(~positive, 0.0).sum() / count,
        }

    def _region_losses(
        self,
        described: Described,
        boxes: Float[Tensor, "R 4"],
        rows: Int[Tensor, " R"],
        matched: Int[Tensor, " R"],
        truth: Float[Tensor, "B M 4"],
        objects: Objects,
    ) -> dict[str, Tensor]:
        """`matched` is each region's object in its image (`rows`), -1 for background."""
        is_object, index = matched >= 0, matched.clamp(min=0)
        label = torch.where(is_object, objects.label[rows, index], len(self.config.classes))
        count = is_object.sum().clamp(min=1)
        wanted = deltas_between(boxes, truth[rows, index]) * boxes.new_tensor(UNITS)
        error = F.smooth_l1_loss(described.deltas, wanted, reduction="none").sum(1)
        attributes = F.binary_cross_entropy_with_logits(
            described.attributes, objects.attributes[rows, index], reduction="none"
        ).sum(1)
        return {
            "classes": F.cross_entropy(described.classes, label),
            "attributes": attributes.masked_fill(~is_object, 0.0).sum() / count,
            "region_box": error.masked_fill(~is_object, 0.0).sum() / count,
        }

    @torch.no_grad()
    def find(
        self, pixels: UInt8[Tensor, "B 3 H W"], whole: bool = False
    ) -> list[tuple[Float[Tensor, "R 4"], Described]]:
        """For each image the boxes of its regions in pixels, refined, and what they are; with `whole` the image first.

        The whole image's box stays as it is.
        """
        size = self.size
        fine, coarse = self.maps(pixels)
        boxes = self.propose(*self.first_stage(coarse))
        border = pixels.new_tensor([[0, 0, size[1], size[0]]], dtype=torch.float32)
        if whole:
            boxes = [torch.cat([border, b]) for b in boxes]
        described = self.second_stage(fine, boxes)
        counts = [len(b) for b in boxes]
        parts = zip(*(x.split(counts) for x in described), strict=True)
        found = []
        for image, part in zip(boxes, map(Described._make, parts), strict=True):
            refined = clip(apply_deltas(part.deltas, image, UNITS), size)
            found.append((torch.cat([border, refined[1:]]) if whole else refined, part))
        return found


class _Conv(nn.Sequential):
    """3x3 convolution, normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class _Residual(nn.Module):
    """Two convolutions beside an identity."""

    def __init__(self, width: int):
        super().__init__()
        self.first = _Conv(width, width, 1)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


def _match(boxes: Float[Tensor, "R 4"], truth: Float[Tensor, "M 4"], real: Bool[Tensor, " M"]) -> Int[Tensor, " R"]:
    """The object that each box covers with an IoU of 0.5 or more, else -1."""
    iou = box_iou(boxes, truth).masked_fill(~real, 0.0)
    best = iou.max(1)
    return torch.where(best.values >= 0.5, best.indices, -1)
