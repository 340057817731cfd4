"""Which images a page has, under which address, with which texts; and what is not taken."""

import time

import pytest

from crossgrain.collect.candidates import Page
from crossgrain.collect.pages.charset import as_utf8
from crossgrain.collect.pages.html import PageConfig, find_candidates
from crossgrain.collect.pages.pruning import prune

URL = "https://example.org/news/page.html"
LOOSE = PageConfig(min_declared_side=0, min_dominance=0.0)


def find(body, config=LOOSE, headers=None, head=""):
    html = f"<html lang=en><head>{head}</head><body>{body}</body></html>".encode()
    findings = find_candidates(Page(url=URL, html=html, headers=headers or {}), config)
    assert findings.num_images == len(findings.candidates) + sum(findings.dropped.values())
    return findings


def one(body, config=LOOSE, **more):
    findings = find(body, config, **more)
    assert len(findings.candidates) == 1, findings.dropped
    return findings.candidates[0]


def texts(candidate):
    return [(text.kind, text.text) for text in candidate.texts]


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("<img src=a.jpg alt='A red house'>", "a.jpg"),
        ("<img src='data:image/gif;base64,R0lGOD' data-src=a.jpg alt='A red house'>", "a.jpg"),
        ("<img src=/blank.gif data-original=a.jpg alt='A red house'>", "a.jpg"),
        ("<img src='data:image/gif;base64,R0' data-zoom-img='a.jpg?v=2' alt='A red house'>", "a.jpg?v=2"),
        ("<img src='data:image/svg+xml,x' srcset='a.jpg 400w, b.jpg 800w' alt='A red house'>", "b.jpg"),
        ("<img src=s.jpg srcset='a.jpg 400w, b.jpg 1200w, c.jpg 4000w' alt='A red house'>", "b.jpg"),
        ("<img src=s.jpg srcset='a.jpg, b.jpg 2x' alt='A red house'>", "b.jpg"),
        (
            "<img src=s.jpg srcset='i/w_400,h_300/a.jpg 400w, i/w_800,h_600/a.jpg 800w' alt='A red house'>",
            "i/w_800,h_600/a.jpg",
        ),
        ("<img data-srcset='a.jpg 900w' class=lazy alt='A red house'>", "a.jpg"),
        (
            "<picture><source type=image/avif srcset='a.avif 1600w'><source type=image/webp srcset='a.webp 1600w'>"
            "<img src=s.jpg alt='A red house'></picture>",
            "a.webp",
        ),
        ("<noscript><img src=a.jpg alt='A red house'></noscript>", "a.jpg"),
        ("<amp-img src=a.jpg alt='A red house'></amp-img>", "a.jpg"),
        ("<IMG SRC=a.jpg ALT='A red house'>", "a.jpg"),
    ],
)
def test_the_address_of_an_image(image, name):
    assert one(image).image_url == f"https://example.org/news/{name}"


def test_base_and_entities_count_for_addresses():
    assert (
        one("<img src='i?a=1&amp;b=2' alt='A red house'>", head="<base href=/x/>").image_url
        == "https://example.org/x/i?a=1&b=2"
    )


def test_a_lazy_image_and_its_noscript_copy_are_one_candidate():
    found = find("<img class=lazy data-src=a.jpg alt='A house'><noscript><img src=a.jpg alt='A red house'></noscript>")
    assert [c.image_url for c in found.candidates] == ["https://example.org/news/a.jpg"]
    assert found.dropped == {"same image again": 1} and found.num_recovered == 1
    assert {t.text for t in found.candidates[0].texts} == {"A house", "A red house"}


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("<img src='data:image/png;base64,AA' alt='A red house'>", "inline data only"),
        ("<img alt='A red house'>", "no address"),
        ("<img src=/i/spacer.gif alt='A red house'>", "placeholder"),
        ("<img src='javascript:x()' alt='A red house'>", "address unusable"),
        ("<img src=a.svg alt='A red house'>", "vector image"),
        ("<img src=a.jpg>", "no text"),
    ],
)
def test_what_is_no_candidate_is_counted(image, reason):
    assert find(image).dropped == {reason: 1}


def test_texts_by_kind_and_each_once():
    linked = "<a href=/x title='To the house'><img src=a.jpg alt='A red\n house'></a>"
    figure = f"<figure>{linked}<figcaption>The <b>old</b> house</figcaption></figure>"
    assert texts(one(figure))[:3] == [
        ("alt", "A red house"),
        ("title", "To the house"),
        ("figcaption", "The old house"),
    ]
    assert texts(one("<div><img src=a.jpg alt='A red house' title='A red house'></div>")) == [("alt", "A red house")]
    config = PageConfig(texts=("title",), min_declared_side=0, min_dominance=0.0)
    assert texts(one("<img src=a.jpg alt=A title='A red house'>", config)) == [("title", "A red house")]


