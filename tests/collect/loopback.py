"""A web server on this machine, in a thread, whose paths a test describes; and what it was asked."""

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from crossgrain.collect.fetch import FetchConfig

Answer = bytes | tuple[int, Mapping[str, str], bytes] | Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Loopback:
    """`paths` may be changed at any time; what is not in it is 404. `asked` counts the paths, `times` says when."""

    port: int = 0
    paths: dict[str, Answer] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    times: list[tuple[float, str]] = field(default_factory=list)
    requests: list[Mapping[str, str]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def config(self, **changes) -> FetchConfig:
        """A configuration without pauses that allows this server's port."""
        quick = {"domain_delay": 0.0, "address_delay": 0.0, "domain_concurrency": 64, "address_concurrency": 64}
        return FetchConfig(**{**quick, "ports": (80, 443, self.port), "retries": 0, "deadline": 120.0, **changes})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked[request.path] += 1
        self.times.append((time.monotonic(), request.path))
        self.requests.append(dict(request.headers))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            found = self.paths.get(request.path, self.paths.get("*"))
            if found is None:
                return web.Response(status=404)
            if callable(found):
                return await found(request)
            status, headers, body = found if isinstance(found, tuple) else (200, {"Content-Type": "image/jpeg"}, found)
            return web.Response(status=status, headers=headers, body=body)
        finally:
            self.at_once -= 1


@contextlib.contextmanager
def loopback() -> Iterator[Loopback]:
    """Serve on a free port of 127.0.0.1 until the block ends."""
    server, ready, stop = Loopback(), threading.Event(), threading.Event()

    async def main() -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", server.answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.port = runner.addresses[0][1]
        ready.set()
        while not stop.is_set():
            await asyncio.sleep(0.02)
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        stop.set()
        thread.join(10)
