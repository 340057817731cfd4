"""VCR in small: JSON lines with metadata beside the images, and one of each mistake."""

import json

import pytest
from layouts import found, jpeg, put, reasons

from crossgrain.config import UserError
from crossgrain.data.asks import choice_items, choice_text
from crossgrain.data.prepare import prepare
from crossgrain.data.shards import Shards

MOVIE = "lsmdc_3015_CHARLIE_ST_CLOUD"
NAMES = ["person", "person", "car"]
BOXES = [[4.0, 2.0, 24.0, 12.0, 0.99], [0.0, 0.0, 40.0, 20.0, 0.98], [10.0, 0.0, 20.0, 5.0, 0.7]]
QUESTION = ["Why", "is", [1], "pointing", "at", [0, 2], "?"]


def shot(number):
    return f"{MOVIE}/3015_00.23.{number:02d}.935@0.jpg"


def line(split, number, image, *, question=QUESTION, **more):
    """A line of the official files with every field that they have."""
    answers = [[[place % 2], "is", "angry", "."] for place in range(4)]
    labels = {} if split == "test" else {"answer_label": 2, "rationale_label": 0}
    values = {
        "movie": "3015_CHARLIE_ST_CLOUD",
        "objects": NAMES,
        "interesting_scores": [0],
        "img_fn": shot(image),
        "metadata_fn": shot(image).replace(".jpg", ".json"),
        "question": question,
        "answer_choices": answers,
        "rationale_choices": [["Because", "it", "'s", f"rationale{place}"] for place in range(4)],
        "img_id": f"{split}-{image}",
        "question_number": 0,
        "annot_id": f"{split}-{number}",
        "match_fold": f"{split}-0",
        **labels,
    }
    return {**values, **more}


def layout(root, metadata=None, **files):
    """Files of lines by split; images 1 to 4 with their metadata, `metadata` in place of that of some."""
    for split, lines in files.items():
        text = "\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines)
        (root / f"{split}.jsonl").write_text(text + "\n")
    put(root / "vcr1images", *(shot(number) for number in range(1, 5)))
    for number in range(1, 5):
        values = {"boxes": BOXES, "segms": [[[[1, 2], [3, 4]]]] * 3, "names": NAMES, "width": 40, "height": 20}
        values = (metadata or {}).get(number, values)
        text = values if isinstance(values, str) else json.dumps(values)
        (root / "vcr1images" / shot(number).replace(".jpg", ".json")).write_text(text)
    return root


def key(number):
    return shot(number).removesuffix(".jpg").translate({ord(c): "_" for c in "/.@"})


def test_questions_stand_on_their_image_with_its_objects_as_regions(tmp_path):
    lines = [line("train", 0, 1), line("train", 1, 2), line("train", 2, 1, question=["What", "?"])]
    layout(tmp_path, train=lines, val=[line("val", 0, 3)], test=[line("test", 0, 4)])
    records, drops = found("vcr", tmp_path)
    assert drops == []
    assert {name: record.split for name, record in records.items()} == {
        key(1): "train",
        key(2): "train",
        key(3): "val",
        key(4): "test",
    }
    first = records[key(1)]
    assert first.image == jpeg(shade=0) and first.extra["source"] == "train.jsonl:1"
    assert [(region.label, region.box) for region in first.regions] == [
        ("person", (0.1, 0.1, 0.6, 0.6)),
        ("person", (0.0, 0.0, 1.0, 1.0)),
        ("car", (0.25, 0.0, 0.5, 0.25)),
    ]
    assert [item["id"] for item in first.extra["choices"]] == ["train-0", "train-2"]
    assert first.extra["choices"][0] == {
        name: lines[0][name]
        for name in ("question", "answer_choices", "rationale_choices", "answer_label", "rationale_label")
    } | {"id": "train-0"}
    (asked,) = records[key(4)].extra["choices"]
    assert not {"answer_label", "rationale_label"} & set(asked)
    assert list(found("vcr", tmp_path, split="val")[0]) == [key(3)]


def test_the_task_reads_what_the_reader_wrote(tmp_path):
    layout(tmp_path, val=[line("val", 7, 1)])
    record = found("vcr", tmp_path)[0][key(1)]
    answer, rationale = choice_items(record, "both")
    names = [region.label for region in record.regions]
    assert choice_text(answer[2], names) == "Why is person2 pointing at person1 and car3 ?"
    assert (answer[4], rationale[4]) == (2, 0)


def test_an_object_without_a_usable_box_costs_the_questions_that_name_it(tmp_path):
    boxes = [[4.0, 2.0, 4.0, 12.0, 0.9], *BOXES[1:]]
    metadata = {1: {"boxes": boxes, "names": NAMES, "width": 40, "height": 20}}
    plain = [["It", "is", [1, 2], "."]] * 4
    lines = [line("val", 0, 1), line("val", 1, 1, question=["Is", [2], "?"], answer_choices=plain)]
    records, drops = found("vcr", layout(tmp_path, metadata, val=lines))
    assert [region.label for region in records[key(1)].regions] == ["person", "car"]
    (item,) = records[key(1)].extra["choices"]
    assert item["question"] == ["Is", [1], "?"] and item["answer_choices"][0] == ["It", "is", [0, 1], "."]
    assert [(drop.where, drop.reason) for drop in drops] == [
        (f"val.jsonl:1 {shot(1)[:-4]}.json boxes[0]", "region: degenerate box"),
        ("val.jsonl:1", "tag of a dropped object"),
    ]


