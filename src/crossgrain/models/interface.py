"""The three verbs that objectives, tasks and search call on any model.

Shape letters: B pairs, L words, N image tokens, D width, E embedding size.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from crossgrain.data.types import Image, Text
from crossgrain.nn.transformer import take_positions


class Tokens(NamedTuple):
    """One side of B pairs, encoded.

    `memory` is what `fuse` reads of this side alone (for X-VLM the keys and values of every cross-attention layer),
    made once by `prepare` however many partners the side meets. Rows of it are chosen with its own `take`.
    """

    x: Float[Tensor, "B N D"]
    mask: Bool[Tensor, "B N"]  # True marks a real token
    memory: Any = None

    def take(self, rows: Int[Tensor, " K"]) -> "Tokens":
        """The tokens of these rows, in this order."""
        memory = None if self.memory is None else self.memory.take(rows)
        return Tokens(self.x.index_select(0, rows), self.mask.index_select(0, rows), memory)


class Fused(NamedTuple):
    """A pair after its two sides have met."""

    text: Float[Tensor, "B L D"]
    image: Float[Tensor, "B N D"] | None  # None where only the text attends, as in X-VLM
    cls: Float[Tensor, "B D"]  # what the [CLS] word became


class VisionLanguageModel(nn.Module, ABC):
    """A body without heads: what is predicted from it belongs to objectives and tasks."""

    dim: int  # D of `Fused`

    @property
    @abstractmethod
    def token_embedding(self) -> nn.Embedding:
        """The words' vectors, which the MLM objective predicts with as well."""

    @abstractmethod
    def encode_image(self, image: Image) -> Tokens:
        """The B visual concepts that `image` speaks about."""

    @abstractmethod
    def encode_text(self, text: Text) -> Tokens:
        """B texts."""

    def prepare(self, image: Tokens) -> Tokens:
        """`image` with `memory` filled, for models whose `fuse` can reuse work on the image; others return it as is."""
        return image

    def whole_image(self, image: Tokens, rows: Int[Tensor, " K"]) -> Tokens:
        """The whole images that the concepts of these rows are part of, without encoding them again."""
        return image.take(rows)

    @abstractmethod
    def fuse(self, image: Tokens, text: Tokens) -> Fused:
        """Row b of `image` meets row b of `text`."""

    def read(self, image: Tokens, text: Tokens, at: Int[Tensor, "B M"]) -> Float[Tensor, "B M D"]:
        """What M words of each text become when the two sides meet: `fuse` where only some positions are looked at."""
        return take_positions(self.fuse(image, text).text, at)

    def read_cls(self, image: Tokens, text: Tokens) -> Float[Tensor, "B D"]:
        """What [CLS] becomes: all that matching, boxes and classifiers look at."""
        return self.read(image, text, torch.zeros(len(text.x), 1, dtype=torch.long, device=text.x.device))[:, 0]

    def new_parameters(self) -> set[str]:
        """Names of the parameters that no pre-trained part covers; a recipe may give them a higher rate."""
        return {name for name, _ in self.named_parameters()}


class DualEncoder(VisionLanguageModel):
    """A model whose unimodal encodings also live in one embedding space."""

    temperature: nn.Parameter  # of the similarities; kept in its range by the contrastive objective

    @abstractmethod
    def embed_image(self, image: Tokens) -> Float[Tensor, "B E"]:
        """Unit vectors."""

    @abstractmethod
    def embed_text(self, text: Tokens) -> Float[Tensor, "B E"]:
        """Unit vectors."""
