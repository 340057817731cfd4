"""Many requests at once: all are answered, in bounded time and memory, whatever the servers and the caller do."""

import asyncio
import gzip
import hashlib
import itertools
import socket
import threading
import time
import zlib

import pytest
from aiohttp import web
from loopback import loopback
from yarl import URL

from crossgrain.collect.fetch import FetchConfig, Request, fetch_all, fetch_file
from crossgrain.collect.fetch.feed import Feed
from crossgrain.collect.fetch.reasons import FetchError
from crossgrain.collect.fetch.sites import RulesCache
from crossgrain.collect.images.blocklist import Blocklist, BlocklistConfig
from crossgrain.config import RecipeError, read_config

JPEG = b"\xff\xd8 image"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("CROSSGRAIN_TEST_ALLOW_LOOPBACK", "1")
    with loopback() as running:
        running.paths["*"] = JPEG
        running.paths |= {path: (404, {}, b"") for path in ("/robots.txt", "/ai.txt", "/trust.txt")}
        running.paths["/.well-known/tdmrep.json"] = (404, {}, b"")
        yield running


def test_every_request_is_answered_once_and_site_files_are_asked_for_once(server):
    urls = [server.url(f"/{i}.jpg") for i in range(700)]
    found = list(fetch_all((Request(url) for url in urls), server.config()))
    assert sorted(fetched.request.url for fetched in found) == sorted(urls)
    assert all(fetched.data == JPEG and fetched.status == 200 and not fetched.reason for fetched in found)
    assert {server.asked[path] for path in ("/robots.txt", "/ai.txt", "/trust.txt", "/.well-known/tdmrep.json")} == {1}
    assert {fetched.evidence for fetched in found} == {("robots.txt: not found", "headers", "embedded")}
    assert server.most_at_once <= 64


def test_who_asks_is_said_honestly(server):
    config = server.config(contact="https://example.com/bot")
    assert next(fetch_all([Request(server.url("/a.jpg"))], config)).data == JPEG
    for headers in server.requests:
        assert headers["User-Agent"].startswith("crossgrain/") and "(+https://example.com/bot)" in headers["User-Agent"]
        assert headers["Accept-Encoding"] == "identity"
        assert not {"Cookie", "Referer", "Authorization", "X-Forwarded-For"} & set(headers)


def test_no_proxy_and_no_cookies(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    server.paths["/a.jpg"] = (200, {"Content-Type": "image/jpeg", "Set-Cookie": "id=1"}, JPEG)
    for _ in fetch_all([Request(server.url("/a.jpg")), Request(server.url("/b.jpg"))], server.config(concurrency=1)):
        pass
    assert server.asked["/a.jpg"] == server.asked["/b.jpg"] == 1
    assert not any("Cookie" in headers for headers in server.requests)


def test_redirects_are_followed_three_times(server):
    for i in range(4):
        server.paths[f"/hop{i}"] = (301 + i % 2, {"Location": f"hop{i + 1}" if i < 3 else "/end.jpg"}, b"ignored")
    found = {f.request.url: f for f in fetch_all([Request(server.url(f"/hop{i}")) for i in (0, 1)], server.config())}
    assert found[server.url("/hop1")].data == JPEG
    assert found[server.url("/hop1")].final_url == server.url("/end.jpg")
    assert found[server.url("/hop0")].reason == "too many redirects"


def test_robots_are_asked_at_each_hop(server):
    server.paths["/robots.txt"] = (200, {"Content-Type": "text/plain"}, b"User-agent: *\nDisallow: /closed/*.jpg$")
    server.paths["/open"] = (302, {"Location": "/closed/a.jpg"}, b"")
    urls = [server.url("/closed/a.jpg"), server.url("/open")]
    found = list(fetch_all([Request(url) for url in urls], server.config()))
    assert {fetched.reason for fetched in found} == {"opted out: robots.txt"} and not server.asked["/closed/a.jpg"]
    assert all(
        fetched.evidence == ("robots.txt", "robots.txt") or "robots.txt" in fetched.evidence for fetched in found
    )


def test_a_gzip_body_is_unpacked_though_none_was_asked_for(server):
    body = JPEG * 1000
    server.paths["/a.jpg"] = (200, {"Content-Type": "image/jpeg", "Content-Encoding": "gzip"}, gzip.compress(body))
    assert next(fetch_all([Request(server.url("/a.jpg"))], server.config())).data == body


def packed_raw(body: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflate.compress(body) + deflate.flush()


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", lambda body: gzip.compress(body[:500]) + gzip.compress(body[500:])),
        ("gzip", lambda body: gzip.compress(body) + bytes(100)),
        ("deflate", zlib.compress),
        ("deflate", packed_raw),
    ],
)
def test_packed_bodies_of_every_form_are_unpacked_whole(server, encoding, pack):
    body = JPEG * 1000
    server.paths["/a.jpg"] = (200, {"Content-Type": "image/jpeg", "Content-Encoding": encoding}, pack(body))
    assert next(fetch_all([Request(server.url("/a.jpg"))], server.config())).data == body


