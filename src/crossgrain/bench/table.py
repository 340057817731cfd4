"""The table of a bench: measures down, variants across; for the terminal, as Markdown and as JSON."""

import platform
import re
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from crossgrain.bench.measure import write_json
from crossgrain.bench.plan import Plan
from crossgrain.data.loader import usable_cores
from crossgrain.documents.markup import Cell, Table, plain
from crossgrain.documents.writing import write_whole

Result = Mapping[str, Any]
JSON, MARKDOWN = "bench.json", "bench.md"
LOSSES = ("mlm", "itm", "itc", "box", "region_class", "region_feature")  # the order of rows
DIRECTIONS = {"text_to_image": "text → image, R@1", "image_to_text": "image → text, R@1"}
SCORES = (  # a row each: title, task, score, and where its chance stands
    ("hidden words named", "masked_words", "accuracy", ("majority",)),
    ("hidden regions named", "masked_regions", "accuracy", ("majority",)),
    ("boxes found, IoU 0.5", "grounding", "accuracy@0.5", ("chance", "accuracy@0.5")),
)
SPEEDS = (
    ("seconds a step", ".3f", "seconds_per_step"),
    ("images a second", ".0f", "images_per_second"),
    ("texts a second", ".0f", "texts_per_second"),
)
GIB = 2**30


def table_of(results: Sequence[Result], detector: int = 0) -> Table:
    """All results with figures; `detector` is how many parameters the detector has, for those who use it."""
    shown = [result for result in results if result["status"] == "finished"]
    names = dict.fromkeys([*LOSSES, *(name for result in shown for name in result["losses"])])
    size = {id(r): (r["parameters"] + detector * r["uses_detector"]) / 1e6 for r in shown}
    rows = [
        _row("parameters, million", [f"{size[id(result)]:.2f}" for result in shown]),
        _row("steps", [f"{result['steps']:,}" for result in shown]),
        *(_row(f"loss: {name}", [_number(result, ".3f", "losses", name) for result in shown]) for name in names),
    ]
    for direction, title in DIRECTIONS.items():
        matched = [_scored(_retrieval(result, "matching"), direction, "R@1") for result in shown]
        rows.append(_row(f"{title}, by matching", matched, _chance(shown, "retrieval", "chance", direction, "R@1")))
        similar = [_scored(_retrieval(result, "similarity"), direction, "R@1") for result in shown]
        rows.append(_row(f"{title}, by similarity", similar, _chance(shown, "retrieval", "chance", direction, "R@1")))
    for title, task, score, chance in SCORES:
        cells = [_scored(result["scores"].get(task), score) for result in shown]
        rows.append(_row(title, cells, _chance(shown, task, *chance)))
    for title, form, key in SPEEDS:
        rows.append(_row(title, [_number(result, form, key) for result in shown]))
    rows.append(_row("peak memory, GiB", [f"{r['peak_memory'] / GIB:.2f}" if r["peak_memory"] else "" for r in shown]))
    columns = ["", *(result["name"].replace("_", " ") for result in shown), "chance"]
    return Table(columns, [row for row in rows if any(row[1:])])


def _row(title: str, cells: Sequence[str | Cell], chance: str = "") -> list[str | Cell]:
    """A row of the table; where no variant has the figure, an empty one."""
    return [title, *cells, chance if any(cells) else ""]


def _number(result: Result, form: str, *keys: str) -> str:
    value = dig(result, keys)
    return "" if value is None else f"{value:{form}}"


def _scored(block: Mapping[str, Any] | None, *keys: str) -> str | Cell:
    """A score with its interval; empty where the variant was not asked."""
    if block is None:
        return ""
    low, high = dig(block["confidence_95"], keys)
    return Cell(f"{dig(block, keys):.1f}", f"{low:.1f} to {high:.1f}")


