"""What was taken down leaves nothing behind, wherever the collection met it, and does not come back."""

import hashlib
from dataclasses import replace

import pytest
from archived_web import (
    IMAGE,
    OTHER_IMAGE,
    OTHER_PAGE,
    PAGE,
    collected,
    holding,
    recipe_of,
    recompressed,
    write_archive,
)
from killed import killed_before
from small_web import GOOD, asked, picture, text

from crossgrain.collect.images.blocklist import BlocklistConfig
from crossgrain.collect.lock import alone
from crossgrain.collect.pipeline import retry, run_collect
from crossgrain.collect.report import write_report
from crossgrain.collect.takedown import remove
from crossgrain.config import UserError
from crossgrain.data.shards import Shards


@pytest.fixture
def archived(tmp_path):
    """A recipe for one page with two pictures."""
    shown, images = [(IMAGE, text(1)), (OTHER_IMAGE, text(2))], {IMAGE: picture(1), OTHER_IMAGE: picture(2)}
    return recipe_of(write_archive(tmp_path / "a.warc.gz", {PAGE: shown[:1], OTHER_PAGE: shown[1:]}, images))


def record_of(out, url):
    return next(record for record in Shards(out / "shards") if record.extra["provenance"]["image_url"] == url)


def drops(result, stage, unit="images"):
    return next(row.dropped for row in result.funnel if (row.stage, row.unit) == (stage, unit))


@pytest.mark.parametrize("kind", ["image", "page", "domain", "domain of page", "sha256", "md5", "phash"])
def test_no_byte_of_it_is_left_and_no_later_run_shows_or_names_it(archived, tmp_path, kind):
    out = tmp_path / "out"
    run_collect(archived, out)
    record = record_of(out, IMAGE)
    told = record.extra["provenance"]
    wanted = {
        "image": {"urls": [IMAGE]},
        "page": {"urls": [PAGE]},
        "domain": {"domains": ["pictures.test"]},
        "domain of page": {"domains": ["site.test"]},
    }
    assert len(holding(out, record.image)) == 2  # of the stage, and of the data
    removal = remove(out, **wanted.get(kind, {"hashes": [told.get(kind)]}))
    assert [entry["image_url"] for entry in removal.removed] == [IMAGE]
    assert holding(out, record.image) == []
    result = run_collect(archived, out)
    write_report(out)
    assert collected(out) == {OTHER_IMAGE: text(2)} and holding(out, record.image) == []
    assert drops(result, "images") == {"taken down": 1}
    assert IMAGE not in (out / "report.html").read_text() and "taken down" in (out / "report.html").read_text()


def test_what_was_taken_down_by_its_hash_is_not_asked_for_again(web, tmp_path):
    server, recipe = web
    out, url = tmp_path / "out", server.url("/7.jpg")
    run_collect(recipe, out)
    record = record_of(out, url)
    remove(out, hashes=[record.extra["provenance"]["sha256"]])
    for stricter in (recipe, replace(recipe, sentences=replace(recipe.sentences, max_words=40)), recipe):
        result, requests = asked(server, run_collect, stricter, out)
        assert not requests and result.num_pairs == GOOD - 1
        assert holding(out, record.image) == [] and url not in (out / "samples" / "samples.jsonl").read_text()


def test_halves_of_a_killed_run_hold_it_no_more(web, tmp_path):
    _, recipe = web
    out = tmp_path / "out"
    run_collect(recipe, out)
    stricter = replace(recipe, sentences=replace(recipe.sentences, max_words=14))
    halves = []
    for step in (36, 33, 40, 20, 26, 16):
        killed_before(step, stricter, out)
        if halves := list((out / "work" / "images").glob(".tmp-*.tar")):
            break
    record = next(record for record in Shards(out / "shards") if record.image in halves[0].read_bytes())
    (out / "shards" / ".tmp-000000.tar").write_bytes(record.image)
    remove(out, urls=[record.extra["provenance"]["image_url"]])
    assert holding(out, record.image) == []


def test_a_picture_is_found_by_an_address_that_aggregation_had_merged(tmp_path):
    for name, copy in (("same file", picture(1, 400)), ("another file", recompressed(1))):
        shown, images = [(IMAGE, text(1)), (OTHER_IMAGE, text(2))], {IMAGE: picture(1, 400), OTHER_IMAGE: copy}
        recipe, out = recipe_of(write_archive(tmp_path / "a.warc.gz", {PAGE: shown}, images)), tmp_path / name
        run_collect(recipe, out)
        (kept,) = collected(out)
        (other,) = {IMAGE, OTHER_IMAGE} - {kept}
        assert [entry["image_url"] for entry in remove(out, urls=[other], dry_run=True).removed] == [kept]
        removal = remove(out, urls=[other])
        assert f"url {other}: 1 records" in removal.lines()
        run_collect(recipe, out)
        assert collected(out) == {} and holding(out, images[kept]) == []


