"""Whole runs on drawn scenes: what they leave behind, killed and continued, on two ranks, as one graph, as ever."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from crossgrain.recipes import build_learner, load_run_recipe
from crossgrain.training.log import read_log
from full_stack import LOSSES

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """The folder in which full_stack.py left its runs."""
    folder = tmp_path_factory.mktemp("runs")
    environment = {**os.environ, "COLUMNS": "200"}
    # A file, not a pipe: the data workers of a killed process outlive it for a while and would hold a pipe open.
    with (folder / "output").open("w") as output:
        command = [sys.executable, HERE / "full_stack.py", folder]
        ended = subprocess.run(command, stdout=output, stderr=output, env=environment)
    assert ended.returncode == 0, (folder / "output").read_text()
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    folder = run / "checkpoints" / f"step_{step:08d}"
    return load_file(folder / "model.safetensors") | load_file(folder / "objectives.safetensors")


def test_every_process_ended_as_it_should(runs):
    ends = json.loads((runs / "ends.json").read_text())
    assert ends.pop("killed") == -9
    assert ends.pop("ranks") == [0, 0]
    assert ends.pop("staged_killed") == [-9, -9, -9]
    assert set(ends.values()) == {0}, (ends, (runs / "output").read_text())


def test_a_run_leaves_the_files_that_the_contract_names(runs):
    run = runs / "unbroken"
    assert names(run) == {"recipe.yaml", "vocab.txt", "log.jsonl", "checkpoints", "evaluation"}
    assert names(run / "checkpoints") == {f"step_{step:08d}" for step in (3, 6, 8)}
    saved = {f"{part}.safetensors" for part in ("model", "objectives", "training")} | {"recipe.yaml", "state.json"}
    assert all(names(checkpoint) == saved for checkpoint in (run / "checkpoints").iterdir())
    assert names(run / "evaluation") >= {"predictions.jsonl", "scores.json", "report.html", "report.md"}
    lines = read_log(run / "log.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 9))
    losses = {f"{name}/loss" for name in ("itc", "itm", "mlm", "box")}
    assert all({"loss", "lr", "grad_norm", "samples_per_second"} | losses <= set(line) for line in lines)
    assert [line["step"] for line in lines if "validation/score" in line] == [3, 6, 8]


def test_a_runs_recipe_is_complete(runs):
    """Nothing is left to a default that may change, and the checkpoint's recipe is the run's."""
    saved = (runs / "unbroken" / "recipe.yaml").read_text()
    recipe, given = load_run_recipe(runs / "unbroken" / "recipe.yaml"), load_run_recipe(runs / "tiny.yaml")
    assert recipe.model.vocab_size == len((runs / "data" / "vocab.txt").read_text().split())
    assert recipe.stages == given.stages
    assert "temperature: 0.07" in saved
    assert (runs / "unbroken" / "checkpoints" / "step_00000008" / "recipe.yaml").read_text() == saved


def test_scores_are_those_of_the_contract(runs):
    scores = json.loads((runs / "unbroken" / "evaluation" / "scores.json").read_text())
    cutoffs, directions = {"R@1", "R@5", "R@10"}, ("text_to_image", "image_to_text")
    for block in (scores, scores["unseen"]):
        retrieval = block["retrieval"]
        assert retrieval["gallery"] == {"images": 8, "texts": 40}
        for side in (retrieval, retrieval["without_rerank"]):
            assert all(set(side[direction]) >= cutoffs for direction in directions)
            assert all(0 <= side[direction][cutoff] <= 100 for direction in directions for cutoff in cutoffs)
        assert 0 <= block["grounding"]["accuracy@0.5"] <= 100


def test_the_report_stands_alone(runs):
    page = (runs / "unbroken" / "evaluation" / "report.html").read_text()
    assert "X-VLM in miniature" in page
    assert 'src="http' not in page
    assert "<link" not in page


def test_a_killed_run_continues_to_the_weights_of_an_unbroken_one_bit_for_bit(runs):
    """All four objectives, dropout, two workers, a source with updates of its own, validation with every checkpoint."""
    recipe = load_run_recipe(runs / "broken" / "recipe.yaml")
    assert (recipe.model.dropout, recipe.train.num_workers, len(recipe.objectives)) == (0.1, 2, 4)
    for name in ("model", "objectives", "training"):
        file = Path("checkpoints", "step_00000008", f"{name}.safetensors")
        assert (runs / "broken" / file).read_bytes() == (runs / "unbroken" / file).read_bytes()
    losses = [[line["loss"] for line in read_log(runs / run / "log.jsonl")] for run in ("broken", "unbroken")]
    assert losses[0] == losses[1]


def test_stages_follow_each_other_and_a_run_killed_in_both_ends_as_an_unbroken_one(runs):
    """Killed in the first stage, in the second, and in the second again after it went on from where the first ends."""
    for name in ("model", "objectives", "training"):
        file = Path("checkpoints", "step_00000008", f"{name}.safetensors")
        assert (runs / "halted" / file).read_bytes() == (runs / "staged" / file).read_bytes()
    lines, expected = (read_log(runs / run / "log.jsonl") for run in ("halted", "staged"))
    assert [line["loss"] for line in lines] == [line["loss"] for line in expected]
    assert [line["stage"] for line in lines] == ["alone"] * 4 + ["pairs"] * 4
    assert ["itm/loss" in line for line in lines] == [False] * 4 + [True] * 4
    assert (lines[3]["lr"], lines[4]["lr"]) == (pytest.approx(2.5e-4), pytest.approx(5e-4))


def test_a_stage_starts_from_the_weights_of_the_one_before_with_a_fresh_optimizer(runs):
    before, after = weights(runs / "staged", 4), weights(runs / "staged", 6)
    moved = max((after[name] - tensor).abs().max().item() for name, tensor in before.items())
    assert 0 < moved < 1.5e-3  # two steps of at most the rate each
    training = load_file(runs / "staged" / "checkpoints" / "step_00000008" / "training.safetensors")
    assert {tensor.item() for name, tensor in training.items() if name.startswith("step/")} == {4.0}


def test_two_ranks_learn_what_one_process_learns(runs):
    """Without ITM, whose hard negatives are drawn among a rank's own rows (full_stack.py, RANKS)."""
    alone, together = weights(runs / "alone", 3), weights(runs / "together", 3)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    before = build_learner(load_run_recipe(runs / "alone" / "recipe.yaml")).model.state_dict()
    moved = [(alone[name] - value).abs().max().item() for name, value in before.items()]
    assert max(moved) > 1e-3  # else nothing was compared


def test_a_step_is_one_graph_under_torch_compile(runs):
    assert json.loads((runs / "graphs.json").read_text()) == {"graphs": 1, "breaks": 0, "reasons": []}


def test_the_losses_are_those_on_record(runs):
    recorded = (HERE / "golden" / "xvlm_tiny.txt").read_text().splitlines()
    expected = [[float(number) for number in line.split()] for line in recorded if not line.startswith("#")]
    lines = read_log(runs / "golden" / "log.jsonl")
    assert len(lines) == len(expected) == 10
    for line, numbers in zip(lines, expected, strict=True):
        assert [line[key] for key in LOSSES] == pytest.approx(numbers, rel=1e-4), f"step {line['step']}"
