"""What ImageBERT, VL-BERT and Pixel-BERT share: one BERT over the words and the image's tokens.

Shape letters: B pairs, L words, N image tokens, T = L + N (and what a model appends), D width.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from crossgrain.models.interface import Fused, Tokens
from crossgrain.nn.transformer import BertLayer, LastLayer, key_mask, run_layers


class SingleStream(nn.Module):
    """The layers; embeddings and their normalisation are the models' own."""

    def __init__(self, dim: int, depth: int, num_heads: int, mlp_dim: int, *, dropout: float, attention_dropout: float):
        super().__init__()
        self.layers = nn.ModuleList(
            BertLayer(dim, num_heads, mlp_dim, dropout=dropout, attention_dropout=attention_dropout)
            for _ in range(depth)
        )
        self.checkpointing = False

    def forward(self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"], num_words: int) -> Fused:
        """The sequence, words first, through all layers; the last one where somebody looks."""
        *layers, last = self.layers
        seen = key_mask(mask)
        x = run_layers(layers, x, seen, checkpoint=self.checkpointing)
        return Fused(LastLayer(last, x, seen, checkpoint=self.checkpointing), num_words)  # type: ignore[arg-type]


def rows_of_images(x: Tensor, mask: Tensor, image: Int[Tensor, " B"]) -> Tokens:
    """The tokens of the image that each pair speaks about; a pair without one (-1) has none that is real."""
    rows = image.clamp(min=0)
    return Tokens(x.index_select(0, rows), mask.index_select(0, rows) & (image >= 0)[:, None])


def joined(text: Tokens, image: Tokens) -> tuple[Float[Tensor, "B T D"], Bool[Tensor, "B T"]]:
    """Words and image tokens as one sequence, with its mask."""
    return torch.cat([text.x, image.x], dim=1), torch.cat([text.mask, image.mask], dim=1)
