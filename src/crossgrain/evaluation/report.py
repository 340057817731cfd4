"""The report of a run: one self-contained HTML page with pictures, and its figures as Markdown.

Everything is read from the run folder (recipe.yaml, log.jsonl, evaluation/predictions.jsonl and scores.json) and the
data set's pictures; what is not there is left out, never shown as zero.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from crossgrain.documents.markup import Table, plain, tag
from crossgrain.documents.page import fact_list, page, remark, section
from crossgrain.documents.writing import write_whole
from crossgrain.evaluation.curves import draw_curves
from crossgrain.evaluation.facts import log_facts, read_tree, recipe_facts, stage_ends, stage_table
from crossgrain.evaluation.headline import headline
from crossgrain.evaluation.pictures import Pictures
from crossgrain.evaluation.score import PREDICTIONS, Groups, read_predictions, read_scores
from crossgrain.evaluation.sections import answer_tables, mistakes_text, task_sections
from crossgrain.evaluation.tables import Noted, score_tables
from crossgrain.training.log import read_log

REPORT_HTML, REPORT_MARKDOWN = "report.html", "report.md"
NUM_WITH_INTERVALS = 4  # columns of figures in a table that the terminal has room to show intervals in


def write_report(
    run: Path, data: Path | None, facts: Mapping[str, str] | None = None, folder: Path | None = None
) -> Path:
    """Write report.html and report.md into `folder` (`run`/evaluation); the path of the page.

    `facts` are lines about the run that its folder does not tell (time taken, hardware). Without `data` the page has
    no pictures.
    """
    folder = folder or run / "evaluation"
    groups, scores = read_predictions(folder / PREDICTIONS), read_scores(folder)
    split = next(iter(groups))
    log, tree = read_log(run / "log.jsonl"), read_tree(run)
    tables, stages = {**score_tables(scores), **answer_tables(groups[split])}, stage_table(tree)
    told = {**recipe_facts(tree, run), **log_facts(log), **(facts or {})}
    pictures = Pictures(data, split) if data else None
    title = f"{told.get('recipe', run.name)}: evaluation"
    curves = draw_curves(log, stage_ends(tree))
    drawn = _page(title, told, tables, curves, stages, groups, pictures, scores)
    write_whole(folder / REPORT_HTML, [drawn])
    write_whole(folder / REPORT_MARKDOWN, [_markdown(title, told, tables, stages, groups)])
    return folder / REPORT_HTML


def print_tables(folder: Path, console: Console) -> None:
    """The tables of the report in `folder`, for a terminal."""
    for title, (table, note) in score_tables(read_scores(folder)).items():
        intervals = len(table.columns) - 1 <= NUM_WITH_INTERVALS
        console.print(table.to_rich(title, intervals), Text(note, style="dim"), "")


def _page(
    title: str,
    facts: Mapping[str, str],
    tables: Mapping[str, Noted],
    curves: str | None,
    stages: Table | None,
    groups: Groups,
    pictures: Pictures | None,
    scores: Mapping[str, Mapping[str, Any]],
) -> str:
    split, tasks = next(iter(groups.items()))
    sections = [section(name, table.to_html(), remark(told)) for name, (table, told) in tables.items()]
    if curves:
        drawn = tag("img", src=curves, alt="training curves", class_="curves")
        told = "Over steps; the number is the last value."
        told += " A dashed line is where a stage begins." if stages else ""
        table = [stages.to_html()] if stages else []
        sections.append(section("Training", *table, drawn, remark(told)))
    if pictures:
        sections += [section(name, remark(told), body) for name, told, body in task_sections(tasks, pictures)]
    return page(title, headline(scores[split], split), fact_list(facts), *sections)


def _markdown(
    title: str,
    facts: Mapping[str, str],
    tables: Mapping[str, Noted],
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
