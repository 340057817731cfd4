"""Take-downs: what is named goes, all else stays, and a kill at any point leaves data that can be read."""

import hashlib
import os
import shutil
import time
from pathlib import Path

import pytest
from collected import collected_record, picture, write_collection

from crossgrain.collect.bucketed import write_rows
from crossgrain.collect.funnel import read_funnel
from crossgrain.collect.samples import read_samples
from crossgrain.collect.takedown import data_folder, read_list, remove
from crossgrain.collect.tombstones import TOMBSTONES, Tombstones
from crossgrain.config import UserError
from crossgrain.data import removal
from crossgrain.data.records import Record
from crossgrain.data.regions import (
    RegionFeatures,
    finish_regions,
    has_regions,
    open_regions,
    write_region_shard,
)
from crossgrain.data.shards import Shards, ShardWriter
from crossgrain.data.tars import TarWriter

SIZE = 12


@pytest.fixture
def run(tmp_path) -> Path:
    return write_collection(tmp_path / "web", SIZE)


def content(folder: Path, regions: bool = False) -> dict[str, tuple]:
    """Everything that a data set says, by key; every image is compared with its hash."""
    shards = Shards(folder, regions=regions)
    hashes = shards.column("image_sha256")
    found = {}
    for index, record in enumerate(shards):
        assert hashlib.sha256(record.image).hexdigest() == hashes[index]
        detected = record.detected.to_bytes() if record.detected is not None else None
        found[record.key] = (record.image, record.captions, record.extra, detected)
    return found


def numbered(*numbers: int) -> set[str]:
    return {collected_record(number)[0].key for number in numbers}


def give_regions(folder: Path, shards: int = 3, per_shard: int = 4) -> None:
    data = Shards(folder)
    open_regions(folder, {"detector": "test"})
    for number, shard in enumerate(data.manifest["shards"][:shards]):
        rows = range(per_shard * number, per_shard * number + shard["records"])
        items = [(data.texts(row).key, RegionFeatures.of([[0, 0, 1, 0.5]], [[row, 1.0]])) for row in rows if row % 5]
        write_region_shard(folder, shard["name"], items)
    finish_regions(folder)


@pytest.mark.parametrize(
    ("wanted", "gone"),
    [
        ({"urls": ["HTTPS://Images.Example.org:443/3.jpg#top"]}, {3}),
        ({"urls": ["https://www.example.com/page2.html"]}, {4, 5}),
        ({"domains": ["example.org"]}, {0, 3, 6, 9}),
        ({"domains": ["EXAMPLE.CO.UK."]}, {1, 4, 7, 10}),
        ({"domains": ["xample.org"]}, set()),
        ({"hashes": [collected_record(5)[0].extra["provenance"]["sha256"]]}, {5}),  # of what was fetched
        ({"hashes": [hashlib.sha256(collected_record(5)[0].image).hexdigest().upper()]}, {5}),  # of what is kept
        ({"hashes": [collected_record(7)[0].extra["provenance"]["md5"]]}, {7}),
        ({"hashes": [hashlib.md5(collected_record(7)[0].image).hexdigest()]}, {7}),
        ({"hashes": [f"{int(collected_record(2)[0].extra['provenance']['phash'], 16) ^ 0b1111_1111:016x}"]}, {2}),
        ({"hashes": [f"{int(collected_record(2)[0].extra['provenance']['phash'], 16) ^ 0b1_1111_1111:016x}"]}, set()),
        ({"urls": ["https://images.example.org/0.jpg"], "domains": ["example.co.uk"]}, {0, 1, 4, 7, 10}),
        ({"domains": ["example.com"]}, set(range(SIZE))),  # every page
    ],
)
def test_what_is_named_goes_and_the_rest_stays_as_it_was(run, wanted, gone):
    before = content(run / "shards")
    found = remove(run, **wanted)
    assert {entry["key"] for entry in found.removed} == numbered(*gone)
    assert found.num_left == SIZE - len(gone)
    kept = {key: value for key, value in before.items() if key not in numbered(*gone)}
    if kept:
        assert content(run / "shards") == kept
    else:
        with pytest.raises(UserError, match="empty"):
            Shards(run / "shards")
    manifest = removal.read_manifest(run / "shards")
    assert sum(manifest["splits"].values()) == len(kept) == sum(shard["records"] for shard in manifest["shards"])
    for shard in manifest["shards"]:
        assert hashlib.sha256((run / "shards" / f"{shard['name']}.tar").read_bytes()).hexdigest() == shard["sha256"]


