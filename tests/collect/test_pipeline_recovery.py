import json
import multiprocessing
import random
import time
from collections import Counter
from dataclasses import replace

import pytest
from PIL import Image
from small_web import GOOD, LengthScorer, asked, shard_bytes, small_web, text

from crossgrain.collect import journal
from crossgrain.collect.pipeline import retry, run_collect
from crossgrain.collect.stages.images import CRASHED, _name
from crossgrain.collect.takedown import remove
from crossgrain.data.shards import Shards


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    with small_web(tmp_path_factory.mktemp("web")) as (server, recipe):
        yield server, recipe


@pytest.fixture(scope="module")
def whole(web, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    result = run_collect(web[1], out)
    return out, result


def committed(out):
    """Names of the addresses whose outcome is on disk."""
    found = set()
    for file in (out / "work" / "images").glob("*.journal.jsonl"):
        lines = file.read_bytes().split(b"\n")[1:-1]
        found |= {json.loads(line)["name"] for line in lines}
    return found


def test_killed_at_random_points_it_goes_on_to_the_same_bytes_and_asks_nobody_twice(web, whole, tmp_path, monkeypatch):
    server, recipe = web
    out = tmp_path / "out"
    monkeypatch.setattr(journal, "_EVERY", 2)  # forked processes have it too
    start = time.monotonic()
    run_collect(recipe, tmp_path / "timed")
    seconds = time.monotonic() - start
    dice, repeated, killed = random.Random(0), [], 0
    for _ in range(20):
        before, on_disk = Counter(server.asked), committed(out)
        finished = set((out / "work" / "images").glob("part-*.done.json"))
        process = multiprocessing.get_context("fork").Process(target=run_collect, args=(recipe, out))
        process.start()
        process.join(dice.uniform(0.01, 0.25) * seconds)
        killed += process.exitcode is None
        process.kill()
        process.join()
        again = {_name(server.url(path)) for path in server.asked - before if path.endswith(".jpg")}
        repeated += sorted(again & on_disk)
        assert finished <= set((out / "work" / "images").glob("part-*.done.json"))
    run_collect(recipe, out)
    assert shard_bytes(out) == shard_bytes(whole[0])
    assert not repeated and killed >= 3
    assert not [file for file in out.rglob("*") if ".tmp-" in file.name or ".journal." in file.name]


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