def test_a_last_member_that_is_cut_is_told(server):
    body = gzip.compress(JPEG) + gzip.compress(JPEG * 1000)[:-9]
    server.paths["/a.jpg"] = (200, {"Content-Type": "image/jpeg", "Content-Encoding": "gzip"}, body)
    assert next(fetch_all([Request(server.url("/a.jpg"))], server.config())).reason == "truncated body"


@pytest.mark.parametrize("redirected", [False, True])
@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("/fetch/https%3A%2F%2Fe.org%2Fi.jpg", "/fetch/https%3A%2F%2Fe.org%2Fi.jpg"),
        ("/x%2Cy%40z%21.jpg?u=https%3A%2F%2Fx.org%2fb", "/x%2Cy%40z%21.jpg?u=https%3A%2F%2Fx.org%2fb"),
        ("/ä b.jpg?ö=ü", "/%C3%A4%20b.jpg?%C3%B6=%C3%BC"),
        ("/a/../b/./c.jpg#part", "/b/c.jpg"),
    ],
)
def test_a_url_is_asked_for_as_it_is_written(server, written, asked, redirected):
    async def record(request):
        if request.path == "/start":
            raise web.HTTPFound(URL(written, encoded=True))
        seen.append(request.raw_path)
        return web.Response(body=JPEG, content_type="image/jpeg")

    seen = []
    server.paths["*"] = record
    found = next(fetch_all([Request(server.url("/start" if redirected else written))], server.config(site_files=())))
    assert (found.data, found.final_url, seen) == (JPEG, server.url(asked), [asked])


def test_a_redirect_without_an_address_is_no_success(server):
    server.paths["/a.jpg"] = (302, {"Location": ""}, b"")
    found = next(fetch_all([Request(server.url("/a.jpg"))], server.config()))
    assert (found.reason, found.data, found.transient) == ("bad response", None, False)


def listed(folder, **contents) -> Blocklist:
    """A block list of these URLs and files."""
    lists = {}
    for name, content in contents.items():
        (folder / name).write_text(f"{hashlib.md5(content).hexdigest()}\n")
        lists[name] = (folder / name,)
    return Blocklist(BlocklistConfig(**lists))


def test_a_redirect_to_a_url_on_the_block_list_is_not_followed(server, tmp_path):
    server.paths["/a.jpg"] = (302, {"Location": "/listed.jpg"}, b"")
    blocklist = listed(tmp_path, url_hashes=server.url("/listed.jpg").encode())
    found = next(fetch_all([Request(server.url("/a.jpg"))], server.config(), blocklist=blocklist))
    assert (found.reason, found.data, server.asked["/listed.jpg"]) == ("on a block list", None, 0)
    assert found.detail.startswith("md5 ") and not found.transient


def test_a_file_on_the_block_list_is_refused_as_that_whatever_it_says_itself(server, tmp_path):
    body = b'\xff\xd8 plus:DataMining="DMI-PROHIBITED"'
    server.paths["/a.jpg"] = body
    assert next(fetch_all([Request(server.url("/a.jpg"))], server.config())).reason.startswith("opted out: IPTC")
    blocklist = listed(tmp_path, file_hashes=body)
    found = next(fetch_all([Request(server.url("/a.jpg"))], server.config(), blocklist=blocklist))
    assert (found.reason, found.data) == ("on a block list", None)


