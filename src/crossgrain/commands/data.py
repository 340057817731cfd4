"""`crossgrain prepare` and `crossgrain detect`."""

import argparse
import json
import sys

from crossgrain.commands.terminal import make_console, say, write


def prepare(arguments: argparse.Namespace) -> int:
    """Handle `crossgrain prepare`."""
    from crossgrain.data.manifest import MANIFEST
    from crossgrain.data.prepare import prepare_arguments as run

    console = make_console(stderr=arguments.json)
    manifest = arguments.out / MANIFEST
    had_data = manifest.exists()
    try:
        report = run(arguments, console)
    except KeyboardInterrupt:
        told = "nothing of this run is kept, and the same command starts over"
        if manifest.exists() and not had_data:  # its source was still adding to it
            told = f"{arguments.out} may lack what its source adds last, and --overwrite starts over"
        sys.stderr.write(f"crossgrain: interrupted; {told}\n")
        return 130
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