def test_no_byte_of_a_removed_picture_is_left_in_the_folder(run):
    record = collected_record(3)[0]
    assert any(record.image in file.read_bytes() for file in (run / "shards").iterdir())
    remove(run, urls=[record.extra["provenance"]["image_url"]])
    assert [file.name for file in (run / "shards").iterdir() if record.image in file.read_bytes()] == []
    assert sorted(file.name for file in (run / "shards").iterdir()) == [
        "000001.parquet", "000001.tar", "000002.parquet", "000002.tar", "000003.parquet", "000003.tar", "manifest.json",
    ]  # fmt: skip


def test_a_shard_is_rewritten_to_the_bytes_that_a_writer_would_give(run, tmp_path):
    remove(run, urls=["https://images.example.org/6.jpg"])
    with ShardWriter(tmp_path / "direct", records_per_shard=4) as writer:
        for number in (4, 5, 7):
            record, (width, height) = collected_record(number)
            writer.write(record, "jpg", width, height)
    assert (run / "shards/000003.tar").read_bytes() == (tmp_path / "direct/000000.tar").read_bytes()


@pytest.mark.parametrize("shards", [3, 2])  # a detector that was over all of them, or was stopped
def test_regions_go_with_their_records(run, shards):
    give_regions(run / "shards", shards)
    before = content(run / "shards", regions=shards == 3)
    remove(run, urls=["https://images.example.org/3.jpg", "https://images.example.org/9.jpg"])
    kept = {key: value for key, value in before.items() if key not in numbered(3, 9)}
    assert has_regions(run / "shards") == (shards == 3)
    assert content(run / "shards", regions=shards == 3) == kept


def operations(monkeypatch, last: int) -> list[str]:
    """From now on every change of a file is counted, and the process "dies" before the one with number `last`."""
    done: list[str] = []

    def counted(name, original):
        def change(*arguments, **options):
            if len(done) == last:
                raise Killed(name)
            done.append(name)
            return original(*arguments, **options)

        return change

    for owner, name in ((Path, "replace"), (Path, "unlink"), (os, "fsync"), (removal.TarWriter, "add")):
        monkeypatch.setattr(owner, name, counted(name, getattr(owner, name)))
    return done


class Killed(BaseException):
    pass


def test_killed_at_any_point_the_data_can_be_read_and_the_same_command_finishes(tmp_path):
    run = write_collection(tmp_path / "web", 5, per_shard=2)
    give_regions(run / "shards", per_shard=2)
    before = content(run / "shards", regions=True)
    wanted = {"urls": ["https://images.example.org/0.jpg", "https://example.co.uk/4.jpg"]}  # of two shards, one goes
    kept = {key: value for key, value in before.items() if key not in numbered(0, 4)}
    whole = tmp_path / "whole"
    shutil.copytree(run, whole)
    remove(whole, **wanted)
    states, last = set(), 0
    while True:
        out = tmp_path / f"killed{last}"
        shutil.copytree(run, out)
        with pytest.MonkeyPatch.context() as patch:
            done = operations(patch, last)
            try:
                remove(out, **wanted)
            except Killed:
                pass
            else:
                break
        now = content(out / "shards", regions=True)
        assert now in (before, kept), f"killed before change {last} ({done[-1:]})"
        assert now == before or Tombstones.load(out).blocks("https://images.example.org/0.jpg")
        states.add(len(now))
        remove(out, **wanted)
        same = {file.name: file.read_bytes() for file in (whole / "shards").iterdir()}
        assert {file.name: file.read_bytes() for file in (out / "shards").iterdir()} == same
        last += 1
    assert states == {5, 3}
    assert last > 25


