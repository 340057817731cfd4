import json
from dataclasses import replace

import numpy as np
import pytest

from crossgrain.data.records import Record, Region
from crossgrain.tasks.grounding import Grounding, phrases


def test_boxes_are_those_of_each_phrase_asked_alone(trained, records, counted):
    lines = list(Grounding(Grounding.Config(images_per_batch=4, phrases_per_batch=3)).predict(trained, records[:6]))
    assert [(line["key"], line["text"]) for line in lines[:3]] == [("p0", "star"), ("p0", "circle"), ("p1", "star")]
    assert (counted.encoded, counted.prepared, counted.fused) == (6, 6, 12)
    for line, record in zip(lines[::2], records, strict=False):
        with trained.answering():
            image = trained.model.encode_image(trained.read_images([record]))
            fused = trained.model.fuse(image, trained.model.encode_text(trained.texts(["star"])))
            box = trained.objectives["box"].boxes(fused.cls)[0]
        np.testing.assert_allclose(line["box"], box.numpy(), atol=1e-5)
        assert line["truth"] == pytest.approx(record.regions[0].box, abs=1e-6)


def line(box, truth, key="a"):
    return {"key": key, "text": "a star", "box": box, "truth": truth, "iou": 0.0}


def test_score_of_lines_worked_out_by_hand():
    right, half, wrong = [0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.25], [0.6, 0.6, 1.0, 1.0]
    score = Grounding.score([line(right, right), line(half, right), line(wrong, right, "b"), line(right, wrong, "b")])
    assert score["accuracy@0.5"] == 50.0 and score["mean_iou"] == 37.5
    assert (score["phrases"], score["images"]) == (4, 2)
    assert score["confidence_95"]["accuracy@0.5"] == [15.0, 85.0]  # Wilson, 2 of 4
    assert json.loads(json.dumps(score)) == score


def test_guessing_scores_what_boxes_of_other_objects_score():
    left, right = [0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]
    lines = [line(left, truth, key) for key, truth in zip("abcd", [left, right, left, right], strict=True)]
    assert Grounding.score(lines)["chance"] == {"accuracy@0.5": pytest.approx(33.33)}  # of 3 shifts, 1 fits all


def test_a_guess_is_never_of_the_object_that_is_asked_for():
    """Several expressions of one object stand side by side in the data."""
    left, right = [0.0, 0.0, 0.4, 1.0], [0.6, 0.0, 1.0, 1.0]
    lines = [line(truth, truth) | {"point": [truth[0] + 0.1, 0.5]} for truth in (left, right) for _ in range(30)]
    assert Grounding.score(lines)["chance"] == {"accuracy@0.5": 0.0, "pointing": 0.0}


@pytest.mark.parametrize("phrases", [1, 2])
def test_a_single_object_leaves_nothing_to_guess(phrases):
    box = [0.0, 0.0, 0.5, 0.5]
    assert "chance" not in Grounding.score([line(box, box) | {"point": [0.1, 0.1]}] * phrases)


def test_only_texts_that_single_out_a_region_are_asked():
    star, moon, other = (
        Region(box=(0.0, 0.0, x, x), label=name) for x, name in [(0.1, "star"), (0.2, "moon"), (0.3, "star")]
    )
    assert phrases(Record(key="a", image=b"", regions=(star, moon, other))) == [("moon", moon.box, None)]
    assert len(phrases(Record(key="a", image=b"", regions=(star, other)))) == 2
    assert phrases(Record(key="a", image=b"", regions=(star, other)), unambiguous=True) == []
    assert phrases(Record(key="a", image=b"")) == []


def test_referring_expressions_come_before_region_texts():
    extra: dict = {"expressions": [{"text": "the star on the left", "index": 1}]}
    moon, star = Region(box=(0.0, 0.0, 1.0, 1.0), label="moon"), Region(box=(0.1, 0.1, 0.2, 0.2), label="star")
    assert phrases(Record(key="a", image=b"", regions=(moon, star), extra=extra)) == [
        ("the star on the left", star.box, None)
    ]


def test_expressions_that_name_two_regions_are_left_out_on_demand():
    moon, star = Region(box=(0.0, 0.0, 1.0, 1.0), label="moon"), Region(box=(0.1, 0.1, 0.2, 0.2), label="star")
    named = [("the thing", 0), ("the thing", 1), ("moon", 1), ("bright one", 1), ("bright one", 1)]
    extra: dict = {"expressions": [{"text": text, "index": i, "id": n} for n, (text, i) in enumerate(named)]}
    record = Record(key="a", image=b"", regions=(moon, star), extra=extra)
    assert [phrase.id for phrase in phrases(record)] == [0, 1, 2, 3, 4]
    assert [phrase.id for phrase in phrases(record, unambiguous=True)] == [3, 4]  # "moon" also labels region 0


def test_an_expression_without_its_region_gets_a_line_and_no_score(trained, records):
    expressions = [{"text": "a star", "id": 7}, {"text": "a circle", "index": 1, "id": 8}]
    asked = [replace(record, extra={"expressions": expressions}) for record in records[:3]]
    lines = list(Grounding(Grounding.Config()).predict(trained, asked))
    assert [(line["id"], line["truth"] is None, line["iou"] is None) for line in lines[:2]] == [
        (7, True, True),
        (8, False, False),
    ]
    score = Grounding.score(json.loads(json.dumps(lines)))
    assert (score["phrases"], score["unscored"]) == (3, 3)
    unknown = [line for line in lines if line["truth"] is None]
    assert Grounding.score(unknown) == {"method": "box", "unscored": 3}


def test_methods_are_scored_apart():
    box = [0.0, 0.0, 0.5, 0.5]
    heat = {"point": [0.9, 0.9], "method": "gradcam"}
    lines = [
        line(box, box) | {"method": "box"},
        line(box, box) | heat,
        line(box, box, "b") | {**heat, "point": [0.1, 0.5]},
    ]
    score = Grounding.score(lines)
    assert (score["method"], score["phrases"], "pointing" in score) == ("box", 1, False)
    inner = score["gradcam"]
    assert (inner["phrases"], inner["pointing"], inner["accuracy@0.5"]) == (2, 50.0, 100.0)
    assert inner["confidence_95"]["pointing"] == [9.45, 90.55]  # Wilson, 1 of 2
    assert inner["chance"]["pointing"] == 50.0  # each is answered with the other's point


def test_records_without_regions_ask_nothing(trained, records):
    assert list(Grounding(Grounding.Config()).predict(trained, [replace(records[0], regions=())])) == []
