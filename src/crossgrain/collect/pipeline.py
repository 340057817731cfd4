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

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from crossgrain.collect.engines import ENGINES, Failed, run_tasks
from crossgrain.collect.funnel import (
    FUNNEL,
    FunnelRow,
    funnel_lines,
    given_up_lines,
    merge_rows,
    why_nothing,
    write_funnel,
    write_given_up,
)
from crossgrain.collect.images.blocklist import load_blocklist
from crossgrain.collect.lock import LOCK, alone
from crossgrain.collect.planted import Judgement
from crossgrain.collect.recipe import CollectRecipe
from crossgrain.collect.samples import SAMPLES, Samples, read_samples, write_samples
from crossgrain.collect.stage_bar import StageBar
from crossgrain.collect.stages.images import EARLIER, RETRY
from crossgrain.collect.stages.shards import holds, publish, write_vocab
from crossgrain.collect.steps import Steps
from crossgrain.collect.tasks import Done, Task, read_done
from crossgrain.collect.tombstones import Seen
from crossgrain.config import UserError, load_recipe, save_recipe
from crossgrain.data.manifest import MANIFEST, read_manifest
from crossgrain.data.progress import progress_bar

RECIPE = "recipe.yaml"
SHARDS = "shards"


@dataclass(kw_only=True)
class CollectResult:
    """What a run made: the account of every stage, and what was given up."""

    out: Path
    funnel: list[FunnelRow]
    num_pairs: int = 0  # that the data set has now
    num_transient: int = 0  # images that failed for the moment
    published: bool = True  # False: work was given up, and the data set is still that of an earlier run
    given_up: list[dict[str, str]] = field(default_factory=list)  # stage, part, reason
    judgement: Judgement | None = None  # of a planted web

    @property
    def partial(self) -> bool:
        """Whether some of the work was given up, so that its inputs are missing from what came out."""
        return bool(self.given_up)

    @property
    def nothing(self) -> str:
        """Why there is no pair; empty where there are some."""
        if self.num_pairs:
            return ""
        lost = given_up_lines(self.given_up)
        return f"nothing was kept: {lost[0] if lost else why_nothing(self.funnel)}"

    def lines(self) -> list[str]:
        """For people."""
        earlier = "" if self.published else ", as an earlier run left them"
        lines = [*funnel_lines(self.funnel), f"{self.num_pairs:,} pairs in {self.out / SHARDS}{earlier}"]
        if self.num_transient:
            again = f"`crossgrain collect retry {self.out}` tries them again"
            lines.append(f"{self.num_transient:,} images failed for the moment: {again}")
        told = given_up_lines(self.given_up)
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
    with alone(out / "work"):
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
    published = bool(plan) or not (out / SHARDS / MANIFEST).exists()
    if published:
        _publish(recipe, out / SHARDS, selected, written)
    result = CollectResult(
        out=out,
        funnel=merge_rows(row for done in runner.done for row in done.funnel),
        num_pairs=sum(read_manifest(out / SHARDS)["splits"].values()),
        num_transient=sum(done.facts["num_transient"] for done in images),
        published=published,
        given_up=runner.given_up,
    )
    write_funnel(out / FUNNEL, result.funnel)
    write_given_up(out, result.given_up)
    _write_samples(out, runner.tasks, steps)
    return result


def retry(out: Path, console: Console | None = None) -> CollectResult:
    """Ask again for the images of a collection that failed for the moment, and for nothing else; then finish it."""
    out = Path(out)
    if not (out / RECIPE).is_file():
        raise UserError(f"no collection in {out}: it has no {RECIPE} (`crossgrain collect` makes one)")
    recipe = load_recipe(CollectRecipe, out / RECIPE)
    with alone(out / "work"):
        for file in sorted((out / "work" / "images").glob("part-*.done.json")):
            done = read_done(file)
            if done is not None and done.facts.get("num_transient"):
                file.with_name(file.name.removesuffix(".done.json") + RETRY).touch()
                file.unlink()
        return _collect(recipe, out, console)


