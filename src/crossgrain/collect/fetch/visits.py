"""One visit: an image or a page with everything that must hold for it, from its URL to the last byte."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable

from yarl import URL

from crossgrain.collect.fetch import reasons
from crossgrain.collect.fetch.addresses import (
    Lookup,
    Resolver,
    address_group,
    check_redirect,
    check_url,
    owner_of,
    system_lookup,
)
from crossgrain.collect.fetch.client import Answer, Client, Wanted
from crossgrain.collect.fetch.config import FetchConfig, loopback_allowed
from crossgrain.collect.fetch.politeness import ByteBudget, Fetched, Lanes, Request, backoff
from crossgrain.collect.fetch.reasons import FetchError
from crossgrain.collect.fetch.sites import RulesCache, Sites
from crossgrain.collect.images.blocklist import BLOCKED, Blocklist
from crossgrain.collect.opt_outs import embedded_opt_out, response_opt_out

_SITE_REDIRECTS = 5  # RFC 9309, section 2.3.1.2
_UNSAID = ("", "application/octet-stream", "binary/octet-stream", "application/binary", "application/force-download")


def _image_type(kind: str) -> bool:
    return kind in _UNSAID or (kind.startswith("image/") and not kind.startswith("image/svg"))


def _page_type(kind: str) -> bool:
    return kind in ("", "text/html", "application/xhtml+xml")


class Visitor:
    """Visits URLs in one event loop, which must be running when this is made. Close it at the end.

    What is on `blocklist`, by its URL or that of a redirect to it, is not asked for, and its file not handed over.
    """

    def __init__(
        self,
        config: FetchConfig,
        lookup: Lookup = system_lookup,
        cache: RulesCache | None = None,
        blocklist: Blocklist | None = None,
    ):
        self._config = config
        self._blocklist = blocklist
        self._loopback = loopback_allowed()
        self.budget = ByteBudget(config.max_bytes_in_flight, max(config.max_image_bytes, config.max_page_bytes))
        self._resolver = Resolver(lookup, allow_loopback=self._loopback, timeout=2 * config.connect_seconds)
        self._client = Client(config, self._resolver, self.budget)
        self._lanes = Lanes(config)
        self._sites = Sites(config, self._site_file, RulesCache() if cache is None else cache)
        self._slots = asyncio.Semaphore(config.concurrency)
        self._tokens = config.tokens()
        self._wanted = {
            "image": Wanted(
                max_bytes=config.max_image_bytes,
                accept="image/jpeg, image/png, image/webp, image/*;q=0.5",
                allows=_image_type,
            ),
            "page": Wanted(
                max_bytes=config.max_page_bytes, accept="text/html, application/xhtml+xml", allows=_page_type
            ),
        }

    async def close(self) -> None:
        """Close connections and stop what is under way."""
        self._sites.cancel()
        await self._client.close()
        await self._resolver.close()

    async def visit(self, request: Request) -> Fetched:
        """What became of a request; its data stay reserved in `budget`. Only a cancellation is raised."""
        evidence: list[str] = []
        try:
            return await self._visit(request, evidence)
        except FetchError as error:
            if error.reason.startswith("opted out"):
                evidence.append(error.reason.removeprefix("opted out: "))
            return _failed(request, error, tuple(dict.fromkeys(evidence)))
        except Exception as error:  # whatever one server brings about, the others are still to be asked
            return _failed(request, FetchError(reasons.FETCHER_ERROR, repr(error)[:200]), tuple(evidence))

    async def _visit(self, request: Request, evidence: list[str]) -> Fetched:
        url = self._check(request.url)
        wanted = self._wanted[request.kind]
        answer, final = await self._persist(
            lambda: self._follow(url, wanted, self._config.max_redirects, evidence, self._rules)
        )
        try:
            self._judge(answer, request, evidence)
        except BaseException:
            self.budget.give(len(answer.data))
            raise
        return Fetched(
            request=request,
            data=answer.data,
            status=answer.status,
            final_url=str(final),
            headers=answer.headers,
            evidence=tuple(dict.fromkeys(evidence)),
        )

    def _judge(self, answer: Answer, request: Request, evidence: list[str]) -> None:
        """Raise FetchError where an answer may not be used."""
        if self._blocklist is not None and (listed := self._blocklist.blocks_file(answer.data)):
            raise FetchError(BLOCKED, listed, status=answer.status)
        evidence.append("headers")
        refusal = response_opt_out(answer.headers, self._tokens)
        if refusal is None and request.kind == "image":
            evidence.append("embedded")
            refusal = embedded_opt_out(answer.data)
        if refusal is not None:
            raise FetchError(refusal, status=answer.status)

    async def _persist(self, ask: Callable[[], Awaitable[tuple[Answer, URL]]]) -> tuple[Answer, URL]:
        """Ask again where that may help, after a pause."""
        for attempt in itertools.count():
            try:
                return await ask()
            except FetchError as error:
                last = attempt >= self._config.retries or error.retry_after > self._config.max_backoff_seconds
                if last or error.settled or error.reason not in reasons.ASKED_AGAIN:
                    raise
                await asyncio.sleep(max(error.retry_after, backoff(attempt, self._config)))
        raise AssertionError  # not reached

    def _check(self, url: str | URL) -> URL:
        return check_url(url, self._config.ports, self._loopback)

    async def _rules(self, url: URL, evidence: list[str]) -> None:
        """Raise FetchError where we or the site of a URL do not want it fetched."""
        if self._blocklist is not None and (listed := self._blocklist.blocks_url(str(url))):
            raise FetchError(BLOCKED, listed, settled=True)
        rules = await self._sites.rules(url)
        evidence += rules.evidence
        reason = rules.opt_out(url)
        if reason is not None:
            raise FetchError(reason, rules.detail, settled=True)
        if rules.robots and rules.robots.crawl_delay:
            lane = self._lanes.domain(owner_of(url.raw_host or ""))
            lane.delay = max(lane.delay, rules.robots.crawl_delay * self._config.sharers)

    async def _site_file(self, url: URL, wanted: Wanted, again: bool) -> Answer:
        def ask() -> Awaitable[tuple[Answer, URL]]:
            return self._follow(url, wanted, _SITE_REDIRECTS, [], None)

        url = self._check(url)
        answer, _ = await (self._persist(ask) if again else ask())
        self.budget.give(len(answer.data))
        return answer

    async def _follow(
        self,
        url: URL,
        wanted: Wanted,
        redirects: int,
        evidence: list[str],
        rules: Callable[[URL, list[str]], Awaitable[None]] | None,
    ) -> tuple[Answer, URL]:
        """Ask for a URL and for what it redirects to, every hop checked like the first."""
        left = self._config.total_seconds
        for _ in range(redirects + 1):
            # Refused before the site hears of us: what resolves to a private address, then what it forbids.
            addresses = await self._resolver.addresses((url.raw_host or "").lower())
            if rules is not None:
                await rules(url, evidence)
            answer, seconds = await self._ask(url, wanted, addresses[0], left, counted=rules is not None)
            if not answer.location:
                return answer, url
            left = max(left - seconds, 0.001)
            try:
                url = check_redirect(url, answer.location, self._config.ports, self._loopback)
            except FetchError as error:
                reason = reasons.BAD_REDIRECT if error.reason == reasons.BAD_URL else error.reason
                raise FetchError(reason, f"redirect: {error.detail}", status=answer.status) from None
        raise FetchError(reasons.TOO_MANY_REDIRECTS, f"more than {redirects}")

    async def _ask(
        self, url: URL, wanted: Wanted, address: str, seconds: float, *, counted: bool
    ) -> tuple[Answer, float]:
        """One request in its turn; the answer and the seconds that it took. `counted`: being refused is a strike."""
        domain = self._lanes.domain(owner_of(url.raw_host or ""))
        server = self._lanes.address(address_group(address))
        await domain.enter()
        try:
            await server.enter()
            try:
                async with self._slots:
                    start = time.monotonic()
                    answer = await self._client.get(url, wanted, seconds)
            finally:
                server.leave()
        except FetchError as error:
            if counted or error.reason != reasons.FORBIDDEN:  # stores refuse what they do not have
                domain.failed(error)
            raise
        finally:
            domain.leave()
        domain.succeeded()
        return answer, time.monotonic() - start


def _failed(request: Request, error: FetchError, evidence: tuple[str, ...]) -> Fetched:
    return Fetched(
        request=request,
        reason=error.reason,
        detail=error.detail,
        transient=error.reason in reasons.TRANSIENT,
        status=error.status,
        evidence=evidence,
    )
