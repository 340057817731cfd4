"""Whole fine-tuning runs on drawn scenes, one for each task: what they learn and answer, killed and continued."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from crossgrain.bench.table import dig
from crossgrain.config import RecipeError, UserError, find_class
from crossgrain.data.shards import Shards
from crossgrain.evaluation.score import read_predictions
from crossgrain.finetuning import FinetuneRecipe
from crossgrain.metrics.grounding import accuracy_at, iou
from crossgrain.metrics.vqa import vqa_accuracy
from crossgrain.recipes import build_learner, load_run, load_run_recipe, settled
from crossgrain.tasks.interface import TASKS as TABLE
from crossgrain.training.checkpoint import checkpoint_of
from crossgrain.training.log import read_log
from tuned_stack import STARTS, STEPS, TASKS

HERE = Path(__file__).parent
CELLS = [f"{task}_{family}" for task in TASKS for family in STARTS]
ASKED = {"vqa": "questions", "nlvr2": "pairs", "grounding": "expressions"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """The folder in which tuned_stack.py left its runs."""
    folder = tmp_path_factory.mktemp("tuned")
    with (folder / "output").open("w") as output:
        command = [sys.executable, HERE / "tuned_stack.py", folder]
        ended = subprocess.run(command, stdout=output, stderr=output, env={**os.environ, "COLUMNS": "200"})
    assert ended.returncode == 0, (folder / "output").read_text()
    return folder


def scores_of(run: Path) -> dict:
    return json.loads((run / "evaluation" / "scores.json").read_text())


def test_every_process_ended_as_it_should(runs):
    ends = json.loads((runs / "ends.json").read_text())
    assert ends.pop("killed") == -9
    assert set(ends.values()) == {0}, (ends, (runs / "output").read_text())
    assert set(ends) >= set(CELLS)


@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_of_the_table(runs, cell):
    """Its loss falls, its predictions are complete, and its score is that of the lines alone."""
    task = cell.partition("_")[0]
    losses = [line["loss"] for line in read_log(runs / cell / "log.jsonl")]
    assert len(losses) == STEPS
    assert np.mean(losses[-6:]) < np.mean(losses[:6])
    lines = read_predictions(runs / cell / "evaluation" / "predictions.jsonl")["test"][task]
    records = Shards(runs / "data", "test")
    if task in ASKED:
        assert len(lines) == sum(len(record.extra[ASKED[task]]) for record in records)
    elif task == "vcr":
        items = sum(len(record.extra["choices"]) for record in records)
        assert {line["kind"] for line in lines} == {"answer", "rationale"} and len(lines) == 2 * items
    elif task == "retrieval":
        assert len(lines) == sum(1 + len(record.captions) for record in records)
    else:
        assert [line["key"] for line in lines] == [record.key for record in records]
    assert find_class(task, TABLE).score(lines) == scores_of(runs / cell)[task]


def test_scores_follow_from_the_predictions_by_the_official_metrics(runs):
    lines = read_predictions(runs / "vqa_xvlm" / "evaluation" / "predictions.jsonl")["test"]["vqa"]
    expected = np.mean([vqa_accuracy(line["answer"], line["answers"]) for line in lines])
    assert dig(scores_of(runs / "vqa_xvlm"), ("vqa", "accuracy")) == pytest.approx(100 * expected, abs=0.005)
    lines = read_predictions(runs / "grounding_imagebert" / "evaluation" / "predictions.jsonl")["test"]["grounding"]
    found = iou(np.array([line["box"] for line in lines]), np.array([line["truth"] for line in lines]))
    told = dig(scores_of(runs / "grounding_imagebert"), ("grounding", "accuracy@0.5"))
    assert told == pytest.approx(100 * accuracy_at(found), abs=0.005)


def test_a_killed_run_continues_to_the_weights_of_an_unbroken_one_bit_for_bit(runs):
    """With dropout and a data worker; the answer vocabulary is not made anew."""
    for name in ("model", "objectives", "training"):
        file = Path("checkpoints", f"step_{STEPS:08d}", f"{name}.safetensors")
        assert (runs / "broken" / file).read_bytes() == (runs / "noisy" / file).read_bytes()
    losses = [[line["loss"] for line in read_log(runs / run / "log.jsonl")] for run in ("broken", "noisy")]
    assert losses[0] == losses[1]
    assert (runs / "broken" / "answers.txt").read_text() == (runs / "noisy" / "answers.txt").read_text()


def test_it_starts_from_the_weights_of_the_run_that_it_names(runs):
    """At a rate of nothing the model stays what pre-training made of it, and the head has adopted its words."""
    first = load_file(checkpoint_of(runs / "first") / "model.safetensors")
    tuned = load_file(runs / "vqa_xvlm" / "checkpoints" / "step_00000004" / "model.safetensors")
    moved = max((tuned[name] - tensor).abs().max().item() for name, tensor in first.items())
    assert 0 < moved < 4 * 3e-3 * 3  # four steps of at most the rate, which new parameters have a multiple of
    recipe = load_run_recipe(runs / "vqa_xvlm" / "recipe.yaml")
    start = load_run_recipe(runs / "first" / "recipe.yaml")
    assert isinstance(recipe, FinetuneRecipe)
    assert (recipe.image, recipe.model.dim) == (start.image, start.model.dim)
    assert recipe.text.vocab == str(runs / "first" / "vocab.txt")


def test_a_blind_run_answers_every_picture_alike(runs):
    trained = load_run(runs / "blind").trained()
    records = Shards(runs / "data", "test")
    image = trained.read_images([records[0], records[1]])
    assert (image.pixels == 128).all()
    asked = [replace(record, extra={"questions": [{"question": "Is there a star?"}]}) for record in records[:8]]
    task = find_class("vqa", TABLE)
    answers = [
        {(line["answer"], line["score"]) for line in task(task.Config(), run.answers).predict(run, asked)}
        for run in (trained, load_run(runs / "vqa_xvlm").trained())
    ]
    assert len(answers[0]) == 1
    assert len(answers[1]) > 1


def test_mistakes_in_a_recipe_are_named(runs, tmp_path):
    text = (runs / "vqa_xvlm.yaml").read_text()

    def read(*changes: tuple[str, str]):
        file = tmp_path / "recipe.yaml"
        changed = text
        for old, new in changes:
            assert old in changed
            changed = changed.replace(old, new)
        file.write_text(changed)
        return load_run_recipe(file)

    with pytest.raises(RecipeError, match=r"no run at .*nowhere"):
        read((f"initial_weights: {runs / 'first'}", "initial_weights: nowhere"))
    with pytest.raises(RecipeError, match="only asks a model"):
        read(("type: vqa", "type: masked_words"))
    with pytest.raises(RecipeError, match="needs a source with `texts: questions`"):
        read(("batch_size: 8}", "batch_size: 8, texts: captions}"))
    with pytest.raises(RecipeError, match="mixes captions, questions"):
        read(("batch_size: 8}]", "batch_size: 8}, {path: data, batch_size: 8, texts: captions}]"))
    with pytest.raises(UserError, match="neither a run folder"):
        checkpoint_of(tmp_path)


def test_the_official_file_of_a_task_is_written_where_its_ids_are_official(runs):
    """Captions are named by their images; the scenes' questions have no ids that a server would know."""
    captions = json.loads((runs / "captioning_xvlm" / "evaluation" / "official" / "captioning_test.json").read_text())
    assert len(captions) == len(Shards(runs / "data", "test")) and set(captions[0]) == {"image_id", "caption"}
    assert not (runs / "vqa_xvlm" / "evaluation" / "official").exists()


