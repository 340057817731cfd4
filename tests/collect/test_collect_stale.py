"""What an earlier run left is used where it still holds, and nowhere else."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from archived_web import IMAGE, OTHER_IMAGE, PAGE, collected, recipe_of, write_archive
from collected import shard_bytes
from killed import killed_before
from small_web import GOOD, LengthScorer, asked, picture, text

from crossgrain.collect import steps
from crossgrain.collect.journal import Journal
from crossgrain.collect.pipeline import run_collect
from crossgrain.collect.recipe import CollectRecipe, ScenesWeb
from crossgrain.collect.stages.images import EARLIER
from crossgrain.config import UserError, dump_config, read_config
from crossgrain.data.regions import RegionFeatures, finish_regions, has_regions, open_regions, write_region_shard
from crossgrain.data.scenes import web as web_of_scenes
from crossgrain.data.shards import Shards


def test_another_picture_in_the_archive_is_another_picture_in_the_data(tmp_path):
    for number in (1, 2):
        recipe = recipe_of(write_archive(tmp_path / "a.warc.gz", {PAGE: [(IMAGE, text(1))]}, {IMAGE: picture(number)}))
        for out in (tmp_path / "out", tmp_path / f"fresh{number}"):
            run_collect(recipe, out)
    assert shard_bytes(tmp_path / "out") == shard_bytes(tmp_path / "fresh2") != shard_bytes(tmp_path / "fresh1")


def test_another_picture_of_the_same_size_at_the_same_place_is_seen(tmp_path):
    dark, light = (picture(number) + bytes(20_000 - len(picture(number))) for number in (1, 2))
    for data in (dark, light):
        recipe = recipe_of(write_archive(tmp_path / "a.warc.gz", {PAGE: [(IMAGE, text(1))]}, {IMAGE: data}))
        run_collect(recipe, tmp_path / "out")
    run_collect(recipe, tmp_path / "fresh")
    assert shard_bytes(tmp_path / "out") == shard_bytes(tmp_path / "fresh")


def test_what_a_killed_run_read_from_an_archive_is_read_again_where_the_archive_is_another(tmp_path, monkeypatch):
    shown = {PAGE: [(IMAGE, text(1)), (OTHER_IMAGE, text(2))]}
    first = {IMAGE: picture(1), OTHER_IMAGE: picture(2)}
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "remove", lambda _: None)  # as if it were killed before
        run_collect(recipe_of(write_archive(tmp_path / "a.warc.gz", shown, first)), tmp_path / "out")
    (tmp_path / "out" / "work" / "images" / "part-00000.done.json").unlink()
    recipe = recipe_of(write_archive(tmp_path / "a.warc.gz", shown, {**first, IMAGE: picture(3)}))
    for out in (tmp_path / "out", tmp_path / "fresh"):
        run_collect(recipe, out)
    assert shard_bytes(tmp_path / "out") == shard_bytes(tmp_path / "fresh")


def test_an_archive_that_is_added_gives_the_images_that_it_holds(tmp_path):
    pages = write_archive(tmp_path / "pages.warc.gz", {PAGE: [(IMAGE, text(1))]}, {})
    assert run_collect(recipe_of(pages), tmp_path / "out").num_pairs == 0
    images = write_archive(tmp_path / "images.warc.gz", {}, {IMAGE: picture(1)})
    run_collect(recipe_of(pages, images), tmp_path / "out")
    assert collected(tmp_path / "out") == {IMAGE: text(1)}


@pytest.mark.parametrize("changes", [{"num_buckets": 7}, {"num_buckets": 2}, {"tasks_per_domain": 2}])
def test_work_that_is_cut_in_another_way_asks_nobody_again(web, whole, tmp_path, changes):
    server, recipe = web
    recipe = replace(recipe, images=replace(recipe.images, max_side=64))  # what is kept is not the file that came
    out, changed = tmp_path / "out", replace(recipe, **changes)
    run_collect(recipe, out)
    _, requests = asked(server, run_collect, changed, out)
    assert not requests and not (out / "work" / "images" / EARLIER).exists()
    run_collect(changed, tmp_path / "fresh")
    assert shard_bytes(out) == shard_bytes(tmp_path / "fresh")


def test_killed_while_the_work_is_cut_in_another_way_it_asks_nobody_again(web, tmp_path):
    server, recipe = web
    out, changed = tmp_path / "out", replace(recipe, num_buckets=7)
    run_collect(recipe, out)
    before = Counter(server.asked)
    for step in (33, 27, 21, 30):
        assert killed_before(step, changed, out), "it ended before its time: give it less"
    run_collect(changed, out)
    assert not {path for path in server.asked - before if path.endswith(".jpg")}
    run_collect(changed, tmp_path / "fresh")
    assert shard_bytes(out) == shard_bytes(tmp_path / "fresh")


def test_a_changed_title_and_vocabulary_reach_the_data_and_a_deleted_one_comes_back(web, tmp_path):
    _, recipe = web
    out, changed = tmp_path / "out", replace(recipe, vocab_size=50, title="another")
    run_collect(recipe, out)
    run_collect(changed, out)
    run_collect(changed, tmp_path / "fresh")
    assert shard_bytes(out) == shard_bytes(tmp_path / "fresh")
    assert json.loads((out / "shards" / "manifest.json").read_text())["source"]["title"] == "another"
    (out / "shards" / "vocab.txt").unlink()
    run_collect(changed, out)
    assert shard_bytes(out) == shard_bytes(tmp_path / "fresh")
    run_collect(replace(changed, vocab_size=0), out)
    assert not (out / "shards" / "vocab.txt").exists()


def test_regions_stay_with_the_shards_that_they_are_of_and_go_with_them(web, tmp_path):
    _, recipe = web
    out, data = tmp_path / "out", tmp_path / "out" / "shards"
    run_collect(recipe, out)
    open_regions(data, {"detector": "test"})
    for shard in Shards(data).manifest["shards"]:
        write_region_shard(data, shard["name"], [])
    finish_regions(data)
    run_collect(replace(recipe, title="another"), out)
    assert has_regions(data) and isinstance(Shards(data, regions=True)[0].detected, RegionFeatures | None)
    run_collect(replace(recipe, seed=9), out)
    assert not has_regions(data) and not list(data.glob("*.regions.*"))
    with pytest.raises(UserError, match="run `crossgrain detect"):
        Shards(data, regions=True)


def test_a_smaller_drawn_web_leaves_no_page_of_the_larger_one(tmp_path, monkeypatch):
    monkeypatch.setattr(web_of_scenes, "PAGES_PER_WARC", 6)

    def drawn(out, pages):
        steps.Steps(CollectRecipe(scenes_web=ScenesWeb(pages=pages), fetch_missing=False), out)
        return sorted(str(file.relative_to(out)) for file in (out / "web").rglob("*.*"))

    assert {"web/web-00000.warc.gz", "web/web-00001.warc.gz"} < set(drawn(tmp_path / "out", 12))
    assert drawn(tmp_path / "out", 4) == drawn(tmp_path / "fresh", 4)


def boom(*arguments, **options):
    raise MemoryError("far too much")


def test_the_data_of_an_earlier_run_stay_where_the_decision_is_given_up(web, whole, tmp_path, monkeypatch):
    _, recipe = web
    out = tmp_path / "out"
    run_collect(recipe, out)
    with monkeypatch.context() as patch:
        patch.setattr(steps, "plan_shards", boom)
        result = run_collect(replace(recipe, seed=9), out)
        first = run_collect(recipe, tmp_path / "first")
    assert shard_bytes(out) == shard_bytes(whole[0])
    assert result.partial and f"{GOOD} pairs in {out / 'shards'}, as an earlier run left them" in result.lines()
    assert first.lines()[-1] == "nothing was kept: given up: aggregate all: MemoryError: far too much"


def test_a_threshold_that_is_given_up_lets_nothing_pass(web, tmp_path, monkeypatch):
    recipe = replace(web[1], scorer=LengthScorer.Config(log=tmp_path / "log"))
    recipe = replace(recipe, threshold=replace(recipe.threshold, percentile=90.0))
    with monkeypatch.context() as patch:
        patch.setattr(steps, "find_threshold", boom)
        result = run_collect(recipe, tmp_path / "out")
    assert (result.num_pairs, [one["stage"] for one in result.given_up]) == (0, ["threshold"])
    assert 0 < run_collect(recipe, tmp_path / "out").num_pairs < GOOD


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sentences": {"language": "xx"}}, "language 'xx' is not known"),
        ({"images": {"unsafe": "no_such_module:Class"}}, "cannot be made"),
        ({"sentences": {"profanity": "no_such_list.txt"}}, "no list of phrases"),
        ({"images": {"blocklist": {"file_hashes": ["no_such_list.txt"]}}}, "cannot be read"),
    ],
)
def test_a_recipe_with_a_mistake_is_not_what_the_collection_was_made_by(web, tmp_path, changes, message):
    out = tmp_path / "out"
    run_collect(web[1], out)
    before = (out / "recipe.yaml").read_text()
    tree = dump_config(web[1])
    for part, values in changes.items():
        tree[part] |= values
    with pytest.raises(UserError, match=message):
        run_collect(read_config(CollectRecipe, tree, "recipe"), out)
    assert (out / "recipe.yaml").read_text() == before
