"""The transformer layers that every model shares.

Shape letters: B batch, L query length, K context length, D width, C context width, U distinct contexts, Z = 2 D.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as rerun


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence with itself. Queries, keys and values are one matrix product."""

    maps: list[Tensor] | None = None  # where `recorded_maps` collects the attention

    def __init__(self, dim: int, num_heads: int, *, dropout: float = 0.0):
        super().__init__()
        assert dim % num_heads == 0, f"width {dim} does not divide into {num_heads} heads"
        self.num_heads = num_heads
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "B M D"],
        mask: Bool[Tensor, "B 1 #M L"] | None = None,
        memory: Float[Tensor, "B L Z"] | None = None,
    ) -> Float[Tensor, "B M D"]:
        """Every position asks all of them; with `memory`, some positions ask the whole sequence that it was made of."""
        if memory is None:
            q, k, v = split_heads(self.qkv(x), 3, self.num_heads)
        else:
            dim = x.shape[-1]
            (q,) = split_heads(F.linear(x, self.qkv.weight[:dim], self.qkv.bias[:dim]), 1, self.num_heads)
            k, v = split_heads(memory, 2, self.num_heads)
        y = attend(q, k, v, mask, self.dropout if self.training else 0.0, self.maps)
        return self.out(y.transpose(1, 2).flatten(2))

    def memory(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L Z"]:
        """Keys and values of a sequence, side by side."""
        dim = x.shape[-1]
        return F.linear(x, self.qkv.weight[dim:], self.qkv.bias[dim:])


class CrossAttention(nn.Module):
    """Attention of a sequence to a context whose keys and values were computed before, by `memory`.

    Splitting the two halves is what lets an image be projected once, however many texts it meets.
    """

    maps: list[Tensor] | None = None  # where `recorded_maps` collects the attention

    def __init__(self, dim: int, num_heads: int, *, context_dim: int, dropout: float = 0.0):
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(context_dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def memory(self, context: Float[Tensor, "U K C"]) -> Float[Tensor, "U K Z"]:
        """Keys and values of a context, side by side."""
        return self.key_value(context)

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        memory: Float[Tensor, "B K Z"],
        mask: Bool[Tensor, "B 1 1 K"] | None = None,
    ) -> Float[Tensor, "B L D"]:
        (q,) = split_heads(self.query(x), 1, self.num_heads)
        k, v = split_heads(memory, 2, self.num_heads)
        y = attend(q, k, v, mask, self.dropout if self.training else 0.0, self.maps)
        return self.out(y.transpose(1, 2).flatten(2))


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float, maps: list[Tensor] | None = None
) -> Tensor:
    """softmax(q k^T / sqrt(d)) v over (B, heads, L, d), with keys hidden where `mask` is False.

    `maps` receives the softmax, (B, heads, L, K). Where gradients are on, it can be asked for that of a result even if
    nothing before it needs one.
    """
    if maps is None and fused_attention_pays(q.device, q.dtype):
        return F.scaled_dot_product_attention(q, k, v, mask, dropout)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    shares = scores.softmax(-1)
    if maps is not None:
        maps.append(shares.requires_grad_() if torch.is_grad_enabled() else shares)
    return F.dropout(shares, dropout, training=dropout > 0) @ v


@contextmanager
def recorded_maps(attention: SelfAttention | CrossAttention) -> Iterator[list[Tensor]]:
    """The attention of every pass through this module while the context lasts, in a list that fills as they happen."""
    attention.maps = []
    try:
        yield attention.maps
    finally:
        attention.maps = None


def fused_attention_pays(device: torch.device, dtype: torch.dtype) -> bool:
    """False on a CPU in bfloat16, where the fused kernel's backward pass is 2 to 5 times slower than plain products.

    Measured by `benchmarks/attention.py`.
    """
    return not (device.type == "cpu" and dtype == torch.bfloat16)


