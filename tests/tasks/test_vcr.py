import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from crossgrain.data.scenes.world import KINDS
from crossgrain.objectives.interface import Views
from crossgrain.objectives.itm import ITM
from crossgrain.objectives.region_class import RegionClass
from crossgrain.tasks.vcr import VCR, items
from crossgrain.tasks.vcr_heads import Choices
from crossgrain.training.learner import Learner
from tiny_families import MODELS, learn, scenes, task_batch, tiny_family, tokenizer, trained_on_scenes

every_family = pytest.mark.parametrize("family", MODELS)
BY_KIND = {"answer": "Q->A", "rationale": "QA->R"}


def made(family, kinds="both", **config):
    """The task, a tiny model and its head."""
    torch.manual_seed(1)
    head = Choices.Config(**{"num_classes": len(KINDS), "dropout": 0.0, **config})
    task, model = VCR(VCR.Config(kinds=kinds, head=head)), tiny_family(family)
    return task, model, task.head(model, tokenizer())


def predicted(family, task, model, vcr, records):
    return list(task.predict(trained_on_scenes(family, model, {"vcr": vcr}), records))


@pytest.mark.parametrize(("family", "loss"), [*((family, "sigmoid") for family in MODELS), ("vlbert", "softmax")])
def test_one_batch_is_learnt(family, loss):
    task, model, vcr = made(family, classifier="2fc" if loss == "softmax" else "1fc", loss=loss, hidden_dim=32)
    batch = task_batch(family, task, model, scenes()[:4])
    assert len(batch.text["clean"].ids) == 16 and batch.targets["choices"].label.shape == (4,)
    learnt = learn(Learner(model, {"vcr": vcr}).train(), batch, 30, lr=1e-2)
    assert learnt[-1] < 0.3 * learnt[0]
    metrics = vcr.eval()(Views(model.eval(), batch)).metrics
    assert metrics["accuracy"] == 1
    assert ("region_accuracy" in metrics) == (model.reads != "pixels") == (vcr.region_class is not None)


@every_family
def test_predictions_are_complete_and_scored_from_the_lines(family):
    task, model, vcr = made(family)
    lines = predicted(family, task, model, vcr, scenes())
    asked = [(record, number) for record in scenes() for number in range(len(record.extra["choices"]))]
    assert len(lines) == 2 * len(asked) > 16
    found = {(line["key"], line["number"], line["kind"]): line for line in lines}
    right = {}
    for record, number in asked:
        item = record.extra["choices"][number]
        for kind, name in BY_KIND.items():
            line = found[record.key, number, kind]
            assert line["label"] == item[f"{kind}_label"] and line["answer"] == int(np.argmax(line["scores"]))
            assert len(line["choices"]) == len(line["scores"]) == 4 and np.isfinite(line["scores"]).all()
            right.setdefault(name, []).append(line["answer"] == line["label"])
        told = found[record.key, number, "answer"]
        chosen = told["choices"][item["answer_label"]]
        reason = found[record.key, number, "rationale"]
        assert reason["question"] == f"{told['question']} {chosen}" and reason["given"] == item["answer_label"]
    right["Q->AR"] = [a and b for a, b in zip(*right.values(), strict=True)]
    score = task.score(json.loads(json.dumps(lines)))
    assert {name: score[name] for name in right} == {n: round(100 * sum(r) / len(r), 2) for n, r in right.items()}
    assert (score["questions"], score["images"]) == (len(asked), len(scenes()))
    assert score["chance"] == {"Q->A": 25.0, "QA->R": 25.0, "Q->AR": 6.25}
    assert set(score["confidence_95"]) == set(right)


