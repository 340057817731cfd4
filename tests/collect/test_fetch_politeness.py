"""Servers are asked slowly, one by one where they wish so, and left alone where they say no."""

import asyncio
import itertools
import time
from email.utils import formatdate
from types import SimpleNamespace

import pytest
from aiohttp import web
from loopback import loopback

from crossgrain.collect.fetch import FetchConfig, Request, fetch_all
from crossgrain.collect.fetch.client import retry_after
from crossgrain.collect.fetch.politeness import ByteBudget, Lane, backoff
from crossgrain.collect.fetch.reasons import TRANSIENT, FetchError, of_status

JPEG = b"\xff\xd8 image"
NO_FILES = {"site_files": ()}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("CROSSGRAIN_TEST_ALLOW_LOOPBACK", "1")
    with loopback() as running:
        running.paths |= {"*": JPEG, "/robots.txt": (404, {}, b"")}
        yield running


def fetched(server, paths, host="127.0.0.1", **changes):
    config = server.config(**{**NO_FILES, **changes})
    return list(fetch_all([Request(server.url(p, host)) for p in paths], config, lookup=lambda _: ["127.0.0.1"]))


def gaps(server):
    """Seconds between two requests as they arrived."""
    times = [moment for moment, _ in server.times]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


@pytest.mark.parametrize("limit", ["domain", "address"])
def test_a_pause_between_two_requests_to_a_domain_and_to_an_address(server, limit):
    start = time.monotonic()
    fetched(server, [f"/{i}.jpg" for i in range(6)], **{f"{limit}_delay": 0.15})
    assert len(server.times) == 7 and time.monotonic() - start >= 6 * 0.15


def test_many_domains_on_one_server_share_its_limits_and_sites_of_one_domain_theirs(server):
    async def slow(request):
        await asyncio.sleep(0.05)
        return web.Response(body=JPEG, content_type="image/jpeg")

    server.paths["*"] = slow
    urls = [server.url(f"/{i}.jpg", f"site{i % 6}.example") for i in range(12)]
    config = server.config(address_concurrency=2, **NO_FILES)
    assert all(f.data == JPEG for f in fetch_all([Request(u) for u in urls], config, lookup=lambda _: ["127.0.0.1"]))
    assert server.most_at_once == 2
    server.most_at_once = 0
    urls = [server.url(f"/{i}.jpg", f"img{i % 6}.example.com") for i in range(12)]
    config = server.config(domain_concurrency=1, **NO_FILES)
    assert all(f.data == JPEG for f in fetch_all([Request(u) for u in urls], config, lookup=lambda _: ["127.0.0.1"]))
    assert server.most_at_once == 1


def test_a_crawl_delay_is_kept_or_the_site_left_alone(server):
    server.paths["/robots.txt"] = (
        200,
        {"Content-Type": "text/plain"},
        b"User-agent: *\nCrawl-delay: 0.2\nDisallow: /x",
    )
    start = time.monotonic()
    assert all(f.data == JPEG for f in fetched(server, ["/1.jpg", "/2.jpg", "/3.jpg", "/4.jpg"]))
    assert time.monotonic() - start >= 3 * 0.2
    found = fetched(server, ["/5.jpg"], max_crawl_delay=0.1)
    assert [(f.reason, f.transient) for f in found] == [("crawl delay too long", True)]


def test_retry_after_is_waited_for_by_all_of_a_domain(server):
    first = itertools.count()

    async def busy_once(request):
        if next(first) == 0:
            return web.Response(status=429, headers={"Retry-After": "1"})
        return web.Response(body=JPEG, content_type="image/jpeg")

    server.paths["*"] = busy_once
    found = fetched(server, [f"/{i}.jpg" for i in range(4)], domain_concurrency=1, retries=1, backoff_seconds=0.01)
    assert all(f.data == JPEG for f in found)
    pauses = gaps(server)
    assert max(pauses) > 0.9  # the others waited with it


