"""VL-BERT against numbers recorded from the original code: embeddings, states, losses, gradients, an optimizer step."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from recorded import GOLDEN, cases
from safetensors.torch import load_file

from crossgrain.config import UserError
from crossgrain.data.types import Batch, Hidden, HiddenRegions, Matched, Regions, Text
from crossgrain.interop.vlbert import convert_vlbert, convert_with
from crossgrain.nn.embeddings import geometry_embedding
from crossgrain.nn.fast_rcnn import FastRCNN
from crossgrain.objectives.interface import Views
from crossgrain.training.learner import Learner
from crossgrain.training.optimizer import OptimizerConfig, build_optimizer, set_rate

CLOSE = {"atol": 2e-5, "rtol": 1e-4}
PROJECTION = "image_feature_extractor.obj_downsample.1.weight"  # its gradient is recorded in part: 4096 columns
every_case = pytest.mark.parametrize("case", cases("vlbert", "pretrain"))


@dataclass
class Replay:
    """A recorded case: the model from its weights, and its inputs as our batch, rows of text alone at the end."""

    case: Any

    @cached_property
    def io(self):
        return self.case.load("io")

    @cached_property
    def converted(self):
        heads = self.case.meta["network"]["VLBERT"]["num_attention_heads"]
        # the recorded whole image has a feature of its own, where the original's data would make a mean
        return convert_vlbert(self.case.load("weights"), num_heads=heads, whole_image="given")

    @cached_property
    def built(self):
        return self.converted.build()

    @cached_property
    def aux_labels(self):
        """The labels of the words of text alone, by whatever name they were recorded."""
        names = [k for k in self.io if "aux" in k and "label" in k and not k.startswith("out.")]
        return self.io[names[0]]

    @cached_property
    def batch(self) -> Batch:
        io = self.io
        ids, labels, boxes = io["text"], io["mlm_labels"], io["boxes_xyxy"]
        num_pairs = len(ids)
        image, paired = torch.arange(num_pairs), None
        if "aux_text" in io:
            longest = max(ids.shape[1], io["aux_text"].shape[1])
            fill = lambda x, value: F.pad(x, (0, longest - x.shape[1]), value=value)  # noqa: E731
            ids = torch.cat([fill(ids, 0), fill(io["aux_text"], 0)])
            labels = torch.cat([fill(labels, -1), fill(self.aux_labels, -1)])
            image = torch.cat([image, image.new_full((len(ids) - num_pairs,), -1)])
            paired = image >= 0
        width, height = io["im_info"][:, None, :2].unbind(-1)
        regions = Regions(
            features=io["roi_feats_u8_div32"].float() / 32,
            boxes=boxes / torch.stack([width, height, width, height], -1),
            mask=boxes[..., 0] > -1.5,
            image=image,
        )
        probs = F.pad(io["mvrc_labels"], (0, 0, 0, 0, 0, len(ids) - num_pairs))
        position, chosen = chosen_first((probs.sum(-1) - 1).abs() < 0.1)
        probs = probs.gather(1, position[..., None].expand(-1, -1, probs.shape[-1]))
        text = Text(ids=ids, mask=ids > 0)
        targets = {
            "mlm": words_to_predict(labels),
            "regions": HiddenRegions(position=position, label=probs.argmax(-1).where(chosen, -100), probs=probs),
        }
        if "relationship_label" in io:
            matched = F.pad(io["relationship_label"], (0, len(ids) - num_pairs)) == 1
            targets["itm"] = Matched(label=matched)
        return Batch(
            image={"clean": regions, "masked": replace(regions, hidden=io["mvrc_ops"] == 1)},
            text={"clean": text, "masked": text},  # the recorded words are masked already
            group=torch.arange(len(ids)),
            targets=targets,
            paired=paired,
        )

    def views(self) -> Views:
        return Views(self.built[0], self.batch)

    def losses(self, mean: str) -> dict[str, torch.Tensor]:
        """Every loss by a part of its recorded name, and "total"."""
        views, losses = self.views(), {}
        for name, head in self.built[1].items():
            if name != "itm":
                head.config = replace(head.config, mean=mean)
            loss = head(views)
            losses[name] = loss.value
            if "text_only_loss" in loss.metrics:
                losses["aux"] = loss.metrics["text_only_loss"]
        losses["total"] = torch.stack([value for name, value in losses.items() if name != "aux"]).sum()
        return losses

    def packed(self, x):
        """Our sequence (B, L + N + 1, D) in the original's order: words, regions and [END] without gaps."""
        regions, text = self.batch.image["masked"], self.batch.text["masked"]
        mask = F.pad(regions.mask, (0, 0, 0, len(x) - len(regions.mask)))
        there = torch.cat([text.mask, mask, torch.ones(len(x), 1, dtype=torch.bool)], 1)
        length = int(there.sum(1).max())
        order = (~there).long().argsort(dim=1, stable=True)[:, :length]
        return x.gather(1, order[..., None].expand(-1, -1, x.shape[-1])), there.gather(1, order)


