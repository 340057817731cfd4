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


def test_guessing_scores_what_boxes_of_other_phrases_score():
    left, right = [0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]
    lines = [line(left, truth) for truth in [left, right, left, right]]
    assert Grounding.score(lines)["chance"] == {"accuracy@0.5": pytest.approx(33.33)}  # of 3 shifts, 1 fits all


def test_only_texts_that_single_out_a_region_are_asked():
    star, moon, other = (
        Region(box=(0.0, 0.0, x, x), label=name) for x, name in [(0.1, "star"), (0.2, "moon"), (0.3, "star")]
    )
    assert phrases(Record(key="a", image=b"", regions=(star, moon, other))) == [("moon", moon.box)]
    assert len(phrases(Record(key="a", image=b"", regions=(star, other)))) == 2
    assert phrases(Record(key="a", image=b"")) == []


def test_referring_expressions_come_before_region_texts():
    extra: dict = {"expressions": [{"text": "the star on the left", "index": 1}]}
    moon, star = Region(box=(0.0, 0.0, 1.0, 1.0), label="moon"), Region(box=(0.1, 0.1, 0.2, 0.2), label="star")
    assert phrases(Record(key="a", image=b"", regions=(moon, star), extra=extra)) == [
        ("the star on the left", star.box)
    ]


def test_records_without_regions_ask_nothing(trained, records):
    assert list(Grounding(Grounding.Config()).predict(trained, [replace(records[0], regions=())])) == []
