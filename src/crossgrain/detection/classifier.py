"""A CNN that learns to name objects, before Pixel-BERT reads its cells.

Pixel-BERT starts from a CNN that can name what ImageNet shows. This is the same in miniature, for pictures that no
published network was trained on: the last map is averaged over the true box of each object, and two linear layers name
its class and its attributes. What they named is then in the cells that a box touches.

Shape letters: B images, H W pixels, M objects at most, O objects in all, C channels, K classes, T attributes.
"""

import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torchvision.ops import roi_align

from crossgrain.config import Count, configclass
from crossgrain.data.types import Pixels
from crossgrain.detection.small import PAD, Objects
from crossgrain.nn.cnn import CNN

POINTS = 3  # read along each axis of a box


class ObjectClassifier(nn.Module):
    """See the module."""

    @configclass
    class Config:
        """`classes` and `attributes` are read from the data where a recipe leaves them out."""

        image_size: Count = 96  # pixels a side of the square that images are resized to
        cnn: CNN.Config = CNN.Config()
        classes: tuple[str, ...] = ()
        attributes: tuple[str, ...] = ()

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.cnn = CNN(config.cnn)
        self.classes = nn.Linear(self.cnn.num_channels, len(config.classes))
        self.attributes = nn.Linear(self.cnn.num_channels, len(config.attributes))

    def new_parameters(self) -> set[str]:
        """All but those of the CNN, which may have come from a file."""
        return {name for name, _ in self.named_parameters() if not name.startswith("cnn.")}

    def forward(
        self, pixels: UInt8[Tensor, "B 3 H W"], boxes: list[Float[Tensor, "_ 4"]]
    ) -> tuple[Float[Tensor, "O K"], Float[Tensor, "O T"]]:
        """Logits of the class and of each attribute of what boxes in [0, 1] hold, image by image."""
        cells = self.cnn(Pixels.whole(pixels)).x.permute(0, 3, 1, 2).float()
        corners = [box * self.config.image_size for box in boxes]
        x = roi_align(cells, corners, 1, 1 / self.cnn.stride, sampling_ratio=POINTS, aligned=True).flatten(1)
        return self.classes(x).float(), self.attributes(x).float()

    def losses(self, pixels: UInt8[Tensor, "B 3 H W"], objects: Objects) -> dict[str, Float[Tensor, ""]]:
        """Cross-entropy of the classes, and binary ones of the attributes summed over an object: means over objects."""
        real = objects.label != PAD
        classes, attributes = self(pixels, [box[here] for box, here in zip(objects.boxes, real, strict=True)])
        count = real.sum().clamp(min=1)
        named = F.cross_entropy(classes, objects.label[real], reduction="sum")
        described = F.binary_cross_entropy_with_logits(attributes, objects.attributes[real], reduction="sum")
        return {"classes": named / count, "attributes": described / count}

    def backbone(self) -> dict[str, Tensor]:
        """The tensors of the CNN in timm's names, as `cnn.weights` reads them."""
        return {name: tensor.detach().cpu().contiguous() for name, tensor in self.cnn.body.state_dict().items()}
