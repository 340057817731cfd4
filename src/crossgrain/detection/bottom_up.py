"""The detector of bottom-up attention (Anderson et al., 2018): Faster R-CNN, ResNet-101 C4, 1600 classes, attributes.

The features of ImageBERT, VL-BERT, UNITER and LXMERT come from this network, trained with Caffe on Visual Genome. Its
weights exist in Detectron2's names (py-bottom-up-attention; `unc-nlp/frcnn-vg-finetuned` on the model hub); these are
read here, and our own. What follows Caffe and not later custom: blue first and the mean taken off, the stride of a
bottleneck in its first convolution, a max pool that rounds up, anchors at the corner of their cell, RoIPool.

Shape letters: I images, H W pixels, C channels, R regions, K classes, D 4 for each of them, F feature size.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torchvision.ops import roi_align, roi_pool

from crossgrain.config import Count, UserError, configclass
from crossgrain.data.regions import RegionFeatures
from crossgrain.detection.interface import Detector, Selection, choose, regions_of, strictly_load, weights_hash
from crossgrain.detection.proposals import Weights, apply_deltas, clip, grid_anchors, propose
from crossgrain.interop.keys import Rule, translate
from crossgrain.nn.resnet import ResNet, ResNetConfig, dilate
from crossgrain.nn.weights import read_weights

STRIDE = 16  # of C4
HIDDEN = 512  # channels of the proposal network
AT_ONCE = 50  # regions that go through C5 together: one is 14 x 14 cells of 2048 channels

_PARTS = r"(weight|bias|running_mean|running_var)"
# Detectron2's names to ours: its stages res2 to res5 are layer1 to layer4, res5 stands with the heads.
RULES = (
    Rule(r"backbone\.stem\.conv1\.weight", r"resnet.body.conv1.weight"),
    Rule(rf"backbone\.stem\.conv1\.norm\.{_PARTS}", r"resnet.body.bn1.\1"),
    *(
        rule
        for number, stage in enumerate((r"backbone\.res2", r"backbone\.res3", r"backbone\.res4", r"roi_heads\.res5"), 1)
        for rule in (
            Rule(rf"{stage}\.(\d+)\.conv(\d)\.weight", rf"resnet.body.layer{number}.\1.conv\2.weight"),
            Rule(rf"{stage}\.(\d+)\.conv(\d)\.norm\.{_PARTS}", rf"resnet.body.layer{number}.\1.bn\2.\3"),
            Rule(rf"{stage}\.(\d+)\.shortcut\.weight", rf"resnet.body.layer{number}.\1.downsample.0.weight"),
            Rule(rf"{stage}\.(\d+)\.shortcut\.norm\.{_PARTS}", rf"resnet.body.layer{number}.\1.downsample.1.\2"),
        )
    ),
    Rule(r"proposal_generator\.rpn_head\.conv\.(\w+)", r"rpn_conv.\1"),
    Rule(r"proposal_generator\.rpn_head\.objectness_logits\.(\w+)", r"rpn_score.\1"),
    Rule(r"proposal_generator\.rpn_head\.anchor_deltas\.(\w+)", r"rpn_deltas.\1"),
    Rule(r"roi_heads\.box_predictor\.cls_score\.(\w+)", r"class_score.\1"),
    Rule(r"roi_heads\.box_predictor\.bbox_pred\.(\w+)", r"box_deltas.\1"),
    Rule(r"roi_heads\.box_predictor\.cls_embedding\.weight", r"attribute_class.weight"),
    Rule(r"roi_heads\.box_predictor\.fc_attr\.(\w+)", r"attribute_hidden.\1"),
    Rule(r"roi_heads\.box_predictor\.attr_score\.(\w+)", r"attribute_score.\1"),
    Rule(r"proposal_generator\.anchor_generator\..*", dropped="anchors are computed"),
    Rule(r"pixel_(mean|std)", dropped="pixel statistics are fixed"),
    Rule(r".*\.num_batches_tracked", dropped="counters of the normalisations"),
)


class Head(NamedTuple):
    """What C5 says of R regions."""

    feature: Float[Tensor, "R F"]
    classes: Float[Tensor, "R K1"]  # logits; the last column is background
    deltas: Float[Tensor, "R D"]


class C4FasterRCNN(nn.Module):
    """The network; `num_attributes` 0 leaves out their head."""

    def __init__(self, config: "BottomUp.Config", num_classes: int, num_attributes: int):
        super().__init__()
        self.config, self.num_attributes = config, num_attributes
        self.resnet = ResNet(ResNetConfig(name=config.name, pixels="caffe", stride_in_1x1=True))
        self.resnet.body.maxpool = nn.MaxPool2d(3, 2, padding=0, ceil_mode=True)
        dilate(self.resnet.stage(5))
        dim, num_anchors = self.resnet.num_channels, len(config.anchors) * len(config.ratios)
        self.rpn_conv = nn.Conv2d(dim // 2, HIDDEN, 3, padding=1)
        self.rpn_score = nn.Conv2d(HIDDEN, num_anchors, 1)
        self.rpn_deltas = nn.Conv2d(HIDDEN, 4 * num_anchors, 1)
        self.class_score = nn.Linear(dim, num_classes + 1)
        self.box_deltas = nn.Linear(dim, 4 * num_classes)
        if num_attributes:
            self.attribute_class = nn.Embedding(num_classes + 1, dim // 8)
            self.attribute_hidden = nn.Linear(dim + dim // 8, dim // 4)
            self.attribute_score = nn.Linear(dim // 4, num_attributes + 1)  # the last one is "no attribute"

    def c4(self, images: UInt8[Tensor, "I 3 H W"]) -> Float[Tensor, "I C _h _w"]:
        """The map that everything is computed from."""
        return self.resnet.features(self.resnet.normalise(images), 1, 4)

    def propose(self, c4: Float[Tensor, "I C _h _w"], size: tuple[int, int]) -> list[Float[Tensor, "_ 4"]]:
        """The proposals of each image, in pixels."""
        c = self.config
        x = self.rpn_conv(c4).relu()
        scores = self.rpn_score(x).permute(0, 2, 3, 1).flatten(1)
        deltas = self.rpn_deltas(x).permute(0, 2, 3, 1).reshape(len(x), -1, 4)
        anchors = grid_anchors((c4.shape[2], c4.shape[3]), STRIDE, c.anchors, c.ratios).to(c4.device)
        boxes = apply_deltas(deltas, anchors.expand_as(deltas))
        return [
            propose(s, b, size, before=c.candidates, after=c.proposals, overlap=0.7)
            for s, b in zip(scores, boxes, strict=True)
        ]

    def head(self, c4: Float[Tensor, "C _h _w"], boxes: Float[Tensor, "R 4"]) -> Head:
        """The regions of one image."""
        pool = roi_pool if self.config.pool == "pool" else roi_align
        cells = (pool(c4[None], [part], self.config.pooled, 1 / STRIDE) for part in boxes.split(AT_ONCE))
        feature = torch.cat([self.resnet.features(part, 5, 5).mean((2, 3)) for part in cells])
        return Head(feature, self.class_score(feature), self.box_deltas(feature))

    def attributes(self, head: Head) -> Int[Tensor, " R"] | None:
        """The likeliest attribute of each region, given its likeliest class."""
        if not self.num_attributes:
            return None
        known = torch.cat([head.feature, self.attribute_class(head.classes.argmax(1))], dim=1)
        return self.attribute_score(self.attribute_hidden(known).relu())[:, :-1].argmax(1)


class BottomUp(Detector):
    """See the module. Boxes are refined by the regression of their class; Caffe's features had them as proposed."""

    feature_size = 2048

    @configclass
    class Config:
        """`weights` is a file, a folder, a name on the model hub, or None for random ones by `seed`.

        A file says itself how many classes it has, and whether attributes.
        """

        weights: str | None = None
        name: str = "resnet101"  # of timm's; any with bottleneck blocks
        num_classes: Count = 1600  # without background, of random weights; those of a file are its own
        num_attributes: int = 400  # 0: no attributes
        anchors: tuple[float, ...] = (64.0, 128.0, 256.0, 512.0)  # sides in pixels
        ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height to width
        candidates: Count = 6000  # anchors that go into the first suppression
        proposals: Count = 300  # and how many come out of it
        pool: str = "pool"
        pooled: Count = 14  # cells a side
        refined: bool = True
        box_weights: Weights = (10.0, 10.0, 5.0, 5.0)
        seed: int = 0

        def __post_init__(self) -> None:
            if self.pool not in ("pool", "align"):
                raise ValueError(f"pool must be pool (RoIPool, as trained) or align (RoIAlign), not {self.pool!r}")

    def __init__(self, config: Config, selection: Selection, device: torch.device):
        super().__init__(config, selection, device)
        self.num_classes, num_attributes = config.num_classes, config.num_attributes
        state: Mapping[str, Tensor] | None = None
        if config.weights is not None:
            state = read_weights(config.weights)
            self.num_classes, num_attributes = _sizes(state, config.weights)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model = C4FasterRCNN(config, self.num_classes, num_attributes)
        self.weights = f"random:{config.seed}"
        if state is None:
            for stage in range(2, 6):
                for block in model.resnet.stage(stage):
                    block.bn3.weight.data.fill_(0.2)  # type: ignore[union-attr] - nothing normalises here
        else:
            load(model, state, str(config.weights))
            self.weights = weights_hash(model.state_dict())
        self.feature_size = model.resnet.num_channels
        self.model = model.to(device).eval()

    @classmethod
    def default_selection(cls, config: "BottomUp.Config") -> Selection:
        """10 to 100 boxes above 0.2, at 600 x 1000 pixels."""
        return Selection()

    @torch.no_grad()
    def detect(self, images: list[UInt8[Tensor, "3 H W"]]) -> list[RegionFeatures]:
        """See `Detector`."""
        pixels = torch.stack(images).to(self.device)
        size = (pixels.shape[2], pixels.shape[3])
        c4 = self.model.c4(pixels)
        return [self._chosen_regions(x, boxes, size) for x, boxes in zip(c4, self.model.propose(c4, size), strict=True)]

    @torch.no_grad()
    def describe_boxes(
        self, images: list[UInt8[Tensor, "3 H W"]], boxes: list[Float[Tensor, "R 4"]]
    ) -> list[RegionFeatures]:
        """See `Detector`: a box is neither refined nor left out."""
        c4, size = self.model.c4(torch.stack(images).to(self.device)), (images[0].shape[1], images[0].shape[2])
        found = []
        for x, one in zip(c4, boxes, strict=True):
            head = self.model.head(x, one.to(self.device))
            probs = head.classes.softmax(1)[:, :-1]
            found.append(regions_of(one, size, head.feature, probs, self.model.attributes(head)))
        return found

    def _chosen_regions(self, c4: Tensor, boxes: Float[Tensor, "R 4"], size: tuple[int, int]) -> RegionFeatures:
        if self.chosen.whole_image:
            boxes = torch.cat([boxes.new_tensor([[0, 0, size[1], size[0]]]), boxes])
        head = self.model.head(c4, boxes)
        probs = head.classes.softmax(1)[:, :-1]
        if self.config.refined:
            best = head.deltas.unflatten(1, (-1, 4))[torch.arange(len(probs)), probs.argmax(1)]
            refined = clip(apply_deltas(best, boxes, self.config.box_weights), size)
            boxes = torch.cat([boxes[:1], refined[1:]]) if self.chosen.whole_image else refined
        keep = choose(boxes, probs, self.chosen)
        attribute = self.model.attributes(Head(*(x[keep] for x in head)))
        return regions_of(boxes[keep], size, head.feature[keep], probs[keep], attribute)


def load(model: C4FasterRCNN, state: Mapping[str, Tensor], where: str) -> None:
    """Fill the network from Detectron2's names or its own; UserError tells of every key that finds no place."""
    if "class_score.weight" not in state:
        own = {name: x for name, x in model.state_dict().items() if not name.endswith("num_batches_tracked")}
        state, _ = translate(state, RULES, {name: x.shape for name, x in own.items()}, where)
    strictly_load(model, state, where)


def _sizes(state: Mapping[str, Tensor], where: str) -> tuple[int, int]:
    """How many classes and attributes a file has, without background and "no attribute"."""
    names = (
        ("class_score", "attribute_score"),
        (
            "roi_heads.box_predictor.cls_score",
            "roi_heads.box_predictor.attr_score",
        ),
    )
    for classes, attributes in names:
        if (bias := state.get(f"{classes}.bias")) is not None:
            other = state.get(f"{attributes}.bias")
            return len(bias) - 1, 0 if other is None else len(other) - 1
    raise UserError(
        f"{where}: no class_score.bias nor roi_heads.box_predictor.cls_score.bias: no weights of this detector "
        "(docs/detection.md lists the keys)"
    )
