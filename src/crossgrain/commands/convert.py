"""`crossgrain convert`."""

import argparse
from pathlib import Path

from crossgrain.commands.terminal import make_console, say

FORMATS = (
    *("xvlm", "xvlm_retrieval", "xvlm_vqa", "xvlm_nlvr2", "xvlm_grounding", "xvlm_captioning"),
    *("vlbert", "vlbert_vqa", "vlbert_vcr", "vlbert_grounding"),
)


def convert(arguments: argparse.Namespace) -> int:
    """Handle `crossgrain convert`."""
    from crossgrain.published import convert

    out = arguments.out or Path("runs") / arguments.checkpoint.stem
    found = convert(arguments.format, arguments.checkpoint, out, arguments.overrides)
    say(
        make_console(),
        found.report.summary(),
        f"run: {out}",
        f"next: crossgrain evaluate {out} --data DIR, or a recipe with initial_weights={out}",
    )
    return 0
