"""The heads of grounding: each family learns a batch, what is adopted, and what is chosen among regions."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from crossgrain.objectives.itm import ITM
from crossgrain.objectives.region_class import RegionClass
from crossgrain.tasks.grounding import Grounding
from crossgrain.training.learner import Learner
from tiny_families import learn, scenes, task_batch, tiny_family, tokenizer, trained_on_scenes
from tiny_models import tiny_model
from tiny_regions import CLASSES
from tiny_vlbert import tiny_vlbert

RANDOM = ITM.Config(negatives="random", head="linear")
CELLS = [
    *((family, "box", {}) for family in ("xvlm", "pixelbert", "imagebert", "vlbert")),
    *((family, "proposals", {}) for family in ("imagebert", "vlbert")),
    ("xvlm", "gradcam", {}),
    ("imagebert", "gradcam", {"matching": RANDOM}),
]


def task(method, **config):
    return Grounding(Grounding.Config(method=method, **config))


def head_of(asking, model):
    return asking.head(model, tokenizer())


@pytest.mark.parametrize(("family", "method", "config"), CELLS)
def test_a_batch_is_learnt_and_every_expression_gets_its_line(family, method, config):
    asking, model = task(method, **config), tiny_family(family)
    torch.manual_seed(0)
    learner = Learner(model, {"grounding": head_of(asking, model)}).train()
    batch = task_batch(family, asking, model, scenes())
    losses = learn(learner, batch, steps=160 if method == "gradcam" else 20, lr=6e-3)
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:3]), losses

    trained = trained_on_scenes(family, model, dict(learner.objectives.items()))
    assert asking.missing(trained) is None
    lines = list(asking.predict(trained, scenes()))
    told = [(record.key, one["text"]) for record in scenes() for one in record.extra["expressions"]]
    assert [(line["key"], line["text"]) for line in lines] == told
    assert {line["method"] for line in lines} == {method}
    assert all(len(line["box"]) == len(line["truth"]) == 4 and 0 <= line["iou"] <= 1 for line in lines)
    score = Grounding.score(json.loads(json.dumps(lines)))
    hits = [line["iou"] >= 0.5 for line in lines]
    assert score["accuracy@0.5"] == pytest.approx(100 * np.mean(hits), abs=0.006)
    assert (score["phrases"], "pointing" in score) == (len(lines), method == "gradcam")


def test_proposals_are_refused_to_a_model_that_reads_pixels():
    with pytest.raises(ValueError, match="XVLM reads pixels"):
        head_of(task("proposals"), tiny_model())


@pytest.mark.parametrize("family", ["imagebert", "vlbert"])
def test_the_loss_of_proposals_is_the_mean_over_real_regions(family):
    asking, model = task("proposals"), tiny_family(family)
    batch, head = task_batch(family, asking, model, scenes()), head_of(asking, model)
    loss, metrics = Learner(model, {"grounding": head})(batch)
    regions, true = batch.image["clean"], batch.targets["expressions"].box
    with torch.no_grad():
        states = model.fuse(model.encode_image(regions), model.encode_text(batch.text["clean"])).image
        logits = head.logits(states)
    told, right = [], 0
    for row in range(len(true)):
        places = regions.mask[row].nonzero().flatten().tolist()
        assert len(places) == len(scenes()[row].regions) + bool(model.whole_image_first)  # the whole image is a choice
        for place in places:
            a, b = regions.boxes[row, place].numpy(), true[row].numpy()
            shared = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
            overlap = shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared)
            p = torch.sigmoid(logits[row, place]).item()
            told.append(-np.log(p if overlap > 0.5 else 1 - p))
            right += overlap > 0.5
    assert right == len(true)
    assert loss.item() == pytest.approx(np.mean(told), rel=1e-4)
    assert 0 <= metrics["grounding/accuracy"].item() <= 1


def test_heads_adopt_what_pre_training_learnt():
    model = tiny_vlbert()
    other = tiny_vlbert(seed=1)
    classes = RegionClass(RegionClass.Config(num_classes=CLASSES, head="transform"), other)
    head = head_of(task("proposals"), model)
    before = head.score.weight.clone()
    assert head.adopt(model, {"region_class": classes.state_dict()}) == ["transform"]
    assert torch.equal(head.transform.weight, classes.head[0].weight) and torch.equal(head.score.weight, before)
    linear = RegionClass(RegionClass.Config(num_classes=CLASSES), other)
    assert head.adopt(model, {"region_class": linear.state_dict()}) == []
    again = head_of(task("proposals"), model)
    assert again.adopt(model, {"grounding": head.state_dict()}) == ["grounding"]
    assert torch.equal(again.score.weight, head.score.weight)

    box, pretrained = (head_of(task("box"), model) for _ in range(2))
    assert box.adopt(model, {}) == []
    assert box.adopt(model, {"box": pretrained.state_dict()}) == ["box"]
    assert torch.equal(box.head[0].weight, pretrained.head[0].weight)

    matching = head_of(task("gradcam", matching=RANDOM), model)
    assert matching.adopt(model, {"itm": ITM(ITM.Config(negatives="random"), other).state_dict()}) == []  # another form
    assert matching.adopt(model, {"itm": ITM(RANDOM, other).state_dict()}) == ["itm"]


@pytest.fixture
def choosing(stream):
    torch.manual_seed(0)
    head = head_of(task("proposals"), stream.model)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(4)
    return replace(stream, objectives=stream.objectives | {"grounding": head})


def test_the_chosen_region_is_that_of_each_phrase_asked_alone(choosing, records, counted):
    asking = task("proposals", images_per_batch=4, phrases_per_batch=3)
    lines = list(asking.predict(choosing, records))
    assert (counted.encoded, counted.fused) == (13, len(lines))
    assert len(lines) == sum(len(record.regions) for record in records)
    seen, head, model = {record.key: record for record in records}, choosing.objectives["grounding"], choosing.model
    for line in lines:
        found = seen[line["key"]].detected
        if not len(found):
            assert line["box"] == [0.0, 0.0, 1.0, 1.0]  # no region is there to be chosen
            continue
        with choosing.answering():
            image = choosing.read_images([seen[line["key"]]])
            fused = model.fuse(model.encode_image(image), model.encode_text(choosing.texts([line["text"]])))
            logits = head.logits(fused.image)[0]
        np.testing.assert_allclose(line["box"], found.boxes[logits.argmax()], atol=1e-6)
        assert line["score"] == pytest.approx(logits.max().sigmoid().item(), abs=1e-5)
    score = Grounding.score(json.loads(json.dumps(lines)))
    assert (score["method"], score["phrases"]) == ("proposals", len(lines))


def test_what_is_missing_is_told(trained, stream, choosing):
    assert task("box").missing(trained) is None and task("gradcam").missing(trained) is None
    assert task("gradcam").missing(stream) is None
    assert task("box").missing(stream) == "a box objective"
    assert "proposals" in str(task("proposals").missing(trained)) and task("proposals").missing(choosing) is None
    assert task("gradcam").missing(replace(stream, objectives={})) == "a matching objective"