def test_the_list_grows_and_later_runs_can_ask_it(run):
    remove(run, urls=["https://images.example.org/3.jpg"])
    remove(run / "shards", domains=["example.net"], hashes=["00000000000000ff"])
    listed = Tombstones.load(run)
    assert (run / TOMBSTONES).is_file() and not (run / "shards" / TOMBSTONES).exists()
    assert listed.blocks("http://IMAGES.example.org:80/3.jpg")
    assert not listed.blocks("http://images.example.org:8080/3.jpg")
    assert listed.blocks("https://cdn.pictures.example.net/anything.png")
    assert listed.blocks("https://elsewhere.org/x.jpg", page_url="https://example.net/page")
    assert not listed.blocks("https://notexample.net/x.jpg")
    same = collected_record(3)[0].extra["provenance"]["sha256"]
    assert listed.blocks("https://mirror.org/copy.jpg", same)  # the same file at another address
    assert not listed.blocks("https://mirror.org/copy.jpg", "0" * 64)
    assert listed.blocks("https://mirror.org/copy.jpg", phash=0x00000000000000FE)
    assert not listed.blocks("https://mirror.org/copy.jpg", phash=0x1FFFF)
    by_domain = collected_record(2)[0].extra["provenance"]["sha256"]
    assert not listed.blocks("https://mirror.org/copy.jpg", by_domain)  # a site is not the owner of all it shows


