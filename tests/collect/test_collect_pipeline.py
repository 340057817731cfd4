import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from collected import shard_bytes
from small_web import GOOD, LengthScorer, asked, text

from crossgrain.collect.funnel import read_funnel
from crossgrain.collect.pipeline import retry, run_collect
from crossgrain.collect.samples import read_samples
from crossgrain.config import UserError
from crossgrain.data.shards import Shards


def done(out, stage):
    return {file: file.stat().st_mtime_ns for file in (out / "work" / stage).glob("part-*.done.json")}


def test_every_image_is_accounted_for_at_every_stage(whole):
    out, result = whole
    rows = {(row.stage, row.unit): row for row in result.funnel}
    assert read_funnel(out / "funnel.json") == result.funnel
    for unit, *stages in (
        ("images", "pages", "merge", "images"),
        ("texts", "pages", "merge", "images"),
        ("pairs", "scores", "aggregate", "select", "shards"),
    ):
        for before, after in itertools.pairwise(stages):
            assert rows[before, unit].num_out == rows[after, unit].num_in, (unit, after)
    assert rows["images", "texts"].num_out == rows["scores", "pairs"].num_in
    assert rows["images", "images"].num_in == 30 and rows["images", "images"].num_out == GOOD
    assert rows["images", "images"].num_dropped == 4
    assert result.num_pairs == len(Shards(out / "shards")) == GOOD and not result.partial


def test_records_hold_their_text_and_where_they_come_from(whole, web):
    server, _ = web
    records = {record.extra["provenance"]["image_url"]: record for record in Shards(whole[0] / "shards")}
    record = records[server.url("/7.jpg")]
    told = record.extra["provenance"]
    assert record.captions == (text(7),) and len(record.key) == 20 and len(told["phash"]) == 16
    assert told["language"] == "en" and told["score"] is None and told["opt_outs_checked"]
    assert {record.split for record in records.values()} <= {"train", "val"}
    assert (whole[0] / "shards" / "vocab.txt").is_file()


def test_examples_of_what_was_dropped_and_kept_are_there(whole):
    samples = read_samples(whole[0] / "samples" / "samples.jsonl")
    kept = [sample for sample in samples if sample.stage == "shards"]
    lost = [sample for sample in samples if sample.stage == "images"]
    assert len(kept) == 8 and all(sample.picture and sample.text for sample in kept)
    assert len(lost) == 4 and all(sample.image_url and sample.reason for sample in lost)


def test_a_second_run_asks_nobody_and_does_nothing(whole, web):
    server, recipe = web
    out, first = whole
    before = shard_bytes(out), done(out, "pages"), done(out, "shards")
    result, requests = asked(server, run_collect, recipe, out)
    assert (shard_bytes(out), done(out, "pages"), done(out, "shards")) == before
    assert result.funnel == first.funnel and not requests


def test_two_worker_processes_make_the_same_bytes(whole, web, tmp_path):
    run_collect(replace(web[1], num_workers=2), tmp_path / "out")
    assert shard_bytes(tmp_path / "out") == shard_bytes(whole[0])


def test_a_changed_rule_runs_its_stage_and_what_follows_and_fetches_nothing(web, tmp_path):
    server, recipe = web
    recipe = replace(recipe, images=replace(recipe.images, max_side=64))  # what is kept is not the file that came
    out = tmp_path / "out"
    run_collect(recipe, out)
    before = {stage: done(out, stage) for stage in ("pages", "merge", "images", "scores", "aggregate")}
    changed = replace(recipe, seed=5)
    result, requests = asked(server, run_collect, changed, out)
    after = {stage: done(out, stage) for stage in before}
    assert [stage for stage in before if before[stage] != after[stage]] == ["aggregate"]
    assert [record.key for record in Shards(out / "shards")] != [] and not requests
    stricter = replace(changed, sentences=replace(recipe.sentences, max_words=14))
    result, requests = asked(server, run_collect, stricter, out)
    assert not requests and done(out, "images") != before["images"]
    run_collect(stricter, tmp_path / "fresh")
    assert shard_bytes(out) == shard_bytes(tmp_path / "fresh")
    assert result.num_pairs == len(Shards(out / "shards")) == GOOD // 2 + 1  # those with an even number


def test_each_distinct_image_and_text_is_embedded_once_and_the_percentile_is_a_score(web, tmp_path):
    _, recipe = web
    config = LengthScorer.Config(log=tmp_path / "log")
    recipe = replace(recipe, scorer=config, threshold=replace(recipe.threshold, percentile=50.0))
    (tmp_path / "log").touch()
    result = run_collect(recipe, tmp_path / "out")
    seen = Counter((tmp_path / "log").read_text().splitlines())
    assert set(seen.values()) == {1} and len(seen) == 2 * GOOD
    scores = [record.extra["provenance"]["score"] for record in Shards(tmp_path / "out" / "shards")]
    every = [len(text(n)) / 100 for n in range(30) if n % 10 != 9 and n != 4]
    assert sorted(scores) == pytest.approx(sorted(s for s in every if s >= np.percentile(every, 50, method="higher")))
    assert 0 < result.num_pairs < GOOD


def test_folders_that_hold_something_else_are_left_alone(web, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="holds something else"):
        run_collect(web[1], tmp_path)
    with pytest.raises(UserError, match="no collection in"):
        retry(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": ()}, "inputs is empty"),
        ({"threshold": {"value": 0.1, "percentile": 5}}, "not both"),
        ({"threshold": {"value": 0.1}}, "needs a scorer"),
        ({"scorer": {"type": "featurs", "path": "x"}}, "did you mean 'features'"),
        ({"engine": "spark"}, "engine"),
        ({"val_share": 1.0}, "val_share"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(changes, message):
    from crossgrain.collect.recipe import CollectRecipe
    from crossgrain.config import read_config

    tree = {"inputs": [{"path": "crawl.warc.gz"}], **changes}
    with pytest.raises(UserError, match=message):
        read_config(CollectRecipe, tree, "recipe")