def split_heads(x: Tensor, parts: int, num_heads: int) -> tuple[Tensor, ...]:
    """(B, L, parts * D) -> `parts` tensors (B, heads, L, D / heads)."""
    return x.unflatten(-1, (parts, num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


class FeedForward(nn.Module):
    """Two linear layers with the exact GELU between them."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.expand = nn.Linear(dim, hidden_dim)
        self.contract = nn.Linear(hidden_dim, dim)

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        return self.contract(F.gelu(self.expand(x)))


class BertLayer(nn.Module):
    """BERT's layer, normalised after each residual sum; with cross-attention in it when `context_dim` is given."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        hidden_dim: int,
        *,
        context_dim: int | None = None,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
    ):
        super().__init__()
        self.attention = SelfAttention(dim, num_heads, dropout=attention_dropout)
        self.attention_norm = nn.LayerNorm(dim, eps=1e-12)
        self.cross_attention = self.cross_attention_norm = None
        if context_dim is not None:
            self.cross_attention = CrossAttention(dim, num_heads, context_dim=context_dim, dropout=attention_dropout)
            self.cross_attention_norm = nn.LayerNorm(dim, eps=1e-12)
        self.mlp = FeedForward(dim, hidden_dim)
        self.mlp_norm = nn.LayerNorm(dim, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "B M D"],
        mask: Bool[Tensor, "B 1 #M L"] | None = None,
        context: Float[Tensor, "B K Z"] | None = None,
        context_mask: Bool[Tensor, "B 1 1 K"] | None = None,
        memory: Float[Tensor, "B L Z"] | None = None,
    ) -> Float[Tensor, "B M D"]:
        """What every position of x becomes. With `memory`, x is only some positions of the sequence it was made of."""
        x = self.attention_norm(x + self.dropout(self.attention(x, mask, memory)))
        if self.cross_attention is not None and self.cross_attention_norm is not None:
            assert context is not None, "a layer with cross-attention needs a context"
            x = self.cross_attention_norm(x + self.dropout(self.cross_attention(x, context, context_mask)))
        return self.mlp_norm(x + self.dropout(self.mlp(x)))


class LastLayer:
    """A layer whose input is whole and whose output is computed where somebody looks.

    Objectives look at hidden words, hidden regions and [CLS]: a small part of a sequence. Keys and values are made once
    for all who look. The layer's other inputs are `args`, as BertLayer takes them after x.
    """

    def __init__(self, layer: BertLayer, x: Float[Tensor, "B L D"], *args: Tensor | None, checkpoint: bool = False):
        self.layer, self.x, self.args, self.checkpoint = layer, x, args, checkpoint
        self._memory: Tensor | None = None
        self._whole: Tensor | None = None

    @property
    def place(self) -> tuple[int, torch.device]:
        """The number of rows, and where they are."""
        return len(self.x), self.x.device

    def at(self, positions: Int[Tensor, "B M"]) -> Float[Tensor, "B M D"]:
        """The output at M positions of each row."""
        if self._whole is not None:
            return take_positions(self._whole, positions)
        if self._memory is None:
            self._memory = self.layer.attention.memory(self.x)
        args = (*self.args, *[None] * (3 - len(self.args)), self._memory)
        return run_layers([self.layer], take_positions(self.x, positions), *args, checkpoint=self.checkpoint)

    def whole(self) -> Float[Tensor, "B L D"]:
        """The output everywhere."""
        if self._whole is None:
            self._whole = run_layers([self.layer], self.x, *self.args, checkpoint=self.checkpoint)
        return self._whole


class Computed:
    """What `LastLayer` gives, of a sequence that is there already."""

    def __init__(self, x: Float[Tensor, "B L D"]):
        self.x = x

    @property
    def place(self) -> tuple[int, torch.device]:
        """The number of rows, and where they are."""
        return len(self.x), self.x.device

    def at(self, positions: Int[Tensor, "B M"]) -> Float[Tensor, "B M D"]:
        """The vectors at M positions of each row."""
        return take_positions(self.x, positions)

    def whole(self) -> Float[Tensor, "B L D"]:
        """All of them."""
        return self.x


def take_positions(x: Float[Tensor, "B L D"], at: Int[Tensor, "B M"]) -> Float[Tensor, "B M D"]:
    """The vectors at M positions of each row."""
    # Not `gather`, whose backward pass adds single numbers and takes two to five times as long.
    return x[torch.arange(len(x), device=x.device)[:, None], at]


def initialise_bert(module: nn.Module, std: float = 0.02) -> None:
    """BERT's initialisation of one module: normal weights, zero biases, unit norms; for `nn.Module.apply`."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02 if isinstance(module, nn.Embedding) else std)
    if isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
    if isinstance(module, nn.Linear | nn.LayerNorm) and module.bias is not None:
        nn.init.zeros_(module.bias)


def key_mask(mask: Bool[Tensor, "B K"]) -> Bool[Tensor, "B 1 1 K"]:
    """A mask of keys that hides the same ones from every head and query."""
    return mask[:, None, None, :]


def mlp_head(dim: int, out_dim: int) -> nn.Sequential:
    """The head of X-VLM's matching and box objectives (xvlm.py:195-201): Linear, LayerNorm (eps 1e-5), GELU, Linear."""
    return nn.Sequential(nn.Linear(dim, 2 * dim), nn.LayerNorm(2 * dim), nn.GELU(), nn.Linear(2 * dim, out_dim))


def run_layers(layers: Iterable[nn.Module], x: Tensor, *args: Tensor | None, checkpoint: bool = False) -> Tensor:
    """`x` through `layers`; with `checkpoint`, what happens inside a layer is computed again in the backward pass."""
    for layer in layers:
        x = rerun(layer, x, *args, use_reentrant=False) if checkpoint and torch.is_grad_enabled() else layer(x, *args)
    return x
