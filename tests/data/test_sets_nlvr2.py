"""NLVR2 in small, with one of each mistake that it can hold, and the true sample where it is at hand."""

import json

import pytest
from layouts import found, jpeg, put, reasons

from crossgrain.config import UserError
from crossgrain.data.prepare import prepare
from crossgrain.data.shards import Shards


def line(identifier, sentence="Both show a dog.", label="True", **more):
    urls = {"left_url": "http://a/1.jpg", "right_url": "http://a/2.jpg"}
    truth = {} if label is None else {"label": label}
    return {"sentence": sentence, **urls, **truth, "identifier": identifier, "synset": "dog", "writer": "1", **more}


def layout(root, **files):
    """`data/NAME.json` with the lines of each; a text stands as it is."""
    (root / "data").mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        text = "\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines)
        (root / "data" / f"{name}.json").write_text(text + "\n")


def pictures(root, folder, *pairs):
    put(root / folder, *(f"{pair}-img{side}.png" for pair in pairs for side in (0, 1)))


def test_pairs_stand_on_the_left_picture_and_name_the_right_one(tmp_path):
    layout(
        tmp_path,
        train=[line("train-10-0-0", directory=37), line("train-10-0-1", "One is red.", "False", directory=37)],
        dev=[line("dev-850-2-0"), line("dev-850-0-1", label=False)],
        test1=[line("test1-0-0-0")],
        test2=[line("test2-5-3-0", label=None)],
    )
    pictures(tmp_path, "images/train/37", "train-10-0")
    pictures(tmp_path, "images/dev", "dev-850-0", "dev-850-2")
    pictures(tmp_path, "test1", "test1-0-0")
    pictures(tmp_path, "images", "test2-5-3")
    records, drops = found("nlvr2", tmp_path)
    assert drops == []
    assert records["train-10-0-img0"].extra == {
        "source": "train.json:1",
        "pairs": [
            {"partner": "train-10-0-img1", "statement": "Both show a dog.", "id": "train-10-0-0", "label": True},
            {"partner": "train-10-0-img1", "statement": "One is red.", "id": "train-10-0-1", "label": False},
        ],
    }
    assert records["train-10-0-img1"].extra == {"source": "train.json:1"}
    assert records["train-10-0-img0"].image == jpeg(shade=0) and records["train-10-0-img1"].image == jpeg(shade=1)
    assert "label" not in records["test2-5-3-img0"].extra["pairs"][0]
    assert records["dev-850-0-img0"].extra["pairs"][0]["label"] is False
    assert {key: record.split for key, record in records.items() if key.endswith("img0")} == {
        "train-10-0-img0": "train",
        "dev-850-2-img0": "val",
        "dev-850-0-img0": "val",
        "test1-0-0-img0": "test",
        "test2-5-3-img0": "test2",
    }
    for split in ("dev", "val"):
        assert len(found("nlvr2", tmp_path, split=split)[0]) == 4