def test_text_that_stands_near():
    body = (
        "<p>Far away from it.</p><div><p>The text before it.</p><p><img src=a.jpg></p><p>The text behind it.</p></div>"
    )
    assert texts(one(body)) == [("near", "The text behind it."), ("near", "The text before it.")]
    body = "<td><a href=x><img src=a.jpg></a></td>"
    assert texts(one(f"<table><tr>{body}<td>A cell that names it</td></table>")) == [("near", "A cell that names it")]
    named = "<div><img src=a.jpg><div class='wp-caption-text'>A named caption</div></div>"
    assert texts(one(named)) == [("figcaption", "A named caption")]
    hidden = "<script>var text = 'no text at all';</script><style>p {}</style><!-- <img src=b.jpg> -->"
    script = f"<div><img src=a.jpg>{hidden}</div>"
    assert find(script).dropped == {"no text": 1}


def test_near_text_is_as_long_as_wanted_and_has_whole_words():
    body = f"<div>{'first words ' * 60}<img src=a.jpg>{'last words ' * 60}</div>"
    behind, before = (text for _, text in texts(one(body, PageConfig(near_chars=50, min_declared_side=0))))
    assert len(behind) <= 50 and behind.startswith("last words") and behind.split()[-1] in ("last", "words")
    assert len(before) <= 50 and before.endswith("first words") and before.split()[0] in ("first", "words")


@pytest.mark.parametrize(
    ("image", "size"),
    [
        ("<img src=a.jpg width=640 height=480 alt='A red house'>", (640, 480)),
        ("<img src=a.jpg width='640px' height='50%' alt='A red house'>", (640, 0)),
        ("<img src=a.jpg style='max-width: 90px; width: 640px; height:480.5px' alt='A red house'>", (640, 480)),
        ("<img src=a-150x100.jpg width=600 alt='A red house'>", (150, 100)),
        ("<img src=/thumb/a.jpg/220px-a.jpg alt='A red house'>", (220, 0)),
        ("<img src=s.jpg width=100 height=50 srcset='b.jpg 800w' alt='A red house'>", (800, 400)),
    ],
)
def test_declared_size(image, size):
    placement = one(image).placement
    assert (placement.declared_width, placement.declared_height) == size


def test_small_images_and_furniture_are_not_dominant():
    config = PageConfig()
    assert find("<img src=a.jpg width=16 height=16 alt='A red house'>", config).dropped == {"declared too small": 1}
    logo = "<a href=/ title='Home of it'><img src=site-logo.png alt='The logo' width=200 height=160></a>"
    nav = f"<nav>{logo} <a href=x>All links here</a></nav>"
    assert find(nav, config).dropped == {"not dominant": 1}
    subject = one(
        "<main><figure><img src=a.jpg width=800 height=600 alt='A red house'>"
        "<figcaption>The red house</figcaption></figure></main>",
        config,
    )
    plain = one("<p><img src=a.jpg alt='A red house'> Some text of a paragraph.</p>", config)
    assert subject.placement.dominant > 0.8 > plain.placement.dominant > 0.3
    head = "<meta property=og:image content='https://example.org/news/a-1024x768.jpg'>"
    chosen = one("<p><img src=a-800x600.jpg alt='A red house'> Some text of a paragraph.</p>", config, head=head)
    assert chosen.placement.dominant > plain.placement.dominant
    linked = one(
        "<ul><li><a href=x><img src=a.jpg> A text in a link</a><li><a href=y>Another one</a></ul>", LOOSE
    ).placement
    assert linked.in_link and linked.link_density > 0.9 and linked.depth > 3


def test_language_is_what_the_page_declares():
    assert find("<img src=a.jpg>").language == "en"
    page = "<meta property=og:locale content=de_DE><img src=a.jpg alt='Ein rotes Haus'>"
    assert find_candidates(Page(url=URL, html=page.encode()), LOOSE).language == "de-DE"
    assert find("<img src=a.jpg>", PageConfig(languages=("de",))).dropped == {"page in another language": 1}


def test_licences_near_and_of_the_page():
    cc = "https://creativecommons.org/licenses/by/4.0/"
    assert one(f"<img src=a.jpg alt='A red house'><footer><a rel=license href={cc}>CC</a></footer>").licence == cc
    assert one("<img src=a.jpg alt='A red house'>", head=f"<link rel=license href='{cc}'>").licence == cc
    linked = '<script type="application/ld+json">{"license": "https:\\/\\/example.org\\/terms"}</script>'
    assert one(f"<img src=a.jpg alt='A red house'>{linked}").licence == "https://example.org/terms"
    both = [
        f"<li><img src={n}.jpg alt='A red house'><a href=//creativecommons.org/licenses/{n}/4.0/>x</a></li>"
        for n in ("by", "by-sa")
    ]
    assert [c.licence.split("/")[-3] for c in find("<ul>" + "".join(both)).candidates] == ["by", "by-sa"]
    assert one("<img src=a.jpg alt='A red house'>").licence == ""


