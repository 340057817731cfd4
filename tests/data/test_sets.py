"""Every layout of pictures in small, with one of each mistake that it can hold."""

import hashlib
import io
import json
import os
import tarfile
import zlib
from base64 import b64encode
from pathlib import Path

import pytest
from layouts import found, jpeg, put, reasons
from PIL import Image

from crossgrain.config import UserError
from crossgrain.data.sets import DATASETS


def test_a_folder_gives_images_with_all_their_captions_and_counts_every_mistake(tmp_path):
    put(tmp_path / "root", "a.jpg", "deep/b.jpg", "broken.jpg", "images/c.jpg")
    put(tmp_path, "outside.jpg")
    (tmp_path / "root/broken.jpg").write_bytes(jpeg(200, 200)[:-200])
    (tmp_path / "root/link.jpg").symlink_to(tmp_path / "outside.jpg")
    os.mkfifo(tmp_path / "root/pipe.jpg")
    rows = [
        "a.jpg,one",
        "deep/b.jpg,two",
        "a.jpg,three",
        "c.jpg,four",
        "broken.jpg,x",
        "gone.jpg,x",
        "../outside.jpg,x",
    ]
    rows += ["link.jpg,x", f"{tmp_path}/outside.jpg,x", "a.jpg, ", "a.jpg,x,y", "pipe.jpg,x", f"{'n' * 400}.jpg,x"]
    (tmp_path / "root/captions.csv").write_text("\n".join(["image,caption", *rows]))
    records, drops = found("folder", tmp_path / "root")
    assert {key: record.captions for key, record in records.items()} == {
        "a": ("one", "three"),
        "deep_b": ("two",),
        "c": ("four",),
    }
    assert records["deep_b"].extra["source"] == "captions.csv:3"
    assert reasons(drops) == {
        "truncated": 1,
        "image missing": 3,
        "image path leaves its folder": 3,
        "empty caption": 1,
        "malformed line": 1,
    }
    assert {drop.where for drop in drops if drop.reason in ("truncated", "empty caption")} == {
        "captions.csv:6",
        "captions.csv:11",
    }


@pytest.mark.parametrize("name", ["captions.tsv", "captions.jsonl"])
def test_a_folder_may_name_its_splits(tmp_path, name):
    put(tmp_path, "a.jpg", "b.jpg")
    rows = [("a.jpg", "one", "train"), ("b.jpg", "two", "val"), ("b.jpg", "bad", "../x")]
    if name.endswith("tsv"):
        text = "\n".join("\t".join(row) for row in [("image", "caption", "split"), *rows])
    else:
        text = "\n".join(json.dumps({"image": i, "caption": [c], "split": s}) for i, c, s in rows)
    (tmp_path / name).write_text(text)
    records, drops = found("folder", tmp_path)
    assert {key: record.split for key, record in records.items()} == {"a": "train", "b": "val"}
    assert reasons(drops) == {"malformed split": 1}
    assert list(found("folder", tmp_path, split="val")[0]) == ["b"]


@pytest.mark.parametrize("source", [name for name, source in DATASETS.items() if source.has_root])
def test_missing_annotations_are_named_with_the_paths_looked_for(tmp_path, source):
    put(tmp_path, "images/a.jpg")
    gone = tmp_path / "gone"
    needed = {flag.name: [gone] if flag.many else gone for flag in DATASETS[source].flags if flag.required}
    if "format" in needed:
        needed["format"] = "lxmert"
    with pytest.raises(UserError, match=f"looked for {tmp_path}"):
        found(source, tmp_path, **needed)


