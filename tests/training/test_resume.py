"""A run that is stopped, killed or broken goes on as if nothing had happened."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from tiny_training import TinyRecipe, make_learner, train_tiny

from crossgrain.training import checkpoint
from crossgrain.training.log import read_log
from crossgrain.training.optimizer import OptimizerConfig, SGDPart


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_run_killed_at_every_dangerous_moment_ends_bit_identical_to_an_unbroken_one(processes):
    ends = json.loads((processes / "ends.json").read_text())
    assert ends == {"unbroken": 0, "killed": [-signal.SIGKILL] * len(ends["killed"]), "resumed": 0}
    unbroken, broken = processes / "unbroken" / "checkpoints", processes / "broken" / "checkpoints"
    assert sorted(p.name for p in broken.iterdir()) == sorted(p.name for p in unbroken.iterdir())  # no leftovers
    assert files_of(broken / "step_00000010") == files_of(unbroken / "step_00000010")
    lines, expected = read_log(processes / "broken" / "log.jsonl"), read_log(processes / "unbroken" / "log.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 11))
    assert [line["loss"] for line in lines] == [line["loss"] for line in expected]


BESIDE_SGD = TinyRecipe(optimizer=OptimizerConfig(sgd_parts=(SGDPart(prefix="image_projection.", factor=3.0),)))


@pytest.mark.parametrize(("number", "recipe"), [(signal.SIGTERM, TinyRecipe()), (signal.SIGINT, BESIDE_SGD)])
def test_a_stop_signal_finishes_the_step_saves_and_can_be_continued(tmp_path, number, recipe):
    def begins(step: int) -> bool:
        return step == 3

    def rate(step: int) -> float:
        if step == 4 and not (tmp_path / "a" / "checkpoints" / "step_00000005").exists():
            os.kill(os.getpid(), number)
        return 1e-2 / (1 + step)

    before = signal.getsignal(number)
    stopped = train_tiny(tmp_path / "a", recipe, lr_at=rate, begins_at=begins)
    assert (stopped.status, stopped.step, stopped.checkpoint.name) == ("stopped", 5, "step_00000005")
    assert signal.getsignal(number) is before
    assert train_tiny(tmp_path / "a", recipe, lr_at=rate, begins_at=begins).status == "finished"
    unbroken = train_tiny(tmp_path / "b", recipe, begins_at=begins)
    a, b = (make_learner(), make_learner())
    checkpoint.restore(tmp_path / "a" / "checkpoints" / "step_00000010", a)
    checkpoint.restore(unbroken.checkpoint, b)
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_a_second_ctrl_c_aborts_at_once(tmp_path):
    def rate(step: int) -> float:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return 1e-2

    with pytest.raises(KeyboardInterrupt):
        train_tiny(tmp_path, TinyRecipe(), lr_at=rate)
    assert checkpoint.latest(tmp_path / "checkpoints") is None


def test_a_finished_run_is_finished_at_once_when_started_again(tmp_path):
    recipe = TinyRecipe(steps=2)
    first = train_tiny(tmp_path, recipe)
    again = train_tiny(tmp_path, recipe, batches_from=lambda step: pytest.fail("asked for data"))
    assert again == first
