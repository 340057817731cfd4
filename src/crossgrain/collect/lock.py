"""One process at a time in the folder of a collection: a run, or a removal."""

from contextlib import AbstractContextManager
from pathlib import Path

from crossgrain.data.removal import locked

LOCK = ".lock"  # in the folder of the parts: a run has begun here


def alone(work: Path) -> AbstractContextManager[None]:
    """Keep others out of the same folder."""
    work.mkdir(parents=True, exist_ok=True)
    (work / LOCK).touch()
    return locked(work, f"another run is at work in {work.parent}: wait for its end, or end it")