def coco_files(root):
    put(root / "images", "1.jpg", "2.jpg", "3.jpg")
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 40, "height": 20} for i in (1, 2, 3, 4, 1)]
    captions = [
        {"image_id": i, "caption": c} for i, c in ((1, "one"), (1, "uno"), (2, "two"), (9, "x"), (2, " "), (4, "x"))
    ]
    boxes = [(1, 7, [4, 2, 20, 10], 0), (1, 8, [0, 0, 40, 20], 1), (2, 7, [30, 0, 20, 5], 0), (2, 7, [1, 1, 0, 5], 0)]
    annotations = [{"image_id": i, "category_id": c, "bbox": b, "iscrowd": w} for i, c, b, w in boxes]
    # "annotations" before "images", as sorted keys would have it
    (root / "captions.json").write_text(json.dumps({"annotations": captions, "images": images}))
    categories = [{"id": 7, "name": "cat"}, {"id": 8, "name": "dog"}]
    tree = {"annotations": annotations, "categories": categories, "images": images[:4]}
    (root / "instances.json").write_text(json.dumps(tree, indent=0))


def test_coco_joins_captions_and_boxes(tmp_path):
    coco_files(tmp_path)
    records, drops = found("coco", tmp_path, captions=[Path("captions.json")], instances=[Path("instances.json")])
    assert {key: record.captions for key, record in records.items()} == {"1": ("one", "uno"), "2": ("two",)}
    (region,) = records["1"].regions
    assert (region.box, region.label) == ((0.1, 0.1, 0.6, 0.6), "cat")
    assert reasons(drops) == {
        "duplicate key": 1,
        "unknown image id": 1,
        "empty caption": 1,
        "image missing": 1,
        "no caption": 1,
        "region: crowd": 1,
        "region: box outside the image": 1,
        "region: degenerate box": 1,
    }
    assert "captions.json:1 annotations[3]" in {drop.where for drop in drops}


def karpathy_file(file, entries):
    images = [
        {"filename": n, "split": s, "cocoid": i, "sentences": [{"raw": c} for c in cs]} for i, n, s, cs in entries
    ]
    file.write_text(json.dumps({"images": images, "dataset": "x"}))


def test_karpathys_file_gives_coco_its_splits_and_captions(tmp_path):
    coco_files(tmp_path)
    karpathy_file(tmp_path / "dataset_coco.json", [(1, "1.jpg", "restval", ["a"]), (2, "2.jpg", "test", ["b", "c"])])
    karpathy = tmp_path / "dataset_coco.json"
    records, _ = found("coco", tmp_path, karpathy=karpathy)
    assert {key: (r.split, r.captions) for key, r in records.items()} == {
        "1": ("train", ("a",)),
        "2": ("test", ("b", "c")),
    }
    records, drops = found("coco", tmp_path, karpathy=karpathy, captions=[Path("captions.json")], split="test")
    assert {key: r.captions for key, r in records.items()} == {"2": ("two",)}
    assert reasons(drops)["image in no official split"] == 2


FLICKR = {
    "Flickr8k.token.txt": "a.jpg#0\tone\na.jpg#1\ttwo\nb.jpg#0\tthree\nnonsense\n",
    "results.csv": "image_name| comment_number| comment\na.jpg| 0| one\na.jpg| 1| two\nb.jpg| 0| three\nnonsense\n",
    "captions.txt": "image,caption\na.jpg,one\na.jpg,two\nb.jpg,three\nnonsense\n",
}


@pytest.mark.parametrize("name", FLICKR)
def test_flickr_reads_every_form_of_its_captions(tmp_path, name):
    put(tmp_path / "Images", "a.jpg", "b.jpg")
    (tmp_path / name).write_text(FLICKR[name])
    records, drops = found("flickr8k", tmp_path)
    assert {key: record.captions for key, record in records.items()} == {"a": ("one", "two"), "b": ("three",)}
    assert [(drop.reason, drop.where.split(":")[0]) for drop in drops] == [("malformed line", name)]


