"""X-VLM's JSON files for fine-tuning, and what fine-tuning needs of COCO and Flickr30k."""

import json
from pathlib import Path

import pytest
from layouts import found, jpeg, put, reasons
from test_sets import coco_files, karpathy_file

from crossgrain.config import UserError
from crossgrain.data import prepare
from crossgrain.data.shards import Shards


def write(file, entries):
    """One entry a line, so that places tell lines; the first stands on line 2."""
    file.write_text("[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]")
    return file.name


def read(root, *names):
    return found("xvlm-finetune", root, files=[Path(name) for name in names])


def test_retrieval_and_captioning_entries_are_merged_by_image(tmp_path):
    put(tmp_path / "images/coco", "val2014/1.jpg", "train2014/2.jpg")
    train = [{"image": "train2014/2.jpg", "caption": f"two {n}", "image_id": "coco_2"} for n in range(5)]
    train += [
        {"image": "train2014/2.jpg", "caption": " ", "image_id": "coco_2"},
        {"image": "../2.jpg", "caption": "x"},
        {"caption": "x"},
        {"image": "train2014/2.jpg"},
        {"image": "train2014/3.jpg", "caption": "x"},
        7,
    ]
    names = (
        write(tmp_path / "coco_karpathy_train.json", train),
        write(
            tmp_path / "coco_karpathy_test.json",
            [{"image": "val2014/1.jpg", "caption": [f"one {n}" for n in range(5)]}],
        ),
    )
    records, drops = read(tmp_path, *names)
    assert {key: (record.split, record.captions) for key, record in records.items()} == {
        "train2014_2": ("train", tuple(f"two {n}" for n in range(5))),
        "val2014_1": ("test", tuple(f"one {n}" for n in range(5))),
    }
    assert {(drop.reason, drop.where) for drop in drops} == {
        ("empty caption", "coco_karpathy_train.json:7 [5]"),
        ("image path leaves its folder", "coco_karpathy_train.json:8 [6]"),
        ("malformed entry", "coco_karpathy_train.json:9 [7]"),
        ("malformed entry", "coco_karpathy_train.json:10 [8]"),
        ("image missing", "coco_karpathy_train.json:11 [9]"),
        ("malformed entry", "coco_karpathy_train.json:12 [10]"),
    }


def test_questions_keep_their_answers_ids_and_data_set(tmp_path):
    put(tmp_path, "coco/train2014/1.jpg", "coco/test2015/2.jpg", "visualgenome/image/3.jpg")
    entry = {"question_id": 1000, "question": "What?", "image": "train2014/1.jpg", "dataset": "vqa"}
    answers = ["net"] * 9 + ["mesh"]
    lost = {**entry, "question_id": 1001}
    names = [
        write(tmp_path / "vqa_train.json", [{**entry, "answer": answers}, lost, {**lost, "answer": []}]),
        write(tmp_path / "vqa_test.json", [{**entry, "question_id": 2000, "image": "test2015/2.jpg"}]),
        write(
            tmp_path / "vg_qa.json", [{"image": "image/3.jpg", "question": "Who?", "answer": "A cat", "dataset": "vg"}]
        ),
    ]
    records, drops = read(tmp_path, *names)
    assert {key: (record.split, record.extra["questions"]) for key, record in records.items()} == {
        "train2014_1": ("train", [{"question": "What?", "answers": answers, "id": 1000}]),
        "test2015_2": ("test", [{"question": "What?", "id": 2000}]),
        "image_3": ("train", [{"question": "Who?", "answers": ["A cat"], "dataset": "vg"}]),
    }
    assert {(drop.reason, drop.where) for drop in drops} == {
        ("no answer", "vqa_train.json:3 [1]"),
        ("no answer", "vqa_train.json:4 [2]"),
    }


def test_nlvr_pairs_name_records_that_are_there(tmp_path):
    put(tmp_path / "images", "dev/a.png", "dev/b.png", "dev/c.png")
    put(tmp_path / "images", "dev/broken.png", data=jpeg(200, 200)[:-200])
    pair = {"images": ["dev/a.png", "dev/b.png"], "sentence": "Both are red.", "label": "True"}
    entries = [
        pair,
        {**pair, "images": ["dev/a.png", "dev/c.png"], "label": "False"},
        {**pair, "label": "maybe"},
        {**pair, "images": ["dev/a.png"]},
        {**pair, "images": ["dev/a.png", "dev/gone.png"]},
        {**pair, "images": ["dev/c.png", "dev/broken.png"]},
        {**pair, "sentence": 3},
    ]
    records, drops = read(tmp_path, write(tmp_path / "nlvr_dev.json", entries))
    assert set(records) == {"dev_a", "dev_b", "dev_c"} and {record.split for record in records.values()} == {"val"}
    assert records["dev_a"].extra["pairs"] == [
        {"partner": "dev_b", "statement": "Both are red.", "label": True},
        {"partner": "dev_c", "statement": "Both are red.", "label": False},
    ]
    assert all("pairs" not in records[key].extra for key in ("dev_b", "dev_c"))
    assert {(drop.reason, drop.where) for drop in drops} == {
        ("malformed label", "nlvr_dev.json:4 [2]"),
        ("malformed entry", "nlvr_dev.json:5 [3]"),
        ("image missing", "nlvr_dev.json:6 [4]"),
        ("partner's image unusable", "nlvr_dev.json:7 [5]"),
        ("truncated", "nlvr_dev.json:7 [5]"),
        ("malformed statement", "nlvr_dev.json:8 [6]"),
    }