BROKEN_LINES = {
    "malformed tokens": {"question": ["Why", 3]},
    "malformed tokens ": {"question": []},
    "malformed tokens  ": {"question": "Why?"},
    "malformed tokens   ": {"question": ["Why", [1.0]]},
    "malformed tokens    ": {"question": ["Why", "\ud800"]},
    "tag of no object": {"question": ["Why", [3]]},
    "tag of no object ": {"question": ["Why", [-1]]},
    "not four choices": {"answer_choices": [["a"]] * 3},
    "not four choices ": {"rationale_choices": None},
    "malformed label": {"answer_label": 4},
    "malformed label ": {"answer_label": "2"},
    "malformed label  ": {"answer_label": True},
    "malformed label   ": {"rationale_label": None},
    "objects differ from the metadata": {"objects": ["person", "car", "car"]},
}


def test_broken_questions_are_named_with_their_line_and_the_rest_is_read(tmp_path):
    lines = [line("val", place, 1, **more) for place, more in enumerate(BROKEN_LINES.values())]
    records, drops = found("vcr", layout(tmp_path, val=[*lines, line("val", 99, 1)]))
    assert [item["id"] for item in records[key(1)].extra["choices"]] == ["val-99"]
    expected = [(f"val.jsonl:{place}", rule.strip()) for place, rule in enumerate(BROKEN_LINES, start=1)]
    assert [(drop.where, drop.reason) for drop in drops] == expected


def test_broken_images_and_metadata_cost_their_image(tmp_path):
    wrong = {
        1: "{no JSON",
        2: {"boxes": BOXES[:2], "names": NAMES, "width": 40, "height": 20},
        3: {"boxes": BOXES, "names": NAMES},
    }
    lines = [line("val", number, number) for number in range(1, 5)]
    lines += [line("val", 5, 4, metadata_fn="gone.json"), line("val", 6, 9)]
    lines += [
        "{",
        "[]",
        line("val", 7, 4, img_fn=None),
        line("val", 8, 4, annot_id="../x"),
        line("val", 9, 4, annot_id=3),
    ]
    put(tmp_path, f"{MOVIE}/out.jpg")
    (tmp_path / MOVIE / "out.json").write_text("{}")
    lines += [line("val", 10, 4, img_fn=f"../{MOVIE}/out.jpg")]
    put(tmp_path / "vcr1images", "a.jpg", "b.jpg", "c.jpg")
    lines += [line("val", 11, 4, img_fn="a.jpg", metadata_fn=f"../{MOVIE}/out.json")]
    lines += [line("val", 12, 4, img_fn="b.jpg", metadata_fn="gone.json")]
    lines += [line("val", 13, 4, img_fn="c.jpg", metadata_fn=7)]
    records, drops = found("vcr", layout(tmp_path, wrong, val=lines))
    assert list(records) == [key(4)]
    assert {(drop.where, drop.reason) for drop in drops} == {
        ("val.jsonl:1", "malformed metadata"),
        ("val.jsonl:2", "malformed metadata"),
        ("val.jsonl:3", "malformed metadata"),
        ("val.jsonl:6", "image missing"),
        ("val.jsonl:7", "malformed line"),
        ("val.jsonl:8", "malformed line"),
        ("val.jsonl:9", "malformed line"),
        ("val.jsonl:10", "malformed line"),
        ("val.jsonl:11", "malformed line"),
        ("val.jsonl:12", "image path leaves its folder"),
        ("val.jsonl:13", "metadata path leaves its folder"),
        ("val.jsonl:14", "metadata missing"),
        ("val.jsonl:15", "malformed metadata name"),
    }


@pytest.mark.parametrize(
    "metadata", [{}, {"boxes": "x", "names": NAMES, "width": 40, "height": 20}, "[" * 100_000, "7", "NaN", ""]
)
def test_strange_metadata_is_counted(tmp_path, metadata):
    records, drops = found("vcr", layout(tmp_path, {1: metadata}, val=[line("val", 0, 1), line("val", 1, 2)]))
    assert list(records) == [key(2)] and reasons(drops) == {"malformed metadata": 1}


def test_strange_boxes_cost_their_object(tmp_path):
    boxes = [None, [1, 2], ["a", 1, 2, 3, 4]]
    metadata = {1: {"boxes": boxes, "names": NAMES, "width": 40, "height": 20}}
    asked = line("val", 0, 1, question=["Why", "?"], answer_choices=[["a"]] * 4)
    records, drops = found("vcr", layout(tmp_path, metadata, val=[asked]))
    assert records[key(1)].regions == () and reasons(drops) == {"region: malformed box": 3}


def test_missing_questions_are_named(tmp_path):
    put(tmp_path / "vcr1images", "a.jpg")
    with pytest.raises(UserError, match=r"no questions: looked for .*train\.jsonl.*val\.jsonl.*test\.jsonl"):
        found("vcr", tmp_path)


def test_shards_hold_the_choices(tmp_path):
    layout(tmp_path, val=[line("val", 0, 1), line("val", 1, 1), line("val", 2, 2)])
    report = prepare("vcr", tmp_path, tmp_path / "out", num_workers=2, vocab_size=0)
    assert "  val: 2 of 9,929 images, 3 of 26,534 choices" in report.lines()[2]
    first, _ = Shards(tmp_path / "out", split="val")
    assert [item["id"] for item in first.extra["choices"]] == ["val-0", "val-1"] and len(first.regions) == 3
