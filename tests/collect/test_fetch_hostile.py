"""The hostile list: nothing of it is kept, in bounded memory and time. Only the tests' switch allows loopback."""

import asyncio
import contextlib
import gzip
import resource
import socket
import threading
import zlib
from dataclasses import replace

import pytest
from aiohttp import web
from loopback import loopback

from crossgrain.collect.fetch import FetchConfig, Request, fetch_all
from crossgrain.collect.fetch.sites import RulesCache
from crossgrain.config import UserError


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("CROSSGRAIN_TEST_ALLOW_LOOPBACK", "1")
    with loopback() as running:
        yield running


def reasons_of(urls, config, **options) -> dict[str, str]:
    found = list(fetch_all([Request(url) for url in urls], config, **options))
    assert len(found) == len(urls) and all(fetched.data is None for fetched in found)
    return {fetched.request.url: fetched.reason for fetched in found}


def test_without_the_switch_loopback_is_refused_in_every_spelling(monkeypatch):
    monkeypatch.delenv("CROSSGRAIN_TEST_ALLOW_LOOPBACK", raising=False)
    with loopback() as server:
        server.paths["*"] = b"\xff\xd8 never"
        spellings = ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "[::ffff:127.0.0.1]", "[::1]"]
        urls = [server.url("/a.jpg", host) for host in (*spellings, "localhost", "name.example")]
        config = server.config(contact="https://example.com/bot")
        found = reasons_of(urls, config, lookup=lambda host: ["127.0.0.1"])
        assert set(found.values()) == {"address not public"} and not server.asked


def test_nothing_is_fetched_without_a_contact(monkeypatch):
    monkeypatch.delenv("CROSSGRAIN_TEST_ALLOW_LOOPBACK", raising=False)
    with pytest.raises(UserError, match=r"fetch\.contact is empty"):
        fetch_all([], FetchConfig())
    assert list(fetch_all([], FetchConfig(contact="someone@example.com"))) == []