def test_refcoco_entries_become_expressions_with_regions_or_captions(tmp_path):
    put(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    entry = {"image": "1.jpg", "text": "the cat", "ref_id": 7, "bbox": [4, 2, 20, 10]}
    entries = [
        entry,
        {**entry, "text": "a dog", "ref_id": 8, "bbox": [0, 0, 40, 20]},
        {**entry, "text": "black cat"},
        {**entry, "bbox": [0, 0, 99, 9]},
        {**entry, "text": ""},
        {"image": "2.jpg", "text": "a pair without its box", "ref_id": 9},
        {**entry, "image": "3.jpg", "bbox": None},
    ]
    records, drops = read(tmp_path, write(tmp_path / "refcoco+_train.json", entries))
    one = records["1"]
    assert one.extra["expressions"] == [
        {"text": "the cat", "index": 0, "id": 7},
        {"text": "a dog", "index": 1, "id": 8},
        {"text": "black cat", "index": 0, "id": 7},
    ]
    assert [region.box for region in one.regions] == [(0.1, 0.1, 0.6, 0.6), (0.0, 0.0, 1.0, 1.0)]
    assert one.regions[0].phrases == ("the cat", "black cat")
    assert records["2"].captions == ("a pair without its box",) and "expressions" not in records["2"].extra
    assert "3" not in records
    assert {(drop.reason, drop.where) for drop in drops} == {
        ("region: box outside the image", "refcoco+_train.json:5 [3]"),
        ("empty expression", "refcoco+_train.json:6 [4]"),
        ("region: malformed box", "refcoco+_train.json:8 [6]"),
        ("no region", "refcoco+_train.json:8 [6]"),
    }


def test_every_kind_of_entry_round_trips_through_shards(tmp_path):
    put(tmp_path / "root", "a.jpg", "b.jpg")
    entries = [
        {"image": "a.jpg", "caption": "a picture"},
        {"image": "a.jpg", "question": "What?", "answer": ["x"], "question_id": 3},
        {"images": ["a.jpg", "b.jpg"], "sentence": "Two pictures.", "label": "True"},
        {"image": "b.jpg", "text": "it", "bbox": [1, 2, 10, 10], "ref_id": 1},
    ]
    root, flags = tmp_path / "root", {"files": [Path("all_train.json")], "images": Path()}
    write(root / "all_train.json", entries)
    report = prepare.prepare("xvlm-finetune", root, tmp_path / "out", flags=flags, num_workers=0, vocab_size=0)
    assert report.counts_by_split == {
        "train": {"images": 2, "captions": 1, "questions": 1, "answers": 1, "pairs": 1, "expressions": 1, "regions": 1}
    }
    records, _ = read(root, "all_train.json")
    kept = {record.key: (record.captions, record.regions, record.extra) for record in Shards(tmp_path / "out")}
    assert kept == {key: (one.captions, one.regions, one.extra) for key, one in records.items()}


def test_the_files_of_a_task_have_to_be_named(tmp_path):
    with pytest.raises(UserError, match="name the files of one task with --files"):
        found("xvlm-finetune", tmp_path)


def test_coco_and_flickr_give_fine_tuning_its_splits_and_all_captions(tmp_path):
    """Karpathy's files: restval is training data, each image keeps its five captions (or more), in their order."""
    coco_files(tmp_path)
    several = [[f"caption {n} of {i}" for n in range(5 + (i == 3))] for i in range(4)]
    karpathy = tmp_path / "k.json"
    entries = [(1, "1.jpg", "restval", several[1]), (2, "2.jpg", "val", several[2]), (3, "3.jpg", "test", several[3])]
    karpathy_file(karpathy, entries)
    records, _ = found("coco", tmp_path, karpathy=karpathy)
    expected = {"1": "train", "2": "val", "3": "test"}
    assert {key: record.split for key, record in records.items()} == expected
    assert all(list(record.captions) == several[int(key)] for key, record in records.items())
    entries = [(0, f"{i}.jpg", split, several[int(i)]) for i, split in expected.items()]
    karpathy_file(karpathy, entries)
    records, drops = found("flickr30k", tmp_path, captions=karpathy)
    assert {key: record.split for key, record in records.items()} == expected and not drops
    assert all(list(record.captions) == several[int(key)] for key, record in records.items())
    report = prepare.prepare(
        "flickr30k", tmp_path, tmp_path / "out", flags={"captions": karpathy}, num_workers=0, vocab_size=0
    )
    assert (
        "  test: 1 of 1,000 images, 6 of 5,000 captions (in Karpathy's split, dataset_flickr30k.json)" in report.lines()
    )
    assert reasons(drops) == {}
