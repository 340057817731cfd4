"""Which URLs and addresses may be fetched: public ones, checked before and again while connecting.

URLs come from strangers' pages. A name is resolved once, every address that it has must be public, and connections go
to the addresses that were checked (a name that later points inside reaches nothing).
"""

import asyncio
import contextlib
import functools
import re
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from crossgrain.collect.domains import registrable_domain
from crossgrain.collect.fetch import reasons
from crossgrain.collect.fetch.reasons import FetchError
from crossgrain.collect.pages import urls

Address = IPv4Address | IPv6Address
Lookup = Callable[[str], Sequence[str]]  # host name -> addresses; raises OSError

_MAX_URL = 4096  # characters
_HOST = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")  # after IDNA
# Routed like public ones, and yet not for us: relays, and what clouds answer their own machines on.
_NOT_OURS_4 = tuple(IPv4Network(net) for net in ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32"))
_GLOBAL_6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_NOT_OURS_6 = tuple(IPv6Network(net) for net in ("2001::/32", "2001:db8::/32", "3fff::/20"))  # Teredo, documentation


def is_public(address: Address, allow_loopback: bool = False) -> bool:
    """Whether an address lies in the public internet, IPv4 addresses inside IPv6 ones included."""
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return False
        inner = _inner(address)
        if inner is not None:
            return is_public(inner, allow_loopback)
        if address.is_loopback:
            return allow_loopback
        return address in _GLOBAL_6 and address.is_global and not any(address in net for net in _NOT_OURS_6)
    if address.is_loopback:
        return allow_loopback
    inside = address.is_multicast or address.is_reserved or address.is_unspecified
    return address.is_global and not inside and not any(address in net for net in _NOT_OURS_4)


@functools.lru_cache(maxsize=65536)
def _text_is_public(text: str, allow_loopback: bool) -> bool:
    return is_public(ip_address(text), allow_loopback)


def _inner(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for: mapped, 6to4, NAT64, IPv4-compatible or ISATAP."""
    if address.ipv4_mapped or address.sixtofour:
        return address.ipv4_mapped or address.sixtofour
    low = int(address) & 0xFFFFFFFF
    if address in _NAT64 or (int(address) >> 32 == 0 and low > 1) or (int(address) >> 32) & 0xFDFFFFFF == 0x5EFE:
        return IPv4Address(low)
    return None


@functools.lru_cache(maxsize=65536)
def literal_address(host: str) -> Address | None:
    """The address that a host part writes out, as browsers read it (`127.1`, `0x7f000001`, `2130706433`), or None.

    Raises FetchError for a number that is no address.
    """
    if ":" in host:
        try:
            return ip_address(host.strip("[]"))
        except ValueError:
            raise FetchError(reasons.BAD_URL, "no IPv6 address") from None
    parts = host.rstrip(".").split(".")
    if not re.fullmatch(r"\d+|0x[0-9a-f]*", parts[-1]):
        return None
    try:
        *first, last = (_number(part) for part in parts)
    except ValueError:
        raise FetchError(reasons.BAD_URL, "no IPv4 address") from None
    if len(first) > 3 or any(number > 255 for number in first) or last >= 256 ** (4 - len(first)):
        raise FetchError(reasons.BAD_URL, "no IPv4 address")
    return IPv4Address(sum(number << (24 - 8 * i) for i, number in enumerate(first)) + last)


def _number(part: str) -> int:
    if part.startswith("0x"):
        return int(part[2:] or "0", 16)
    return int(part, 8 if part.startswith("0") else 10)


def check_url(text: str | URL, ports: Collection[int], allow_loopback: bool = False) -> URL:
    """The URL as it will be asked for, or FetchError. A name's addresses are checked later, when it is resolved."""
    if len(str(text)) > _MAX_URL:
        raise FetchError(reasons.BAD_URL, f"more than {_MAX_URL} characters")
    try:
        url = text if isinstance(text, URL) else URL(text.strip())
        host = url.raw_host
        if host and isinstance(text, str) and (written := urls.normalise(text)):
            url = URL(written, encoded=True)  # which escapes stand in a path is the server's business
            url = url if url.raw_host == host else url.with_host(host)
        port = url.port
    except (ValueError, UnicodeError) as error:
        raise FetchError(reasons.BAD_URL, str(error)[:200]) from None
    if url.scheme not in ("http", "https"):
        raise FetchError(reasons.SCHEME, url.scheme[:20])
    if url.raw_user is not None or url.raw_password is not None:
        raise FetchError(reasons.CREDENTIALS)
    if not host:
        raise FetchError(reasons.BAD_URL, "no host")
    if port not in ports:
        raise FetchError(reasons.PORT, str(port))
    address = literal_address(host.lower())
    if address is None:
        if not _HOST.fullmatch(host.lower().rstrip(".")) or len(host) > 253:
            raise FetchError(reasons.BAD_URL, "no host name")
        return url.with_fragment(None)
    if not is_public(address, allow_loopback):
        raise FetchError(reasons.ADDRESS, str(address))
    plain = str(address)
    return (url if host == plain else url.with_host(plain)).with_fragment(None)


def check_redirect(url: URL, location: str, ports: Collection[int], allow_loopback: bool = False) -> URL:
    """Where an answer sends us on from `url`, checked like any other. Raises FetchError."""
    return check_url(urls.Resolver(str(url)).resolve(location) or location, ports, allow_loopback)


@functools.lru_cache(maxsize=65536)
def owner_of(host: str) -> str:
    """The registrable domain of a host: what its owner's limits are counted by."""
    return registrable_domain(f"http://[{host}]/" if ":" in host else f"http://{host}/")


def address_group(address: str) -> str:
    """What counts as one server in the limits per address: an IPv4 address, or an IPv6 network of 64 bits."""
    if ":" not in address:
        return address
    return str(IPv6Network((int(IPv6Address(address)) >> 64 << 64, 64)))


def system_lookup(host: str) -> Sequence[str]:
    """The addresses of a name as the operating system knows them."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


class Resolver(AbstractResolver):
    """Names to checked addresses, kept for `seconds`; the connector gets the same ones and no others."""

    def __init__(
        self, lookup: Lookup, *, allow_loopback: bool, timeout: float, seconds: float = 300.0, most: int = 65536
    ):
        self._lookup = lookup
        self._allow_loopback = allow_loopback
        self._timeout = timeout
        self._seconds = seconds
        self._most = most
        self._known: OrderedDict[str, tuple[float, tuple[str, ...] | FetchError]] = OrderedDict()
        self._asked: dict[str, asyncio.Future[tuple[str, ...]]] = {}
        self._slots = asyncio.Semaphore(32)

    async def addresses(self, host: str) -> tuple[str, ...]:
        """The addresses of a host, all of them public. Raises FetchError."""
        literal = literal_address(host)
        if literal is not None:
            return self._checked([str(literal)])
        known = self._known.get(host)
        if known is None or known[0] < time.monotonic():
            if host not in self._asked:
                self._asked[host] = asyncio.ensure_future(self._resolve(host))
                self._asked[host].add_done_callback(lambda _: self._asked.pop(host, None))
            return await asyncio.shield(self._asked[host])
        if isinstance(known[1], FetchError):
            raise FetchError(known[1].reason, known[1].detail)
        return known[1]

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """aiohttp's view of `addresses`."""
        try:
            found = await self.addresses(host)
        except FetchError as error:
            raise OSError(error.reason) from error
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in found
        ]

    def open_socket(self, info: tuple[Any, ...]) -> socket.socket:
        """A socket for one connection: whatever led here, the address that it goes to is looked at once more."""
        family, kind, protocol, _, target = info
        self._checked([str(target[0])])
        return socket.socket(family=family, type=kind, proto=protocol)

    async def close(self) -> None:
        """Forget what is known; lookups that still run are left to end by themselves."""
        for asked in list(self._asked.values()):
            asked.cancel()
        self._known.clear()

    async def _resolve(self, host: str) -> tuple[str, ...]:
        answer: tuple[str, ...] | FetchError
        async with self._slots:
            try:
                found = await asyncio.wait_for(_in_thread(self._lookup, host), self._timeout)
                answer = self._checked(found)
            except TimeoutError:
                answer = FetchError(reasons.NAME_SERVER, "timeout")
            except FetchError as error:
                answer = error
            except socket.gaierror as error:
                gone = error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None))
                answer = FetchError(reasons.UNKNOWN_HOST if gone else reasons.NAME_SERVER, str(error.strerror))
            except (OSError, UnicodeError) as error:
                answer = FetchError(reasons.UNKNOWN_HOST, str(error)[:200])
        # What failed for now is asked again soon, yet not once for each of a thousand URLs of one dead host.
        lasting = not isinstance(answer, FetchError) or answer.reason not in reasons.TRANSIENT
        self._known[host] = (time.monotonic() + (self._seconds if lasting else min(self._seconds, 5.0)), answer)
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        if isinstance(answer, FetchError):
            raise answer
        return answer

    def _checked(self, found: Sequence[str]) -> tuple[str, ...]:
        if not found:
            raise FetchError(reasons.UNKNOWN_HOST, "no address")
        for text in found:
            if not _text_is_public(text, self._allow_loopback):
                raise FetchError(reasons.ADDRESS, text)
        return tuple(found)


def _in_thread(lookup: Lookup, host: str) -> asyncio.Future[Sequence[str]]:
    """A lookup in a thread that nobody waits for at exit: an unresponsive name server must not hold the run."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Sequence[str]] = loop.create_future()

    def settle(answer: Sequence[str] | BaseException) -> None:
        if not future.done():
            _ = future.set_exception(answer) if isinstance(answer, BaseException) else future.set_result(answer)

    def work() -> None:
        answer: Sequence[str] | BaseException
        try:
            answer = lookup(host)
        except Exception as error:  # handed to whoever waits
            answer = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, answer)

    threading.Thread(target=work, daemon=True, name="name lookup").start()
    return future
