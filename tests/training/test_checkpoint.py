"""Checkpoints: whole or absent, never of another model, never code."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import TinyModel, TinyRecipe, make_learner, train_tiny

from crossgrain.config import UserError
from crossgrain.objectives.itc import ITC
from crossgrain.training import checkpoint
from crossgrain.training.learner import Learner
from crossgrain.training.optimizer import OptimizerConfig, build_optimizer


def save_steps(folder, scores: dict[int, float | None], keep: int) -> list[str]:
    learner = make_learner()
    optimizer = build_optimizer(learner, OptimizerConfig())
    for step, score in scores.items():
        state = checkpoint.State(step, "only", "float32", 1, {}, score)
        checkpoint.save(folder, learner, optimizer, state, TinyRecipe(), keep)
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_and_the_best_are_kept(tmp_path):
    names = save_steps(tmp_path, {2: 1.0, 4: 3.0, 6: 2.0, 8: None, 10: 1.0}, keep=2)
    assert names == ["step_00000004", "step_00000008", "step_00000010"]
    assert checkpoint.best(tmp_path) == tmp_path / "step_00000004"
    assert checkpoint.latest(tmp_path) == tmp_path / "step_00000010"


def test_without_scores_only_the_newest_are_kept_and_leftovers_go(tmp_path):
    (tmp_path / ".step_00000099").mkdir()
    assert save_steps(tmp_path, {2: None, 4: None, 6: None}, keep=1) == ["step_00000006"]
    assert checkpoint.best(tmp_path) is None


def test_tied_weights_stand_in_the_file_once_and_stay_tied(tmp_path):
    save_steps(tmp_path, {1: None}, keep=1)
    assert set(load_file(tmp_path / "step_00000001" / "objectives.safetensors")) == {"recall.decoder.bias"}
    learner = make_learner()
    with torch.no_grad():
        learner.model.token_embedding.weight.zero_()
    checkpoint.restore(tmp_path / "step_00000001", learner)
    assert learner.objectives["recall"].decoder.weight is learner.model.token_embedding.weight
    torch.testing.assert_close(learner.state_dict(), make_learner().state_dict(), atol=0, rtol=0)


def test_a_checkpoint_of_another_model_is_refused_and_what_differs_is_named(tmp_path):
    save_steps(tmp_path, {1: None}, keep=1)
    wider = TinyModel(dim=24)
    with pytest.raises(
        UserError, match=r"another model: words\.weight has shape \(32, 16\), not \(32, 24\); .* and 2 more$"
    ):
        checkpoint.restore(tmp_path / "step_00000001", Learner(wider, {"itc": ITC(ITC.Config(), wider)}))
    same = TinyModel()
    with pytest.raises(UserError, match=r"objectives.safetensors .*another model: recall.decoder.bias is unknown"):
        checkpoint.restore(tmp_path / "step_00000001", Learner(same, {"itc": ITC(ITC.Config(), same)}))


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x80\x05cos\nsystem\n"])
def test_a_damaged_or_foreign_file_is_one_clear_line(tmp_path, content):
    save_steps(tmp_path, {1: None}, keep=1)
    (tmp_path / "step_00000001" / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors: cannot be read"):
        checkpoint.restore(tmp_path / "step_00000001", make_learner())
    (tmp_path / "step_00000001" / "state.json").write_bytes(content)
    with pytest.raises(UserError, match="is no checkpoint"):
        checkpoint.read_state(tmp_path / "step_00000001")


def test_a_run_folder_is_continued_with_its_own_recipe_only(tmp_path):
    recipe = TinyRecipe(steps=1)
    train_tiny(tmp_path, recipe)
    other = TinyRecipe(steps=1, optimizer=OptimizerConfig(weight_decay=0.5, eps=1e-6))
    with pytest.raises(
        UserError, match=r"optimizer\.eps is 1e-08 there and 1e-06 here; optimizer\.weight_decay is 0\.01"
    ):
        train_tiny(tmp_path, other)


def test_recipes_may_differ_in_keys_that_do_not_change_the_weights():
    saved = {"train": {"log_every": 1, "precision": "auto"}, "stages": [{"steps": 5}]}
    checkpoint.check_same_recipe(saved, {"train": {"log_every": 2, "precision": "auto"}, "stages": [{"steps": 5}]})
    with pytest.raises(UserError, match=r"stages\.0\.steps is 5 there and 6 here"):
        checkpoint.check_same_recipe(saved, json.loads(json.dumps(saved).replace("5", "6")))


def test_a_score_that_is_no_number_is_not_the_best(tmp_path):
    save_steps(tmp_path, {2: float("nan"), 4: -2.0, 6: -1.0, 8: float("inf")}, keep=9)
    assert checkpoint.best(tmp_path) == tmp_path / "step_00000006"
