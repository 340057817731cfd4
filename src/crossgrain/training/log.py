"""What a run reports while it trains: the console, log.jsonl and TensorBoard, on the main rank only."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from torch import Tensor


def read_log(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log.jsonl; the last one may have been cut short by a kill."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


class RunLog:
    """Collects the scalars of every step and writes their means every `log_every` steps; without a folder, nothing.

    Scalars stay on their device until they are written, so that logging never waits for it. A resumed run drops the
    lines after its checkpoint: every step stands in log.jsonl once.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        first_step: int,
        total_steps: int,
        log_every: int,
        console: Console | None = None,
        tensorboard: bool = True,
    ):
        self.first_step, self.total_steps, self.log_every = first_step, total_steps, log_every
        self.console = console
        self._scalars: list[dict[str, Tensor]] = []
        self._samples = 0
        self._steps = 0
        self.folder = folder
        self._tensorboard = _summary_writer(folder / "tensorboard", first_step) if folder and tensorboard else None
        self._bar = _progress(console) if console and console.is_terminal else None
        if folder:
            _cut(folder / "log.jsonl", first_step)

    def __enter__(self) -> "RunLog":
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task("", total=self.total_steps, completed=self.first_step, values="")
        self._since = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar:
            self._bar.stop()
        if self._tensorboard:
            self._tensorboard.close()

    def say(self, message: str) -> None:
        """One line on the console."""
        if self.console:
            self.console.print(message, highlight=False, markup=False, soft_wrap=True)

    def update(self, scalars: list[dict[str, Tensor]], samples: int) -> None:
        """Note the scalars of one update's micro-batches, and how many samples all ranks together put in it."""
        self._scalars += scalars
        self._samples += samples

    def step_done(self, step: int, stage: str, rate: float, score: float | None = None) -> None:
        """`step` steps are done; writes if it is time to, or if there is a validation score."""
        self._steps += 1
        if self._bar:
            self._bar.update(self._task, completed=step)
        if step % self.log_every == 0 or step == self.total_steps or score is not None:
            self._write(step, stage, rate, {} if score is None else {"validation/score": score})
            self._scalars, self._samples, self._steps = [], 0, 0

    def _write(self, step: int, stage: str, rate: float, scores: dict[str, float]) -> None:
        if self.folder is None:
            return
        means = mean_scalars(self._scalars)
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        speed = {"samples_per_second": self._samples / seconds, "seconds_per_step": seconds / self._steps}
        entry = {"step": step, "stage": stage, "lr": rate, **means, **scores, **speed}
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        if self._tensorboard:
            for key, value in {"lr": rate, **means, **scores, **speed}.items():
                self._tensorboard.add_scalar(key, value, step)
            self._tensorboard.flush()
        left = (self.total_steps - step) * seconds / self._steps
        self._show(step, {"lr": rate, **means, **scores, **speed}, left)

    def _show(self, step: int, values: dict[str, float], seconds_left: float) -> None:
        losses = [f"{key.removesuffix('/loss')} {value:.3f}" for key, value in values.items() if key.endswith("loss")]
        scores = [f"score {values['validation/score']:.4g}"] if "validation/score" in values else []
        speed = [
            f"lr {values['lr']:.1e}",
            f"{values['samples_per_second']:.0f} samples/s",
            f"{_clock(seconds_left)} left",
        ]
        line = "  ".join(losses + scores + speed)
        if self._bar:
            self._bar.update(self._task, values=line)
        else:
            self.say(f"step {step}/{self.total_steps}  {line}")


def _cut(path: Path, last_step: int) -> None:
    kept = [json.dumps(entry) + "\n" for entry in read_log(path) if entry["step"] <= last_step]
    partial = path.with_name(".log.jsonl")
    partial.write_text("".join(kept), encoding="utf-8")
    partial.replace(path)


def mean_scalars(scalars: list[dict[str, Tensor]]) -> dict[str, float]:
    """The mean of each scalar over the batches that had it, brought to the host in one transfer."""
    keys = list(dict.fromkeys(key for logs in scalars for key in logs))
    means = [torch.stack([logs[key].float() for logs in scalars if key in logs]).mean() for key in keys]
    return dict(zip(keys, torch.stack(means).tolist(), strict=True))


def _summary_writer(folder: Path, first_step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter  # slow to import

    return SummaryWriter(str(folder), purge_step=first_step + 1)


def _progress(console: Console) -> Progress:
    return Progress(BarColumn(20), MofNCompleteColumn(), TextColumn("{task.fields[values]}"), console=console)


def _clock(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
