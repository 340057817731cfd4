"""What of a recipe does not fit together, and detector regions that do not fit a recipe: said before anything is built.

The functions take the recipe itself (recipes.py), of which they read the parts that they check.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from crossgrain.config import UserError, config_owner, read_yaml
from crossgrain.data.regions import detector_of, has_regions, read_stamp, stamp_text
from crossgrain.models.interface import DualEncoder, declared

R = TypeVar("R")

_READERS = {  # what a model has to read for an objective
    "box": ("pixels",),
    "region_class": ("regions", "raw_regions"),
    "region_feature": ("regions",),
}


def check_parts(recipe: Any, trained: Sequence[tuple[str, Any]]) -> None:
    """ValueError where parts of a recipe contradict each other; `trained` is all that it trains, with its names."""
    names, objectives = [name for name, _ in trained], dict(trained)
    if not names or len(objectives) < len(names):
        raise ValueError(f"objectives {names}: name at least one, and each once")
    if not recipe.stages:
        raise ValueError("name at least one stage")
    _check_sizes(recipe)
    for problem in _problems_of_regions(recipe, objectives):
        raise ValueError(problem)
    for stage in recipe.stages:
        chosen = [*names] if stage.objectives is None else [*stage.objectives]
        if not chosen or not set(chosen) <= set(names):
            raise ValueError(f"stage {stage.name!r} trains on {chosen}: choose from {[*names]}")
        for problem in _problems_of_stage(recipe, stage, {name: objectives[name] for name in chosen}):
            raise ValueError(f"{problem} (stage {stage.name!r})")


def _check_sizes(recipe: Any) -> None:
    size = getattr(getattr(recipe.model, "vision", None), "image_size", None)
    if size not in (None, recipe.image.size):
        raise ValueError(f"image.size is {recipe.image.size}, but model.vision.image_size is {size}")
    if size is not None and recipe.image.long_side is not None:
        raise ValueError("image.long_side keeps the shape of images, but model.vision reads squares: set it to null")
    positions = getattr(recipe.model, "max_length", recipe.text.max_tokens)
    if positions < recipe.text.max_tokens:
        raise ValueError(f"text.max_tokens is {recipe.text.max_tokens}, but model.max_length is {positions}")


def _problems_of_regions(recipe: Any, objectives: Mapping[str, Any]) -> Iterator[str]:
    reads = declared(recipe.model, "reads")
    model = config_owner(recipe.model).__name__
    for name in objectives:
        if reads not in _READERS.get(name, (reads,)):
            yield f"{name} needs a model that reads {' or '.join(_READERS[name])}, and {model} reads {reads} here"
    first = declared(recipe.model, "whole_image_first")
    if reads != "pixels" and first not in (None, recipe.regions.whole_image):
        place = "the first of its regions" if first else "none of its regions"
        yield f"{model} takes the whole image as {place}: set regions.whole_image to {str(first).lower()}"
    if getattr(objectives.get("region_class"), "soft", False) and not recipe.regions.probs:
        yield "region_class with soft: true predicts the detector's distribution: set regions.probs to true"


def _problems_of_stage(recipe: Any, stage: Any, chosen: Mapping[str, Any]) -> Iterator[str]:
    texts = {source.texts for source in stage.sources}
    swapped = (stage.pairs or recipe.pairs).swapped
    negatives = getattr(chosen.get("itm"), "negatives", None)
    # These take every row for a pair that belongs together.
    trusting = [name for name in ("itc", "box") if name in chosen]
    trusting += [f"itm with negatives: {negatives}"] if negatives not in (None, "swapped") else []
    if "box" in chosen and "regions" not in texts:
        yield "the box objective needs a source with `texts: regions`"
    if negatives == "swapped" and not swapped:
        yield "itm with negatives: swapped finds none: set pairs.swapped to their share, such as 0.5"
    if swapped and trusting:
        yield f"pairs.swapped {swapped} gives pairs wrong texts, which {', '.join(trusting)} would learn"
    if swapped and "regions" in texts:
        yield "pairs.swapped takes captions of other images, which `texts: regions` has not"
    if "corpus" in texts:
        if issubclass(config_owner(recipe.model), DualEncoder):
            yield f"a corpus is text without images, which {config_owner(recipe.model).__name__} does not read"
        if "mlm" not in chosen:
            yield "a corpus is there for mlm"
        if comparing := [name for name in trusting if not name.endswith("balanced")]:  # which asks pairs alone
            yield f"a corpus is text without images, which {', '.join(comparing)} would compare with images"


def with_stamp(recipe: R) -> R:
    """The recipe with `regions.stamp` settled by its data; as it is for a model that reads no regions.

    UserError where a source has no regions, or those of another detector than the others, than the recipe itself or
    than the run that `initial_weights` comes from.
    """
    given: Any = recipe
    if declared(given.model, "reads") == "pixels":
        return recipe
    expected, whose = given.regions.stamp, "the recipe (regions.stamp)"
    if given.initial_weights is not None and (learnt := _stamp_of_run(given.initial_weights)) is not None:
        if expected not in (None, learnt):
            raise _other_detector(f"{given.initial_weights} was trained on", learnt, whose, expected)
        expected, whose = learnt, str(given.initial_weights)
    for path in dict.fromkeys(s.path for stage in given.stages for s in stage.sources if s.texts != "corpus"):
        found = stamp_of(path)
        _check_detector(given, path)
        if expected not in (None, found):
            raise _other_detector(f"{path} has", found, whose, expected)
        expected, whose = found, whose if expected else path
    return replace(given, regions=replace(given.regions, stamp=expected))


def _check_detector(recipe: Any, data: str) -> None:
    """UserError where the detector of a data set gives other features, or more classes, than the recipe expects."""
    stamp = read_stamp(Path(data)) or {}
    size, wanted = stamp.get("feature_size"), getattr(recipe.model, "feature_dim", None)
    if declared(recipe.model, "reads") == "regions" and None not in (size, wanted) and size != wanted:
        raise UserError(f"{data} has features of {size} numbers: set model.feature_dim to that, it is {wanted}")
    heads = [(f"objectives.{index}", objective) for index, objective in enumerate(recipe.objectives)]
    if (head := getattr(getattr(recipe, "task", None), "head", None)) is not None:
        heads.append(("task.head", head))
    for name, objective in heads:
        classes, known = stamp.get("num_classes"), getattr(objective, "num_classes", None)
        soft = getattr(objective, "soft", False)  # a distribution needs exactly as many; labels need at least as many
        if classes and known and (known < classes or (soft and known != classes)):
            place = f"{name}.num_classes"
            raise UserError(f"{data} has regions of {classes} classes: set {place} to that, it is {known}")


def check_stamp(recipe: Any, data: Path | str) -> None:
    """UserError, showing both stamps, where the regions of `data` are not of the detector that the run learnt from."""
    if declared(recipe.model, "reads") == "pixels":
        return
    found = stamp_of(data)
    if recipe.regions.stamp not in (None, found):
        raise _other_detector(f"{data} has", found, "the checkpoint", recipe.regions.stamp)


def stamp_of(data: Path | str) -> str:
    """Which detector made the regions of a data set, on one line. UserError where not all of them are there."""
    stamp = read_stamp(Path(data))
    if stamp is None or not has_regions(Path(data)):
        there = "no detected regions" if stamp is None else "detected regions of a part of its images only"
        raise UserError(f"{data} has {there}, which the model reads: run `crossgrain detect {data}`")
    return stamp_text(detector_of(stamp))


def _stamp_of_run(checkpoint: Path) -> str | None:
    file = checkpoint / "recipe.yaml"
    saved = read_yaml(file.read_text(encoding="utf-8"), str(file)) if file.is_file() else None
    regions = saved.get("regions") if isinstance(saved, dict) else None
    return regions.get("stamp") if isinstance(regions, dict) else None


def _other_detector(what: str, found: str, whose: str, expected: str) -> UserError:
    return UserError(
        f"{what} regions of another detector than {whose}:\n  {found}\n  {expected}\n"
        "detect them anew with the same one, or train on these from the start"
    )
