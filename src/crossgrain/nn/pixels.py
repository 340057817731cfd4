"""Pixels as image encoders take them: normalised on the device, and zero where the canvas holds no image.

Shape letters: I images, H W pixels of the canvas.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn


class _Statistics(NamedTuple):
    mean: tuple[float, float, float]  # red, green, blue, in units of the largest value
    std: tuple[float, float, float]
    bgr: bool = False  # blue first


# "caffe" is what detectors that were trained with Caffe take: blue first, from 0 to 255, the mean taken off
# (VL-BERT cfgs/pretrain/*.yaml, PIXEL_MEANS).
STATISTICS = {
    "clip": _Statistics((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "imagenet": _Statistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "caffe": _Statistics((122.7717 / 255, 115.9465 / 255, 102.9801 / 255), (1 / 255, 1 / 255, 1 / 255), bgr=True),
}
Statistics = Literal["clip", "imagenet", "caffe"]


class Normalise(nn.Module):
    """uint8 pixels, red first, to normalised floats; float pixels are taken as normalised already."""

    mean: Tensor
    std: Tensor

    def __init__(self, statistics: Statistics):
        super().__init__()
        mean, std, self.bgr = STATISTICS[statistics]
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(
        self, pixels: Shaped[Tensor, "I 3 H W"], size: Int[Tensor, "I 2"] | None = None
    ) -> Float[Tensor, "I 3 H W"]:
        """With `size`, (height, width) of each image in the upper left of the canvas, the rest of it is zero."""
        x = pixels
        if pixels.dtype == torch.uint8:
            x = (pixels.float() / 255 - self.mean) / self.std
            x = x.flip(1) if self.bgr else x
        if size is None:
            return x
        return x.masked_fill(~cells_of_images(size, x.shape[2], x.shape[3])[:, None], 0.0)


def cells_of_images(
    size: Int[Tensor, "I 2"], rows: int, columns: int, stride: int = 1
) -> Bool[Tensor, "I {rows} {columns}"]:
    """Which cells of a grid of this stride over the canvas hold some part of each image; at least one does."""
    cells = -(-size // stride).clamp(max=-1)
    y = torch.arange(rows, device=size.device) < cells[:, :1]
    x = torch.arange(columns, device=size.device) < cells[:, 1:]
    return y[:, :, None] & x[:, None, :]
