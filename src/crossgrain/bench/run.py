"""Run the variants of a bench one after another on the same data. Stopped or killed, the same call continues."""

import json
import multiprocessing
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from crossgrain.bench.measure import RESULT, STOPPED, measure_variant
from crossgrain.bench.plan import Plan, Planned
from crossgrain.config import UserError, dump_config, read_yaml
from crossgrain.data.manifest import read_manifest
from crossgrain.data.shards import Shards
from crossgrain.documents.writing import write_whole
from crossgrain.quickstart import check_same_scenes, draw, find_regions, say, teach_cnn
from crossgrain.recipes import QuickstartRecipe, settled
from crossgrain.training.checkpoint import check_same_recipe
from crossgrain.training.interrupt import StopSignals

Measure = Callable[[QuickstartRecipe, Path, bool, Path], None]


def run_bench(plan: Plan, out: Path, console: Console, measure: Measure | None = None) -> list[dict[str, Any]]:
    """The results of all variants, in their order, each {"name", "status": "finished", "failed" or "not run", ...}.

    Each is trained and asked in a process of its own (`measure` can do otherwise). A finished one is not run again; one
    that failed is. UserError where a folder holds the run of another recipe, KeyboardInterrupt where a signal asked to
    stop.
    """
    for one in plan.variants:
        if one.recipe:
            check_same_scenes(replace(one.recipe, scenes=plan.scenes), out / one.variant.name)
    data = _make_data(plan, out, console)
    recipes = {p.variant.name: settled(p.recipe.on(data))[0] for p in plan.variants if p.recipe}
    for name, recipe in recipes.items():
        _check_same_run(recipe, out / name)
    for number, (name, recipe) in enumerate(recipes.items(), start=1):
        title = f"[{number}/{len(recipes)}] {name}: {out / name}"
        if read_result(out / name).get("status") == "finished":
            say(console, f"{title} is finished")
            continue
        say(console, title)
        (out / name / RESULT).unlink(missing_ok=True)
        (measure or _in_process)(recipe, out / name, console.stderr, data)
    return [_result(one, out) for one in plan.variants]


def read_result(folder: Path) -> dict[str, Any]:
    """What result.json in a variant's folder holds; empty where there is none."""
    path = folder / RESULT
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def size_of_detector(out: Path) -> int:
    """The parameters of the detector that the variants share; 0 where there is none."""
    from crossgrain.detection.train import load_network

    folder = out / "detector"
    return sum(p.numel() for p in load_network(folder).parameters()) if folder.is_dir() else 0


def _make_data(plan: Plan, out: Path, console: Console) -> Path:
    """Scenes, their captions as a corpus where a variant reads one, regions and a taught CNN where one needs them."""
    data = out / "data"
    recipes = [one.recipe for one in plan.variants if one.recipe]
    for other in {path for recipe in recipes for path in recipe.other_data()}:  # said before anything is drawn
        read_manifest(other)
    draw(plan.scenes, data, console)
    sources = [source for recipe in recipes for stage in recipe.stages for source in stage.sources]
    for path in {Path(source.path).name for source in sources if source.texts == "corpus"}:
        if not (data / path).is_file():
            records = Shards(data, "train")
            captions = (text for index in range(len(records)) for text in records.texts(index).captions)
            write_whole(data / path, (f"{' '.join(text.split())}\n" for text in captions))
    if plan.detector:
        others = dict.fromkeys(path for recipe in recipes if recipe.detector for path in recipe.other_data())
        find_regions([data, *others], plan.detector, out / "detector", console)
    for taught in {(r.cnn_classifier, r.model.cnn, r.image.size): r for r in recipes if r.cnn_classifier}.values():
        teach_cnn(taught, data, out / "cnn", console)  # one for all variants: another is refused
    return data


def _check_same_run(recipe: QuickstartRecipe, folder: Path) -> None:
    saved = folder / "recipe.yaml"
    if saved.is_file():
        try:
            check_same_recipe(read_yaml(saved.read_text(encoding="utf-8"), str(saved)), dump_config(recipe))
        except UserError as error:
            raise UserError(f"{folder} holds another run ({error}): name a new folder with --out") from None


def _in_process(recipe: QuickstartRecipe, folder: Path, stderr: bool, data: Path) -> None:
    """`measure_variant` in a process that starts with nothing, so that its memory is its own."""
    in_processes(measure_variant, [(recipe, folder, stderr, data)], 1)


def in_processes(target: Callable[..., None], calls: Sequence[tuple[Any, ...]], jobs: int) -> None:
    """`target(*call)` for every call, each in a process of its own that starts with nothing, `jobs` at once.

    A signal that asks to stop reaches them all; then, or where one of them was stopped, KeyboardInterrupt.
    """
    context, waiting = multiprocessing.get_context("spawn"), deque(calls)
    running: list[Any] = []
    stopped = False
    with StopSignals() as stop:
        while running or (waiting and not stopped):
            while waiting and len(running) < jobs and not stopped:
                running.append(context.Process(target=target, args=waiting.popleft()))
                running[-1].start()
            running[0].join(0.2)
            if stop.requested and not stopped:
                for process in running:
                    process.terminate()
            ended = [process for process in running if not process.is_alive()]
            running = [process for process in running if process not in ended]
            stopped = stopped or stop.requested or any(process.exitcode == STOPPED for process in ended)
    if stopped:
        raise KeyboardInterrupt


def _result(one: Planned, out: Path) -> dict[str, Any]:
    variant = one.variant
    shown = {"name": variant.name, "note": variant.note, "overrides": [*variant.overrides]}
    if one.recipe is None:
        return {**shown, "status": "not run", "reason": variant.not_run}
    ended = {"status": "failed", "reason": "its process ended before its time"}
    return {**shown, **(read_result(out / variant.name) or ended), "uses_detector": one.recipe.detector is not None}