def chosen_first(chosen):
    """Positions of the chosen tokens of each row, as many as the row with most has (at least 1), and which count."""
    count = max(1, int(chosen.sum(1).max()))
    position = (~chosen).long().argsort(dim=1, stable=True)[:, :count]
    return position, chosen.gather(1, position)


def words_to_predict(labels):
    position, chosen = chosen_first(labels != -1)
    return Hidden(position=position, label=labels.gather(1, position).where(chosen, -100))


def compare(actual, expected, where, name):
    told = lambda m: f"{name}: {m}"  # noqa: E731
    assert where.any(), name
    torch.testing.assert_close(actual[where], expected[where], msg=told, **CLOSE)


def stacked_rows(name, value):
    """The rows of a stacked parameter of ours that hold the original's `name`."""
    part = next((i for i, kind in enumerate(("query", "key", "value")) if f"attention.self.{kind}." in name), None)
    return value if part is None else value.chunk(3)[part]


@pytest.mark.parametrize(
    "file", sorted((GOLDEN / "vlbert").glob("geometry*.safetensors")) or [pytest.param(None, marks=pytest.mark.skip)]
)
def test_geometry_matches(file):
    recorded = load_file(file)
    boxes, size = recorded["boxes_xyxy_w_h"].split((4, 2), -1)
    kinds = [key for key in recorded if key.startswith("out.dim")]
    assert kinds
    for key in kinds:
        waves = int(key.removeprefix("out.dim"))
        actual = geometry_embedding(boxes / size.repeat(1, 2), waves).unflatten(-1, (4, 2 * waves))
        torch.testing.assert_close(actual, recorded[key], msg=lambda m, k=key: f"{k}: {m}", **CLOSE)


@every_case
@torch.no_grad()
def test_embeddings_and_states_match(case):
    replay = Replay(case)
    (model, heads), io, views = replay.built, replay.io, replay.views()
    regions = replay.batch.image["masked"]
    num_pairs = len(io["text"])
    if "out.obj_reps" in io:
        visual = model.visual_embedding(model.features(regions), regions.boxes)
        compare(visual, io["out.obj_reps"], regions.mask, "obj_reps")
    fused = views.fused("masked", "masked")
    embedded, there = replay.packed(embedding_of(model, replay))
    states, _ = replay.packed(torch.cat([fused.text, fused.image], 1))
    for key, value in (("embedding_output", embedded), ("encoder_output", states)):
        if f"out.{key}" in io:
            assert io[f"out.{key}"].shape == value.shape
            compare(value, io[f"out.{key}"], there, key)
    if "out.extended_mask" in io:
        assert torch.equal(io["out.extended_mask"][:, 0, 0] == 0, there)
    words = model.token_embedding.weight
    for key, rows in (("", slice(None)), ("_wvc", slice(num_pairs)), ("_aux", slice(num_pairs, None))):
        if f"out.mlm_logits{key}" in io:
            # the original reads the first slots of the packed sequence, which hold regions where a text is short
            recorded = io[f"out.mlm_logits{key}"]
            longest = min(recorded.shape[1], states.shape[1])
            logits = heads["mlm"].logits(states[rows, :longest], words)
            compare(logits, recorded[:, :longest], there[rows, :longest], f"mlm_logits{key}")
    scores = heads["region_class"].head(fused.image[:num_pairs, :-1])
    compare(scores, io["out.mvrc_logits"][:num_pairs], regions.mask, "mvrc_logits")
    if "itm" in heads:
        pooler, _, _ = heads["itm"].head
        torch.testing.assert_close(pooler(fused.cls).tanh(), io["out.pooled"], **CLOSE)
        torch.testing.assert_close(heads["itm"].match(fused.cls), io["out.relationship_logits"], **CLOSE)


