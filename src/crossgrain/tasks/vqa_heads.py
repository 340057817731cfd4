"""Heads that answer questions by choosing from an answer vocabulary.

`classifier` reads the fused [CLS], as Pixel-BERT does; `mask` reads the [MASK] that follows the question, as VL-BERT
does; `decoder` (vqa_decoder.py) writes the answer, as X-VLM does. Each works with every model.

Shape letters: S questions, L words, A answers that people gave, N answers to choose from, K that are ranked, D width.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from crossgrain.config import Count, Share, configclass
from crossgrain.data.answers import AnswerVocabulary
from crossgrain.data.types import Answers, Text
from crossgrain.models.interface import Fused, VisionLanguageModel
from crossgrain.objectives.interface import Loss, Views
from crossgrain.tasks.adopting import take_fitting

Layers = Literal["mlp", "2fc", "1fc", "transform"]
HIDDEN = 1024  # of "2fc" (VL-BERT vqa/function/config.py, CLASSIFIER_HIDDEN_SIZE)
HEADS: dict[str, type | str] = {
    "classifier": "crossgrain.tasks.vqa_heads:AnswerClassifier",
    "mask": "crossgrain.tasks.vqa_heads:AnswerAtMask",
    "decoder": "crossgrain.tasks.vqa_decoder:AnswerDecoder",
}


class Ranked(NamedTuple):
    """The best answers of each question, best first: their places in the vocabulary and how probable each is."""

    place: Int[Tensor, "S K"]
    probability: Float[Tensor, "S K"]


class AnswerHead(nn.Module, ABC):
    """What the heads share. `answers` are the answers to choose from, once `know` has told them."""

    answer_slot: ClassVar[bool] = False  # whether a question comes as [CLS] question [SEP] [MASK] [SEP]
    answers: AnswerVocabulary | None = None
    answer_ids: Sequence[Sequence[int]] = ()

    def know(self, answers: AnswerVocabulary, ids: Sequence[Sequence[int]]) -> None:
        """The answers to choose from, and each in token ids: [CLS] answer [SEP]."""
        self.answers, self.answer_ids = answers, ids

    @abstractmethod
    def look(self, fused: Fused, text: Text) -> Tensor:
        """What the head reads of questions that have met their images: (S, D) or (S, L, D)."""

    @abstractmethod
    def rank(self, seen: Tensor, text: Text, k: int = 1) -> Ranked:
        """The k best answers, from what `look` gave, in float32; fewer where there are fewer to choose from."""

    @abstractmethod
    def forward(self, views: Views) -> Loss:
        """The loss of a batch of questions."""

    @abstractmethod
    def adopt(self, model: VisionLanguageModel, weights: Mapping[str, Mapping[str, Tensor]]) -> list[str]:
        """Take over what pre-training learnt; the names of the parts that were."""

    def continued(self, weights: Mapping[str, Mapping[str, Tensor]]) -> list[str]:
        """Take over the head of an earlier run on questions, where it is of this very form and answers as many."""
        earlier, mine = weights.get("vqa", {}), self.state_dict()
        if not earlier or {k: v.shape for k, v in earlier.items()} != {k: v.shape for k, v in mine.items()}:
            return []
        self.load_state_dict(dict(earlier))
        return ["the head of an earlier run"]


class AnswerClassifier(AnswerHead):
    """One logit for every answer of the vocabulary, from the fused [CLS]; binary cross-entropy with soft targets.

    The target of an answer is what VQA's metric gives for it. The loss of a question is the sum over all answers, as in
    VL-BERT (resnet_vlbert_for_vqa.py:249) and UNITER (train_vqa.py). Answers outside the vocabulary are no targets.

    | `layers`    | what they are                                     | as in                                       |
    |-------------|---------------------------------------------------|---------------------------------------------|
    | "mlp"       | Linear(2 D), GELU, LayerNorm, Linear(N)           | UNITER model/vqa.py (no pooler before it)   |
    | "2fc"       | Dropout, Linear(hidden), ReLU, Dropout, Linear(N) | VL-BERT; SOHO with hidden_dim 4 D           |
    | "1fc"       | Dropout, Linear(N)                                | VL-BERT                                     |
    | "transform" | BERT's word prediction up to its words, Dropout,  | VL-BERT's published one ("mlm")             |
    |             | Linear(N)                                         |                                             |

    ImageBERT and Pixel-BERT say no more than that it is a classifier on [CLS].
    """

    @configclass
    class Config:
        weight: float = 1.0
        layers: Layers = "mlp"
        hidden_dim: Count | None = None  # None: 2 D for "mlp", 1024 for "2fc"; the others have none
        dropout: Share = 0.1
        # An answer's weights start as the mean of its words' embeddings; where the last layer is as wide as they are.
        from_words: bool = False
        num_answers: Count | None = None  # None: as many as the answer vocabulary has

        def __post_init__(self) -> None:
            if self.from_words and self.layers in ("mlp", "2fc"):
                raise ValueError(f"from_words needs layers transform or 1fc: those of {self.layers!r} have no words")

    def __init__(self, config: Config, model: VisionLanguageModel):
        super().__init__()
        if config.num_answers is None:
            raise ValueError("num_answers is not set: give the number of answers of the vocabulary")
        self.config = config
        self.layers = answer_layers(config, model.dim, config.num_answers)
        for module in self.layers.modules():
            if isinstance(module, nn.Linear):  # resnet_vlbert_for_vqa.py:91-94
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def look(self, fused: Fused, text: Text) -> Float[Tensor, "S D"]:
        return fused.cls

    def logits(self, seen: Float[Tensor, "S D"]) -> Float[Tensor, "S N"]:
        """How much each answer fits, in float32."""
        return self.layers(seen).float()

    def forward(self, views: Views) -> Loss:
        logits = self.logits(self.look(views.fused(), views.batch.text["clean"]))
        target = soft_targets(views.batch.targets["questions"], logits.shape[1])
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1).mean()
        with torch.no_grad():
            accuracy = target.gather(1, logits.argmax(1, keepdim=True)).mean()
        return Loss(loss, {"accuracy": accuracy})

    def rank(self, seen: Tensor, text: Text, k: int = 1) -> Ranked:
        logits = self.logits(seen.float())
        best = logits.topk(min(k, logits.shape[1]), dim=1)
        return Ranked(best.indices, best.values.sigmoid())

    def adopt(self, model: VisionLanguageModel, weights: Mapping[str, Mapping[str, Tensor]]) -> list[str]:
        """BERT's word prediction where `layers` has it, and the words of the answers where `from_words` says so."""
        if told := self.continued(weights):
            return told
        taken, words = [], weights.get("mlm")
        if self.config.layers == "transform" and words is not None:
            transform = nn.ModuleDict({"dense": self.layers[0], "norm": self.layers[2]})
            taken += [f"mlm.{part}" for part in take_fitting(transform, words)]
        last = self.layers[-1]
        if self.config.from_words:
            assert isinstance(last, nn.Linear) and self.answer_ids, "the head does not know the answers"
            last.weight.copy_(mean_embedding(model.token_embedding.weight, [ids[1:-1] for ids in self.answer_ids]))
            taken.append("words of the answers")
        return taken


