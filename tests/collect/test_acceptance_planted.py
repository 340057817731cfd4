"""The whole pipeline over a planted web in archives: what is found, what is told, and the same bytes however it ran."""

import io
import json
from collections import defaultdict
from dataclasses import replace

import pytest
from collected import shard_bytes
from PIL import Image
from planted_web import NamesThings, archived

from crossgrain.collect.funnel import read_funnel
from crossgrain.collect.pipeline import run_collect
from crossgrain.collect.planted import judge, read_truth
from crossgrain.collect.planted_scorer import PhotographScorer
from crossgrain.collect.recipe import Threshold
from crossgrain.collect.scoring.training import ScorerTraining
from crossgrain.data.shards import Shards

PAGES = 60
UNSEEN = {"mismatched caption", "keyword list"}  # what no rule and no look at the text alone can know


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    out = tmp_path_factory.mktemp("collected") / "run"
    recipe = archived(PAGES, scorer=NamesThings.Config(), threshold=Threshold(value=0.15))
    return out, recipe, run_collect(recipe, out)


def test_good_pairs_are_found_and_what_rules_can_know_is_dropped(collected):
    out, _, result = collected
    judgement = judge(out / "shards", out / "web")
    assert judgement.recall >= 0.95, "\n".join(judgement.lines())
    wrong = {row.kind: row.num_kept for row in judgement.bad if row.num_kept}
    assert wrong.keys() <= UNSEEN and wrong.get("keyword list", 0) <= 1, "\n".join(judgement.lines())
    assert result.num_pairs == judgement.num_kept and not result.partial
    assert min(row.num_kept / row.num_planted for row in (*judgement.places, *judgement.forms)) > 0.7


def test_the_account_adds_up_within_stages_and_from_stage_to_stage(collected):
    out, _, result = collected
    rows = read_funnel(out / "funnel.json")
    assert rows == result.funnel
    last = {}
    for row in rows:
        assert row.num_in == row.num_out + sum(row.dropped.values())
        if row.unit in last:
            assert row.num_in == last[row.unit], f"{row.stage}: {row.unit}"
        last[row.unit] = row.num_out
    reasons = {reason for row in rows for reason in row.dropped}
    for said in (
        "too small",
        "aspect",
        "unnatural",
        "test set",
        "opted out",
        "too many images",
        "boilerplate",
        "language",
    ):
        assert any(said in reason for reason in reasons), said
    assert last["pairs"] == result.num_pairs


def test_pairs_carry_where_they_are_from_and_pictures_are_large_enough(collected):
    out, _, _ = collected
    truth = read_truth(out / "web")
    pages = {url: row["page"] for row in truth["planted"] for url in row["images"]}
    texts, hashes = defaultdict(int), set()
    for record in Shards(out / "shards"):
        said = record.extra["provenance"]
        assert said["page_url"] == pages[said["image_url"]]
        assert said["language"] == "en" and said["text_kind"] in ("alt", "title", "figcaption", "near")
        assert len(said["sha256"]) == 64 and said["score"] >= 0.15
        image = Image.open(io.BytesIO(record.image))
        image.load()
        assert min(image.size) > 300
        texts[record.captions[0]] += 1
        hashes.add(said["sha256"])
    assert max(texts.values()) <= 10 and len(hashes) == sum(texts.values())


def test_more_workers_make_the_same_bytes_and_a_second_run_changes_nothing(collected, tmp_path):
    out, recipe, _ = collected
    first = shard_bytes(out)
    assert run_collect(recipe, out).num_pairs and shard_bytes(out) == first
    run_collect(replace(recipe, num_workers=2), tmp_path / "two")
    assert shard_bytes(tmp_path / "two") == first
    assert len(json.loads(first["manifest.json"])["shards"]) >= 2


def test_the_scorer_of_photographs_is_trained_once(tmp_path):
    training = ScorerTraining(steps=10, max_held_out=32, head_epochs=2)
    config = PhotographScorer.Config(folder=tmp_path, images=40, training=training)
    first = PhotographScorer(config)
    files = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    assert PhotographScorer(config).fingerprint() == first.fingerprint()
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()} == files
    assert len(list(tmp_path.iterdir())) == 1  # nothing of the training is left
