"""X-VLM's NLVR2 against numbers recorded from the original code: judgements, and text assignment."""

import pytest
import torch
from recorded import cases
from test_xvlm import CLOSE, pixels, text

from crossgrain.config import UserError
from crossgrain.data.types import Batch, Judged, Pixels, Text
from crossgrain.interop.xvlm_nlvr import convert_xvlm_nlvr
from crossgrain.objectives.interface import Views
from crossgrain.tasks.nlvr2_heads import FIRST, NEITHER, SECOND, Assigned


def convert(case, weights=None):
    vision, known = case.meta.get("vision") or {}, {}
    known["num_heads"] = case.meta.get("text_config", {}).get("num_attention_heads", 4)
    if not case.meta["config"]["use_swin"]:
        heads = vision.get("num_attention_heads", vision.get("num_heads", 4))
        known["vision"] = {"num_heads": heads, "local_attention_depth": vision.get("local_attn_depth", 1)}
    return convert_xvlm_nlvr(case.load("weights") if weights is None else weights, **known)


def pairs(io):
    """The recorded pairs as our batch: rows 2s and 2s + 1 are the two images of a statement."""
    images, said = pixels(io["images_cat"]), text(io, "")
    order = torch.arange(len(images)).view(2, -1).T.flatten()  # the recorded ones: all first images, then all second
    twice = order.new_tensor(range(len(said.ids))).repeat_interleave(2)
    return Batch(
        image={"clean": Pixels.whole(images[order])},
        text={"clean": Text(ids=said.ids[twice], mask=said.mask[twice])},
        targets={"pairs": Judged(label=io["targets"] == 1)},
        group=twice,
    )


@pytest.mark.parametrize("case", cases("xvlm", "nlvr_swin", "nlvr_clipvit", "nlvr_deit"))
def test_judgements_match(case):
    model, heads = convert(case).build()
    io, head = case.load("io"), heads["nlvr2"]
    views = Views(model, pairs(io))
    first, second = torch.arange(len(io["images_cat"])).view(-1, 2).unbind(1)
    with torch.no_grad():
        images, said = views.image(), model.encode_text(text(io, ""))
        logits = head.judge(head.states(model, images.take(first), images.take(second), said))
        loss = head(views).value
    torch.testing.assert_close(logits, io["out.logits"], **CLOSE)
    assert loss.item() == pytest.approx(case.meta["loss"], rel=1e-4)


@pytest.mark.parametrize("case", cases("xvlm", "nlvr_swin", "nlvr_clipvit", "nlvr_deit"))
def test_a_checkpoint_is_never_read_in_part(case):
    weights = case.load("weights")
    report = convert(case).report
    assert set(report.renamed) | set(report.dropped) == set(weights)
    assert report.initialised == [
        "temperature", "image_projection.weight", "image_projection.bias",
        "text_projection.weight", "text_projection.bias",
    ]  # fmt: skip
    last = max(key for key in weights if key.endswith("crossattention.self.key.weight"))
    with pytest.raises(UserError, match="which this model shares"):
        convert(case, weights | {last: weights[last] + 1})
    with pytest.raises(UserError, match="no X-VLM for NLVR2"):
        convert(case, {key: value for key, value in weights.items() if not key.startswith("cls_head.")})


def recorded_draws(case, io):
    """The recorded random numbers, and the draws from the other images, each in their order, however they are kept."""
    found: dict[type, list[float]] = {float: [], int: []}  # `rand` gives shares, `multinomial` rows

    def visit(value):
        value = value.tolist() if isinstance(value, torch.Tensor) else value
        if isinstance(value, dict | list | tuple):
            for inner in value.values() if isinstance(value, dict) else value:
                visit(inner)
        elif type(value) in found and value >= 0:  # negative ones fill
            found[type(value)].append(value)

    for name, value in {**case.meta, **io}.items():
        if any(word in name for word in ("draw", "rand", "multinomial")):
            visit(value)
    return iter(found[float]), iter(found[int])


def replayed(case, io, num_rows):
    """Which two images stood beside each caption, from the draws in the order in which the original makes them."""
    rand, multinomial = recorded_draws(case, io)
    rows = []
    for own in range(num_rows):
        if next(rand) > 1 / 3:
            other = int(next(multinomial))
            rows.append((own, other, FIRST) if next(rand) > 0.5 else (other, own, SECOND))
        else:
            rows.append((int(next(multinomial)), int(next(multinomial)), NEITHER))
    assert next(rand, None) is None and next(multinomial, None) is None, "draws are left over"
    return Assigned(*torch.tensor(rows).unbind(1))


@pytest.mark.parametrize("case", cases("xvlm", "nlvr_pretrain_"))
def test_text_assignment_matches(case, monkeypatch):
    converted = convert(case)
    assert converted.heads["nlvr2"].classifier is None
    model, heads = converted.build()
    io, head = case.load("io"), heads["nlvr2"]
    image = Pixels.whole(pixels(io["image"]))
    group = torch.arange(len(image.image))
    views = Views(model, Batch(image={"clean": image}, text={"clean": text(io, "")}, targets={}, group=group))
    drawn = replayed(case, io, len(group))
    monkeypatch.setattr(head, "draw", lambda views: drawn)
    with torch.no_grad():
        images = views.image()
        states = head.states(model, images.take(drawn.first), images.take(drawn.second), views.text())
        loss = head(views).value
    torch.testing.assert_close(head.assign(states), io[next(key for key in io if "ta_logits" in key)], **CLOSE)
    assert loss.item() == pytest.approx(case.meta["loss"], rel=1e-4)
