"""Parameter groups: who is decayed, and who learns faster."""

import pytest
import torch
from tiny_training import make_learner

from crossgrain.training.optimizer import OptimizerConfig, build_optimizer, set_rate


def groups(**config) -> dict[str, tuple[float, float]]:
    """(factor on the rate, weight decay) by parameter name."""
    optimizer = build_optimizer(make_learner(), OptimizerConfig(**config))
    return {n: (g["factor"], g["weight_decay"]) for g in optimizer.param_groups for n in g["param_names"]}


def test_vectors_are_not_decayed_and_new_parameters_learn_faster_tied_ones_once():
    assert groups() == {
        "model.words.weight": (1.0, 0.01),
        "model.image_projection.weight": (2.0, 0.01),
        "model.image_projection.bias": (2.0, 0.0),
        "model.norm.weight": (1.0, 0.0),
        "model.norm.bias": (1.0, 0.0),
        "model.temperature": (2.0, 0.0),
        "objectives.recall.decoder.bias": (2.0, 0.0),
    }


def test_the_official_grouping_decays_the_temperature():
    changed = {name for name, value in groups(grouping="official").items() if value != groups()[name]}
    assert changed == {"model.temperature"}


def test_the_rate_is_absolute_and_each_group_has_its_factor():
    learner = make_learner(dropout=0.0)
    optimizer = build_optimizer(learner, OptimizerConfig(weight_decay=0.0))
    before = {name: p.detach().clone() for name, p in learner.named_parameters()}
    for parameter in learner.parameters():
        parameter.grad = torch.ones_like(parameter)
    set_rate(optimizer, 1e-3)
    optimizer.step()
    moved = {name: (before[name] - p).max().item() for name, p in learner.named_parameters()}
    assert moved["model.words.weight"] == pytest.approx(1e-3, rel=1e-2)  # Adam's first step is the rate itself
    assert moved["model.image_projection.weight"] == pytest.approx(2e-3, rel=1e-2)
    assert moved["model.idle"] == 0
