"""Run a recipe where it stands: in this process, in torchrun's, or in several processes that share a processor."""

from pathlib import Path

import torch
from rich.console import Console

from crossgrain.recipes import PretrainRecipe, pretrain
from crossgrain.training.distributed import ALONE, World
from crossgrain.training.processes import in_ranks
from crossgrain.training.trainer import Outcome


def run_recipe(
    recipe: PretrainRecipe, folder: Path, *, console: Console | None = None, world: World | None = None
) -> Outcome:
    """Train in `folder`, from its newest checkpoint if it has one.

    `world` is that of torchrun, where there is one. Without it and without a GPU, `train.processes` are started here.
    """
    world = world or ALONE
    if recipe.train.processes == 1 or world.size > 1 or torch.cuda.is_available():
        return pretrain(recipe, folder, console=console, world=world)
    return in_ranks(recipe.train.processes, _in_rank, recipe, folder, console is not None)


def _in_rank(world: World, recipe: PretrainRecipe, folder: Path, tells: bool) -> Outcome:
    return pretrain(recipe, folder, console=Console() if tells and world.is_main else None, world=world)
