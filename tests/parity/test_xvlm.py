"""X-VLM against numbers recorded from the original code: hidden states, losses, gradients, one optimizer step."""

import json

import pytest
import torch
from recorded import GOLDEN, cases
from safetensors.torch import load_file

from crossgrain.config import UserError
from crossgrain.data.types import Batch, BoxTarget, Hidden, Pixels, Text
from crossgrain.finetuning import resized
from crossgrain.interop.xvlm import convert_with, convert_xvlm
from crossgrain.nn.boxes import corners_from_centre, giou_loss, patches_inside
from crossgrain.nn.transformer import take_positions
from crossgrain.objectives.interface import Views
from crossgrain.objectives.itm import negative_weights
from crossgrain.training.learner import Learner
from crossgrain.training.optimizer import OptimizerConfig, build_optimizer, set_rate

CLOSE = {"atol": 2e-5, "rtol": 1e-4}


def convert(case):
    meta = case.meta
    vision, text = meta.get("vision") or {}, meta.get("text_config") or {}
    known = {"num_heads": text.get("num_attention_heads", 4)}
    if not meta["config"]["use_swin"]:
        heads = vision.get("num_attention_heads", vision.get("num_heads", 4))
        known["vision"] = {"num_heads": heads, "local_attention_depth": vision.get("local_attn_depth", 1)}
    return convert_xvlm(case.load("weights"), **known)


def pixels(images):
    return (images.float() - 128) / 64


def text(io, name, ids="text_ids"):
    return Text(ids=io[f"{name}{ids}"], mask=io[f"{name}text_atts"].bool())


def make_views(model, io, name):
    images = pixels(io[f"{name}image"])
    num_pairs = len(io[f"{name}text_ids"])
    boxes = torch.tensor([0.0, 0, 1, 1]).expand(num_pairs, 4)
    image, targets = torch.arange(num_pairs), {}
    if name == "reg.":
        image = io["reg.idx_to_group_img"]
        x, y, w, h = (io["reg.boxes_xywh_pixels"] / images.shape[-1]).unbind(1)
        boxes = torch.stack([x, y, x + w, y + h], 1)
        rows = torch.arange(num_pairs)
        target = corners_from_centre(io["reg.target_bbox"])
        targets["box"] = BoxTarget(rows=rows, boxes=target, valid=io["reg.is_image"] == 0)
    targets["mlm"] = Hidden(position=io[f"{name}masked_pos"], label=io[f"{name}masked_ids"])
    batch = Batch(
        image={"clean": Pixels(pixels=images, image=image, boxes=boxes)},
        text={"clean": text(io, name), "masked": text(io, name, "text_ids_masked")},
        targets=targets,
        group=torch.arange(num_pairs),
    )
    return Views(model, batch)


def replay_negatives(monkeypatch, itm, io, prefix):
    drawn = (io[f"{prefix}neg_image_idx"], io[f"{prefix}neg_text_idx"])
    monkeypatch.setattr(itm, "draw_negatives", lambda views: drawn)


def backward_of_regions(case, monkeypatch):
    """The recorded region batch, forward and backward through all four objectives."""
    converted = convert(case)
    model, heads = converted.build()
    io = case.load("io")
    replay_negatives(monkeypatch, heads["itm"], io, "reg.out.")
    views = make_views(model, io, "reg.")
    sum(heads[name](views).value for name in ("itc", "itm", "mlm", "box")).backward()
    return converted, model, heads, io


@pytest.mark.parametrize("case", cases("xvlm", "pretrain_"))
@pytest.mark.parametrize("name", ["gen.", "reg."])
def test_pretraining_states_match(case, name):
    model, heads = convert(case).build()
    io = case.load("io")
    views = make_views(model, io, name)
    with torch.no_grad():
        image, words, fused = views.image(), views.text(), views.fused()
        masked = views.fused(text="masked")
        expected = {
            "image_embeds": image.x,
            "text_embeds": words.x,
            "image_feat": model.embed_image(image),
            "text_feat": model.embed_text(words),
            "cross_embeds": fused.text,
        }
        if name == "gen.":
            expected["bert_embeddings"] = model.text_embedding(views.batch.text["clean"])
            expected["itm_logits_pos"] = heads["itm"].match(fused.cls)
            hidden = take_positions(masked.text, views.batch.targets["mlm"].position)
            expected["mlm_logits"] = heads["mlm"].logits(hidden, model.token_embedding.weight)
            similarity = expected["image_feat"] @ expected["text_feat"].T / model.temperature
            same = torch.eye(len(similarity), dtype=torch.bool)
            expected["weights_i2t"] = negative_weights(similarity, same)
            expected["weights_t2i"] = negative_weights(similarity.T, same)
        else:
            assert torch.equal(image.mask.long(), io["reg.image_atts"])
            whole = model.whole_image(image, torch.arange(len(words.x)))
            expected["image_embeds_fullatts"] = whole.x
            predicted = heads["box"].boxes(model.fuse(whole, words).cls)
            target = views.batch.targets["box"].boxes
            torch.testing.assert_close(predicted, corners_from_centre(io["reg.out.pred_box"]), **CLOSE)
            torch.testing.assert_close(1 - giou_loss(predicted, target), io["reg.out.giou"], **CLOSE)
    for key, value in expected.items():
        torch.testing.assert_close(value, io[f"{name}out.{key}"], msg=lambda m, k=key: f"{k}: {m}", **CLOSE)


