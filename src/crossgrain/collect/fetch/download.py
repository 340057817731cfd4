"""Download one large file that the operator names, such as a WARC: straight to disk, whole or not at all."""

import asyncio
import os
import time
from pathlib import Path

from crossgrain.collect.fetch import reasons
from crossgrain.collect.fetch.addresses import Lookup, Resolver, check_redirect, check_url, system_lookup
from crossgrain.collect.fetch.client import REDIRECTS, Client, retry_after
from crossgrain.collect.fetch.config import FetchConfig, loopback_allowed
from crossgrain.collect.fetch.politeness import ByteBudget, backoff
from crossgrain.collect.fetch.reasons import FetchError

_STALL_SECONDS = 60.0  # without a byte


def fetch_file(
    url: str,
    path: Path,
    config: FetchConfig,
    *,
    max_bytes: int = 8 * 2**30,
    lookup: Lookup = system_lookup,
) -> int:
    """Write what lies at `url` to `path` and return its size in bytes; a `path` that exists is left as it is.

    The addresses are checked as for everything else; robots.txt is not asked, as nobody's page led here. A download
    that breaks off goes on where it stopped. Raises FetchError, and UserError where the configuration names no contact.
    """
    config.check_contact()
    if path.exists():
        return path.stat().st_size
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        asyncio.run(_download(url, partial, config, max_bytes, lookup))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path.stat().st_size


async def _download(url: str, path: Path, config: FetchConfig, max_bytes: int, lookup: Lookup) -> None:
    resolver = Resolver(lookup, allow_loopback=loopback_allowed(), timeout=2 * config.connect_seconds)
    client = Client(config, resolver, ByteBudget(config.max_bytes_in_flight))
    end = time.monotonic() + config.deadline
    try:
        for attempt in range(config.retries + 1):
            try:
                await _attempt(url, path, config, max_bytes, client, end)
                return
            except FetchError as error:
                wait = max(error.retry_after, backoff(attempt, config))
                again = error.reason in reasons.ASKED_AGAIN or error.reason in (reasons.TOO_SLOW, reasons.TIMEOUT)
                if attempt == config.retries or not again or time.monotonic() + wait > end:
                    raise
                await asyncio.sleep(wait)
    finally:
        await client.close()
        await resolver.close()


async def _attempt(url: str, path: Path, config: FetchConfig, max_bytes: int, client: Client, end: float) -> None:
    target = check_url(url, config.ports, loopback_allowed())
    for _ in range(config.max_redirects + 1):
        have = path.stat().st_size if path.exists() else 0
        headers = {"Range": f"bytes={have}-"} if have else {}
        async with client.open(target, headers, max(end - time.monotonic(), 0.001)) as response:
            if response.status in REDIRECTS and (location := response.headers.get("Location", "").strip()):
                target = check_redirect(target, location, config.ports, loopback_allowed())
                continue
            resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            if response.status != 200 and not resumed:
                raise reasons.of_status(response.status, retry_after(response.headers.get("Retry-After", "")))
            size = have if resumed else 0
            if size + (response.content_length or 0) > max_bytes:
                raise FetchError(reasons.TOO_MANY_BYTES, f"{response.content_length:,} bytes announced")
            with path.open("ab" if resumed else "wb") as file:
                while chunk := await asyncio.wait_for(response.content.readany(), _STALL_SECONDS):
                    size += len(chunk)
                    if size > max_bytes:
                        raise FetchError(reasons.TOO_MANY_BYTES, f"more than {max_bytes:,}")
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            return
    raise FetchError(reasons.TOO_MANY_REDIRECTS, f"more than {config.max_redirects}")
