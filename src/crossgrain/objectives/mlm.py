"""MLM, masked language modelling: predict the hidden words from the rest and from the image (Devlin et al., 2019)."""

from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from crossgrain.config import configclass
from crossgrain.models.interface import VisionLanguageModel
from crossgrain.nn.transformer import initialise_bert
from crossgrain.objectives.interface import (
    Loss,
    Mean,
    Variant,
    Views,
    accuracy,
    cross_entropy,
    drawn_rows,
    hidden_loss,
    mean_of,
)


class MLM(nn.Module):
    """BERT's word prediction: a transform, then the token embedding itself as the output matrix (xbert.py:675-687).

    Logits over the vocabulary are computed where a word is hidden and nowhere else.
    """

    @configclass
    class Config:
        weight: float = 1.0
        image: Variant = "clean"  # "masked" hides regions in the same pass, as VL-BERT does
        # In a batch that also has texts without an image, the loss is the mean over the pairs plus the mean over those
        # texts, and does not depend on how many of each there are (VL-BERT); otherwise one mean over all.
        apart: bool = True
        mean: Mean = "tokens"
        # The share of a batch's rows that is asked. Less than all of them have a pass of their own, which saves time
        # where no other objective looks at hidden words (X-VLM); 1 as published.
        asked: Annotated[float, Field(gt=0, le=1)] = 1.0

    def __init__(self, config: Config, model: VisionLanguageModel):
        super().__init__()
        self.config = config
        self.dense = nn.Linear(model.dim, model.dim)
        self.norm = nn.LayerNorm(model.dim, eps=1e-12)
        self.apply(initialise_bert)
        self.bias = nn.Parameter(torch.zeros(model.token_embedding.num_embeddings))

    def logits(self, hidden: Float[Tensor, "B M D"], vocabulary: Float[Tensor, "V D"]) -> Float[Tensor, "B M V"]:
        """Scores of every word of the vocabulary at M positions."""
        return F.linear(self.norm(F.gelu(self.dense(hidden))), vocabulary, self.bias)

    def forward(self, views: Views) -> Loss:
        target, paired, variant = views.batch.targets["mlm"], views.batch.paired, self.config.image
        rows = drawn_rows(len(target.position), self.config.asked, target.position.device)
        if rows is None:
            fused = views.fused(variant, "masked")
        else:
            target = target.map(lambda tensor: tensor[rows])
            paired = None if paired is None else paired[rows]
            text = views.model.encode_text(views.batch.text["masked"].map(lambda tensor: tensor[rows]))
            fused = views.model.fuse(views.image(variant).take(rows), text)
        logits = self.logits(fused.words(target.position), views.model.token_embedding.weight)
        if paired is None or not self.config.apart:
            return hidden_loss(logits, target.label, self.config.mean)
        losses, known = cross_entropy(logits, target.label), target.label != -100
        with_image, alone = known & paired[:, None], known & ~paired[:, None]
        pairs, texts = (mean_of(losses, rows, self.config.mean) for rows in (with_image, alone))
        metrics = {
            "accuracy": accuracy(logits, target.label, with_image),
            "text_only_accuracy": accuracy(logits, target.label, alone),
            "text_only_loss": texts.detach(),
        }
        return Loss(pairs + texts, metrics)
