"""What a quickstart does before it trains: choose its recipe, draw the scenes, give them regions if the model reads
these, and teach its CNN what they show if the recipe says so. Every step is left out where its result stands already,
and goes on where it was stopped.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from crossgrain.config import UserError, dump_config, find_recipe, read_yaml
from crossgrain.models import MODELS
from crossgrain.nn.cnn import CNN
from crossgrain.recipes import QuickstartRecipe, Scenes, load_run_recipe

FIRST = "xvlm"  # the family that `crossgrain quickstart` trains where none is named


def choose(recipe: str | None, overrides: Sequence[str]) -> tuple[str, list[str]]:
    """The recipe of a quickstart, and what is left of the overrides: `model=NAME` with a family's name picks one.

    UserError for an unknown family, or where a recipe is named besides.
    """
    named = [override for override in overrides if re.fullmatch(r"model=[\w-]+", override)]
    rest = [override for override in overrides if override not in named]
    if not named:
        return recipe or "quickstart", rest
    if recipe is not None or len(named) > 1:
        raise UserError(f"{' and '.join(named)}{' and --recipe' if recipe else ''} name a recipe each: choose one")
    family = named[0].removeprefix("model=")
    if family not in MODELS:
        raise UserError(f"no quickstart for model {family!r}: choose from {', '.join(sorted(MODELS))}")
    return "quickstart" if family == FIRST else f"quickstart_{family}", rest


def load(recipe: str, overrides: Sequence[str]) -> tuple[QuickstartRecipe, Path]:
    """A recipe with a scenes block, and its file. UserError where it teaches a CNN that its model does not have."""
    path = find_recipe(recipe)
    loaded = load_run_recipe(path, list(overrides))
    if not isinstance(loaded, QuickstartRecipe):
        raise UserError(f"{recipe} has no scenes block: use `crossgrain pretrain {recipe}`")
    if loaded.cnn_classifier is not None and not isinstance(getattr(loaded.model, "cnn", None), CNN.Config):
        raise UserError(
            f"{recipe} has cnn_classifier {loaded.cnn_classifier!r}, but a model without a CNN: leave it out"
        )
    return loaded, path


def make_data(recipe: QuickstartRecipe, out: Path, console: Console) -> Path:
    """The data set of a quickstart in its run folder `out`: scenes, with regions where the recipe names a detector.

    The weights of a CNN that the recipe lets learn first stand beside them. KeyboardInterrupt where a signal stopped a
    training; the same call goes on. UserError where `out` is the run of other scenes.
    """
    from crossgrain.data.manifest import read_manifest

    check_same_scenes(recipe, out)
    for other in recipe.other_data():  # said before anything is drawn
        read_manifest(other)
    data = out / "data"
    draw(recipe.scenes, data, console)
    if recipe.detector is not None:
        find_regions([data, *recipe.other_data()], recipe.detector, out / "detector", console)
    if recipe.cnn_classifier is not None:
        teach_cnn(recipe, data, out / "cnn", console)
    return data


def draw(scenes: Scenes, data: Path, console: Console) -> None:
    """Draw the scenes, unless they stand in `data` already."""
    from crossgrain.data.prepare import prepare
    from crossgrain.data.shards import read_manifest

    flags = {"size": scenes.size, "seed": scenes.seed, "image_size": scenes.image_size}
    if (data / "manifest.json").is_file() and read_manifest(data).get("source") == {"name": "scenes", **flags}:
        return say(console, f"scenes: {data} is there already")
    report = prepare("scenes", None, data, flags=flags, vocab_size=scenes.vocab_size, overwrite=True, console=console)
    return say(console, *report.lines())


def find_regions(data: Sequence[Path], recipe: str, run: Path, console: Console) -> None:
    """Train the detector of a recipe on the first data set in the run folder `run`; it finds the regions of all."""
    from crossgrain.data.regions import has_regions
    from crossgrain.detection.pipeline import DetectConfig, detect
    from crossgrain.detection.train import train_detector
    from crossgrain.detection.trained import TrainedDetector

    say(console, f"detector: {run}")
    train_detector(find_recipe(recipe), data[0], run, console)
    for one in data:
        if has_regions(one):  # training refuses those of another detector
            say(console, f"regions: {one} has them already")
        else:
            say(console, *detect(one, DetectConfig(detector=TrainedDetector.Config(run=run)), console).lines())


def teach_cnn(recipe: QuickstartRecipe, data: Path, run: Path, console: Console) -> None:
    """Let the CNN of the recipe's model learn in the run folder `run`, and put its weights beside `data`.

    UserError where `run` is that of another one.
    """
    from safetensors.torch import save_file

    from crossgrain.detection.train import train_cnn

    assert recipe.cnn_classifier is not None
    say(console, f"cnn: {run}")
    tensors = train_cnn(find_recipe(recipe.cnn_classifier), data, run, recipe.model.cnn, recipe.image.size, console)
    file = Path(recipe.on(data).model.cnn.weights)
    save_file(tensors, partial := file.with_name(f".{file.name}"))
    partial.replace(file)


def say(console: Console, *lines: str) -> None:
    """Lines as they are, without markup, colours or breaks."""
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def check_same_scenes(recipe: QuickstartRecipe, out: Path) -> None:
    """UserError where `out` is the run of other scenes, before these are drawn over."""
    saved = out / "recipe.yaml"
    tree = read_yaml(saved.read_text(encoding="utf-8"), str(saved)) if saved.is_file() else {}
    given = {"scenes": dump_config(recipe.scenes), "detector": recipe.detector, "cnn_classifier": recipe.cnn_classifier}
    for key, value in given.items():
        there = tree.get(key, value) if isinstance(tree, dict) else value
        if there != value:
            raise UserError(f"{out} holds another run ({key} is {there} there and {value} here): name a new folder")
