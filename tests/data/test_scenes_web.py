"""The planted web is what its truth says: read back with nothing of the pipeline."""

import io
import json
from collections import Counter
from html.parser import HTMLParser
from urllib.parse import urljoin

import numpy as np
import pytest
from PIL import Image, ImageOps

from crossgrain.data.scenes import make_scene
from crossgrain.data.scenes.web import write_supervised, write_web
from crossgrain.data.scenes.web_images import photograph
from crossgrain.data.scenes.web_pages import BAD, FORMS, PAGE_OPT_OUTS, PLACES, Web
from crossgrain.data.shards import Shards

PAGES = 80


@pytest.fixture(scope="module")
def web():
    """The web, its resources by URL, and what is planted."""
    web, resources, planted = Web(PAGES, 3), {}, []
    for resource, row in web.furniture():
        resources[resource.url] = resource
        planted.append(row)
    for i in range(PAGES):
        served, rows = web.page(i)
        resources.update((resource.url, resource) for resource in served)
        planted.extend(rows)
    return web, resources, planted


class Shown(HTMLParser):
    """All image URLs of a page, resolved, with the largest of a srcset; noscript is read like the rest."""

    def __init__(self, url, html):
        super().__init__()
        self.base, self.urls, self.text = url, [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag == "base":
            self.base = urljoin(self.base, values["href"])
        for name in ("src", "data-src", "data-original", "data-lazy-src"):
            if tag in ("img", "source") and values.get(name, "data:").partition(":")[0] != "data":
                self.urls.append(urljoin(self.base, values[name]))
        for part in values.get("srcset", "").split(","):
            if part.strip():
                self.urls.append(urljoin(self.base, part.split()[0]))
        self.text += " ".join(values.get(name) or "" for name in ("alt", "title")) + "\n"

    def handle_data(self, data):
        self.text += data


def test_every_planted_image_is_on_its_page_with_its_text(web):
    _, resources, planted = web
    pages = {}
    for row in planted:
        if row.page not in resources:
            continue  # furniture stands on all pages of a site
        shown = pages.setdefault(row.page, Shown(row.page, resources[row.page].body.decode()))
        assert set(row.images) <= set(shown.urls), row
        assert row.text in shown.text, row
        assert all(url in resources for url in row.images)
    assert len(pages) == PAGES
    for url, shown in pages.items():
        furniture = set(shown.urls) - {image for row in planted for image in row.images}
        assert not furniture, (url, furniture)


def test_all_kinds_forms_and_places_are_planted(web):
    _, _, planted = web
    kinds = Counter(row.kind for row in planted)
    assert {*BAD, "good", "repeated text", "icon", "banner", "thumbnail", "tracking pixel"} <= {*kinds}
    assert {f"opted-out page: {how}" for how in PAGE_OPT_OUTS} <= {*kinds}
    good = [row for row in planted if row.kind == "good"]
    assert {row.form for row in good} == {*FORMS} and {row.place for row in good} == {*PLACES}
    assert len(good) > PAGES and len({row.scene for row in good}) == len(good)
    repeated = Counter(row.text for row in planted if row.kind == "repeated text")
    assert repeated and min(repeated.values()) > 10
    others = Counter(row.text for row in planted if row.scene and row.kind != "repeated text")
    assert max(others.values()) <= 10  # nothing else is dropped for being repeated


def test_good_captions_are_true_and_mismatched_ones_are_not(web):
    world, _, planted = web
    false = 0
    for row in planted:
        if row.kind == "good":
            assert row.text in world.told[row.scene]
        if row.kind == "mismatched caption":
            false += 1
            assert row.text not in world.told[row.scene]
    assert false >= 6


def test_images_are_what_their_kind_says(web):
    world, resources, planted = web
    for row in planted:
        resource = resources[row.images[0]]
        if row.kind in ("missing", "not an image"):
            assert resource.status == (404 if row.kind == "missing" else 200)
            assert b"<html>" in resource.body
            continue
        image = Image.open(io.BytesIO(resource.body))
        if row.kind == "broken image":
            with pytest.raises(OSError, match="truncated"):
                image.load()
            continue
        image.load()
        width, height = image.size
        assert (min(width, height) > 300) == (
            row.kind not in ("icon", "banner", "thumbnail", "tracking pixel", "too small")
        )
        assert (width > 3 * height) == (row.kind in ("extreme aspect", "banner"))
        assert (b"DMI-PROHIBITED" in resource.body) == (row.kind == "opted-out image: embedded")
        assert ("X-Robots-Tag" in resource.headers) == (row.kind == "opted-out image: header")
        if row.kind.endswith("test-set copy"):
            number = int(row.scene.rpartition("_")[2])
            tested = world.test_image(number).resize(image.size)
            if row.kind.startswith("mirrored"):
                tested = ImageOps.mirror(tested)
            difference = np.abs(np.asarray(tested, dtype=float) - np.asarray(image, dtype=float)).mean()
            assert difference < 12


def test_photographs_of_different_scenes_look_different_to_a_perceptual_hash():
    def bits(scene):
        grey = np.asarray(photograph(scene, 96).convert("L").resize((32, 32), Image.Resampling.LANCZOS), dtype=float)
        cosines = np.cos(np.pi * (2 * np.arange(32) + 1) * np.arange(8)[:, None] / 64)
        low = (cosines @ grey @ cosines.T).ravel()
        return low > np.median(low)

    hashes = np.array([bits(make_scene(0, "train", i)) for i in range(300)])
    apart = (hashes[:, None] != hashes[None]).sum(axis=2) + 64 * np.eye(300, dtype=int)
    assert apart.min() > 8


def test_files_are_the_same_bytes_again_and_a_web_that_is_there_stays(tmp_path):
    for name in ("a", "b"):
        write_web(tmp_path / name, 20, 1)
    files = sorted(file.relative_to(tmp_path / "a") for file in (tmp_path / "a").rglob("*") if file.is_file())
    assert len(files) > 3
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)
    warc = tmp_path / "a" / "web-00000.warc.gz"
    warc.write_bytes(b"kept")
    write_web(tmp_path / "a", 20, 1)
    assert warc.read_bytes() == b"kept"
    write_web(tmp_path / "a", 20, 2)
    assert warc.read_bytes() not in (b"kept", (tmp_path / "b" / "web-00000.warc.gz").read_bytes())


def test_warc_files_hold_pages_images_and_statuses_as_another_reader_sees_them(tmp_path, web):
    fastwarc = pytest.importorskip("fastwarc", reason="needs the extra collect")
    write_web(tmp_path, PAGES, 3)
    _, resources, planted = web
    with (tmp_path / "web-00000.warc.gz").open("rb") as file:
        records = [
            (str(record.record_type), record.headers.get("WARC-Target-URI"), record.http_headers, record.reader.read())
            for record in fastwarc.ArchiveIterator(file, parse_http=True)
        ]
    assert "warcinfo" in records[0][0]
    read = {url: (http.status_code, body) for _, url, http, body in records[1:]}
    assert read == {url: (resource.status, resource.body) for url, resource in resources.items()}
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert len(truth["planted"]) == len(planted)
    copies = sum(row.kind.endswith("test-set copy") for row in planted)
    assert len(list((tmp_path / "test_set").iterdir())) == copies


def test_the_supervised_set_is_of_other_scenes(tmp_path, web):
    write_supervised(tmp_path / "small", 6, 3)
    records = list(Shards(tmp_path / "small"))
    assert len(records) == 6 and all(len(record.captions) == 5 for record in records)
    shown = {caption for captions in web[0].told.values() for caption in captions}
    assert sum(caption in shown for record in records for caption in record.captions) <= 2