def _retrieval(result: Result, by: str) -> Mapping[str, Any] | None:
    """The block of retrieval whose candidates were ranked by "matching" or by "similarity"; None where none were."""
    block = result["scores"].get("retrieval")
    if block is None or "without_rerank" not in block:
        by_matching = block is not None and "protocol" in block
        return block if by_matching == (by == "matching") else None
    alone = {**block["without_rerank"], "confidence_95": block["confidence_95"]["without_rerank"]}
    return block if by == "matching" else alone


def _chance(shown: Sequence[Result], *keys: str) -> str:
    """What guessing reaches, as the first variant that was asked says."""
    values = [value for result in shown if (value := dig(result["scores"], keys)) is not None]
    return f"{values[0]:.1f}" if values else ""


def dig(tree: Any, keys: Sequence[str]) -> Any:
    """The value at a path of keys; None where a key is missing."""
    for key in keys:
        if key not in tree:
            return None
        tree = tree[key]
    return tree


def notes(results: Sequence[Result], plan: Plan, detector: int = 0) -> list[str]:
    """What has to be said under the table, a line each."""
    asked = [r["scores"].get("retrieval", {}).get("gallery") for r in results if r["status"] == "finished"]
    gallery = next((f"{g['images']} images and {g['texts']} texts" for g in asked if g), "no gallery")
    lines = [
        f"Scores in per cent with 95 % Wilson intervals, on held-out scenes ({gallery}). One run of each variant: "
        "another seed moves the scores by more than these intervals say.",
        "Losses are means over the last tenth of the steps that have them. Seconds are those of training alone; memory "
        "is that of the training process, torch itself included and the data worker left out.",
    ]
    if detector and any(result.get("uses_detector") for result in results):
        lines.append(
            f"Where regions are read, the parameters count the detector ({detector / 1e6:.2f} million), which learnt "
            "from the boxes of the same scenes before. Its time and that of the features, which all share, are not "
            "counted."
        )
    for result in results:
        name = result["name"].replace("_", " ")
        if result["status"] != "finished":
            lines.append(f"{name}: {result['status']}, {result['reason']}")
        elif result["note"]:
            lines.append(f"{name}: {result['note']}")
    return lines


def facts(plan: Plan, command: str) -> dict[str, str]:
    """What was run, on which data, when, where and with which versions."""
    scenes = plan.scenes
    return {
        **told_of_machine(command),
        "data": f"{scenes.size:,} scenes of {scenes.image_size} pixels, seed {scenes.seed}",
        "training": f"{plan.steps:,} steps each",
    }


def told_of_machine(command: str) -> dict[str, str]:
    """What was run, when, where and with which versions."""
    versions = {"crossgrain": version("crossgrain"), "torch": torch.__version__, "Python": platform.python_version()}
    return {
        "command": command,
        "date": date.today().isoformat(),
        "hardware": hardware(),
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
    }


def hardware() -> str:
    """The GPU where there is one, and the processor with the cores that this process may use."""
    cores = usable_cores()
    cpuinfo = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text(encoding="utf-8")) if cpuinfo.is_file() else None
    processor = named[1].strip() if named else platform.processor() or platform.machine()
    gpu = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    return ", ".join([*gpu, f"{cores} cores of {processor}, {torch.get_num_threads()} threads"])


def write_bench(
    plan: Plan, results: Sequence[Result], told: Mapping[str, str], out: Path, detector: int = 0
) -> dict[str, Any]:
    """bench.json and bench.md in `out`; gives what the first holds."""
    values = {"title": plan.title, **told, "limit": plan.limit, "detector_parameters": detector, "variants": results}
    write_json(out / JSON, values)
    given = "\n".join(f"- {key}: {plain(value) if key != 'command' else f'`{value}`'}" for key, value in told.items())
    below = "\n".join(f"- {plain(line)}" for line in notes(results, plan, detector))
    parts = [f"# {plain(plan.title)}", given, table_of(results, detector).to_markdown(), below]
    write_whole(out / MARKDOWN, ["\n\n".join(parts) + "\n"])
    return values
