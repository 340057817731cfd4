"""MLM, masked language modelling: predict the hidden words from the rest and from the image (Devlin et al., 2019)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from crossgrain.config import configclass
from crossgrain.models.interface import VisionLanguageModel
from crossgrain.nn.transformer import initialise_bert
from crossgrain.objectives.interface import Loss, Variant, Views, hidden_loss


class MLM(nn.Module):
    """BERT's word prediction: a transform, then the token embedding itself as the output matrix (xbert.py:675-687).

    Logits over the vocabulary are computed where a word is hidden and nowhere else.
    """

    @configclass
    class Config:
        weight: float = 1.0
        image: Variant = "clean"  # "masked" hides regions in the same pass, as VL-BERT does

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
        target = views.batch.targets["mlm"]
        hidden = views.fused(self.config.image, "masked").words(target.position)
        return hidden_loss(self.logits(hidden, views.model.token_embedding.weight), target.label)
