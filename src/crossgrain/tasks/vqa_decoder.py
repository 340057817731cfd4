"""X-VLM's answer decoder: a small BERT writes the answer, word by word, reading what became of the question's words
(models/model_vqa.py; from ALBEF, Li et al. 2021, section 3.4).

All answers of a question are read at once. They stand side by side in one sequence, [CLS] before them all; a word sees
[CLS] and the words of its own answer before it, and the question's states are read by all. What comes out is what each
answer gives alone, but [CLS] is computed once, [SEP] not at all, and the states of a question are never repeated.

Shape letters: S questions, L their words, A answers of each, T tokens of an answer, P places of a packed sequence,
N answers of the vocabulary, K that are ranked, V words, D width, Z = 2 D.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from crossgrain.config import Count, configclass
from crossgrain.data.answers import AnswerVocabulary
from crossgrain.data.types import Answers, Text
from crossgrain.models.interface import Fused, VisionLanguageModel
from crossgrain.nn.embeddings import BertEmbedding
from crossgrain.nn.transformer import BertLayer, initialise_bert, key_mask, run_layers
from crossgrain.objectives.interface import Loss, Views
from crossgrain.objectives.mlm import MLM
from crossgrain.tasks.adopting import take_fitting
from crossgrain.tasks.vqa_heads import AnswerHead, Ranked

DEPTH = 6  # layers of the published decoder
PLACES = 2048  # scored over all words at once when answers are ranked: a quarter of a gigabyte


class Packed(NamedTuple):
    """The words of several answers as one sequence, without the [CLS] that stands before it and without any [SEP]."""

    ids: Int[Tensor, "S P"]
    position: Int[Tensor, "S P"]  # in its own answer; [CLS] has 0
    answer: Int[Tensor, "S P"]  # that it belongs to; -1 for padding
    next: Int[Tensor, "S P"]  # the word that follows


class AnswerDecoder(AnswerHead):
    """The likelihood of answers given a question's states, with word embeddings of its own.

    Training: the negative log-likelihood of every answer that people gave, weighted by the share of them who did, as a
    mean over the questions. Ranking, in two steps: the `candidates` whose first word is most probable, then these by
    the likelihood of all their words, where the first word counts twice (model_vqa.py:154-196).
    """

    candidate_ids: Tensor
    candidate_mask: Tensor

    @configclass
    class Config:
        weight: float = 1.0
        depth: Count | None = None  # None: as many as the model has layers with cross-attention; 6 where it has none
        candidates: Count = 128
        initializer_range: Annotated[float, Field(gt=0)] = 0.02  # of what no pre-trained layer covers

    def __init__(self, config: Config, model: VisionLanguageModel):
        super().__init__()
        self.config = config
        words, sources = embedding_of(model), last_layers(model)
        like = sources[-1]
        self.embedding = BertEmbedding(
            model.dim,
            vocab_size=words.token.num_embeddings,
            max_length=words.position.num_embeddings,
            num_segments=words.segment.num_embeddings,
            dropout=words.dropout.p,
        )
        self.layers = nn.ModuleList(
            BertLayer(
                model.dim,
                like.attention.num_heads,
                like.mlp.expand.out_features,
                context_dim=model.dim,
                dropout=like.dropout.p,
                attention_dropout=like.attention.dropout,
            )
            for _ in range(config.depth or (len(sources) if like.cross_attention is not None else DEPTH))
        )
        for module in (*self.embedding.modules(), *self.layers.modules()):
            initialise_bert(module, config.initializer_range)
        self.words = MLM(MLM.Config(), model)
        self._covered = {
            f"layers.{number}.{name}"
            for number, (mine, theirs) in enumerate(self._sources(model))
            for name in fitting_modules(mine, theirs)
        }

    def _sources(self, model: VisionLanguageModel) -> Iterator[tuple[nn.Module, BertLayer]]:
        """Each layer with that of the model which it begins as: the last ones."""
        return zip(self.layers, last_layers(model)[-len(self.layers) :], strict=False)

    def new_parameters(self) -> set[str]:
        """What no layer of the model covers: for X-VLM keys and values of the cross-attention (model_vqa.py:42-46)."""
        return {name for name, _ in self.layers.named_parameters("layers") if name not in self._covered}

    def know(self, answers: AnswerVocabulary, ids: Sequence[Sequence[int]]) -> None:
        super().know(answers, ids)
        longest, room = max(map(len, ids)), self.embedding.position.num_embeddings
        if longest > room:
            raise ValueError(f"an answer has {longest} tokens, and the model has positions for {room}")
        table = torch.tensor([[*row, *[0] * (longest - len(row))] for row in ids])
        mask = torch.arange(longest) < torch.tensor([len(row) for row in ids])[:, None]
        device = self.embedding.token.weight.device
        self.register_buffer("candidate_ids", table.to(device), persistent=False)
        self.register_buffer("candidate_mask", mask.to(device), persistent=False)

    def look(self, fused: Fused, text: Text) -> Float[Tensor, "S L D"]:
        """What every word of the question became."""
        return fused.text

    def forward(self, views: Views) -> Loss:
        target: Answers = views.batch.targets["questions"]
        text = views.batch.text["clean"]
        memories = self.memories(self.look(views.fused(), text))
        first, likelihood = self.likelihood(memories, text.mask, target.ids, target.mask)
        weight = target.weight * target.mask[:, :, 2:].any(2)  # people who had no answer teach none
        loss = -(weight * likelihood).sum() / len(likelihood)
        with torch.no_grad():
            most = target.ids[torch.arange(len(first), device=first.device), weight.argmax(1), 1]
            accuracy = (first.argmax(1) == most).float().mean()
        return Loss(loss, {"first_word_accuracy": accuracy})

    def memories(self, seen: Float[Tensor, "S L D"]) -> list[Float[Tensor, "S L Z"]]:
        """The keys and values of the question's states for every layer."""
        return [layer.cross_attention.memory(seen) for layer in self.layers]  # type: ignore[union-attr]

    def likelihood(
        self,
        memories: Sequence[Float[Tensor, "S L Z"]],
        words: Bool[Tensor, "S L"],
        ids: Int[Tensor, "S A T"],
        mask: Bool[Tensor, "S A T"],
    ) -> tuple[Float[Tensor, "S V"], Float[Tensor, "S A"]]:
        """The logarithm of how probable each first word is, and each answer: [CLS] answer [SEP]; in float32.

        The first answer of a question is never padding.
        """
        packed = pack(ids, mask)
        start = torch.zeros_like(packed.ids[:, :1])
        answer = torch.cat([start - 1, packed.answer], 1)
        position = torch.cat([start, packed.position], 1)
        own = (answer[:, :, None] == answer[:, None]) & (position[:, None] <= position[:, :, None])
        visible = own | (position[:, None] == 0)
        logits = self.logits(
            torch.cat([ids[:, 0, :1], packed.ids], 1), position, visible[:, None], memories, key_mask(words)
        )
        first = logits[:, 0].log_softmax(-1)
        rest = -F.cross_entropy(logits[:, 1:].flatten(0, 1), packed.next.flatten(), reduction="none")
        num_answers = ids.shape[1]
        total = rest.new_zeros(len(ids), num_answers + 1)  # padding adds to a column that is cut off
        place = packed.answer.where(packed.answer >= 0, num_answers)
        total = total.scatter_add(1, place, rest.view_as(place))[:, :num_answers]
        return first, total + first.gather(1, ids[:, :, 1])

    def logits(
        self,
        ids: Int[Tensor, "S P"],
        position: Int[Tensor, "S P"],
        visible: Bool[Tensor, "S 1 P P"],
        memories: Sequence[Float[Tensor, "S L Z"]],
        words: Bool[Tensor, "S 1 1 L"],
    ) -> Float[Tensor, "S P V"]:
        """Scores of the word that follows each place, in float32."""
        e = self.embedding
        x = e.dropout(e.norm(e.token(ids) + e.position(position) + e.segment.weight[0]))
        for layer, memory in zip(self.layers, memories, strict=True):
            x = run_layers([layer], x, visible, memory, words)
        return self.words.logits(x, e.token.weight).float()

    def rank(self, seen: Tensor, text: Text, k: int = 1) -> Ranked:
        memories, total = self.memories(seen.float()), len(self.candidate_ids)
        num_candidates = min(self.config.candidates, total)
        places = 1 + num_candidates * int(self.candidate_mask[:, 2:].sum()) // total
        rows = max(1, PLACES // places)  # of questions at once
        parts = []
        for start in range(0, len(seen), rows):
            few = slice(start, start + rows)
            parts.append(self._rank([memory[few] for memory in memories], text.mask[few], num_candidates, k))
        best, probability = zip(*parts, strict=True)
        return Ranked(torch.cat(best), torch.cat(probability))

    def _rank(self, memories: list[Tensor], words: Bool[Tensor, "S L"], num_candidates: int, k: int) -> Ranked:
        start = self.candidate_ids[:1, :1].expand(len(words), 1)
        alone = torch.ones(len(words), 1, 1, 1, dtype=torch.bool, device=start.device)
        logits = self.logits(start, torch.zeros_like(start), alone, memories, key_mask(words))[:, 0]
        chosen = logits.log_softmax(-1)[:, self.candidate_ids[:, 1]].topk(num_candidates, dim=1)
        _, likelihood = self.likelihood(
            memories, words, self.candidate_ids[chosen.indices], self.candidate_mask[chosen.indices]
        )
        best = (chosen.values + likelihood).softmax(-1).topk(min(k, num_candidates), dim=1)
        return Ranked(chosen.indices.gather(1, best.indices), best.values)

    def adopt(self, model: VisionLanguageModel, weights: Mapping[str, Mapping[str, Tensor]]) -> list[str]:
        """The words, the last layers of the model and its word prediction, each where its shape fits.

        X-VLM's cross-attention reads an image: its keys and values fit where image and text encoder are equally wide.
        """
        if told := self.continued(weights):
            return told
        taken = ["embedding"] if take_fitting(self.embedding, embedding_of(model).state_dict()) else []
        for number, (mine, theirs) in enumerate(self._sources(model)):
            take_fitting(mine, fitting := fitting_modules(mine, theirs))
            lacking = dict.fromkeys(name.rpartition(".")[0] for name in mine.state_dict() if name not in fitting)
            taken.append(f"layer {number}" + (f" (without {', '.join(lacking)})" if lacking else ""))
        return taken + (["word prediction"] if take_fitting(self.words, weights.get("mlm", {})) else [])


def pack(ids: Int[Tensor, "S A T"], mask: Bool[Tensor, "S A T"]) -> Packed:
    """The words of each question's answers side by side. What is padding everywhere is left out."""
    num_answers, length = ids.shape[1:]
    there = mask[:, :, 2:].flatten(1)  # a word is read where another one follows, if only [SEP]
    position = torch.arange(1, length - 1, device=ids.device).repeat(num_answers).expand_as(there)
    answer = torch.arange(num_answers, device=ids.device).repeat_interleave(length - 2).expand_as(there)
    packed = Packed(ids[:, :, 1:-1].flatten(1), position, answer.where(there, -1), ids[:, :, 2:].flatten(1))
    if torch.compiler.is_compiling():  # one shape, one graph
        return packed
    first = there.long().argsort(dim=1, stable=True, descending=True)[:, : int(there.sum(1).max())]
    return Packed(*(values.gather(1, first) for values in packed))


def last_layers(model: nn.Module) -> list[BertLayer]:
    """The model's layers with cross-attention, which are its last ones; where it has none, all that it has."""
    layers = [module for module in model.modules() if isinstance(module, BertLayer)]
    return [layer for layer in layers if layer.cross_attention is not None] or layers


def fitting_modules(mine: nn.Module, theirs: nn.Module) -> dict[str, Tensor]:
    """The tensors of their modules that all fit in mine: of a linear layer the bias goes with the matrix."""
    own, state = mine.state_dict(), theirs.state_dict()
    unfit = {name.rpartition(".")[0] for name, t in state.items() if name not in own or own[name].shape != t.shape}
    return {name: tensor for name, tensor in state.items() if name.rpartition(".")[0] not in unfit}


def embedding_of(model: VisionLanguageModel) -> BertEmbedding:
    """The model's words, which the decoder's begin as. ValueError for a model that is no BERT."""
    embedding = getattr(model, "text_embedding", None)
    if not isinstance(embedding, BertEmbedding):
        raise ValueError(f"an answer decoder is made like the model's BERT, and {type(model).__name__} has none")
    return embedding
