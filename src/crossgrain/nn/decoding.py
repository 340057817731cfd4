"""Words that see only the words before them: what is kept of these, so that each is computed once.

Shape letters: B rows, P words so far, L new words, N image tokens, D width, Z = 2 D (keys and values).
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Past(NamedTuple):
    """What the next words of B rows see, as keys and values: the image, and the words so far."""

    image: tuple[Float[Tensor, "B N Z"], ...]  # of each layer that sees the image
    image_mask: Bool[Tensor, "B N"]
    words: tuple[Float[Tensor, "B P Z"], ...] = ()  # of each layer; none before the first word
    on_words: Float[Tensor, "B 1 D"] | None = None  # what the image adds to every word, where a model does that

    @property
    def num_words(self) -> int:
        """P."""
        return self.words[0].shape[1] if self.words else 0

    def take(self, rows: Int[Tensor, " K"]) -> "Past":
        """These rows, in this order; a row may come again, to go on in several ways."""
        on_words = None if self.on_words is None else self.on_words.index_select(0, rows)
        return Past(_take(self.image, rows), self.image_mask.index_select(0, rows), _take(self.words, rows), on_words)

    def reordered(self, rows: Int[Tensor, " B"]) -> "Past":
        """Each row with the words of another one, whose image is the same."""
        return self._replace(words=_take(self.words, rows))

    def joined(self, layer: int, new: Float[Tensor, "B L Z"]) -> Float[Tensor, "B T Z"]:
        """The words so far of this layer, and the new ones."""
        return torch.cat([self.words[layer], new], dim=1) if self.words else new


def _take(parts: tuple[Tensor, ...], rows: Tensor) -> tuple[Tensor, ...]:
    return tuple(part.index_select(0, rows) for part in parts)


def causal_mask(mask: Bool[Tensor, "B L"], num_before: int = 0) -> Bool[Tensor, "B 1 L T"]:
    """Which words each word sees: itself and those before it that are real. `num_before` more stand before them all."""
    length = mask.shape[1]
    before = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    seen = before & mask[:, None, :]
    return torch.cat([seen.new_ones(len(mask), length, num_before), seen], dim=2)[:, None]
