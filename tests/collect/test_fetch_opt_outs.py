"""The opt-out matrix: every machine-readable technique that IPTC's guidance lists, met where it is met on the web.

IPTC Generative AI Opt-Out Best Practice Recommendations 2.0 (March 2026). Of the thirteen, statements in plain
language, firewalls, and opt-outs inside EPUB and PDF files leave nothing to read here; a firewall shows as a 403.
"""

import io

import pytest
from loopback import loopback
from PIL import Image

from crossgrain.collect.fetch import Request, fetch_all
from crossgrain.collect.opt_outs import page_opt_out


def jpeg(**options) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), "orange").save(file, "JPEG", **options)
    return file.getvalue()


PLAIN = {"Content-Type": "text/plain"}
MINING = b'<rdf:Description plus:DataMining="http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED-AIMLTRAINING"/>'
C2PA = b"\0\0\1\0jumbjumdc2pa.training-mining\0cbor\xa1gentries\xa1pc2pa.ai_training\xa1cusejnotAllowed"
MANIFEST = b"\xff\xeb" + (len(C2PA) + 10).to_bytes(2) + b"JP\0\1\0\0\0\1" + C2PA
RSL = b'<rsl><content url="/"><license><prohibits type="usage">ai-train</prohibits></license></content></rsl>'

SITE = {
    "robots.txt": {"/robots.txt": (200, PLAIN, b"User-agent: *\nDisallow: /*.jpg$")},
    "robots.txt for AI agents": {"/robots.txt": (200, PLAIN, b"User-agent: GPTBot\nDisallow: /")},
    "robots.txt Content-Signal": {"/robots.txt": (200, PLAIN, b"User-Agent: *\nContent-Signal: ai-train=no\nAllow: /")},
    "robots.txt Content-Usage": {"/robots.txt": (200, PLAIN, b"User-Agent: *\nContent-Usage: train-ai=n\nAllow: /")},
    "tdmrep.json": {
        "/.well-known/tdmrep.json": (
            200,
            {"Content-Type": "application/json"},
            b'[{"location": "*.jpg", "tdm-reservation": 1, "tdm-policy": "https://example.com/p.json"}]',
        )
    },
    "ai.txt": {"/ai.txt": (200, PLAIN, b"User-Agent: *\nDisallow: *.jpg")},
    "trust.txt": {"/trust.txt": (200, PLAIN, b"datatrainingallowed=no\n")},
    "RSL license": {
        "/robots.txt": (200, PLAIN, b"License: /license.xml\nUser-agent: *\nAllow: /"),
        "/license.xml": (200, {"Content-Type": "application/rsl+xml"}, RSL),
    },
}
ANSWER = {
    **{
        f"X-Robots-Tag {word}": ({"X-Robots-Tag": word}, jpeg())
        for word in ("noai", "noimageai", "noindex", "noimageindex", "noml")
    },
    "header tdm-reservation": ({"tdm-reservation": "1", "tdm-policy": "https://example.com/p.json"}, jpeg()),
    "header Content-Usage": ({"Content-Usage": "train-ai=n"}, jpeg()),
    "header Content-Signal": ({"Content-Signal": "ai-train=no"}, jpeg()),
    "IPTC plus:DataMining": ({}, jpeg(xmp=MINING)),
    "XMP tdm:reservation": ({}, jpeg(xmp=b'<rdf:Description tdm:reservation="1"/>')),
    "C2PA training-mining ai_training": ({}, jpeg()[:2] + MANIFEST + jpeg()[2:]),
}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("CROSSGRAIN_TEST_ALLOW_LOOPBACK", "1")
    with loopback() as running:
        running.paths["/a.jpg"] = jpeg()
        yield running


def fetch_one(server, **changes):
    return next(fetch_all([Request(server.url("/a.jpg"))], server.config(**changes)))


def test_nothing_said_is_no_opt_out(server):
    found = fetch_one(server)
    assert found.data == jpeg() and found.evidence == ("robots.txt: not found", "headers", "embedded")


@pytest.mark.parametrize("signal", SITE)
def test_files_of_the_site(server, signal):
    server.paths |= SITE[signal]
    found = fetch_one(server)
    assert (found.reason, found.data, found.transient) == (f"opted out: {signal}", None, False)
    assert found.evidence[-1] == signal and not server.asked["/a.jpg"]


@pytest.mark.parametrize("signal", ANSWER)
def test_what_comes_with_the_image(server, signal):
    headers, body = ANSWER[signal]
    server.paths["/a.jpg"] = (200, {"Content-Type": "image/jpeg", **headers}, body)
    found = fetch_one(server)
    assert (found.reason, found.data, found.transient) == (f"opted out: {signal}", None, False)
    assert found.evidence[-1] == signal