def test_a_recompressed_copy_does_not_take_the_place_of_what_was_removed(tmp_path):
    shown, images = [(IMAGE, text(1)), (OTHER_IMAGE, text(2))], {IMAGE: picture(1, 400), OTHER_IMAGE: recompressed(1)}
    recipe, out = recipe_of(write_archive(tmp_path / "a.warc.gz", {PAGE: shown}, images)), tmp_path / "out"
    run_collect(recipe, out)
    (kept,) = collected(out)
    remove(out, urls=[kept])
    run_collect(recipe, out)
    assert collected(out) == {}


def test_a_picture_is_found_by_every_page_that_shows_it(tmp_path):
    pages = {PAGE: [(IMAGE, text(1))], OTHER_PAGE: [(IMAGE, text(1))]}  # with one text, of which one page is kept
    recipe = recipe_of(write_archive(tmp_path / "a.warc.gz", pages, {IMAGE: picture(1)}))
    for url in pages:
        out = tmp_path / url.replace("/", "_")
        run_collect(recipe, out)
        assert len(remove(out, urls=[url]).removed) == 1
        run_collect(recipe, out)
        assert collected(out) == {}


def test_a_site_takes_its_own_pages_words_away_and_not_the_picture_of_another(tmp_path):
    pages = {PAGE: [(IMAGE, text(1))], OTHER_PAGE: [(IMAGE, text(2))]}
    recipe, out = recipe_of(write_archive(tmp_path / "a.warc.gz", pages, {IMAGE: picture(1)})), tmp_path / "out"
    run_collect(recipe, out)
    page = record_of(out, IMAGE).extra["provenance"]["page_url"]
    remove(out, domains=["site.test" if page == PAGE else "elsewhere.test"])
    result = run_collect(recipe, out)
    assert collected(out) == {IMAGE: text(2) if page == PAGE else text(1)}
    assert drops(result, "images", "texts") == {"taken down": 1}


def test_nothing_is_removed_or_tried_again_while_a_run_is_at_work(web, tmp_path):
    server, recipe = web
    out, lost = tmp_path / "out", server.paths["/8.jpg"]
    server.paths["/8.jpg"] = (503, {}, b"later")
    try:
        run_collect(replace(recipe, fetch=replace(recipe.fetch, backoff_seconds=0.01)), out)
    finally:
        server.paths["/8.jpg"] = lost
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    with alone(out / "work"):
        for refused in (lambda: remove(out, urls=[server.url("/7.jpg")]), lambda: retry(out)):
            with pytest.raises(UserError, match="another run is at work in"):
                refused()
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before


def test_a_file_on_a_block_list_is_fetched_once(web, tmp_path):
    server, recipe = web
    out, listed = tmp_path / "out", tmp_path / "files.txt"
    listed.write_text(hashlib.sha256(server.paths["/8.jpg"]).hexdigest() + "\n")
    recipe = replace(recipe, images=replace(recipe.images, blocklist=BlocklistConfig(file_hashes=(listed,))))
    run_collect(recipe, out)
    stricter = replace(recipe, sentences=replace(recipe.sentences, max_words=14))
    result, requests = asked(server, run_collect, stricter, out)
    assert not requests and drops(result, "images")["on a block list"] == 1


def test_an_address_on_a_block_list_is_named_nowhere_in_the_report(tmp_path):
    html = f'<html lang=en><body><img src="{IMAGE}" alt="IMG_0001.jpg" title="{text(1)}" width=500 height=500></body>'
    archive = write_archive(tmp_path / "a.warc.gz", {OTHER_PAGE: [(OTHER_IMAGE, text(2))]}, {OTHER_IMAGE: picture(2)})
    (tmp_path / "page.html").write_text(html)
    (tmp_path / "urls.txt").write_text(hashlib.sha256(IMAGE.encode()).hexdigest() + "\n")
    recipe = recipe_of(archive, tmp_path / "page.html")
    listed = BlocklistConfig(url_hashes=(tmp_path / "urls.txt",))
    for blocklist, named in ((BlocklistConfig(), True), (listed, False)):  # a text of it was dropped, and is an example
        out = tmp_path / f"named {named}"
        run_collect(replace(recipe, images=replace(recipe.images, blocklist=blocklist)), out)
        write_report(out)
        assert (IMAGE in (out / "report.html").read_text()) == named
