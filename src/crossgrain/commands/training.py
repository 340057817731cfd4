"""`crossgrain pretrain`, `finetune`, `quickstart` and `show`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossgrain.commands import collect
from crossgrain.commands.evaluation import evaluate_run
from crossgrain.commands.terminal import make_console, say, write
from crossgrain.config import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from crossgrain.recipes import PretrainRecipe


def show(arguments: argparse.Namespace) -> int:
    """Handle `crossgrain show`."""
    from crossgrain.config import dump_recipe, find_recipe
    from crossgrain.recipes import load_run_recipe

    path = find_recipe(arguments.recipe)
    load = collect.complete if collect.is_collection(path) else load_run_recipe
    write(dump_recipe(load(path, arguments.overrides)).rstrip())
    return 0


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
    return 0


def quickstart(arguments: argparse.Namespace) -> int:
    """Handle `crossgrain quickstart`."""
    from crossgrain.quickstart import choose, load, make_data

    console = make_console()
    recipe, path = load(*choose(arguments.recipe, arguments.overrides))
    out = arguments.out or Path("runs") / path.stem
    data = make_data(recipe, out, console)
    if train(recipe.on(data), out, console):
        evaluate_run(out, None, recipe.evaluation, out / "evaluation", "latest", console)
    return 0


def train(recipe: "PretrainRecipe", out: Path, console: "Console | None", world: Any = None) -> Path | None:
    """Train; the last checkpoint, or None where a signal stopped it."""
    from crossgrain.runs import run_recipe

    outcome = run_recipe(recipe, out, console=console, world=world)
    return outcome.checkpoint if outcome.status == "finished" else None