@pytest.mark.parametrize("override", ["stages=5", "stages.0.sources=5", "initial_weights=5", "evaluation=5"])
def test_values_of_another_kind_are_named(runs, override):
    with pytest.raises(RecipeError, match=f"{override.partition('=')[0]}: .*got 5"):
        load_run_recipe(runs / "vqa_xvlm.yaml", [override])


def answers_of(runs, folder, *overrides) -> list[str]:
    """The answers that a run of questions in `folder` would have."""
    recipe = load_run_recipe(runs / "vqa_xvlm.yaml", overrides)
    assert isinstance(recipe, FinetuneRecipe)
    return Path(str(recipe.with_answers(folder, None, write=True).answers)).read_text().split()


def test_answers_of_a_start_that_failed_are_made_anew(runs, tmp_path):
    few, all_of_them = (answers_of(runs, tmp_path, f"min_answer_count={least}") for least in (9, 1))
    assert 0 < len(few) < len(all_of_them)


def test_a_run_keeps_its_answers_and_refuses_others(runs, tmp_path):
    own, other = tmp_path / "own.txt", tmp_path / "other.txt"
    own.write_text("yes\nno\n")
    other.write_text("no\nyes\n")
    run = tmp_path / "run"
    assert answers_of(runs, run, f"answers={own}") == ["yes", "no"]
    (run / "recipe.yaml").write_text("title: begun\n")
    assert answers_of(runs, run, f"answers={own}") == answers_of(runs, run) == ["yes", "no"]
    with pytest.raises(UserError, match=r"another run, whose answers differ from .*other\.txt"):
        answers_of(runs, run, f"answers={other}")


def test_an_objective_of_another_form_than_the_initial_runs_is_refused(runs):
    changed = ("text.vocab=" + str(runs / "data" / "vocab.txt"), "objectives=[{type: itm, head: linear}]")
    recipe, tokenizer = settled(load_run_recipe(runs / "retrieval_xvlm.yaml", changed))
    learner = build_learner(recipe, tokenizer=tokenizer)
    with pytest.raises(UserError, match=r"objectives\.safetensors, itm, is a checkpoint of another model: "):
        recipe.start(learner, None)
