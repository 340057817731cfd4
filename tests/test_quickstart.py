"""Scenes, a detector, regions, a run and its report by one command, which goes on where it was stopped."""

import io
import json
import os

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from crossgrain import cli
from crossgrain.config import UserError
from crossgrain.data.regions import has_regions
from crossgrain.data.shards import Shards
from crossgrain.detection import pipeline
from crossgrain.quickstart import choose, find_regions, load
from crossgrain.recipes import build_learner, with_vocabulary
from tiny_runs import draw_scenes

DETECTOR = """
model: {image_size: 64, widths: [4, 8, 8], feature_dim: 8, proposals: 6}
batch_size: 4
steps: 2
train: {log_every: 1, num_workers: 0, tensorboard: false}
"""
CNN = """
batch_size: 4
steps: 2
train: {log_every: 1, num_workers: 0, tensorboard: false}
"""
SMALL = (
    "scenes.size=16", "scenes.image_size=64", "scenes.vocab_size=300", "model.dim=16", "model.depth=2",
    "model.num_heads=2", "model.mlp_dim=32", "train.num_workers=0", "train.tensorboard=false",
    "train.precision=float32", "train.log_every=1", "evaluation.splits=[test]",
)  # fmt: skip
TINY = (*SMALL, "model.feature_dim=8", "model.geometry_dim=16")
STAGES = [f"stages.{stage}.{key}" for stage in (0, 1) for key in ("steps=2", "schedule.warmup_steps=1")]
CLASSES = "objectives.1.num_classes=15"  # of the kinds of object that ten scenes happen to show
SOURCES = [f"stages.{stage}.sources.0.batch_size=4" for stage in (0, 1)]


@pytest.mark.parametrize(
    ("recipe", "overrides", "chosen"),
    [
        (None, ["seed=1"], ("quickstart", ["seed=1"])),
        (None, ["model=xvlm"], ("quickstart", [])),
        (None, ["seed=1", "model=vlbert", "model.dim=8"], ("quickstart_vlbert", ["seed=1", "model.dim=8"])),
        ("mine.yaml", ["model={type: xvlm}"], ("mine.yaml", ["model={type: xvlm}"])),
    ],
)
def test_a_familys_name_picks_its_recipe(recipe, overrides, chosen):
    assert choose(recipe, overrides) == chosen


def test_a_name_that_picks_nothing_or_too_much_is_refused():
    with pytest.raises(UserError, match="no quickstart for model 'vilbert': choose from imagebert, pixelbert, vlbert"):
        choose(None, ["model=vilbert"])
    with pytest.raises(UserError, match="model=vlbert and --recipe name a recipe each"):
        choose("mine.yaml", ["model=vlbert"])


def test_a_stopped_quickstart_goes_on_to_its_report(tmp_path, monkeypatch, capsys):
    detector, out = tmp_path / "detector.yaml", tmp_path / "run"
    detector.write_text(DETECTOR)
    named = ["model=vlbert", *TINY, *STAGES, *SOURCES, CLASSES, f"detector={detector}"]
    command = ["quickstart", *named, "--out", str(out)]
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})  # one process is enough for sixteen scenes
    write, stopped = pipeline.write_region_shard, []

    def stop_once(*arguments):
        if not stopped:
            stopped.append(True)
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(pipeline, "write_region_shard", stop_once)
    assert cli.main(command) == 130
    assert not has_regions(out / "data")
    trained = (out / "detector/log.jsonl").read_bytes()

    assert cli.main(command) == 0
    assert (out / "detector/log.jsonl").read_bytes() == trained  # and so was not trained again
    assert has_regions(out / "data")
    scores = json.loads((out / "evaluation/scores.json").read_text())
    assert scores["retrieval"]["protocol"] == "all pairs"
    assert 0 <= scores["masked_regions"]["accuracy"] <= 100 and scores["masked_words"]["words"] > 0
    assert "## Stages" in (out / "evaluation/report.md").read_text()
    said = capsys.readouterr().out
    assert "data is there already" in said

    stamp = out / "data/regions.json"
    stamp.write_text(stamp.read_text().replace('"score_threshold": 0.2', '"score_threshold": 0.3'))
    assert cli.main(["evaluate", str(out)]) == 2
    told = capsys.readouterr().err
    assert "regions of another detector than the checkpoint" in told
    assert "score_threshold 0.2" in told and "score_threshold 0.3" in told
    before = (out / "data/manifest.json").read_bytes()
    assert cli.main([*command, "scenes.seed=1"]) == 2
    assert "holds another run (scenes is" in capsys.readouterr().err
    assert (out / "data/manifest.json").read_bytes() == before


