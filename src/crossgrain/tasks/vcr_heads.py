"""The head that scores VCR's choices, and tells what the regions show meanwhile.

Shape letters: S samples, B = 4 S rows, N regions, D width, K classes.
"""

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from crossgrain.config import Count, Share, configclass
from crossgrain.data.types import Chosen
from crossgrain.metrics.vcr import NUM_CHOICES
from crossgrain.models.interface import VisionLanguageModel
from crossgrain.models.vlbert import VLBERT
from crossgrain.nn.transformer import initialise_bert
from crossgrain.objectives.interface import Loss, Views, hidden_loss
from crossgrain.tasks.adopting import take_fitting

A, B = 0, 1  # VL-BERT's segments of questions and of answers


class Choices(nn.Module):
    """A score for every choice, from [CLS] of the question with that choice (VL-BERT, resnet_vlbert_for_vcr.py).

    BERT's pooler (Linear, tanh), then one layer or two. The four scores of a question are four yes-or-no questions, or
    one choice of four (`loss`). Where the model reads regions, each is also classified from what it became, hidden or
    not, so that words do not drown what it shows (:387-397).
    """

    @configclass
    class Config:
        weight: float = 1.0
        classifier: Literal["1fc", "2fc"] = "1fc"
        hidden_dim: Count = 1024  # of "2fc"
        dropout: Share = 0.1
        loss: Literal["sigmoid", "softmax"] = "sigmoid"  # the published configurations have CLASSIFIER_SIGMOID
        region_class_weight: float = 1.0  # 0: regions are not classified
        num_classes: Count = 81  # of regions; VCR's annotations have COCO's 80 and the background

    def __init__(self, config: Config, model: VisionLanguageModel):
        super().__init__()
        self.config = config
        dim, hidden = model.dim, config.hidden_dim
        self.pooler = nn.Sequential(nn.Linear(dim, dim), nn.Tanh())
        layers = [nn.Linear(dim, 1)] if config.classifier == "1fc" else [nn.Linear(dim, hidden), nn.Linear(hidden, 1)]
        self.classifier = nn.Sequential(nn.Dropout(config.dropout), layers[0])
        if len(layers) > 1:
            self.classifier.extend([nn.ReLU(), nn.Dropout(config.dropout), layers[1]])
        self.region_class: nn.Sequential | None = None
        if config.region_class_weight and model.reads != "pixels":
            self.region_class = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, config.num_classes))
            self.region_class.apply(initialise_bert)
        self.pooler.apply(initialise_bert)
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def score(self, cls: Float[Tensor, "B D"]) -> Float[Tensor, " B"]:
        """The logit of each choice, in float32."""
        return self.classifier(self.pooler(cls))[:, 0].float()

    def forward(self, views: Views) -> Loss:
        target: Chosen = views.batch.targets["choices"]
        fused = views.fused()
        logits = self.score(fused.cls).view(-1, NUM_CHOICES)
        if self.config.loss == "sigmoid":
            right = F.one_hot(target.label, NUM_CHOICES).to(logits.dtype)
            loss = F.binary_cross_entropy_with_logits(logits, right)
        else:
            loss = F.cross_entropy(logits, target.label)
        metrics = {"accuracy": (logits.argmax(1) == target.label).float().mean().detach()}
        if self.region_class is not None:
            label = target.region_class.repeat_interleave(NUM_CHOICES, dim=0)
            places = torch.arange(label.shape[1], device=label.device).expand(label.shape)
            shown = hidden_loss(self.region_class(fused.image_tokens(places)), label)
            loss = loss + self.config.region_class_weight * shown.value
            metrics |= {"region_loss": shown.value.detach(), "region_accuracy": shown.metrics["accuracy"]}
        return Loss(loss, metrics)

    def adopt(self, model: VisionLanguageModel, weights: Mapping[str, Mapping[str, Tensor]]) -> list[str]:
        """What VL-BERT takes over from pre-training (vcr/function/train.py:200-233), or all that a head like this has.

        The transform of region classification; a relationship head's pooler, and of its two logits the difference.
        The segment of answers, which pre-training never saw, starts as that of questions.
        """
        if "vcr" in weights:
            return take_fitting(self, weights["vcr"])
        adopted = []
        regions, itm = weights.get("region_class", {}), weights.get("itm", {})
        if self.region_class is not None and "head.2.weight" in regions:
            self.region_class[0].load_state_dict(_linear(regions, "head.0"))
            adopted.append("region_class.0")
        if "head.2.weight" in itm:
            self.pooler[0].load_state_dict(_linear(itm, "head.0"))
            adopted.append("pooler")
            if self.config.classifier == "1fc":
                both = _linear(itm, "head.2")
                self.classifier[1].load_state_dict({name: rows[1:] - rows[:1] for name, rows in both.items()})
                adopted.append("classifier")
        if "mlm" in weights and isinstance(model, VLBERT):
            segments = model.text_embedding.segment.weight
            segments[B] = segments[A]
            adopted.append("segment of answers")
        return adopted


def _linear(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Weight and bias of a linear layer."""
    return {kind: tensors[f"{name}.{kind}"] for kind in ("weight", "bias")}
