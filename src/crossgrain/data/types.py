"""What flows through a model, from a batch on the host to its targets.

Shape letters: B pairs (a text with the visual concept it speaks about), I images, N regions, F size of a region's
feature, K region classes, L text tokens, H W pixels, M hidden tokens, R pairs with a box target.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

T = TypeVar("T", bound="Tensors")


class Tensors:
    """A frozen dataclass of tensors that moves as one."""

    def map(self: T, function: Callable[[Tensor], Tensor]) -> T:
        """A copy with `function` applied to every tensor in it."""
        done: dict[int, Tensor] = {}  # a tensor that stands in two places (clean and masked regions) is one copy

        def once(tensor: Tensor) -> Tensor:
            if id(tensor) not in done:
                done[id(tensor)] = function(tensor)
            return done[id(tensor)]

        return self._mapped(once)

    def _mapped(self: T, function: Callable[[Tensor], Tensor]) -> T:
        return replace(self, **{f.name: _map(getattr(self, f.name), function) for f in fields(self)})  # type: ignore[type-var]

    def to(self: T, device: torch.device | str) -> T:
        """A copy on `device`; from pinned memory the transfer overlaps with computing."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self: T) -> T:
        """A copy in pinned memory (what torch's DataLoader calls)."""
        return self.map(Tensor.pin_memory)


def _map(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Tensors):
        return value._mapped(function)
    return {k: _map(v, function) for k, v in value.items()} if isinstance(value, dict) else value


@dataclass(frozen=True, kw_only=True)
class Text(Tensors):
    """Token ids; `mask` is True on real tokens. `segment` is 0 everywhere unless a task says otherwise.

    `tags` says which region of its image a word speaks about, as a place on the region axis, -1 for none (VCR).
    """

    ids: Int[Tensor, "B L"]
    mask: Bool[Tensor, "B L"]
    segment: Int[Tensor, "B L"] | None = None
    tags: Int[Tensor, "B L"] | None = None


@dataclass(frozen=True, kw_only=True)
class Pixels(Tensors):
    """Images, and which box of which image each pair speaks about.

    The whole image is the box (0, 0, 1, 1): object, region and image are one kind of thing, a visual concept (X-VLM,
    section 3.1), and an image is encoded once for all its concepts. uint8 pixels are normalised on the device by the
    image encoder; float pixels are taken as normalised already. `regions` names the rows that may speak about a part
    (fixed by the recipe, so that shapes never change); None means that any row may. `size` is (height, width) of each
    image in the upper left of the canvas (H, W), where images keep their shape; None where they fill it.
    """

    pixels: Shaped[Tensor, "I 3 H W"]
    image: Int[Tensor, " B"]
    boxes: Float[Tensor, "B 4"]
    regions: Int[Tensor, " R"] | None = None
    size: Int[Tensor, "I 2"] | None = None

    def blind(self) -> "Pixels":
        """The same images, all grey: for a baseline that sees nothing."""
        return replace(self, pixels=torch.full_like(self.pixels, 128))

    def region_rows(self) -> Int[Tensor, " R"]:
        """The rows that may speak about a part of their image."""
        return torch.arange(len(self.image), device=self.image.device) if self.regions is None else self.regions

    def whole_rows(self) -> Bool[Tensor, " B"]:
        """Which rows speak about their whole image."""
        return (self.boxes == self.boxes.new_tensor([0.0, 0.0, 1.0, 1.0])).all(1)

    @staticmethod
    def whole(pixels: Shaped[Tensor, "I 3 H W"]) -> "Pixels":
        """One concept per image: the whole of it."""
        rows = torch.arange(len(pixels), device=pixels.device)
        boxes = torch.tensor([0.0, 0.0, 1.0, 1.0], device=pixels.device).expand(len(pixels), 4)
        return Pixels(pixels=pixels, image=rows, boxes=boxes, regions=rows[:0])


@dataclass(frozen=True, kw_only=True)
class Regions(Tensors):
    """Regions that a detector found, as it described them.

    `image` says which image each pair speaks about, -1 for a text without one. `hidden` is the masked variant's: which
    regions the model must not see; their features still stand in `features`, and the model puts there what its paper
    does (zeros, or a learned vector).
    """

    features: Float[Tensor, "I N F"]
    boxes: Float[Tensor, "I N 4"]  # (x1, y1, x2, y2) in [0, 1]
    mask: Bool[Tensor, "I N"]  # True marks a real region
    image: Int[Tensor, " B"]
    hidden: Bool[Tensor, "I N"] | None = None

    def blind(self) -> "Regions":
        """As many regions that look like nothing and are nowhere: for a baseline that sees nothing."""
        return replace(self, features=torch.zeros_like(self.features), boxes=_everywhere(self.boxes))


