import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import crossgrain.nn.lengths as lengths
from crossgrain.config import UserError
from crossgrain.data.types import Batch
from crossgrain.objectives.interface import Views
from crossgrain.tasks.nlvr2 import NLVR2
from crossgrain.tasks.nlvr2_heads import FIRST, NEITHER, SECOND, Doubled, TwoPasses
from crossgrain.training.learner import Learner
from tiny_families import MODELS, learn, scenes, task_batch, tiny_family, tokenizer, trained_on_scenes
from tiny_models import make_batch, tiny_model
from tiny_regions import region_batch, tiny_imagebert

CELLS = [(family, TwoPasses) for family in MODELS] + [("xvlm", Doubled)]
every_cell = pytest.mark.parametrize(("family", "head"), CELLS)
STATED = [record for record in scenes() if record.extra["pairs"]]


def made(family, head=TwoPasses, **config):
    """The task, a tiny model and its head."""
    torch.manual_seed(1)
    task, model = NLVR2(NLVR2.Config(head=head.Config(**config))), tiny_family(family)
    nlvr2 = task.head(model, tokenizer())
    with torch.no_grad():  # larger weights than fresh ones, so that answers differ clearly
        for parameter in nlvr2.parameters():
            parameter.mul_(2)
    return task, model, nlvr2


@every_cell
def test_one_batch_is_learnt(family, head):
    task, model, nlvr2 = made(family, head)
    batch = task_batch(family, task, model, STATED * 3)
    label = batch.targets["pairs"].label
    assert len(batch.image["clean"].image) == 6 * len(STATED) == 2 * len(label)
    assert 0.2 < label.float().mean() < 0.8  # else there is nothing to learn
    losses = learn(Learner(model, {"nlvr2": nlvr2}).train(), batch, 60, lr=5e-3)
    assert losses[-1] < 0.1 < 0.4 < losses[0]
    assert nlvr2.eval()(Views(model.eval(), batch)).metrics["accuracy"] == 1


@every_cell
def test_predictions_are_complete_and_scored_from_the_lines(family, head):
    task, model, nlvr2 = made(family, head)
    lines = list(task.predict(trained_on_scenes(family, model, {"nlvr2": nlvr2}), scenes()))
    asked = [(record.key, pair) for record in scenes() for pair in record.extra["pairs"]]
    assert len(lines) == len(asked) > 8
    for line, (key, pair) in zip(lines, asked, strict=True):
        said = {name: line[name] for name in ("partner", "statement", "label")}
        assert line["key"] == key and said == pair
        assert line["answer"] == (line["probability"] > 0.5) and 0 <= line["probability"] <= 1
    assert len({line["id"] for line in lines}) == len(lines)
    score = task.score(json.loads(json.dumps(lines)))
    right = [line["answer"] == line["label"] for line in lines]
    assert score["accuracy"] == round(100 * sum(right) / len(right), 2)
    assert (score["pairs"], score["chance"]) == (len(lines), {"accuracy": 50.0, "consistency": 25.0})
    statements = {(line["key"], line["statement"]) for line in lines}
    assert score["statements"] == len(statements) == len(lines) / 2
    low, high = score["confidence_95"]["accuracy"]
    assert low < score["accuracy"] < high


@every_cell
def test_batches_do_not_matter_and_no_image_stands_in_one_twice(family, head, monkeypatch):
    _, model, nlvr2 = made(family, head)
    trained = trained_on_scenes(family, model, {"nlvr2": nlvr2})
    encoded, original = [], model.encode_image
    monkeypatch.setattr(model, "encode_image", lambda image: encoded.append(len(image.image)) or original(image))

    def chances(**sizes):
        task = NLVR2(NLVR2.Config(head=head.Config(), **sizes))
        return [line["probability"] for line in task.predict(trained, scenes())]

    together = chances()
    assert encoded == [len(scenes())]  # every scene is in some pair
    assert np.std(together) > 1e-4
    np.testing.assert_allclose(chances(images_per_batch=3, pairs_per_batch=2), together, atol=1e-5)
    assert set(encoded[1:-1]) == {3} and sum(encoded[1:]) < 2 * len(together)


@every_cell
def test_the_order_of_the_images_is_read(family, head):
    task, model, nlvr2 = made(family, head)
    batch = task_batch(family, task, model, STATED)
    text, image = model.encode_text(batch.text["clean"]), Views(model, batch).image()
    rows = torch.arange(len(text.x))
    with torch.no_grad():
        one_way = nlvr2.judge(nlvr2.states(model, image, image.take(rows ^ 1), text))
        other_way = nlvr2.judge(nlvr2.states(model, image.take(rows ^ 1), image, text))
    assert ((one_way - other_way).abs().amax(1) > 1e-5).all()


def test_the_second_layers_start_as_the_bodys_and_share_what_is_prepared():
    _, model, nlvr2 = made("xvlm", Doubled)
    with torch.no_grad():
        for parameter in (*model.parameters(), *nlvr2.parameters()):
            parameter.add_(torch.randn_like(parameter))
    assert nlvr2.adopt(model, {"itm": {}}) == ["second_layers"]
    own, body = nlvr2.second_layers.state_dict(), model.cross_layers.state_dict()
    assert set(body) - set(own) == {f"{i}.cross_attention.key_value.{k}" for i in (0, 1) for k in ("weight", "bias")}
    assert all(torch.equal(value, body[name]) for name, value in own.items())
    learnt = {name: value + 1 for name, value in nlvr2.state_dict().items()}
    learnt["assignment.weight"] = torch.zeros(3, 16)  # which this head has not
    assert nlvr2.adopt(model, {"nlvr2": learnt}) == ["second_layers", "classifier"]
    assert all(torch.equal(value, learnt[name]) for name, value in nlvr2.state_dict().items())


