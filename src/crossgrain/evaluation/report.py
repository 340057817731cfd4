"""The report of a run: one self-contained HTML page with pictures, and its figures as Markdown.

Everything is read from the run folder (recipe.yaml, log.jsonl, evaluation/predictions.jsonl) and the data set's
pictures; what is not there is left out, never shown as zero.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from crossgrain.evaluation.curves import draw_curves
from crossgrain.evaluation.examples import grounding_sections, mistakes_text, retrieval_sections
from crossgrain.evaluation.facts import log_facts, read_tree, recipe_facts, stage_ends, stage_table
from crossgrain.evaluation.markup import Cell, Html, Table, join, plain, tag
from crossgrain.evaluation.pictures import Pictures
from crossgrain.evaluation.predict import PREDICTIONS
from crossgrain.evaluation.score import Groups, read_predictions, score_groups, write_whole
from crossgrain.evaluation.style import STYLE
from crossgrain.training.log import read_log

REPORT_HTML, REPORT_MARKDOWN = "report.html", "report.md"
DIRECTION_TITLES = {"text_to_image": "text → image", "image_to_text": "image → text"}


def write_report(
    run: Path, data: Path | None, facts: Mapping[str, str] | None = None, folder: Path | None = None
) -> Path:
    """Write report.html and report.md into `folder` (`run`/evaluation); the path of the page.

    `facts` are lines about the run that its folder does not tell (time taken, hardware). Without `data` the page has
    no pictures.
    """
    folder = folder or run / "evaluation"
    groups = read_predictions(folder / PREDICTIONS)
    split = next(iter(groups))
    scores = {name: score_groups({name: lines}) for name, lines in groups.items()}
    log, tree = read_log(run / "log.jsonl"), read_tree(run)
    tables, stages = score_tables(scores), stage_table(tree)
    told = {**recipe_facts(tree, run), **log_facts(log), **(facts or {})}
    pictures = Pictures(data, split) if data else None
    title = f"{told.get('recipe', run.name)}: evaluation"
    curves = draw_curves(log, stage_ends(tree))
    page = _page(title, told, tables, curves, stages, groups, pictures, scores)
    write_whole(folder / REPORT_HTML, [page])
    write_whole(folder / REPORT_MARKDOWN, [_markdown(title, told, tables, stages, groups)])
    return folder / REPORT_HTML


def print_tables(folder: Path, console: Console) -> None:
    """The tables of the report in `folder`, for a terminal."""
    groups = read_predictions(folder / PREDICTIONS)
    for title, (table, note) in score_tables({name: score_groups({name: g}) for name, g in groups.items()}).items():
        console.print(table.to_rich(title), Text(note, style="dim"), "")


def score_tables(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[Table, str]]:
    """For each task with scores: its table, one group of columns per split, and a note under it."""
    makers = {
        "Retrieval": ("retrieval", _retrieval_table),
        "Grounding": ("grounding", _grounding_table),
        "Masked regions": ("masked_regions", partial(_masked_table, unit="regions")),
        "Masked words": ("masked_words", partial(_masked_table, unit="words")),
    }
    tables = {}
    for title, (task, make) in makers.items():
        if blocks := {split: tasks[task] for split, tasks in scores.items() if task in tasks}:
            tables[title] = make(blocks)
    return tables


def _retrieval_table(blocks: Mapping[str, Mapping[str, Any]]) -> tuple[Table, str]:
    cutoffs = list(next(iter(blocks.values()))["text_to_image"])
    reranked = any("without_rerank" in block for block in blocks.values())
    protocol = next((block["protocol"] for block in blocks.values() if "protocol" in block), None)
    by = next((block["reranked_by"] for block in blocks.values() if "reranked_by" in block), "matching")
    how = f"re-ranked by {by}" if reranked else f"by matching, {protocol}" if protocol else "by similarity"
    rows = []
    for direction, title in DIRECTION_TITLES.items():
        kinds = {how: (lambda b: b, lambda b: b["confidence_95"])}
        if reranked:
            kinds["by similarity alone"] = (
                lambda b: b["without_rerank"],
                lambda b: b["confidence_95"]["without_rerank"],
            )
        for kind, (value, interval) in kinds.items():
            cells = [
                _cell(value(block)[direction][name], interval(block)[direction][name])
                for block in blocks.values()
                for name in cutoffs
            ]
            rows.append([f"{title}, {kind}", *cells])
        chance = [f"{block['chance'][direction][name]:.1f}" for block in blocks.values() for name in cutoffs]
        rows.append([f"{title}, chance", *chance])
    galleries = [f"{b['gallery']['images']} images and {b['gallery']['texts']} texts in {s}" for s, b in blocks.items()]
    table = Table(["", *cutoffs * len(blocks)], rows, [(split, len(cutoffs)) for split in blocks])
    return table, f"Per cent, with 95 % Wilson intervals; {', '.join(galleries)}."


def _grounding_table(blocks: Mapping[str, Mapping[str, Any]]) -> tuple[Table, str]:
    accuracy = "accuracy@0.5"
    rows = [
        ["predicted box"]
        + [
            cell
            for block in blocks.values()
            for cell in (_cell(block[accuracy], block["confidence_95"][accuracy]), f"{block['mean_iou']:.1f}")
        ],
        ["chance (box of another phrase)"]
        + [cell for block in blocks.values() for cell in (f"{block['chance'][accuracy]:.1f}", "")],
    ]
    sizes = [f"{block['phrases']} phrases about {block['images']} images in {s}" for s, block in blocks.items()]
    table = Table(["", *["accuracy at IoU 0.5", "mean IoU"] * len(blocks)], rows, [(split, 2) for split in blocks])
    return table, f"Per cent, with 95 % Wilson intervals; {', '.join(sizes)}."


def _masked_table(blocks: Mapping[str, Mapping[str, Any]], unit: str) -> tuple[Table, str]:
    rows: list[list[str | Cell]] = [
        ["predicted", *(_cell(block["accuracy"], block["confidence_95"]["accuracy"]) for block in blocks.values())],
        ["always the most frequent", *(f"{block['majority']:.1f}" for block in blocks.values())],
    ]
    sizes = [f"{block[unit]} hidden {unit} of {block['images']} images in {split}" for split, block in blocks.items()]
    table = Table(["", *["accuracy"] * len(blocks)], rows, [(split, 1) for split in blocks])
    return table, f"Per cent, with 95 % Wilson intervals; {', '.join(sizes)}."


def _cell(value: float, interval: Sequence[float]) -> Cell:
    return Cell(f"{value:.1f}", f"{interval[0]:.1f} to {interval[1]:.1f}")


def _page(
    title: str,
    facts: Mapping[str, str],
    tables: Mapping[str, tuple[Table, str]],
    curves: str | None,
    stages: Table | None,
    groups: Groups,
    pictures: Pictures | None,
    scores: Mapping[str, Mapping[str, Any]],
) -> str:
    split, tasks = next(iter(groups.items()))
    sections = [
        _section(name, table.to_html(), tag("p", note, class_="note")) for name, (table, note) in tables.items()
    ]
    if curves:
        drawn = tag("img", src=curves, alt="training curves", class_="curves")
        note = "Over steps; the number is the last value."
        note += " A dashed line is where a stage begins." if stages else ""
        table = [stages.to_html()] if stages else []
        sections.append(_section("Training", *table, drawn, tag("p", note, class_="note")))
    if pictures:
        sections += [
            _section(name, tag("p", note, class_="note"), body)
            for make, task in ((retrieval_sections, "retrieval"), (grounding_sections, "grounding"))
            if task in tasks
            for name, note, body in make(tasks[task], pictures)
        ]
    listed = join(join([tag("dt", key), tag("dd", value)]) for key, value in facts.items())
    body = tag("main", tag("h1", title), _headline(scores[split], split), tag("dl", listed), *sections)
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Html(STYLE)),
    ]
    return f"<!doctype html>\n{tag('html', tag('head', *head), tag('body', body), lang='en')}\n"


def _headline(scores: Mapping[str, Any], split: str) -> Html:
    """The few numbers that are looked for first."""
    tiles = []
    if block := scores.get("retrieval"):
        for direction, title in DIRECTION_TITLES.items():
            note = f"chance {block['chance'][direction]['R@1']:.1f} %"
            if "without_rerank" in block:
                note = f"{block['without_rerank'][direction]['R@1']:.1f} % without re-ranking, {note}"
            tiles.append((f"{block[direction]['R@1']:.1f} %", f"R@1 {title}", note))
    if block := scores.get("grounding"):
        note = f"mean IoU {block['mean_iou']:.1f} %, chance {block['chance']['accuracy@0.5']:.1f} %"
        tiles.append((f"{block['accuracy@0.5']:.1f} %", "box accuracy at IoU 0.5", note))
    for unit in ("regions", "words"):
        if block := scores.get(f"masked_{unit}"):
            note = f"most frequent answer {block['majority']:.1f} %"
            tiles.append((f"{block['accuracy']:.1f} %", f"hidden {unit} named", note))
    made = [tag("div", tag("b", number), tag("span", name), tag("small", note)) for number, name, note in tiles]
    return tag("div", *made, class_="tiles", title=f"split {split}")


def _section(title: str, *children: Html) -> Html:
    return tag("section", tag("h2", title), *children)


def _markdown(
    title: str,
    facts: Mapping[str, str],
    tables: Mapping[str, tuple[Table, str]],
    stages: Table | None,
    groups: Groups,
) -> str:
    parts = [f"# {plain(title)}", "\n".join(f"- {plain(key)}: {plain(value)}" for key, value in facts.items())]
    for name, (table, note) in tables.items():
        parts += [f"## {name}", table.to_markdown(), note]
    if stages:
        parts += ["## Stages", stages.to_markdown()]
    split, tasks = next(iter(groups.items()))
    if worst := mistakes_text(tasks):
        parts += [f"## Worst mistakes ({plain(split)})", "\n".join(f"- {line}" for line in worst)]
    return "\n\n".join(part for part in parts if part) + "\n"
