"""What two processes compute together, left in a folder for the test to compare."""

import os
import signal
import socket
from pathlib import Path
from typing import Literal

from safetensors.torch import save_file
from tiny_training import ROWS, TinyRecipe, make_batch, make_learner, make_plan

from crossgrain.training.distributed import World, accumulating, join_world
from crossgrain.training.trainer import Plan, train

SIZE = 2


def rows_of(rank: int) -> slice:
    return slice(rank * ROWS // SIZE, (rank + 1) * ROWS // SIZE)


def save_gradients(folder: Path, world: World, gradients: Literal["full", "local"]) -> None:
    learner = make_learner(0.0, world.gather(gradients))
    wrapped = world.wrap(learner)
    with accumulating(wrapped):  # a micro-batch that is not the last: its gradients are added without a reduction
        loss, _ = wrapped(make_batch(0, rows_of(world.rank)))
        (loss / 2).backward()
    loss, _ = wrapped(make_batch(1, rows_of(world.rank)))
    (loss / 2).backward()
    found = {name: p.grad for name, p in learner.named_parameters() if p.grad is not None}
    save_file(found, folder / f"{gradients}_{world.rank}.safetensors")


def plan_of(world: World, recipe: TinyRecipe, signalled_step: int | None = None) -> Plan:
    def rate(step: int) -> float:
        if step == signalled_step and world.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return 1e-2

    return make_plan(
        recipe,
        lr_at=rate,
        batches_from=lambda first: ([[make_batch(s, rows_of(world.rank))]] for s in range(first, recipe.steps)),
    )


def save_training(folder: Path, world: World) -> None:
    """Stopped by a signal that only rank 1 gets, then continued."""
    for signalled_step, status in ((3, "stopped"), (None, "finished")):
        recipe = TinyRecipe()
        learner = make_learner(0.0, world.gather())
        outcome = train(
            learner,
            plan_of(world, recipe, signalled_step),
            folder / "run",
            recipe,
            config=recipe.train,
            optimizer=recipe.optimizer,
            seed=recipe.seed,
            world=world,
        )
        assert (outcome.status, outcome.step) == (status, 4 if signalled_step else 10), outcome
        save_file(dict(learner.model.state_dict()), folder / f"{status}_{world.rank}.safetensors")


def work(folder: Path, rank: int) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    with join_world("cpu") as world:
        save_gradients(folder, world, "full")
        save_gradients(folder, world, "local")
        save_training(folder, world)


def main(folder: Path) -> None:
    """Fork the ranks with the environment that torchrun would give them, and wait for both."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free.getsockname()[1]), WORLD_SIZE=str(SIZE))
    ranks = []
    for rank in range(SIZE):
        ranks.append(os.fork())
        if ranks[-1] == 0:
            work(folder, rank)
            os._exit(0)
    ends = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in ranks]
    assert ends == [0] * SIZE, ends
