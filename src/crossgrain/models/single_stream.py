"""What ImageBERT, VL-BERT and Pixel-BERT share: one BERT over the words and the image's tokens.

Shape letters: B pairs, L words, N image tokens, T = L + N (and what a model appends), D width.
"""

from dataclasses import replace
from functools import partial
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from crossgrain.config import Count, Share, configclass
from crossgrain.data.types import Text
from crossgrain.models.interface import Fused, Tokens, VisionLanguageModel
from crossgrain.nn.decoding import Past, causal_mask
from crossgrain.nn.embeddings import BertEmbedding
from crossgrain.nn.transformer import BertLayer, LastLayer, SelfAttention, initialise_bert, key_mask, run_layers


@configclass
class StreamConfig:
    """What the Config of every model of this kind has: the size of its BERT and where the first weights come from."""

    dim: Count = 768
    depth: Count = 12
    num_heads: Count = 12
    mlp_dim: Count = 3072
    vocab_size: Count | None = None  # None: as many as the vocabulary of the recipe has
    max_length: Count = 512  # positions that texts have
    dropout: Share = 0.1
    attention_dropout: Share = 0.1
    initializer_range: Annotated[float, Field(gt=0)] = 0.02  # standard deviation of the first weights of linear layers
    bert: str | None = None  # initialise words and layers from a BERT folder, file or hub name

    def __post_init__(self) -> None:
        if self.dim % self.num_heads:
            raise ValueError(f"dim {self.dim} is not a multiple of num_heads {self.num_heads}")

    def from_scratch(self) -> "StreamConfig":
        """The same architecture without published weights to read, for a checkpoint that brings its own."""
        return replace(self, bert=None)


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

    def memories(self, x: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]) -> tuple[Float[Tensor, "B N Z"], ...]:
        """The keys and values of image tokens among themselves, for words that look at them later: of each layer."""
        seen, kept = key_mask(mask | ~mask.any(1, keepdim=True)), []  # an image without a real token is never looked at
        for number, layer in enumerate(self.layers):
            kept.append(layer.attention.memory(x))  # type: ignore[union-attr]
            if number < len(self.layers) - 1:
                x = run_layers([layer], x, seen, checkpoint=self.checkpointing)
        return tuple(kept)

    def extend(
        self, past: Past, x: Float[Tensor, "B L D"], mask: Bool[Tensor, "B L"]
    ) -> tuple[Float[Tensor, "B L D"], Past]:
        """The words of unified VLP's sequence-to-sequence mask (Zhou et al., 2020): they see the image and back."""
        image = key_mask(past.image_mask).expand(-1, -1, x.shape[1], -1)
        seen, words = torch.cat([causal_mask(mask, past.num_words), image], dim=3), []
        for number, (layer, tokens) in enumerate(zip(self.layers, past.image, strict=True)):
            words.append(past.joined(number, layer.attention.memory(x)))  # type: ignore[union-attr]
            memory = torch.cat([words[-1], tokens], dim=1)
            x = run_layers([layer], x, seen, None, None, memory, checkpoint=self.checkpointing)
        return x, past._replace(words=tuple(words))


def rows_of_images(x: Tensor, mask: Tensor, image: Int[Tensor, " B"]) -> Tokens:
    """The tokens of the image that each pair speaks about; a pair without one (-1) has none that is real."""
    rows = image.clamp(min=0)
    return Tokens(x.index_select(0, rows), mask.index_select(0, rows) & (image >= 0)[:, None])


def joined(text: Tokens, image: Tokens) -> tuple[Float[Tensor, "B T D"], Bool[Tensor, "B T"]]:
    """Words and image tokens as one sequence, with its mask."""
    return torch.cat([text.x, image.x], dim=1), torch.cat([text.mask, image.mask], dim=1)


class StreamModel(VisionLanguageModel):
    """Text embedding and layers of a single-stream model; how the image becomes tokens is each model's own.

    Give parameters their first values with `initialise`, once all parts are there.
    """

    def __init__(self, config: StreamConfig, *, num_segments: int = 2):
        super().__init__()
        c = config
        if c.vocab_size is None:
            raise ValueError("vocab_size is not set: give the number of words of the vocabulary")
        self.dim = c.dim
        self.text_embedding = BertEmbedding(
            c.dim, vocab_size=c.vocab_size, max_length=c.max_length, num_segments=num_segments, dropout=c.dropout
        )
        self.stream = SingleStream(
            c.dim, c.depth, c.num_heads, c.mlp_dim, dropout=c.dropout, attention_dropout=c.attention_dropout
        )

    def initialise(self, config: StreamConfig, *others: nn.Module) -> None:
        """BERT's initialisation of the words, the layers and `others`; then BERT's own weights where `bert` says so."""
        for part in (self.text_embedding, self.stream, *others):
            part.apply(partial(initialise_bert, std=config.initializer_range))
        if config.bert is not None:
            from crossgrain.models.bert import load_bert

            load_bert(config.bert, self.text_embedding, list(self.stream.layers))

    @property
    def token_embedding(self) -> nn.Embedding:
        """The words' vectors."""
        return self.text_embedding.token

    @property
    def image_attention(self) -> list[SelfAttention]:
        """That of every layer."""
        return [layer.attention for layer in self.stream.layers]  # type: ignore[misc]

    def enable_activation_checkpointing(self) -> None:
        """Keep only the inputs of layers in memory and compute the rest again in the backward pass."""
        self.stream.checkpointing = True

    def encode_text(self, text: Text) -> Tokens:
        """The words' embeddings: (B, L, D)."""
        return Tokens(self.text_embedding(text), text.mask)

    def fuse(self, image: Tokens, text: Tokens) -> Fused:
        """One pass over the words and the tokens of the image."""
        return self.stream(*joined(text, image), text.x.shape[1])

    def apart(self, image: Tokens) -> tuple[Float[Tensor, "B 1 D"] | None, Tokens]:
        """What the image adds to every word that is written about it, and its tokens, which do not know the words."""
        return None, image

    def begin(self, image: Tokens) -> Past:
        """The image's tokens through all layers, without any word."""
        on_words, tokens = self.apart(image)
        return Past(self.stream.memories(tokens.x, tokens.mask), tokens.mask, on_words=on_words)

    def extend(self, past: Past, text: Text) -> tuple[Float[Tensor, "B L D"], Past]:
        """More words, through all layers."""
        x = self.text_embedding.summed(text, past.num_words)
        x = x if past.on_words is None else x + past.on_words
        return self.stream.extend(past, self.text_embedding.finished(x), text.mask)
