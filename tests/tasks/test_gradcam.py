"""What matching looked at: gradient times attention, worked out by other means; its peak, its boxes, its lines."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from crossgrain.config import UserError
from crossgrain.metrics.grounding import pointing_game
from crossgrain.nn.transformer import recorded_maps
from crossgrain.objectives.itm import ITM
from crossgrain.tasks.gradcam import HeatMaps, chosen_layer, only_attention, saliency
from crossgrain.tasks.grounding import Grounding
from crossgrain.tasks.heat import from_line, painted
from tiny_families import scenes, tiny_family, trained_on_scenes
from tiny_pixels import cnn_config

FAMILIES = ("xvlm", "pixelbert", "imagebert", "vlbert")
TEXTS = ["the red star", "the large blue house on the left"]


def matching(family, **changes):
    """A tiny model that matches texts with scenes, in evaluation mode."""
    finer = {"cnn": cnn_config(stages=4, pool=False)} if family == "pixelbert" else {}  # 16 cells and not 1
    model = tiny_family(family, **finer, **changes)
    torch.manual_seed(0)
    itm = ITM(ITM.Config(negatives="random"), model)
    with torch.no_grad():
        for parameter in itm.parameters():
            parameter.mul_(4)
    return trained_on_scenes(family, model, {"itm": itm})


def asked(trained, texts=TEXTS):
    """Prepared images, and a padded text for each of them."""
    image = trained.read_images(scenes()[: len(texts)])
    return trained.model.prepare(trained.model.encode_image(image)), trained.texts(texts)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layer", [0, 1])
def test_the_gradient_is_what_a_change_of_the_attention_does_to_the_logit(family, layer):
    """By finite differences: the recorded attention is changed in one place, and the rest is computed again."""
    trained = matching(family)
    model, itm = trained.model, trained.objectives["itm"]
    attention = model.image_attention[layer]
    with only_attention(trained), torch.enable_grad():
        images, text = asked(trained)
        with recorded_maps(attention) as maps:
            logit = itm.match(model.fuse(images, model.encode_text(text)).cls)[:, 1]
        (gradient,) = torch.autograd.grad(logit.sum(), maps)
        found = saliency(model, itm.match, images, text, layer=layer)
    tokens = found.shape[1]
    first = maps[0].shape[-1] - tokens
    assert first == (1 if family == "xvlm" else text.ids.shape[1])

    place = (0, 1, 0, first + 1)  # [CLS] of the first text, what its second head sees in the second token of the image
    changed = maps[0].detach().clone()
    moved = []
    for step in (1e-2, -1e-2):
        other = changed.clone()
        other[place] += step
        with torch.no_grad():
            moved.append(logit_with(attention, other, trained, images, text)[0])
    slope = (moved[0] - moved[1]).item() / 2e-2
    assert gradient[place].item() == pytest.approx(slope, rel=5e-2, abs=2e-4)

    by_hand = (maps[0].detach() * gradient.clamp(min=0)).mean(1)[..., first:]
    by_hand = by_hand[:, : text.ids.shape[1]]  # words and not image tokens; [CLS] alone in the last layer
    by_hand = by_hand * text.mask[:, : by_hand.shape[1], None]
    np.testing.assert_allclose(found, by_hand.sum(1) / text.ids.shape[1], rtol=1e-5, atol=1e-9)
    assert found.max() > 0


def logit_with(attention, shares, trained, images, text):
    """The logits where a layer's attention is given."""
    from crossgrain.nn import transformer

    plain = transformer.attend

    def attend(q, k, v, mask, dropout, maps=None):
        return shares @ v if maps is not None else plain(q, k, v, mask, dropout)

    transformer.attend = attend
    try:
        with recorded_maps(attention):
            fused = trained.model.fuse(images, trained.model.encode_text(text))
            return trained.objectives["itm"].match(fused.cls)[:, 1]
    finally:
        transformer.attend = plain


@pytest.mark.parametrize("family", FAMILIES)
def test_no_text_depends_on_its_company(family):
    trained = matching(family)
    task = Grounding(Grounding.Config(method="gradcam", images_per_batch=4, phrases_per_batch=3))
    lines = list(task.predict(trained, scenes()))
    alone = [line for record in scenes()[:3] for line in task.predict(trained, [record])]
    for line, other in zip(lines, alone, strict=False):
        assert line["text"] == other["text"]
        np.testing.assert_allclose(from_line(line["heat"]), from_line(other["heat"]), atol=1 / 254)
        np.testing.assert_allclose(line["box"], other["box"], atol=1e-2)
    assert all(0 <= side <= 1 for line in lines for side in (*line["point"], *line["box"]))
    assert len({json.dumps(line["heat"]) for line in lines}) > len(lines) / 2
    score = Grounding.score(json.loads(json.dumps(lines)))
    points, truth = (np.array([line[name] for line in lines]) for name in ("point", "truth"))
    assert score["pointing"] == pytest.approx(100 * pointing_game(points, truth).mean(), abs=0.006)


@pytest.mark.parametrize("family", FAMILIES)
def test_asking_leaves_the_model_as_it_was(family):
    trained = matching(family)
    model = trained.model.train()
    frozen = next(iter(model.parameters())).requires_grad_(False)
    list(Grounding(Grounding.Config(method="gradcam")).predict(trained, scenes()[:2]))
    assert model.training and not frozen.requires_grad
    others = [p for p in (*model.parameters(), *trained.objectives["itm"].parameters()) if p is not frozen]
    assert all(p.requires_grad and p.grad is None for p in others)
    assert all(attention.maps is None for attention in model.image_attention)