class AnswerAtMask(AnswerClassifier):
    """The same, read at the [MASK] that stands where the answer would (VL-BERT section 4.2.2, Figure 3b)."""

    answer_slot = True

    @configclass
    class Config(AnswerClassifier.Config):
        layers: Layers = "transform"
        from_words: bool = True  # vqa/function/train.py:216-233

    def look(self, fused: Fused, text: Text) -> Float[Tensor, "S D"]:
        """The text ends with [MASK] [SEP]."""
        return fused.words((text.mask.sum(1) - 2)[:, None])[:, 0]


def answer_layers(config: AnswerClassifier.Config, dim: int, num_answers: int) -> nn.Sequential:
    """The layers of a classifier, from width `dim` to the answers."""
    dropout = config.dropout
    if config.layers == "1fc":
        return nn.Sequential(nn.Dropout(dropout), nn.Linear(dim, num_answers))
    if config.layers == "2fc":
        hidden = config.hidden_dim or HIDDEN
        first, last = nn.Linear(dim, hidden), nn.Linear(hidden, num_answers)
        return nn.Sequential(nn.Dropout(dropout), first, nn.ReLU(), nn.Dropout(dropout), last)
    hidden = dim if config.layers == "transform" else config.hidden_dim or 2 * dim
    first, norm, last = nn.Linear(dim, hidden), nn.LayerNorm(hidden, eps=1e-12), nn.Linear(hidden, num_answers)
    rest = [nn.Dropout(dropout), last] if config.layers == "transform" else [last]
    return nn.Sequential(first, nn.GELU(), norm, *rest)


def soft_targets(target: Answers, num_answers: int) -> Float[Tensor, "S N"]:
    """The score of every answer of the vocabulary; 0 for those that nobody gave."""
    places = target.index.where(target.index >= 0, num_answers)  # a column that is cut off
    table = target.score.new_zeros(len(places), num_answers + 1)
    return table.scatter_reduce(1, places, target.score, "amax")[:, :num_answers]


def mean_embedding(words: Float[Tensor, "V D"], texts: Sequence[Sequence[int]]) -> Float[Tensor, "N D"]:
    """The mean embedding of each text's words."""
    return torch.stack([words[torch.tensor(text, device=words.device)].mean(0) for text in texts])