def test_mistakes_are_named_with_their_line_and_the_rest_is_read(tmp_path):
    pairs = [f"dev-1-{pair}" for pair in range(4)]
    pictures(tmp_path, "dev", *pairs, "dev-2-0", "dev-2-1")
    (tmp_path / "dev/dev-1-1-img1.png").unlink()
    (tmp_path / "dev/dev-1-2-img1.png").write_bytes(jpeg(200, 200)[:-200])
    (tmp_path / "dev/dev-1-3-img0.png").write_bytes(b"no picture")
    put(tmp_path.parent, "dev-9-0-img0.png", "dev-9-0-img1.png")
    lines = [
        line("dev-2-0-0"),
        "{not JSON",
        line("dev-1-1-0"),  # no right picture
        line("dev-1-2-0"),  # a broken right one
        line("dev-1-3-0"),  # a broken left one
        line("dev-2-0-0"),  # a second time
        line("dev-2-1-0", label="maybe"),
        line("dev-2-1-1", sentence=" "),
        line("../../dev-9-0-0"),
        line("dev-9-0-0", directory="../.."),
        line(7),
        line("dev-2-1-2", sentence="Fine."),
    ]
    layout(tmp_path, dev=lines)
    records, drops = found("nlvr2", tmp_path)
    told = {key: [pair["id"] for pair in record.extra.get("pairs", ())] for key, record in records.items()}
    assert told == {
        "dev-2-0-img1": [],
        "dev-2-0-img0": ["dev-2-0-0"],
        "dev-1-3-img1": [],
        "dev-2-1-img1": [],
        "dev-2-1-img0": ["dev-2-1-2"],
    }
    assert {(drop.where, drop.reason) for drop in drops} == {
        ("dev.json:2", "malformed line"),
        ("dev.json:3", "image missing"),
        ("dev.json:4", "truncated"),
        ("dev.json:4", "partner's image unusable"),
        ("dev.json:5", "not an image"),
        ("dev.json:6", "duplicate key"),
        ("dev.json:7", "malformed label"),
        ("dev.json:8", "empty statement"),
        ("dev.json:9", "malformed identifier"),
        ("dev.json:10", "image missing"),
        ("dev.json:11", "malformed identifier"),
    } and len(drops) == 12  # both pictures of line 10
    partners = {pair["partner"] for record in records.values() for pair in record.extra.get("pairs", ())}
    assert partners <= set(records)


def test_directories_do_not_lead_out_of_the_folder(tmp_path):
    pictures(tmp_path, "outside/7", "train-1-0")
    layout(tmp_path / "root", train=[line("train-1-0-0", directory=7)])
    (tmp_path / "root/train").mkdir()
    (tmp_path / "root/train/7").symlink_to(tmp_path / "outside/7")
    records, drops = found("nlvr2", tmp_path / "root")
    assert not records and set(reasons(drops)) == {"image path leaves its folder"}


def test_what_breaks_off_leaves_no_statement_without_its_partner(tmp_path):
    layout(tmp_path, dev=[line(f"dev-1-{pair}-0") for pair in range(3)])
    pictures(tmp_path, "dev", *(f"dev-1-{pair}" for pair in range(3)))
    for limit in (1, 2, 3, 5):
        out = tmp_path / f"out{limit}"
        report = prepare("nlvr2", tmp_path, out, limit=limit, num_workers=0, vocab_size=0)
        assert report.kept == limit
        records = list(Shards(out))
        partners = {pair["partner"] for record in records for pair in record.extra.get("pairs", ())}
        assert partners <= {record.key for record in records}


def test_no_statements_are_an_error_that_names_the_files(tmp_path):
    put(tmp_path, "images/a.png")
    with pytest.raises(UserError, match=r"no statements: looked for .*train\.json.*data/test2\.json"):
        found("nlvr2", tmp_path)


def test_the_true_sample_is_read_whole(shared, tmp_path):
    statements, images = shared / "formats/nlvr2/tiny-dev.json", shared / "formats/images/nlvr2"
    if not (statements.is_file() and images.is_dir()):
        pytest.skip("no sample of NLVR2 among the outside samples")
    records, drops = found("nlvr2", tmp_path, statements=[statements], images=images)
    assert drops == []
    told = {pair["id"]: (key, pair) for key, record in records.items() for pair in record.extra.get("pairs", ())}
    official = [json.loads(text) for text in statements.read_text().splitlines()]
    assert {one["identifier"] for one in official} == set(told)
    for one in official:
        key, pair = told[one["identifier"]]
        assert pair["statement"] == one["sentence"] and pair["label"] is (one["label"] == "True")
        assert key == one["identifier"].rpartition("-")[0] + "-img0"
        assert records[key].image == (images / f"{key}.png").read_bytes()
        assert records[pair["partner"]].image == (images / f"{pair['partner']}.png").read_bytes()
    assert len(records) == 8
