"""The command line as a text: one line for each verb, with its arguments and flags, in `tests/commands.txt`.

To change the command line on purpose, write the file anew and let the review see the difference:
`.venv/bin/python tests/commands.py > tests/commands.txt`.
"""

import argparse
import sys
from collections.abc import Iterator


def describe(parser: argparse.ArgumentParser) -> str:
    """Every command of `parser` with its arguments in order and its flags sorted."""
    return "".join(f"{line}\n" for line in _lines(parser, parser.prog))


def _lines(parser: argparse.ArgumentParser, name: str) -> Iterator[str]:
    actions = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    arguments = [_argument(action) for action in actions if not action.option_strings]
    flags = sorted(_flag(action) for action in actions if action.option_strings)
    yield " ".join([name, *filter(None, arguments), *flags])
    for action in actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb, verb_parser in sorted(action.choices.items()):
                yield from _lines(verb_parser, f"{name} {verb}")


def _argument(action: argparse.Action) -> str:
    return "" if isinstance(action, argparse._SubParsersAction) else f"<{_value(action)}>{_count(action)}"


def _flag(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else f"=<{_value(action)}>{_count(action)}"
    flag = "|".join(action.option_strings) + value
    return flag if action.required else f"[{flag}]"


def _value(action: argparse.Action) -> str:
    return "|".join(map(str, action.choices)) if action.choices else str(action.metavar or action.dest)


def _count(action: argparse.Action) -> str:
    return "" if action.nargs is None else str(action.nargs)


if __name__ == "__main__":
    from crossgrain.cli import build_parser

    sys.stdout.write(describe(build_parser()))