@pytest.mark.parametrize("case", cases("xvlm", "pretrain_"))
@pytest.mark.parametrize("name", ["gen.", "reg."])
def test_pretraining_losses_match(case, name, monkeypatch):
    model, heads = convert(case).build()
    io = case.load("io")
    replay_negatives(monkeypatch, heads["itm"], io, f"{name}out.")
    views = make_views(model, io, name)
    recorded = case.meta[f"{name}losses"]
    with torch.no_grad():
        losses = {key: heads[key](views) for key in ("itc", "itm", "mlm")}
        for key, loss in losses.items():
            assert loss.value.item() == pytest.approx(recorded[key], rel=1e-4, abs=2e-5), key
        if name == "gen.":
            duplicated = torch.tensor([0, 1, 0, 2])
            grouped = Views(model, Batch(image={}, text={}, group=duplicated))
            grouped.once("embeddings", lambda: (model.embed_image(views.image()), model.embed_text(views.text())))
            assert heads["itc"](grouped).value.item() == pytest.approx(case.meta["gen.itc_with_idx"], rel=1e-4)
        else:
            box = heads["box"](views)
            assert box.metrics["l1"].item() == pytest.approx(recorded["bbox"], rel=1e-4)
            assert box.metrics["giou"].item() == pytest.approx(recorded["giou"], rel=1e-4)


@pytest.mark.parametrize("case", cases("xvlm", "pretrain_"))
def test_pretraining_gradients_match(case, monkeypatch):
    converted, model, heads, _ = backward_of_regions(case, monkeypatch)
    recorded = convert_with(converted.config, case.load("grads"))
    parts = {"model": (model, recorded.model)} | {n: (heads[n], recorded.objectives[n]) for n in recorded.objectives}
    squares = 0.0
    for owner, (module, gradients) in parts.items():
        for name, parameter in module.named_parameters():
            expected = gradients[name]
            scale = expected.abs().max().item()
            told = lambda m, n=f"{owner}.{name}": f"{n}: {m}"  # noqa: E731
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=1e-4 * scale + 2e-5, msg=told)
            squares += parameter.grad.double().square().sum().item()
    assert squares**0.5 == pytest.approx(case.meta["grad_total_norm"], rel=1e-4)


@pytest.mark.parametrize("case", cases("xvlm", "retrieval_"))
def test_retrieval_training_matches(case, monkeypatch):
    model, heads = convert(case).build()
    io = case.load("io")
    replay_negatives(monkeypatch, heads["itm"], io, "train.")
    group = io["train.idx"].flatten()
    image = Pixels.whole(pixels(io["train.image"]))
    views = Views(model, Batch(image={"clean": image}, text={"clean": text(io, "train.")}, group=group))
    with torch.no_grad():
        similarity = model.embed_image(views.image()) @ model.embed_text(views.text()).T / model.temperature
        same = group[:, None] == group[None]
        torch.testing.assert_close(negative_weights(similarity, same), io["train.weights_i2t"], **CLOSE)
        torch.testing.assert_close(negative_weights(similarity.T, same), io["train.weights_t2i"], **CLOSE)
        for key in ("itc", "itm"):
            assert heads[key](views).value.item() == pytest.approx(case.meta["train_losses"][key], rel=1e-4), key