@dataclass(frozen=True, kw_only=True)
class RawRegions(Tensors):
    """Images with the boxes of their regions, for models that train the backbone along (VL-BERT, Fast R-CNN).

    `size` is (height, width) of each image in the upper left of the canvas; `boxes` are in units of the image, not of
    the canvas. The pixels of `hidden` regions are set to zero before the backbone.
    """

    pixels: Shaped[Tensor, "I 3 H W"]
    size: Int[Tensor, "I 2"]
    boxes: Float[Tensor, "I N 4"]
    mask: Bool[Tensor, "I N"]
    image: Int[Tensor, " B"]
    hidden: Bool[Tensor, "I N"] | None = None

    def blind(self) -> "RawRegions":
        """The same images, all grey, with regions that are nowhere."""
        return replace(self, pixels=torch.full_like(self.pixels, 128), boxes=_everywhere(self.boxes))


def _everywhere(boxes: Float[Tensor, "I N 4"]) -> Float[Tensor, "I N 4"]:
    return boxes.new_tensor([0.0, 0.0, 1.0, 1.0]).expand_as(boxes).contiguous()


@dataclass(frozen=True, kw_only=True)
class Hidden(Tensors):
    """The tokens that were hidden and what they were. M is fixed (one compiled graph); -100 fills rows with fewer."""

    position: Int[Tensor, "B M"]
    label: Int[Tensor, "B M"]


@dataclass(frozen=True, kw_only=True)
class HiddenRegions(Hidden):
    """The regions that were chosen for masking: the detector's label of each, and where it is wanted its distribution.

    Nine of ten of them are hidden, the rest is predicted in plain sight. Positions count the regions from 0.
    """

    probs: Float[Tensor, "B M K"] | None = None


@dataclass(frozen=True, kw_only=True)
class Matched(Tensors):
    """Which rows have their own text, and not that of another image."""

    label: Bool[Tensor, " B"]


@dataclass(frozen=True, kw_only=True)
class BoxTarget(Tensors):
    """Which rows of the batch speak about a region, and where it is in its image: (x1, y1, x2, y2) in [0, 1]."""

    rows: Int[Tensor, " R"]
    boxes: Float[Tensor, "R 4"]
    valid: Bool[Tensor, " R"]  # False where the row turned out to speak about the whole image


Image = Pixels | Regions | RawRegions  # what a model reads of an image is said by its class (`reads`)


@dataclass(frozen=True, kw_only=True)
class Answers(Tensors):
    """What people answered to each of S questions: at most A different answers, of at most L tokens each."""

    index: Int[Tensor, "S A"]  # place in the answer vocabulary; -1 where it has none, and to fill
    score: Float[Tensor, "S A"]  # what VQA's metric would give for it
    weight: Float[Tensor, "S A"]  # the share of people who said it, times the weight of the source; 0 fills
    ids: Int[Tensor, "S A L"]  # [CLS] answer [SEP]
    mask: Bool[Tensor, "S A L"]


@dataclass(frozen=True, kw_only=True)
class Judged(Tensors):
    """Whether each of S statements is true of its two images, whose rows are 2s and 2s + 1 (NLVR2)."""

    label: Bool[Tensor, " S"]


@dataclass(frozen=True, kw_only=True)
class Chosen(Tensors):
    """Which of its four rows, 4s to 4s + 3, is right in each of S samples, and what its regions show (VCR)."""

    label: Int[Tensor, " S"]
    region_class: Int[Tensor, "S N"]  # the detector's label; -100 where there is none


@dataclass(frozen=True, kw_only=True)
class Named(Tensors):
    """The true box of each of S expressions, and how much every region of its image overlaps it (IoU)."""

    box: Float[Tensor, "S 4"]
    overlap: Float[Tensor, "S N"]  # N is 0 for models that read pixels


@dataclass(frozen=True, kw_only=True)
class References(Tensors):
    """R captions of the image of each row, of at most L tokens; `mask` is False everywhere in those that fill."""

    ids: Int[Tensor, "B R L"]
    mask: Bool[Tensor, "B R L"]


@dataclass(frozen=True, kw_only=True)
class Batch(Tensors):
    """One batch.

    `image` and `text` hold the variants that the collator made: "clean", and "masked", which is the clean one where
    nothing of it is to be predicted. `targets` holds what the objectives predict: "mlm" (Hidden), "regions"
    (HiddenRegions), "itm" (Matched), "box" (BoxTarget); for tasks "questions" (Answers), "pairs" (Judged), "choices"
    (Chosen), "expressions" (Named), "references" (References). Rows with equal `group` speak about the same concept, so
    that none of them is a negative of another. `paired` is False on rows that are text alone; None where every row has
    an image.
    """

    image: dict[str, Image]
    text: dict[str, Text]
    group: Int[Tensor, " B"]
    targets: dict[str, Any] = field(default_factory=dict)
    paired: Bool[Tensor, " B"] | None = None

    def blind(self) -> "Batch":
        """The same batch with images that show nothing."""
        return replace(self, image={variant: image.blind() for variant, image in self.image.items()})
