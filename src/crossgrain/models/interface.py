"""The three verbs that objectives, tasks and search call on any model.

Shape letters: B pairs, L words, N image tokens, D width, E embedding size.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from crossgrain.config import UserError, config_owner
from crossgrain.data.pairs import Reads
from crossgrain.data.types import Image, Pixels, Text
from crossgrain.nn.decoding import Past
from crossgrain.nn.lengths import Last
from crossgrain.nn.transformer import Computed, CrossAttention, SelfAttention


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


class Grid(NamedTuple):
    """How the tokens of images lie over their pixels, row by row."""

    rows: int
    columns: int
    covered: Float[Tensor, "I 2"]  # rows and columns that each image fills; the rest of its canvas is empty

    @staticmethod
    def of(image: Pixels, stride: float | int) -> "Grid":
        """One token for every `stride` pixels of the canvas along both axes."""
        height, width = image.pixels.shape[2:]
        size = image.boxes.new_tensor([height, width]).expand(len(image.pixels), 2)
        covered = (size if image.size is None else image.size) / stride
        return Grid(math.ceil(height / stride), math.ceil(width / stride), covered)


class Fused:
    """A pair after its two sides have met. What nobody looks at, the last layer does not compute.

    The sequence is the L words followed by the image's N tokens, or the words alone where only these attend (X-VLM).
    """

    def __init__(self, last: Last | Float[Tensor, "B T D"], num_words: int):
        """The last layer with its input, or the sequence as it came out of it."""
        self._last = Computed(last) if isinstance(last, Tensor) else last
        self._num_words = num_words

    @property
    def text(self) -> Float[Tensor, "B L D"]:
        """What every word became."""
        return self._last.whole()[:, : self._num_words]

    @property
    def image(self) -> Float[Tensor, "B N D"]:
        """What every token of the image became; N is 0 where the image stays as it was encoded."""
        return self._last.whole()[:, self._num_words :]

    @property
    def cls(self) -> Float[Tensor, "B D"]:
        """What [CLS] became."""
        rows, device = self._last.place
        return self._last.at(torch.zeros(rows, 1, dtype=torch.long, device=device))[:, 0]

    def words(self, at: Int[Tensor, "B M"]) -> Float[Tensor, "B M D"]:
        """What M words of each text became."""
        return self._last.at(at)

    def image_tokens(self, at: Int[Tensor, "B M"]) -> Float[Tensor, "B M D"]:
        """What M tokens of each image became, counted from its first."""
        return self._last.at(at + self._num_words)


class VisionLanguageModel(nn.Module, ABC):
    """A body without heads: what is predicted from it belongs to objectives and tasks."""

    dim: int  # D of `Fused`
    # These two a `Config` may have as well, where they depend on the recipe.
    reads: Reads = "pixels"  # what `encode_image` takes
    whole_image_first: bool | None = None  # whether region 0 has to be the whole image; None: as you like

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

    @property
    def image_attention(self) -> Sequence[SelfAttention | CrossAttention]:
        """Where the words look at the image, from the first layer to the last; empty where a model does not tell.

        The keys of a cross-attention are the image's tokens behind one that sums them up, those of a self-attention
        the words and then the image's tokens.
        """
        return ()

    def grid(self, image: Pixels) -> Grid:
        """Where in their images the tokens lie, for models that read pixels."""
        raise ValueError(f"{type(self).__name__} does not tell where its image tokens lie")

    def begin(self, image: Tokens) -> Past:
        """What a text about these images starts from, for models that write; UserError for those that do not."""
        raise UserError(f"{type(self).__name__} does not write: it has no `begin` and `extend`")

    def extend(self, past: Past, text: Text) -> tuple[Float[Tensor, "B L D"], Past]:
        """What L more words of each row become, and the past with them. They see the image and the words before."""
        raise UserError(f"{type(self).__name__} does not write: it has no `begin` and `extend`")

    def decode(self, image: Tokens, text: Text) -> Float[Tensor, "B L D"]:
        """What every word becomes that sees the whole image, and of its text only itself and the words before it.

        The image's tokens see the image alone, so that nothing of the words reaches an earlier word through them.
        """
        return self.extend(self.begin(image), text)[0]

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


def declared(config: Any, name: str) -> Any:
    """What the model of this config says of itself (`reads`, `whole_image_first`), before it is built."""
    return getattr(config, name) if hasattr(config, name) else getattr(config_owner(config), name)
