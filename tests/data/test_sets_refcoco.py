"""RefCOCO/+/g in small: the three pickles with `instances.json`, one of each mistake, and hostile pickles."""

import json
import os
import pickle

import numpy as np
import pytest
from layouts import found, put, reasons
from test_plain_pickle import python_2

from crossgrain.config import UserError
from crossgrain.data.prepare import prepare
from crossgrain.data.shards import Shards

PEOPLE = {"id": 1, "name": "person", "supercategory": "person"}
DOG = {"id": 18, "name": "dog", "supercategory": "animal"}


def name(number):
    return f"COCO_train2014_{number:012d}.jpg"


def reference(ref, annotation, image, split, *texts, **more):
    """A reference; the number of its sentences is ten times its own, and on."""
    sentences = [
        {"tokens": text.split(), "raw": text.title(), "sent_id": 10 * ref + place, "sent": text}
        for place, text in enumerate(texts)
    ]
    return {
        "sent_ids": [one["sent_id"] for one in sentences],
        "file_name": f"COCO_train2014_{image:012d}_{ref}.jpg",
        "ann_id": annotation,
        "ref_id": ref,
        "image_id": image,
        "split": split,
        "sentences": sentences,
        "category_id": 1,
        **more,
    }


def annotation(number, image, box, category=1, crowd=0):
    return {
        "id": number,
        "image_id": image,
        "bbox": box,
        "category_id": category,
        "iscrowd": crowd,
        "segmentation": [[1, 2, 3]],
        "area": 10.0,
    }


BOXES = [
    annotation(101, 1, [4, 2, 20, 10]),
    annotation(102, 1, [0, 0, 40, 20], 18),
    annotation(201, 2, [10, 0, 10, 5]),
    annotation(301, 3, [0, 0, 20, 20]),
    annotation(401, 4, [0, 0, 10, 10]),
    annotation(999, 99, [0, 0, 10, 10]),  # of an image that nobody speaks of
]
REFS = [
    reference(1, 101, 1, "train", "the lady on the left", "woman"),
    reference(2, 201, 2, "val", "tall one"),
    reference(3, 301, 3, "testA", "man in blue"),
    reference(4, 401, 4, "testB", "the bowl"),
    reference(5, 102, 1, "train", "black dog"),
]


def layout(root, refs=REFS, boxes=BOXES, *, partition="unc", pictures=(1, 2, 3, 4), data=None):
    folder = root / "refcoco+"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"refs({partition}).p").write_bytes(pickle.dumps(refs, 2) if data is None else data)
    images = [{"id": n, "file_name": name(n), "width": 40, "height": 20} for n in (1, 2, 3, 4, 99)]
    tree = {"annotations": boxes, "categories": [PEOPLE, DOG], "images": images, "info": {}}
    (folder / "instances.json").write_text(json.dumps(tree))
    put(root / "images/mscoco/images/train2014", *(name(n) for n in pictures))
    return folder


def test_expressions_name_one_of_all_annotations_of_their_image(tmp_path):
    records, drops = found("refcoco+", layout(tmp_path), split_by="unc")
    assert drops == []
    first = records["COCO_train2014_000000000001"]
    assert [(region.label, region.box) for region in first.regions] == [
        ("person", (0.1, 0.1, 0.6, 0.6)),
        ("dog", (0.0, 0.0, 1.0, 1.0)),
    ]
    assert first.extra == {
        "source": "refs(unc).p ref_id 1 sent_id 10",
        "expressions": [
            {"text": "the lady on the left", "index": 0, "id": 10, "ref": 1},
            {"text": "woman", "index": 0, "id": 11, "ref": 1},
            {"text": "black dog", "index": 1, "id": 50, "ref": 5},
        ],
    }
    assert [record.split for record in records.values()] == ["train", "val", "testA", "testB"]
    assert list(found("refcoco", tmp_path / "refcoco+", split="testA")[0]) == ["COCO_train2014_000000000003"]


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_is_read_and_what_python_2_wrote(tmp_path, protocol):
    told = json.loads(json.dumps(REFS))
    records, _ = found("refcoco", layout(tmp_path, data=pickle.dumps(told, protocol)))
    old, drops = found("refcoco", layout(tmp_path / "old", data=python_2(_with_bytes(told)) + b"."))
    assert drops == []
    assert {key: record.extra for key, record in records.items()} == {key: record.extra for key, record in old.items()}
    assert len(old) == 4


