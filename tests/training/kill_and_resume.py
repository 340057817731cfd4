"""Train the tiny run unbroken, and once more killed at every moment that could hurt."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
from tiny_training import TinyRecipe, train_tiny

from crossgrain.training.learner import Learner
from crossgrain.training.log import RunLog


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a process survived SIGKILL")


def kill_at(owner: Any, name: str, call: int, when: str) -> Callable[[], None]:
    """SIGKILL "before" or "after" the given call of owner.name, counted from 1."""
    original, calls = getattr(owner, name), 0

    def watched(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and when == "before":
            die()
        result = original(*arguments, **keywords)
        if calls == call:
            die()
        return result

    return lambda: setattr(owner, name, watched)


def half_a_log_line() -> None:
    def torn(log: RunLog, *arguments: Any) -> None:
        with (log.folder / "log.jsonl").open("a") as file:
            file.write('{"step": 5, "lo')
        die()

    RunLog.step_done = torn


MOMENTS = [
    kill_at(Learner, "forward", 1, "before"),  # nothing saved yet
    kill_at(Learner, "forward", 4, "after"),  # resumes from step 2
    kill_at(os, "fsync", 1, "before"),  # files of checkpoint 4 written, none flushed
    kill_at(os, "fsync", 4, "after"),  # half of them flushed
    kill_at(Path, "rename", 1, "before"),  # all but the name
    kill_at(Path, "rename", 1, "after"),  # checkpoint 4 stands
    half_a_log_line,
    kill_at(torch.optim.AdamW, "step", 2, "after"),  # weights of step 6 computed, not saved
    kill_at(Path, "rename", 2, "after"),  # checkpoint 6 stands, 2 is about to be removed
    kill_at(shutil, "rmtree", 2, "before"),  # leftovers found and not yet removed
]


def train_in_a_process(folder: Path, prepare: Callable[[], None]) -> int:
    """0, or minus the signal that ended it."""
    process = os.fork()
    if process == 0:
        prepare()
        train_tiny(folder, TinyRecipe())
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def main(folder: Path) -> None:
    """Leaves the runs `unbroken` and `broken` in `folder`, and how each process ended in ends.json."""
    ends: dict[str, Any] = {"unbroken": train_in_a_process(folder / "unbroken", lambda: None)}
    ends["killed"] = [train_in_a_process(folder / "broken", moment) for moment in MOMENTS]
    ends["resumed"] = train_in_a_process(folder / "broken", lambda: None)
    (folder / "ends.json").write_text(json.dumps(ends))
