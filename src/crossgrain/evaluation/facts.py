"""What a run folder says of its run: the recipe in the words of its own keys, the stages, the log."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crossgrain.config import UserError, read_yaml
from crossgrain.documents.markup import Table

Tree = Mapping[str, Any]


def read_tree(run: Path) -> Tree:
    """The saved recipe as plain values; empty where a run has none."""
    path = run / "recipe.yaml"
    tree = read_yaml(path.read_text(encoding="utf-8"), str(path)) if path.is_file() else {}
    if not isinstance(tree, dict):
        raise UserError(f"{path}: a recipe is a mapping of keys to values, not {type(tree).__name__}")
    return tree


def recipe_facts(tree: Tree, run: Path) -> dict[str, str]:
    """Title, model, objectives and data."""
    stages = _mappings(tree.get("stages"))
    sources = [source for stage in stages for source in _mappings(stage.get("sources"))]
    named = {
        "recipe": [tree["title"]] if tree.get("title") else [run.name],
        "model": [entry.get("type") for entry in _mappings([tree.get("model")])],
        "objectives": _objectives(tree),
        "data": list(dict.fromkeys(str(source.get("path")) for source in sources)),
        "images a step": [_images(stage) for stage in stages],
        "initial weights": [tree["initial_weights"]] if tree.get("initial_weights") else [],
        "blind": ["the images show nothing"] if tree.get("blind") else [],
    }
    return {key: ", ".join(map(str, values)) for key, values in named.items() if values}


def log_facts(log: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Steps and speed."""
    if not log:
        return {}
    last = log[-1]
    rates = [line["samples_per_second"] for line in log if "samples_per_second" in line]
    facts = {"steps": f"{last['step']:,}"}
    if rates:
        facts["samples per second"] = f"{sorted(rates)[len(rates) // 2]:,.0f}"
    return facts


def stage_ends(tree: Tree) -> list[tuple[str, int]]:
    """The stages with their numbers of steps, in their order."""
    return [(str(stage.get("name", "")), int(stage.get("steps", 0))) for stage in _mappings(tree.get("stages"))]


def stage_table(tree: Tree) -> Table | None:
    """What each stage was trained on and how; None for a run of one stage, of which the facts tell all."""
    stages = _mappings(tree.get("stages"))
    if len(stages) < 2:
        return None
    rows = []
    for stage in stages:
        decays = [schedule["decay"] for schedule in _mappings([stage.get("schedule")]) if "decay" in schedule]
        rate = ", ".join([f"{stage.get('lr', 0):.1e}", *decays])
        sources = "; ".join(_source(source) for source in _mappings(stage.get("sources")))
        objectives = ", ".join(stage.get("objectives") or _objectives(tree))
        rows.append([str(stage.get("name", "")), f"{stage.get('steps', 0):,}", rate, objectives, sources])
    return Table(["stage", "steps", "rate", "objectives", "sources"], rows)


def _source(source: Tree) -> str:
    return f"{source.get('path')} ({source.get('texts', 'captions')}), {source.get('batch_size', '?')} a step"


def _images(stage: Tree) -> int:
    return sum(source.get("batch_size", 0) for source in _mappings(stage.get("sources")))


def _objectives(tree: Tree) -> list[str]:
    return [str(entry.get("type")) for entry in _mappings(tree.get("objectives"))]


def _mappings(entries: Any) -> list[dict[str, Any]]:
    """The mappings of a list; a recipe of another kind of run has other keys, which are left out."""
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