def _with_bytes(value):
    """The value with byte strings, as Python 2 has them."""
    if isinstance(value, dict):
        return {key.encode(): _with_bytes(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_with_bytes(one) for one in value]
    return value.encode() if isinstance(value, str) else value


def test_googles_partition_gives_one_record_a_split(tmp_path):
    refs = [
        reference(1, 101, 1, "train", "woman"),
        reference(2, 102, 1, "val", "dog"),
        reference(3, 201, 2, "val", "x"),
    ]
    folder = layout(tmp_path, refs, partition="google")
    records, drops = found("refcocog", folder, split_by="google")
    assert drops == []
    assert {
        key: (record.split, [e["text"] for e in record.extra["expressions"]]) for key, record in records.items()
    } == {
        "COCO_train2014_000000000001": ("train", ["woman"]),
        "COCO_train2014_000000000001_val": ("val", ["dog"]),
        "COCO_train2014_000000000002": ("val", ["x"]),
    }
    assert len(records["COCO_train2014_000000000001_val"].regions) == 2
    keys = list(found("refcocog", folder, split_by="google", split="val")[0])
    assert keys == ["COCO_train2014_000000000001_val", "COCO_train2014_000000000002"]


def test_mistakes_are_named_with_their_reference_and_the_rest_is_read(tmp_path):
    refs = [
        *REFS[:2],
        "no reference",
        {**REFS[2], "ann_id": "301"},
        {**REFS[2], "ref_id": None},
        {**REFS[2], "split": "../x"},
        {**REFS[2], "sentences": {}},
        reference(1, 101, 1, "train", "again"),
        reference(6, 777, 1, "train", "nobody knows which"),
        reference(7, 103, 1, "train", "its box is broken"),
        reference(8, 301, 3, "testA", "man", " ", "boy"),
        reference(9, 401, 4, "testB", "its picture is gone"),
        reference(10, 999, 98, "val", "no such image"),
        reference(11, 777, 2, "train", "nothing to say of this split"),
    ]
    refs[10]["sentences"][2]["sent"] = 5
    boxes = [
        *BOXES,
        annotation(103, 1, [30, 0, 20, 5]),
        annotation(104, 1, [0, 0, 40, 20], crowd=1),
        annotation(101, 1, [0, 0, 9, 9]),
        annotation(105, 1, [0, 0, 9, 9], category=50),
        {"image_id": 1, "bbox": [0, 0, 1, 1]},
    ]
    records, drops = found("refcoco", layout(tmp_path, refs, boxes, pictures=(1, 2, 3)))
    told = {key: [one["text"] for one in record.extra["expressions"]] for key, record in records.items()}
    assert list(told.values()) == [["the lady on the left", "woman"], ["tall one"], ["man"]]
    assert [region.label for region in next(iter(records.values())).regions] == ["person", "dog"]
    assert {(drop.where, drop.reason) for drop in drops} == {
        ("refs(unc).p [2]", "malformed entry"),
        ("refs(unc).p ref_id 3", "malformed entry"),
        ("refs(unc).p [4]", "malformed entry"),
        ("refs(unc).p ref_id 3", "malformed split"),
        ("refs(unc).p ref_id 1", "duplicate key"),
        ("refs(unc).p ref_id 8 sent_id 81", "empty expression"),
        ("refs(unc).p ref_id 8 sent_id 82", "malformed expression"),
        ("refs(unc).p ref_id 6 sent_id 60", "expression without a region"),
        ("refs(unc).p ref_id 7 sent_id 70", "expression without a region"),
        ("refs(unc).p ref_id 11 sent_id 110", "expression without a region"),
        ("refs(unc).p ref_id 9 sent_id 90", "image missing"),
        ("refs(unc).p ref_id 10 sent_id 100", "unknown image id"),
        ("instances.json:1 annotations[6]", "region: box outside the image"),
        ("instances.json:1 annotations[7]", "region: crowd"),
        ("instances.json:1 annotations[8]", "region: second annotation of an id"),
        ("instances.json:1 annotations[9]", "region: empty text"),
        ("instances.json:1 annotations[10]", "malformed entry"),
    }
    assert reasons(drops)["malformed entry"] == 5


def test_a_crowd_that_an_expression_means_stays(tmp_path):
    boxes = [annotation(101, 1, [4, 2, 20, 10], crowd=1), *BOXES[1:]]
    records, drops = found("refcoco", layout(tmp_path, boxes=boxes))
    assert drops == [] and len(records["COCO_train2014_000000000001"].regions) == 2


def test_image_names_do_not_lead_out_of_the_folder(tmp_path):
    folder = layout(tmp_path, pictures=())
    put(tmp_path, "outside.jpg")
    text = (folder / "instances.json").read_text()
    (folder / "instances.json").write_text(text.replace(name(1), "../../../../outside.jpg"))
    records, drops = found("refcoco", folder)
    assert not records and reasons(drops) == {"image path leaves its folder": 1, "image missing": 3}


class _Runs:
    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize("value", [_Runs(), np.int64(7), {1, 2}], ids=["os.system", "numpy", "set"])
def test_a_pickle_with_more_than_plain_values_stops_with_one_line(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    folder = layout(tmp_path, [*REFS, {"ref_id": value}])
    message = r"refs\(unc\)\.p, byte \d+: .*; only dict, list, tuple, str, int, float, bool and None are read"
    with pytest.raises(UserError, match=message):
        found("refcoco", folder)
    with pytest.raises(UserError, match=message):
        prepare("refcoco", folder, tmp_path / "out", num_workers=0)
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()


def test_endless_values_are_told_in_few_words(tmp_path):
    endless = {"ref_id": 1}
    endless["sentences"] = endless["split"] = endless
    doubled = []
    for _ in range(60):
        doubled = [doubled, doubled]
    refs = [*REFS, endless, {**reference(9, 101, 1, doubled, "x")}, {**reference(12, 101, 1, "val", "x")}]
    refs[-1]["sentences"][0]["sent"] = doubled
    _, drops = found("refcoco", layout(tmp_path, refs))
    assert reasons(drops) == {"malformed entry": 1, "malformed split": 1, "malformed expression": 1}
    assert all(len(drop.detail) < 120 for drop in drops)


@pytest.mark.parametrize(("refs", "message"), [({"a": 1}, "holds a dict, not a list"), (3, "holds a int, not a list")])
def test_other_pickles_are_told(tmp_path, refs, message):
    with pytest.raises(UserError, match=message):
        found("refcoco", layout(tmp_path, refs))


def test_missing_files_are_named(tmp_path):
    folder = layout(tmp_path)
    with pytest.raises(UserError, match=r"no references: looked for .*refs\(umd\)\.p"):
        found("refcocog", folder, split_by="umd")
    (folder / "instances.json").write_text("[]")
    with pytest.raises(UserError, match="has no annotations, categories, images"):
        found("refcoco", folder)
    (folder / "instances.json").unlink()
    with pytest.raises(UserError, match=r"no annotations: looked for .*instances\.json"):
        found("refcoco", folder)


def test_shards_hold_the_expressions_of_every_split(tmp_path):
    report = prepare("refcoco+", layout(tmp_path), tmp_path / "out", num_workers=0, vocab_size=200)
    assert report.kept_by_split == {"train": 1, "val": 1, "testA": 1, "testB": 1}
    assert any(line.startswith("  testA: 1 of 750 images") for line in report.lines())
    (record,) = Shards(tmp_path / "out", split="testB")
    assert record.extra["expressions"] == [{"text": "the bowl", "index": 0, "id": 40, "ref": 4}]
    assert "lady" in (tmp_path / "out/vocab.txt").read_text().split()
