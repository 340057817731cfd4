"""`crossgrain collect`: from pages to shards through stages that each leave durable parts, so that any run goes on.

    pages      a task an input shard      candidates with clean texts, by image address; where archived images lie
    merge      a task a bucket            every image address once, with all its texts
    images     a task a bucket            archived or fetched, filtered, hashed, in a tar; every outcome with its reason
    scores     a task a bucket            each distinct image with its texts
    threshold  one task                   a percentile as a score
    aggregate  one task                   which pairs are kept, and where
    select     a task a part of scores    the kept pairs, by shard
    shards     a task a shard             what training reads; the manifest last

What a stage depends on is its fingerprint: its own part of the recipe, and the content of what it reads. So a changed
rule runs its stage anew, and what follows only where its result differs.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from crossgrain.collect.engines import ENGINES, Failed, run_tasks
from crossgrain.collect.funnel import FUNNEL, FunnelRow, funnel_lines, merge_rows, why_nothing, write_funnel
from crossgrain.collect.planted import Judgement
from crossgrain.collect.recipe import CollectRecipe
from crossgrain.collect.samples import SAMPLES, Samples, read_samples, write_samples
from crossgrain.collect.stage_bar import StageBar
from crossgrain.collect.stages.images import RETRY
from crossgrain.collect.stages.shards import holds, publish, write_vocab
from crossgrain.collect.steps import Steps
from crossgrain.collect.tasks import Done, Task, read_done
from crossgrain.config import UserError, load_recipe, save_recipe
from crossgrain.data.manifest import MANIFEST
from crossgrain.data.progress import progress_bar

RECIPE = "recipe.yaml"
SHARDS = "shards"
_LOCK = ".lock"  # in the folder of the parts


@dataclass(kw_only=True)
class CollectResult:
    """What a run made: the account of every stage, and what was given up."""

    out: Path
    funnel: list[FunnelRow]
    num_pairs: int = 0
    num_transient: int = 0  # images that failed for the moment
    given_up: list[dict[str, str]] = field(default_factory=list)  # stage, part, reason
    judgement: Judgement | None = None  # of a planted web

    @property
    def partial(self) -> bool:
        """Whether some of the work was given up, so that its inputs are missing from what came out."""
        return bool(self.given_up)

    @property
    def nothing(self) -> str:
        """Why there is no pair; empty where there are some."""
        return "" if self.num_pairs else f"nothing was kept: {why_nothing(self.funnel)}"

    def lines(self) -> list[str]:
        """For people."""
        lines = [*funnel_lines(self.funnel), f"{self.num_pairs:,} pairs in {self.out / SHARDS}"]
        if self.num_transient:
            again = f"`crossgrain collect retry {self.out}` tries them again"
            lines.append(f"{self.num_transient:,} images failed for the moment: {again}")
        told = [f"given up: {one['stage']} {one['part']}: {one['reason']}" for one in self.given_up]
        lines += [*told, *(["this run is partial: the same command tries these again"] if told else [])]
        lines += [self.nothing] if self.nothing else []
        return [*lines, "", *self.judgement.lines()] if self.judgement else lines

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        told = {"pairs": self.num_pairs, "transient": self.num_transient, "partial": self.partial}
        judged = {"planted": self.judgement.to_json()} if self.judgement else {}
        funnel = [row.to_json() for row in self.funnel]
        return {"out": str(self.out), **told, "given_up": self.given_up, "funnel": funnel, **judged}


def run_collect(recipe: CollectRecipe, out: Path, console: Console | None = None) -> CollectResult:
    """Collect into the folder `out`, or go on with what a run there has begun; the same recipe gives the same bytes.

    UserError for what the recipe names and is not there, and for a folder that holds something else or another run.
    """
    out = Path(out)
    _make_folder(out)
    with _alone(out / "work"):
        return _collect(recipe, out, console)


def _collect(recipe: CollectRecipe, out: Path, console: Console | None) -> CollectResult:
    steps = Steps(recipe, out)
    save_recipe(recipe, out / RECIPE)
    with _Runner(recipe, out / "work", console) as runner:
        run = runner.run
        pages = run(steps.pages())
        merged = run(steps.merge(pages))
        images = run(steps.images(merged))
        scores = run(steps.scores(images))
        threshold = run(steps.threshold(scores))
        plan = run(steps.aggregate(scores, threshold))
        selected = run(steps.select(scores, plan))
        writing = steps.shards(selected, plan)
        if not all(task.done() for task in writing):
            (out / SHARDS / MANIFEST).unlink(missing_ok=True)  # what it names is about to be replaced
        written = run(writing)
    _publish(recipe, out / SHARDS, selected, written)
    result = CollectResult(
        out=out,
        funnel=merge_rows(row for done in runner.done for row in done.funnel),
        num_pairs=sum(done.facts["records"] for done in written),
        num_transient=sum(done.facts["num_transient"] for done in images),
        given_up=runner.given_up,
    )
    write_funnel(out / FUNNEL, result.funnel)
    _write_samples(out, runner.tasks)
    return result


def retry(out: Path, console: Console | None = None) -> CollectResult:
    """Ask again for the images of a collection that failed for the moment, and for nothing else; then finish it."""
    out = Path(out)
    if not (out / RECIPE).is_file():
        raise UserError(f"no collection in {out}: it has no {RECIPE} (`crossgrain collect` makes one)")
    recipe = load_recipe(CollectRecipe, out / RECIPE)
    for file in sorted((out / "work" / "images").glob("part-*.done.json")):
        done = read_done(file)
        if done is not None and done.facts.get("num_transient"):
            file.with_name(file.name.removesuffix(".done.json") + RETRY).touch()
            file.unlink()
    return run_collect(recipe, out, console)


class _Runner:
    """Runs the tasks of one stage after the other, shows how far they are, and keeps what became of them."""

    def __init__(self, recipe: CollectRecipe, work: Path, console: Console | None):
        workers = recipe.num_workers
        if workers is None:
            workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.engine = ENGINES[recipe.engine](workers, recipe.task_seconds)
        self.max_retries = recipe.max_retries
        self.work = work
        self.tasks: list[Task] = []
        self.done: list[Done] = []
        self.given_up: list[dict[str, str]] = []
        self._progress = progress_bar(console)

    def __enter__(self) -> "_Runner":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()
        self.engine.close()

    def run(self, tasks: Sequence[Task]) -> list[Done]:
        """What the tasks of a stage made, in their order; what was given up is missing."""
        if not tasks:
            return []
        earlier = frozenset(task.shard for task in tasks if not self._progress.disable and task.done())
        with StageBar(self._progress, tasks[0].stage, tasks[0].folder, len(tasks), earlier) as bar:
            done, failed = run_tasks(
                tasks,
                self.engine,
                self.max_retries,
                lambda outcome: bar.advance(outcome if isinstance(outcome, Done) else None),
            )
        self.tasks += [one for one in tasks if one.shard in {made.shard for made in done}]
        self.done += done
        self.given_up += [self._set_aside(one) for one in failed]
        _clear(tasks[0].folder, {task.shard for task in tasks}, {one.shard for one in done})
        return done

    def _set_aside(self, failed: Failed) -> dict[str, str]:
        told = {"stage": failed.task.stage, "part": failed.task.shard, "reason": failed.reason}
        failed.task.folder.mkdir(parents=True, exist_ok=True)
        failed.task.part(".failed.json").write_text(json.dumps(told) + "\n", encoding="utf-8")
        return told


def _make_folder(out: Path) -> None:
    """A new folder, or that of an earlier run."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: --out names a folder")
    begun = (out / RECIPE).is_file() or (out / "work" / _LOCK).is_file()
    if out.is_dir() and any(out.iterdir()) and not begun:
        raise UserError(f"{out} holds something else: choose another folder for --out")
    out.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Keep other runs out of the same folder; the operating system lets go when the process ends, however it does."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another run is at work in {work.parent}: wait for its end, or end it") from None
        except OSError:  # a file system that has no locks
            pass
        yield


def _clear(folder: Path, shards: set[str], done: set[str]) -> None:
    """Remove what runs left in a stage's folder: parts of other inputs, and halves of finished ones."""
    for file in [*folder.glob("part-*"), *folder.glob(".tmp-part-*")]:
        shard, _, kind = file.name.removeprefix(".tmp-").removeprefix("part-").partition(".")
        unfinished = file.name.startswith(".tmp-") or kind.startswith(("journal.", "failed."))
        if shard not in shards or (shard in done and unfinished):
            file.unlink()


def _publish(recipe: CollectRecipe, data: Path, selected: Sequence[Done], written: Sequence[Done]) -> None:
    if holds(data, written):
        return
    data.mkdir(exist_ok=True)
    write_vocab(data, [done.path(".parquet") for done in selected], recipe.vocab_size)
    publish(data, {"name": "collect", "title": recipe.title, "seed": recipe.seed}, written)


def _write_samples(out: Path, tasks: Sequence[Task]) -> None:
    samples = Samples()
    for task in tasks:
        samples.update(read_samples(task.part(".samples.jsonl")))
    (out / "samples").mkdir(exist_ok=True)
    write_samples(out / "samples" / SAMPLES, samples)
