"""Files that are there whole or not at all."""

import os
from collections.abc import Iterable
from pathlib import Path


def write_whole(path: Path, parts: Iterable[str]) -> None:
    """Write a text file under another name and rename it when it is whole."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8", errors="backslashreplace") as file:  # file names may be no Unicode
        file.writelines(parts)
    partial.replace(path)


def flush(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk: a loss of power does not undo it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
