"""The command line: VERB RECIPE key.path=value. Everything heavy is imported inside the handler that needs it.

A user's mistake is one clear line and exit status 2; Ctrl-C leaves a state that the same command continues from.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossgrain import __version__
from crossgrain.config import UserError
from crossgrain.data.sets import arguments as prepare_arguments
from crossgrain.models import MODELS

BENCHES = {
    "families": "the four families on the same scenes, with as many steps and about as many parameters",
    "ablations": "one family, whole and with parts of it left out, as its paper's own tables",
}
TASK_NAMES = (
    *("retrieval", "vqa", "nlvr2", "vcr", "grounding", "captioning"),
    *("masked_regions", "masked_words"),
)

if TYPE_CHECKING:
    from rich.console import Console

    from crossgrain.recipes import PretrainRecipe
    from crossgrain.tasks.plan import Evaluation

FAMILIES = "model=xvlm (the default), imagebert, vlbert or pixelbert"
DETECT = (
    "detector=torchvision (the default), vg, scenes or package.module:Class; detector.weights=FILE, max_boxes=36, "
    "score_threshold=0.2, processes=4 and so on; or features=FORMAT path=FILE; all of them in docs/detection.md"
)
OVERRIDES = "change values of the recipe, e.g. stages.0.lr=1e-4 train.precision=float32"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    # Threads that wait long for work in a loop take the cores from those that have some: beside other busy processes a
    # training step took fifteen times as long. OpenMP reads it when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    arguments = _parse(argv)
    try:
        return arguments.run(arguments)
    except UserError as error:
        sys.stderr.write(f"crossgrain: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("crossgrain: interrupted; the same command continues\n")
        return 130
    except BrokenPipeError:  # the reader of our output has gone (`| head`)
        with suppress(OSError):
            sys.stdout.close()
        return 141


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Arguments with `key=value` overrides on either side of the flags (argparse alone takes them on one side only)."""
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    strangers = [
        word for word in rest if "=" not in word or word.startswith("-") or not hasattr(arguments, "overrides")
    ]
    if strangers:
        parser.error(f"unrecognized arguments: {' '.join(strangers)}")
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    return arguments