def test_the_hostile_list(server):
    sent = 0
    goes_on = threading.Event()

    def piece(size):
        nonlocal sent
        sent += size
        return b"\xff" * size

    async def endless(request):
        response = web.StreamResponse(headers={"Content-Type": "image/jpeg"})
        await response.prepare(request)
        for _ in range(400 * 16):
            await response.write(piece(65536))
        return response

    async def announced(request):
        response = web.StreamResponse(headers={"Content-Type": "image/jpeg", "Content-Length": str(400 * 2**20)})
        await response.prepare(request)
        for _ in range(400 * 16):
            await response.write(piece(65536))
        return response

    async def drip(request):
        response = web.StreamResponse(headers={"Content-Type": "image/jpeg"})
        await response.prepare(request)
        while not goes_on.is_set():
            await response.write(b"x")
            await asyncio.sleep(0.02)
        return response

    async def silent(request):
        while not goes_on.is_set():
            await asyncio.sleep(0.05)
        return web.Response()

    pack = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    bomb = b"".join(pack.compress(bytes(2**20)) for _ in range(100)) + pack.flush()
    image = {"Content-Type": "image/jpeg"}

    def to(location):
        return (302, {"Location": location}, b"")

    server.paths |= {
        "/endless": endless,
        "/announced": announced,
        "/drip": drip,
        "/silent": silent,
        "/bomb": (200, {**image, "Content-Encoding": "gzip"}, bomb),
        "/twice": (200, {**image, "Content-Encoding": "gzip, gzip"}, gzip.compress(bomb)),
        "/brotli": (200, {**image, "Content-Encoding": "br"}, b"\x0b\x02\x80"),
        "/no-gzip": (200, {**image, "Content-Encoding": "gzip"}, b"this is none"),
        "/half-gzip": (200, {**image, "Content-Encoding": "gzip"}, gzip.compress(b"x" * 1000)[:-9]),
        "/to-private": to("http://10.0.0.1/a.jpg"),
        "/to-metadata": to("http://169.254.169.254/latest/meta-data/"),
        "/to-mapped": to("http://[::ffff:10.0.0.1]/"),
        "/to-decimal": to("http://167772161/a.jpg"),
        "/to-file": to("file:///etc/passwd"),
        "/to-secret": to("http://user:secret@127.0.0.1/"),
        "/to-port": to("http://127.0.0.1:22/"),
        "/to-name": to(f"http://inside.example:{server.port}/a.jpg"),
        "/to-itself": to("/to-itself"),
        "/to-nowhere": to("http://[bad"),
        "/html": (200, {"Content-Type": "text/html"}, b"<html>"),
        "/svg": (200, {"Content-Type": "image/svg+xml"}, b"<svg/>"),
        "/empty": (200, image, b""),
    }
    expected = {
        "/endless": "too many bytes",
        "/announced": "too many bytes",
        "/bomb": "too many bytes",
        "/twice": "content encoding not wanted",
        "/brotli": "content encoding not wanted",
        "/no-gzip": "bad response",
        "/half-gzip": "truncated body",
        "/to-private": "address not public",
        "/to-metadata": "address not public",
        "/to-mapped": "address not public",
        "/to-decimal": "address not public",
        "/to-file": "scheme is not http or https",
        "/to-secret": "credentials in URL",
        "/to-port": "port not allowed",
        "/to-name": "address not public",
        "/to-itself": "too many redirects",
        "/to-nowhere": "bad redirect",
        "/html": "content type not wanted",
        "/svg": "content type not wanted",
        "/empty": "empty body",
        "/none": "not found",
    }
    elsewhere = {
        "file:///etc/passwd": "scheme is not http or https",
        "http://169.254.169.254/latest/": "address not public",
        "http://[::ffff:169.254.169.254]/": "address not public",
        "http://3232235777/": "address not public",
        f"http://inside.example:{server.port}/": "address not public",
        f"http://half-inside.example:{server.port}/": "address not public",
        f"http://unknown.example:{server.port}/": "unknown host",
    }

    def lookup(host):
        if host == "unknown.example":
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return ["8.8.8.8", "10.1.1.1"] if host.startswith("half") else ["10.1.1.1"]

    limits = {"max_image_bytes": 2**20, "max_page_bytes": 2**20, "min_rate": 4096.0, "breaker_after": 100}
    patient = server.config(**limits, total_seconds=60.0, grace_seconds=60.0)
    given = {"lookup": lookup, "cache": RulesCache()}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = reasons_of([*map(server.url, expected), *elsewhere], patient, **given)
    assert found == {**{server.url(path): reason for path, reason in expected.items()}, **elsewhere}
    slow, late = replace(patient, grace_seconds=0.5), replace(patient, total_seconds=1.0)
    assert set(reasons_of([server.url("/drip")], slow, **given).values()) == {"too slow"}
    assert set(reasons_of([server.url("/silent")], late, **given).values()) == {"timeout"}
    goes_on.set()
    assert sent < 24 * 2**20  # the socket buffers of both, not the 800 MB that were offered
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 120 * 1024
    assert all("Cookie" not in headers and "Authorization" not in headers for headers in server.requests)


def test_a_name_bound_anew_between_two_requests_reaches_only_what_was_checked(server):
    server.paths["*"] = b"\xff\xd8 image"
    answers = [["127.0.0.1"], ["10.0.0.1"]]
    asked = []

    def lookup(host):
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    urls = [server.url(f"/{i}.jpg", "rebinding.example") for i in range(5)]
    found = list(fetch_all([Request(url) for url in urls], server.config(), lookup=lookup))
    assert all(fetched.data == b"\xff\xd8 image" for fetched in found)
    assert asked == ["rebinding.example"]


@pytest.mark.parametrize(
    ("says", "reasons"),
    [
        (b"", {"connection lost"}),
        (b"nonsense\r\n\r\n", {"bad response"}),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nContent-Type: image/png\r\n\r\nhalf", {"truncated body"}),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"a" * 100_000 + b"\r\n\r\n", {"bad response"}),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", {"bad response"}),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", {"bad response", "truncated body"}),
    ],
)
def test_servers_that_do_not_speak_http(monkeypatch, says, reasons):
    monkeypatch.setenv("CROSSGRAIN_TEST_ALLOW_LOOPBACK", "1")
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.1)
        port = listening.getsockname()[1]

        def answer():
            while not over.is_set():
                with contextlib.suppress(OSError):
                    peer, _ = listening.accept()
                    with peer:
                        peer.settimeout(1.0)
                        asked = peer.recv(65536)
                        missing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                        peer.sendall(says if b"GET /a.jpg" in asked else missing)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            config = FetchConfig(
                ports=(port,), retries=0, total_seconds=30.0, domain_delay=0.0, address_delay=0.0, deadline=60.0
            )
            found = reasons_of([f"http://127.0.0.1:{port}/a.jpg"], config)
        finally:
            over.set()
            thread.join()
    assert set(found.values()) <= reasons