def test_doubled_layers_run_over_short_texts_apart(monkeypatch):
    task, model, nlvr2 = made("xvlm", Doubled)
    batch = task_batch("xvlm", task, model, STATED)
    expected = nlvr2(Views(model, batch)).value
    monkeypatch.setattr(lengths, "FEWEST", 0)
    assert lengths.groups_by_length(batch.text["clean"].mask) is not None
    torch.testing.assert_close(nlvr2(Views(model, batch)).value, expected)


def captions(family):
    """A batch of captions for a tiny model of this family."""
    if family == "xvlm":
        return tiny_model(), make_batch(num_images=4)
    return tiny_imagebert(), region_batch()


@pytest.mark.parametrize(("family", "head"), [("xvlm", Doubled), ("imagebert", TwoPasses)])
def test_captions_find_their_image_among_two(family, head, monkeypatch):
    model, batch = captions(family)
    nlvr2 = head(head.Config(text_assignment=True), model)
    drawn = nlvr2.draw(Views(model, batch))
    monkeypatch.setattr(nlvr2, "draw", lambda views: drawn)
    losses = learn(Learner(model, {"nlvr2": nlvr2}).train(), batch, 60)
    assert losses[-1] < 0.2 < 0.8 < losses[0]
    assert nlvr2.assignment.weight.grad is not None
    assert all(parameter.grad is None for parameter in nlvr2.classifier.parameters())


def test_captions_stand_between_images_as_they_say():
    model = tiny_model()
    batch = make_batch(num_images=6)
    group = torch.arange(12) // 2  # two captions of each image
    views = Views(model, Batch(image=batch.image, text=batch.text, group=group))
    nlvr2 = Doubled(Doubled.Config(text_assignment=True), model)
    rows, counts = torch.arange(12), torch.zeros(3)
    for _ in range(200):
        first, second, label = nlvr2.draw(views)
        own = (first == rows, second == rows, torch.zeros(12, dtype=torch.bool))
        for case in (FIRST, SECOND, NEITHER):
            told = label == case
            other = torch.where(own[FIRST], second, first)
            assert own[case][told].all() or case == NEITHER
            assert (group[other][told] != group[told]).all()
            counts[case] += told.sum()
        neither = label == NEITHER
        assert (group[first] != group)[neither].all() and (group[second] != group)[neither].all()
        assert (first != second).all()
    np.testing.assert_allclose(counts / counts.sum(), 1 / 3, atol=0.04)


@pytest.mark.parametrize("family", MODELS)
def test_every_family_has_the_head_of_its_paper(family):
    head = NLVR2(NLVR2.Config()).head(tiny_family(family), tokenizer())
    assert type(head) is (Doubled if family == "xvlm" else TwoPasses)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"task\.head\.type: two_passes"):
        Doubled(Doubled.Config(), tiny_imagebert())
    model, batch = captions("xvlm")
    with pytest.raises(UserError, match=r"task\.head\.text_assignment: true"):
        Doubled(Doubled.Config(), model)(Views(model, batch))
    task, model, nlvr2 = made("imagebert")
    trained = trained_on_scenes("imagebert", model, {"nlvr2": nlvr2})
    with pytest.raises(UserError, match=STATED[-1].extra["pairs"][0]["partner"]):
        list(task.predict(trained, STATED[-1:]))
    assert task.missing(trained) is None
    assert "nlvr2" in (task.missing(replace(trained, objectives={})) or "")


def line(key, statement, answer, label, number=0, **others):
    return {"key": key, "partner": "z", "id": f"{key}#{number}", "statement": statement, "answer": answer} | {
        "probability": 0.5, "label": label, **others,
    }  # fmt: skip


def test_score_of_lines_worked_out_by_hand():
    lines = [
        line("a", "s", True, True), line("a", "s", False, False), line("a", "t", True, False),
        line("b", "s", True, True), line("b", "s", True, False),
    ]  # fmt: skip
    score = NLVR2.score(lines)
    assert (score["accuracy"], score["consistency"]) == (60.0, 33.33)
    assert score["chance"] == {"accuracy": 50.0, "consistency": pytest.approx(100 * (0.25 + 0.5 + 0.25) / 3, abs=0.01)}
    assert "unscored" not in score
    official = [line("a", "s", True, index == 0, id=f"dev-12-{index}-3") for index in range(2)]
    assert NLVR2.score([*official, line("c", "s", True, True, id="dev-12-0-1")])["statements"] == 2
    unknown = line("c", "u", True, None)
    assert NLVR2.score([*lines, unknown]) == {**score, "unscored": 1}
    assert NLVR2.score([unknown]) == {"unscored": 1}


def test_records_without_pairs_ask_nothing_and_pairs_without_a_label_are_answered():
    task, model, nlvr2 = made("imagebert")
    trained = trained_on_scenes("imagebert", model, {"nlvr2": nlvr2})
    assert list(task.predict(trained, scenes()[:1])) == []
    pair = {name: value for name, value in STATED[0].extra["pairs"][0].items() if name != "label"}
    blank = replace(STATED[0], extra={"pairs": [{**pair, "id": "test1-0-1-0"}]})
    others = [record for record in scenes() if record.key != blank.key]
    (answer,) = [line for line in task.predict(trained, [*others, blank]) if line["key"] == blank.key]
    assert (answer["id"], answer["label"]) == ("test1-0-1-0", None)
