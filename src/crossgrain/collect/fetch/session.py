"""Fetch many requests at once and hand them over as they end.

The network runs in a thread of its own, so that it goes on while the caller decodes; requests are read, and answers
handed over, in the caller's. Bodies in flight are bounded in bytes, requests in number, and everything in time.
"""

import asyncio
import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from crossgrain.collect.fetch import reasons
from crossgrain.collect.fetch.addresses import Lookup, system_lookup
from crossgrain.collect.fetch.config import FetchConfig, loopback_allowed
from crossgrain.collect.fetch.feed import Feed
from crossgrain.collect.fetch.politeness import Fetched, Request
from crossgrain.collect.fetch.sites import RulesCache
from crossgrain.collect.fetch.visits import Visitor
from crossgrain.collect.images.blocklist import Blocklist

_WINDOW = 1024  # requests under way or waiting for their turn
_BATCH = 32  # of them are missing before more are handed to the network
_STEP = 32  # requests started at a time, so that what is under way goes on meanwhile
_GIVEN_BACK = 4 * 2**20  # bytes of answers after which the network is told that they are taken
_GRACE = 10.0  # seconds past the deadline that the network has to say what it left undone

_kept: dict[object, RulesCache] = {}  # what sites allow is asked once a day and process, not for every shard


def fetch_all(
    requests: Iterable[Request],
    config: FetchConfig,
    *,
    lookup: Lookup = system_lookup,
    cache: RulesCache | None = None,
    blocklist: Blocklist | None = None,
) -> Iterator[Fetched]:
    """One `Fetched` for every request, in the order in which they end; never later than `deadline` and some seconds.

    `lookup` resolves names; `cache` holds the rules of sites, those of this process where none is given; `blocklist`
    holds at every redirect, and for files before their opt-outs. Raises UserError where the configuration names no
    contact.
    """
    config.check_contact()
    if cache is None:
        # The servers of tests come and go, and another one may stand where one stood.
        cache = (
            RulesCache() if loopback_allowed() else _kept.setdefault((config.tokens(), config.site_files), RulesCache())
        )
    return _fetch_all(iter(requests), config, partial(Visitor, config, lookup, cache, blocklist))


def _fetch_all(
    requests: Iterator[Request], config: FetchConfig, make_visitor: Callable[[], Visitor]
) -> Iterator[Fetched]:
    end = time.monotonic() + config.deadline
    feed = Feed(requests, of_one_domain=max(64, 2 * config.domain_concurrency))
    network = _Network(make_visitor, end)
    left: dict[int, Request] = {}
    numbers = itertools.count()
    try:
        while True:
            if len(left) <= _WINDOW - _BATCH and time.monotonic() < end:
                batch = [(request, next(numbers)) for request in feed.take(_WINDOW - len(left))]
                left.update((number, request) for request, number in batch)
                network.submit(batch)
            if not left:
                break
            taken = 0
            try:
                answers = network.take(end + _GRACE - time.monotonic())
            except queue.Empty:  # the network hangs in spite of everything
                break
            for number, fetched in answers:
                feed.ended(left.pop(number))
                yield fetched
                taken += len(fetched.data or b"")
                if taken > _GIVEN_BACK:
                    network.give(taken)
                    taken = 0
            network.give(taken)
    finally:
        network.stop()
    for request in itertools.chain(left.values(), feed.rest()):
        yield _undone(request)


class _Network:
    """The thread with the event loop. Its methods are for the caller's thread; those with `_` are the loop's."""

    def __init__(self, make_visitor: Callable[[], Visitor], end: float):
        self._make_visitor, self._end = make_visitor, end
        self._done: queue.SimpleQueue[tuple[int, Fetched] | None] = queue.SimpleQueue()
        self._tasks: set[asyncio.Task[Fetched]] = set()
        self._ready = threading.Event()
        self._past = False
        self._broken: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="fetcher")
        self._thread.start()
        self._ready.wait()
        if self._broken is not None:
            raise RuntimeError("the fetcher's event loop did not start") from self._broken

    def submit(self, batch: Sequence[tuple[Request, int]]) -> None:
        """Start on requests, each under its number."""
        if batch:
            self._call(self._start, batch)

    def take(self, seconds: float) -> Iterator[tuple[int, Fetched]]:
        """Wait for an answer; it and all that are there. Raises queue.Empty after so many seconds."""
        first = self._done.get(timeout=max(seconds, 0.0))
        return self._drain(first)

    def give(self, amount: int) -> None:
        """Bytes of answers that the caller has taken."""
        if amount:
            self._call(self._give, amount)

    def stop(self) -> None:
        """Drop what is under way, and wait for the loop to close."""
        self._call(self._stop)
        self._thread.join(_GRACE)

    def _drain(self, first: tuple[int, Fetched] | None) -> Iterator[tuple[int, Fetched]]:
        item = first
        while True:
            if item is None:
                raise RuntimeError("the fetcher's event loop ended early") from self._broken
            yield item
            try:
                item = self._done.get_nowait()
            except queue.Empty:
                return

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: its last word lies in the queue
            self._loop.call_soon_threadsafe(function, *arguments)

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # said where the caller waits
            self._broken = error
        finally:
            self._ready.set()
            self._done.put(None)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self._visitor = self._make_visitor()
        self._ready.set()
        try:
            async with asyncio.timeout(max(self._end - time.monotonic(), 0.0)):
                await self._stopped.wait()
        except TimeoutError:
            pass
        self._past = True
        try:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=_GRACE / 2)
            await self._stopped.wait()
        finally:
            await self._visitor.close()

    def _start(self, batch: Sequence[tuple[Request, int]]) -> None:
        for request, number in batch if self._past else batch[:_STEP]:
            if self._past:
                self._done.put((number, _undone(request)))
                continue
            task = self._loop.create_task(self._visitor.visit(request))
            self._tasks.add(task)
            task.add_done_callback(partial(self._finish, request, number))
        if not self._past and len(batch) > _STEP:
            self._loop.call_soon(self._start, batch[_STEP:])

    def _finish(self, request: Request, number: int, task: asyncio.Task[Fetched]) -> None:
        # Here and not in the task: one that is cancelled before it has begun never runs.
        self._tasks.discard(task)
        self._done.put((number, _undone(request) if task.cancelled() else task.result()))

    def _stop(self) -> None:
        self._stopped.set()

    def _give(self, amount: int) -> None:
        self._visitor.budget.give(amount)


def _undone(request: Request) -> Fetched:
    return Fetched(request=request, reason=reasons.SHARD_DEADLINE, transient=True)