def test_pages_have_their_own_types(server):
    server.paths["/page"] = (200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>")
    asked = [Request(server.url("/page"), "page"), Request(server.url("/a.jpg"), "page")]
    found = {fetched.request.url: fetched for fetched in fetch_all(asked, server.config())}
    assert found[server.url("/page")].data == b"<html>"
    assert found[server.url("/a.jpg")].reason == "content type not wanted"


def test_the_lot_ends_at_its_deadline_with_everything_accounted_for(server):
    over = threading.Event()

    async def slow(request):
        while not over.is_set():
            await asyncio.sleep(0.02)
        return web.Response()

    server.paths["*"] = slow
    urls = [server.url(f"/{i}.jpg") for i in range(9000)]
    found = list(fetch_all((Request(url) for url in urls), server.config(deadline=1.5, concurrency=8)))
    over.set()
    assert sorted(fetched.request.url for fetched in found) == sorted(urls)
    assert {(fetched.reason, fetched.transient) for fetched in found} == {("shard deadline", True)}


def test_a_caller_who_leaves_early_or_stops_is_not_waited_for(server):
    endless = (Request(server.url(f"/{i}.jpg")) for i in itertools.count())
    assert len(list(itertools.islice(fetch_all(endless, server.config()), 50))) == 50

    def broken():
        yield Request(server.url("/a.jpg"))
        raise OSError("the list of URLs ended badly")

    with pytest.raises(OSError, match="ended badly"):
        list(fetch_all(broken(), server.config()))
    assert not [thread for thread in threading.enumerate() if thread.name == "fetcher"]


def test_bodies_in_flight_are_bounded_while_the_caller_is_slow(server):
    body = b"\xff\xd8" + bytes(2**20 - 2)
    server.paths["*"] = body
    config = server.config(max_image_bytes=2**20, max_page_bytes=2**20, max_bytes_in_flight=4 * 2**20)
    fetching = fetch_all((Request(server.url(f"/{i}.jpg")) for i in range(24)), config)
    assert next(fetching).data == body
    time.sleep(1.0)
    images = sum(count for path, count in server.asked.items() if path.endswith(".jpg"))
    answered = 1 + sum(fetched.data == body for fetched in fetching)
    assert answered == 24
    assert images <= 24  # asked for at once, yet not read: the budget is below


def test_a_slow_caller_is_no_fault_of_the_server(server):
    body = b"\xff\xd8" + bytes(3 * 2**19)

    async def unsaid_length(request):
        response = web.StreamResponse(headers={"Content-Type": "image/jpeg"})
        await response.prepare(request)
        await response.write(body)
        return response

    server.paths["*"] = unsaid_length
    limits = {"max_image_bytes": 2**21, "max_page_bytes": 2**20, "max_bytes_in_flight": 2**22, "concurrency": 8}
    found = []
    for fetched in fetch_all(
        (Request(server.url(f"/{i}.jpg")) for i in range(12)), server.config(**limits, total_seconds=2.0)
    ):
        found.append(fetched.reason or fetched.data == body)
        time.sleep(0.3)
    assert found == [True] * 12


def test_what_fails_for_now_is_asked_again_and_told_from_what_fails_for_good(server):
    times = itertools.count()

    async def busy_twice(request):
        return web.Response(status=503) if next(times) < 2 else web.Response(body=JPEG, content_type="image/jpeg")

    server.paths |= {"/busy.jpg": busy_twice, "/gone.jpg": (410, {}, b""), "/down.jpg": (500, {}, b"")}
    urls = [server.url(path) for path in ("/busy.jpg", "/gone.jpg", "/down.jpg")]
    config = server.config(retries=2, backoff_seconds=0.01)
    found = {fetched.request.url: fetched for fetched in fetch_all([Request(url) for url in urls], config)}
    busy, gone, down = (found[url] for url in urls)
    assert busy.data == JPEG and server.asked["/busy.jpg"] == 3
    assert (gone.reason, gone.transient, server.asked["/gone.jpg"]) == ("not found", False, 1)
    assert (down.reason, down.transient, server.asked["/down.jpg"]) == ("server error", True, 3)


def test_rules_of_sites_may_be_kept_for_the_next_call(server):
    cache = RulesCache()
    for i in range(3):
        assert next(fetch_all([Request(server.url(f"/{i}.jpg"))], server.config(), cache=cache)).data == JPEG
    assert server.asked["/robots.txt"] == 1


def test_a_file_is_downloaded_whole_or_not_at_all(server, tmp_path):
    body = bytes(range(256)) * 4000
    tries = itertools.count()

    async def breaks_off(request):
        if next(tries) == 0:
            response = web.StreamResponse(headers={"Content-Length": str(len(body))})
            await response.prepare(request)
            await response.write(body[:500_000])
            request.transport.close()
            return response
        start = int(request.headers["Range"].removeprefix("bytes=").rstrip("-"))
        headers = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
        return web.Response(status=206, headers=headers, body=body[start:])

    server.paths |= {"/x.warc": breaks_off, "/big": body, "/to": (302, {"Location": "http://10.0.0.1/x"}, b"")}
    config = server.config(retries=2, backoff_seconds=0.01)
    path = tmp_path / "folder" / "x.warc"
    assert fetch_file(server.url("/x.warc"), path, config) == len(body) and path.read_bytes() == body
    assert server.asked["/x.warc"] == 2
    assert fetch_file(server.url("/x.warc"), path, config) == len(body) and server.asked["/x.warc"] == 2
    for url, limit, reason in (("/big", 1000, "too many bytes"), ("/to", 1000, "address not public")):
        with pytest.raises(FetchError, match=reason):
            fetch_file(server.url(url), tmp_path / "none", config, max_bytes=limit)
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"] and len(list(path.parent.iterdir())) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"agent": "Mozilla"},
        {"agent": "Googlebot-Image"},
        {"agent": "two words"},
        {"agent": "Edge"},
        {"contact": "x\r\nHost: y"},
        {"ports": []},
        {"max_bytes_in_flight": 1000},
        {"max_redirects": 50},
        {"total_seconds": 0},
        {"site_files": ["humans.txt"]},
        {"ignore_opt_outs": True},
    ],
)
def test_configurations_that_are_refused(wrong):
    with pytest.raises(RecipeError):
        read_config(FetchConfig, wrong, "recipe")


