"""`crossgrain evaluate`."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossgrain.commands.terminal import make_console, say, write
from crossgrain.config import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from crossgrain.tasks.plan import Evaluation


def evaluate(arguments: argparse.Namespace) -> int:
    """Handle `crossgrain evaluate`."""
    from dataclasses import replace

    from crossgrain.evaluation.predict import narrowed
    from crossgrain.recipes import load_run_recipe

    run, console = arguments.run_folder, make_console(stderr=arguments.json)
    if (run is None) == (arguments.predictions is None):
        raise UserError("name a run folder, or with --predictions a file of answers: one of the two")
    if run is None:
        return _score_predictions(arguments, console)
    if not (run / "recipe.yaml").is_file():
        raise UserError(f"{run} is no run folder: it has no recipe.yaml")
    if strangers := [word for word in arguments.overrides if not word.startswith("evaluation.")]:
        raise UserError(f"{strangers[0]}: a trained run can change only in how it is asked, evaluation.KEY=VALUE")
    recipe = load_run_recipe(run / "recipe.yaml", arguments.overrides)
    plan = narrowed(recipe.evaluation, arguments.task, arguments.split)
    if arguments.limit is not None:
        if arguments.limit < 1:
            raise UserError(f"limit must be at least 1, not {arguments.limit}")
        plan = replace(plan, limit=arguments.limit)
    out = arguments.out or run / "evaluation"
    scores = evaluate_run(run, arguments.data, plan, out, arguments.checkpoint, console)
    if arguments.json:
        write(json.dumps(scores, indent=1))
    return 0


def _score_predictions(arguments: argparse.Namespace, console: "Console") -> int:
    """Scores of a file of predictions in our form or an official one, printed and written beside it."""
    from crossgrain.documents.writing import write_whole
    from crossgrain.evaluation.official import score_predictions

    if arguments.data is None:
        raise UserError("--predictions needs --data, the prepared data set that they answer")
    file = arguments.predictions
    scores = score_predictions(file, arguments.data, arguments.task, arguments.split)
    out = (arguments.out or file.parent) / f"{file.stem}.scores.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    told = json.dumps(scores, indent=1)
    write_whole(out, [told + "\n"])
    write(told)
    say(console, f"scores: {out}")
    return 0


def evaluate_run(
    run_folder: Path, data: Path | None, plan: "Evaluation", out: Path, which: Any, console: "Console"
) -> dict[str, Any]:
    """Predict, score and report; print the tables and where the page is."""
    from crossgrain.checks import check_stamp
    from crossgrain.evaluation.predict import PREDICTIONS
    from crossgrain.evaluation.predict import evaluate as ask
    from crossgrain.evaluation.report import print_tables, write_report
    from crossgrain.evaluation.submissions import write_submissions
    from crossgrain.recipes import load_run

    run = load_run(run_folder, which)
    data = data or run.data()
    check_stamp(run.recipe, data)
    scores = ask(run.trained(), data, plan, out, console)
    page = write_report(run_folder, data, run.facts(), out)
    print_tables(out, console)
    for file, left in write_submissions(out / PREDICTIONS, out / "official", any_task=True, data=data).items():
        note = f" (incomplete: {left:,} questions of the split have no answer)" if left else ""
        say(console, f"for the official server: {file}{note}")
    say(console, f"report: {page}")
    return scores
