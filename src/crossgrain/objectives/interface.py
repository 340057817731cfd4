"""What an objective sees (`Views`) and gives back (`Loss`)."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from crossgrain.data.types import Batch
from crossgrain.models.interface import DualEncoder, Fused, Tokens, VisionLanguageModel

Variant = Literal["clean", "masked"]
Mean = Literal["tokens", "rows"]  # one mean over all tokens, or one of each row and then over the rows
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


def drawn_rows(num: int, share: float, device: torch.device) -> Int[Tensor, " K"] | None:
    """A share of `num` rows, at random and in random order; None for all of them."""
    return torch.randperm(num, device=device)[: math.ceil(share * num)] if share < 1 else None


def hidden_regions(views: Views, image: Variant, text: Variant) -> Float[Tensor, "B M D"]:
    """What the regions that were chosen for masking became, computed once for all objectives that predict them."""
    fused, target = views.fused(image, text), views.batch.targets["regions"]
    return views.once(("hidden regions", image, text), lambda: fused.image_tokens(target.position))


def hidden_loss(logits: Float[Tensor, "B M K"], label: Int[Tensor, "B M"], mean: Mean = "tokens") -> Loss:
    """Mean cross-entropy and accuracy over the hidden tokens; 0 where a batch hides none."""
    known = label != -100
    return Loss(mean_of(cross_entropy(logits, label), known, mean), {"accuracy": accuracy(logits, label, known)})


def cross_entropy(logits: Float[Tensor, "B M K"], label: Int[Tensor, "B M"]) -> Float[Tensor, "B M"]:
    """In float32 for each token; 0 where the label is -100."""
    return F.cross_entropy(logits.float().flatten(0, 1), label.flatten(), reduction="none").view_as(label)


@torch.no_grad()
def accuracy(
    logits: Float[Tensor, "*B K"], label: Shaped[Tensor, "*B"], counted: Bool[Tensor, "*B"]
) -> Float[Tensor, ""]:
    """Share of the counted labels that have the highest logit; 0 where none is counted."""
    return mean_where((logits.argmax(-1) == label).float(), counted)


def mean_where(values: Float[Tensor, "*B"], counted: Bool[Tensor, "*B"]) -> Float[Tensor, ""]:
    """The mean of the counted values; 0 where there are none."""
    return values.where(counted, 0.0).sum() / counted.sum().clamp(min=1)


def mean_of(values: Float[Tensor, "B M"], counted: Bool[Tensor, "B M"], mean: Mean) -> Float[Tensor, ""]:
    """The mean of the counted values over all "tokens", or over the means of those "rows" that count any.

    The second is VL-BERT's `*_LOSS_NORM_IN_BATCH_FIRST`, whose counts have 1e-4 added
    (resnet_vlbert_for_pretraining.py:168-190). Its shipped configurations use the first.
    """
    if mean == "tokens":
        return mean_where(values, counted)
    of_rows = (values * counted).sum(1) / (counted.sum(1) + 1e-4)
    return of_rows.sum() / (counted.any(1).sum() + 1e-4)
