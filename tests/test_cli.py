"""The command line: a user's mistake is one clear line and exit status 2."""

import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from crossgrain import cli, recipes
from crossgrain.config import UserError, read_yaml
from crossgrain.recipes import load_run_recipe
from crossgrain.training.distributed import World
from tiny_runs import draw_scenes, write_recipe

STEP = "checkpoints/step_00000001"
ONE_STEP = (
    "stages.0.steps=1", "stages.0.schedule.warmup_steps=0", "train.num_workers=0", "validation=null",
    "objectives=[{type: itc}, {type: mlm}]",
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set of 16 scenes, a recipe, and its run of one step without a box head."""
    folder = tmp_path_factory.mktemp("made")
    data = draw_scenes(folder / "data", size=16)
    recipe = write_recipe(folder / "recipe.yaml", data, *ONE_STEP)
    assert cli.main(["pretrain", str(recipe), "--out", str(folder / "run")]) == 0
    return SimpleNamespace(folder=folder, data=data, recipe=recipe, run=folder / "run")


@pytest.fixture
def mistake(capsys):
    """mistake(arguments) -> the one line that a mistake is answered with, said on stderr with exit status 2."""

    def ask(*arguments) -> str:
        capsys.readouterr()
        status = cli.main([str(argument) for argument in arguments])
        written = capsys.readouterr()
        assert (status, written.out) == (2, ""), written
        assert written.err.startswith("crossgrain: ")
        assert written.err.count("\n") == 1, written.err
        return written.err

    return ask


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("trian.keep=1", "recipe.yaml: trian: unknown key"),
        ("stages.0.sources.0.batchsize=1", "recipe.yaml: stages.0.sources.0.batchsize: unknown key"),
        (
            "model.type=xvml",
            "model: unknown type 'xvml' (did you mean 'xvlm'?): choose from imagebert, pixelbert, vlbert, xvlm",
        ),
        ("model.vision.type=resnet", "model.vision: unknown type 'resnet': choose from swin, vit"),
        ("stages.0.steps=many", "stages.0.steps: Input should be a valid integer"),
        ("gathered_gradients=both", "gathered_gradients: Input should be 'full' or 'local' (got 'both')"),
        ("train.precision=float64", "(got 'float64')"),
        ("model.dropout=2", "model.dropout: Input should be less than 1 (got 2)"),
        ("model.text_depth=-1", "model.text_depth: Input should be greater than or equal to 1 (got -1)"),
        ("model.embedding_dim=0", "model.embedding_dim: Input should be greater than or equal to 1 (got 0)"),
        ("model.vision.depth=0", "model.vision.depth: Input should be greater than or equal to 1 (got 0)"),
        ("model.num_heads=0", "model.num_heads: Input should be greater than or equal to 1 (got 0)"),
        ("model.vocab_size=7", "model.vocab_size is 7, but "),
        ("image.size=32", "image.size is 32, but model.vision.image_size is 64"),
        ("objectives=[{type: box}]", "the box objective needs a source with `texts: regions`"),
        ("stages.0.steps", "'stages.0.steps' is no override: write key.path=value"),
        ("text.vocab=gone/vocab.txt", "gone/vocab.txt"),
        ("stages.0.sources.0.path=gone", "gone"),
        ("stages.0.sources.0.split=dev", "split 'dev'"),
        ("train.accumulate=3", "batch_size 4 is not a multiple of 3"),
        ("initial_weights=gone", "gone"),
        ("model.bert=gone.bin", "no weights at gone.bin"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_line(made, mistake, tmp_path, override, told):
    sources = ("stages.0.sources=" + str([{"path": str(made.data), "batch_size": 4}]),) * ("box" in override)
    assert told in mistake("pretrain", made.recipe, *sources, override, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_files_that_are_not_there_or_not_what_they_should_be_are_named(made, mistake, tmp_path):
    assert "no recipe at gone.yaml; the library has" in mistake("pretrain", "gone.yaml")
    assert "no recipe at" in mistake("show", tmp_path)
    broken = tmp_path / "broken.yaml"
    for content, told in {
        b"model: [": "broken.yaml, line 1: not valid YAML",
        b"": "a recipe is a mapping of keys",
    }.items():
        broken.write_bytes(content)
        assert told in mistake("pretrain", broken)


def test_empty_data_are_named(made, mistake, tmp_path):
    (tmp_path / "empty").mkdir()
    path = f"stages.0.sources.0.path={tmp_path / 'empty'}"
    assert str(tmp_path / "empty") in mistake("pretrain", made.recipe, path, "--out", tmp_path / "run")
    told = mistake("pretrain", made.recipe, "stages.0.sources.0.split=validation", "--out", tmp_path / "run")
    assert all(split in told for split in ("'validation'", "train", "val", "test", "unseen"))
    assert str(tmp_path / "empty") in mistake("evaluate", made.run, "--data", tmp_path / "empty")


def test_a_run_folder_of_another_recipe_is_left_alone(made, mistake):
    before = (made.run / "recipe.yaml").read_text()
    told = mistake("pretrain", made.recipe, "model.mlp_dim=128", "--out", made.run)
    assert f"{made.run} holds another run (model.mlp_dim is 64 there and 128 here)" in told
    assert (made.run / "recipe.yaml").read_text() == before


def test_a_checkpoint_of_another_model_is_refused(made, mistake, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(made.run, run)
    weights = run / STEP / "model.safetensors"
    tensors = load_file(weights)
    name = "image_projection.weight"
    for changed, told in (
        ({**tensors, "surprise": torch.zeros(1)}, "surprise is unknown"),
        ({**tensors, name: torch.zeros(3, 3)}, f"{name} has shape (3, 3), not (16, 32)"),
        ({key: value for key, value in tensors.items() if key != name}, f"{name} is missing"),
    ):
        save_file(changed, weights)
        assert f"model.safetensors is a checkpoint of another model: {told}" in mistake("evaluate", run)
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "model.safetensors: cannot be read" in mistake("evaluate", run)
    initial = f"initial_weights={made.run / STEP}"
    told = mistake("pretrain", made.recipe, initial, "model.mlp_dim=128", "--out", tmp_path / "other")
    assert "is a checkpoint of another model" in told


def test_a_folder_that_is_no_run_or_has_no_checkpoint_is_refused(made, mistake, tmp_path):
    assert "nowhere is no run folder: it has no recipe.yaml" in mistake("evaluate", "nowhere")
    assert "has no best checkpoint: it was trained without" in mistake("evaluate", made.run, "--checkpoint", "best")
    shutil.copy(made.run / "recipe.yaml", tmp_path)
    assert "has no latest checkpoint: it stopped before its first one" in mistake("evaluate", tmp_path)


def test_a_question_that_the_run_cannot_answer_is_refused(made, mistake):
    told = mistake("evaluate", made.run, "--split", "dev")
    assert "'dev'" in told
    assert "unseen" in told
    assert "grounding needs" in mistake("evaluate", made.run, "--task", "grounding")
    assert "masked_regions needs a region_class objective" in mistake("evaluate", made.run, "--task", "masked_regions")
    assert "limit must be at least 1, not 0" in mistake("evaluate", made.run, "--limit", "0")
    told = mistake("evaluate", made.run, "stages.0.lr=1")
    assert "stages.0.lr=1: a trained run can change only in how it is asked, evaluation.KEY=VALUE" in told
    assert "evaluation.tasks.0: unknown type 'ground'" in mistake(
        "evaluate", made.run, "evaluation.tasks=[{type: ground}]"
    )


def test_more_ranks_than_samples_are_refused(made, tmp_path):
    with pytest.raises(UserError, match=r"64 ranks, but only 10 samples to share between them"):
        recipes.pretrain(load_run_recipe(made.recipe), tmp_path / "run", world=World(size=64))
    assert not (tmp_path / "run").exists()


def test_a_quickstart_and_a_pretraining_are_told_apart(made, mistake):
    assert "use `crossgrain quickstart --recipe quickstart`" in mistake("pretrain", "quickstart")
    assert "has no scenes block: use `crossgrain pretrain" in mistake("quickstart", "--recipe", made.recipe)
    assert "no quickstart for model 'bert': choose from imagebert," in mistake("quickstart", "model=bert")


def test_preparing_what_cannot_be_prepared_is_refused(made, mistake, tmp_path):
    assert "gone" in mistake("prepare", "folder", "--root", tmp_path / "gone", "--out", tmp_path / "out")
    assert "the size must be 1 or more, not 0" in mistake("prepare", "scenes", "--out", tmp_path / "out", "--size", "0")
    assert str(made.data) in mistake("prepare", "scenes", "--out", made.data, "--size", "8")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [[], ["pretrian", "x"], ["pretrain"], ["evaluate", "x", "--task", "dancing"]])
def test_a_command_that_is_none_is_answered_with_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: crossgrain" in capsys.readouterr().err


def test_a_process_ends_with_status_2_and_without_a_traceback():
    command = [sys.executable, "-m", "crossgrain.cli", "evaluate", "nowhere"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "crossgrain: nowhere is no run folder: it has no recipe.yaml\n"


def test_overrides_stand_on_either_side_of_the_flags():
    before = cli._parse(["pretrain", "recipe", "seed=1", "stages.0.steps=2", "--out", "x"])
    after = cli._parse(["pretrain", "recipe", "--out", "x", "seed=1", "stages.0.steps=2"])
    around = cli._parse(["pretrain", "recipe", "seed=1", "--out", "x", "stages.0.steps=2"])
    assert vars(before) == vars(after) == vars(around)
    with pytest.raises(SystemExit):
        cli._parse(["pretrain", "recipe", "--out", "x", "stray"])


def test_show_prints_the_complete_recipe(made, capsys, tmp_path):
    assert cli.main(["show", str(made.recipe), "stages.0.lr=1e-5"]) == 0
    shown = capsys.readouterr().out
    (tmp_path / "shown.yaml").write_text(shown)
    assert load_run_recipe(tmp_path / "shown.yaml") == load_run_recipe(made.recipe, ("stages.0.lr=1e-5",))
    tree = read_yaml(shown, "shown")
    assert tree["stages"][0]["lr"] == 1e-5
    assert (tree["optimizer"]["weight_decay"], tree["gathered_gradients"]) == (0.01, "full")  # defaults


def test_a_finished_run_says_where_it_stands(made, capsys):
    assert cli.main(["pretrain", str(made.recipe), "--out", str(made.run)]) == 0
    assert f"weights: {made.run / STEP}" in capsys.readouterr().out
    assert cli.main(["evaluate", str(made.run), "--json", "--limit", "1", "--split", "val"]) == 0
    written = capsys.readouterr()
    assert read_yaml(written.out, "")["retrieval"]["gallery"] == {"images": 1, "texts": 5}
    assert "report: " in written.err
    changed = ["evaluation.tasks=[{type: retrieval, captions_per_image: 1}]", "evaluation.limit=1"]
    assert cli.main(["evaluate", str(made.run), "--json", "--split", "val", *changed]) == 0
    assert read_yaml(capsys.readouterr().out, "")["retrieval"]["gallery"] == {"images": 1, "texts": 1}