def test_an_agent_may_have_part_of_a_browsers_name_in_its_own():
    assert read_config(FetchConfig, {"agent": "knowledge-crawler"}, "recipe").agent == "knowledge-crawler"


def test_what_only_speaks_http_is_no_answer_to_https_and_a_dead_port_is_asked_once(server):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    dead = f"http://127.0.0.1:{port}/"
    requests = [Request(server.url("/a.jpg").replace("http:", "https:")), *(Request(f"{dead}{i}") for i in range(50))]
    config = server.config(ports=(server.port, port), retries=1, backoff_seconds=0.5)
    found = {fetched.request.url: (fetched.reason, fetched.transient) for fetched in fetch_all(requests, config)}
    assert found.pop(requests[0].url) == ("TLS error", False)
    assert set(found.values()) == {("connect failed", True)}


def test_a_crowded_domain_holds_up_no_other():
    crowd = [Request(f"http://img{i % 3}.crowd.example/{i}") for i in range(500)]
    others = [Request(f"http://site{i}.example/") for i in range(5)]
    feed = Feed(iter([*crowd, *others, Request("http://[bad")]), of_one_domain=10, most_held=1000)
    first = feed.take(100)
    assert first == [*crowd[:10], *others, Request("http://[bad")]
    assert feed.take(100) == []
    for request in (first[0], first[1], first[-2]):
        feed.ended(request)
    assert feed.take(100) == crowd[10:12]
    assert list(feed.rest()) == crowd[12:]


def test_a_feed_reads_ahead_a_bounded_number_and_ends():
    read = []
    requests = (read.append(i) or Request(f"http://a.example/{i}") for i in range(1000))
    feed = Feed(requests, of_one_domain=2, most_held=50)
    running, seen = feed.take(10), []
    assert len(running) == 2 and len(read) == 52
    while running:
        seen.append(running.pop(0))
        feed.ended(seen[-1])
        running += feed.take(10)
    assert [request.url for request in seen] == [f"http://a.example/{i}" for i in range(1000)]
    assert list(feed.rest()) == []
