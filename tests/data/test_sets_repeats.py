"""What annotations name twice, in two ways, or not at all: nothing is mixed up, and nothing goes uncounted."""

import json
import tarfile
from pathlib import Path

import pytest
from layouts import found, jpeg, put, reasons
from test_sets import crc, tar_of

from crossgrain.data.prepare import prepare


def captions_of(records):
    return {key: record.captions for key, record in records.items()}


def test_a_blank_split_is_none(tmp_path):
    put(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "captions.csv").write_text("image,caption,split\na.jpg,one,val\nb.jpg,two, \n")
    records, drops = found("folder", tmp_path)
    assert {key: record.split for key, record in records.items()} == {"a": "val", "b": "train"} and not drops


def test_one_image_under_two_spellings_is_one_record(tmp_path):
    put(tmp_path, "deep/b.jpg")
    (tmp_path / "captions.csv").write_text("image,caption\n./deep/b.jpg,one\ndeep/b.jpg,two\ndeep//b.jpg,three\n")
    assert captions_of(found("folder", tmp_path)[0]) == {"deep_b": ("one", "two", "three")}


EMPTY_LISTS = {
    "folder": ("captions.jsonl", '{"image": "a.jpg", "caption": []}\n{"image": "b.jpg", "caption": ["one"]}'),
    "flickr8k": (
        "dataset_flickr8k.json",
        '{"images": [{"filename": "a.jpg", "split": "train", "sentences": []},'
        '{"filename": "b.jpg", "split": "train", "sentences": [{"raw": "one"}]}]}',
    ),
    "xvlm-finetune": (
        "coco_train.json",
        '[{"image": "a.jpg", "caption": []}, {"image": "b.jpg", "caption": ["one"]}]',
    ),
}


@pytest.mark.parametrize("source", EMPTY_LISTS)
def test_an_empty_list_of_captions_is_counted(tmp_path, source):
    put(tmp_path / "images", "a.jpg", "b.jpg")
    name, text = EMPTY_LISTS[source]
    (tmp_path / name).write_text(text)
    records, drops = found(source, tmp_path, **({"files": [Path(name)]} if source == "xvlm-finetune" else {}))
    assert captions_of(records) == {"b": ("one",)}
    assert reasons(drops) == {"no caption": 1} and drops[0].where.startswith(name)


def test_an_identifier_that_is_no_number_costs_its_attributes_alone(tmp_path):
    put(tmp_path, "VG_100K/1.jpg")
    (tmp_path / "image_data.json").write_text(json.dumps([{"image_id": 1, "width": 40, "height": 20, "url": "x"}]))
    cat = {"object_id": 5, "x": 0, "y": 0, "w": 20, "h": 20, "names": ["cat"]}
    objects = [cat, {**cat, "object_id": [1], "names": ["dog"]}]
    (tmp_path / "objects.json").write_text(json.dumps([{"image_id": 1, "objects": objects}]))
    attributes = [{"object_id": [1], "attributes": ["red"]}, {"object_id": 5, "attributes": ["black"]}]
    (tmp_path / "attributes.json").write_text(json.dumps([{"image_id": 1, "attributes": attributes}]))
    records, drops = found("visual-genome", tmp_path)
    assert [region.texts() for region in records["1"].regions] == [("black cat",), ("dog",)] and not drops


def test_keys_that_begin_anew_in_each_tar_get_its_name(tmp_path):
    for tar in ("00000", "00001", "more/00001"):
        (tmp_path / tar).parent.mkdir(exist_ok=True)
        tar_of(tmp_path / f"{tar}.tar", {"0.jpg": jpeg(), "0.txt": f"of {tar}".encode()})
    tar_of(tmp_path / "00002.tar", {"a/1.jpg": jpeg(), "a/1.txt": b"one", "a_1.jpg": jpeg(), "a_1.txt": b"two"})
    records, drops = found("webdataset", tmp_path)
    assert not drops
    assert captions_of(records) == {
        "0": ("of 00000",),
        "0_00001_tar": ("of 00001",),
        "0_more_00001_tar": ("of more/00001",),
        "a_1": ("one",),
        "a_1_00002_tar": ("two",),
    }


def test_shards_of_ours_are_read_as_tars(tmp_path):
    put(tmp_path / "in", "a.jpg", "b.jpg")
    (tmp_path / "in/captions.csv").write_text("image,caption\na.jpg,one\na.jpg,two\nb.jpg,three\n")
    prepare("folder", tmp_path / "in", tmp_path / "out", num_workers=0, vocab_size=0)
    records, drops = found("webdataset", tmp_path / "out")
    assert captions_of(records) == {"a": ("one", "two"), "b": ("three",)} and not drops


def test_a_tar_whose_name_looks_like_a_pattern_is_read(tmp_path):
    tar_of(tmp_path / "data[1].tar", {"a.jpg": jpeg(), "a.txt": b"one"})
    assert tarfile.is_tarfile(tmp_path / "data[1].tar")
    assert captions_of(found("webdataset", tmp_path / "data[1].tar")[0]) == {"a": ("one",)}


def test_two_tables_of_one_split_keep_their_rows_apart(tmp_path):
    urls = {name: f"http://x.org/{name}.jpg" for name in ("train_a", "train_b")}
    for name, url in urls.items():
        (tmp_path / f"{name}.tsv").write_text(f"of {name}\t{url}\n{name} again\t{url}?gone\n")
    put(tmp_path / "training", *map(crc, urls.values()), "00000001.jpg")
    records, drops = found("conceptual-captions", tmp_path)
    assert {key: (r.captions, r.split) for key, r in records.items()} == {
        "train_a_00000000": (("of train_a",), "train"),
        "train_b_00000000": (("of train_b",), "train"),
    }
    assert reasons(drops) == {"image missing": 2}  # row 1 of which of them is 00000001.jpg?
