"""How often a server is asked: few requests at a time, a pause between them, and none at all where it says no.

A lane belongs to a registrable domain or to an address. Lanes live in one event loop: several processes that fetch
from the same domain each keep to its limits, so shards of requests are best cut by registrable domain.
"""

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from crossgrain.collect.fetch import reasons
from crossgrain.collect.fetch.config import FetchConfig
from crossgrain.collect.fetch.reasons import FetchError


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for: `kind` decides the size, the content types and what is looked for in it."""

    url: str
    kind: Literal["image", "page"] = "image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What became of a request: `data` where `reason` is empty.

    `transient`: asking later may help. `headers`: lower-case names, several of one name joined by line breaks.
    `evidence`: what was looked at for opt-outs ("robots.txt 200", "headers", ...), the signal that decided last.
    """

    request: Request
    data: bytes | None = None
    reason: str = ""
    detail: str = ""
    transient: bool = False
    status: int = 0
    final_url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    evidence: tuple[str, ...] = ()


class Lane:
    """The requests to one domain or address: so many at a time, so long between two starts, and a circuit breaker."""

    def __init__(self, at_once: int, delay: float, config: FetchConfig):
        self.delay = delay
        self._slots = asyncio.Semaphore(at_once)
        self._config = config
        self._next = 0.0  # time.monotonic() of the earliest next start
        self._paused = 0.0
        self._closed = 0.0
        self._strikes = 0

    async def enter(self) -> None:
        """Wait for a turn, which lasts until `leave`. Raises FetchError where the circuit is open, then or later."""
        self._check()
        await self._slots.acquire()
        try:
            self._check()
            start = self._turn()
            while (wait := start - time.monotonic()) > 0:
                await asyncio.sleep(wait)
                self._check()
                if self._paused > start:  # whoever waited through a pause begins after it, one by one
                    start = self._turn()
        except BaseException:
            self._slots.release()
            raise

    def leave(self) -> None:
        """End a turn."""
        self._slots.release()

    def succeeded(self) -> None:
        """A request was answered: failures are counted from here again."""
        self._strikes = 0

    def failed(self, error: FetchError) -> None:
        """Count a failure: pause where the server is busy, and open the circuit at the last one in a row."""
        if error.reason not in reasons.STRIKES:
            if error.status:  # an answer, if not the one that was wanted
                self._strikes = 0
            return
        now = time.monotonic()
        self._strikes += 1
        if error.retry_after > 0:
            # One header must not shut a domain for days; nor is there a use in waiting longer than for the breaker.
            self._paused = max(self._paused, now + min(error.retry_after, self._config.breaker_seconds))
        elif error.reason in (reasons.TOO_MANY_REQUESTS, reasons.SERVER_ERROR):
            self._paused = max(self._paused, now + backoff(self._strikes - 1, self._config))
        if self._strikes >= self._config.breaker_after or self._paused - now > self._config.max_backoff_seconds:
            self._closed = now + self._config.breaker_seconds
            # After it a single failure opens the circuit again.
            self._strikes = self._config.breaker_after - 1

    def _turn(self) -> float:
        """When the next request may start; the one behind it starts later."""
        start = max(time.monotonic(), self._next, self._paused)
        self._next = start + self.delay
        return start

    def _check(self) -> None:
        if time.monotonic() < self._closed:
            raise FetchError(reasons.CIRCUIT_OPEN)


class Lanes:
    """The lanes of all domains and of all addresses, made as they are needed."""

    def __init__(self, config: FetchConfig):
        self._config = config
        self._domains: dict[str, Lane] = {}
        self._addresses: dict[str, Lane] = {}

    def domain(self, name: str) -> Lane:
        """The lane of a registrable domain."""
        if name not in self._domains:
            self._domains[name] = Lane(self._config.domain_concurrency, self._config.domain_delay, self._config)
        return self._domains[name]

    def address(self, group: str) -> Lane:
        """The lane of a server, by its address."""
        if group not in self._addresses:
            self._addresses[group] = Lane(self._config.address_concurrency, self._config.address_delay, self._config)
        return self._addresses[group]


def backoff(attempt: int, config: FetchConfig, chance: Callable[[], float] = random.random) -> float:
    """Seconds to wait after failure number `attempt` (from 0): doubled each time, and different for everyone."""
    wait = min(config.backoff_seconds * 2.0 ** min(attempt, 30), config.max_backoff_seconds)
    return wait * (0.5 + chance())


class ByteBudget:
    """How many bytes of bodies are held at once; who wants more waits, first come, first served.

    A body that grows beyond what it has goes before those that have not begun, and so many bytes as `to_grow` are kept
    for it: bodies that all hold a part and wait for the rest would wait for ever.
    """

    def __init__(self, most: int, to_grow: int = 0):
        self._left = most
        self._to_grow = to_grow
        self._growing: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._beginning: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, amount: int, *, more: bool = False) -> float:
        """Reserve bytes, `more` for a body that has some; returns the seconds that this waited."""
        start = time.monotonic()
        waiting = self._growing if more else self._beginning
        future = asyncio.get_running_loop().create_future()
        waiting.append((amount, future))
        self.give(0)
        if future.done():
            return 0.0
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.give(amount)  # it was granted in the same moment
            else:
                with contextlib.suppress(ValueError):  # who gave bytes meanwhile has passed it over
                    waiting.remove((amount, future))
                self.give(0)
            raise
        return time.monotonic() - start

    def give(self, amount: int) -> None:
        """Return bytes that were reserved."""
        self._left += amount
        for waiting, kept in ((self._growing, 0), (self._beginning, self._to_grow)):
            while waiting and waiting[0][0] <= self._left - kept:
                wanted, future = waiting.popleft()
                if not future.done():  # nobody waits for a cancelled one
                    self._left -= wanted
                    future.set_result(None)
            if waiting:
                return
