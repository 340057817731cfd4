"""BERT's published parameter names, and loading them into the layers of this library.

The names are those of the original PyTorch release, which X-VLM, VL-BERT, UNITER and ALBEF all kept.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from crossgrain.config import UserError
from crossgrain.nn.embeddings import BertEmbedding
from crossgrain.nn.transformer import BertLayer
from crossgrain.nn.weights import read_weights

EMBEDDING = {
    "token": ("word_embeddings",),
    "position": ("position_embeddings",),
    "segment": ("token_type_embeddings",),
    "norm": ("LayerNorm",),
}
# Our module -> the published modules whose rows it stacks.
LAYER = {
    "attention.qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention.out": ("attention.output.dense",),
    "attention_norm": ("attention.output.LayerNorm",),
    "mlp.expand": ("intermediate.dense",),
    "mlp.contract": ("output.dense",),
    "mlp_norm": ("output.LayerNorm",),
}
CROSS_LAYER = LAYER | {
    "cross_attention.query": ("crossattention.self.query",),
    "cross_attention.key_value": ("crossattention.self.key", "crossattention.self.value"),
    "cross_attention.out": ("crossattention.output.dense",),
    "cross_attention_norm": ("crossattention.output.LayerNorm",),
}


def load_bert(name: str, embedding: BertEmbedding, layers: Sequence[nn.Module]) -> None:
    """Fill an embedding and the first layers of a BERT; cross-attention, which BERT lacks, stays as it is.

    `name` is a folder, a file or a hub name. Segments that BERT lacks copy its first one. Raises UserError where a
    shape does not fit or the checkpoint has fewer layers.
    """
    state = {canonical(key): value for key, value in read_weights(name).items()}
    for part, theirs in EMBEDDING.items():
        _fill(getattr(embedding, part), state, [f"embeddings.{t}" for t in theirs], name)
    for i, layer in enumerate(layers):
        assert isinstance(layer, BertLayer)
        for part, theirs in LAYER.items():
            _fill(layer.get_submodule(part), state, [f"encoder.layer.{i}.{t}" for t in theirs], name)


def canonical(key: str) -> str:
    """A key of any of the published forms without its model prefix, and with today's names of the norms."""
    return key.removeprefix("bert.").replace(".gamma", ".weight").replace(".beta", ".bias")


@torch.no_grad()
def _fill(module: nn.Module, state: dict[str, Tensor], names: list[str], where: str) -> None:
    for kind, parameter in module.named_parameters():
        try:
            value = torch.cat([state[f"{name}.{kind}"] for name in names])
        except KeyError as error:
            raise UserError(f"{where} has no {error.args[0]!r}: not a BERT of this size") from None
        if kind == "weight" and isinstance(module, nn.Embedding) and value.shape[0] < parameter.shape[0] <= 4:
            value = torch.cat([value, value[:1].expand(parameter.shape[0] - len(value), -1)])
        if value.shape[1:] != parameter.shape[1:] or value.shape[0] < parameter.shape[0]:
            found, wanted = tuple(value.shape), tuple(parameter.shape)
            raise UserError(f"{where}: {names[0]}.{kind} has shape {found}, this model needs {wanted}")
        if value.shape[0] > parameter.shape[0] and not names[0].endswith("position_embeddings"):
            raise UserError(f"{where}: {names[0]} has {value.shape[0]} rows, this model {parameter.shape[0]}")
        parameter.copy_(value[: parameter.shape[0]])
