"""What a recipe may name as input, and how it is taken apart into shards."""

import gzip
import json
import os
import pickle
from dataclasses import asdict
from functools import partial

import pyarrow
import pyarrow.parquet
import pytest

from crossgrain.collect.candidates import Candidate, Page
from crossgrain.collect.fetch import FetchConfig, Fetched
from crossgrain.collect.pages import folders, inputs, lists
from crossgrain.collect.pages.html import PageConfig
from crossgrain.collect.pages.inputs import Input, InputShard, list_inputs, read_pages
from crossgrain.collect.pages.warc import MAX_PAGE_BYTES
from crossgrain.collect.sentences import SentenceConfig
from crossgrain.collect.stages.pages import read_shard
from crossgrain.collect.tasks import Task, run_task
from crossgrain.config import UserError
from crossgrain.data.records import Dropped

PAGE = b"<html><img src=a.jpg alt='A red house'></html>"


def shards_of(tmp_path, **values):
    return list_inputs([Input(**values)], tmp_path / "work")


def test_a_folder_of_pages(tmp_path):
    folder = tmp_path / "pages"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.html").write_bytes(PAGE)
    (folder / "a b.HTM").write_bytes(b"<link rel='canonical' href='https://example.com/x?a=1&amp;b=2'>" + PAGE)
    (folder / "c.txt").write_bytes(PAGE)
    (folder / "sub" / "d.html.gz").write_bytes(gzip.compress(PAGE))
    (folder / "sub" / "e.html.gz").write_bytes(gzip.compress(PAGE)[:-9])
    (folder / "sub" / "f.html.gz").write_bytes(gzip.compress(bytes(2 * MAX_PAGE_BYTES), 1))
    (shard,) = shards_of(tmp_path, path=folder)
    found = list(read_pages(shard))
    pages = [one for one in found if isinstance(one, Page)]
    assert [page.url for page in pages] == [
        "https://example.com/x?a=1&b=2",
        "https://localhost.invalid/b.html",
        "https://localhost.invalid/sub/d.html.gz",
    ]
    assert pages[1].html == pages[2].html == PAGE
    assert [one.reason for one in found if isinstance(one, Dropped)] == ["page: unreadable file", "page: too large"]
    (shard,) = shards_of(tmp_path, path=folder, base_url="https://example.org/site/")
    urls = [one.url for one in read_pages(shard) if isinstance(one, Page)]
    assert urls[0] == "https://example.org/site/a%20b.HTM"


def test_a_page_in_several_gzip_members_is_whole(tmp_path):
    (tmp_path / "a.html.gz").write_bytes(gzip.compress(PAGE[:20]) + gzip.compress(PAGE[20:]))
    (shard,) = shards_of(tmp_path, path=tmp_path / "a.html.gz")
    assert [one.html for one in read_pages(shard) if isinstance(one, Page)] == [PAGE]


def test_a_name_that_is_no_utf8_goes_through_the_whole_stage(tmp_path):
    (tmp_path / "pages").mkdir()
    for name in (b"caf\xe9.html", b"\xff.warc"):
        (tmp_path / "pages" / os.fsdecode(name)).write_bytes(PAGE)
    fetch = FetchConfig(contact="https://example.org/contact")
    for shard in shards_of(tmp_path, path=tmp_path / "pages"):
        assert len(shard.fingerprint()) == 64
        rules = {
            "pages": PageConfig(min_dominance=0.0),
            "sentences": SentenceConfig(),
            "fetch": fetch,
            "num_buckets": 2,
        }
        function = partial(read_shard, shard=shard, **rules)
        task = Task(stage="pages", shard=shard.id, folder=tmp_path / "parts", function=function, config="")
        run_task(task)
        (row,) = [row for row in task.done().funnel if row.unit == "pages"]
        assert row.num_in == row.num_out + sum(row.dropped.values()) == 1
    (page,) = [one for one in read_pages(shard, fetch) if isinstance(one, Page)]
    assert page.url == "https://localhost.invalid/caf%E9.html"
    (shard,) = shards_of(tmp_path, path=tmp_path / "pages", kind="html", base_url="https://example.org/")
    assert [one.url for one in read_pages(shard)] == ["https://example.org/caf%E9.html"]


