"""`crossgrain pretrain`, `finetune`, `quickstart` and `show`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossgrain.commands import collect
from crossgrain.commands.evaluation import evaluate_run
from crossgrain.commands.terminal import make_console, say, write
from crossgrain.config import UserError
from crossgrain.training.interrupt import STOPPED

if TYPE_CHECKING:
    from rich.console import Console

    from crossgrain.recipes import PretrainRecipe


def show(arguments: argparse.Namespace) -> int:
    """Handle `crossgrain show`."""
    from crossgrain.config import dump_recipe, find_recipe

    path = find_recipe(arguments.recipe)
    load = collect.complete if collect.is_collection(path) else _load_any
    write(dump_recipe(load(path, arguments.overrides)).rstrip())
    return 0


def _load_any(path: Path, overrides: list[str]) -> Any:
    """A recipe of a run, of a bench, or of what a quickstart trains before its run."""
    from crossgrain.bench.plan import BenchRecipe
    from crossgrain.bench.tasks import TasksRecipe
    from crossgrain.config import load_recipe, read_yaml
    from crossgrain.detection.train import ClassifierRecipe, DetectorRecipe
    from crossgrain.recipes import load_run_recipe

    tree = read_yaml(path.read_text(encoding="utf-8", errors="replace"), str(path))
    keys = set(tree) if isinstance(tree, dict) else set()
    if "variants" in keys:
        return load_recipe(BenchRecipe, path, overrides)
    if {"families", "tasks"} <= keys:
        return load_recipe(TasksRecipe, path, overrides)
    if "steps" in keys and "stages" not in keys:
        # One of a CNN leaves the model to who asks for it; the complete one of its run names the CNN.
        detects = "model" in keys and "cnn" not in tree["model"]
        return load_recipe(DetectorRecipe if detects else ClassifierRecipe, path, overrides)
    return load_run_recipe(path, overrides)


def pretrain(arguments: argparse.Namespace) -> int:
    """Handle `crossgrain pretrain`, in one process or in each of torchrun's."""
    return _run_recipe(arguments, "pretrain")


def finetune(arguments: argparse.Namespace) -> int:
    """Handle `crossgrain finetune`, likewise."""
    return _run_recipe(arguments, "finetune")


def _run_recipe(arguments: argparse.Namespace, verb: str) -> int:
    from crossgrain.config import find_recipe
    from crossgrain.finetuning import FinetuneRecipe
    from crossgrain.recipes import QuickstartRecipe, load_run_recipe
    from crossgrain.training.distributed import join_world

    path = find_recipe(arguments.recipe)
    recipe = load_run_recipe(path, arguments.overrides)
    if isinstance(recipe, QuickstartRecipe):
        raise UserError(f"{path} draws its own data: use `crossgrain quickstart --recipe {arguments.recipe}`")
    fitting = "finetune" if isinstance(recipe, FinetuneRecipe) else "pretrain"
    if verb != fitting:
        named = "names a task" if fitting == "finetune" else "names no task"
        raise UserError(f"{path} {named}: use `crossgrain {fitting} {arguments.recipe}`")
    out = arguments.out or Path("runs") / path.stem
    with join_world() as world:
        console = make_console() if world.is_main else None
        finished = train(recipe, out, console, world)
        if console and finished:
            say(console, f"weights: {finished}", f"next: crossgrain evaluate {out}")
    return 0 if finished else STOPPED


def quickstart(arguments: argparse.Namespace) -> int:
    """Handle `crossgrain quickstart`."""
    from crossgrain.quickstart import choose, load, make_data

    console = make_console()
    recipe, path = load(*choose(arguments.recipe, arguments.overrides))
    out = arguments.out or Path("runs") / path.stem
    data = make_data(recipe, out, console)
    if not train(recipe.on(data), out, console):
        return STOPPED
    evaluate_run(out, None, recipe.evaluation, out / "evaluation", "latest", console)
    return 0


def train(recipe: "PretrainRecipe", out: Path, console: "Console | None", world: Any = None) -> Path | None:
    """Train; the last checkpoint, or None where a signal stopped it."""
    from crossgrain.runs import run_recipe

    outcome = run_recipe(recipe, out, console=console, world=world)
    return outcome.checkpoint if outcome.status == "finished" else None
