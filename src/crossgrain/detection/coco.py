"""torchvision's Faster R-CNN with a ResNet-50 FPN (Lin et al., 2017), and 2048 features for each of its regions.

FPN's own vectors are 1024 numbers after two fully connected layers; region models were made for 2048 from the last
stage of a ResNet. So the regions that FPN finds are cut from C5, computed beside it once per image, and averaged.

Shape letters: I images, H W pixels, R regions, K classes, D 4 times the classes with background.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights, fasterrcnn_resnet50_fpn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import roi_align

from crossgrain.config import UserError, configclass
from crossgrain.data.regions import RegionFeatures
from crossgrain.detection.interface import Detector, Selection, choose, regions_of, strictly_load, weights_hash
from crossgrain.detection.proposals import apply_deltas, clip
from crossgrain.nn.pixels import Normalise
from crossgrain.nn.weights import read_tensors

PUBLISHED = {"coco": FasterRCNN_ResNet50_FPN_Weights.COCO_V1}
STRIDE = 32  # of C5; images are padded to a multiple of it
POOLED = 7  # cells a side
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # torchvision's, of the second stage


class TorchvisionFasterRCNN(Detector):
    """See the module. Labels are COCO's category ids less 1: 0 is "person"; ids that COCO skipped stay empty."""

    feature_size = 2048

    @configclass
    class Config:
        """`weights`: "coco" (downloaded once), a file with torchvision's keys, or None for random ones by `seed`."""

        weights: str | None = "coco"
        num_classes: Annotated[int, Field(ge=2)] = 91  # with background, as torchvision counts
        norm_eps: float = 0.0  # of the normalisations: 0 for "coco", 1e-5 for networks that were trained with more
        seed: int = 0

    def __init__(self, config: Config, selection: Selection, device: torch.device):
        super().__init__(config, selection, device)
        self.num_classes = config.num_classes - 1
        if config.weights in PUBLISHED:
            self.class_names = tuple(PUBLISHED[config.weights].meta["categories"][1:])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model: Any = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=config.num_classes)
        self.weights = f"random:{config.seed}"
        if config.weights is None:
            for block in (b for number in range(1, 5) for b in model.backbone.body[f"layer{number}"]):
                block.bn3.weight.data.fill_(0.2)  # nothing normalises here: without it features grow past float16
        else:
            strictly_load(model, _read(config.weights), config.weights)
            self.weights = weights_hash(model.state_dict())
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = config.norm_eps
        self.model = model.to(device).eval()
        self.normalise = Normalise("imagenet").to(device)

    @classmethod
    def default_selection(cls, config: Any) -> Selection:
        """At the size that torchvision trained with."""
        return Selection(short_side=800, long_side=1333)

    @torch.no_grad()
    def detect(self, images: list[UInt8[Tensor, "3 H W"]]) -> list[RegionFeatures]:
        """See `Detector`."""
        padded, last_stage, pyramid = self._maps(images)
        height, width = images[0].shape[1:]
        sizes = [(height, width)] * len(images)
        proposals, _ = self.model.rpn(ImageList(padded, sizes), pyramid)
        if self.chosen.whole_image:
            border = padded.new_tensor([[0, 0, width, height]])
            proposals = [torch.cat([border, boxes]) for boxes in proposals]
        second = self._second_stage(pyramid, proposals, (height, width))
        return [self._chosen_regions(*one, (height, width)) for one in zip(last_stage, proposals, *second, strict=True)]

    @torch.no_grad()
    def describe_boxes(
        self, images: list[UInt8[Tensor, "3 H W"]], boxes: list[Float[Tensor, "R 4"]]
    ) -> list[RegionFeatures]:
        """See `Detector`: a box is neither refined nor left out."""
        _, last_stage, pyramid = self._maps(images)
        height, width = images[0].shape[1:]
        boxes = [one.to(self.device) for one in boxes]
        logits, _ = self._second_stage(pyramid, boxes, (height, width))
        return [
            regions_of(one, (height, width), _features(stage, one), said.softmax(1)[:, 1:])
            for stage, one, said in zip(last_stage, boxes, logits, strict=True)
        ]

    def _maps(self, images: list[UInt8[Tensor, "3 H W"]]) -> tuple[Tensor, Float[Tensor, "I 2048 _h _w"], Any]:
        """The padded images, their C5, and the pyramid."""
        pixels = self.normalise(torch.stack(images).to(self.device))
        height, width = pixels.shape[2:]
        padded = torch.nn.functional.pad(pixels, (0, -width % STRIDE, 0, -height % STRIDE))
        stages = self.model.backbone.body(padded)
        return padded, stages["3"], self.model.backbone.fpn(stages)

    def _second_stage(
        self, pyramid: Any, boxes: list[Float[Tensor, "_ 4"]], size: tuple[int, int]
    ) -> tuple[Sequence[Float[Tensor, "_ K1"]], Sequence[Float[Tensor, "_ D"]]]:
        """Logits and deltas of the boxes of each image."""
        heads, counts = self.model.roi_heads, [len(one) for one in boxes]
        pooled = heads.box_roi_pool(pyramid, boxes, [size] * len(boxes))
        logits, deltas = heads.box_predictor(heads.box_head(pooled))
        return logits.split(counts), deltas.split(counts)

    def _chosen_regions(
        self,
        last_stage: Float[Tensor, "2048 _h _w"],
        proposals: Float[Tensor, "R 4"],
        logits: Float[Tensor, "R K1"],
        deltas: Float[Tensor, "R D"],
        size: tuple[int, int],
    ) -> RegionFeatures:
        probs = logits.softmax(1)[:, 1:]
        best = deltas.unflatten(1, (-1, 4))[torch.arange(len(probs)), 1 + probs.argmax(1)]
        boxes = clip(apply_deltas(best, proposals, BOX_WEIGHTS), size)
        if self.chosen.whole_image:
            boxes[0] = proposals[0]
        keep = choose(boxes, probs, self.chosen)
        return regions_of(boxes[keep], size, _features(last_stage, boxes[keep]), probs[keep])


def _features(last_stage: Float[Tensor, "2048 _h _w"], boxes: Float[Tensor, "R 4"]) -> Float[Tensor, "R 2048"]:
    cells = roi_align(last_stage[None], [boxes], POOLED, 1 / STRIDE, sampling_ratio=2, aligned=True)
    return cells.mean((2, 3))


def _read(name: str) -> dict[str, Tensor]:
    if name not in PUBLISHED:
        return read_tensors(Path(name))
    try:
        return dict(PUBLISHED[name].get_state_dict(progress=False, check_hash=True))
    except Exception as error:
        raise UserError(
            f"the weights {name!r} of torchvision's Faster R-CNN could not be downloaded ({type(error).__name__}): "
            f"give a file (detector.weights=FILE), connect to the network once, or try detector.weights=null (random)"
        ) from None
