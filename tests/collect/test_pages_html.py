"""Which images a page has, under which address, with which texts; and what is not taken."""

import pytest

from crossgrain.collect.candidates import Page
from crossgrain.collect.pages.charset import as_utf8
from crossgrain.collect.pages.html import PageConfig, find_candidates
from crossgrain.collect.pages.urls import Resolver

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
        ("<image src=a.jpg alt='A red house'>", "a.jpg"),
        ("<img src=about/team.jpg alt='A red house'>", "about/team.jpg"),
        ("<img src='data:,' data-src='/i/a red house.jpg' alt='A red house'>", "../i/a%20red%20house.jpg"),
        ("<img src='data:,' data-lazy=true data-url=/i/17 alt='A red house'>", "../i/17"),
        ("<img src='data:,' data-text='Our house.jpg' data-full=b.jpg alt='A red house'>", "b.jpg"),
        ("<img src=a.jpg data-lazy=true lazyload=on data-image=1234 data-url=/post/1 alt='A red house'>", "a.jpg"),
        ("<img src=low.jpg data-src=//cdn.example.org/i/17 alt='A red house'>", "//cdn.example.org/i/17"),
        ("<img src=low.jpg data-image=b.webp alt='A red house'>", "b.webp"),
    ],
)
def test_the_address_of_an_image(image, name):
    assert one(image).image_url == Resolver(URL).resolve(name)


@pytest.mark.parametrize(
    "name",
    [
        *("greyhound.jpg", "pixel-art.jpg", "clear-lake.jpg", "polka-dot.jpg", "lazy-dog.jpg", "translate.png"),
        *("loading-dock.jpg", "blank-canvas.png", "google-pixel-7-pro-review.png", "google-pixel-7.png"),
    ],
)
def test_photos_of_pixels_and_dogs_are_no_placeholders(name):
    assert one(f"<img src={name} alt='A red house'>").image_url.endswith(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "blank.gif",
            "1x1.trans.gif",
            "1x1-white.jpg",
            "pixel.png",
            "px.gif",
            "dot.jpg",
            "ajax-loader.gif",
            "grey.gif",
        ),
        *("blank_1x1.png", "placeholder-300x200.jpg", "lazyload-placeholder.png", "placeholder-horizontal.gif"),
        *("placeholder.svg", "transparent_pixel.png", "loading2.webp"),
    ],
)
def test_names_that_say_nothing_else_are_placeholders(name):
    assert find(f"<img src=/i/{name} alt='A red house'>").dropped == {"placeholder": 1}


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


def test_an_image_between_two_licences_has_none():
    items = [
        "<li><img src=1.jpg alt='A house'><a href=//creativecommons.org/licenses/by/4.0/>x</a></li>",
        "<li><img src=2.jpg alt='A house'></li>",
        "<li><img src=3.jpg alt='A house'><a href=//creativecommons.org/licenses/by-sa/4.0/>x</a></li>",
    ]
    licences = [found.licence for found in find(f"<ul>{''.join(items)}</ul>").candidates]
    assert ["/by/" in licences[0], licences[1], "/by-sa/" in licences[2]] == [True, "", True]


def test_a_figure_inside_a_figure_has_its_own_caption():
    inner = "<figure><img src=b.jpg alt=B><figcaption>The inner house</figcaption></figure>"
    outer, within = find(
        f"<figure><img src=a.jpg alt=A>{inner}<figcaption>The outer house</figcaption></figure>"
    ).candidates
    assert ("figcaption", "The outer house") in texts(outer) and ("figcaption", "The inner house") in texts(within)
    (alone, _) = find(f"<figure><img src=a.jpg alt=A>{inner}</figure>").candidates
    assert not [text for text in texts(alone) if text[0] == "figcaption"]


