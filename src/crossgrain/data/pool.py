"""A process pool for work that may kill its worker: decoders of broken files crash, hang or run out of memory.

`concurrent.futures` gives up all that is under way when a worker dies, and `multiprocessing.Pool` waits for ever; here
one item is lost, and named.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.resource_tracker import ensure_running
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 8  # items per worker that may be done before the first of them is
_STARTS = 3  # of a worker, before something is wrong with starting
_MAX_HELD = 256 * 2**20  # and the size of their results


def ordered_map(
    function: Callable[[T], R],
    items: Iterable[T],
    num_workers: int,
    failed: Callable[[T, str], R],
    time_limit: float = 120.0,
    size: Callable[[R], int] = lambda _: 0,
) -> Generator[R]:
    """`map(function, items)` in `num_workers` processes (0: this one), in order, a few items ahead.

    Where an item ends its worker, or takes longer than `time_limit` seconds, `failed(item, reason)` is its result.
    `size` is the memory that a result holds, in bytes.
    """
    if num_workers == 0:
        yield from map(function, items)
        return
    done: dict[int, R] = {}

    def has_room(busy: int) -> bool:
        held = sum(size(result) for result in done.values())
        return held < _MAX_HELD and len(done) + busy < _AHEAD * num_workers

    position = 0
    with Workers(function, num_workers) as workers:
        for number, result in workers.run(items, failed, time_limit, has_room):
            done[number] = result
            while position in done:
                yield done.pop(position)
                position += 1


class Workers(Generic[T, R]):
    """Processes that stay for several runs; a context manager, or closed by `close`."""

    def __init__(self, function: Callable[[T], R], num_workers: int):
        self._function = function
        self._num_workers = num_workers
        self._workers: list[_Worker] = []

    def __enter__(self) -> "Workers[T, R]":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes, whatever they do."""
        for worker in self._workers:
            worker.stop()
        self._workers = []

    def run(
        self,
        items: Iterable[T],
        failed: Callable[[T, str], R],
        time_limit: float = 120.0,
        has_room: Callable[[int], bool] = lambda _: True,
    ) -> Generator[tuple[int, R]]:
        """(number of the item, result), the first to end first; an item is begun while `has_room(items under way)`.

        Where it is left before its end, the workers are of no further use.
        """
        todo = enumerate(items)
        exhausted = False
        while True:
            while not exhausted and has_room(_busy(self._workers)):
                worker = next((worker for worker in self._workers if worker.idle), None)
                if worker is None and len(self._workers) == self._num_workers:
                    break
                try:
                    number, item = next(todo)
                except StopIteration:
                    exhausted = True
                    break
                if worker is None:
                    worker = _Worker(self._function)
                    self._workers.append(worker)
                worker.give(number, item)
            if not _busy(self._workers):
                return
            for worker in _reports(self._workers, time_limit):
                number, item = worker.number, worker.item  # taking the result frees the worker
                result, reason = worker.take(time_limit)
                yield number, failed(item, reason) if reason else result


class _Worker:
    """One process and the item that it works on; started anew when that item has ended it."""

    def __init__(self, function: Callable[[Any], Any]):
        self._function = function
        self._start()

    def _start(self) -> None:
        # spawn: no lock, file or thread of this process is inherited, so none can deadlock the worker
        context = multiprocessing.get_context("spawn")
        self.connection, remote = context.Pipe()
        self._process = context.Process(target=_work, args=(remote, self._function), daemon=True)
        with _interrupts_held_back():  # the process begins so, and says for itself that it passes them over
            self._process.start()
        remote.close()
        self.number, self.idle, self.since = -1, True, 0.0
        self.item: Any = None
        self._ready = False

    def give(self, number: int, item: Any) -> None:
        if not self._ready:
            self._greet()
        self.number, self.item, self.idle, self.since = number, item, False, time.monotonic()
        self.connection.send(item)

    def _greet(self) -> None:
        """Wait until the process is up: what ends it before is no item's fault, so it is started again."""
        for left in reversed(range(_STARTS)):
            try:
                self._ready = self.connection.recv()
                return
            except (EOFError, ConnectionError):
                self.stop()
                if not left:
                    break
                self._start()
        raise RuntimeError(f"a worker process ended while it started, {_STARTS} times; see the messages above")

    def take(self, time_limit: float) -> tuple[Any, str]:
        """The result, or the reason why there is none."""
        try:
            if not self.connection.poll():
                reason = f"decoder took over {time_limit:g} s"
            else:
                result, error = self.connection.recv()
                self.idle, self.item = True, None
                if error is not None:
                    raise error
                return result, ""
        except (EOFError, OSError):
            reason = "decoder crashed"
        self.stop()
        self._start()
        return None, reason

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


def _busy(workers: list[_Worker]) -> int:
    return sum(not worker.idle for worker in workers)


def _reports(workers: list[_Worker], time_limit: float) -> list[_Worker]:
    """The workers that have a result, have died, or are past their time; waits until there is one."""
    busy = {worker.connection: worker for worker in workers if not worker.idle}
    latest = min(worker.since for worker in busy.values()) + time_limit
    ready = wait(list(busy), timeout=max(0.0, latest - time.monotonic()))
    late = [worker for worker in busy.values() if time.monotonic() - worker.since > time_limit]
    return [busy[connection] for connection in ready if isinstance(connection, Connection)] or late


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Ctrl-C comes when this is over, to this process; one that is started meanwhile has it held back."""
    ensure_running()  # or the start of a first process would let them through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    """A worker whose parent was killed would go on with its item, beside whoever does it again."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(connection: Connection, function: Callable[[Any], Any]) -> None:
    """The worker's loop, until its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    connection.send(True)
    while True:
        try:
            item = connection.recv()
        except EOFError:
            return
        try:
            answer = function(item), None
        except Exception as error:
            answer = None, error
        try:
            connection.send(answer)
        except OSError:  # nobody listens any more
            return