def embedding_of(model, replay):
    """What goes into the first layer."""
    seen = []
    hook = model.stream.layers[0].register_forward_pre_hook(lambda layer, args: seen.append(args[0]))
    replay.views().fused("masked", "masked").cls  # noqa: B018
    hook.remove()
    return seen[0]


@every_case
@torch.no_grad()
def test_losses_match_in_both_ways_to_take_a_mean(case):
    replay, compared = Replay(case), 0
    recorded = case.meta["losses"]
    if not isinstance(next(iter(recorded.values())), dict):
        by_row = case.meta["network"]["MLM_LOSS_NORM_IN_BATCH_FIRST"]
        recorded = {"norm_in_batch_first" if by_row else "norm_flat": recorded}
    for way, values in recorded.items():
        losses = replay.losses("rows" if "first" in way else "tokens")
        losses["wvc"] = losses["mlm"] - losses.get("aux", 0.0)
        parts = {"total": "total", "rel": "itm", "aux": "aux", "wvc": "wvc", "mvrc": "region_class", "mlm": "mlm"}
        for name, value in values.items():
            part = "total" if name == "loss" else name
            ours = next((losses[own] for known, own in parts.items() if known in part), None)
            if ours is not None and isinstance(value, float):
                assert ours.item() == pytest.approx(value, rel=1e-4, abs=2e-5), (way, name)
                compared += 1
    assert compared >= 3


@every_case
def test_gradients_match(case):
    file = case.family / f"{case.name}.grads.safetensors"
    if not file.is_file():
        pytest.skip("no recorded gradients")
    replay = Replay(case)
    (model, heads), recorded = replay.built, load_file(file)
    replay.losses("tokens")["total"].backward()
    whole = PROJECTION in recorded
    projection = model.visual_embedding.linear.weight
    gradients = convert_with(
        replay.converted.config, recorded if whole else recorded | {PROJECTION: torch.zeros_like(projection)}
    )
    squares = 0.0
    owners = {"model": (model, gradients.model)} | {n: (heads[n], gradients.objectives[n]) for n in heads}
    for owner, (module, expected) in owners.items():
        for name, parameter in module.named_parameters():
            if name in gradients.report.initialised:
                assert parameter.grad is None or not parameter.grad.any()
                continue
            squares += parameter.grad.double().square().sum().item()
            if parameter is projection and not whole:
                continue
            scale = expected[name].abs().max().item()
            told = lambda m, n=f"{owner}.{name}": f"{n}: {m}"  # noqa: E731
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-4 * scale + 2e-5, msg=told)
    if not whole:
        rows = replay.io[f"grad_rows0_3.{PROJECTION}"]
        torch.testing.assert_close(projection.grad[: len(rows)], rows, rtol=1e-3, atol=1e-4 * rows.abs().max().item())
        assert projection.grad.norm().item() == pytest.approx(replay.io[f"grad_norm.{PROJECTION}"].item(), rel=1e-4)
    norm = replay.io.get("grad_total_norm", case.meta.get("grad_total_norm"))
    assert squares**0.5 == pytest.approx(float(norm), rel=1e-4)