def test_activation_checkpointing_changes_nothing():
    trained = matching("xvlm")
    task = Grounding(Grounding.Config(method="gradcam", layer=0))
    before = list(task.predict(trained, scenes()[:3]))
    trained.model.enable_activation_checkpointing()
    assert list(task.predict(trained, scenes()[:3])) == before


def test_images_are_encoded_once(trained, records, counted):
    task = Grounding(Grounding.Config(method="gradcam", images_per_batch=4, phrases_per_batch=3))
    lines = list(task.predict(trained, records))
    assert (counted.encoded, counted.prepared, counted.fused) == (13, 13, len(lines))


def test_recording_changes_no_answer(trained, records):
    model, text = trained.model.eval(), trained.texts(["a red star", "two"])
    images = model.prepare(model.encode_image(trained.read_images(records[:2])))
    with torch.no_grad():
        plain = model.fuse(images, model.encode_text(text)).text
        with recorded_maps(model.image_attention[0]) as maps:
            recorded = model.fuse(images, model.encode_text(text)).text
        again = model.fuse(images, model.encode_text(text)).text
    torch.testing.assert_close(recorded, plain, atol=1e-5, rtol=1e-5)
    assert torch.equal(again, plain) and len(maps) == 1
    torch.testing.assert_close(maps[0].sum(-1), torch.ones(maps[0].shape[:-1]))


def test_which_words_look():
    trained = matching("xvlm")
    itm = trained.objectives["itm"]
    with only_attention(trained):
        images, text = asked(trained)
        words = text.mask & (torch.arange(text.ids.shape[1]) > 0)

        def of(queries, layer):
            return saliency(trained.model, itm.match, images, text, layer=layer, queries=queries, words=words)

        whole, alone, spoken = (of(queries, 0) for queries in ("text", "cls", "words"))
        total = alone + spoken * words.sum(1, keepdim=True)
        torch.testing.assert_close(whole * text.ids.shape[1], total)
        torch.testing.assert_close(of("text", 1) * text.ids.shape[1], of("cls", 1))
        with pytest.raises(UserError, match="only \\[CLS\\] counts in the last layer, 1"):
            of("words", 1)


def test_the_published_layer():
    assert chosen_layer(tiny_family("xvlm", cross_depth=6), None) == 3  # 9 of 12
    assert chosen_layer(tiny_family("xvlm"), None) == 1  # the second of two
    assert chosen_layer(tiny_family("imagebert", depth=12), None) == 9
    with pytest.raises(UserError, match="XVLM has layers 0 to 1"):
        list(Grounding(Grounding.Config(method="gradcam", layer=2)).predict(matching("xvlm"), scenes()[:1]))


def test_candidates_are_ranked_by_their_heat():
    trained = matching("xvlm")
    found = {}
    for kind in ("detected", "annotated", "peak"):
        task = Grounding(Grounding.Config(method="gradcam", candidates=kind))
        assert task.ranks_detected == (kind == "detected")
        found[kind] = list(task.predict(trained, scenes()[:4]))
    seen = {record.key: record for record in scenes()}
    for kind in ("detected", "annotated"):  # the detector of these scenes finds every thing
        for line in found[kind]:
            boxes = np.array([region.box for region in seen[line["key"]].regions])
            assert np.abs(boxes - line["box"]).max(1).min() < 1e-5
    for line in found["peak"]:
        assert pointing_game(np.array([line["point"]]), np.array([line["box"]]))[0]
    without = [replace(record, detected=None) for record in scenes()[:4]]
    task = Grounding(Grounding.Config(method="gradcam"))
    assert list(task.predict(trained, without)) == found["peak"]


def test_a_map_lies_on_its_image_and_not_on_the_rest_of_the_canvas():
    trained = matching("pixelbert")
    image = trained.read_images(scenes()[:1])
    height, width = image.pixels.shape[2:]
    stride = trained.model.cnn.stride
    half = replace(image, size=torch.tensor([[height, width // 4]]))  # half a cell
    grid = trained.model.grid(half)
    assert (grid.rows, grid.columns) == (height // stride, width // stride)
    assert grid.covered.tolist() == [[height / stride, width / 4 / stride]]
    cells = np.arange(grid.rows * grid.columns, dtype=float)
    answer = HeatMaps(trained.model, half).answer(cells, 0, None)
    assert answer["heat"]["size"] == [grid.rows, 1]  # the other column shows nothing of the image
    assert answer["point"][1] > 0.5  # the lower row has the higher numbers


def test_regions_answer_with_the_one_that_counts_most():
    trained = matching("vlbert")
    image = trained.read_images(scenes()[:1])
    real = int(image.mask.sum())
    values = np.zeros(image.mask.shape[1] + 1)  # with [END]
    values[0], values[2], values[-1] = 9.0, 1.0, 8.0
    answer = HeatMaps(trained.model, image).answer(values, 0, None)
    box = image.boxes[0, 2].numpy()
    assert real > 2 and answer["box"] == pytest.approx(box)  # not the whole image, which comes first
    assert answer["point"] == pytest.approx([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
    np.testing.assert_array_equal(from_line(answer["heat"]), painted(np.ones(1), box[None].astype(float), (16, 16)))
    nothing = replace(image, mask=torch.zeros_like(image.mask))
    assert HeatMaps(trained.model, nothing).answer(values, 0, None)["box"].tolist() == [0.0, 0.0, 1.0, 1.0]
