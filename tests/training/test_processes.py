"""A run in several processes without torchrun: they share the batch, and end together."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from crossgrain.config import UserError
from crossgrain.training.processes import in_ranks


def add_up(world, number: float) -> tuple[float, int, int]:
    """What all ranks gather, and the threads of one."""
    rows = world.gather()(torch.tensor([[number + world.rank]]))
    return rows.sum().item(), world.size, torch.get_num_threads()


def refuse(world) -> None:
    """One rank meets a user's mistake and the other waits for it."""
    if world.rank == 1:
        raise UserError("record 'b' has no image")
    time.sleep(60)


def die(world) -> None:
    """One rank is killed."""
    if world.rank == 1:
        os._exit(7)
    time.sleep(60)


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Fresh processes find this file as the tests do."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def test_ranks_work_together_and_rank_0_answers():
    total, size, threads = in_ranks(2, add_up, 10.0)
    assert (total, size) == (21.0, 2)
    assert threads >= 1
    assert "RANK" not in os.environ


def test_a_mistake_of_any_rank_is_told_and_ends_them_all():
    start = time.monotonic()
    with pytest.raises(UserError, match="record 'b' has no image"):
        in_ranks(2, refuse)
    assert time.monotonic() - start < 50


def test_a_rank_that_dies_ends_them_all():
    with pytest.raises(RuntimeError, match="process 1 of 2 ended with status 7"):
        in_ranks(2, die)


def sleep_while_the_parent_is_asked_to_stop(world, stop: int) -> None:
    """A signal comes before the work can handle it."""
    if world.rank == 0:
        os.kill(os.getppid(), stop)
    time.sleep(60)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_training_interrupts(stop):
    with pytest.raises(KeyboardInterrupt):
        in_ranks(2, sleep_while_the_parent_is_asked_to_stop, stop)