def test_comments_do_not_keep_a_text_from_its_image():
    assert (
        texts(one(f"<div><img src=a.jpg>{'<!-- c --> ' * 4}<p>The text behind it.</p></div>"))[0][1]
        == "The text behind it."
    )


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
        ("<p>K\xe4se".encode("latin-1"), "text/html; charset=undefined", "Käse"),
        ("<meta charset=undefined><p>K\xe4se".encode("latin-1"), "", "Käse"),
        ("<p>K\xe4se".encode("latin-1"), "text/html; charset=utf-7", "Käse"),
        ("<p>K\xe4se".encode("latin-1"), "text/html; charset=utf-32", "Käse"),
        ("<p>日本".encode("iso2022_jp"), "text/html; charset=ISO-2022-JP", "日本"),
        ("<p>Käse".encode("utf-16-le"), "text/html; charset=utf-16", "Käse"),
        (b"<p>cheese", "text/html; charset=utf-16", "cheese"),
        ("日本".encode("cp932"), "text/html; charset=x-sjis", "日本"),
        ("日本".encode("euc_jp"), "text/html; charset=x-euc-jp", "日本"),
        ("Привет".encode("cp1251"), "text/html; charset=x-cp1251", "Привет"),
        ("שלום".encode("iso8859-8"), "text/html; charset=iso-8859-8-i", "שלום"),
        ("ไทย".encode("cp874"), "text/html; charset=windows-874", "ไทย"),
        ("<meta charset=windows-1251><p>Привет".encode("cp1251"), "text/html; charset=no-such-thing", "Привет"),
    ],
)
def test_the_encoding_of_a_page(html, content_type, expected):
    assert expected in as_utf8(html, content_type).decode("utf-8")


IMAGE = "<img src=a.jpg alt='A red house'>"
OTHER = "<img src=b.jpg alt='A blue house'>"


@pytest.mark.parametrize(
    "body",
    [
        f"<script>a<b</script >{IMAGE}",
        f"<SCRIPT>'</style>'{OTHER}</SCRIPT>{IMAGE}",
        f"<style>{OTHER}</style>{IMAGE}",
        f"<script><!-- document.write('<script>{OTHER}</script>') --></script>{IMAGE}",
        f"<!-- {OTHER} <script> -->{IMAGE}<!-->",
        f"<svg><title>A drawing of a house</title></svg>{IMAGE}<svg><text>A drawing</text>",
        f"{IMAGE}<script>{OTHER}",
        f"{IMAGE}<!-- {OTHER}",
    ],
)
def test_scripts_styles_drawings_and_comments_give_nothing(body):
    assert texts(one(body)) == [("alt", "A red house")]


@pytest.mark.parametrize(
    "body",
    [
        f"<p title='The <script> tag'>{IMAGE}<script>x</script></p>{OTHER}",
        f"<p title='The <!-- comment'>{IMAGE}</p><!-- c -->{OTHER}",
        f"<textarea><!-- </textarea>{IMAGE}<!-- c -->{OTHER}",
        f"<!-- x --!>{IMAGE}<!-- y -->{OTHER}",
        f"<svg class=icon />{IMAGE}<svg></svg>{OTHER}",
        f"<p><svg><use href=#x /><p>{IMAGE}<svg></svg>{OTHER}",
        f"<svg><foreignObject>{IMAGE}</foreignObject></svg>{OTHER}",
        f"<style>x</stylex></style>{IMAGE}<style></style>{OTHER}",
    ],
)
def test_images_beside_what_looks_like_a_script_or_a_comment_are_found(body):
    assert [found.image_url[-5:] for found in find(body).candidates] == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("words", ["The <script> tag", "The <style> tag", "Use <svg> for icons", "The <!-- comment"])
def test_an_opt_out_behind_what_looks_like_a_script_is_heard(words):
    head = f"<meta name=description content='{words}'><meta name=robots content=noai><script>x</script><style></style>"
    assert find(f"<svg></svg><!-- c -->{IMAGE}", head=head).opted_out == "opted out: meta noai"


def test_scripts_of_xhtml_may_close_themselves():
    html = f"<html xmlns='http://www.w3.org/1999/xhtml'><head><title/><script src='x.js'/></head>{IMAGE}</html>"
    for content_type, number in (("application/xhtml+xml; charset=utf-8", 1), ("text/html", 0)):
        page = Page(url=URL, html=html.encode(), headers={"content-type": content_type})
        assert len(find_candidates(page, LOOSE).candidates) == number


def test_a_page_that_is_no_page():
    for html in (b"", b"\0", b"\x89PNG\r\n\x1a\n<img", b"<img"):
        found = find_candidates(Page(url="not an address", html=html), LOOSE)
        assert not found.candidates and found.num_images == sum(found.dropped.values())
