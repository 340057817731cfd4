"""What an objective sees (`Views`) and gives back (`Loss`)."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from crossgrain.data.types import Batch
from crossgrain.models.interface import DualEncoder, Fused, Tokens, VisionLanguageModel

Variant = Literal["clean", "masked"]
Gather = Callable[[Tensor], Tensor]  # (B, ...) of this rank -> (B * ranks, ...) of all, differentiable
T = TypeVar("T")


class Loss(NamedTuple):
    """A scalar to minimise, and scalars to log."""

    value: Float[Tensor, ""]
    metrics: dict[str, Float[Tensor, ""]]


def alone(x: Tensor) -> Tensor:
    """The gather of a single process."""
    return x


class Views:
    """The model's encodings of one batch, computed when first asked for and then kept.

    Objectives name the variant of each side they want; two that want the same pair share one pass. `gather` brings
    together the rows of all ranks (training/distributed.py) for losses that compare across the whole batch.
    """

    def __init__(self, model: VisionLanguageModel, batch: Batch, gather: Gather = alone):
        self.model = model
        self.batch = batch
        self.gather = gather
        self._cache: dict[Any, Any] = {}

    @property
    def dual_encoder(self) -> DualEncoder:
        """The model, where an objective needs its embeddings (and has refused models without)."""
        assert isinstance(self.model, DualEncoder)
        return self.model

    def image(self, variant: Variant = "clean") -> Tokens:
        """The visual concepts, ready to be fused."""
        return self.once(
            ("image", variant), lambda: self.model.prepare(self.model.encode_image(self.batch.image[variant]))
        )

    def text(self, variant: Variant = "clean") -> Tokens:
        """The texts."""
        return self.once(("text", variant), lambda: self.model.encode_text(self.batch.text[variant]))

    def fused(self, image: Variant = "clean", text: Variant = "clean") -> Fused:
        """Each concept with its own text."""
        return self.once(("fused", image, text), lambda: self.model.fuse(self.image(image), self.text(text)))

    def once(self, key: Any, compute: Callable[[], T]) -> T:
        """`compute()` the first time, the same result afterwards."""
        if key not in self._cache:
            self._cache[key] = compute()
        return self._cache[key]


def hidden_loss(logits: Float[Tensor, "B M K"], label: Int[Tensor, "B M"]) -> Loss:
    """Mean cross-entropy and accuracy over the hidden tokens; 0 where a batch hides none."""
    known = label != -100
    count = known.sum().clamp(min=1)
    loss = F.cross_entropy(logits.float().flatten(0, 1), label.flatten(), ignore_index=-100, reduction="sum") / count
    accuracy = ((logits.argmax(-1) == label) & known).sum() / count
    return Loss(loss, {"accuracy": accuracy.detach()})