def test_a_retry_after_of_a_day_is_not_waited_for(server):
    server.paths["*"] = (429, {"Retry-After": "86400"}, b"")
    found = fetched(server, [f"/{i}.jpg" for i in range(50)], retries=3, domain_concurrency=1)
    assert {f.reason for f in found} == {"too many requests", "host failed too often"}
    assert all(f.transient for f in found) and sum(server.asked.values()) == 2  # robots.txt and one image


def test_who_waited_through_a_pause_begins_one_by_one_after_it():
    async def main():
        lane, starts = Lane(4, 0.05, FetchConfig()), []

        async def ask():
            await lane.enter()
            starts.append(time.monotonic())

        tasks = [asyncio.create_task(ask()) for _ in range(4)]
        await asyncio.sleep(0.01)
        lane.failed(of_status(429, retry_after=0.4))
        await asyncio.gather(*tasks)
        return starts[1:]

    starts = asyncio.run(main())
    assert all(later - earlier > 0.04 for earlier, later in itertools.pairwise(starts))


@pytest.mark.parametrize("status", [403, 429, 500])
def test_the_circuit_opens_after_failures_in_a_row(server, status):
    server.paths["*"] = (status, {}, b"")
    changes = {"breaker_after": 5, "domain_concurrency": 1, "backoff_seconds": 0.001}
    found = fetched(server, [f"/{i}.jpg" for i in range(60)], **changes)
    assert sum(server.asked.values()) == 1 + 5
    assert sum(f.reason == "host failed too often" and f.transient for f in found) == 55


def test_a_success_closes_the_count_and_other_domains_go_on(server):
    turns = itertools.count()

    async def every_fifth_good(request):
        status = 200 if next(turns) % 5 == 4 or "other" in request.host else 403
        return web.Response(status=status, body=JPEG, content_type="image/jpeg")

    server.paths["*"] = every_fifth_good
    changes = {"breaker_after": 5, "domain_concurrency": 1}
    found = fetched(server, [f"/{i}.jpg" for i in range(40)], **changes)
    assert sum(f.data == JPEG for f in found) == 8 and sum(f.reason == "forbidden" for f in found) == 32
    server.paths["*"] = (403, {}, b"")
    paths = {"bad.example": 30, "good.example": 30}
    requests = [Request(server.url(f"/{i}.jpg", host)) for host, count in paths.items() for i in range(count)]

    async def by_host(request):
        return web.Response(status=403 if "bad" in request.host else 200, body=JPEG, content_type="image/jpeg")

    server.paths["*"] = by_host
    config = server.config(**changes, **NO_FILES)
    found = list(fetch_all(requests, config, lookup=lambda _: ["127.0.0.1"]))
    assert sum(f.data == JPEG for f in found) == 30
    assert sum(f.reason == "host failed too often" for f in found) == 25


def test_another_answer_between_two_failures_closes_the_count(server):
    server.paths |= {f"/{i}.jpg": (500 if i % 2 else 404, {}, b"") for i in range(30)}
    changes = {"breaker_after": 5, "domain_concurrency": 1, "backoff_seconds": 0.001}
    found = fetched(server, [f"/{i}.jpg" for i in range(30)], **changes)
    assert {f.reason for f in found} == {"not found", "server error"}


def test_after_its_pause_the_circuit_lets_one_try(monkeypatch):
    now = 100.0
    monkeypatch.setattr("crossgrain.collect.fetch.politeness.time", SimpleNamespace(monotonic=lambda: now))
    config = FetchConfig(breaker_after=3, breaker_seconds=60.0)

    async def refused(lane):
        await lane.enter()
        lane.failed(of_status(403))
        lane.leave()

    async def main():
        nonlocal now
        lane = Lane(1, 0.0, config)
        for _ in range(3):
            await refused(lane)
        with pytest.raises(FetchError, match="failed too often"):
            await lane.enter()
        now += 61.0
        await refused(lane)
        with pytest.raises(FetchError, match="failed too often"):
            await lane.enter()

    asyncio.run(main())


