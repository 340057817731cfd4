"""Who runs the tasks of a stage: a pool of processes on this machine, or Ray on many. The tasks are the same.

A task that fails, or whose process dies, is tried again, up to `max_retries` attempts; then it is given up with its
reason and the others go on. Only so many tasks are under way as there are workers; all results are small.
"""

import pickle
import sys
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from crossgrain.collect.cluster import connect
from crossgrain.collect.tasks import Done, Task, run_task
from crossgrain.config import UserError
from crossgrain.data.pool import Workers

_LOOK_SECONDS = 10.0  # how often it is looked whether a task takes too long


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A task that was given up (or, between attempts, one that will be tried again), with the reason."""

    task: Task
    reason: str


Outcome = Done | Failed


class Pool:
    """Processes on this machine; 0 workers: this process."""

    def __init__(self, num_workers: int, time_limit: float):
        self.time_limit = time_limit
        self._workers = Workers(attempt, num_workers) if num_workers else None

    def run(self, tasks: Sequence[Task]) -> Generator[Outcome]:
        """What became of each task, tried once, as they end; one whose process dies costs no other."""
        if self._workers is None:
            yield from map(attempt, tasks)
            return
        for _, outcome in self._workers.run(tasks, _died, self.time_limit):
            yield outcome

    def close(self) -> None:
        """End the processes."""
        if self._workers is not None:
            self._workers.close()


class Ray:
    """Ray tasks, on the cluster that RAY_ADDRESS names, or on this machine; as many under way as there are workers."""

    def __init__(self, num_workers: int, time_limit: float):
        self.num_workers = max(1, num_workers)
        self.time_limit = time_limit

    def run(self, tasks: Sequence[Task]) -> Generator[Outcome]:
        """See `Pool.run`."""
        ray = connect(self.num_workers)
        remote = ray.remote(max_retries=0, num_cpus=1)(_attempt_elsewhere)
        todo = list(reversed(tasks))
        under_way: dict[Any, tuple[Task, float]] = {}
        late: set[Any] = set()
        while todo or under_way:
            while todo and len(under_way) < self.num_workers:
                task = todo.pop()
                under_way[remote.remote(sys.path, pickle.dumps(task))] = task, time.monotonic()
            ready, _ = ray.wait(list(under_way), num_returns=1, timeout=min(self.time_limit, _LOOK_SECONDS))
            for reference in ready:
                task, _ = under_way.pop(reference)
                yield _outcome(ray, reference, task, f"took over {self.time_limit:g} s" if reference in late else "")
            for reference, (_, since) in under_way.items():
                if time.monotonic() - since > self.time_limit and reference not in late:
                    late.add(reference)
                    ray.cancel(reference, force=True)

    def close(self) -> None:
        """Nothing: Ray stays connected as long as this process."""


Engine = Pool | Ray
ENGINES: dict[str, type[Pool] | type[Ray]] = {"pool": Pool, "ray": Ray}


def run_tasks(
    tasks: Sequence[Task], engine: Engine, max_retries: int, report: Callable[[Outcome], None] = lambda _: None
) -> tuple[list[Done], list[Failed]]:
    """Run tasks, each up to `max_retries` times: (what was done, in the order of `tasks`; what was given up).

    `report` hears of every task once, when it is done or given up. A UserError of a task is raised.
    """
    done = {task.shard: found for task in tasks if (found := task.done())}
    for found in done.values():
        report(found)
    given_up: list[Failed] = []
    todo = [task for task in tasks if task.shard not in done]
    while todo:
        again: list[Task] = []
        for outcome in engine.run(todo):
            if isinstance(outcome, Failed):
                if outcome.task.attempt < max_retries:
                    again.append(outcome.task.again())
                    continue
                given_up.append(outcome)
            else:
                done[outcome.shard] = outcome
            report(outcome)
        todo = sorted(again, key=lambda task: task.shard)
    return [done[task.shard] for task in tasks if task.shard in done], sorted(given_up, key=lambda f: f.task.shard)


def attempt(task: Task) -> Outcome:
    """Run a task here; what goes wrong in it is a reason, save a mistake of the user's, which is raised."""
    try:
        return run_task(task)
    except UserError:
        raise
    except Exception as error:  # content that nothing expected: tried again, then set aside and shown
        return Failed(task=task, reason=f"{type(error).__name__}: {error}"[:300])


def _died(task: Task, reason: str) -> Failed:
    return Failed(task=task, reason=reason.replace("decoder", "its worker"))


def _attempt_elsewhere(paths: list[str], task: bytes) -> bytes:
    """`attempt` in a process of another machine, which finds modules where this one does; a UserError is a value."""
    sys.path.extend(path for path in paths if path not in sys.path)
    try:
        return pickle.dumps(attempt(pickle.loads(task)))
    except UserError as error:
        return pickle.dumps(error)


def _outcome(ray: Any, reference: Any, task: Task, late: str) -> Outcome:
    try:
        found = pickle.loads(ray.get(reference))
    except ray.exceptions.RayError as error:
        return Failed(task=task, reason=f"its worker {late or f'ended: {type(error).__name__}'}")
    if isinstance(found, UserError):
        raise found
    return found
