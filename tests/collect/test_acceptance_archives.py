"""Real archives: one with pages and images, and those whose edges break readers."""

from pathlib import Path

import pytest
from planted_web import SMALL

from crossgrain.collect.pages.inputs import Input
from crossgrain.collect.pipeline import run_collect
from crossgrain.collect.recipe import CollectRecipe, ImageFilterConfig, SentenceConfig
from crossgrain.data.shards import Shards

WEB = Path(__file__).parents[3] / "shared" / "web"
pytestmark = pytest.mark.skipif(not WEB.is_dir(), reason=f"needs the real pages in {WEB}")


def collect(out, *inputs, **changes):
    recipe = CollectRecipe(**{**SMALL, "inputs": inputs, "fetch_missing": False, **changes})
    result = run_collect(recipe, out)
    last = {}
    for row in result.funnel:
        assert row.num_in == row.num_out + sum(row.dropped.values())
        assert last.get(row.unit, row.num_in) == row.num_in, row
        last[row.unit] = row.num_out
    assert not result.partial
    return result


def test_an_archive_with_pages_and_images_gives_pairs_from_within_itself(tmp_path):
    # pages of 2008 show small images with few words
    loose = {"images": ImageFilterConfig(min_side=80, min_natural=0.0), "sentences": SentenceConfig(preset="laion")}
    result = collect(tmp_path / "run", Input(path=WEB / "archiveorg2008.warc.gz"), **loose)
    assert result.num_pairs >= 1
    for record in Shards(tmp_path / "run" / "shards"):
        assert record.extra["provenance"]["image_url"].startswith("http") and len(record.image) > 500
    fetched = [row for row in result.funnel if row.stage == "images" and row.unit == "images"]
    assert fetched[0].num_out >= 1


def test_every_edge_case_is_read_or_refused_with_a_counted_reason(tmp_path):
    files = sorted(file for file in (WEB / "edge_cases").iterdir() if file.is_file())
    result = collect(tmp_path / "run", *(Input(path=file, kind="warc") for file in files))
    pages = next(row for row in result.funnel if row.stage == "pages" and row.unit == "pages")
    assert pages.num_in >= len(files) and pages.dropped


def test_a_folder_of_real_pages_adds_up(tmp_path):
    result = collect(tmp_path / "run", Input(path=WEB / "pages", kind="html"))
    units = {row.unit: row for row in result.funnel if row.stage == "pages"}
    assert units["pages"].num_in >= 100 and units["images"].num_in > 1000 and units["texts"].num_out > 100
