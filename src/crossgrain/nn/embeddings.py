"""From token ids to vectors of model width."""

from jaxtyping import Float
from torch import Tensor, nn

from crossgrain.data.types import Text


class BertEmbedding(nn.Module):
    """Token plus position plus segment, normalised, as in BERT. B batch, L length, D width."""

    def __init__(self, dim: int, *, vocab_size: int, max_length: int, num_segments: int = 2, dropout: float = 0.1):
        super().__init__()
        self.token = nn.Embedding(vocab_size, dim)
        self.position = nn.Embedding(max_length, dim)
        self.segment = nn.Embedding(num_segments, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, text: Text) -> Float[Tensor, "B L D"]:
        length = text.ids.shape[1]
        x = self.token(text.ids) + self.position.weight[:length]
        x = x + (self.segment.weight[0] if text.segment is None else self.segment(text.segment))
        return self.dropout(self.norm(x))
