"""X-VLM's answer decoder against numbers recorded from the original code: states, training loss, ranking of answers."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pytest
import torch
from recorded import cases
from test_xvlm import CLOSE, pixels

from crossgrain.config import UserError
from crossgrain.data.answers import AnswerVocabulary
from crossgrain.data.types import Answers, Batch, Pixels, Text
from crossgrain.interop.xvlm_vqa import convert_xvlm_vqa
from crossgrain.objectives.interface import Views

every_case = pytest.mark.parametrize("case", cases("xvlm", "vqa_"))


def known(case):
    """What the tensors do not tell."""
    meta = case.meta
    given = {"num_heads": meta.get("text_config", {}).get("num_attention_heads", 4)}
    if not meta["config"]["use_swin"]:
        vision = meta.get("vision") or {}
        heads = vision.get("num_attention_heads", vision.get("num_heads", 4))
        given["vision"] = {"num_heads": heads, "local_attention_depth": vision.get("local_attn_depth", 1)}
    return given


@dataclass
class Replay:
    """A recorded case: the model and its decoder with the recorded weights, and its questions as our batch."""

    case: Any

    @cached_property
    def io(self):
        return self.case.load("io")

    @cached_property
    def converted(self):
        return convert_xvlm_vqa(self.case.load("weights"), **known(self.case))

    @cached_property
    def built(self):
        return self.converted.build()

    @property
    def head(self):
        return self.built[1]["vqa"]

    @cached_property
    def views(self):
        images, text = pixels(self.io["image"]), Text(ids=self.io["q_ids"], mask=self.io["q_atts"].bool())
        batch = Batch(
            image={"clean": Pixels.whole(images)},
            text={"clean": text},
            targets={"questions": self.answers()},
            group=torch.arange(len(images)),
        )
        return Views(self.built[0], batch)

    def answers(self):
        """The recorded answers, which stand one after another, by question."""
        io, counts = self.io, self.io["train.k"].tolist()
        shape = len(counts), max(counts)
        ids, mask = (torch.zeros(*shape, io[f"train.a_{name}"].shape[1], dtype=torch.long) for name in ("ids", "atts"))
        weight, start = torch.zeros(shape), 0
        for row, count in enumerate(counts):
            theirs = slice(start, start + count)
            ids[row, :count], mask[row, :count] = io["train.a_ids"][theirs], io["train.a_atts"][theirs]
            weight[row, :count] = io["train.weights"][theirs]
            start += count
        index = torch.full(shape, -1)
        return Answers(index=index, score=torch.zeros(shape), weight=weight, ids=ids, mask=mask.bool())

    def know_answers(self):
        rows = zip(self.io["rank.a_ids"].tolist(), self.io["rank.a_atts"].sum(1).tolist(), strict=True)
        self.head.know(AnswerVocabulary(self.case.meta["answers"]), [row[:length] for row, length in rows])


@every_case
def test_the_states_of_the_questions_match(case):
    replay = Replay(case)
    with torch.no_grad():
        states = replay.head.look(replay.views.fused(), replay.views.batch.text["clean"])
    real = replay.io["q_atts"].bool()
    torch.testing.assert_close(states[real], replay.io["out.question_states"][real], **CLOSE)


@every_case
def test_the_training_loss_matches(case):
    replay = Replay(case)
    with torch.no_grad():
        loss = replay.head(replay.views).value.item()
    assert loss == pytest.approx(case.meta["train_loss"], rel=1e-5)


@every_case
def test_the_likelihoods_match(case):
    """Of every first word, and of the answers that the original had kept after its first step."""
    replay, io = Replay(case), Replay(case).io
    with torch.no_grad():
        memories = replay.head.memories(replay.views.fused().text)
        chosen = io["out.start_logits"].softmax(1)[:, io["rank.a_ids"][:, 1]].topk(case.meta["k_test"], dim=1).indices
        ids, mask = io["rank.a_ids"][chosen], io["rank.a_atts"].bool()[chosen]
        first, likelihood = replay.head.likelihood(memories, io["q_atts"].bool(), ids, mask)
    torch.testing.assert_close(first, io["out.start_logits"].log_softmax(1), **CLOSE)
    torch.testing.assert_close(-likelihood.flatten(), io["out.answer_loss"], **CLOSE)


@every_case
def test_the_ranking_matches(case):
    replay = Replay(case)
    k = case.meta["k_test"]
    replay.head.config = type(replay.head.config)(candidates=k)
    replay.know_answers()
    text = replay.views.batch.text["clean"]
    with torch.no_grad():
        ranked = replay.head.rank(replay.head.look(replay.views.fused(), text), text, k)
    assert torch.equal(ranked.place, replay.io["out.topk_ids"])
    torch.testing.assert_close(ranked.probability, replay.io["out.topk_probs"], **CLOSE)


@every_case
def test_a_checkpoint_is_never_read_in_part(case):
    weights = case.load("weights")
    report = Replay(case).converted.report
    assert set(report.renamed) | set(report.dropped) == set(weights)
    key = "text_decoder.cls.predictions.transform.dense.weight"
    with pytest.raises(UserError, match=r"nothing fills \['vqa.words.dense.weight'\]"):
        convert_xvlm_vqa({k: v for k, v in weights.items() if k != key}, **known(case))
    with pytest.raises(UserError, match="no X-VLM for questions"):
        convert_xvlm_vqa({k: v for k, v in weights.items() if "decoder" not in k}, **known(case))
    untied = weights["text_decoder.cls.predictions.decoder.weight"] + 1
    with pytest.raises(UserError, match="differs from the word embeddings"):
        convert_xvlm_vqa(weights | {"text_decoder.cls.predictions.decoder.weight": untied}, **known(case))
