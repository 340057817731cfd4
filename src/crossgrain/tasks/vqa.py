"""Visual question answering: a question about an image, one answer out of the answer vocabulary.

Scored by VQA's accuracy, in the official normalisation (metrics/vqa.py). Entailment (SNLI-VE) is the same task with
three answers, and so are GQA and Visual Genome's questions with one true answer each.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from crossgrain.config import Choice, Count, UserError, config_owner, configclass
from crossgrain.data.answers import AnswerVocabulary
from crossgrain.data.asks import Words, question_words
from crossgrain.data.records import Record
from crossgrain.data.text import Tokenizer
from crossgrain.data.types import Image
from crossgrain.metrics.proportion import mean_interval
from crossgrain.metrics.vqa import best_constant, vqa_accuracy
from crossgrain.models.interface import VisionLanguageModel
from crossgrain.tasks.interface import Line, Task, Track, Trained, per_cent, per_cent_range, untracked
from crossgrain.tasks.vqa_decoder import AnswerDecoder
from crossgrain.tasks.vqa_heads import HEADS, AnswerAtMask, AnswerClassifier, AnswerHead, Ranked

# The head of each family as published; ImageBERT's paper has no questions, its successors answer them from [CLS].
PUBLISHED: dict[str, Any] = {
    "ImageBERT": AnswerClassifier.Config(),
    "PixelBERT": AnswerClassifier.Config(),
    "VLBERT": AnswerAtMask.Config(),
    "XVLM": AnswerDecoder.Config(),
}


class VQA(Task):
    """Open questions. A line is one of them: {key, id, question, type, answer, score, answers}.

    `score` is the probability of the answer, `answers` what people said, null where nobody knows.
    """

    name = "vqa"
    texts = "questions"

    @configclass
    class Config:
        """The batch sizes bound the memory of prediction."""

        head: Annotated[Any, Choice(HEADS)] | None = None  # null: as published for the model
        max_answers: Count = 10  # different answers of a question that it is trained on
        max_answer_tokens: Annotated[int, Field(ge=3)] = 12  # of an answer, with [CLS] and [SEP]
        images_per_batch: Count = 64
        questions_per_batch: Count = 128

    config: Config

    def head(self, model: VisionLanguageModel, tokenizer: Tokenizer) -> AnswerHead:
        """UserError where there is no answer vocabulary, ValueError where the model cannot have this head."""
        if not self.answers:
            raise UserError("vqa needs an answer vocabulary: its recipe names a file of answers, or training questions")
        answers = AnswerVocabulary.of(self.answers)
        config = self.head_config(model)
        if isinstance(config, AnswerClassifier.Config):
            if config.num_answers not in (None, len(answers.names)):
                raise UserError(f"num_answers is {config.num_answers}, the answer vocabulary has {len(answers.names)}")
            config = replace(config, num_answers=len(answers.names))
        head = config_owner(config)(config, model)
        ids = [tokenizer.encode(name, self.config.max_answer_tokens, True) for name in answers.names]
        if isinstance(head, AnswerDecoder):
            check_writable(answers, ids, tokenizer)
        head.know(answers, ids)
        return head

    def head_config(self, model: VisionLanguageModel) -> Any:
        """That of the recipe, or of the paper of the model; models of others get a classifier."""
        return self.config.head or PUBLISHED.get(type(model).__name__, AnswerClassifier.Config())

    def reading(self, model: VisionLanguageModel) -> dict[str, Any]:
        return {
            "answer_slot": config_owner(self.head_config(model)).answer_slot,
            "max_answers": self.config.max_answers,
            "max_answer_tokens": self.config.max_answer_tokens,
        }

    def missing(self, trained: Trained) -> str | None:
        head = trained.objectives.get(self.name)
        return None if isinstance(head, AnswerHead) else "a head for answers: fine-tune it on questions (task vqa)"

    def predict(self, trained: Trained, records: Sequence[Record], track: Track = untracked) -> Iterator[Line]:
        head: AnswerHead = trained.objectives[self.name]
        assert head.answers is not None
        names, reading = head.answers.names, trained.reading(answer_slot=head.answer_slot)
        for batch, image in trained.images(records, self.config.images_per_batch, track, "answer questions"):
            asked = [(row, item) for row, record in enumerate(batch) for item in record.extra.get("questions", ())]
            if not asked:
                continue
            words = [question_words(item["question"], reading) for _, item in asked]
            best = self._best(trained, head, image, [row for row, _ in asked], words)
            places, probabilities = best.place[:, 0].tolist(), best.probability[:, 0].tolist()
            for (row, item), place, probability in zip(asked, places, probabilities, strict=True):
                yield {
                    "key": batch[row].key,
                    "id": item.get("id"),
                    "question": item["question"],
                    "type": item.get("type"),
                    "answer": names[place],
                    "score": round(probability, 6),
                    "answers": item.get("answers") or None,
                }

    def _best(
        self, trained: Trained, head: AnswerHead, image: Image, rows: Sequence[int], words: Sequence[Words]
    ) -> Ranked:
        """The best answer of each question about its row of the images, which are encoded once."""
        model, asked = trained.model, torch.tensor(rows, device=trained.device)
        parts = []
        with trained.answering():
            with trained.autocast():
                images = model.prepare(model.encode_image(image))
            for start in range(0, len(rows), self.config.questions_per_batch):
                few = slice(start, start + self.config.questions_per_batch)
                text = trained.words(words[few])
                with trained.autocast():
                    seen = head.look(model.fuse(images.take(asked[few]), model.encode_text(text)), text)
                parts.append(head.rank(seen.float(), text))
        return Ranked(*(torch.cat(columns) for columns in zip(*parts, strict=True)))

    @staticmethod
    def score(lines: Sequence[Line]) -> dict[str, Any]:
        """Accuracy over all questions and by their type, beside that of the best constant answer ("chance")."""
        known = [line for line in lines if line["answers"]]
        unscored = {"unscored": len(lines) - len(known)} if len(known) < len(lines) else {}
        if not known:
            return unscored
        accuracy = np.array([vqa_accuracy(line["answer"], line["answers"]) for line in known])
        types: dict[str, list[int]] = defaultdict(list)
        for number, line in enumerate(known):
            if line["type"] is not None:
                types[line["type"]].append(number)
        low, high = mean_interval(accuracy)
        return {
            **per_cent({"accuracy": float(accuracy.mean())}),
            "questions": len(known),
            "images": len({line["key"] for line in known}),
            "confidence_95": per_cent_range({"accuracy": (max(0.0, low), min(1.0, high))}),
            "chance": per_cent({"accuracy": _constant(known)}),
            **({"by_type": {kind: _of_type(known, accuracy, types[kind]) for kind in sorted(types)}} if types else {}),
            **unscored,
        }


def check_writable(answers: AnswerVocabulary, ids: Sequence[list[int]], tokenizer: Tokenizer) -> None:
    """UserError where several answers are the same to a decoder, for want of words."""
    times = Counter(map(tuple, ids))
    same = [
        name for name, row in zip(answers.names, ids, strict=True) if tokenizer.unk in row and times[tuple(row)] > 1
    ]
    if same:
        told = ", ".join(map(repr, same[:6])) + (", ..." if len(same) > 6 else "")
        raise UserError(
            f"the vocabulary of the texts has no words for {len(same)} of {len(ids)} answers, which a decoder cannot "
            f"tell apart: {told}; choose task.head.type=classifier, or pre-train with a vocabulary that has them"
        )


def _constant(lines: Sequence[Line]) -> float:
    """The accuracy of the one answer that would score best if given to all these questions."""
    return best_constant([line["answers"] for line in lines])[1]


def _of_type(lines: Sequence[Line], accuracy: np.ndarray, members: Sequence[int]) -> dict[str, Any]:
    share = {"accuracy": float(accuracy[members].mean()), "chance": _constant([lines[number] for number in members])}
    return {**per_cent(share), "questions": len(members)}