def test_blocks_is_quick_where_the_list_is_long():
    listed = Tombstones([("sha256", hashlib.sha256(bytes([i % 256, i // 256])).hexdigest()) for i in range(20000)])
    begun = time.process_time()
    assert not any(listed.blocks(f"https://a.example.org/{i}.jpg", "f" * 64) for i in range(2000))
    assert time.process_time() - begun < 1


def test_data_of_another_origin_are_searched_by_hash(tmp_path):
    images = [picture(number) for number in range(3)]
    with ShardWriter(tmp_path / "data") as writer:
        for number, image in enumerate(images):
            writer.write(Record(key=str(number), image=image, captions=("a",)), "jpg", 40, 32)
    found = remove(tmp_path / "data", hashes=[hashlib.sha256(images[1]).hexdigest()])
    assert [entry["key"] for entry in found.removed] == ["1"]
    assert [record.key for record in Shards(tmp_path / "data")] == ["0", "2"]
    assert (tmp_path / "data" / TOMBSTONES).is_file()


def test_a_dry_run_changes_nothing(run):
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    found = remove(run, domains=["example.org"], dry_run=True)
    assert len(found.removed) == 4
    assert "would be removed" in found.lines()[-1]
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({}, "say what to remove"),
        ({"urls": ["ftp://example.org/a.jpg"]}, "'ftp://example.org/a.jpg' is no URL of the web"),
        ({"hashes": ["abc"]}, "'abc' is no hash: sha256 (64 digits), md5 (32 digits), phash (16 digits)"),
        ({"hashes": ["g" * 64]}, "is no hash"),
        ({"hashes": ["md5:" + "a" * 64]}, "is no hash"),
        ({"domains": ["https://example.org"]}, "is no domain: write example.org"),
        ({"domains": ["co.uk"]}, "'co.uk' is no single site"),
        ({"domains": ["com"]}, "'com' is no single site"),
    ],
)
def test_a_mistake_changes_nothing(run, wanted, told):
    with pytest.raises(UserError) as error:
        remove(run, **wanted)
    assert told in str(error.value)
    assert not (run / TOMBSTONES).exists()


def test_folders_without_data_and_broken_lists_are_named(run, tmp_path):
    with pytest.raises(UserError, match="no data set in"):
        data_folder(tmp_path)
    (run / TOMBSTONES).write_text('{"kind": "colour", "value": "red"}\n')
    with pytest.raises(UserError, match="line 1: no take-down of a known kind"):
        remove(run, urls=["https://images.example.org/3.jpg"])
    with pytest.raises(UserError, match="no list at"):
        read_list(tmp_path / "gone.txt")


def test_a_list_file_holds_urls_hashes_and_domains(tmp_path):
    lines = "# asked for in May\nhttps://a.org/x.jpg#part\n\nexample.org  # all of it\n" + "0F" * 16 + "\n"
    (tmp_path / "list.txt").write_text(lines)
    wanted = {"urls": ["https://a.org/x.jpg#part"], "hashes": ["0F" * 16], "domains": ["example.org"]}
    assert read_list(tmp_path / "list.txt") == wanted


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("https://a.org/3.jpg   # by mail", ("url", "https://a.org/3.jpg")),
        ("example.org # see https://tickets.test/1", ("domain", "example.org")),
        ("example.org#all", ("domain", "example.org")),
        ("*.example.org", ("domain", "example.org")),
        ("\ufeffhttps://a.org/x.jpg", ("url", "https://a.org/x.jpg")),
        ("0x0123456789ABCDEF", ("phash", "0123456789abcdef")),
        ("phash:0123456789abcdef", ("phash", "0123456789abcdef")),
        ("sha256:" + "a" * 64, ("sha256", "a" * 64)),
        ("MD5:" + "A" * 32, ("md5", "a" * 32)),
    ],
)
def test_lines_of_a_list_are_understood_in_the_spellings_that_people_use(tmp_path, line, wanted):
    (tmp_path / "list.txt").write_text(f"{line}\n")
    assert Tombstones.of(**read_list(tmp_path / "list.txt")).entries == [wanted]


def test_two_removals_at_once_do_not_meet(run):
    with removal.locked(run / "shards"), pytest.raises(UserError, match="by another process"):
        remove(run, urls=["https://images.example.org/3.jpg"])


def test_rows_that_are_not_there_are_refused(run):
    with pytest.raises(ValueError, match="shard 000001 has 4 records"):
        removal.remove_records(run / "shards", {"000001": [4]})
    assert len(Shards(run / "shards")) == SIZE


def test_a_picture_leaves_the_work_the_examples_and_the_account_as_well(run):
    record = collected_record(3)[0]
    provenance = record.extra["provenance"]
    other = collected_record(4)[0]
    work = run / "work" / "images"
    work.mkdir(parents=True)
    tar, rows = TarWriter(work / "part-00.tar"), []
    for one in (record, other):
        told = one.extra["provenance"]
        tar.add(f"{hashlib.sha256(told['image_url'].encode()).hexdigest()[:32]}.jpg", one.image)
        named = {name: told[name] for name in ("image_url", "sha256", "md5")}
        rows.append({**named, "phash": int(told["phash"], 16)})
    rows.append({"image_url": provenance["image_url"] + "?dropped"})
    tar.finish()
    kinds = {"image_url": "string", "sha256": "string", "md5": "string", "phash": "uint64"}
    write_rows(work / "part-00.parquet", kinds, rows)
    (work / "part-01.journal.data").write_bytes(record.image)  # of a run that was killed
    size = (work / "part-00.tar").stat().st_size
    samples = run / "samples" / "samples.jsonl"
    before = read_samples(samples)
    assert any(sample.image_url == provenance["image_url"] for sample in before)
    for _ in range(2):  # again is no more
        remove(run, urls=[provenance["image_url"]])
        data = (work / "part-00.tar").read_bytes()
        assert record.image not in data
        assert other.image in data
        assert len(data) == size
        assert not list(work.glob("*.journal.*"))
        assert read_samples(samples) == [s for s in before if s.image_url != provenance["image_url"]]
        last = read_funnel(run / "funnel.json")[-1]
        assert (last.stage, last.num_in, last.num_out, last.dropped) == ("takedown", 12, 11, {"taken down": 1})
    remove(run, domains=["example.net"])
    assert read_funnel(run / "funnel.json")[-1].dropped == {"taken down": 5}
