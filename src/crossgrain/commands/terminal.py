"""What the commands say: to people through a console, to programs on standard output."""

import shlex
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def make_console(stderr: bool = False) -> "Console":
    """A console on standard output, or on standard error where that is for programs."""
    from rich.console import Console

    return Console(stderr=stderr)


def say(console: "Console", *lines: str) -> None:
    """Print lines as they are."""
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def write(text: str) -> None:
    """One text on standard output."""
    sys.stdout.write(text + "\n")


def command_line(words: list[str], flags: dict[str, Any]) -> str:
    """A command as it is typed; flags without a value are left out."""
    for flag, value in flags.items():
        if value is not None:
            words += [f"--{flag}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    return shlex.join(words)
