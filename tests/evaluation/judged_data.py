"""A small data set that asks something of every task, and answers to it, worked out by hand."""

import io
import json

from PIL import Image

from crossgrain.data.records import Record, Region
from crossgrain.data.shards import ShardWriter

KEYS = [f"COCO_val2014_{number:012d}" for number in (7, 42, 391895)]
CHOICES = [["it", "is", word, "."] for word in ("red", "blue", "big", "old")]


def png():
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "green").save(file, "PNG")
    return file.getvalue()


def choice(name, answer=None, rationale=None):
    labels = {} if answer is None else {"answer_label": answer, "rationale_label": rationale}
    said = {"question": ["what", "is", [0], "?"], "answer_choices": CHOICES, "rationale_choices": CHOICES[::-1]}
    return {**said, **labels, "id": name}


def statement(name, partner, label=None):
    said = {"partner": partner, "statement": "both show dogs", "id": name}
    return said if label is None else {**said, "label": label}


def question(number, text, answers=None, kind=None):
    said = {"question": text, "id": number, "type": kind}
    return {name: value for name, value in {**said, "answers": answers}.items() if value is not None}


def records():
    """Three validation images with all truths, and one test image without any."""
    regions = (Region(box=(0.1, 0.1, 0.5, 0.5), label="dog"), Region(box=(0.5, 0.5, 1.0, 1.0), label="cat"))
    extras = [
        {
            "questions": [
                question(70, "how many?", ["2"] * 6 + ["two"] * 2 + ["3", "4"], "number"),
                question(71, "a dog?", ["yes"] * 10, "yes/no"),
            ],
            "pairs": [statement("dev-1-0-0", KEYS[1], True), statement("dev-1-1-0", KEYS[2], False)],
            "choices": [choice("val-0", 1, 2)],
            "expressions": [{"text": "the dog", "index": 0, "id": 11}, {"text": "the cat", "index": 1, "id": 12}],
        },
        {
            "questions": [question(420, "which color?", ["red", "red", "dark red"] + ["maroon"] * 7, "other")],
            "pairs": [statement("dev-1-2-0", KEYS[2], True), statement("dev-2-0-1", KEYS[0], True)],
            "choices": [choice("val-1", 0, 0), choice("val-2", 3, 1)],
            "expressions": [{"text": "the dog", "index": 0, "id": 13}],
        },
        {},
    ]
    captions = [("a dog sits", "a brown dog on grass"), ("a cat sleeps", "a sleeping cat"), ("two birds", "birds fly")]
    for key, texts, extra in zip(KEYS, captions, extras, strict=True):
        seen = regions if extra else ()
        yield Record(key=key, image=png(), captions=texts, regions=seen, split="val", extra=extra)
    hidden = {
        "questions": [question(990, "where?")],
        "pairs": [statement("test1-5-0-0", "COCO_test_000000000099")],
        "choices": [choice("test-0")],
    }
    yield Record(key="COCO_test_000000000099", image=png(), split="test", extra=hidden)


def write_data(folder):
    with ShardWriter(folder) as writer:
        for record in records():
            writer.write(record, "png", 8, 8)
    return folder


VQA = [
    {"question_id": 70, "answer": "Two."},  # eight of ten votes: 1
    {"question_id": 71, "answer": "Yes"},  # all ten say "yes", letter by letter: 0
    {"question_id": 420, "answer": "the red"},  # two of ten: 0.6
]
NLVR2 = {"dev-1-0-0": True, "dev-1-1-0": True, "dev-1-2-0": True, "dev-2-0-1": True}  # the second is wrong
CAPTIONS = [
    {"image_id": 7, "caption": "A dog sits."},
    {"image_id": 42, "caption": "a dog sits"},
    {"image_id": 391895, "caption": "two birds fly"},
]
LABELS = {"val-0": (1, 2), "val-1": (0, 0), "val-2": (3, 1)}
PICKED = {"val-0": (1, 2), "val-1": (0, 3), "val-2": (2, 1)}  # answers 2 of 3, rationales 2 of 3, both 1 of 3


def scores(choice):
    return [2.0 if place == choice else -1.0 for place in range(4)]


def vcr_lines():
    """Ours, with the truth."""
    for name, (answer, rationale) in PICKED.items():
        said = {"task": "vcr", "split": "val", "key": KEYS[name != "val-0"], "id": name, "number": int(name == "val-2")}
        yield {**said, "kind": "answer", "scores": scores(answer), "answer": answer, "label": LABELS[name][0]}
        given = {"given": LABELS[name][0], "label": LABELS[name][1]}
        yield {**said, "kind": "rationale", "scores": scores(rationale), "answer": rationale, **given}


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def write_json(path, values):
    path.write_text(json.dumps(values, indent=1), encoding="utf-8")
    return path
