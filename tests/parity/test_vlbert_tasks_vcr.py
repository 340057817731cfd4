"""VL-BERT's VCR against numbers recorded from the original code: the texts it builds, the scores, the losses.

The recorded network is given vectors of the regions in place of an image: ours are put where it would compute them.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pytest
import torch
from recorded import cases
from torch import nn

from crossgrain.config import UserError
from crossgrain.data.asks import Reading, choice_words
from crossgrain.data.collate import pad_words
from crossgrain.data.text import SPECIAL_TOKENS, TextConfig, Tokenizer
from crossgrain.data.types import Batch, Chosen, Regions, Text
from crossgrain.interop.vlbert_vcr import convert_vlbert_vcr
from crossgrain.objectives.interface import Views

CLOSE = {"atol": 2e-5, "rtol": 1e-4}
EXTRACTOR = "image_feature_extractor.obj_downsample.1."  # which the recorded networks have not
IDS = dict(zip(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), (0, 1, 6, 7, 8), strict=True))
every_case = pytest.mark.parametrize("case", cases("vlbert", "vcr"))
ORDERS = ("qa", "af")  # question first, or ANSWER_FIRST


class Given(nn.Module):
    """Recorded vectors in place of what would be made of features and boxes."""

    def __init__(self, vectors):
        super().__init__()
        self.vectors = vectors

    def forward(self, features, boxes):
        return self.vectors


@dataclass
class Replay:
    """A recorded case: the model from its weights, and its inputs as our batch."""

    case: Any

    @cached_property
    def io(self):
        return self.case.load("io")

    def convert(self, weights):
        width = weights["vlbert._module.word_embeddings.weight"].shape[1]
        extractor = {"weight": torch.zeros(width, 2048 + 1), "bias": torch.zeros(width)}
        whole = {f"{EXTRACTOR}{kind}": value for kind, value in extractor.items()} | weights
        network = self.case.meta.get("network", {})
        loss = "sigmoid" if network.get("CLASSIFIER_SIGMOID") else "softmax"
        return convert_vlbert_vcr(whole, num_heads=network.get("VLBERT", {}).get("num_attention_heads", 4), loss=loss)

    @cached_property
    def built(self):
        model, heads = self.convert(self.case.load("weights")).build()
        model.visual_embedding = Given(self.io["obj_reps"])
        return model, heads["vcr"]

    @cached_property
    def regions(self):
        """Boxes and features do not matter, but for who is there: the original asks the lower edge of a box."""
        boxes = self.io["boxes"]
        there = boxes[..., 3] > -0.5
        image = torch.arange(len(boxes)).repeat_interleave(4)
        return Regions(features=torch.zeros(*there.shape, 1), boxes=boxes[..., :4], mask=there, image=image)

    def words(self, order) -> Text:
        """Every choice with its question, as our data side builds them from words and tags."""
        questions, answers = self.io["question"].tolist(), self.io["answers"].tolist()
        rows = []
        for question, choices in zip(questions, answers, strict=True):
            for choice in choices:
                parts = [question, choice] if order == "qa" else [choice, question]
                named = [pair for part in parts for pair in part if pair[0] > 0.5]
                names, tags = [f"w{word}" for word, _ in named], [tag or -1 for _, tag in named]
                places = iter(range(len(named)))
                first, second = ([[next(places)] for word, _ in part if word > 0.5] for part in parts)
                rows.append(choice_words(first, second, names, tags, reading()))
        longest = max(len(row.ids) for row in rows)
        return pad_words(rows, longest, IDS["[PAD]"])

    def recorded(self, order, *words):
        """What was recorded of this order under a name with one of these words."""
        named = {key: re.split(r"[._]", key) for key in self.io}
        return next(self.io[key] for key, parts in named.items() if order in parts and set(words) & set(parts))

    def batch(self, text) -> Batch:
        classes = self.io["boxes"][..., 4].long().where(self.regions.mask, -100)
        chosen = Chosen(label=self.io["answer_label"].flatten(), region_class=classes)
        group = self.regions.image
        return Batch(image={"clean": self.regions}, text={"clean": text}, targets={"choices": chosen}, group=group)


def reading():
    """Words that are called by their ids."""
    tokens = [f"w{number}" for number in range(100)]
    assert set(IDS) == set(SPECIAL_TOKENS)
    for token, number in IDS.items():
        tokens[number] = token
    text = TextConfig(vocab="recorded", max_tokens=40)
    return Reading(tokenizer=Tokenizer(tokens), text=text, segments=True, tags=True)


def loss_of(meta, order):
    """The recorded loss of this order, wherever it stands; None where none was recorded."""
    held = [meta.get(f"{order}.loss"), meta.get(f"{order}_loss"), meta.get(order), meta.get("losses", {}).get(order)]
    found = [value.get("loss") if isinstance(value, dict) else value for value in held if value is not None]
    return found[0] if found else None


@every_case
@pytest.mark.parametrize("order", ORDERS)
def test_texts_are_built_alike(case, order):
    replay = Replay(case)
    text, mask = replay.words(order), replay.recorded(order, "mask").flatten(0, 1).bool()
    length = mask.shape[1]
    assert torch.equal(text.mask, mask[:, : text.mask.shape[1]]) and not mask[:, text.mask.shape[1] :].any()
    ids = replay.recorded(order, "input", "ids").flatten(0, 1)
    segments = replay.recorded(order, "type", "types").flatten(0, 1)
    for ours, theirs in ((text.ids, ids), (text.segment, segments)):
        theirs = theirs.where(mask, 0)
        assert torch.equal(nn.functional.pad(ours, (0, length - ours.shape[1])), theirs)


@every_case
@pytest.mark.parametrize("order", ORDERS)
def test_scores_and_losses_match(case, order):
    replay = Replay(case)
    model, head = replay.built
    views = Views(model, replay.batch(replay.words(order)))
    with torch.no_grad():
        scores = head.score(views.fused().cls).view(-1, 4)
        loss = head(views).value
    torch.testing.assert_close(scores, replay.recorded(order, "logits"), **CLOSE)
    if (expected := loss_of(case.meta, order)) is not None:
        assert loss.item() == pytest.approx(expected, rel=1e-4)


@every_case
def test_tags_are_what_tells_regions_apart(case):
    replay = Replay(case)
    model, head = replay.built
    text = replay.words("qa")
    untagged = Text(ids=text.ids, mask=text.mask, segment=text.segment)
    with torch.no_grad():
        scores = head.score(Views(model, replay.batch(untagged)).fused().cls).view(-1, 4)
    assert (scores - replay.recorded("qa", "logits")).abs().max() > 1e-3


@every_case
def test_a_checkpoint_is_never_read_in_part(case):
    replay, weights = Replay(case), case.load("weights")
    with pytest.raises(UserError, match=r"unknown keys \['surprise'\]"):
        replay.convert(weights | {"surprise": torch.zeros(1)})
    with pytest.raises(UserError, match=r"nothing fills \['vcr.pooler.0.bias'\]"):
        replay.convert({key: value for key, value in weights.items() if not key.endswith("pooler.dense.bias")})
    with pytest.raises(UserError, match="no VL-BERT for VCR"):
        replay.convert({key: value for key, value in weights.items() if not key.startswith("final_mlp.")})
