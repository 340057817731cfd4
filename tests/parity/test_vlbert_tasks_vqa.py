"""VL-BERT's answers against numbers recorded from the original code: words, states, logits, loss."""

from dataclasses import dataclass
from functools import cached_property

import pytest
import torch
from recorded import cases
from test_vlbert import CLOSE, Replay

from crossgrain.config import UserError
from crossgrain.data.asks import Reading, question_words
from crossgrain.data.collate import pad_words
from crossgrain.data.text import SPECIAL_TOKENS, TextConfig, Tokenizer
from crossgrain.data.types import Answers, Batch, Regions
from crossgrain.interop.vlbert_vqa import convert_vlbert_vqa
from crossgrain.objectives.interface import Views

PAD, UNK, CLS, SEP, MASK = 0, 1, 6, 7, 8
every_case = pytest.mark.parametrize("case", cases("vlbert", "vqa_"))


def tokenizer(num_words):
    """Token n is the word "wn", but for the special ones."""
    tokens = [f"w{number}" for number in range(num_words)]
    for place, token in zip((PAD, UNK, CLS, SEP, MASK), SPECIAL_TOKENS, strict=True):
        tokens[place] = token
    return Tokenizer(tokens)


@dataclass
class Asked(Replay):
    """A recorded case: the model and its classifier, and the questions as our batch."""

    @cached_property
    def converted(self):
        return convert_vlbert_vqa(self.case.load("weights"), num_heads=self.heads)

    @property
    def heads(self):
        return self.case.meta["network"]["VLBERT"]["num_attention_heads"]

    @cached_property
    def batch(self):
        io = self.io
        names = tokenizer(self.case.meta["network"]["VLBERT"]["vocab_size"])
        reading = Reading(tokenizer=names, text=TextConfig(vocab=""), answer_slot=True)
        questions = [" ".join(f"w{word}" for word in row if word) for row in io["question"].tolist()]
        words = [question_words(question, reading) for question in questions]
        text = pad_words(words, max(len(row.ids) for row in words), PAD)
        width, height = io["im_info"][:, None, :2].unbind(-1)
        regions = Regions(
            features=io["roi_feats_u8_div32"].float() / 32,
            boxes=io["boxes_xyxy"] / torch.stack([width, height, width, height], -1),
            mask=io["boxes_xyxy"][..., 0] > -1.5,
            image=torch.arange(len(words)),
        )
        shape = io["label"].shape
        answers = Answers(
            index=torch.arange(shape[1]).expand(shape),
            score=io["label"],
            weight=torch.zeros(shape),
            ids=torch.zeros(*shape, 3, dtype=torch.long),
            mask=torch.zeros(*shape, 3, dtype=torch.bool),
        )
        return Batch(
            image={"clean": regions, "masked": regions},
            text={"clean": text, "masked": text},
            group=torch.arange(len(words)),
            targets={"questions": answers},
        )


@every_case
def test_the_words_match(case):
    """[CLS] question [SEP] [MASK] [SEP], the last two of the other segment."""
    text, io = Asked(case).batch.text["clean"], Asked(case).io
    assert torch.equal(text.ids, io["out.text_input_ids"])
    assert torch.equal(text.segment, io["out.text_token_type_ids"])
    assert torch.equal(text.mask, io["out.text_mask"].bool())


@every_case
@torch.no_grad()
def test_states_logits_and_loss_match(case):
    asked = Asked(case)
    model, heads = asked.built
    head, views = heads["vqa"], Views(model, asked.batch)
    fused = views.fused()
    states, there = asked.packed(torch.cat([fused.text, fused.image], 1))
    torch.testing.assert_close(states[there], asked.io["out.hidden_states"][there], **CLOSE)
    seen = head.look(fused, asked.batch.text["clean"])
    torch.testing.assert_close(head.logits(seen), asked.io["out.logits"], **CLOSE)
    assert head(views).value.item() == pytest.approx(case.meta["loss"], rel=1e-5)
    best = head.rank(seen, asked.batch.text["clean"]).place[:, 0]
    assert torch.equal(best, asked.io["out.logits"].argmax(1))


@every_case
def test_a_checkpoint_is_never_read_in_part(case):
    asked = Asked(case)
    weights, report = case.load("weights"), asked.converted.report
    assert set(report.renamed) | set(report.dropped) == set(weights)
    assert not [name for name in report.initialised if "hidden" not in name and "text_alone" not in name]
    with pytest.raises(UserError, match="no VL-BERT for questions"):
        convert_vlbert_vqa({k: v for k, v in weights.items() if "final_mlp" not in k}, num_heads=asked.heads)
    with pytest.raises(UserError, match=r"unknown keys \['final_mlp.9.weight'\]"):
        convert_vlbert_vqa(weights | {"final_mlp.9.weight": torch.zeros(1)}, num_heads=asked.heads)


@pytest.mark.parametrize("case", cases("vlbert", "vqa_mlm")[:1])
@pytest.mark.parametrize("kind", ["2fc", "1fc"])
@torch.no_grad()
def test_the_other_classifiers_of_the_original_are_read(case, kind):
    """CLASSIFIER_TYPE 2fc and 1fc, in place of the recorded layers: what they compute is said by their names."""
    weights = {k: v for k, v in case.load("weights").items() if "final_mlp" not in k}
    sizes = {"2fc": {1: (24, 32), 4: (13, 24)}, "1fc": {1: (13, 32)}}[kind]
    for place, (rows, columns) in sizes.items():
        weights |= {f"final_mlp.{place}.weight": torch.randn(rows, columns)}
        weights |= {f"final_mlp.{place}.bias": torch.randn(rows)}
    _, heads = convert_vlbert_vqa(weights, num_heads=4).build()
    x = torch.randn(5, 32)
    expected = x @ weights["final_mlp.1.weight"].T + weights["final_mlp.1.bias"]
    if kind == "2fc":
        expected = expected.relu() @ weights["final_mlp.4.weight"].T + weights["final_mlp.4.bias"]
    torch.testing.assert_close(heads["vqa"].logits(x), expected, **CLOSE)