def test_one_detector_finds_the_regions_of_several_data_sets(tmp_path, monkeypatch):
    (tmp_path / "detector.yaml").write_text(DETECTOR)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    console = Console(file=io.StringIO(), width=200)
    first, second = draw_scenes(tmp_path / "first", size=16), draw_scenes(tmp_path / "second", size=8)
    find_regions([first], str(tmp_path / "detector.yaml"), tmp_path / "run", console)
    log = (tmp_path / "run/log.jsonl").read_bytes()
    find_regions([first, second], str(tmp_path / "detector.yaml"), tmp_path / "run", console)
    assert (tmp_path / "run/log.jsonl").read_bytes() == log  # it learns from the first alone, and once
    told = console.file.getvalue()
    assert f"regions: {first} has them already" in told and f"regions: {second} has them" not in told
    assert all(record.detected is not None for data in (first, second) for record in Shards(data, regions=True))
    assert (first / "regions.json").read_text() == (second / "regions.json").read_text()


def test_other_data_that_are_not_there_are_told_before_anything_is_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # and so the web is not where the recipe has it
    assert cli.main(["quickstart", "--recipe", "imagebert_lait_small", "--out", "run"]) == 2
    assert "no data set in data/scenes_web/shards" in capsys.readouterr().err
    assert not (tmp_path / "run" / "data").exists()


def test_a_cnn_that_learns_first_is_what_the_run_starts_from(tmp_path, monkeypatch, capsys):
    classifier, out = tmp_path / "cnn.yaml", tmp_path / "run"
    classifier.write_text(CNN)
    command = ["quickstart", "model=pixelbert", *SMALL, *STAGES, *SOURCES, "image.size=64", "--out", str(out)]
    command += [f"cnn_classifier={classifier}", "train.processes=1"]
    started = []

    def look(recipe, folder, **rest):
        model = build_learner(with_vocabulary(recipe, 300)).get_submodule("model.cnn.body").state_dict()
        started.append({name: tensor.clone() for name, tensor in model.items()})
        raise KeyboardInterrupt

    with monkeypatch.context() as before:
        before.setattr("crossgrain.runs.pretrain", look)
        assert cli.main(command) == 130
    taught = load_file(out / "data" / "cnn.safetensors")
    assert taught.keys() == started[0].keys()
    assert all(torch.equal(taught[name], tensor) for name, tensor in started[0].items())
    log = (out / "cnn/log.jsonl").read_bytes()
    assert len(log.splitlines()) == 2

    assert cli.main(command) == 0
    assert (out / "cnn/log.jsonl").read_bytes() == log  # it was not taught again
    scores = json.loads((out / "evaluation/scores.json").read_text())
    assert scores["retrieval"]["protocol"] == "all pairs" and scores["masked_words"]["words"] > 0
    (out / "data/cnn.safetensors").unlink()
    assert cli.main(["evaluate", str(out), "--limit", "2"]) == 0  # a run is complete without what it started from

    assert cli.main([*command, "cnn_classifier=quickstart_cnn"]) == 2
    assert "holds another run (cnn_classifier is" in capsys.readouterr().err


def test_a_model_without_a_cnn_cannot_be_given_one():
    with pytest.raises(UserError, match="quickstart_imagebert has cnn_classifier 'mine', but a model without a CNN"):
        load("quickstart_imagebert", ["cnn_classifier=mine"])