def test_flickr_splits_come_from_karpathy_or_from_the_official_lists(tmp_path):
    put(tmp_path / "images", "a.jpg", "b.jpg")
    karpathy_file(tmp_path / "k.json", [(0, "a.jpg", "train", ["one"]), (0, "b.jpg", "val", ["two", " "])])
    records, drops = found("flickr30k", tmp_path, captions=Path("k.json"))
    assert {key: record.split for key, record in records.items()} == {"a": "train", "b": "val"}
    assert reasons(drops) == {"empty caption": 1}
    (tmp_path / "Flickr8k.token.txt").write_text("a.jpg#0\tone\nb.jpg#0\ttwo\n")
    for part, names in {"train": "b.jpg\n", "dev": "", "test": "a.jpg\n"}.items():
        (tmp_path / f"Flickr_8k.{part}Images.txt").write_text(names)
    assert {key: record.split for key, record in found("flickr8k", tmp_path)[0].items()} == {"a": "test", "b": "train"}


def test_visual_genome_joins_regions_objects_and_attributes(tmp_path):
    put(tmp_path, "VG_100K/1.jpg", "VG_100K_2/2.jpg")
    sizes = [
        {"image_id": i, "width": 40, "height": 20, "url": f"https://x/rak248/{f}/{i}.jpg"}
        for i, f in ((1, "VG_100K"), (2, "VG_100K_2"), (3, "VG_100K"))
    ]
    (tmp_path / "image_data.json").write_text(json.dumps(sizes))
    phrases = [
        {"x": 4, "y": 2, "width": 20, "height": 10, "phrase": "a bär"},
        {"x": 0, "y": 0, "width": 90, "height": 1, "phrase": "x"},
    ]
    regions = [
        {"id": 1, "regions": phrases},
        {"id": 2, "regions": phrases[1:]},
        {"id": 9, "regions": []},
        {"id": 3, "regions": phrases},
        5,
    ]
    (tmp_path / "region_descriptions.json").write_text(json.dumps(regions, ensure_ascii=False))
    cat = {"object_id": 5, "x": 0, "y": 0, "w": 20, "h": 20, "names": ["cat", "animal"]}
    (tmp_path / "objects.json").write_text(json.dumps([{"image_id": 1, "objects": [cat, {**cat, "names": []}]}]))
    attributes = [{"image_id": 1, "attributes": [{**cat, "attributes": ["black", "small"]}]}]
    (tmp_path / "attributes.json").write_text(json.dumps(attributes))
    records, drops = found("visual-genome", tmp_path)
    assert list(records) == ["1"]
    assert {region.texts(): region.box for region in records["1"].regions} == {
        ("a bär",): (0.1, 0.1, 0.6, 0.6),
        ("black small cat",): (0.0, 0.0, 0.5, 1.0),
    }
    assert reasons(drops) == {
        "region: box outside the image": 2,
        "region: empty text": 1,
        "no region": 1,
        "image missing": 1,
        "unknown image id": 1,
        "malformed entry": 1,
    }
    assert "region_descriptions.json:1 [0] regions[1]" in {drop.where for drop in drops}


