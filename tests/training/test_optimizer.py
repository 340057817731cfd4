"""Parameter groups: who is decayed, who learns faster, and who is trained by SGD or by Muon."""

import pytest
import torch
from tiny_training import make_batch, make_learner

from crossgrain.config import UserError
from crossgrain.training import checkpoint
from crossgrain.training.optimizer import OptimizerConfig, SGDPart, build_optimizer, set_rate


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


def test_in_a_model_that_comes_whole_only_heads_are_new():
    changed = {name: value for name, value in groups(new_parameters="heads").items() if value != groups()[name]}
    assert changed == {
        "model.image_projection.weight": (1.0, 0.01),
        "model.image_projection.bias": (1.0, 0.0),
        "model.temperature": (1.0, 0.0),
    }


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


BESIDE_SGD = OptimizerConfig(sgd_parts=(SGDPart(prefix="image_projection.", factor=100.0),))


def steps(learner, optimizer, numbers):
    for number in numbers:
        torch.manual_seed(number)
        learner(make_batch(number))[0].backward()
        set_rate(optimizer, 1e-3 / (1 + number))
        optimizer.step()
        optimizer.zero_grad()


def test_the_named_part_is_trained_by_sgd_and_the_rest_by_adamw():
    """As by torch's two optimizers, one beside the other; a milestone moves both rates."""
    learner, twin = make_learner(), make_learner()
    optimizer = build_optimizer(learner, BESIDE_SGD)
    part = list(twin.model.image_projection.parameters())
    sgd = torch.optim.SGD(part, lr=0.0, momentum=0.9, weight_decay=5e-4)
    adamw = build_optimizer(twin, OptimizerConfig())
    for number, rate in enumerate((1e-3, 1e-3, 1e-4)):
        for one in (learner, twin):
            torch.manual_seed(number)
            one(make_batch(number))[0].backward()
        set_rate(optimizer, rate)
        set_rate(adamw, rate)
        sgd.param_groups[0]["lr"] = 100 * rate
        optimizer.step()
        sgd.step()
        for parameter in part:
            parameter.grad = None
        adamw.step()
        optimizer.zero_grad()
        adamw.zero_grad()
        assert all(p.grad is None for p in learner.parameters())
    for (name, ours), (_, theirs) in zip(learner.named_parameters(), twin.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    kinds = {name: set(optimizer.state[p]) for name, p in learner.named_parameters() if p.requires_grad}
    assert kinds.pop("model.image_projection.weight") == kinds.pop("model.image_projection.bias") == {"momentum_buffer"}
    assert all(kind == {"step", "exp_avg", "exp_avg_sq"} for kind in kinds.values())
    assert groups(sgd_parts=BESIDE_SGD.sgd_parts)["model.image_projection.bias"] == (100.0, 5e-4)


def test_the_empty_prefix_trains_everything_by_sgd_with_the_heads():
    everything = OptimizerConfig(sgd_parts=(SGDPart(prefix="", factor=1.0, weight_decay=1e-4),))
    learner, twin = make_learner(dropout=0.0), make_learner(dropout=0.0)
    optimizer = build_optimizer(learner, everything)
    names = {name for name, p in learner.named_parameters() if p.requires_grad}
    assert {name for group in optimizer.param_groups for name in group["param_names"]} == names
    assert any(name.startswith("objectives.") for name in names)
    trained = [p for p in twin.parameters() if p.requires_grad]
    sgd = torch.optim.SGD(trained, lr=1e-3, momentum=0.9, weight_decay=1e-4)
    for number in range(3):
        for one, by in ((learner, optimizer), (twin, sgd)):
            one(make_batch(number))[0].backward()
            if one is learner:
                set_rate(optimizer, 1e-3)
            by.step()
            by.zero_grad()
    for (name, ours), (_, theirs) in zip(learner.named_parameters(), twin.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name


MUON = OptimizerConfig(matrices="muon")


@pytest.fixture(autouse=True)
def small_matrices_too(monkeypatch):
    monkeypatch.setattr("crossgrain.training.optimizer._FEWEST", 2)


def test_muon_trains_the_weights_of_linear_layers_and_adamw_the_rest():
    """As by torch's two optimizers, one beside the other."""
    learner, twin = make_learner(), make_learner()
    optimizer = build_optimizer(learner, MUON)
    weight = twin.model.image_projection.weight
    muon = torch.optim.Muon([weight], lr=0.0, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    adamw = build_optimizer(twin, OptimizerConfig())
    for number in range(3):
        for one in (learner, twin):
            torch.manual_seed(number)
            one(make_batch(number))[0].backward()
        set_rate(optimizer, 1e-3)
        set_rate(adamw, 1e-3)
        muon.param_groups[0]["lr"] = 2e-3  # a new parameter
        optimizer.step()
        muon.step()
        weight.grad = None
        adamw.step()
        optimizer.zero_grad()
        adamw.zero_grad()
    for (name, ours), (_, theirs) in zip(learner.named_parameters(), twin.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    kinds = {name: set(optimizer.state[p]) for name, p in learner.named_parameters() if p.requires_grad}
    assert kinds.pop("model.image_projection.weight") == {"momentum_buffer"}
    assert all(kind == {"step", "exp_avg", "exp_avg_sq"} for kind in kinds.values())  # words too: an embedding
    assert groups(matrices="muon") == groups()


def test_muon_leaves_layers_of_few_outputs_alone(monkeypatch):
    monkeypatch.setattr("crossgrain.training.optimizer._FEWEST", 1000)
    assert isinstance(build_optimizer(make_learner(), MUON), torch.optim.AdamW)


@pytest.mark.parametrize("config", [BESIDE_SGD, OptimizerConfig(sgd_parts=(SGDPart(prefix=""),)), MUON])
def test_sgd_and_muon_go_on_from_a_checkpoint_bit_for_bit(tmp_path, config):
    unbroken = make_learner()
    steps(unbroken, build_optimizer(unbroken, config), range(6))
    learner = make_learner()
    optimizer = build_optimizer(learner, config)
    steps(learner, optimizer, range(3))
    state = checkpoint.State(step=3, stage="train", precision="float32", world_size=1, versions={})
    saved = checkpoint.save(tmp_path, learner, optimizer, state, {}, keep=1)
    again = make_learner()
    fresh = build_optimizer(again, config)
    checkpoint.restore(saved, again, fresh)
    steps(again, fresh, range(3, 6))
    for (name, ours), (_, theirs) in zip(again.named_parameters(), unbroken.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_a_new_stage_forgets_the_moments_of_both():
    learner = make_learner()
    optimizer = build_optimizer(learner, BESIDE_SGD)
    steps(learner, optimizer, range(2))
    twin = make_learner()
    twin.load_state_dict(learner.state_dict())
    optimizer.state.clear()
    steps(learner, optimizer, [2])
    steps(twin, build_optimizer(twin, BESIDE_SGD), [2])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(learner.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize("prefixes", [("cnn.",), ("image_projection.", "image_projection.weight")])
def test_a_part_without_parameters_is_refused(prefixes):
    parts = tuple(SGDPart(prefix=prefix) for prefix in prefixes)
    told = rf"starts with '{prefixes[-1]}': there are temperature, words, image_projection, norm$"
    with pytest.raises(UserError, match=told):
        build_optimizer(make_learner(), OptimizerConfig(sgd_parts=parts))
