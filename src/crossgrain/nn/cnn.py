"""A picture as the cells of a CNN's last feature map (Pixel-BERT, section 3.2.2).

Shape letters: I images, C channels, R x K cells.
"""

from typing import Annotated, NamedTuple

import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from crossgrain.config import configclass
from crossgrain.data.types import Pixels
from crossgrain.nn.pixels import cells_of_images
from crossgrain.nn.resnet import ResNet, ResNetConfig


class Cells(NamedTuple):
    """The cells of each image on its canvas."""

    x: Float[Tensor, "I R K C"]
    mask: Bool[Tensor, "I R K"]  # True where the cell holds some part of the image


class CNN(ResNet):
    """A ResNet, trained end to end, and a 2x2 max pool: one cell for 64 x 64 pixels with all five stages.

    Images of a batch may differ in size (`Pixels.size`). The canvas beside an image is zero before the network and
    again before the pool, so that what an image says of itself does not depend on the canvas but for the reach of
    convolutions at its border.
    """

    @configclass
    class Config(ResNetConfig):
        stages: Annotated[int, Field(ge=2, le=5)] = 5  # all; 4 halves the stride, for small pictures
        pool: bool = True

    def __init__(self, config: Config):
        super().__init__(config, config.stages)
        self.config = config
        self.stride = 2 ** (config.stages + config.pool)  # pixels for one cell, along both axes

    def forward(self, pixels: Pixels) -> Cells:
        """Every cell of every image. A row or column of the map that has no partner is pooled alone."""
        height, width = pixels.pixels.shape[2:]
        x = self.features(self.normalise(pixels.pixels, pixels.size), 1, self.num_stages)
        stride = 2**self.num_stages
        size = pixels.size
        if size is None:
            size = pixels.image.new_tensor([height, width]).expand(len(x), 2)
        if self.config.pool:
            # The map follows a ReLU: zero is nothing to a maximum.
            x = x.masked_fill(~cells_of_images(size, x.shape[2], x.shape[3], stride)[:, None], 0.0)
            x, stride = F.max_pool2d(x, 2, ceil_mode=True), 2 * stride
        return Cells(x.permute(0, 2, 3, 1), cells_of_images(size, x.shape[2], x.shape[3], stride))