def test_xvlm_lines_give_captions_regions_and_attributes(tmp_path):
    put(tmp_path, "a.jpg", "b.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    put(tmp_path, "turned.jpg", data=jpeg(exif=turned.tobytes()))
    elements = [
        {"bb": [4, 2, 20, 10], "caption": ["cat", "kitten"], "attributes": ["black", "big"]},
        {"bb": [0, 0, 99, 9], "caption": "x"},
    ]
    lines = [
        {"image": "a.jpg", "caption": ["one", "two"]},
        {"image": "a.jpg", "elems": elements},
        {"binary": b64encode(jpeg()).decode(), "caption": "three"},
        {"image": b64encode(jpeg(shade=9)).decode(), "caption": "four"},
        {"binary": "%%%", "caption": "x"},
        {"image": "b.jpg", "caption": []},
        {"image": "../b.jpg", "caption": "x"},
        {"caption": "x"},
        {"image": "turned.jpg", "caption": "five", "elems": [{"bb": [0, 0, 9, 9], "caption": "x"}]},
    ]
    (tmp_path / "lines.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    records, drops = found("xvlm", tmp_path)
    assert [record.captions for record in records.values()] == [("one", "two"), (), ("three",), ("four",), ("five",)]
    (region,) = records["a_lines_jsonl_2"].regions
    assert region.texts() == ("black cat", "big cat", "black kitten", "big kitten")
    assert region.box == (0.1, 0.1, 0.6, 0.6)
    assert reasons(drops) == {
        "region: box outside the image": 1,
        "region: image with an EXIF rotation": 1,
        "malformed base64": 1,
        "empty caption": 1,
        "image path leaves its folder": 1,
        "malformed line": 1,
    }


def tar_of(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_webdataset_tars_are_read_sample_by_sample(tmp_path):
    tar_of(
        tmp_path / "00000.tar",
        {
            "000.jpg": jpeg(),
            "000.json": b'{"url": "u", "caption": "y"}',
            "000.txt": b"one",
            "001.jpg": jpeg(shade=1),
            "001.json": b'{"caption": "two"}',
        },
    )
    tar_of(
        tmp_path / "00001.tar",
        {
            "002.txt": b"x",
            "003.jpg": b"no image",
            "003.txt": b"x",
            "004.jpg": jpeg(),
            "004.txt": b" ",
            "005.jpg": jpeg(),
            "005.json": b"{",
        },
    )
    whole = (tmp_path / "00000.tar").read_bytes()
    (tmp_path / "00002.tar").write_bytes(whole[:600])
    (tmp_path / "00003.tar").write_bytes(b"nonsense" * 200)
    records, drops = found("webdataset", tmp_path)
    assert {key: (r.captions, r.extra.get("url")) for key, r in records.items()} == {
        "000": (("one",), "u"),
        "001": (("two",), None),
    }
    assert records["000"].image == jpeg()
    assert reasons(drops) == {
        "broken tar": 2,
        "broken tar member": 1,
        "image missing": 1,
        "not an image": 1,
        "empty caption": 1,
        "malformed line": 1,
    }
    assert list(found("webdataset", tmp_path / "*0.tar")[0]) == ["000", "001"]


@pytest.mark.parametrize(
    "name", ['"\\ud800.jpg"', '"a\\u0000.jpg"', "7", "null", '""', '"/dev/zero"', '"' + "../" * 2000 + '"']
)
def test_hostile_image_names_are_dropped(tmp_path, name):
    put(tmp_path, "a.jpg")
    line = '{"image": NAME, "caption": "x"}\n'
    (tmp_path / "captions.jsonl").write_text(line.replace("NAME", name) + line.replace("NAME", '"a.jpg"'))
    for source in ("folder", "xvlm"):
        records, drops = found(source, tmp_path)
        assert list(records) == ["a"]
        assert [drop.where for drop in drops] == ["captions.jsonl:1"]


URLS = [f"http://x.org/{i}/photo.jpg?size=1" for i in range(4)]
TSV = "".join(f"caption {i}\t{url}\n" for i, url in enumerate(URLS))


def crc(url):
    return str(zlib.crc32(url.encode()))


NAMES = {
    "crc": [crc(url) for url in URLS],
    "row and crc": [f"{i}_{crc(url)}.jpg" for i, url in enumerate(URLS)],
    "eight digits": [f"{i:08d}.jpg" for i in range(4)],
    "img2dataset": [f"00000/{i:09d}.png" for i in range(4)],
    "number": [f"{i}.webp" for i in range(4)],
    "md5": [hashlib.md5(url.encode()).hexdigest() + ".jpeg" for url in URLS],
}


@pytest.mark.parametrize("rule", NAMES)
@pytest.mark.parametrize("folder", ["training", "images", "."])
def test_conceptual_captions_finds_images_as_downloaders_name_them(tmp_path, rule, folder):
    put(tmp_path / folder, *NAMES[rule][:3])
    (tmp_path / "Train_GCC-training.tsv").write_text(TSV + "no url\n \thttp://x\n")
    records, drops = found("conceptual-captions", tmp_path)
    assert {key: (r.captions, r.split, r.image) for key, r in records.items()} == {
        f"train_0000000{i}": ((f"caption {i}",), "train", jpeg(shade=i)) for i in range(3)
    }
    assert records["train_00000001"].extra == {"source": "Train_GCC-training.tsv:2", "url": URLS[1]}
    assert reasons(drops) == {"image missing": 1, "malformed line": 1, "empty caption": 1}


def test_row_numbers_mean_nothing_where_two_tables_share_a_folder(tmp_path):
    (tmp_path / "Train_GCC-training.tsv").write_text(f"caption\turl\n{TSV}")
    (tmp_path / "Validation_GCC-1.1.0-Validation.tsv").write_text(TSV.replace("x.org", "y.org"))
    put(tmp_path / "images", "00000000.jpg")
    put(tmp_path / "val_image", "00000001.jpg")
    put(tmp_path / "images", crc(URLS[2]))
    records, drops = found("conceptual-captions", tmp_path)
    assert {key: (r.captions, r.split) for key, r in records.items()} == {
        "train_00000002": (("caption 2",), "train"),
        "val_00000001": (("caption 1",), "val"),
    }
    assert reasons(drops) == {"image missing": 6}
    assert list(found("conceptual-captions", tmp_path, split="val")[0]) == ["val_00000001"]


def test_the_rules_that_find_the_first_images_are_taken_for_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr("crossgrain.data.sets.conceptual_captions._SURE", 2)
    put(tmp_path, *NAMES["crc"][:2], NAMES["eight digits"][2], NAMES["crc"][3])
    (tmp_path / "cc.tsv").write_text(TSV)
    records, drops = found("conceptual-captions", tmp_path, split="train")
    assert list(records) == ["cc_00000000", "cc_00000001", "cc_00000003"]
    assert [drop.where for drop in drops] == ["cc.tsv:3"]


def test_a_table_of_captions_and_paths_gives_one_record_an_image(tmp_path):
    put(tmp_path / "pictures", "a.jpg", "b.jpg")
    (tmp_path / "mine.tsv").write_text("caption\tpath\none\ta.jpg\ntwo\tb.jpg\nthree\ta.jpg\nfour\nfive\t../mine.tsv\n")
    records, drops = found("conceptual-captions", tmp_path, captions=[Path("mine.tsv")], images=Path("pictures"))
    assert {key: record.captions for key, record in records.items()} == {"a": ("one", "three"), "b": ("two",)}
    assert reasons(drops) == {"malformed line": 1, "image path leaves its folder": 1}


SBU_URLS = [
    "http://static.flickr.com/1/11_a.jpg",
    "http://static.flickr.com/2/22%20b.jpg?x=1",
    "http://gone/33.jpg",
    "http://[x",
]


@pytest.mark.parametrize("form", ["text", "JSON", "JSON with captions first"])
def test_sbu_reads_both_forms(tmp_path, form):
    put(tmp_path / "images", "11_a.jpg", "22 b.jpg")
    texts = ["one", "two", "three", "four", "five"]
    if form == "text":
        (tmp_path / "SBU_captioned_photo_dataset_urls.txt").write_text("\n".join(SBU_URLS))
        (tmp_path / "SBU_captioned_photo_dataset_captions.txt").write_text("\n".join(texts) + "\n")
    else:
        lists = {"image_urls": SBU_URLS, "user_ids": ["u"] * 4, "captions": texts}
        ordered = dict(sorted(lists.items())) if form.endswith("first") else lists
        (tmp_path / "sbu-captions-all.json").write_text(json.dumps(ordered))
    records, drops = found("sbu", tmp_path)
    assert {key: record.captions for key, record in records.items()} == {"11_a": ("one",), "22_b": ("two",)}
    assert records["11_a"].extra["url"] == SBU_URLS[0]
    assert reasons(drops) == {"image missing": 1, "malformed image name": 1, "malformed entry": 1}


def test_sbu_names_the_file_of_urls_that_is_missing(tmp_path):
    put(tmp_path, "a.jpg")
    (tmp_path / "SBU_captioned_photo_dataset_captions.txt").write_text("one\n")
    with pytest.raises(UserError, match=r"no URLs beside .*looked for .*SBU_captioned_photo_dataset_urls.txt"):
        found("sbu", tmp_path)