@every_family
def test_batches_do_not_matter_and_every_image_is_encoded_once(family, monkeypatch):
    task, model, vcr = made(family)
    together = [line["scores"] for line in predicted(family, task, model, vcr, scenes())]
    assert np.std(together) > 1e-3
    encoded, original = [], model.encode_image
    monkeypatch.setattr(model, "encode_image", lambda image: encoded.append(len(image.image)) or original(image))
    few = VCR(replace(task.config, images_per_batch=3, texts_per_batch=5))
    apart = [line["scores"] for line in predicted(family, few, model, vcr, scenes())]
    assert encoded == [3, 3, 2]
    np.testing.assert_allclose(apart, together, atol=1e-4)


@pytest.mark.parametrize("family", ["vlbert", "imagebert"])
def test_tags_change_what_vlbert_sees_and_no_other_family(family):
    task, model, _ = made(family)
    text = task_batch(family, task, model, scenes()[:4]).text["clean"]
    tagged = task_batch("vlbert", VCR(VCR.Config()), tiny_family("vlbert"), scenes()[:4])
    assert (tagged.text["clean"].tags >= 1).any() and torch.equal(tagged.text["clean"].ids, text.ids)
    image = Views(model, task_batch(family, task, model, scenes()[:4])).image()
    with torch.no_grad():
        told, plain = (
            model.fuse(image, model.encode_text(replace(text, tags=tags))).cls
            for tags in (tagged.text["clean"].tags, None)
        )
    assert torch.equal(told, plain) == (family != "vlbert")


