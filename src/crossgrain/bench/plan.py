"""What a bench compares, as a value: a starting recipe, and what each variant changes in it.

A bench is a YAML file (`recipes/families.yaml`, `recipes/ablations/`). All its variants learn from the same scenes,
with the regions of the same detector, for as many steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Annotated, TypeVar

from pydantic import Field

from crossgrain.config import Count, RecipeError, UserError, configclass, find_recipe, load_recipe
from crossgrain.quickstart import load
from crossgrain.recipes import QuickstartRecipe, Scenes, Stage

T = TypeVar("T")
LOG_LINES = 20  # that a run writes at least, so that its time and its last losses are means of several


@configclass
class Variant:
    """One column of the table."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]  # also of its run folder; shown with spaces
    recipe: str | None = None  # where it starts, in place of the bench's
    overrides: tuple[str, ...] = ()  # key.path=value
    note: str = ""  # what it shows, under the table
    not_run: str | None = None  # why it is listed without figures


@configclass
class BenchRecipe:
    """A comparison. `overrides` come before those of a variant, `steps` are shared out over a recipe's stages."""

    title: str
    recipe: str | None = None
    overrides: tuple[str, ...] = ()
    steps: Count
    limit: Count = 500  # held-out images that each variant is asked about
    variants: tuple[Variant, ...]

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"variants {names}: name at least one, and each once")
        if without := [v.name for v in self.variants if not (v.recipe or self.recipe or v.not_run)]:
            raise ValueError(f"variants {without} start from no recipe: name one, for them or for all")


@dataclass(frozen=True)
class Planned:
    """A variant with its complete recipe; None where it is not run."""

    variant: Variant
    recipe: QuickstartRecipe | None


@dataclass(frozen=True)
class Plan:
    """A bench, ready to be run on its scenes."""

    title: str
    scenes: Scenes
    detector: str | None  # of the variants that read regions
    steps: int
    limit: int
    variants: tuple[Planned, ...]


def load_plan(
    name: str,
    *,
    steps: int | None = None,
    limit: int | None = None,
    chosen: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
) -> Plan:
    """The bench of a file, or of one of the library's by its name, with the recipes of all its variants.

    `steps` and `limit` stand in place of the file's, `chosen` keeps these variants only, `overrides` change every
    recipe. UserError where a recipe does not fit together, or where two variants want different scenes or detectors.
    """
    bench = load_recipe(BenchRecipe, find_recipe(name))
    known = [variant.name for variant in bench.variants]
    if unknown := sorted(set(chosen or ()) - set(known)):
        raise UserError(f"{name} has no variant {unknown[0]!r}: choose from {', '.join(known)}")
    for what, value in {"steps": steps, "limit": limit}.items():
        if value is not None and value < 1:
            raise UserError(f"{what} must be at least 1, not {value}")
    bench = replace(bench, steps=steps or bench.steps, limit=limit or bench.limit)
    planned = tuple(_plan(bench, v, overrides) for v in bench.variants if chosen is None or v.name in chosen)
    recipes = [one.recipe for one in planned if one.recipe]
    if not recipes:
        raise UserError(f"{name}: none of {', '.join(chosen or known)} is run")
    scenes = _the_same("scenes", [recipe.scenes for recipe in recipes])
    detectors = [recipe.detector for recipe in recipes if recipe.detector]
    detector = _the_same("detector", detectors) if detectors else None
    return Plan(bench.title, scenes, detector, bench.steps, bench.limit, planned)


def with_steps(recipe: QuickstartRecipe, total: int) -> QuickstartRecipe:
    """The recipe with `total` steps, shared out over its stages and their warm-ups as they were."""
    stages, before = recipe.stages, [0, *accumulate(stage.steps for stage in recipe.stages)]
    if total < len(stages):
        raise UserError(f"{total} steps are too few for {len(stages)} stages")
    ends = [round(total * end / before[-1]) for end in before]
    ends = [max(number, min(end, total - len(stages) + number)) for number, end in enumerate(ends)]
    lengths = [last - first for first, last in pairwise(ends)]
    changed = tuple(_shortened(stage, steps) for stage, steps in zip(stages, lengths, strict=True))
    log_every = max(1, min(recipe.train.log_every, min(lengths) // LOG_LINES))
    return replace(recipe, stages=changed, train=replace(recipe.train, log_every=log_every))


def _shortened(stage: Stage, steps: int) -> Stage:
    given, share = stage.schedule, steps / stage.steps
    milestones = tuple(round(step * share) for step in given.milestones)
    schedule = replace(given, warmup_steps=round(given.warmup_steps * share), milestones=milestones)
    return replace(stage, steps=steps, schedule=schedule)


def _plan(bench: BenchRecipe, variant: Variant, overrides: Sequence[str]) -> Planned:
    if variant.not_run is not None:
        return Planned(variant, None)
    name = variant.recipe or bench.recipe
    assert name is not None  # BenchRecipe has seen to it
    try:
        recipe, _ = load(name, [*bench.overrides, *variant.overrides, *overrides])
        recipe = with_steps(recipe, bench.steps)
    except UserError as error:
        raise RecipeError(f"variant {variant.name}: {error}") from None
    return Planned(variant, replace(recipe, evaluation=replace(recipe.evaluation, limit=bench.limit)))


def _the_same(what: str, values: Sequence[T]) -> T:
    for value in values[1:]:
        if value != values[0]:
            raise UserError(f"variants of one bench share their {what}, but want {values[0]} and {value}")
    return values[0]
