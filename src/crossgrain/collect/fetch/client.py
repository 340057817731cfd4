"""One request, one answer: every limit on its bytes and its time is kept while it streams. Redirects are not followed.

No cookies, no credentials, no proxy from the environment, TLS verified, no encoding asked for; what a server encodes
all the same is unpacked here, and its decoded bytes are counted as they come.
"""

import asyncio
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

import aiohttp
from yarl import URL

from crossgrain.collect.fetch import reasons
from crossgrain.collect.fetch.addresses import Resolver
from crossgrain.collect.fetch.config import FetchConfig
from crossgrain.collect.fetch.politeness import ByteBudget
from crossgrain.collect.fetch.reasons import FetchError

REDIRECTS = frozenset({301, 302, 303, 307, 308})
_GZIP = b"\x1f\x8b"
_STEP = 2**20  # bytes reserved for a body whose length is not said, before the largest allowed one is


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server said: a redirect has a `location` and no data."""

    status: int
    headers: Mapping[str, str]
    data: bytes = b""
    location: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an answer may be: its size in bytes, decoded, and its content types (of none said: True)."""

    max_bytes: int
    accept: str
    allows: Callable[[str], bool]
    lenient: bool = False  # every 2xx status is a success, and of what is too long the beginning is kept


class Client:
    """Asks servers, with the limits of a FetchConfig. One event loop."""

    def __init__(self, config: FetchConfig, resolver: Resolver, budget: ByteBudget):
        self._config = config
        self._budget = budget
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=resolver,
                socket_factory=resolver.open_socket,
                use_dns_cache=False,
                limit=config.concurrency,
                keepalive_timeout=10.0,
            ),
            headers={"User-Agent": config.user_agent, "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            raise_for_status=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=config.connect_seconds),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def get(self, url: URL, wanted: Wanted, seconds: float) -> Answer:
        """Ask for a URL that was checked; `seconds` is all the time that it may take.

        The bytes of `data` stay reserved in the budget until they are given back. Raises FetchError, also for every
        status that is neither success nor a redirect.
        """
        async with self._limited(seconds) as deadline, self._open(url, {"Accept": wanted.accept}) as response:
            return await self._read(response, wanted, deadline)

    @asynccontextmanager
    async def open(self, url: URL, headers: Mapping[str, str], seconds: float) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer before its body is read, for so many seconds. Raises FetchError, inside the block too."""
        async with self._limited(seconds), self._open(url, headers) as response:
            yield response

    def _open(self, url: URL, headers: Mapping[str, str]) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._session.get(url, allow_redirects=False, headers=headers)

    @asynccontextmanager
    async def _limited(self, seconds: float) -> AsyncIterator[asyncio.Timeout]:
        """A time limit, and FetchError for whatever aiohttp raises within it."""
        try:
            async with asyncio.timeout(seconds) as deadline:
                yield deadline
        except TimeoutError as error:
            connecting = isinstance(error, aiohttp.ConnectionTimeoutError)
            raise FetchError(reasons.CONNECT_TIMEOUT if connecting else reasons.TIMEOUT) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _as_fetch_error(error) from None

    async def _read(self, response: aiohttp.ClientResponse, wanted: Wanted, deadline: asyncio.Timeout) -> Answer:
        headers = joined_headers(response.headers.items())
        status = response.status
        location = headers.get("location", "").partition("\n")[0].strip()
        if status in REDIRECTS and location:
            # What stands in its body is not read: the connection closes with it.
            return Answer(status=status, headers=headers, location=location)
        if status != 200 and not (wanted.lenient and 200 < status < 300):
            raise reasons.of_status(status, retry_after(headers.get("retry-after", "")))
        kind = headers.get("content-type", "").split(";")[0].strip().lower()
        if not wanted.allows(kind):
            raise FetchError(reasons.CONTENT_TYPE, kind[:80], status=status)
        length = response.content_length
        if length is not None and length > wanted.max_bytes and not wanted.lenient:
            raise FetchError(reasons.TOO_MANY_BYTES, f"{length:,} bytes announced", status=status)
        encoding = headers.get("content-encoding", "").strip().lower()
        inflater = None if encoding in ("", "identity") else _Inflater(encoding)
        reserved = 0

        async def reserve(amount: int) -> None:
            nonlocal reserved
            when = deadline.when()
            deadline.reschedule(None)  # the server does not answer for what waits for us
            waited = await self._budget.take(amount, more=reserved > 0)
            reserved += amount
            deadline.reschedule(None if when is None else when + waited)

        try:
            await reserve(min(_STEP if length is None or inflater else length, wanted.max_bytes))
            parts: list[bytes] = []
            size = received = 0
            cut = False
            start = time.monotonic()
            while not cut and (chunk := await response.content.readany()):
                received += len(chunk)
                for part in (chunk,) if inflater is None else inflater.pieces(chunk):
                    size += len(part)
                    if size > wanted.max_bytes:
                        if not wanted.lenient:
                            raise FetchError(reasons.TOO_MANY_BYTES, f"more than {wanted.max_bytes:,}", status=status)
                        cut, part, size = True, part[: wanted.max_bytes - size], wanted.max_bytes
                    if size > reserved:
                        before = time.monotonic()
                        await reserve(wanted.max_bytes - reserved)
                        start += time.monotonic() - before
                    parts.append(part)
                    if cut:
                        break
                seconds = time.monotonic() - start
                if inflater is not None and (inflater.over or received > wanted.max_bytes):
                    break
                if seconds > self._config.grace_seconds and received < self._config.min_rate * seconds:
                    raise FetchError(reasons.TOO_SLOW, f"{received:,} bytes in {seconds:.1f} s", status=status)
            if inflater is not None and not inflater.whole and not cut:
                raise FetchError(reasons.TRUNCATED, "packed body", status=status)
            if not size:
                raise FetchError(reasons.EMPTY, status=status)
            self._budget.give(reserved - size)
            return Answer(status=status, headers=headers, data=b"".join(parts))
        except BaseException:
            self._budget.give(reserved)
            raise


def joined_headers(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by lower-case name; several of one name are joined by line breaks, which no value can hold."""
    headers: dict[str, str] = {}
    for name, value in pairs:
        name = name.lower()
        headers[name] = f"{headers[name]}\n{value}" if name in headers else value
    return headers


def retry_after(value: str) -> float:
    """Seconds that a Retry-After header asks for (a number or a date); 0 where it says nothing that can be read."""
    value = value.split("\n")[0].strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        when = parsedate_to_datetime(value)  # without a time zone in one of its three forms, and UTC in all of them
        return max((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return 0.0


class _Inflater:
    """Unpacks a body in small pieces: a chunk may hold a thousand times its size, and the caller may stop at any."""

    def __init__(self, encoding: str):
        if encoding not in ("gzip", "x-gzip", "deflate"):
            raise FetchError(reasons.CONTENT_ENCODING, encoding[:40])
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)  # by its header: gzip or zlib
        self._may_be_raw = encoding == "deflate"  # as some servers understand the word
        self.over = False  # what follows is no part of the body

    @property
    def whole(self) -> bool:
        """Whether nothing is missing from the packed body. More may follow: gzip has members, one after the other."""
        return self._inflate.eof

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """The decoded bytes of the next chunk."""
        while chunk and not self.over:
            if self._inflate.eof:
                self.over = not chunk.startswith(_GZIP[: len(chunk)])
                self._inflate = self._inflate if self.over else zlib.decompressobj(zlib.MAX_WBITS | 16)
                continue
            try:
                part = self._inflate.decompress(chunk, 65536)
            except zlib.error as error:
                if not self._may_be_raw:
                    raise FetchError(reasons.BAD_RESPONSE, str(error)) from None
                self._inflate, part = zlib.decompressobj(-zlib.MAX_WBITS), b""
            else:
                chunk = self._inflate.unused_data or self._inflate.unconsumed_tail
            self._may_be_raw = False
            if part:
                yield part


def _as_fetch_error(error: Exception) -> FetchError:
    detail = (str(error) or type(error).__name__)[:200]
    cause = error.__cause__
    while cause is not None and not isinstance(cause, FetchError):
        cause = cause.__cause__
    if isinstance(cause, FetchError):
        return cause
    kinds: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
        ((aiohttp.ClientSSLError, ssl.SSLError, ssl.CertificateError), reasons.TLS),
        (aiohttp.ClientConnectorDNSError, reasons.NAME_SERVER),
        (aiohttp.ClientConnectorError, reasons.CONNECT_FAILED),
        (aiohttp.ClientPayloadError, reasons.TRUNCATED),
        (aiohttp.InvalidURL, reasons.BAD_URL),
        (aiohttp.ClientResponseError, reasons.BAD_RESPONSE),
        ((aiohttp.ServerDisconnectedError, aiohttp.ClientConnectionError, OSError), reasons.CONNECTION_LOST),
    )
    return FetchError(next((word for kind, word in kinds if isinstance(error, kind)), reasons.BAD_RESPONSE), detail)
