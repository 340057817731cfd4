"""The progress bar of one stage: its parts, and how much they have met; journals say how far unfinished parts are."""

import threading
import time
from pathlib import Path

from rich.progress import Progress

from crossgrain.collect.tasks import IMAGES, Done

_SECONDS = 1.0  # between two looks at the journals


class StageBar:
    """A line of a progress display. A context manager: while it is open, a thread looks at the stage's journals."""

    def __init__(self, progress: Progress, stage: str, folder: Path, total: int, earlier: frozenset[str] = frozenset()):
        """`folder` holds the stage's parts; those in `earlier` were done before and say nothing about the speed."""
        self._progress = progress
        self._bar = progress.add_task(stage, total=total, rate="")
        self._lines = JournalLines(folder)
        self._earlier = earlier
        self._taken = 0  # of what the stage's first account counts, in the parts that this run has done
        self._unit = IMAGES  # which is what journals hold
        self._since = time.monotonic()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = None if progress.disable else threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "StageBar":
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def advance(self, done: Done | None) -> None:
        """A part was done, or (None) given up."""
        with self._lock:
            if done is not None and done.funnel and done.shard not in self._earlier:
                self._taken += done.funnel[0].num_in
                self._unit = done.funnel[0].unit
        self._progress.advance(self._bar)
        if not self._progress.disable:
            self._show()

    def _look(self) -> None:
        while not self._stop.wait(_SECONDS):
            self._show()

    def _show(self) -> None:
        with self._lock:
            met, seconds = self._taken + self._lines.count(), time.monotonic() - self._since
            rate = f"{met:,} {self._unit}, {met / seconds:,.0f}/s" if met and seconds else ""
            self._progress.update(self._bar, rate=rate)


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
