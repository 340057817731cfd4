"""A detector that this library trained (`detection/train.py`), from its run folder.

Shape letters: H W pixels, R regions.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from crossgrain.config import UserError, configclass
from crossgrain.data.images import ImageConfig
from crossgrain.data.regions import RegionFeatures
from crossgrain.detection.interface import Detector, Selection, choose, regions_of, weights_hash
from crossgrain.detection.small import Described, SmallFasterRCNN
from crossgrain.detection.train import load_network
from crossgrain.training.precision import autocast, resolve_precision


class TrainedDetector(Detector):
    """See the module. Classes and attributes are those of the data it was trained on (in its recipe.yaml)."""

    @configclass
    class Config:
        """`run` is a folder that the training of a detector wrote."""

        run: Path

    def __init__(self, config: Config, selection: Selection, device: torch.device):
        super().__init__(config, selection, device)
        self.model: SmallFasterRCNN = load_network(config.run)
        self.weights = weights_hash(self.model.state_dict())
        self.feature_size = self.model.config.feature_dim
        self.class_names = self.model.config.classes
        self.num_classes = len(self.class_names)
        if selection.image != ImageConfig(size=self.model.config.image_size):
            size = self.model.config.image_size
            raise UserError(
                f"the detector in {config.run} looks at squares of {size} pixels: leave the sides as they are"
            )
        self.model.to(device)

    @classmethod
    def default_selection(cls, config: "TrainedDetector.Config") -> Selection:
        """At most 8 boxes, at the size it was trained with."""
        size = load_network(config.run).config.image_size
        return Selection(score_threshold=0.2, min_boxes=1, max_boxes=8, nms=0.4, short_side=size, long_side=None)

    def settings(self) -> dict[str, Any]:
        """See `Detector`: what the tensors of the network do not tell."""
        network = self.model.config
        return {"anchors": list(network.anchors), "pooled": network.pooled, "proposals": network.proposals}

    @torch.no_grad()
    def detect(self, images: list[UInt8[Tensor, "3 H W"]]) -> list[RegionFeatures]:
        """See `Detector`."""
        pixels = torch.stack(images).to(self.device)
        with autocast(resolve_precision("auto", self.device), self.device):
            found = self.model.find(pixels, whole=self.chosen.whole_image)
        regions = []
        for boxes, described in found:
            keep = choose(boxes, described.classes.softmax(1)[:, :-1], self.chosen)
            regions.append(self._regions(boxes[keep], Described(*(x[keep] for x in described))))
        return regions

    @torch.no_grad()
    def describe_boxes(
        self, images: list[UInt8[Tensor, "3 H W"]], boxes: list[Float[Tensor, "R 4"]]
    ) -> list[RegionFeatures]:
        """See `Detector`: a box is neither refined nor left out."""
        boxes = [one.to(self.device) for one in boxes]
        with autocast(resolve_precision("auto", self.device), self.device):
            fine, _ = self.model.maps(torch.stack(images).to(self.device))
            described = self.model.second_stage(fine, boxes)
        parts = zip(*(x.split([len(one) for one in boxes]) for x in described), strict=True)
        return [self._regions(one, Described(*part)) for one, part in zip(boxes, parts, strict=True)]

    def _regions(self, boxes: Float[Tensor, "R 4"], described: Described) -> RegionFeatures:
        attribute = described.attributes.argmax(1) if described.attributes.shape[1] else None
        probs = described.classes.softmax(1)[:, :-1]
        return regions_of(boxes, self.model.size, described.feature, probs, attribute)
