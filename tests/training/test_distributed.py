"""Two processes with half the batch each learn what one learns with the whole."""

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import TinyRecipe, make_batch, make_learner, train_tiny

from crossgrain.training import checkpoint


def gradients_alone(**weights: float) -> dict[str, torch.Tensor]:
    """The gradients of a single process with the whole batch, in two accumulated micro-batches."""
    learner = make_learner(dropout=0.0)
    learner.weights.update(weights)
    for step in range(2):
        (learner(make_batch(step))[0] / 2).backward()
    return {name: p.grad for name, p in learner.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("rank", [0, 1])
def test_gradients_of_contrastive_and_mean_losses_equal_the_single_process_ones(processes, rank):
    found = load_file(processes / f"full_{rank}.safetensors")
    torch.testing.assert_close(found, gradients_alone(), atol=1e-6, rtol=1e-5)


def test_local_gradients_scale_as_in_the_original_code(processes):
    """Of the contrastive loss the encoders get 1 / 2 with two ranks, the temperature all; other losses are whole."""
    full, local = (load_file(processes / f"{kind}_0.safetensors") for kind in ("full", "local"))
    name = "model.image_projection.weight"
    contrastive = gradients_alone(recall=0.0)[name]
    assert contrastive.norm() > 0.01
    torch.testing.assert_close(local[name], full[name] - contrastive / 2, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(local["model.temperature"], full["model.temperature"], atol=1e-6, rtol=1e-5)


def test_all_ranks_stop_at_the_step_in_which_one_is_signalled_and_end_with_one_process_weights(processes, tmp_path):
    for moment in ("stopped", "finished"):
        first, second = (load_file(processes / f"{moment}_{rank}.safetensors") for rank in range(2))
        assert all(torch.equal(first[name], second[name]) for name in first)
    learner = make_learner(dropout=0.0)
    train_tiny(tmp_path, TinyRecipe(), learner, lr_at=lambda step: 1e-2)
    expected = dict(learner.model.state_dict())
    torch.testing.assert_close(first, expected, atol=2e-4, rtol=1e-3)
    assert checkpoint.read_state(processes / "run" / "checkpoints" / "step_00000010").world_size == 2
