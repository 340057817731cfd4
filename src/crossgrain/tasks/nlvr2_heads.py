"""Heads that read one statement beside two images (NLVR2).

They differ in how the three become one state; what is asked of it is the same: is the statement true of the two images,
and in pre-training, which of two images a caption belongs to (text assignment).

Shape letters: S samples, B rows, D width of the model, E width of a state, L words.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from crossgrain.config import UserError, configclass
from crossgrain.data.types import Text
from crossgrain.models.interface import DualEncoder, Fused, Tokens, VisionLanguageModel
from crossgrain.models.xvlm import XVLM, ImageMemory
from crossgrain.nn.lengths import Last, groups_by_length
from crossgrain.nn.transformer import BertLayer, Computed, CrossAttention, LastLayer, key_mask, mlp_head, run_layers
from crossgrain.objectives.interface import Loss, Views
from crossgrain.objectives.itc import same_concept, similarities
from crossgrain.tasks.adopting import take_fitting

HEADS: dict[str, type | str] = {
    "two_passes": "crossgrain.tasks.nlvr2_heads:TwoPasses",
    "doubled": "crossgrain.tasks.nlvr2_heads:Doubled",
}
FALSE, TRUE = 0, 1  # the classifier's logits
FIRST, SECOND, NEITHER = 0, 1, 2  # the logits of text assignment
ASSIGNMENT_TEMPERATURE = 0.07  # of the similarities by which other images are drawn (model_nlvr_pretrain.py:69)


class Assigned(NamedTuple):
    """Captions between two images: rows of the first and the second, and which of them is the caption's own."""

    first: Int[Tensor, " B"]
    second: Int[Tensor, " B"]
    label: Int[Tensor, " B"]


class PairHead(nn.Module, ABC):
    """What both heads share: two questions to one state, and their losses.

    A batch of pairs trains the classifier: rows 2s and 2s + 1 are the two images of sample s, both with its statement.
    A batch of captions trains text assignment, X-VLM's pre-training for this task: each caption stands between two
    images, one in three times neither is its own, and it is told which one is, if any (model_nlvr_pretrain.py:63-101).
    The others are drawn in proportion to their similarity, where the model can tell it.
    """

    config: Any
    classifier: nn.Module | None
    assignment: nn.Linear | None

    @abstractmethod
    def states(self, model: VisionLanguageModel, first: Tokens, second: Tokens, text: Tokens) -> Float[Tensor, "S E"]:
        """What row s of the text says beside row s of both images; the images are prepared."""

    def judge(self, states: Float[Tensor, "S E"]) -> Float[Tensor, "S 2"]:
        """Logits of (false, true), in float32."""
        assert self.classifier is not None, "this head assigns texts only"
        return self.classifier(states).float()

    def assign(self, states: Float[Tensor, "B E"]) -> Float[Tensor, "B 3"]:
        """Logits of (first, second, neither), in float32. UserError where the recipe did not ask for it."""
        if self.assignment is None:
            raise UserError("nlvr2 learns from `texts: pairs`; captions need task.head.text_assignment: true")
        return self.assignment(states).float()

    def forward(self, views: Views) -> Loss:
        model, image = views.model, views.image()
        if "pairs" not in views.batch.targets:
            told = self.draw(views)
            states = self.states(model, image.take(told.first), image.take(told.second), views.text())
            return _classified(self.assign(states), told.label)
        first, second = torch.arange(len(image.x), device=image.x.device).view(-1, 2).unbind(1)
        text = model.encode_text(_every_other(views.batch.text["clean"]))
        states = self.states(model, image.take(first), image.take(second), text)
        return _classified(self.judge(states), views.batch.targets["pairs"].label.long())

    @torch.no_grad()
    def draw(self, views: Views) -> Assigned:
        """Two images for each caption of the batch.

        In a batch without two other images a caption's own may pass for another: it has nothing else to offer.
        """
        same = same_concept(views.batch.group)
        other = torch.zeros(same.shape, device=same.device)
        if isinstance(views.model, DualEncoder):
            feature = views.model.embed_image(views.image())
            other = similarities(feature, feature, feature.new_tensor(ASSIGNMENT_TEMPERATURE))
        others = other.softmax(1).masked_fill(same, 1e-12).multinomial(2)
        own, chance = torch.arange(len(same), device=same.device), torch.rand(2, len(same), device=same.device)
        neither, ahead = chance[0] <= 1 / 3, chance[1] > 0.5
        first = own.where(ahead, others[:, 0]).where(~neither, others[:, 0])
        second = others[:, 0].where(ahead, own).where(~neither, others[:, 1])
        label = torch.full_like(own, FIRST).where(ahead, SECOND).where(~neither, NEITHER)
        return Assigned(first, second, label)

    def adopt(self, model: VisionLanguageModel, weights: Mapping[str, Mapping[str, Tensor]]) -> list[str]:
        """Take over what a head of the same kind has learnt, such as from text assignment in a run of its own."""
        return take_fitting(self, weights.get("nlvr2", {}))


