"""In which order requests begin: so many of one domain at a time, so that a large one holds up no other."""

from collections import Counter, deque
from collections.abc import Iterator

from crossgrain.collect.domains import host_of
from crossgrain.collect.fetch.addresses import owner_of
from crossgrain.collect.fetch.politeness import Request

_OF_ONE_DOMAIN = 64  # requests under way or waiting for their turn
_HELD = 20_000  # requests that are read ahead of their turn


class Feed:
    """Requests from an iterator; what a crowded domain has too many of is held back, a bounded number."""

    def __init__(self, requests: Iterator[Request], of_one_domain: int = _OF_ONE_DOMAIN, most_held: int = _HELD):
        self._requests = requests
        self._of_one_domain = of_one_domain
        self._most_held = most_held
        self._more = True
        self._held: dict[str, deque[Request]] = {}
        self._num_held = 0
        self._free: deque[str] = deque()  # domains with held requests and room, once for each that may begin
        self._running: Counter[str] = Counter()

    def take(self, most: int) -> list[Request]:
        """Up to `most` requests that may begin now; all of them count as running until `ended`."""
        taken: list[Request] = []
        while len(taken) < most and (request := self._next()) is not None:
            taken.append(request)
        return taken

    def ended(self, request: Request) -> None:
        """A request is answered: another one of its domain may begin."""
        domain = _domain(request)
        self._running[domain] -= 1
        if domain in self._held:
            self._free.append(domain)
        elif not self._running[domain]:
            del self._running[domain]

    def rest(self) -> Iterator[Request]:
        """All that never began."""
        for held in self._held.values():
            yield from held
        if self._more:
            yield from self._requests

    def _next(self) -> Request | None:
        if self._free:
            domain = self._free.popleft()
            held = self._held[domain]
            request = held.popleft()
            self._num_held -= 1
            if not held:
                del self._held[domain]
                self._free = deque(other for other in self._free if other != domain)
            self._running[domain] += 1
            return request
        while self._more and self._num_held < self._most_held:
            request = next(self._requests, None)
            if request is None:
                self._more = False
                break
            domain = _domain(request)
            if domain not in self._held and self._running[domain] < self._of_one_domain:
                self._running[domain] += 1
                return request
            self._held.setdefault(domain, deque()).append(request)
            self._num_held += 1
        return None


def _domain(request: Request) -> str:
    return owner_of(host_of(request.url))
