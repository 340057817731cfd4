"""Fetch the files that say what a site allows, once per origin, and keep what they say for a day at most."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from yarl import URL

from crossgrain.collect.fetch import reasons
from crossgrain.collect.fetch.client import Answer, Wanted
from crossgrain.collect.fetch.config import ROBOTS_BYTES, FetchConfig
from crossgrain.collect.fetch.reasons import FetchError
from crossgrain.collect.fetch.robots import (
    Robots,
    SiteRules,
    ai_txt,
    forbids_in_trust,
    licence_rules,
    tdm_rules,
)

# Follows redirects, with all checks, and asks again where the last argument says so. Raises FetchError.
Get = Callable[[URL, Wanted, bool], Awaitable[Answer]]

_REDIRECTS = 5  # that RFC 9309 asks to follow for robots.txt
_MAX_LICENCES = 3
_FAILED_SECONDS = 600.0  # after which a robots.txt that could not be reached is asked for again
_ROBOTS = Wanted(max_bytes=ROBOTS_BYTES, accept="text/plain, */*;q=0.1", allows=lambda _: True, lenient=True)
_FILE = Wanted(
    max_bytes=256 * 1024, accept="*/*", allows=lambda kind: kind not in ("text/html", "application/xhtml+xml")
)


class RulesCache:
    """Rules by origin, with the time they end at. It may outlive one run; a few kilobytes for every origin."""

    def __init__(self, most: int = 8192):
        self._most = most
        self._rules: OrderedDict[str, tuple[float, SiteRules]] = OrderedDict()

    def get(self, origin: str) -> SiteRules | None:
        """The rules of an origin, None where they are unknown or too old."""
        ends, rules = self._rules.get(origin, (0.0, None))
        return rules if ends > time.monotonic() else None

    def put(self, origin: str, rules: SiteRules, seconds: float) -> None:
        """Keep rules for so long."""
        self._rules[origin] = (time.monotonic() + seconds, rules)
        if len(self._rules) > self._most:
            self._rules.popitem(last=False)


class Sites:
    """The rules of every origin that is met; several requests that want the same ones wait for one fetch of them."""

    def __init__(self, config: FetchConfig, get: Get, cache: RulesCache):
        self._config = config
        self._get = get
        self._cache = cache
        self._asked: dict[str, asyncio.Task[SiteRules]] = {}

    async def rules(self, url: URL) -> SiteRules:
        """What the site of this URL allows. Raises FetchError where not even its address is known or permitted."""
        origin = str(url.origin())
        known = self._cache.get(origin)
        if known is not None:
            return known
        if origin not in self._asked:
            task = asyncio.ensure_future(self._ask(url.origin()))
            self._asked[origin] = task
            task.add_done_callback(lambda _: self._asked.pop(origin, None))
        return await asyncio.shield(self._asked[origin])

    def cancel(self) -> None:
        """Stop all that is under way."""
        for task in list(self._asked.values()):
            task.cancel()

    async def _ask(self, origin: URL) -> SiteRules:
        rules = SiteRules()
        try:
            await self._read(origin, rules)
        except FetchError as error:
            # Where the server itself is out of reach, so is what was wanted from it.
            away = error.reason in (reasons.CONNECT_FAILED, reasons.CONNECT_TIMEOUT, reasons.TLS, reasons.CIRCUIT_OPEN)
            rules.evidence.append(f"robots.txt: {error.reason}")
            return self._closed(origin, rules, error.reason if away else reasons.ROBOTS_UNREACHABLE, str(error))
        except Exception as error:  # a file that no parser can take must not be asked for with every request
            return self._closed(origin, rules, reasons.ROBOTS_UNREACHABLE, repr(error)[:200])
        self._cache.put(str(origin), rules, self._config.site_hours * 3600)
        return rules

    async def _read(self, origin: URL, rules: SiteRules) -> None:
        """Ask for a site's files and put together what they say. Raises FetchError where robots.txt cannot be had."""
        tokens = self._config.tokens()
        robots = rules.robots = Robots(await self._robots(origin, rules), tokens)
        if robots.crawl_delay > self._config.max_crawl_delay:
            rules.forbidden, rules.detail = reasons.CRAWL_DELAY, f"{robots.crawl_delay:g} s"
        wanted = self._config.site_files
        if "tdmrep.json" in wanted and (text := await self._file(origin, ".well-known/tdmrep.json", rules)):
            rules.tdm = tdm_rules(text)
        if "ai.txt" in wanted and (text := await self._file(origin, "ai.txt", rules)):
            rules.ai_txt = ai_txt(text, tokens)
        if "trust.txt" in wanted and (text := await self._file(origin, "trust.txt", rules)) and forbids_in_trust(text):
            rules.forbidden = "opted out: trust.txt"
        if "license" in wanted:
            licences = [await self._file(origin, name, rules) for name in robots.licences[:_MAX_LICENCES]]
            rules.licence = [rule for text in licences for rule in licence_rules(text, origin)]

    def _closed(self, origin: URL, rules: SiteRules, reason: str, detail: str) -> SiteRules:
        """All of a site is forbidden, for a while."""
        rules.forbidden, rules.detail = reason, f"robots.txt: {detail}"
        self._cache.put(str(origin), rules, _FAILED_SECONDS)
        return rules

    async def _robots(self, origin: URL, rules: SiteRules) -> str:
        """The text of robots.txt, empty where the site has none (any 4xx but 429). Raises FetchError: disallow all."""
        try:
            answer = await self._get(origin / "robots.txt", _ROBOTS, True)
        except FetchError as error:
            if error.reason in (reasons.ADDRESS, reasons.UNKNOWN_HOST):
                raise
            absent = 400 <= error.status < 500 and error.status != 429
            if not absent and error.reason not in (reasons.EMPTY, reasons.TOO_MANY_REDIRECTS):
                raise
            rules.evidence.append(f"robots.txt: {error.reason}")
            return ""
        rules.evidence.append("robots.txt")
        data = answer.data
        if len(data) == ROBOTS_BYTES:  # it goes on: half a line would say something else
            data = data[: max(data.rfind(b"\n"), data.rfind(b"\r")) + 1]
        return data.decode("utf-8", errors="replace").removeprefix("\ufeff")

    async def _file(self, origin: URL, name: str, rules: SiteRules) -> str:
        """The text of a further file, empty where there is none or it cannot be had."""
        try:
            answer = await self._get(origin.join(URL(name)), _FILE, False)
        except (FetchError, ValueError):
            return ""
        rules.evidence.append(name if len(name) < 80 else "license")
        return answer.data.decode("utf-8", errors="replace").removeprefix("\ufeff")