def test_large_folders_are_several_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "_PAGES_PER_SHARD", 4)
    for number in range(10):
        (tmp_path / f"{number}.html").write_bytes(PAGE)
    shards = shards_of(tmp_path, path=tmp_path)
    assert [(shard.begin, shard.end) for shard in shards] == [(0, 4), (4, 8), (8, 10)]
    assert len({shard.id for shard in shards}) == 3
    assert [one.url[-6] for shard in shards for one in read_pages(shard)] == [*"0123456789"]


def test_shards_are_values_with_a_fingerprint_of_their_content(tmp_path):
    file = tmp_path / "a.html"
    file.write_bytes(PAGE)
    (shard,) = shards_of(tmp_path, path=file)
    assert pickle.loads(pickle.dumps(shard)) == shard == InputShard(**json.loads(json.dumps(asdict(shard))))
    before = shard.fingerprint()
    assert before == shards_of(tmp_path, path=file)[0].fingerprint()
    file.write_bytes(PAGE.replace(b"red", b"bed"))
    assert shard.fingerprint() != before
    assert shards_of(tmp_path, path=file)[0].id == shard.id


def test_a_change_in_the_middle_of_a_folder_changes_its_fingerprint(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.html").write_bytes(bytes(700_000))
    (shard,) = shards_of(tmp_path, path=tmp_path)
    before = shard.fingerprint()
    (tmp_path / "2.html").write_bytes(bytes(500_000) + b"x" + bytes(199_999))
    os.utime(tmp_path / "2.html", (1, 1))  # the clock of a file system may be slower than this test
    assert shard.fingerprint() != before


def test_a_folder_gives_its_archives_and_its_pages(tmp_path):
    folder = tmp_path / "crawl"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.html", "b.warc.gz", "sub/c.html", "sub/d.arc", "sub/e.warc.gz.bad", "sub/f.warc.open", "g.cdx"):
        (folder / name).write_bytes(PAGE)

    def found(**values):
        return [(one.kind, one.path[len(str(folder)) :], one.end) for one in shards_of(tmp_path, **values)]

    archives = [("warc", f"/{name}", 0) for name in ("b.warc.gz", "sub/d.arc", "sub/e.warc.gz.bad", "sub/f.warc.open")]
    assert found(path=folder) == [*archives, ("html", "", 2)]
    assert found(path=folder, kind="warc") == archives
    assert found(path=folder, kind="html") == [("html", "", 2)]
    assert found(pattern=str(folder / "s*")) == [*archives[1:], ("html", "/sub", 1)]
    assert found(pattern=str(tmp_path / "crawl*" / "**")) == [*archives, ("html", "", 2)]


def test_archives_by_name_folder_and_pattern(tmp_path):
    for name in ("a.warc.gz", "b.arc", "c.warc"):
        (tmp_path / name).write_bytes(b"")
    for values in ({"path": tmp_path}, {"pattern": str(tmp_path / "*arc*")}):
        shards = shards_of(tmp_path, **values)
        assert [(shard.kind, shard.path[-6:]) for shard in shards] == [
            ("warc", "arc.gz"),
            ("warc", "/b.arc"),
            ("warc", "c.warc"),
        ]
    (shard,) = shards_of(tmp_path, path=tmp_path / "c.warc")
    assert [one.reason for one in read_pages(shard)] == ["archive is empty"]


@pytest.mark.parametrize("packed", [False, True])
def test_common_crawl_lists(tmp_path, packed):
    text = b"crawl-data/CC-MAIN-2024-10/warc/a.warc.gz\n\ncrawl-data/CC-MAIN-2024-10/warc/b.warc.gz\n"
    path = tmp_path / ("warc.paths.gz" if packed else "warc.paths")
    path.write_bytes(gzip.compress(text) if packed else text)
    first, second = shards_of(tmp_path, path=path)
    assert first.url == "https://data.commoncrawl.org/crawl-data/CC-MAIN-2024-10/warc/a.warc.gz"
    assert (
        first.kind == "warc"
        and first.path.startswith(str(tmp_path / "work" / "downloads"))
        and first.path.endswith(".warc.gz")
    )
    assert second.id != first.id and second.fingerprint() != first.fingerprint()
    (only,) = shards_of(tmp_path, path=path, limit=1, prefix="https://mirror.example/")
    assert only.url.startswith("https://mirror.example/crawl-data")


def test_a_remote_archive_is_downloaded_where_it_is_read(tmp_path, monkeypatch):
    asked = []

    def fetch_file(url, path, config, **more):
        asked.append(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        return 0

    monkeypatch.setattr(inputs, "fetch_file", fetch_file)
    (shard,) = shards_of(tmp_path, url="https://example.com/x.warc.gz?y=1")
    assert not asked
    assert [one.reason for one in read_pages(shard)] == ["archive is empty"]
    assert asked == ["https://example.com/x.warc.gz?y=1"]


ROWS = [
    ("http://example.com/a.jpg", "A red  house"),
    ("http://example.com/b.jpg", ""),
    ("not an address", "x"),
    ("", "y"),
]


def write_list(path):
    if path.suffix == ".parquet":
        table = pyarrow.table({"url": [row[0] for row in ROWS], "caption": [row[1] for row in ROWS]})
        pyarrow.parquet.write_table(table, path, row_group_size=2)
        return path
    if ".jsonl" in path.name:
        text = "\n".join(json.dumps({"url": url, "caption": caption}) for url, caption in ROWS)
    else:
        delimiter = "\t" if ".tsv" in path.name else ","
        text = "\n".join([delimiter.join(("url", "other", "caption")), *(delimiter.join((u, "1", c)) for u, c in ROWS)])
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.tsv", "x.jsonl", "x.jsonl.gz", "x.parquet"])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_tables_of_pairs(tmp_path, monkeypatch, name, size):
    monkeypatch.setattr(inputs, "_PAIRS_PER_SHARD", size)
    shards = shards_of(tmp_path, path=write_list(tmp_path / name), text_column="caption")
    assert {shard.kind for shard in shards} == {"pairs"} and len(shards) == -(-len(ROWS) // size)
    first, second, third, fourth = (one for shard in shards for one in read_pages(shard))
    assert isinstance(first, Candidate) and first.image_url == "http://example.com/a.jpg"
    assert [(text.kind, text.text) for text in first.texts] == [("alt", "A red house")]
    assert isinstance(second, Candidate) and second.texts == ()
    assert (third.reason, fourth.reason) == ("address unusable", "row without address")


def pairs_of(path, tmp_path):
    (shard,) = shards_of(tmp_path, path=path, text_column="caption")
    return [(one.image_url[-5:], *(text.text for text in one.texts)) for one in read_pages(shard)]


def test_quotes_in_a_tsv_are_letters_where_they_do_not_enclose_a_field(tmp_path):
    captions = ['"Hello there', 'A 27" screen', '"A ""red"" house"', '"Red" house']
    lines = ["url\tcaption", *(f"http://example.com/{n}.jpg\t{caption}" for n, caption in enumerate(captions)), ""]
    (tmp_path / "x.tsv").write_text("\n".join(lines))
    assert pairs_of(tmp_path / "x.tsv", tmp_path) == [
        ("0.jpg", '"Hello there'),
        ("1.jpg", 'A 27" screen'),
        ("2.jpg", 'A "red" house'),
        ("3.jpg", '"Red" house'),
    ]


def test_halves_of_characters_in_json_are_replaced(tmp_path):
    rows = ['{"url": "http://example.com/\\ud83d.jpg", "caption": "A \\ud83d house"}', '"http://example.com/\\udc00"']
    (tmp_path / "x.jsonl").write_text("\n".join(rows))
    assert pairs_of(tmp_path / "x.jsonl", tmp_path) == [("?.jpg", "A ? house"), ("com/?",)]


def test_a_packed_list_with_a_name_in_capitals_is_unpacked(tmp_path):
    (tmp_path / "X.CSV.GZ").write_bytes(gzip.compress(b"url,caption\nhttp://example.com/1.jpg,A house\n"))
    assert pairs_of(tmp_path / "X.CSV.GZ", tmp_path) == [("1.jpg", "A house")]


def test_bytes_in_parquet_are_text(tmp_path):
    columns = {"url": [b"http://example.com/1.jpg", None], "caption": pyarrow.array([b"caf\xe9", b"x"]).view("string")}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    (shard,) = shards_of(tmp_path, path=tmp_path / "x.parquet", text_column="caption")
    first, second = read_pages(shard)
    assert (first.image_url, first.texts[0].text) == ("http://example.com/1.jpg", "caf\N{REPLACEMENT CHARACTER}")
    assert second.reason == "row without address"


def test_lists_of_addresses_are_fetched_once_each(tmp_path, monkeypatch):
    path = tmp_path / "list.txt"
    path.write_text("http://example.com/1\n# a remark\n\nhttp://example.com/2\nhttp://example.com/1#x\nnothing\n")

    def fetch_all(requests, config):
        for request in requests:
            assert request.kind == "page"
            if request.url.endswith("1"):
                yield Fetched(request=request, data=PAGE, status=200, final_url="http://example.com/home")
            else:
                yield Fetched(request=request, reason="HTTP 404", status=404)

    monkeypatch.setattr(lists, "fetch_all", fetch_all)
    (shard,) = shards_of(tmp_path, path=path)
    found = list(read_pages(shard))
    assert sorted(one.reason for one in found if isinstance(one, Dropped)) == [
        "page: HTTP 404",
        "page: address named twice",
        "page: address unusable",
    ]
    assert [(one.url, one.html) for one in found if isinstance(one, Page)] == [("http://example.com/home", PAGE)]


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("missing.warc", {}, "does not exist"),
        ("folder", {}, "holds nothing"),
        ("what.bin", {}, "kind"),
        ("x.csv", {"text_column": "text"}, "no column 'text': its columns are url, other, caption"),
        ("broken.parquet", {"text_column": "text"}, "no Parquet file"),
        ("broken.csv.gz", {}, "cannot be read"),
        ("broken.paths.gz", {}, "no list of paths"),
    ],
)
def test_mistakes_are_named(tmp_path, name, values, message):
    (tmp_path / "folder").mkdir()
    for broken in ("what.bin", "broken.parquet", "broken.csv.gz", "broken.paths.gz"):
        (tmp_path / broken).write_bytes(b"nothing of the kind")
    write_list(tmp_path / "x.csv")
    with pytest.raises(UserError, match=message):
        shards_of(tmp_path, path=tmp_path / name, **values)


def test_one_place_an_input_and_each_once(tmp_path):
    for values in ({}, {"url": "https://a.example/x.warc", "pattern": "*"}, {"pattern": "*", "kind": "pairs"}):
        with pytest.raises(ValueError):
            Input(**values)
    (tmp_path / "a.html").write_bytes(PAGE)
    with pytest.raises(UserError, match="twice"):
        list_inputs([Input(path=tmp_path / "a.html")] * 2, tmp_path)
    with pytest.raises(UserError, match="no input"):
        list_inputs([], tmp_path)
    with pytest.raises(UserError, match="http"):
        shards_of(tmp_path, url="s3://bucket/x.warc")


def test_real_pages_are_read(shared):
    folder = shared / "web" / "pages"
    if not folder.is_dir():
        pytest.skip("no real pages")
    files = folders.page_files(folder)
    found = list(folders.read_files(folder, 0, len(files)))
    assert len(found) == len(files) > 100 and all(isinstance(one, Page) for one in found)
    assert sum(not one.url.startswith(folders.NOWHERE) for one in found) > 60