def test_a_tagged_word_carries_its_region_and_every_other_word_the_whole_image():
    task, model, _ = made("vlbert")
    batch = task_batch("vlbert", task, model, scenes()[:3])
    image, text = model.encode_image(batch.image["clean"]), model.encode_text(batch.text["clean"])
    tags, rows = batch.text["clean"].tags, torch.tensor([5, 0, 11, 0])
    with torch.no_grad():
        regions = batch.image["clean"]
        visual = model.word_visual_norm(model.visual_embedding(model.features(regions), regions.boxes))
        added = model.on_words(image, text)
        for row, words in enumerate(tags.tolist()):
            for place, tag in enumerate(words):
                torch.testing.assert_close(added[row, place], visual[row // 4, max(tag, 0)])
        assert torch.equal(model.on_words(image.take(rows), text.take(rows)), added[rows])


def test_tags_point_at_the_regions_that_show_the_objects():
    """The third detection is that of the second object; the first object was not found."""
    task, model, _ = made("vlbert", kinds="answer")
    record = next(record for record in scenes() if len(record.regions) > 2)
    detected = record.detected
    order = [2, 0, 1]
    moved = type(detected).of(detected.boxes[order], detected.features[order], detected.labels[order])
    moved.boxes[1] = (0.0, 0.0, 0.01, 0.01)
    item = {
        "question": ["what", "is", [1], "and", [0], "?"], "answer_choices": [["it", [2]]] * 4, "answer_label": 0,
        "rationale_choices": [["so"]] * 4, "rationale_label": 0,
    }  # fmt: skip
    record = replace(record, detected=moved, extra={"choices": [item]})
    batch = task_batch("vlbert", task, model, [record])
    tags, pieces = batch.text["clean"].tags[0].tolist(), batch.text["clean"].ids[0].tolist()
    named = {name.label: tokenizer().split(name.label) for name in record.regions[:3]}
    expected = [-1]
    for word in ("what is", 1, "and", 0, "?", None, "it", 2, None):
        if word is None:
            expected.append(-1)
        elif isinstance(word, str):
            expected += [-1] * len(tokenizer().split(word))
        else:
            expected += [{1: 3, 0: -1, 2: 1}[word]] * len(named[record.regions[word].label])
    assert tags[: len(expected)] == expected and set(tags[len(expected) :]) <= {-1}
    assert pieces[len(expected) - 1] == tokenizer().sep


@pytest.mark.parametrize("family", ["vlbert", "xvlm"])
def test_kinds_are_asked_as_the_recipe_says(family):
    task, model, vcr = made(family)
    for kinds in ("answer", "rationale"):
        lines = predicted(family, VCR(replace(task.config, kinds=kinds)), model, vcr, scenes()[:3])
        assert {line["kind"] for line in lines} == {kinds}
        assert set(VCR.score(lines)["chance"]) == {BY_KIND[kinds]}


def test_without_labels_every_answer_is_justified_and_nothing_is_scored():
    task, model, vcr = made("vlbert")
    item = {k: v for k, v in scenes()[0].extra["choices"][0].items() if not k.endswith("_label")} | {"id": "test-3"}
    record = replace(scenes()[0], extra={"choices": [item]})
    lines = predicted("vlbert", task, model, vcr, [record, replace(scenes()[1], extra={})])
    assert [(line["kind"], line.get("given")) for line in lines] == [
        ("answer", None), *(("rationale", given) for given in range(4)),
    ]  # fmt: skip
    assert {line["id"] for line in lines} == {"test-3"} and {line["label"] for line in lines} == {None}
    assert len({line["question"] for line in lines}) == 5
    assert VCR.score(lines) == {"unscored": 5}
    known = predicted("vlbert", task, model, vcr, scenes()[:2])
    assert VCR.score([*known, *lines]) == {**VCR.score(known), "unscored": 5}
    assert [entry.label for entry in items(record, "answer")] == [None]


def test_what_pretraining_learnt_is_taken_over():
    _, model, vcr = made("vlbert")
    itm = ITM(ITM.Config(negatives="swapped", head="pooler"), model)
    regions = RegionClass(RegionClass.Config(num_classes=9, head="transform"), model)
    learnt = {"itm": itm.state_dict(), "region_class": regions.state_dict(), "mlm": {}}
    with torch.no_grad():
        assert vcr.adopt(model, learnt) == ["region_class.0", "pooler", "classifier", "segment of answers"]
        cls = torch.randn(3, model.dim)
        torch.testing.assert_close(vcr.score(cls), itm.match(cls) @ torch.tensor([-1.0, 1.0]))
        hidden = regions.head[1](regions.head[0](cls))
        torch.testing.assert_close(vcr.region_class[1](vcr.region_class[0](cls)), hidden)
    segments = model.text_embedding.segment.weight
    assert torch.equal(segments[0], segments[1]) and not torch.equal(segments[0], segments[2])
    again = made("vlbert", num_classes=5)[2]
    before = again.region_class[2].weight.clone()
    assert again.adopt(model, {"vcr": vcr.state_dict()}) == ["pooler", "classifier", "region_class"]
    assert torch.equal(again.classifier[1].weight, vcr.classifier[1].weight)
    assert torch.equal(again.region_class[2].weight, before)  # it has other classes


def test_regions_that_nobody_named_are_not_classified():
    task, model, vcr = made("imagebert")
    batch = task_batch("imagebert", task, model, scenes()[:3])
    target = batch.targets["choices"]
    views = Views(model, batch)
    loss, counted = vcr(views), (target.region_class >= 0).sum()
    with torch.no_grad():
        states = views.fused().image[:, : target.region_class.shape[1]].unflatten(0, (3, 4))
        logits = vcr.region_class(states).log_softmax(-1)
        each = -logits.gather(-1, target.region_class.clamp(min=0)[:, None, :, None].expand(-1, 4, -1, 1))[..., 0]
        expected = (each * (target.region_class >= 0)[:, None]).sum() / (4 * counted)
    torch.testing.assert_close(loss.metrics["region_loss"], expected)
    nothing = replace(target, region_class=torch.full_like(target.region_class, -100))
    without = vcr(Views(model, replace(batch, targets={"choices": nothing})))
    assert without.metrics["region_loss"] == 0
    torch.testing.assert_close(loss.value - expected, without.value)
    assert made("imagebert", region_class_weight=0.0)[2].region_class is None


def test_a_model_without_the_head_is_told_so():
    task, model, vcr = made("imagebert")
    trained = trained_on_scenes("imagebert", model, {"vcr": vcr})
    assert task.missing(trained) is None
    assert "vcr" in (task.missing(replace(trained, objectives={})) or "")
