import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossgrain.config import UserError
from crossgrain.data.records import Dropped
from crossgrain.data.sets import annotations
from crossgrain.data.sets.annotations import JsonElements, clean_text, read_json_lines, read_table
from crossgrain.data.sets.pictures import Keys, Splits, pixel_box

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.text(max_size=5), st.lists(VALUES, max_size=5) | VALUES, max_size=4), st.sampled_from([None, 1])
)
def test_streamed_json_equals_json_read_at_once_at_any_chunk_size(tmp_path_factory, tree, indent):
    path = tmp_path_factory.mktemp("json") / "file.json"
    path.write_text(json.dumps(tree, indent=indent))
    chunk, annotations._CHUNK = annotations._CHUNK, 3
    try:
        elements = [(e.name, e.value) for e in JsonElements(path)]
        text = path.read_bytes()
        places = [json.loads(text[e.start : e.end]) for e in JsonElements(path, encoding="latin-1")]
    finally:
        annotations._CHUNK = chunk
    assert elements == [(name, one) for name, many in tree.items() if isinstance(many, list) for one in many]
    assert places == [value for _, value in elements]


@pytest.mark.parametrize(
    "text", ["", "x", "[1, 2", "[1 2]", '{"a": [1,]}', '{"a" [1]}', "[1] 2", "[" * 100_000, '["\\x"]']
)
def test_a_file_that_is_no_json_is_named_with_its_line(tmp_path, text):
    (tmp_path / "bad.json").write_text("\n\n" + text)
    with pytest.raises(UserError, match=r"bad.json, line 3: not valid JSON"):
        list(JsonElements(tmp_path / "bad.json"))


def test_broken_lines_are_dropped_with_their_number(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"image": 1}\n{"image"\n\n[1]\n' + b"[" * 9999 + b'\n{"image": 2}')
    lines = list(read_json_lines(tmp_path / "a.jsonl"))
    assert [line.where for line in lines if isinstance(line, Dropped)] == ["a.jsonl:2", "a.jsonl:4", "a.jsonl:5"]
    assert [line for line in lines if not isinstance(line, Dropped)] == [
        ("a.jsonl:1", {"image": 1}),
        ("a.jsonl:6", {"image": 2}),
    ]


def test_a_table_row_with_an_oversized_field_costs_that_row_only(tmp_path):
    (tmp_path / "a.csv").write_text(f'a,"b ""c"", d"\nx,{"y" * 200_000}\ne,f\n')
    assert list(read_table(tmp_path / "a.csv", ",")) == [(1, ["a", 'b "c", d']), (2, None), (3, ["e", "f"])]


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_a_quote_that_nothing_closes_costs_its_own_line(tmp_path, delimiter):
    lines = [delimiter.join((f"{number}.jpg", f"caption {number}")) for number in range(100)]
    lines[3] = f'3.jpg{delimiter}"Stop the car'
    lines[9] = f'9.jpg{delimiter}"Hello, world"'
    lines[99] = f'99.jpg{delimiter}"the end'
    (tmp_path / "a").write_text("\n".join(lines))
    rows = list(read_table(tmp_path / "a", delimiter))
    assert [number for number, _ in rows] == [*range(1, 101)]
    assert [number for number, row in rows if row is None] == [4, 100]
    assert rows[9][1] == ["9.jpg", "Hello, world"]


def test_a_text_in_quotes_may_have_line_breaks(tmp_path):
    (tmp_path / "a.csv").write_text('a,"two\nlines, ""q"""\nb,c\nd,"' + "\n" * 63 + '"\ne,f\n')
    rows = [(2, ["a", 'two\nlines, "q"']), (3, ["b", "c"]), (67, ["d", "\n" * 63]), (68, ["e", "f"])]
    assert list(read_table(tmp_path / "a.csv", ",")) == rows


@pytest.mark.parametrize(
    ("delimiter", "text", "read"),
    [
        ("\t", '"Hello" world', '"Hello" world'),
        (",", '"Hello, world" ', "Hello, world "),
        (",", 'a 12" disc', 'a 12" disc'),
    ],
)
def test_a_quote_within_a_text_loses_no_row(tmp_path, delimiter, text, read):
    (tmp_path / "a").write_text(f"a.jpg{delimiter}{text}\nb.jpg{delimiter}c\n")
    assert list(read_table(tmp_path / "a", delimiter)) == [(1, ["a.jpg", read]), (2, ["b.jpg", "c"])]


@pytest.mark.parametrize(
    ("value", "text", "rule"),
    [
        ("  a \t cat\x00\n", "a cat", ""),
        ("Bär ☃", "Bär ☃", ""),
        (" \n", "", "empty caption"),
        (7, "", "malformed caption"),
        ("a \udcff", "", "caption is not UTF-8"),
        ("a" * 5000, "", "caption too long"),
    ],
)
def test_captions_are_cleaned_or_refused(value, text, rule):
    assert clean_text(value) == (text, rule)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([0, 0, 50, 25], (0.0, 0.0, 0.5, 0.5)),
        ([-0.5, 0, 100.5, 50.9], (0.0, 0.0, 1.0, 1.0)),
        ([60, 0, 50, 25], "region: box outside the image"),
        ([-2, 0, 50, 25], "region: box outside the image"),
        ([10, 10, 0, 5], "region: degenerate box"),
        ([10, 10, 1e-9, 5], "region: degenerate box"),
        ([100.5, 10, 0.2, 5], "region: degenerate box"),
        ([float("nan"), 0, 1, 1], "region: malformed box"),
        ([0, 0, 10**400, 1], "region: malformed box"),
        ([0, 0, 1], "region: malformed box"),
        ("1234", "region: malformed box"),
        (None, "region: malformed box"),
    ],
)
def test_boxes_become_fractions_or_a_counted_reason(box, expected):
    assert pixel_box(box, 100.0, 50.0) == expected


def test_names_that_look_alike_get_different_keys():
    keys = Keys()
    names = ["a/b.jpg", "a_b.jpg", "a/b.png", "c.jpg", "ü.jpg", "ö.jpg", "x" * 300]
    first = [keys.of(name) for name in names]
    assert first[0] == "a_b" and first[3] == "c" and len(set(first)) == len(names)
    assert [keys.of(name) for name in names] == first


def test_held_out_shares_are_stable_and_near_five_per_cent():
    splits = [Splits(None).held_out(f"image {i}") for i in range(4000)]
    assert 0.04 < splits.count("val") / 4000 < 0.06 and 0.04 < splits.count("test") / 4000 < 0.06
    assert splits[:3] == [Splits(None).held_out(f"image {i}") for i in range(3)]
    assert Splits("val").held_out("image 0") == "val"
    assert Splits(None).official("restval") == "train" and Splits("val").official("train") is None