@pytest.mark.parametrize("name", ["noai", "noimageai", "noindex", "noimageindex", "noml"])
def test_what_a_page_says_holds_for_all_its_images(name):
    assert page_opt_out([("robots", name)], {}) == f"opted out: meta {name}"
    assert page_opt_out([], {"x-robots-tag": name}) == f"opted out: X-Robots-Tag {name}"
    assert page_opt_out([("tdm-reservation", "1")], {}) == "opted out: meta tdm-reservation"


def test_a_page_is_asked_for_by_the_rules_of_its_own_site(server):
    server.paths |= {"/page": (200, {"Content-Type": "text/html", "X-Robots-Tag": "noai"}, b"<html>")}
    assert next(fetch_all([Request(server.url("/page"), "page")], server.config())).reason.endswith("Tag noai")
    server.paths |= {"/robots.txt": (200, PLAIN, b"User-agent: crossgrain\nDisallow: /page")}
    found = next(fetch_all([Request(server.url("/page"), "page")], server.config()))
    assert found.reason == "opted out: robots.txt" and server.asked["/page"] == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((404, {}, b""), ""),
        ((403, {}, b""), ""),
        ((500, {}, b""), "robots.txt unreachable"),
        ((503, {}, b""), "robots.txt unreachable"),
        ((429, {}, b""), "robots.txt unreachable"),
        ((302, {"Location": "http://10.0.0.1/robots.txt"}, b""), "robots.txt unreachable"),
        ((302, {"Location": "/robots.txt"}, b""), ""),
        ((200, {"Content-Type": "text/html"}, b"<html>soft 404</html>"), ""),
        ((200, PLAIN, b""), ""),
        ((200, PLAIN, b"\xef\xbb\xbfUser-agent: *\nDisallow: /"), "opted out: robots.txt"),
        ((200, PLAIN, b"\xff\xfe\0User-agent\0"), ""),
        ((200, PLAIN, b"User-agent: *\nDisallow: /\n" + b"#" * 600_000), "opted out: robots.txt"),
        ((200, PLAIN, b"User-agent: *\nDisallow: /x\n" + b"# nothing more is said here\n" * 100_000), ""),
        ((204, {}, b""), ""),
        ((206, PLAIN, b"User-agent: *\nDisallow: /"), "opted out: robots.txt"),
        ((302, {"Location": ""}, b""), "robots.txt unreachable"),
    ],
)
def test_a_robots_txt_that_is_missing_allows_and_one_that_fails_forbids(server, answer, reason):
    server.paths["/robots.txt"] = answer
    found = fetch_one(server)
    assert found.reason == reason and found.transient == (reason == "robots.txt unreachable")


def test_a_long_robots_txt_is_cut_between_two_lines(server):
    start = b"User-agent: *\n"
    text = start + b"#" * (512 * 1024 - len(start) - len(b"\nDisallow: /")) + b"\nDisallow: /private/\n"
    server.paths["/robots.txt"] = (200, PLAIN, text)
    assert fetch_one(server).data == jpeg()


@pytest.mark.parametrize("licence", [b"<rsl><content url='http://['><license/></content></rsl>", b"<rsl", b"\xff\0"])
def test_a_broken_licence_loses_no_site(server, licence):
    server.paths |= SITE["RSL license"] | {"/license.xml": (200, {"Content-Type": "application/rsl+xml"}, licence)}
    assert fetch_one(server).data == jpeg()


def test_a_site_whose_files_break_the_reader_is_asked_for_them_once(server, monkeypatch):
    def broken(text):
        raise ValueError("no such file was foreseen")

    monkeypatch.setattr("crossgrain.collect.fetch.sites.tdm_rules", broken)
    server.paths["/.well-known/tdmrep.json"] = (200, PLAIN, b"[]")
    found = list(fetch_all([Request(server.url(f"/{i}.jpg")) for i in range(300)], server.config()))
    assert {(f.reason, f.transient) for f in found} == {("robots.txt unreachable", True)}
    assert server.asked["/robots.txt"] == 1


def test_other_files_that_fail_or_are_pages_forbid_nothing(server):
    server.paths |= {
        "/.well-known/tdmrep.json": (500, {}, b""),
        "/ai.txt": (200, {"Content-Type": "text/html"}, b"User-agent: *\nDisallow: /"),
        "/trust.txt": (302, {"Location": "http://10.0.0.1/"}, b""),
    }
    assert fetch_one(server).data == jpeg()


def test_files_that_a_recipe_leaves_out_are_not_asked_for(server):
    assert fetch_one(server, site_files=("ai.txt",)).data == jpeg()
    assert set(server.asked) == {"/robots.txt", "/ai.txt", "/a.jpg"}
