"""ITC, image-text contrastive loss: a concept and its text are closer than any other pairing of the batch."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from crossgrain.config import configclass
from crossgrain.models.interface import DualEncoder, VisionLanguageModel
from crossgrain.objectives.interface import Loss, Views


class ITC(nn.Module):
    """Symmetric InfoNCE over the batch of all ranks (X-VLM, equation 3; xvlm.py:366-398).

    Rows of one `group` (several texts of one image) share the target evenly. The temperature is the model's parameter,
    put back into `temperature_range` before each use (model_pretrain.py:22).
    """

    @configclass
    class Config:
        weight: float = 1.0
        temperature_range: tuple[float, float] = (0.001, 0.5)
        # "group": rows that speak about one concept are positives of each other. "one_hot": only the pair itself is, as
        # the original does in pre-training, also where it repeats an element to fill a batch.
        targets: Literal["group", "one_hot"] = "group"

    def __init__(self, config: Config, model: VisionLanguageModel):
        super().__init__()
        if not isinstance(model, DualEncoder):
            raise ValueError(f"itc compares image and text embeddings, which {type(model).__name__} does not have")
        self.config = config

    def forward(self, views: Views) -> Loss:
        image, text = embeddings(views)
        temperature = views.dual_encoder.temperature
        with torch.no_grad():
            temperature.clamp_(*self.config.temperature_range)
        all_image, all_text = views.gather(image), views.gather(text)
        logits = similarities(all_image, all_text, temperature)
        if self.config.targets == "group":
            same = same_concept(views.gather(views.batch.group))
        else:
            same = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        target = same / same.sum(1, keepdim=True)
        loss = -(target * (logits.log_softmax(1) + logits.T.log_softmax(1))).sum(1).mean() / 2
        best = same.gather(1, logits.argmax(1, keepdim=True)).float().mean()
        return Loss(loss, {"accuracy": best.detach(), "temperature": temperature.detach().clone()})


def embeddings(views: Views) -> tuple[Float[Tensor, "B E"], Float[Tensor, "B E"]]:
    """Unit vectors of this rank's concepts and texts, computed once for all objectives."""
    model = views.dual_encoder
    return views.once("embeddings", lambda: (model.embed_image(views.image()), model.embed_text(views.text())))


def similarities(
    image: Float[Tensor, "I E"], text: Float[Tensor, "T E"], temperature: Float[Tensor, ""]
) -> Float[Tensor, "I T"]:
    """Cosine over temperature, in float32: a temperature of 0.01 makes every rounding a hundred times larger."""
    with torch.autocast(image.device.type, enabled=False):
        return image.float() @ text.float().T / temperature


def same_concept(group: Int[Tensor, " B"]) -> Bool[Tensor, "B B"]:
    """Which rows speak about the same concept."""
    return group[:, None] == group[None, :]