def build_parser() -> argparse.ArgumentParser:
    """The verbs and their flags."""
    parser = argparse.ArgumentParser(
        prog="crossgrain", description="Pre-train, fine-tune, evaluate and serve vision-language models."
    )
    parser.add_argument("--version", action="version", version=f"crossgrain {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, run: Callable[[argparse.Namespace], int], help_text: str) -> argparse.ArgumentParser:
        command = verbs.add_parser(name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".")
        command.set_defaults(run=run)
        return command

    command = verb("quickstart", quickstart, "draw the embedded scenes, pre-train on them, evaluate and report")
    command.add_argument("--recipe", metavar="RECIPE", help="a recipe of your own with a scenes block")
    command.add_argument("overrides", nargs="*", metavar="key=value", help=f"{FAMILIES}; {OVERRIDES}")
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="the run folder (default: runs/ and the recipe's name)"
    )

    command = verb("prepare", prepare, "convert a data set in a known layout to shards, with a validation report")
    prepare_arguments.add_arguments(command)

    command = verb("detect", detect, "give a data set the regions of its images: by a detector, or from a feature file")
    command.add_argument("data", type=Path, metavar="DATA", help="a folder that `crossgrain prepare` wrote")
    command.add_argument("overrides", nargs="*", metavar="key=value", help=DETECT)

    for name, run, help_text, more in (
        ("pretrain", pretrain, "pre-train a model", ""),
        ("finetune", finetune, "fine-tune a pre-trained model for a task", "initial_weights=RUN; "),
    ):
        command = verb(name, run, f"{help_text}; on an existing run folder, continue")
        command.add_argument(
            "recipe", metavar="RECIPE", help="a YAML file, or the name of one of the library's recipes"
        )
        command.add_argument("overrides", nargs="*", metavar="key=value", help=more + OVERRIDES)
        command.add_argument(
            "--out", type=Path, metavar="DIR", help="the run folder (default: runs/ and the recipe's name)"
        )

    command = verb("evaluate", evaluate, "score a run, or anybody's predictions, on held-out data and write a report")
    command.add_argument("run_folder", type=Path, nargs="?", metavar="RUN", help="a run folder")
    command.add_argument(
        "--predictions", type=Path, metavar="FILE", help="score this file in place of a run; needs --data"
    )
    command.add_argument("--data", type=Path, metavar="DIR", help="prepared data (default: what the run trained on)")
    command.add_argument("--task", choices=TASK_NAMES, help="this one only (default: all that fit)")
    command.add_argument("--split", help="this split only (default: those of the recipe)")
    command.add_argument("--checkpoint", choices=("latest", "best"), default="latest", help="which weights")
    command.add_argument("--limit", type=int, metavar="N", help="the first N images of each split")
    command.add_argument("--out", type=Path, metavar="DIR", help="where the results go (default: RUN/evaluation)")
    command.add_argument("--json", action="store_true", help="print the scores as JSON")

    command = verb("bench", bench, "compare the families, or one with parts of it left out, on the embedded scenes")
    benches = command.add_subparsers(dest="what", metavar="WHAT", required=True)
    for name, help_text in BENCHES.items():
        kind = benches.add_parser(name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".")
        kind.add_argument("overrides", nargs="*", metavar="key=value", help="change values of every variant's recipe")
        chosen = kind.add_mutually_exclusive_group(required=name == "ablations")
        if name == "ablations":
            chosen.add_argument("--family", choices=tuple(MODELS), help="recipes/ablations/FAMILY.yaml")
        chosen.add_argument("--recipe", metavar="RECIPE", help="a comparison of your own, written like the library's")
        kind.add_argument("--variants", nargs="+", metavar="NAME", help="these only (default: all)")
        kind.add_argument("--steps", type=int, metavar="N", help="steps of each variant, over all its stages")
        kind.add_argument("--limit", type=int, metavar="N", help="ask about the first N held-out images")
        kind.add_argument("--out", type=Path, metavar="DIR", help="where all goes (default: runs/bench/ and the name)")
        kind.add_argument("--json", action="store_true", help="print the results as JSON")

    tasks_help = "every family at every task on the embedded scenes, beside the same models without images"
    kind = benches.add_parser("tasks", help=tasks_help, description=tasks_help[0].upper() + tasks_help[1:] + ".")
    kind.set_defaults(run=bench_tasks)
    kind.add_argument("overrides", nargs="*", metavar="key=value", help="change values of every cell's recipe")
    kind.add_argument("--recipe", default="tasks", metavar="RECIPE", help="a comparison of your own")
    kind.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where the quickstarts' runs are")
    kind.add_argument("--families", nargs="+", metavar="NAME", help="these only (default: all)")
    kind.add_argument("--tasks", nargs="+", metavar="NAME", help="these only (default: all)")
    kind.add_argument("--jobs", type=int, metavar="N", help="cells at once, a thread each (default: one for each core)")
    kind.add_argument("--limit", type=int, metavar="N", help="ask about the first N held-out images")
    kind.add_argument("--out", type=Path, metavar="DIR", help="where all goes (default: runs/bench/tasks)")
    kind.add_argument("--json", action="store_true", help="print the results as JSON")

    command = verb("show", show, "print a recipe with every value it stands for")
    command.add_argument("recipe", metavar="RECIPE", help="a YAML file, or the name of one of the library's recipes")
    command.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES)
    return parser


def prepare(arguments: argparse.Namespace) -> int:
    """Handle `crossgrain prepare`."""
    from crossgrain.data.prepare import prepare_arguments as run

    console = _console(stderr=arguments.json)
    report = run(arguments, console)
    if arguments.json:
        _write(json.dumps(report.to_json(), indent=1, ensure_ascii=False))
    else:
        _say(console, f"wrote {arguments.out}", *report.lines())
    return 0


def detect(arguments: argparse.Namespace) -> int:
    """Handle `crossgrain detect`."""
    from crossgrain.detection.command import run

    console = _console()
    _say(console, *run(arguments.data, arguments.overrides, console))
    return 0


