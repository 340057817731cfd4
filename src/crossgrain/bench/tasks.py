"""Every family at every task: fine-tuned from its quickstart on the scenes, beside the same model that sees no image.

A cell of the table is a fine-tuning recipe that starts from the family's quickstart. It is run twice, the second time
blind: what that reaches, words alone say. Cells run side by side, each in a process with one thread: small models gain
more from that than from threads.

OUT/FAMILY/                         the family's quickstart, where `--runs` names no folder that has it
OUT/TASK_FAMILY/, OUT/TASK_FAMILY_blind/    run folders with result.json, as those of other benches
OUT/bench.md, OUT/bench.json        the table
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from rich.console import Console

from crossgrain.bench.measure import RESULT, measure_variant, write_json
from crossgrain.bench.run import in_processes, read_result
from crossgrain.bench.table import JSON, MARKDOWN, dig, told_of_machine
from crossgrain.config import Count, RecipeError, UserError, configclass, find_recipe, load_recipe
from crossgrain.documents.markup import Cell, Table, plain
from crossgrain.documents.writing import write_whole
from crossgrain.finetuning import FinetuneRecipe
from crossgrain.quickstart import load, make_data, say
from crossgrain.recipes import load_run_recipe, pretrain
from crossgrain.training import checkpoint

Name = Annotated[str, Field(pattern=r"^[a-z0-9]+$")]


@configclass
class Family:
    """A row of the table: the quickstart that its cells start from."""

    name: Name
    recipe: str


@configclass
class TaskColumn:
    """A column: the recipe of its cells, what a family changes in it, and which score stands in the table.

    `score` and `chance` are paths in scores.json, such as "vqa/accuracy". `blind` names the families whose models are
    also trained without seeing an image (all of them for true; none where the score of such a model follows: chance).
    What the best of them reaches stands beside every cell.
    """

    name: Name
    recipe: str
    score: str
    chance: str
    title: str = ""
    overrides: tuple[str, ...] = ()
    families: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    blind: bool | tuple[str, ...] = True

    def is_blind(self, family: str) -> bool:
        """Whether this family is also trained without images."""
        return self.blind if isinstance(self.blind, bool) else family in self.blind


@configclass
class TasksRecipe:
    """A comparison of families at tasks."""

    title: str
    families: tuple[Family, ...]
    tasks: tuple[TaskColumn, ...]
    limit: Count = 300  # held-out images that each cell is asked about


@dataclass(frozen=True)
class CellPlan:
    """One cell, sighted or blind."""

    family: str
    task: TaskColumn
    blind: bool

    @property
    def folder(self) -> str:
        """Its run folder."""
        return f"{self.task.name}_{self.family}{'_blind' if self.blind else ''}"


def load_tasks(
    name: str, families: Sequence[str] | None, tasks: Sequence[str] | None, limit: int | None
) -> TasksRecipe:
    """The bench of a file, with these families and tasks only. UserError for names that it does not have."""
    bench = load_recipe(TasksRecipe, find_recipe(name))
    for task in bench.tasks:
        of_families = {*task.families, *(() if isinstance(task.blind, bool) else task.blind)}
        if strangers := sorted(of_families - {family.name for family in bench.families}):
            raise RecipeError(
                f"{name}: task {task.name} names {strangers}: the families are {[f.name for f in bench.families]}"
            )
    for chosen, known in ((families, bench.families), (tasks, bench.tasks)):
        names = [one.name for one in known]
        if unknown := sorted(set(chosen or ()) - set(names)):
            raise UserError(f"{name} has no {unknown[0]!r}: choose from {', '.join(names)}")
    if limit is not None and limit < 1:
        raise UserError(f"limit must be at least 1, not {limit}")
    return replace(
        bench,
        families=tuple(f for f in bench.families if families is None or f.name in families),
        tasks=tuple(t for t in bench.tasks if tasks is None or t.name in tasks),
        limit=limit or bench.limit,
    )


def run_tasks(
    bench: TasksRecipe, out: Path, runs: Path, console: Console, overrides: Sequence[str] = (), jobs: int = 1
) -> dict[tuple[str, str, bool], dict[str, Any]]:
    """The results by (family, task, blind). A finished cell is not run again; one that failed is."""
    starts = {family.name: _quickstart(family, out, runs, console) for family in bench.families}
    cells = [
        CellPlan(family.name, task, blind)
        for task in bench.tasks
        for family in bench.families
        for blind in ((False, True) if task.is_blind(family.name) else (False,))
    ]
    recipes = {cell.folder: cell_recipe(cell, starts[cell.family], bench.limit, overrides) for cell in cells}
    waiting = [cell for cell in cells if read_result(out / cell.folder).get("status") != "finished"]
    say(console, f"{len(cells)} cells, {len(cells) - len(waiting)} finished already, {jobs} at once in {out}")
    for cell in waiting:
        (out / cell.folder / RESULT).unlink(missing_ok=True)
    calls = [(recipes[cell.folder], out / cell.folder, console.stderr) for cell in waiting]
    in_processes(measure_cell, calls, jobs)
    return {(c.family, c.task.name, c.blind): read_result(out / c.folder) or dict(_ENDED) for c in cells}


_ENDED = {"status": "failed", "reason": "its process ended before its time"}


def measure_cell(recipe: FinetuneRecipe, folder: Path, stderr: bool) -> None:
    """`measure_variant` with one thread, and without a word of it in the middle of those of other cells."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output.txt").open("w", encoding="utf-8") as file:
        measure_variant(recipe, folder, console=Console(file=file, width=160))
    result = read_result(folder)
    told = result.get("reason", "") if result["status"] == "failed" else ""
    say(Console(stderr=stderr), f"{folder.name}: {result['status']} {told}".rstrip())


