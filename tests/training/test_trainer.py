"""The training loop: what it computes, and when it refuses to go on."""

import io

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from tiny_training import TinyModel, TinyRecipe, make_batch, make_learner, train_tiny

from crossgrain.config import UserError
from crossgrain.training import checkpoint
from crossgrain.training.log import read_log
from crossgrain.training.precision import autocast, resolve_precision
from crossgrain.training.trainer import DivergedError, TrainConfig, update_seed


def recipe_with(steps: int = 4, **train: object) -> TinyRecipe:
    defaults = {"precision": "float32", "num_workers": 0, "log_every": 1, "tensorboard": False}
    return TinyRecipe(steps=steps, train=TrainConfig(**defaults | train))


def in_memory(*updates):
    """The same updates in every step."""

    def batches_from(step):
        while True:
            yield list(updates)

    return batches_from


def test_one_batch_is_learnt(tmp_path):
    train_tiny(tmp_path, recipe_with(60), batches_from=in_memory([make_batch(0)]), lr_at=lambda step: 2e-2)
    losses = [line["recall/loss"] for line in read_log(tmp_path / "log.jsonl")]
    assert losses[-1] < 0.2 * losses[0]


def test_accumulated_micro_batches_give_the_gradient_of_the_mean_of_their_losses(tmp_path):
    norms = {}
    for name, update in {
        "two": [make_batch(0), make_batch(1)],
        "same": [make_batch(0)] * 2,
        "one": [make_batch(0)],
    }.items():
        learner = make_learner(dropout=0.0)
        train_tiny(tmp_path / name, recipe_with(1), learner, batches_from=in_memory(update))
        norms[name] = read_log(tmp_path / name / "log.jsonl")[0]["grad_norm"]
    assert norms["same"] == pytest.approx(norms["one"], rel=1e-5) != pytest.approx(norms["two"], rel=1e-3)


def test_a_step_of_two_updates_moves_the_rate_once(tmp_path):
    asked = []
    updates = in_memory([make_batch(0)], [make_batch(1)])
    ended = train_tiny(tmp_path, recipe_with(2), lr_at=lambda step: asked.append(step) or 1e-3, batches_from=updates)
    assert asked == [0, 1]
    assert load_file(ended.checkpoint / "training.safetensors")["step/model.norm.weight"] == 4


def test_dropout_depends_on_seed_step_update_and_rank():
    seeds = {update_seed(*where) for where in [(0, 1, 0, 0), (0, 2, 0, 0), (1, 1, 0, 0), (0, 1, 1, 0), (0, 1, 0, 1)]}
    assert len(seeds) == 5 and update_seed(0, 1, 0, 0) in seeds


def test_a_loss_that_is_not_finite_stops_the_run_and_is_named(tmp_path):
    learner = make_learner()

    def rate(step: int) -> float:
        if step == 2:
            with torch.no_grad():
                learner.objectives["recall"].decoder.bias.fill_(torch.inf)
        return 1e-3

    with pytest.raises(
        DivergedError, match=r"step 3: the loss of recall is not finite \(loss nan, itc/loss [0-9.]+, recall/loss nan\)"
    ):
        train_tiny(tmp_path, recipe_with(save_every=2), learner, lr_at=rate)
    assert checkpoint.latest(tmp_path / "checkpoints").name == "step_00000002"
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [1, 2]


def test_a_gradient_that_is_not_finite_stops_the_run_and_is_named(tmp_path):
    learner = make_learner()
    learner.model.norm.bias.register_hook(lambda gradient: gradient * torch.nan)
    with pytest.raises(DivergedError, match=r"step 1: the gradient of model\.norm\.bias is not finite"):
        train_tiny(tmp_path, recipe_with(), learner)
    assert all(p.isfinite().all() for p in learner.parameters())
    assert checkpoint.latest(tmp_path / "checkpoints") is None


def test_gradients_are_clipped_to_the_norm_and_logged_as_they_were(tmp_path):
    ended = train_tiny(tmp_path, recipe_with(1))
    state = load_file(ended.checkpoint / "training.safetensors")
    gradients = [tensor / (1 - 0.9) for name, tensor in state.items() if name.startswith("exp_avg/")]
    assert torch.nn.utils.get_total_norm(gradients).item() == pytest.approx(1.0, rel=1e-4)
    assert read_log(tmp_path / "log.jsonl")[0]["grad_norm"] > 1


def test_bfloat16_computes_losses_and_keeps_weights_in_float32(tmp_path):
    learner = make_learner()
    train_tiny(tmp_path, recipe_with(precision="bfloat16"), learner)
    assert {p.dtype for p in learner.parameters()} == {torch.float32}
    assert checkpoint.read_state(tmp_path / "checkpoints" / "step_00000004").precision == "bfloat16"
    device = torch.device("cpu")
    assert resolve_precision("float32", device) == "float32"
    assert resolve_precision("auto", device) in ("float32", "bfloat16")
    with autocast("bfloat16", device):
        loss, logs = learner(make_batch(0))
    assert {loss.dtype, logs["recall/loss"].dtype, logs["itc/loss"].dtype} == {torch.float32}


def test_the_best_score_is_kept_and_the_learner_trains_on(tmp_path):
    scores = {1: 0.1, 2: 0.9, 3: 0.2, 4: 0.3}

    def score(learner, step: int) -> float:
        learner.eval()
        return scores[step]

    learner = make_learner()
    train_tiny(tmp_path, recipe_with(save_every=1, keep=1, log_every=3), learner, score=score)
    assert learner.training
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step_00000002", "step_00000004"]
    lines = read_log(tmp_path / "log.jsonl")
    assert {line["step"]: line["validation/score"] for line in lines} == scores


def test_a_model_that_cannot_checkpoint_activations_says_so(tmp_path):
    with pytest.raises(UserError, match="activation_checkpointing: TinyModel cannot do it"):
        train_tiny(tmp_path, recipe_with(activation_checkpointing=True))
    assert not hasattr(TinyModel, "enable_activation_checkpointing")


def test_the_console_has_a_line_for_every_logged_step_and_tensorboard_its_files(tmp_path):
    console = Console(file=io.StringIO(), width=200)
    train_tiny(tmp_path, recipe_with(log_every=2, tensorboard=True), console=console)
    text = console.file.getvalue()
    assert "training on cpu in float32, step 0 of 4" in text
    assert [line.split()[1] for line in text.splitlines() if line.startswith("step")] == ["2/4", "4/4"]
    assert "recall " in text and "samples/s" in text and "0:00 left" in text
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_terminal_gets_a_live_bar_instead(tmp_path):
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    train_tiny(tmp_path, recipe_with(), console=console)
    text = console.file.getvalue()
    assert "4/4" in text and "samples/s" in text and "step 2/4" not in text
