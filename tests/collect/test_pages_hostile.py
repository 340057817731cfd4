"""Pages that are written to break their readers: they end soon, use bounded memory, and their images are counted."""

import resource
import time
from functools import partial
from pathlib import Path

import pytest

from crossgrain.collect.candidates import Page
from crossgrain.collect.fetch import FetchConfig
from crossgrain.collect.pages.html import PageConfig, find_candidates
from crossgrain.collect.pages.inputs import Input, list_inputs
from crossgrain.collect.pages.nesting import nested_too_deeply
from crossgrain.collect.pages.sources import image_source
from crossgrain.collect.sentences import SentenceConfig
from crossgrain.collect.stages import pages as stage
from crossgrain.collect.tasks import Task, run_task

LOOSE = PageConfig(min_declared_side=0, min_dominance=0.0)
IMAGE = b"<img src=a.jpg alt='A red house'>"
DIVS = b"<div>" * 50_000


def find(html, **headers):
    begin = time.process_time()
    found = find_candidates(Page(url="https://example.org/", html=html, headers=headers), LOOSE)
    assert time.process_time() - begin < 20
    assert found.num_images == len(found.candidates) + sum(found.dropped.values())
    return found


@pytest.mark.parametrize(
    "html",
    [
        DIVS + IMAGE,
        IMAGE * 50_000,
        b"<div><img src=a.jpg>" * 20_000 + b"text " * 10_000,
        b"<a href=x>text <img src=a.jpg></a>" * 5_000,
        b"".join(b"<div><a href=x><img src=%d.jpg></a>" % n for n in range(300)) + b"<a href=x>x</a>" * 50_000,
        b"<img srcset='" + b"a.jpg 1w, " * 100_000 + b"'>",
        b"<img alt='" + b"A red house " * 100_000 + b"' src=a.jpg>",
        b"<script" * 50_000 + b"<img>",
        b"<!--" * 50_000 + b"<img>",
        IMAGE + b"<svg>" * 5_000,
        IMAGE + b'<script type="application/ld+json">{"license": "' + b"x" * 10**6,
        bytes(range(256)) * 2_000 + b"<img src=\xff.jpg alt=\x00\xff>",
    ],
)
def test_hostile_pages_end_soon_and_add_up(html):
    assert all(len(text.text) <= 2000 for candidate in find(html).candidates for text in candidate.texts)


@pytest.mark.parametrize(
    "html",
    [
        DIVS,
        b"<div></q>" * 50_000,
        b"<div title='</div>'>" * 50_000,
        b"<div><!-- </div> -->" * 50_000,
        b"<div><!x </div>" * 50_000,
        b"<div><script></div></script>" * 50_000,
        b'<p ">' + DIVS + b'">',
        b'<p a=b="' + DIVS + b'">',
        b"<div>" * 9_990 + b"<div></div>" * 50_000,
        b"<span>" * 9_990 + b"</q>" * 50_000,
    ],
)
def test_elements_that_are_open_inside_each_other_are_refused(html):
    assert find(html + IMAGE).dropped == {"page nested too deeply": 1}


@pytest.mark.parametrize(
    "part",
    [
        b"<br>",
        b"<p>A text",
        b"<ul><li>One<li>Two</ul>",
        b"<tr><td>A<td>B",
        b"<svg><path d='M0 0'/></svg>",
        b"<div>x</div>",
        b"<script>a = '<div>' + b + '<div>'</script>",
        b"<a title='<div><div>'>x</a>",
        b"<!-- <div> -->",
    ],
)
def test_long_pages_are_read_however_many_elements_they_have(part):
    html = part * 20_000 + IMAGE
    assert not nested_too_deeply(html) and len(find(html).candidates) == 1


@pytest.mark.parametrize(
    "html", [b"<a '" * 10**6, b"<a b=" * 10**6, b"<script>" * 10**6, b"<a " + b" " * 10**7, b"<" * 10**6]
)
def test_open_elements_are_counted_in_one_pass(html):
    begin = time.process_time()
    assert not nested_too_deeply(b"<i></i>" * 10_000 + html)
    assert time.process_time() - begin < 10


@pytest.mark.parametrize(
    "text",
    [
        "," * 16_384,
        " " * 16_384,
        "a.jpg" + " " * 16_379,
        "a.jpg" + "," * 16_379,
        "," * 8_000 + " " * 8_000 + "a.jpg",
        "\N{NO-BREAK SPACE}" * 16_384,
        "\x1c," * 8_000,
        "a.jpg 1w" + "," * 8_000 + " " * 8_000 + "b.jpg 2w",
        "a.jpg " + "1" * 16_000 + "w",
        "a.jpg 1." * 2_000,
    ],
)
def test_a_srcset_is_read_in_one_pass(text):
    begin = time.process_time()
    image_source({"srcset": text}, (), 1024)
    assert time.process_time() - begin < 3


def test_a_name_of_digits_is_read_in_one_pass():
    begin = time.process_time()
    image_source({"src": "px" + "1" * 32 + "_.jpg"}, (), 1024)
    assert time.process_time() - begin < 3


@pytest.mark.parametrize("size", ["9" * 400 + "w", "9" * 400 + "x", "9" * 5000 + "w", "999999.5x"])
def test_a_size_of_hundreds_of_digits_is_no_size(size):
    (found,) = find(f"<img srcset='a.jpg {size}' width=800 alt='A red house'>".encode()).candidates
    assert found.image_url == "https://example.org/a.jpg"


def test_no_text_holds_half_a_character():
    html = b"<img src='\xed\xa0\xbd.jpg' alt='A &#xD83D; \xed\xa0\xbd house'>"
    for content_type in ("", "text/html; charset=utf-8", "text/html; charset=utf-16"):
        for found in find(html, **{"content-type": content_type}).candidates:
            (found.image_url + found.texts[0].text).encode()


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="needs the size of this process")
def test_a_page_that_a_parser_makes_gigabytes_of_costs_no_other(tmp_path, monkeypatch):
    fonts = b"".join(b"<font color=%d>" % number for number in range(3_500))
    (tmp_path / "a.html").write_bytes(b"<p>" + fonts + b"</p>" + b"<p>x</p>" * 3_500 + IMAGE)
    (tmp_path / "b.html").write_bytes(IMAGE.replace(b"house", b"house stands near the old harbour of a small town"))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    monkeypatch.setattr(stage, "_MAX_MEMORY", used + 2**30)
    monkeypatch.setattr(stage.multiprocessing, "parent_process", lambda: "a pool")
    (shard,) = list_inputs([Input(path=tmp_path, base_url="https://example.org")], tmp_path)
    rules = {"pages": LOOSE, "sentences": SentenceConfig(), "fetch": FetchConfig(), "num_buckets": 2}
    function = partial(stage.read_shard, shard=shard, **rules)
    done = run_task(Task(stage="pages", shard=shard.id, folder=tmp_path, function=function, config=""))
    (images,) = [row for row in done.funnel if row.unit == "images"]
    assert (images.num_in, images.num_out, images.dropped) == (2, 1, {"page unreadable": 1})