@every_case
def test_one_optimizer_step_matches(case):
    replay = Replay(case)
    after = {key.removeprefix("step1."): value for key, value in replay.io.items() if key.startswith("step1.")}
    if not after:
        pytest.skip("no recorded step")
    model, heads = replay.built
    replay.losses("tokens")["total"].backward()
    learner = Learner(model, heads)
    torch.nn.utils.clip_grad_norm_(learner.parameters(), 10.0)
    # The original adds eps before it corrects the second moment's bias, torch after it: in the first step, its 1e-6
    # does what 1e-6 / sqrt(1 - 0.999) does here.
    config = OptimizerConfig(
        betas=(0.9, 0.999), eps=1e-6 / 0.001**0.5, weight_decay=1e-4, new_parameters_factor=1.0, grouping="all"
    )
    optimizer = build_optimizer(learner, config)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-4] * len(optimizer.param_groups)
    set_rate(optimizer, 1e-3)
    before = replay.case.load("weights")
    optimizer.step()
    ours = {f"model.{k}": v for k, v in model.state_dict().items()}
    ours |= {f"{name}.{k}": v for name, head in heads.items() for k, v in head.state_dict().items()}
    for key, expected in after.items():
        value = stacked_rows(key, ours[replay.converted.report.renamed[key]]).reshape(expected.shape)
        torch.testing.assert_close(value, expected, msg=lambda m, k=key: f"{k}: {m}", **CLOSE)
        assert not torch.equal(expected, before[key])


@every_case
def test_a_checkpoint_is_never_read_in_part(case):
    weights = case.load("weights")
    heads = {"num_heads": 4}
    for gone, ours in {
        "object_mask_word_embedding.weight": "model.hidden_region_word",
        "vlbert.mlm_head.predictions.transform.dense.weight": "mlm.dense.weight",
        "vlbert.visual_ln_text.bias": "model.word_visual_norm.bias",
    }.items():
        with pytest.raises(UserError, match=rf"nothing fills \['{ours}'\]"):
            convert_vlbert({k: v for k, v in weights.items() if k != gone}, **heads)
    with pytest.raises(UserError, match=r"unknown keys \['visual_1x1_text.weight'\]"):
        convert_vlbert(weights | {"visual_1x1_text.weight": torch.zeros(1)}, **heads)
    report = convert_vlbert({f"module.{k}": v for k, v in weights.items()}, **heads).report
    assert set(report.renamed) | set(report.dropped) == set(weights)
    with_stand_in = "aux_text_visual_embedding.weight" in weights
    assert report.initialised == ([] if with_stand_in else ["visual_of_text_alone"])


@pytest.mark.parametrize("case", cases("vlbert", "pretrain")[:1])
def test_a_checkpoint_that_was_trained_end_to_end_brings_its_backbone(case):
    """The names of the original's network, as its code gives them; shapes without numbers."""
    absent = ("object_mask_visual_embedding.weight", "vlbert.mlm_head.predictions.decoder.weight")
    state = {key: value.to("meta") for key, value in case.load("weights").items() if key not in absent}
    with torch.device("meta"):
        body = FastRCNN(FastRCNN.Config(name="resnet50")).body.state_dict()
    theirs = "image_feature_extractor."
    last = {key.removeprefix("layer4."): value for key, value in body.items() if key.startswith("layer4.")}
    state |= {f"{theirs}backbone.{key}": value for key, value in body.items() if not key.startswith("layer4.")}
    state |= {
        f"{theirs}{name}.{key}": v for name in ("roi_head_feature_extractor", "head.0") for key, v in last.items()
    }
    converted = convert_vlbert(state, num_heads=4)
    assert converted.config.fast_rcnn == FastRCNN.Config(name="resnet50", stride_in_1x1=True, pixels="caffe")
    assert converted.report.renamed[f"{theirs}roi_head_feature_extractor.0.conv1.weight"] == (
        "model.fast_rcnn.body.layer4.0.conv1.weight"
    )
    assert {key for key in converted.report.dropped if "head.0." in key} == {f"{theirs}head.0.{key}" for key in last}
    assert sum(name.startswith("fast_rcnn.body.") for name in converted.model) == len(body)
