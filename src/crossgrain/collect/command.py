"""What `crossgrain collect ...` means: the pipeline, and what is done to a collection afterwards."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from crossgrain.collect import hash_sets, planted, takedown
from crossgrain.collect.pipeline import RECIPE, SHARDS, CollectResult, run_collect
from crossgrain.collect.pipeline import retry as retry_transient
from crossgrain.collect.recipe import CollectRecipe
from crossgrain.collect.report import write_report
from crossgrain.collect.scoring import training
from crossgrain.collect.steps import WEB
from crossgrain.collect.tombstones import run_folder
from crossgrain.config import UserError, load_recipe, read_config, with_overrides
from crossgrain.data.manifest import MANIFEST
from crossgrain.data.shards import Shards
from crossgrain.documents.writing import write_whole

PLANTED = "planted.json"


def load(recipe: Path, overrides: Sequence[str]) -> CollectRecipe:
    """A recipe, read and checked."""
    return load_recipe(CollectRecipe, recipe, overrides)


def collect(recipe: Path, overrides: Sequence[str], out: Path, console: Console | None = None) -> CollectResult:
    """Collect, or go on with what was begun in `out`; then write the page and the datasheet.

    What came of a planted web is judged, in planted.json.
    """
    return _told(run_collect(load(recipe, overrides), out, console))


def retry(out: Path, console: Console | None = None) -> CollectResult:
    """Ask again for what failed for the moment; the page and the datasheet are written anew."""
    return _told(retry_transient(out, console))


def _told(result: CollectResult) -> CollectResult:
    write_report(result.out)
    if load(result.out / RECIPE, ()).scenes_web is None:
        return result
    judgement = planted.judge(result.out / SHARDS, result.out / WEB)
    write_whole(result.out / PLANTED, [json.dumps(judgement.to_json(), indent=1) + "\n"])
    return replace(result, judgement=judgement)


def remove(
    data: Path,
    *,
    urls: Sequence[str],
    hashes: Sequence[str],
    domains: Sequence[str],
    listed: Path | None = None,
    dry_run: bool = False,
) -> takedown.Removal:
    """Take pictures out, by what is named and what the file `listed` names; a collection's page is written anew."""
    wanted = {"urls": [*urls], "hashes": [*hashes], "domains": [*domains]}
    for name, values in (takedown.read_list(listed) if listed is not None else {}).items():
        wanted[name] += values
    removal = takedown.remove(data, **wanted, dry_run=dry_run)
    if not dry_run and (run := run_folder(data)) is not None:
        write_report(run)
    return removal


def report(run: Path) -> list[Path]:
    """Write the page and the datasheet of a finished collection anew."""
    if not (run / "recipe.yaml").is_file():
        raise UserError(f"no collection in {run}: it has no recipe.yaml (`crossgrain collect` makes one)")
    return write_report(run)


def hash_set(paths: Sequence[Path], name: str, out: Path) -> list[str]:
    """Hash the images of a test set: files, folders of them, data that `crossgrain prepare` wrote; what to tell."""
    for path in paths:
        if not path.exists():
            raise UserError(f"no images at {path}")
    if out.is_dir():
        raise UserError(f"{out} is a folder: --out names a file")
    out.parent.mkdir(parents=True, exist_ok=True)
    made, drops = hash_sets.build((image for path in paths for image in _images(path)), name, out)
    lines = [f"{name}: {len(made.hashes):,} images hashed, {drops.dropped.total():,} could not be"]
    return [*lines, *drops.drop_lines(), f"wrote {out}; name it in a recipe: aggregate: {{test_sets: [{out}]}}"]


def _images(path: Path) -> Iterator[Path | bytes]:
    if path.is_file():
        yield path
    elif (path / MANIFEST).is_file():
        yield from (record.image for record in Shards(path))
    else:
        yield from hash_sets.images_below(path)


@dataclass(frozen=True)
class ScorerReport:
    """How good a trained scorer is."""

    out: Path
    values: dict[str, Any]

    def lines(self) -> list[str]:
        """For people."""
        return [f"use it in a recipe: scorer: {{type: features, path: {self.out}}}"]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {"out": str(self.out), **self.values}


def train_scorer(data: Path, out: Path, overrides: Sequence[str], console: Console) -> ScorerReport:
    """Train the light scorer on prepared data."""
    config = read_config(training.ScorerTraining, with_overrides({}, overrides), "crossgrain collect train-scorer")

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    return ScorerReport(out, training.train_scorer(data, out, config, say))
