"""The one training loop: pre-training stages and fine-tuning tasks both run here.

Everything random in a step follows from (seed, step, update, rank), and everything that a step leaves behind is in the
checkpoint. So a run that was killed and started again ends with the weights of an unbroken one, bit for bit.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from platform import python_version
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from rich.console import Console
from torch import Tensor, nn

from crossgrain.config import Count, UserError, configclass
from crossgrain.data.types import Batch
from crossgrain.training import checkpoint
from crossgrain.training.distributed import ALONE, World, accumulating
from crossgrain.training.interrupt import StopSignals
from crossgrain.training.learner import Learner
from crossgrain.training.log import RunLog, mean_scalars
from crossgrain.training.optimizer import OptimizerConfig, build_optimizer, set_rate
from crossgrain.training.precision import Precision, Resolved, autocast, resolve_precision

Updates = list[list[Batch]]  # of one step: usually one update of one micro-batch


@configclass
class TrainConfig:
    """How a run computes and what it leaves behind; what it learns is the business of the rest of the recipe."""

    precision: Precision = "auto"
    accumulate: Count = 1  # micro-batches that the batch of an update is cut into
    # On a machine without a GPU: processes that share the batch, and the cores. Small models gain more from these than
    # from threads. torchrun's environment, where there is one, comes first.
    processes: Count = 1
    compile: bool = False
    activation_checkpointing: bool = False
    num_workers: Annotated[int, Field(ge=0)] = 2
    log_every: Count = 20
    save_every: Count = 1000
    keep: Count = 3  # newest checkpoints; the best, where runs are scored, is kept besides
    tensorboard: bool = True


@dataclass(frozen=True)
class Plan:
    """What to train on, step by step. All functions take the number of a step, counted from 0 over all stages.

    `batches_from` yields the updates of that step and of all that follow; the rate moves once a step, also when a step
    has two updates. `score` is asked after every checkpoint's step (higher is better) on the main rank.
    """

    total_steps: int
    lr_at: Callable[[int], float]
    batches_from: Callable[[int], Iterator[Updates]]
    stage_at: Callable[[int], str] = lambda step: "train"
    # The objectives that the stage of this step trains on, by name; None for all.
    objectives_at: Callable[[int], tuple[str, ...] | None] = lambda step: None
    # Whether a stage begins here that takes over the weights and nothing else of the one before.
    begins_at: Callable[[int], bool] = lambda step: False
    score: Callable[[Learner, int], float] | None = None


@dataclass(frozen=True)
class Outcome:
    """How a run ended: "stopped" by a signal is resumable from `checkpoint`."""

    status: Literal["finished", "stopped"]
    step: int
    checkpoint: Path


class DivergedError(UserError):
    """A loss or gradient that is not a number. Nothing was saved from this step on."""


def train(
    learner: Learner,
    plan: Plan,
    folder: Path,
    recipe: Any,
    *,
    config: TrainConfig,
    optimizer: OptimizerConfig,
    seed: int,
    world: World = ALONE,
    console: Console | None = None,
) -> Outcome:
    """Train `learner` to the plan's last step, from the newest checkpoint of the run in `folder` if there is one.

    UserError for a folder of another recipe or another model, `DivergedError` for values that are not finite.
    """
    newest = checkpoint.open_run(folder, recipe, write=world.is_main)
    learner.to(world.device).train()
    if config.activation_checkpointing:
        _enable_checkpointing(learner.model)
    run = _Run(learner, plan, folder, recipe, config, optimizer, seed, world)
    first_step = checkpoint.restore(newest, learner, run.optimizer).step if newest else 0
    if first_step >= plan.total_steps and newest:
        return Outcome("finished", first_step, newest)
    if config.compile:
        learner.compile()
    with StopSignals() as stop, _open_log(folder, first_step, plan, config, world, console) as log:
        ranks = f", {world.size} ranks" if world.size > 1 else ""
        log.say(f"training on {world.device}{ranks} in {run.precision}, step {first_step} of {plan.total_steps}")
        return run.steps(first_step, log, stop)


class _Run:
    """What stays the same from step to step."""

    def __init__(
        self,
        learner: Learner,
        plan: Plan,
        folder: Path,
        recipe: Any,
        config: TrainConfig,
        optimizer: OptimizerConfig,
        seed: int,
        world: World,
    ):
        self.learner, self.plan, self.folder, self.recipe = learner, plan, folder, recipe
        self.config, self.seed, self.world = config, seed, world
        self.clip_norm = optimizer.clip_norm
        self.optimizer = build_optimizer(learner, optimizer)
        self.precision: Resolved = resolve_precision(config.precision, world.device)

    def steps(self, first_step: int, log: RunLog, stop: StopSignals) -> Outcome:
        """Run to the end, or to the end of the step in which a signal asks to stop."""
        wrapped = self.world.wrap(self.learner)
        batches = self.plan.batches_from(first_step)
        for step in range(first_step, self.plan.total_steps):
            updates = next(batches)
            if self.plan.begins_at(step):
                self.optimizer.state.clear()
            self.learner.choose(self.plan.objectives_at(step))
            rate = self.plan.lr_at(step)
            set_rate(self.optimizer, rate)
            for number, micro_batches in enumerate(updates):
                torch.manual_seed(update_seed(self.seed, step, number, self.world.rank))
                scalars = self.update(wrapped, step, micro_batches)
                log.update(scalars, sum(len(batch.group) for batch in micro_batches) * self.world.size)

            done = step + 1
            stopped = self.world.any(stop.requested) and done < self.plan.total_steps
            due = done % self.config.save_every == 0 or done == self.plan.total_steps
            score = self.score(done) if due and not stopped else None
            log.step_done(done, self.plan.stage_at(step), rate, score)
            if due or stopped:
                path = self.save(done, score)
                if stopped:
                    log.say(f"stopped after step {done}; the same command continues from {path}")
                    return Outcome("stopped", done, path)
        return Outcome("finished", self.plan.total_steps, path)

    def update(self, wrapped: nn.Module, step: int, micro_batches: list[Batch]) -> list[dict[str, Tensor]]:
        """One step of the optimizer on the mean loss of the micro-batches; gives the scalars of each to log."""
        scalars: list[dict[str, Tensor]] = []
        for number, batch in enumerate(micro_batches, start=1):
            with accumulating(wrapped) if number < len(micro_batches) else nullcontext():
                with autocast(self.precision, self.world.device):
                    loss, logs = wrapped(batch.to(self.world.device))
                (loss / len(micro_batches)).backward()
            scalars.append({"loss": loss.detach(), **logs})
        scalars.append({"grad_norm": self.clip(step, scalars)})
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return scalars

    def clip(self, step: int, scalars: list[dict[str, Tensor]]) -> Tensor:
        """Clip the gradients and give their norm before it; stop the run where a loss or the norm is not finite.

        Asking whether they are finite is the one moment of an update in which the host waits for the device.
        """
        named = {name: p for name, p in self.learner.named_parameters() if p.grad is not None}
        gradients = {name: p.grad for name, p in named.items() if p.grad is not None}
        norm = torch.nn.utils.get_total_norm(gradients.values())
        if not torch.isfinite(torch.stack([norm, *(logs["loss"] for logs in scalars)])).all():
            raise _diverged(step, mean_scalars(scalars), gradients)
        if self.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(named.values(), self.clip_norm, norm)
        return norm

    def score(self, step: int) -> float | None:
        """The validation score after `step` steps, on the main rank."""
        if self.plan.score is None or not self.world.is_main:
            return None
        value = self.plan.score(self.learner, step)
        self.learner.train()
        return value

    def save(self, step: int, score: float | None) -> Path:
        """Write the checkpoint (main rank), seen by all ranks when this returns."""
        folder = self.folder / "checkpoints"
        if self.world.is_main:
            state = checkpoint.State(
                step=step,
                stage=self.plan.stage_at(step - 1),
                precision=self.precision,
                world_size=self.world.size,
                versions={"crossgrain": version("crossgrain"), "torch": torch.__version__, "python": python_version()},
                score=score,
            )
            checkpoint.save(folder, self.learner, self.optimizer, state, self.recipe, self.config.keep)
        self.world.barrier()
        return checkpoint.path_of(folder, step)


def update_seed(seed: int, step: int, update: int, rank: int) -> int:
    """The seed of dropout and sampling in one update on one rank."""
    return int(np.random.SeedSequence([seed, step, update, rank]).generate_state(1, np.uint64)[0] >> 1)


def _enable_checkpointing(model: nn.Module) -> None:
    enable = getattr(model, "enable_activation_checkpointing", None)
    if enable is None:
        raise UserError(f"activation_checkpointing: {type(model).__name__} cannot do it; set it to false")
    enable()


def _open_log(
    folder: Path, first_step: int, plan: Plan, config: TrainConfig, world: World, console: Console | None
) -> RunLog:
    return RunLog(
        folder if world.is_main else None,
        first_step=first_step,
        total_steps=plan.total_steps,
        log_every=config.log_every,
        console=console if world.is_main else None,
        tensorboard=config.tensorboard,
    )


def _diverged(step: int, scalars: dict[str, float], gradients: dict[str, Tensor]) -> DivergedError:
    values = {key: value for key, value in scalars.items() if key == "loss" or key.endswith("/loss")}
    bad = [key.removesuffix("/loss") for key, value in values.items() if not isfinite(value)]
    culprit = f"the loss of {', '.join(name for name in bad if name != 'loss') or 'all objectives'}"
    if not bad:
        names = [name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        culprit = f"the gradient of {', '.join(names[:3]) or 'all parameters together'}{more}"
    shown = ", ".join(f"{key} {value:.4g}" for key, value in values.items())
    return DivergedError(f"step {step + 1}: {culprit} is not finite ({shown}); try a lower rate or a longer warm-up")
