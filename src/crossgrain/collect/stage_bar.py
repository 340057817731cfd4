"""The progress of one stage: its parts, and how much they have met; journals say how far unfinished parts are."""

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from rich.progress import Progress

from crossgrain.collect.engines import Outcome
from crossgrain.collect.tasks import IMAGES, Done

_SECONDS = 1.0  # between two looks at the journals
_SECONDS_A_LINE = 30.0  # where lines are written


class StageBar:
    """A line of a progress display. A context manager: while it is open, a thread looks at the stage's journals."""

    def __init__(
        self,
        progress: Progress,
        stage: str,
        folder: Path,
        total: int,
        earlier: frozenset[str] = frozenset(),
        say: Callable[[str], None] | None = None,
    ):
        """`folder` holds the stage's parts; those in `earlier` were done before and say nothing about the speed.

        `say` writes a line now and then where a display that is drawn anew is none.
        """
        self._progress = progress
        self._bar = progress.add_task(stage, total=total, completed=len(earlier), rate="")
        progress.advance(self._bar, 0)  # the speed counts from here
        self._lines = JournalLines(folder)
        self._earlier = earlier
        self._taken = 0  # of what the stage's first account counts, in the parts that this run has done
        self._unit = IMAGES  # which is what journals hold
        self._say = say
        self._since = self._said = time.monotonic()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._shown = say is not None or not progress.disable
        self._thread = threading.Thread(target=self._look, daemon=True) if self._shown else None

    def __enter__(self) -> "StageBar":
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._say is not None:
            self._say(self._line())

    def advance(self, outcome: Outcome) -> None:
        """A part was done, or given up."""
        done = isinstance(outcome, Done)
        if done and outcome.shard in self._earlier:
            return
        with self._lock:
            if done and outcome.funnel:
                self._taken += outcome.funnel[0].num_in
                self._unit = outcome.funnel[0].unit
        self._progress.advance(self._bar)
        if self._shown:
            self._show()

    def _look(self) -> None:
        while not self._stop.wait(_SECONDS):
            self._show()

    def _show(self) -> None:
        self._progress.update(self._bar, rate=self._rate())
        if self._say is not None and time.monotonic() - self._said >= _SECONDS_A_LINE:
            self._said = time.monotonic()
            self._say(self._line())

    def _rate(self) -> str:
        with self._lock:
            met, seconds = self._taken + self._lines.count(), time.monotonic() - self._since
            return f"{met:,} {self._unit}, {met / seconds:,.0f}/s" if met and seconds else ""

    def _line(self) -> str:
        (task,) = (task for task in self._progress.tasks if task.id == self._bar)
        left = f"{timedelta(seconds=task.time_remaining)} left" if task.time_remaining else ""
        told = f"{task.description}: {task.completed:,.0f} of {task.total:,.0f} parts", self._rate(), left
        return ", ".join(filter(None, told))


class JournalLines:
    """Counts the entries in the journals below a folder; what was counted before is not read again."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._read: dict[Path, tuple[int, int]] = {}  # bytes and lines

    def count(self) -> int:
        """Entries in the journals that there are now; a journal whose part is done is there no more."""
        found: dict[Path, tuple[int, int]] = {}
        for path in self._folder.glob("part-*.journal.jsonl"):
            try:
                with path.open("rb") as file:
                    size, lines = self._read.get(path, (0, 0))
                    if file.seek(0, 2) < size:  # begun anew
                        size = lines = 0
                    file.seek(size)
                    while block := file.read(2**20):
                        size, lines = size + len(block), lines + block.count(b"\n")
            except FileNotFoundError:
                continue
            found[path] = size, lines
        self._read = found
        return sum(max(0, lines - 1) for _, lines in found.values())  # the first names the task