def show(arguments: argparse.Namespace) -> int:
    """Handle `crossgrain show`."""
    from crossgrain.config import dump_recipe
    from crossgrain.recipes import find_recipe, load_run_recipe

    _write(dump_recipe(load_run_recipe(find_recipe(arguments.recipe), arguments.overrides)).rstrip())
    return 0


def pretrain(arguments: argparse.Namespace) -> int:
    """Handle `crossgrain pretrain`, in one process or in each of torchrun's."""
    return _run_recipe(arguments, "pretrain")


def finetune(arguments: argparse.Namespace) -> int:
    """Handle `crossgrain finetune`, likewise."""
    return _run_recipe(arguments, "finetune")


def _run_recipe(arguments: argparse.Namespace, verb: str) -> int:
    from crossgrain.finetuning import FinetuneRecipe
    from crossgrain.recipes import QuickstartRecipe, find_recipe, load_run_recipe
    from crossgrain.training.distributed import join_world

    path = find_recipe(arguments.recipe)
    recipe = load_run_recipe(path, arguments.overrides)
    if isinstance(recipe, QuickstartRecipe):
        raise UserError(f"{path} draws its own data: use `crossgrain quickstart --recipe {arguments.recipe}`")
    fitting = "finetune" if isinstance(recipe, FinetuneRecipe) else "pretrain"
    if verb != fitting:
        named = "names a task" if fitting == "finetune" else "names no task"
        raise UserError(f"{path} {named}: use `crossgrain {fitting} {arguments.recipe}`")
    out = arguments.out or Path("runs") / path.stem
    with join_world() as world:
        console = _console() if world.is_main else None
        finished = _train(recipe, out, console, world)
        if console and finished:
            _say(console, f"weights: {finished}", f"next: crossgrain evaluate {out}")
    return 0


def quickstart(arguments: argparse.Namespace) -> int:
    """Handle `crossgrain quickstart`."""
    from crossgrain.quickstart import choose, load, make_data

    console = _console()
    recipe, path = load(*choose(arguments.recipe, arguments.overrides))
    out = arguments.out or Path("runs") / path.stem
    data = make_data(recipe, out, console)
    if _train(recipe.on(data), out, console):
        _evaluate(out, None, recipe.evaluation, out / "evaluation", "latest", console)
    return 0


def evaluate(arguments: argparse.Namespace) -> int:
    """Handle `crossgrain evaluate`."""
    from dataclasses import replace

    from crossgrain.evaluation.predict import narrowed
    from crossgrain.recipes import load_run_recipe

    run, console = arguments.run_folder, _console(stderr=arguments.json)
    if (run is None) == (arguments.predictions is None):
        raise UserError("name a run folder, or with --predictions a file of answers: one of the two")
    if run is None:
        return _score_predictions(arguments, console)
    if not (run / "recipe.yaml").is_file():
        raise UserError(f"{run} is no run folder: it has no recipe.yaml")
    plan = narrowed(load_run_recipe(run / "recipe.yaml").evaluation, arguments.task, arguments.split)
    if arguments.limit is not None:
        if arguments.limit < 1:
            raise UserError(f"limit must be at least 1, not {arguments.limit}")
        plan = replace(plan, limit=arguments.limit)
    out = arguments.out or run / "evaluation"
    scores = _evaluate(run, arguments.data, plan, out, arguments.checkpoint, console)
    if arguments.json:
        _write(json.dumps(scores, indent=1))
    return 0


def _score_predictions(arguments: argparse.Namespace, console: "Console") -> int:
    """Scores of a file of predictions in our form or an official one, printed and written beside it."""
    from crossgrain.evaluation.official import score_predictions
    from crossgrain.evaluation.score import write_whole

    if arguments.data is None:
        raise UserError("--predictions needs --data, the prepared data set that they answer")
    file = arguments.predictions
    scores = score_predictions(file, arguments.data, arguments.task, arguments.split)
    out = (arguments.out or file.parent) / f"{file.stem}.scores.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    told = json.dumps(scores, indent=1)
    write_whole(out, [told + "\n"])
    _write(told)
    _say(console, f"scores: {out}")
    return 0


