"""`crossgrain prepare` and `crossgrain detect`."""

import argparse
import json

from crossgrain.commands.terminal import make_console, say, write


def prepare(arguments: argparse.Namespace) -> int:
    """Handle `crossgrain prepare`."""
    from crossgrain.data.prepare import prepare_arguments as run

    console = make_console(stderr=arguments.json)
    report = run(arguments, console)
    if arguments.json:
        write(json.dumps(report.to_json(), indent=1, ensure_ascii=False))
    else:
        say(console, f"wrote {arguments.out}", *report.lines())
    return 0


def detect(arguments: argparse.Namespace) -> int:
    """Handle `crossgrain detect`."""
    from crossgrain.detection.command import run

    console = make_console()
    say(console, *run(arguments.data, arguments.overrides, console))
    return 0
