from collections import Counter
from dataclasses import replace

import pytest
from collected import shard_bytes
from killed import committed, killed_before
from PIL import Image
from small_web import GOOD, LengthScorer, asked, small_web, text

from crossgrain.collect.lock import alone
from crossgrain.collect.pipeline import retry, run_collect
from crossgrain.collect.stages.images import CRASHED, _name
from crossgrain.collect.takedown import remove
from crossgrain.config import UserError
from crossgrain.data.shards import Shards


def names_of(server, paths):
    return {_name(server.url(path)) for path in paths if path.endswith(".jpg")}


def test_killed_at_many_points_it_goes_on_to_the_same_bytes_and_asks_nobody_twice(web, whole, tmp_path):
    server, recipe = web
    out = tmp_path / "out"
    for step in (2, 7, 16, 34, 5, 19, 12, 27, 3, 21, 40):  # of those that the run before left to be done
        before, safe = Counter(server.asked), committed(out)
        finished = set((out / "work").glob("*/part-*.done.json"))
        assert killed_before(step, recipe, out), "it ended before its time: give it less"
        assert not names_of(server, server.asked - before) & safe
        assert finished <= set((out / "work").glob("*/part-*.done.json"))
    assert len(committed(out)) > 8  # so that there was something to be asked for twice
    safe = committed(out)
    _, requests = asked(server, run_collect, recipe, out)
    assert not names_of(server, requests) & safe
    assert shard_bytes(out) == shard_bytes(whole[0])
    assert not [file for file in out.rglob("*") if ".tmp-" in file.name or ".journal." in file.name]


def test_killed_while_another_rule_is_worked_in_it_asks_nobody_at_all(web, tmp_path):
    server, recipe = web
    recipe = replace(recipe, images=replace(recipe.images, max_side=64))  # what is kept is not the file that came
    out, stricter = tmp_path / "out", replace(recipe, sentences=replace(recipe.sentences, max_words=14))
    run_collect(recipe, out)
    before = Counter(server.asked)
    for step in (14, 20, 9, 25):
        assert killed_before(step, stricter, out), "it ended before its time: give it less"
    run_collect(stricter, out)
    assert not names_of(server, server.asked - before)
    run_collect(stricter, tmp_path / "fresh")
    assert shard_bytes(out) == shard_bytes(tmp_path / "fresh")


def test_two_runs_in_one_folder_are_kept_apart(web, tmp_path):
    _, recipe = web
    with alone(tmp_path / "work"), pytest.raises(UserError, match="another run is at work in"):
        run_collect(recipe, tmp_path)
    assert not (tmp_path / "recipe.yaml").exists()
    assert run_collect(recipe, tmp_path).num_pairs == GOOD


def test_a_run_that_keeps_nothing_says_where_all_went(web, tmp_path):
    _, recipe = web
    result = run_collect(replace(recipe, fetch_missing=False), tmp_path / "out")
    told = "nothing was kept: of 30 images none passed the stage images: 30 x in no archive"
    assert result.num_pairs == 0 and result.lines()[-1] == told
    with pytest.raises(UserError, match="is empty"):
        Shards(tmp_path / "out" / "shards")
    assert run_collect(recipe, tmp_path / "out").nothing == ""


def test_retry_asks_only_for_what_failed_for_the_moment(web, tmp_path):
    server, recipe = web
    out, lost = tmp_path / "out", {f"/{n}.jpg": server.paths[f"/{n}.jpg"] for n in (2, 3, 11)}
    recipe = replace(recipe, fetch=replace(recipe.fetch, backoff_seconds=0.01))
    server.paths |= dict.fromkeys(lost, (503, {}, b"later"))
    try:
        first = run_collect(recipe, out)
    finally:
        server.paths |= lost
    assert first.num_transient == 3 and first.num_pairs == GOOD - 3
    again, requests = asked(server, run_collect, recipe, out)
    assert again.num_transient == 3 and not requests
    last, requests = asked(server, retry, out)
    assert set(requests) == set(lost) and last.num_transient == 0
    run_collect(recipe, tmp_path / "fresh")
    assert shard_bytes(out) == shard_bytes(tmp_path / "fresh")


def test_work_that_fails_three_times_is_set_aside_and_the_rest_goes_on(web, tmp_path):
    _, recipe = web
    log = tmp_path / "log"
    result = run_collect(replace(recipe, scorer=LengthScorer.Config(log=log, fails_at=text(8))), tmp_path / "out")
    assert result.partial and [(one["stage"], one["reason"]) for one in result.given_up] == [
        ("scores", "ZeroDivisionError: this text")
    ]
    assert 0 < result.num_pairs < GOOD and "partial" in result.lines()[-1]
    assert list((tmp_path / "out" / "work" / "scores").glob("*.failed.json"))
    mended = run_collect(replace(recipe, scorer=LengthScorer.Config(log=log)), tmp_path / "out")
    assert not mended.partial and mended.num_pairs == GOOD
    assert not list((tmp_path / "out" / "work" / "scores").glob("*.failed.json"))


def test_what_was_taken_down_is_neither_asked_for_nor_kept_again(web, whole, tmp_path):
    server, recipe = web
    out = tmp_path / "out"
    run_collect(recipe, out)
    remove(out, urls=[server.url("/7.jpg")])
    result, requests = asked(server, run_collect, recipe, out)
    assert not requests and result.num_pairs == GOOD - 1
    urls = {record.extra["provenance"]["image_url"] for record in Shards(out / "shards")}
    assert server.url("/7.jpg") not in urls and len(urls) == GOOD - 1
    assert any(row.dropped.get("taken down") for row in result.funnel)


def test_an_image_that_ends_its_decoder_costs_itself_only(tmp_path):
    with small_web(tmp_path / "web", 12) as (server, recipe):
        Image.new("RGB", (64, 64), (0, 0, 0)).save(tmp_path / "dark.png")
        server.paths["/2.jpg"] = (200, {"Content-Type": "image/png"}, (tmp_path / "dark.png").read_bytes())
        recipe = replace(
            recipe, num_workers=1, tasks_per_domain=1, images=replace(recipe.images, unsafe="small_web:Deadly")
        )
        result = run_collect(recipe, tmp_path / "out")
    dropped = next(row.dropped for row in result.funnel if (row.stage, row.unit) == ("images", "images"))
    assert dropped[CRASHED] == 1 and result.num_pairs == 12 - 3 and not result.partial
