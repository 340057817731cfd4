"""The judge of collections: what counts as found, and what as one too many."""

import json

import pytest

from crossgrain.collect.planted import is_true, judge
from crossgrain.config import UserError
from crossgrain.data.records import Record
from crossgrain.data.shards import ShardWriter

CAPTIONS = {
    "a": ["A red star by the sea.", "The star and the cup."],
    "b": ["Two cats: one black, one white."],
    "c": ["A blue fish."],
}
PLANTED = [
    {
        "kind": "good",
        "page": "p1",
        "images": ["u/a.jpg", "u/small/a.jpg"],
        "scene": "a",
        "place": "alt",
        "form": "srcset",
    },
    {"kind": "good", "page": "p2", "images": ["u/b.jpg"], "scene": "b", "place": "near", "form": "lazy"},
    {"kind": "near-duplicate", "page": "p3", "images": ["u/copy.jpg"], "scene": "a"},
    {"kind": "mismatched caption", "page": "p3", "images": ["u/c.jpg"], "scene": "c"},
    {"kind": "icon", "page": "p3", "images": ["u/icon.png"]},
]


def judged(tmp_path, *pairs):
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "truth.json").write_text(json.dumps({"planted": PLANTED, "captions": CAPTIONS}))
    with ShardWriter(tmp_path / "shards") as writer:
        for number, (url, text) in enumerate(pairs):
            extra = {"provenance": {"image_url": url}}
            record = Record(key=str(number), image=b"x", captions=(text,), extra=extra)
            writer.write(record, "jpg", 1, 1)
    return judge(tmp_path / "shards", tmp_path)


def kept(judgement):
    return {row.kind: row.num_kept for row in judgement.bad if row.num_kept}


def test_true_captions_of_good_photographs_are_found(tmp_path):
    result = judged(tmp_path, ("u/a.jpg", "a red star by the sea"), ("u/b.jpg", "Two cats: one black, one white."))
    assert (result.recall, result.precision, kept(result)) == (1.0, 1.0, {})
    assert {row.kind: row.num_kept for row in result.forms} == {"srcset": 1, "lazy": 1}


def test_a_copy_with_a_true_caption_stands_for_its_original_but_not_beside_it(tmp_path):
    assert judged(tmp_path / "one", ("u/copy.jpg", "The star and the cup.")).num_found == 1
    both = judged(tmp_path / "two", ("u/copy.jpg", "The star and the cup."), ("u/a.jpg", "A red star by the sea."))
    assert (both.recall, both.precision, kept(both)) == (0.5, 0.5, {"kept twice": 1})


def test_everything_else_counts_against_precision_under_its_kind(tmp_path):
    pairs = [
        ("u/b.jpg", "Two cats"),
        ("u/copy.jpg", "Our favourite picture"),
        ("u/c.jpg", "A blue fish."),  # true by chance is still planted as bad
        ("u/icon.png", "home"),
        ("u/strange.jpg", "A red star by the sea."),
    ]
    result = judged(tmp_path, *pairs)
    bad = {
        "mismatched caption": 1,
        "icon": 1,
        "unknown image": 1,
        "near-duplicate": 1,
        "good photograph, other text": 1,
    }
    assert (result.num_found, result.precision, kept(result)) == (0, 0.0, bad)
    assert sum(kept(result).values()) == result.num_kept == 5
    lines = "\n".join(result.lines())
    assert "recall 0.0%" in lines and "mismatched caption" in lines and json.dumps(result.to_json())


def test_nothing_kept_is_nothing_found(tmp_path):
    result = judged(tmp_path)
    assert (result.recall, result.precision, result.num_kept, kept(result)) == (0.0, 0.0, 0, {})


def test_a_text_is_true_if_captions_make_up_all_of_it():
    a = CAPTIONS["a"]
    assert is_true("A RED star, by the sea!", a) and is_true(" ".join(reversed(a)), a)
    assert not is_true("Photo: a red star by the sea", a)
    assert not is_true("a red star by the seaside", a)
    assert not is_true("", a) and not is_true("anything", ())


def test_a_web_without_truth_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"truth\.json does not exist"):
        judge(tmp_path, tmp_path)