def test_backoff_doubles_with_jitter_up_to_its_limit():
    config = FetchConfig(backoff_seconds=2.0, max_backoff_seconds=30.0)
    assert [backoff(i, config, lambda: 0.5) for i in range(6)] == [2, 4, 8, 16, 30, 30]
    assert backoff(0, config, lambda: 0.0) == 1.0 and backoff(10_000, config, lambda: 1.0) == 45.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("120", 120), ("", 0), ("soon", 0), ("-5", 0), ("1e9", 0), ("9" * 400, 999_999_999), ("Thu, 99 Foo", 0)],
)
def test_retry_after_as_a_number(value, seconds):
    assert retry_after(value) == seconds


def test_retry_after_as_a_date():
    assert 50 < retry_after(formatdate(time.time() + 60, usegmt=True)) <= 60
    assert retry_after(formatdate(time.time() - 60, usegmt=True)) == 0


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_a_date_without_a_zone_is_utc(monkeypatch, zone):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert 50 < retry_after(time.strftime("%a %b %d %H:%M:%S %Y", time.gmtime(time.time() + 60))) <= 60
    finally:
        monkeypatch.undo()
        time.tzset()


def test_which_statuses_may_pass():
    transient = {
        status for status in (400, 401, 403, 404, 408, 410, 429, 451, 500, 503) if of_status(status).reason in TRANSIENT
    }
    assert transient == {408, 429, 500, 503}


def test_bytes_are_given_first_come_first_served_and_survive_cancellation():
    async def main():
        budget, order = ByteBudget(10), []

        async def want(amount, name):
            await budget.take(amount)
            order.append(name)

        await budget.take(8)
        tasks = [asyncio.create_task(want(*ask)) for ask in ((5, "large"), (1, "small"), (4, "last"))]
        await asyncio.sleep(0)
        assert order == []
        tasks[0].cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert order == ["small"]
        budget.give(8)
        await asyncio.sleep(0)
        assert order == ["small", "last"]
        budget.give(5)
        assert await asyncio.wait_for(budget.take(10), 1) == 0.0

    asyncio.run(main())


def test_a_wait_that_is_cancelled_costs_no_bytes():
    async def main():
        budget = ByteBudget(10)
        await budget.take(10)
        waiting = asyncio.create_task(budget.take(5))
        await asyncio.sleep(0)
        waiting.cancel()
        budget.give(10)  # before the task has heard of it
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await asyncio.wait_for(budget.take(10), 1) == 0.0

    asyncio.run(main())


def test_bodies_that_grow_do_not_wait_for_each_other():
    async def body(budget, done):
        await budget.take(1)
        await asyncio.sleep(0)
        await budget.take(3, more=True)
        budget.give(4)
        done.append(4)

    async def main():
        budget, done = ByteBudget(8, to_grow=4), []
        await asyncio.wait_for(asyncio.gather(*(body(budget, done) for _ in range(20))), 5)
        assert len(done) == 20

    asyncio.run(main())


def test_a_crawl_delay_is_shared_among_those_who_ask_at_once(server):
    server.paths["/robots.txt"] = (
        200,
        {"Content-Type": "text/plain"},
        b"User-agent: *\nCrawl-delay: 0.1\nDisallow: /x",
    )
    found = list(
        fetch_all([Request(server.url(f"/{i}.jpg")) for i in range(3)], server.config(**NO_FILES).for_one_of(3))
    )
    assert all(f.data == JPEG for f in found) and min(gaps(server)[1:]) > 0.25


def test_several_processes_keep_to_the_limits_of_one():
    each = FetchConfig(domain_concurrency=4, domain_delay=0.25, address_concurrency=2, address_delay=0.1).for_one_of(4)
    assert (each.domain_concurrency, each.domain_delay, each.address_concurrency, each.address_delay) == (
        1,
        1.0,
        1,
        0.4,
    )
    assert FetchConfig().for_one_of(1) == FetchConfig()
