"""Region features from pixels with a backbone that is trained along (VL-BERT, section 3.2; common/fast_rcnn.py).

Shape letters: I images, N regions, F channels of the last stage, H W pixels of the canvas.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchvision.ops import roi_align

from crossgrain.config import Count, configclass
from crossgrain.data.types import RawRegions, Regions
from crossgrain.nn.boxes import cells_inside
from crossgrain.nn.resnet import ResNet, ResNetConfig, Stage, dilate

STRIDE = 16  # of the map that regions are cut from


class FastRCNN(ResNet):
    """A ResNet up to C4, RoIAlign, and for each region the last stage and a mean.

    As published: 14 x 14 points without the half-pixel shift of later versions, one sample each; the last stage dilated
    instead of strided; batch normalisation frozen, the stem and C2 too. The pixels of hidden regions are zero in the
    normalised image, so that no part of the network can see them through a neighbour's box or the whole image's.
    Every region of the batch is computed, real or padding: shapes are fixed.
    """

    @configclass
    class Config(ResNetConfig):
        name: str = "resnet101"
        frozen_stages: tuple[Stage, ...] = (1, 2)
        pooled_size: Count = 14
        dilated: bool = True  # C5 keeps the size of its map

    def __init__(self, config: Config):
        super().__init__(config)
        self.config = config
        self.feature_dim = self.num_channels
        if config.dilated:
            dilate(self.stage(5))

    def forward(self, regions: RawRegions) -> Regions:
        """The regions as a detector would have described them; padding has zeros for features."""
        pixels = self.normalise(regions.pixels, regions.size)
        if regions.hidden is not None:
            gone = hidden_pixels(regions.boxes, regions.hidden, regions.size, pixels.shape[2], pixels.shape[3])
            pixels = pixels.masked_fill(gone[:, None], 0.0)
        maps = self.features(pixels, 1, 4)
        corners = regions.boxes * regions.size.flip(1).repeat(1, 2)[:, None]  # width and height, twice
        rows = torch.arange(len(maps), device=maps.device).repeat_interleave(corners.shape[1])
        rois = torch.cat([rows[:, None].float(), corners.flatten(0, 1).float()], dim=1)
        x = roi_align(maps.float(), rois, self.config.pooled_size, 1 / STRIDE, sampling_ratio=1)
        x = self.features(x, 5, 5).mean((2, 3)).unflatten(0, regions.mask.shape)
        return Regions(
            features=x.masked_fill(~regions.mask[..., None], 0.0),
            boxes=regions.boxes,
            mask=regions.mask,
            image=regions.image,
            hidden=regions.hidden,
        )


def hidden_pixels(
    boxes: Float[Tensor, "I N 4"],
    hidden: Bool[Tensor, "I N"],
    size: Int[Tensor, "I 2"],
    height: int,
    width: int,
) -> Bool[Tensor, "I {height} {width}"]:
    """The pixels of the canvas that some hidden region touches.

    Counted by one matrix product per image, (H, N) times (N, W): never a mask for every box.
    """
    high, wide = (side.to(boxes.dtype).expand_as(hidden) for side in size[:, None].unbind(-1))
    y = cells_inside(boxes[..., 1], boxes[..., 3], high, height) & hidden[..., None]  # (I, N, H)
    x = cells_inside(boxes[..., 0], boxes[..., 2], wide, width)  # (I, N, W)
    return y.float().transpose(1, 2) @ x.float() > 0