@pytest.mark.parametrize("case", cases("xvlm", "bbox_"))
def test_box_regression_matches(case):
    converted = convert(case)
    model, heads = converted.build()
    assert "temperature" in converted.report.initialised
    io = case.load("io")
    image = Pixels.whole(pixels(io["image"]))
    target = BoxTarget(
        rows=torch.arange(3), boxes=corners_from_centre(io["target_bbox"]), valid=torch.ones(3, dtype=torch.bool)
    )
    batch = Batch(image={"clean": image}, text={"clean": text(io, "")}, targets={"box": target}, group=torch.arange(3))
    views = Views(model, batch)
    with torch.no_grad():
        predicted = heads["box"].boxes(views.fused().cls)
        torch.testing.assert_close(predicted, corners_from_centre(io["out.coord"]), **CLOSE)
        metrics = heads["box"](views).metrics
    assert metrics["l1"].item() == pytest.approx(case.meta["losses"]["l1"], rel=1e-4)
    assert metrics["giou"].item() == pytest.approx(case.meta["losses"]["giou"], rel=1e-4)


def test_region_patches_match():
    recorded = GOLDEN / "xvlm" / "data_side.json"
    if not recorded.is_file():
        pytest.skip("no recorded data side")
    for case in json.loads(recorded.read_text())["get_image_attns"]:
        x, y, w, h = (v / case["res"] for v in case["xywh"])
        side = case["res"] // case["patch"]
        inside = patches_inside(torch.tensor([[x, y, x + w, y + h]]), (side, side))[0]
        assert [0, *(inside.nonzero().flatten() + 1).tolist()] == case["on"], case


@pytest.mark.parametrize("case", cases("xvlm", "pretrain_")[:1])
def test_a_checkpoint_is_never_read_in_part(case):
    weights = case.load("weights")
    spare = next(key for key in weights if key.endswith("itm_head.0.weight"))
    with pytest.raises(UserError, match=r"nothing fills \['itm.head.0.weight'\]"):
        convert_xvlm({k: v for k, v in weights.items() if k != spare}, num_heads=4)
    with pytest.raises(UserError, match=r"unknown keys \['surprise'\]"):
        convert_xvlm(weights | {"surprise": torch.zeros(1)}, num_heads=4)


@pytest.mark.parametrize("case", cases("xvlm", "pretrain_"))
def test_one_optimizer_step_matches(case, monkeypatch):
    converted, model, heads, io = backward_of_regions(case, monkeypatch)
    learner = Learner(model, heads)
    torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
    optimizer = build_optimizer(learner, OptimizerConfig(grouping="official"))
    set_rate(optimizer, case.meta["optimizer"]["groups"][0]["lr"])
    optimizer.step()
    after = {key.removeprefix("step1."): value for key, value in io.items() if key.startswith("step1.")}
    # stacked parameters (queries, keys and values) need all their parts: compare those whose parts are all recorded
    renamed = converted.report.renamed
    complete = {k: v for k, v in after.items() if sum(ours == renamed[k] for ours in renamed.values()) == 1}
    assert len(complete) > len(after) / 2
    ours = {f"model.{k}": v for k, v in model.state_dict().items()}
    ours |= {f"{name}.{k}": v for name, head in heads.items() for k, v in head.state_dict().items()}
    gradients = {f"model.{k}": p.grad for k, p in model.named_parameters()}
    gradients |= {f"{name}.{k}": p.grad for name, head in heads.items() for k, p in head.named_parameters()}
    compared = 0
    for key, expected in complete.items():
        # Adam's first step is the sign of the gradient: noise where that is about the size of eps, which the original
        # also adds before the bias correction
        clear = gradients[renamed[key]].reshape(expected.shape).abs() > 2e-5
        value = ours[renamed[key]].reshape(expected.shape)
        told = lambda m, k=key: f"{k}: {m}"  # noqa: E731
        torch.testing.assert_close(value[clear], expected[clear], msg=told, **CLOSE)
        compared += int(clear.sum())
    assert compared > 1000


def test_positions_of_an_image_are_fitted_to_another_size_as_recorded():
    recorded = GOLDEN / "xvlm" / "misc.safetensors"
    if not recorded.is_file():
        pytest.skip("no recorded positions")
    tensors = load_file(recorded)
    model = torch.nn.Module()
    model.vision = torch.nn.ParameterDict({"pos_embed": torch.zeros_like(tensors["pos_embed.out_6x6"])})
    fitted = resized({"vision.pos_embed": tensors["pos_embed.in"]}, model)["vision.pos_embed"]
    torch.testing.assert_close(fitted, tensors["pos_embed.out_6x6"], **CLOSE)