class TwoPasses(PairHead):
    """Each image meets the statement in a pass of its own; the two [CLS] side by side are the state.

    As Pixel-BERT, UNITER (model/nlvr2.py, paired) and ViLT (vilt/modules/objectives.py) do; for any model.
    """

    @configclass
    class Config:
        weight: float = 1.0
        # Linear, LayerNorm, GELU, Linear as in ViLT, or the one layer of UNITER's `paired`.
        classifier: Literal["mlp", "linear"] = "mlp"
        text_assignment: bool = False  # for a stage of captions before that of pairs

    def __init__(self, config: Config, model: VisionLanguageModel):
        super().__init__()
        self.config = config
        width = 2 * model.dim
        self.classifier = nn.Linear(width, 2)
        if config.classifier == "mlp":
            self.classifier = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.GELU(), self.classifier)
        self.assignment = nn.Linear(width, 3) if config.text_assignment else None

    def states(self, model: VisionLanguageModel, first: Tokens, second: Tokens, text: Tokens) -> Float[Tensor, "S E"]:
        return torch.cat([model.fuse(image, text).cls for image in (first, second)], dim=1)


class Doubled(PairHead):
    """X-VLM's cross layers, each of them twice: one that sees the first image, one that sees the second.

    The statement passes once through twice as many layers, the image alternating (model_nlvr.py; xbert.py:497). The
    body's layers are those of the first image. The others start as their copies, and have queries, outputs and all else
    of their own, but share the projection to keys and values, so that what is prepared of an image serves both
    (model_nlvr.py:79-92).
    """

    @configclass
    class Config:
        weight: float = 1.0
        classifier: Literal["mlp"] | None = "mlp"  # None in a published checkpoint of text assignment alone
        text_assignment: bool = False  # for a stage of captions before that of pairs

    def __init__(self, config: Config, model: VisionLanguageModel):
        super().__init__()
        if not isinstance(model, XVLM):
            raise ValueError(
                f"nlvr2 doubles the layers in which X-VLM's text attends to the image, which {type(model).__name__} "
                "does not have: write task.head.type: two_passes"
            )
        self.config = config
        self.second_layers = nn.ModuleList(_without_projection(layer) for layer in model.cross_layers)
        self.classifier = None if config.classifier is None else mlp_head(model.dim, 2)
        self.assignment = nn.Linear(model.dim, 3) if config.text_assignment else None

    def states(self, model: VisionLanguageModel, first: Tokens, second: Tokens, text: Tokens) -> Float[Tensor, "S E"]:
        assert isinstance(model, XVLM)
        groups = groups_by_length(text.mask)
        if groups is None:
            return self._states(model, first, second, text)
        parts = [
            self._states(model, first.take(rows), second.take(rows), _shortened(text, rows, length))
            for rows, length in groups
        ]
        return torch.cat(parts).index_select(0, torch.cat([group.rows for group in groups]).argsort())

    def _states(self, model: XVLM, first: Tokens, second: Tokens, text: Tokens) -> Float[Tensor, "S D"]:
        mask, seen = key_mask(text.mask), (key_mask(first.mask), key_mask(second.mask))
        last: Last = Computed(text.x)  # the last of all second layers is computed at [CLS] alone
        for number, (layer, copy) in enumerate(zip(model.cross_layers, self.second_layers, strict=True)):
            x = run_layers(
                [layer], last.whole(), mask, _context(first, number), seen[0], checkpoint=model.checkpointing
            )
            assert isinstance(copy, BertLayer)
            last = LastLayer(copy, x, mask, _context(second, number), seen[1], checkpoint=model.checkpointing)
        return Fused(last, text.x.shape[1]).cls

    def adopt(self, model: VisionLanguageModel, weights: Mapping[str, Mapping[str, Tensor]]) -> list[str]:
        """The second layers as copies of the body's, unless a head of this kind has learnt its own."""
        assert isinstance(model, XVLM)
        copies = nn.ModuleList(_without_projection(layer) for layer in model.cross_layers)
        self.second_layers.load_state_dict(copies.state_dict())
        return list(dict.fromkeys(["second_layers", *super().adopt(model, weights)]))


def _without_projection(layer: nn.Module) -> nn.Module:
    """A copy of a cross layer that reads keys and values which another one made."""
    copy = deepcopy(layer)
    assert isinstance(copy, BertLayer) and isinstance(copy.cross_attention, CrossAttention)
    del copy.cross_attention.key_value
    return copy


def _context(image: Tokens, layer: int) -> Float[Tensor, "S K Z"]:
    """The keys and values that a cross layer reads of each row's image."""
    memory = image.memory
    assert isinstance(memory, ImageMemory), "call prepare first"
    summaries, patches = memory.layers[layer]
    return torch.cat([summaries.index_select(0, memory.own), patches.index_select(0, memory.row)], dim=1)


def _shortened(text: Tokens, rows: Int[Tensor, " K"], length: int) -> Tokens:
    few = text.take(rows)
    return Tokens(few.x[:, :length], few.mask[:, :length])


def _every_other(text: Text) -> Text:
    """The statement of each sample, which both of its rows have."""
    return text.map(lambda tensor: tensor[::2])


def _classified(logits: Float[Tensor, "S K"], label: Int[Tensor, " S"]) -> Loss:
    right = (logits.argmax(1) == label).float().mean()
    return Loss(F.cross_entropy(logits, label), {"accuracy": right.detach()})
