"""`crossgrain bench`."""

import argparse
import json
from pathlib import Path

from crossgrain.commands.terminal import command_line, make_console, say, write
from crossgrain.config import UserError


def bench(arguments: argparse.Namespace) -> int:
    """Handle `crossgrain bench`: 0 where every variant ended well, else 1."""
    from crossgrain.bench.plan import load_plan
    from crossgrain.bench.run import run_bench, size_of_detector
    from crossgrain.bench.table import MARKDOWN, facts, notes, table_of, write_bench

    console = make_console(stderr=arguments.json)
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
    say(console, *notes(results, plan, detector), f"table: {out / MARKDOWN}")
    if arguments.json:
        write(json.dumps(values, indent=1, ensure_ascii=False))
    return int(any(result["status"] == "failed" for result in results))


def bench_tasks(arguments: argparse.Namespace) -> int:
    """Handle `crossgrain bench tasks`: 0 where every cell ended well, else 1."""
    from crossgrain.bench.table import MARKDOWN
    from crossgrain.bench.tasks import load_tasks, run_tasks, table_of_tasks, write_tasks
    from crossgrain.data.loader import default_workers

    console, chosen = make_console(stderr=arguments.json), (arguments.families, arguments.tasks)
    plan = load_tasks(arguments.recipe, *chosen, arguments.limit)
    out = arguments.out or Path("runs") / "bench" / Path(arguments.recipe).stem
    jobs = arguments.jobs if arguments.jobs is not None else default_workers() + 1
    if jobs < 1:
        raise UserError(f"--jobs must be at least 1, not {jobs}")
    results = run_tasks(plan, out, arguments.runs, console, arguments.overrides, jobs)
    flags = {"recipe": arguments.recipe if arguments.recipe != "tasks" else None, "families": arguments.families}
    flags |= {"tasks": arguments.tasks, "limit": arguments.limit, "jobs": jobs}
    command = command_line(["crossgrain", "bench", "tasks", *arguments.overrides], flags)
    values = write_tasks(plan, results, command, out)
    console.print(table_of_tasks(plan, results).to_rich(plan.title))
    say(console, f"table: {out / MARKDOWN}")
    if arguments.json:
        write(json.dumps(values, indent=1, ensure_ascii=False))
    return int(any(result["status"] != "finished" for result in results.values()))


def _bench_command(arguments: argparse.Namespace, family: str | None) -> str:
    """The command as it is written beside its figures: without --out and --json."""
    flags = {"family": family, "recipe": arguments.recipe, "variants": arguments.variants}
    flags |= {"steps": arguments.steps, "limit": arguments.limit}
    return command_line(["crossgrain", "bench", arguments.what, *arguments.overrides], flags)
