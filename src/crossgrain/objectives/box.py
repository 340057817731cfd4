"""Box regression: from a region's text, where in the whole image it is."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from crossgrain.config import configclass
from crossgrain.models.interface import VisionLanguageModel
from crossgrain.nn.boxes import centre_from_corners, corners_from_centre, giou_loss
from crossgrain.nn.transformer import mlp_head
from crossgrain.objectives.interface import Loss, Views, mean_where


class Box(nn.Module):
    """L1 plus GIoU on the fused [CLS] of the region's text and the *whole* image (X-VLM, equation 2; xvlm.py:467-508).

    The L1 of the four numbers (cx, cy, w, h) is summed, both parts are means over the boxes, and texts about the whole
    image do not count. The original sets the GIoU of a whole batch to 0 where a predicted box is degenerate; a box that
    is made of a centre and positive sides never is.
    """

    @configclass
    class Config:
        weight: float = 1.0

    def __init__(self, config: Config, model: VisionLanguageModel):
        super().__init__()
        self.config = config
        self.head = mlp_head(model.dim, 4)

    def boxes(self, cls: Float[Tensor, "B D"]) -> Float[Tensor, "B 4"]:
        """(x1, y1, x2, y2) in units of the image; float32. The centre is inside, an edge may stand out."""
        return corners_from_centre(self.head(cls).float().sigmoid())

    def forward(self, views: Views) -> Loss:
        target = views.batch.targets["box"]
        image = views.model.whole_image(views.image(), target.rows)
        predicted = self.boxes(views.model.fuse(image, views.text().take(target.rows)).cls)
        return box_loss(predicted, target.boxes, target.valid)


def box_loss(predicted: Float[Tensor, "R 4"], true: Float[Tensor, "R 4"], counted: Bool[Tensor, " R"]) -> Loss:
    """L1 over (cx, cy, w, h), summed, plus GIoU; the mean over the counted boxes."""
    distance = F.l1_loss(centre_from_corners(predicted), centre_from_corners(true), reduction="none")
    l1, giou = mean_where(distance.sum(1), counted), mean_where(giou_loss(predicted, true), counted)
    return Loss(l1 + giou, {"l1": l1.detach(), "giou": giou.detach()})