class _Runner:
    """Runs the tasks of one stage after the other, shows how far they are, and keeps what became of them."""

    def __init__(self, recipe: CollectRecipe, work: Path, console: Console | None):
        self.engine = ENGINES[recipe.engine](recipe.workers(), recipe.task_seconds)
        self.max_retries = recipe.max_retries
        self.work = work
        self.tasks: list[Task] = []
        self.done: list[Done] = []
        self.given_up: list[dict[str, str]] = []
        self._told = console is not None
        self._say = None if console is None or console.is_terminal else partial(_say, console)
        self._progress = progress_bar(None if self._say else console)
        self._progress.speed_estimate_period = recipe.task_seconds  # a part may take longer than rich looks back

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
        earlier = frozenset(task.shard for task in tasks if self._told and task.done())
        with StageBar(self._progress, tasks[0].stage, tasks[0].folder, len(tasks), earlier, self._say) as bar:
            done, failed = run_tasks(
                tasks,
                self.engine,
                self.max_retries,
                bar.advance,
            )
        self.tasks += [one for one in tasks if one.shard in {made.shard for made in done}]
        self.done += done
        self.given_up += [self._set_aside(one) for one in failed]
        _clear(tasks[0].folder, {task.shard for task in tasks}, {one.shard for one in done})
        if not failed:
            shutil.rmtree(tasks[0].folder / EARLIER, ignore_errors=True)
        return done

    def _set_aside(self, failed: Failed) -> dict[str, str]:
        told = {"stage": failed.task.stage, "part": failed.task.shard, "reason": failed.reason}
        failed.task.folder.mkdir(parents=True, exist_ok=True)
        failed.task.part(".failed.json").write_text(json.dumps(told) + "\n", encoding="utf-8")
        return told


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _make_folder(out: Path) -> None:
    """A new folder, or that of an earlier run."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: --out names a folder")
    begun = (out / RECIPE).is_file() or (out / "work" / LOCK).is_file()
    if out.is_dir() and any(out.iterdir()) and not begun:
        raise UserError(f"{out} holds something else: choose another folder for --out")
    out.mkdir(parents=True, exist_ok=True)


def _clear(folder: Path, shards: set[str], done: set[str]) -> None:
    """Remove what runs left in a stage's folder: parts of other inputs, and halves of finished ones."""
    for file in [*folder.glob("part-*"), *folder.glob(".tmp-part-*")]:
        shard, _, kind = file.name.removeprefix(".tmp-").removeprefix("part-").partition(".")
        unfinished = file.name.startswith(".tmp-") or kind.startswith(("journal.", "failed."))
        if shard not in shards or (shard in done and unfinished):
            file.unlink()


def _publish(recipe: CollectRecipe, data: Path, selected: Sequence[Done], written: Sequence[Done]) -> None:
    named = {"name": "collect", "title": recipe.title, "seed": recipe.seed, "vocab_size": recipe.vocab_size}
    if holds(data, named, written):
        return
    data.mkdir(exist_ok=True)
    write_vocab(data, [done.path(".parquet") for done in selected], recipe.vocab_size)
    publish(data, named, written)


def _write_samples(out: Path, tasks: Sequence[Task], steps: Steps) -> None:
    """The examples of all parts, without what a block list or a take-down names."""
    blocklist, samples = load_blocklist(steps.recipe.images.blocklist), Samples()
    for task in tasks:
        for sample in read_samples(task.part(".samples.jsonl")):
            seen = Seen(image_url=sample.image_url, page_url=sample.page_url, hashes=(sample.sha256,))
            listed = blocklist.blocks_url(sample.image_url) or blocklist.blocks_url(sample.page_url)
            if not listed and steps.removed.match(seen) is None:
                samples.add(sample)
    (out / "samples").mkdir(exist_ok=True)
    write_samples(out / "samples" / SAMPLES, samples)