def bench(arguments: argparse.Namespace) -> int:
    """Handle `crossgrain bench`: 0 where every variant ended well, else 1."""
    from crossgrain.bench.plan import load_plan
    from crossgrain.bench.run import run_bench, size_of_detector
    from crossgrain.bench.table import MARKDOWN, facts, notes, table_of, write_bench

    console = _console(stderr=arguments.json)
    family = getattr(arguments, "family", None)
    name = arguments.recipe or (f"ablations/{family}" if family else arguments.what)
    options = {"steps": arguments.steps, "limit": arguments.limit, "chosen": arguments.variants}
    plan = load_plan(name, **options, overrides=arguments.overrides)
    out = arguments.out or Path("runs") / "bench" / Path(name).stem
    results = run_bench(plan, out, console)
    detector = size_of_detector(out)
    told = facts(plan, _bench_command(arguments, family))
    values = write_bench(plan, results, told, out, detector)
    console.print(table_of(results, detector).to_rich(plan.title))
    _say(console, *notes(results, plan, detector), f"table: {out / MARKDOWN}")
    if arguments.json:
        _write(json.dumps(values, indent=1, ensure_ascii=False))
    return int(any(result["status"] == "failed" for result in results))


def bench_tasks(arguments: argparse.Namespace) -> int:
    """Handle `crossgrain bench tasks`: 0 where every cell ended well, else 1."""
    from crossgrain.bench.table import MARKDOWN
    from crossgrain.bench.tasks import load_tasks, run_tasks, table_of_tasks, write_tasks
    from crossgrain.data.loader import default_workers

    console, chosen = _console(stderr=arguments.json), (arguments.families, arguments.tasks)
    plan = load_tasks(arguments.recipe, *chosen, arguments.limit)
    out = arguments.out or Path("runs") / "bench" / Path(arguments.recipe).stem
    jobs = arguments.jobs if arguments.jobs is not None else default_workers() + 1
    if jobs < 1:
        raise UserError(f"--jobs must be at least 1, not {jobs}")
    results = run_tasks(plan, out, arguments.runs, console, arguments.overrides, jobs)
    flags = {"recipe": arguments.recipe if arguments.recipe != "tasks" else None, "families": arguments.families}
    flags |= {"tasks": arguments.tasks, "limit": arguments.limit, "jobs": jobs}
    command = _command_line(["crossgrain", "bench", "tasks", *arguments.overrides], flags)
    values = write_tasks(plan, results, command, out)
    console.print(table_of_tasks(plan, results).to_rich(plan.title))
    _say(console, f"table: {out / MARKDOWN}")
    if arguments.json:
        _write(json.dumps(values, indent=1, ensure_ascii=False))
    return int(any(result["status"] != "finished" for result in results.values()))


def _bench_command(arguments: argparse.Namespace, family: str | None) -> str:
    """The command as it is written beside its figures: without --out and --json."""
    flags = {"family": family, "recipe": arguments.recipe, "variants": arguments.variants}
    flags |= {"steps": arguments.steps, "limit": arguments.limit}
    return _command_line(["crossgrain", "bench", arguments.what, *arguments.overrides], flags)


def _command_line(words: list[str], flags: dict[str, Any]) -> str:
    for flag, value in flags.items():
        if value is not None:
            words += [f"--{flag}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    return shlex.join(words)


def _train(recipe: "PretrainRecipe", out: Path, console: "Console | None", world: Any = None) -> Path | None:
    """Train; the last checkpoint, or None where a signal stopped it."""
    from crossgrain.runs import run_recipe

    outcome = run_recipe(recipe, out, console=console, world=world)
    return outcome.checkpoint if outcome.status == "finished" else None


def _evaluate(
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
    for file in write_submissions(out / PREDICTIONS, out / "official", any_task=True):
        _say(console, f"for the official server: {file}")
    _say(console, f"report: {page}")
    return scores


def _console(stderr: bool = False) -> "Console":
    from rich.console import Console

    return Console(stderr=stderr)


def _say(console: "Console", *lines: str) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
