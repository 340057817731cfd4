"""Addresses resolve as in a browser (expectations from the WHATWG URL standard's own examples and test kinds)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossgrain.collect.pages.urls import MAX_LENGTH, Resolver, normalise

PAGE = "https://example.org/a/b/page.html?x=1#top"


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("c.jpg", "https://example.org/a/b/c.jpg"),
        ("../c.jpg", "https://example.org/a/c.jpg"),
        ("../../../c.jpg", "https://example.org/c.jpg"),
        ("./c.jpg", "https://example.org/a/b/c.jpg"),
        ("%2E%2e/c.jpg", "https://example.org/a/c.jpg"),
        ("/c.jpg", "https://example.org/c.jpg"),
        ("//cdn.example.net/c.jpg", "https://cdn.example.net/c.jpg"),
        (r"\\cdn.example.net\i\c.jpg", "https://cdn.example.net/i/c.jpg"),
        (r"\img\c.jpg", "https://example.org/img/c.jpg"),
        ("?id=7", "https://example.org/a/b/page.html?id=7"),
        ("HTTPS://EXAMPLE.com:443/C.jpg", "https://example.com/C.jpg"),
        ("http://example.com:80/c.jpg", "http://example.com/c.jpg"),
        ("http://example.com:8080/c.jpg", "http://example.com:8080/c.jpg"),
        ("http://example.com", "http://example.com/"),
        ("http:/example.com/c.jpg", "http://example.com/c.jpg"),
        ("https:c.jpg", "https://example.org/a/b/c.jpg"),
        ("  c d.jpg\n", "https://example.org/a/b/c%20d.jpg"),
        ("c\nd.jpg", "https://example.org/a/b/cd.jpg"),
        ("c.jpg#part", "https://example.org/a/b/c.jpg"),
        ("c.jpg?utm_source=x&w=1", "https://example.org/a/b/c.jpg?utm_source=x&w=1"),
        ("bild-ä.jpg", "https://example.org/a/b/bild-%C3%A4.jpg"),
        ("c%20d.jpg", "https://example.org/a/b/c%20d.jpg"),
        ("c%zz.jpg", "https://example.org/a/b/c%zz.jpg"),
        ("https://münchen.example/c.jpg", "https://xn--mnchen-3ya.example/c.jpg"),
        ("https://faß.example/c.jpg", "https://xn--fa-hia.example/c.jpg"),
        ("http://example.com:00080/c.jpg", "http://example.com/c.jpg"),
        ("a//b.jpg", "https://example.org/a/b/a//b.jpg"),
        ("c.jpg?q='a b'", "https://example.org/a/b/c.jpg?q=%27a%20b%27"),
        ("c,w_100/d.jpg", "https://example.org/a/b/c,w_100/d.jpg"),
        ("http://1.2.3.4/c.jpg", "http://1.2.3.4/c.jpg"),
        ("http://[2001:DB8::1]:81/c.jpg", "http://[2001:db8::1]:81/c.jpg"),
    ],
)
def test_references_resolve_as_in_a_browser(reference, expected):
    assert Resolver(PAGE).resolve(reference) == expected


@pytest.mark.parametrize(
    "reference",
    [
        *(
            "",
            "   ",
            "#top",
            "data:image/gif;base64,R0",
            "javascript:void(0)",
            "blob:x",
            "file:///etc/passwd",
            "ftp://a/b",
        ),
        *(
            "http://",
            "http://user:secret@example.com/c.jpg",
            "http://exa mple.com/c.jpg",
            "http://example.com:99999/c.jpg",
        ),
        "http://example.com:0000099999/c.jpg",
        *("http://example.com:port/c.jpg", "http://exa<mple.com/", "/" + "x" * MAX_LENGTH),
    ],
)
def test_what_is_no_web_address_is_refused(reference):
    assert Resolver(PAGE).resolve(reference) is None


def test_a_base_element_is_relative_to_its_page():
    assert Resolver(PAGE, "/img/").resolve("c.jpg") == "https://example.org/img/c.jpg"
    assert Resolver(PAGE, "//cdn.example.net/x/y").resolve("c.jpg") == "https://cdn.example.net/x/c.jpg"
    assert Resolver(PAGE, "javascript:1").resolve("c.jpg") == "https://example.org/a/b/c.jpg"


def test_a_page_without_a_web_address_resolves_absolute_references_only():
    page = Resolver("file:///srv/page.html")
    assert page.resolve("c.jpg") is None
    assert page.resolve("http://example.com/c.jpg") == "http://example.com/c.jpg"


@given(st.text(max_size=60))
def test_normal_addresses_are_stable_and_plain(text):
    for reference in (text, f"http://{text}", f"http://example.com/{text}", f"//example.com/?{text}"):
        url = Resolver(PAGE).resolve(reference)
        if url is not None:
            assert url.isascii() and url.isprintable() and " " not in url and "#" not in url
            assert normalise(url) == url == Resolver(PAGE).resolve(url)
