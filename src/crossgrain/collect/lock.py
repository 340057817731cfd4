"""One process at a time in the folder of a collection: a run, or a removal."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from crossgrain.config import UserError

LOCK = ".lock"  # in the folder of the parts


@contextlib.contextmanager
def alone(work: Path) -> Iterator[None]:
    """Keep others out of the same folder; the operating system lets go when the process ends, however it does."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another run is at work in {work.parent}: wait for its end, or end it") from None
        except OSError:  # a file system that has no locks
            pass
        yield
