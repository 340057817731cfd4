"""The flags of `crossgrain prepare SOURCE`, from the table of layouts. Cheap to import."""

import argparse
from pathlib import Path

from crossgrain.data.sets import DATASETS, Flag

VOCAB_SIZE = 30522  # as BERT's; a small data set gives fewer words


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The commands `SOURCE --flags` of `crossgrain prepare`, one per known layout."""
    sources = parser.add_subparsers(dest="source", metavar="SOURCE", required=True)
    for name, source in DATASETS.items():
        command = sources.add_parser(name, help=source.help, description=source.help)
        if source.has_root:
            command.add_argument("--root", type=Path, required=True, metavar="DIR", help="where the data set lies")
        command.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the shards go")
        for flag in source.flags:
            _add_flag(command, flag)
        command.add_argument("--split", help="read this split only; a layout without splits becomes it as a whole")
        command.add_argument("--limit", type=int, metavar="N", help="keep the first N images")
        command.add_argument("--workers", type=int, metavar="N", help="processes that decode (0: none but this one)")
        vocabulary = command.add_mutually_exclusive_group()
        vocabulary.add_argument("--vocab-size", type=int, default=VOCAB_SIZE, metavar="N", help="words to learn")
        vocabulary.add_argument("--vocab", type=Path, metavar="FILE", help="copy this one instead")
        vocabulary.add_argument("--no-vocab", action="store_true", help="write no vocabulary")
        command.add_argument("--overwrite", action="store_true", help="replace the data set in --out")
        command.add_argument("--json", action="store_true", help="print the report as JSON")


def _add_flag(command: argparse.ArgumentParser, flag: Flag) -> None:
    metavar = {int: "N", Path: "FILE"}.get(flag.type, flag.name.upper()) if flag.name != "images" else "FOLDER"
    command.add_argument(
        f"--{flag.name.replace('_', '-')}",
        type=flag.type,
        default=flag.default,
        required=flag.required,
        nargs="+" if flag.many else None,
        metavar=metavar,
        help=flag.help,
    )
