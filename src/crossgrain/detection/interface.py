"""What a detector is to the rest of the library, and how the boxes of an image are chosen.

Shape letters: H W pixels, R candidate boxes, N chosen ones, K classes, F feature size.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from pydantic import Field
from torch import Tensor, nn
from torchvision.ops import batched_nms, nms

from crossgrain.config import Count, UserError, configclass, dump_config
from crossgrain.data.images import ImageConfig
from crossgrain.data.regions import RegionFeatures
from crossgrain.detection.proposals import rows_with_area

Probability = Annotated[float, Field(ge=0, le=1)]


@configclass
class Selection:
    """Which boxes of an image are kept, and at what size it is looked at.

    Boxes that reach `score_threshold` are kept, but at least `min_boxes` (as far as there are any) and at most
    `max_boxes`, the best first. Of two that overlap by more than `nms` (IoU) the better one stays; with
    `class_agnostic` also when their classes differ. `whole_image` puts the whole image first, besides the others.
    """

    score_threshold: Probability = 0.2
    min_boxes: Annotated[int, Field(ge=0)] = 10
    max_boxes: Count = 100
    nms: Probability = 0.5
    class_agnostic: bool = True
    whole_image: bool = False
    short_side: Count = 600  # pixels that the shorter side is resized to,
    long_side: Count | None = 1000  # unless the longer one would come to more than this; None: to a square

    def __post_init__(self) -> None:
        if self.min_boxes > self.max_boxes:
            raise ValueError(f"min_boxes is {self.min_boxes}, but max_boxes is {self.max_boxes}")
        if self.long_side is not None and self.short_side > self.long_side:
            raise ValueError(f"short_side is {self.short_side}, but long_side is {self.long_side}")

    @property
    def image(self) -> ImageConfig:
        """How images are resized."""
        return ImageConfig(size=self.short_side, long_side=self.long_side)


class Detector(ABC):
    """Finds the regions of images and describes them. Subclass it, and name the subclass as `package.module:Class`.

    A detector is made as `Class(config, selection, device)`, with `config` of its nested `Config`. It must find the
    same regions for the same images, whatever process it runs in.
    """

    feature_size: int  # F
    num_classes: int  # K, without a background class
    weights: str  # SHA-256 (`weights_hash`), or "random:SEED"
    class_names: tuple[str, ...] = ()  # of the K classes, where they are known

    def __init__(self, config: Any, selection: Selection, device: torch.device):
        self.config, self.chosen, self.device = config, selection, device

    @classmethod
    def default_selection(cls, config: Any) -> Selection:
        """What this detector takes where the user says nothing else."""
        return Selection()

    @abstractmethod
    def detect(self, images: list[UInt8[Tensor, "3 H W"]]) -> list[RegionFeatures]:
        """The regions of each image, best first. All images have the same size, that its selection asks for."""

    def describe_boxes(
        self, images: list[UInt8[Tensor, "3 H W"]], boxes: list[Float[Tensor, "N 4"]]
    ) -> list[RegionFeatures]:
        """What the detector says of given boxes of each image, in pixels: of each of them and in their order.

        UserError from a detector that cannot, and has therefore no method of its own.
        """
        raise UserError(
            f"{stamp_name(type(self))} has no method `describe_boxes`, which boxes=annotated and boxes=both need: "
            "leave out boxes, or write it (docs/detection.md)"
        )

    def stamp(self) -> dict[str, Any]:
        """What made the regions, in plain JSON values: regions of different stamps are never mixed."""
        s = self.chosen
        return {
            "detector": stamp_name(type(self)),
            "weights": self.weights,
            "score_threshold": s.score_threshold,
            "min_boxes": s.min_boxes,
            "max_boxes": s.max_boxes,
            "nms": s.nms,
            "class_agnostic": s.class_agnostic,
            "whole_image": s.whole_image,
            "image_size": [s.short_side, s.long_side],
            "feature_size": self.feature_size,
            "num_classes": self.num_classes,
            "settings": self.settings(),
        }

    def settings(self) -> dict[str, Any]:
        """What else regions depend on, in plain JSON values: all of `config` but the weights and where they lie."""
        return {name: value for name, value in dump_config(self.config).items() if name not in ("weights", "run")}


def stamp_name(owner: type) -> str:
    """A detector's name in the table, or `package.module:Class` of an outsider's."""
    from crossgrain.detection import DETECTORS

    entry = f"{owner.__module__}:{owner.__qualname__}"
    return next((name for name, known in DETECTORS.items() if known == entry), entry)


def choose(boxes: Float[Tensor, "R 4"], probs: Float[Tensor, "R K"], selection: Selection) -> Int[Tensor, " N"]:
    """The rows to keep, best first. With `whole_image`, row 0 is the whole image and comes first.

    A row's score is its highest probability (`probs` need not sum to 1: background is left out). Boxes are in pixels;
    those thinner than a pixel are never kept.
    """
    scores, labels = probs.max(1)
    rows = rows_with_area(boxes)
    if selection.whole_image:
        rows = rows[rows > 0]
    suppress = nms if selection.class_agnostic else lambda b, s, iou: batched_nms(b, s, labels[rows], iou)
    rows = rows[suppress(boxes[rows], scores[rows], selection.nms)]
    count = int((scores[rows] >= selection.score_threshold).sum())
    rows = rows[: min(max(count, selection.min_boxes), selection.max_boxes)]
    return torch.cat([rows.new_zeros(1), rows]) if selection.whole_image else rows


def regions_of(
    boxes: Float[Tensor, "N 4"],
    size: tuple[int, int],
    features: Float[Tensor, "N F"],
    probs: Float[Tensor, "N K"],
    attributes: Int[Tensor, " N"] | None = None,
) -> RegionFeatures:
    """Chosen boxes in pixels of an image of this (height, width) as what is stored; `probs` then sum to 1."""
    height, width = size
    scores, labels = probs.max(1)
    return RegionFeatures.of(
        boxes=_host(boxes / boxes.new_tensor([width, height, width, height])),
        features=_host(features),
        labels=_host(labels),
        scores=_host(scores),
        class_probs=_host(probs / probs.sum(1, keepdim=True).clamp(min=1e-12)),
        attributes=None if attributes is None else _host(attributes),
    )


def _host(x: Tensor) -> np.ndarray:
    return x.float().cpu().numpy() if x.is_floating_point() else x.cpu().numpy()


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values, in the order of names: the same for every file format."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def strictly_load(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Fill every tensor of `module`. UserError names keys that are unknown, missing, or of another shape.

    How many batches a normalisation has counted is of no use here, and older files do not have it.
    """
    own = {name: tensor for name, tensor in module.state_dict().items() if not name.endswith("num_batches_tracked")}
    given = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    shapes = [
        f"{name} {tuple(given[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in given and given[name].shape != tensor.shape
    ]
    problems = {"unknown keys": given.keys() - own.keys(), "missing": own.keys() - given.keys(), "shapes": shapes}
    told = [f"{what} {sorted(names)[:4]} ({len(names)})" for what, names in problems.items() if names]
    if told:
        raise UserError(f"{where} does not fit this detector: {'; '.join(told)}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(given[name])
