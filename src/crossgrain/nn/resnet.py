"""Residual networks as feature extractors, through timm: the pixels of Pixel-BERT, the regions of VL-BERT.

Shape letters: I images, C channels, H W pixels of the canvas, R x K cells of a feature map.
"""

from typing import Annotated, Any, Literal

import timm
import torch
from jaxtyping import Float
from pydantic import Field
from timm.models.resnet import BasicBlock, Bottleneck
from timm.models.resnet import ResNet as TimmResNet
from torch import Tensor, nn

from crossgrain.config import UserError, configclass
from crossgrain.nn.pixels import Normalise, Statistics
from crossgrain.nn.transformer import run_layers
from crossgrain.nn.vision import load_encoder

# Pixel-BERT's larger network, which timm does not have by name.
OWN = {"resnext152_32x8d": {"block": Bottleneck, "layers": (3, 8, 36, 3), "cardinality": 32, "base_width": 8}}
Stage = Literal[1, 2, 3, 4, 5]


@configclass
class ResNetConfig:
    """Which network, where its first weights come from and which of them stay as they are.

    Stages are counted as in the detectors' literature: 1 is the stem, 2 to 5 are the residual stages C2 to C5.
    """

    name: str = "resnet50"  # a ResNet of timm's, or resnext152_32x8d
    weights: str | None = None  # timm's name (`resnet50.tv_in1k`) or a file in timm's or torchvision's names
    frozen_norm: bool = True  # batch normalisation by the statistics and scales of `weights`; train it from scratch
    frozen_stages: tuple[Stage, ...] = ()
    pixels: Statistics = "imagenet"  # how the weights want pixels
    stride_in_1x1: bool = False  # a bottleneck halves its map in its first convolution, as in Caffe's networks


class ResNet(nn.Module):
    """Pixels to feature maps. What is made of the maps belongs to the subclasses."""

    def __init__(self, config: ResNetConfig, num_stages: Annotated[int, Field(ge=2, le=5)] = 5):
        super().__init__()
        c = config
        self.checkpointing = False
        self.normalise = Normalise(c.pixels)
        self.body = build(c.name, zero_init_last=not c.frozen_norm)
        for number in range(num_stages + 1, 6):
            setattr(self.body, f"layer{number - 1}", nn.Identity())
        if c.weights is not None:
            load_encoder(self.body, c.weights, as_timm)
        if c.stride_in_1x1:
            _move_stride(self.body)
        self.num_stages = num_stages
        self.num_channels: int = self.body.feature_info[num_stages - 1]["num_chs"]
        self.recompute = c.frozen_norm
        self.still = self._freeze(c)

    def _freeze(self, config: ResNetConfig) -> list[nn.Module]:
        """Take the gradient from what is frozen, and name the modules that never enter training mode."""
        if any(stage > self.num_stages for stage in config.frozen_stages):
            raise ValueError(
                f"frozen_stages {list(config.frozen_stages)}: this network has stages 1 to {self.num_stages}"
            )
        modules = [module for stage in config.frozen_stages for module in self.stage(stage)]
        if config.frozen_norm:
            modules += [module for module in self.body.modules() if isinstance(module, nn.BatchNorm2d)]
        for module in modules:
            module.requires_grad_(False)
        return modules

    def stage(self, number: int) -> list[nn.Module]:
        """The modules of a stage in their order; 1 is the stem."""
        body = self.body
        return (
            [body.conv1, body.bn1, body.act1, body.maxpool] if number == 1 else [*getattr(body, f"layer{number - 1}")]
        )

    def train(self, mode: bool = True) -> "ResNet":
        """Frozen stages and frozen normalisations stay in evaluation mode."""
        super().train(mode)
        for module in self.still:
            module.eval()
        return self

    def enable_activation_checkpointing(self) -> None:
        """Keep only the inputs of blocks; without effect where normalisations train, which must see a batch once."""
        self.checkpointing = self.recompute

    def features(self, x: Tensor, first: int, last: int) -> Float[Tensor, "I C R K"]:
        """Normalised pixels, or the map before stage `first`, through the stages up to `last`."""
        x = x.contiguous(memory_format=torch.channels_last)  # a tenth to a third faster on a CPU
        for number in range(first, last + 1):
            x = run_layers(self.stage(number), x, checkpoint=self.checkpointing and number > 1)
        return x


def build(name: str, *, zero_init_last: bool) -> Any:
    """A ResNet without its classifier, with first weights of timm's. UserError where `name` is none.

    With `zero_init_last` every block starts as its shortcut: the scale of its last normalisation is zero, and has to be
    trained.
    """
    if name in OWN:
        return TimmResNet(**OWN[name], num_classes=0, zero_init_last=zero_init_last)
    if not timm.models.is_model_in_modules(name.split(".")[0], ["resnet"]):
        raise UserError(f"{name!r} is no ResNet that timm has: write resnet50, resnet101, {', '.join(OWN)} or another")
    return timm.create_model(name, num_classes=0, zero_init_last=zero_init_last)


def as_timm(state: dict[str, Tensor], body: nn.Module) -> dict[str, Tensor]:
    """Tensors without the classifier and stages that `body` lacks; older files count no batches of normalisations."""
    unused = ("fc.", *(f"{name}." for name, stage in body.named_children() if isinstance(stage, nn.Identity)))
    state = {name: value for name, value in state.items() if not name.startswith(unused)}
    counters = {name: value for name, value in body.state_dict().items() if name.endswith("num_batches_tracked")}
    return counters | state


def dilate(stage: list[nn.Module]) -> None:
    """Make a stage keep the size of its map: stride 1 instead of 2, and 3x3 convolutions that reach twice as far."""
    for block in stage:
        for module in block.modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
                if module.kernel_size == (3, 3):
                    module.dilation = module.padding = (2, 2)
            elif isinstance(module, nn.AvgPool2d):
                raise UserError("a ResNet whose shortcut pools cannot be dilated: write dilated: false")


def _move_stride(body: nn.Module) -> None:
    for module in body.modules():
        if isinstance(module, BasicBlock):
            raise UserError("stride_in_1x1 needs bottleneck blocks: ResNet-50 or larger")
        if isinstance(module, Bottleneck):
            module.conv1.stride, module.conv2.stride = module.conv2.stride, module.conv1.stride