def cell_recipe(cell: CellPlan, start: Path, limit: int, overrides: Sequence[str]) -> FinetuneRecipe:
    """The recipe of a cell on the data of the quickstart that it starts from."""
    task = cell.task
    given = [f"initial_weights={start}", *task.overrides, *task.families.get(cell.family, ()), *overrides]
    recipe = load_run_recipe(find_recipe(task.recipe), [*given, f"blind={str(cell.blind).lower()}"])
    if not isinstance(recipe, FinetuneRecipe):
        raise RecipeError(f"{task.recipe} names no task")
    data = str(_data_of(start))
    stages = tuple(replace(s, sources=tuple(replace(one, path=data) for one in s.sources)) for s in recipe.stages)
    return replace(recipe, stages=stages, evaluation=replace(recipe.evaluation, limit=limit))


def _data_of(run: Path) -> Path:
    recipe = load_run_recipe(run / "recipe.yaml")
    return next(Path(source.path) for stage in recipe.stages for source in stage.sources if source.texts != "corpus")


def _quickstart(family: Family, out: Path, runs: Path, console: Console) -> Path:
    """The run that a family starts from: the finished one in `runs`, or one that is trained here."""
    recipe, path = load(family.recipe, [])
    for folder in (runs / path.stem, out / family.name):
        newest = checkpoint.latest(folder / "checkpoints")
        if newest and checkpoint.read_state(newest).step == sum(stage.steps for stage in recipe.stages):
            return folder
    folder = out / family.name
    say(console, f"{family.name}: no finished quickstart in {runs / path.stem}, training one in {folder}")
    data = make_data(recipe, folder, console)
    if pretrain(recipe.on(data), folder, console=console).status != "finished":
        raise KeyboardInterrupt
    return folder


def table_of_tasks(bench: TasksRecipe, results: Mapping[tuple[str, str, bool], Mapping[str, Any]]) -> Table:
    """Families down, tasks across; in a cell the score, and beside it what the best blind model and chance reach."""
    rows = []
    for family in bench.families:
        row: list[str | Cell] = [family.name]
        for task in bench.tasks:
            blind = [results.get((other.name, task.name, True)) for other in bench.families]
            row.append(_cell(task, results.get((family.name, task.name, False)), blind))
        rows.append(row)
    return Table(["", *(task.title or task.name for task in bench.tasks)], rows)


def _cell(task: TaskColumn, sighted: Mapping[str, Any] | None, blind: Sequence[Mapping[str, Any] | None]) -> Cell | str:
    if sighted is None or sighted["status"] != "finished":
        return "failed"
    score, chance = (dig(sighted["scores"], path.split("/")) for path in (task.score, task.chance))
    scored = [dig(one["scores"], task.score.split("/")) for one in blind if one and one["status"] == "finished"]
    words = max((number for number in scored if number is not None), default=None)
    told = [f"words alone {words:.1f}"] if words is not None else []
    told += [f"chance {chance:.1f}"] if chance is not None else []
    return Cell("" if score is None else f"{score:.1f}", ", ".join(told))


def write_tasks(
    bench: TasksRecipe, results: Mapping[tuple[str, str, bool], Mapping[str, Any]], command: str, out: Path
) -> dict[str, Any]:
    """bench.json and bench.md in `out`; gives what the first holds."""
    told = told_of_machine(command)
    cells = [{"family": f, "task": t, "blind": b, **result} for (f, t, b), result in results.items()]
    values = {"title": bench.title, **told, "limit": bench.limit, "cells": cells}
    write_json(out / JSON, values)
    given = "\n".join(f"- {key}: {plain(value) if key != 'command' else f'`{value}`'}" for key, value in told.items())
    failed = [f"- {c['task']}, {c['family']}: {plain(c['reason'])}" for c in cells if c["status"] == "failed"]
    parts = [f"# {plain(bench.title)}", given, table_of_tasks(bench, results).to_markdown(), *failed]
    write_whole(out / MARKDOWN, ["\n\n".join(parts) + "\n"])
    return values