@pytest.mark.parametrize(
    ("head", "headers"),
    [
        ("<meta name=robots content='index, noai'>", {}),
        ("<META NAME=Robots CONTENT=NOIMAGEAI>", {}),
        ("<meta name=tdm-reservation content=1>", {}),
        ("<noscript><img src=pixel-of-a-tracker.jpg></noscript><meta name=robots content=noai>", {}),
        ("", {"x-robots-tag": "noimageindex"}),
        ("", {"tdm-reservation": "1"}),
    ],
)
def test_a_page_that_opts_out_gives_nothing(head, headers):
    found = find("<img src=a.jpg alt='A red house'>", head=head, headers=headers)
    assert found.opted_out and found.opted_out.startswith("opted out") and not found.candidates
    assert found.dropped == {found.opted_out: found.num_images}


@pytest.mark.parametrize(
    ("html", "content_type", "expected"),
    [
        ("<p>Käse".encode(), "", "Käse"),
        ("<p>Käse".encode("latin-1"), "", "Käse"),
        ("<p>Käse".encode("latin-1"), "text/html; charset=ISO-8859-1", "Käse"),
        ("<meta charset=windows-1251><p>Привет".encode("cp1251"), "", "Привет"),
        ("<meta http-equiv=Content-Type content='text/html; charset=Shift_JIS'>日本".encode("cp932"), "", "日本"),
        ("日本".encode("gb18030"), "text/html;charset=gb2312", "日本"),
        ("\ufeff<p>Käse".encode("utf-16-le"), "", "Käse"),
        (b"\xef\xbb\xbf" + "<p>Käse".encode(), "text/html; charset=latin-1", "Käse"),
        ("<p>Käse".encode(), "text/html; charset=iso-8859-1", "Käse"),  # a wrong header
        ("<p>Käse".encode(), "text/html; charset=no-such-thing", "Käse"),
        ("<p>K\xe4se".encode("latin-1"), "text/html; charset=base64", "Käse"),
    ],
)
def test_the_encoding_of_a_page(html, content_type, expected):
    assert expected in as_utf8(html, content_type).decode("utf-8")


@pytest.mark.parametrize(
    ("html", "rest"),
    [
        (b"<img><script>a<b</script >c", b"<img>c"),
        (b"<img><SCRIPT>'</style>'</SCRIPT>c", b"<img>c"),
        (b"<img><style>x</style><strong>b</strong><section>", b"<img><strong>b</strong><section>"),
        (b"<img><!-- <script> -->c<!-->d", b"<img>cd"),
        (b"<img><svg><title>t</title></svg>c<svg>d", b"<img>cd"[:6] + b"<svg>d"),
        (b"<img>a<script>b", b"<img>a"),
        (b"<img>a<!-- b", b"<img>a"),
        (b"<p>no picture</p>", b""),
        (b"<", b""),
        (b"", b""),
    ],
)
def test_scripts_styles_drawings_and_comments_are_cut(html, rest):
    assert prune(html)[0] == rest


@pytest.mark.parametrize(
    "html",
    [
        b"<div>" * 100_000 + b"<img src=a.jpg alt='A red house'>",
        b"<img src=a.jpg alt='A red house'>" * 50_000,
        b"<div><img src=a.jpg>" * 20_000 + b"text " * 10_000,
        b"<a href=x>text <img src=a.jpg></a>" * 5_000,
        b"<img srcset='" + b"a.jpg 1w, " * 100_000 + b"'>",
        b"<img alt='" + b"A red house " * 100_000 + b"' src=a.jpg>",
        b"<script" * 50_000 + b"<img>",
        b"<!--" * 50_000 + b"<img>",
        bytes(range(256)) * 2_000 + b"<img src=\xff.jpg alt=\x00\xff>",
    ],
)
def test_hostile_pages_end_soon_and_add_up(html):
    begin = time.process_time()
    found = find_candidates(Page(url=URL, html=html), LOOSE)
    assert time.process_time() - begin < 3
    assert found.num_images == len(found.candidates) + sum(found.dropped.values())
    assert all(len(text.text) <= 2000 for candidate in found.candidates for text in candidate.texts)


def test_a_page_that_is_no_page():
    for html in (b"", b"\0", b"\x89PNG\r\n\x1a\n<img", b"<img"):
        found = find_candidates(Page(url="not an address", html=html), LOOSE)
        assert not found.candidates and found.num_images == sum(found.dropped.values())
