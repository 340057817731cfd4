"""What robots.txt and the files beside it forbid, each with its signal named."""

import json
import random
import time
from urllib.parse import quote

import pytest
from yarl import URL

from crossgrain.collect.fetch.robots import (
    PathRule,
    Robots,
    SiteRules,
    ai_txt,
    forbids_in_trust,
    licence_rules,
    path_matches,
    plain_path,
    plain_pattern,
    robots_allows,
    tdm_rules,
)

TOKENS = ("crossgrain", "ccbot", "gptbot", "google-extended")
SITE = "https://example.com"


@pytest.mark.parametrize(
    ("text", "path", "reason"),
    [
        ("", "/a.jpg", None),
        ("User-agent: *\nDisallow: /private/", "/private/a.jpg", "opted out: robots.txt"),
        ("User-agent: *\nDisallow: /private/", "/a.jpg", None),
        ("User-agent: *\nDisallow: /p3/*.php$", "/p3/x/y.php", "opted out: robots.txt"),  # urllib.robotparser: allowed
        ("User-agent: *\nDisallow: /p3/*.php$", "/p3/x/y.php?z", None),
        ("User-agent: *\nDisallow: /\nAllow: /images/", "/images/a.jpg", None),
        ("User-agent: *\nDisallow: /\n\nUser-agent: Crossgrain\nAllow: /", "/a.jpg", None),
        ("User-agent: *\nAllow: /\n\nUser-agent: crossgrain\nDisallow: /", "/a.jpg", "opted out: robots.txt"),
        ("User-agent: GPTBot\nDisallow: /", "/a.jpg", "opted out: robots.txt for AI agents"),
        ("User-agent: CCBot/2.0\nUser-agent: Other\nDisallow: /", "/a.jpg", "opted out: robots.txt for AI agents"),
        ("User-agent: Google-Extended\nDisallow: /art/", "/a.jpg", None),
        ("User-agent: OtherBot\nDisallow: /", "/a.jpg", None),
        ("User-agent: Google\nDisallow: /", "/a.jpg", None),  # not Google-Extended
        ("User-agent: crossgrain/1.0\nDisallow: /", "/a.jpg", "opted out: robots.txt"),
        ("User-agent: Crossgrain *\nDisallow: /", "/a.jpg", "opted out: robots.txt"),
        ("User-agent: *GPTBot*\nDisallow: /", "/a.jpg", "opted out: robots.txt for AI agents"),
        ("User agent GPTBot\nDisallow /", "/a.jpg", "opted out: robots.txt for AI agents"),
        ("User-agent: crossgrain\nAllow: /\nUser-agent: Other\nDisallow: /", "/a.jpg", None),
        ("# \n" * 20_000 + "User-agent: GPTBot\nDisallow: /", "/a.jpg", "opted out: robots.txt for AI agents"),
        ("User-agent: *\nDisallow: /\nUser-agent: GPTBot\nAllow: /", "/a.jpg", "opted out: robots.txt"),
        (
            "User-agent: *\nContent-Signal: search=yes, ai-train=no\nAllow: /",
            "/a",
            "opted out: robots.txt Content-Signal",
        ),
        ("User-agent: *\nContent-Signal: ai-train=yes\nAllow: /", "/a", None),
        ("User-agent: Bing\nContent-Signal: ai-train=no\nAllow: /", "/a", None),
        ("User-agent: GPTBot\nContent-Signal: ai-train=no\nAllow: /", "/a", "opted out: robots.txt Content-Signal"),
        ("User-agent: *\nContent-Usage: train-ai=n\nAllow: /", "/a", "opted out: robots.txt Content-Usage"),
        ("User-agent: *\nContent-Usage: /art/ train-ai=n", "/art/a", "opted out: robots.txt Content-Usage"),
        ("User-agent: *\nContent-Usage: /art/ train-ai=n", "/b", None),
        ("User-agent: *\nContent-Usage: /k%c3%bc/ train-ai=n", "/kü/a", "opted out: robots.txt Content-Usage"),
        ("User-agent: *\nContent-Usage: train-ai=n\nContent-Usage: /free/ train-ai=y", "/free/a", None),
        ("Content-Signal: ai-train=no", "/a", "opted out: robots.txt Content-Signal"),  # outside any group
        ("<html><body>Not found</body></html>", "/a", None),
        ("\0\ufffd:::\nUser-agent:\nDisallow", "/a", None),
    ],
)
def test_robots(text, path, reason):
    assert Robots(text, TOKENS).opt_out(URL(SITE + path)) == reason
    assert robots_allows(text, TOKENS, SITE + path) == (reason is None)


def test_crawl_delay_and_licences_are_read():
    robots = Robots("License: https://example.com/l.xml\nUser-agent: *\nCrawl-delay: 2.5\nDisallow: /x", TOKENS)
    assert robots.crawl_delay == 2.5 and robots.licences == ["https://example.com/l.xml"]


def test_a_crawl_delay_for_our_agent_with_a_version_is_read():
    assert Robots("User-agent: crossgrain/1.0\nCrawl-delay: 2\nDisallow: /x", TOKENS).crawl_delay == 2


def test_a_group_of_ten_thousand_agents_costs_no_more_than_its_rules():
    agents = "".join(f"User-agent: bot{i}\n" for i in range(10_000))
    start = time.process_time()
    assert Robots(agents + "Disallow: /\n" * 10_000, TOKENS).opt_out(URL(SITE + "/a")) is None
    assert time.process_time() - start < 10


@pytest.mark.parametrize(("said", "delay"), [("nan", 0), ("-3", 0), ("soon", 0), ("1e999", 0), ("0", 0)])
def test_crawl_delays_that_are_none(said, delay):
    assert Robots(f"User-agent: *\nCrawl-delay: {said}\nDisallow: /x", TOKENS).crawl_delay == delay


def test_whatever_stands_in_a_robots_txt_it_is_read():
    words = ["user-agent", "disallow", "allow", "crawl-delay", "request-rate", "visit-time", "content-signal", ":", "*"]
    words += [
        "$",
        "/",
        "%",
        "%zz",
        "\n",
        "\r",
        "\0",
        "é",
        "1/2s",
        "9e999",
        "0600-0845",
        "http://[",
        "#",
        " ",
        "license",
    ]
    rng = random.Random(0)
    for _ in range(2000):
        text = "".join(rng.choices(words, k=30))
        for robots in (Robots(text, TOKENS), ai_txt(text, TOKENS)):
            assert (
                robots.opt_out(URL(SITE + "/a%20b/$*?q")) in (None, "opted out: robots.txt") and robots.crawl_delay >= 0
            )
        assert licence_rules(text, URL(SITE)) == [] and not forbids_in_trust(text) and tdm_rules(text) == []


def test_tdmrep_takes_the_first_rule_that_matches():
    text = """[{"location": "/free/*.jpg$", "tdm-reservation": 0}, {"location": "/", "tdm-reservation": 1}]"""
    rules = SiteRules(tdm=tdm_rules(text))
    assert rules.opt_out(URL(SITE + "/free/a.jpg")) is None
    assert rules.opt_out(URL(SITE + "/free/a.png")) == "opted out: tdmrep.json"


@pytest.mark.parametrize("location", ["/künstler/*", "/k%c3%bcnstler/*", "/k%C3%BCnstler", "/%6bünstler/"])
@pytest.mark.parametrize("path", ["/künstler/a.jpg", "/k%c3%bcnstler/%61.jpg"])
def test_escapes_are_no_part_of_a_pattern(location, path):
    rules = SiteRules(tdm=tdm_rules(json.dumps([{"location": location, "tdm-reservation": 1}])))
    assert rules.opt_out(URL(SITE + quote(path, "/%"), encoded=True)) == "opted out: tdmrep.json"


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/a%2Db", "/a-b", True),
        ("/a,b", "/a%2cb", True),
        ("/a%2Fb", "/a/b", False),
        ("/a%2fb", "/a%2Fb", True),
        ("/a%2Ab", "/a*b", True),
        ("/a%2Ab", "/axb", False),
        ("/100%", "/100%25", True),
        ("/a%24", "/a$b", True),
        ("/a$", "/a$b", False),
    ],
)
def test_what_is_escaped_is_the_same_save_where_it_means_something(pattern, path, matches):
    assert path_matches(plain_pattern(pattern), plain_path(path)) == matches


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "null", '[1, {}, {"location": 3}]', '"x"'])
def test_a_tdmrep_that_is_none_forbids_nothing(text):
    assert tdm_rules(text) == []


def test_ai_txt_patterns_need_no_slash():
    rules = SiteRules(ai_txt=ai_txt("User-Agent: *\nDisallow: *.jpg\nAllow: *.png", TOKENS))
    assert rules.opt_out(URL(SITE + "/x/a.jpg")) == "opted out: ai.txt"
    assert rules.opt_out(URL(SITE + "/x/a.png")) is None


def test_trust_txt():
    assert forbids_in_trust("# trust\nmember=https://x.example\nDataTrainingAllowed = No\n")
    assert not forbids_in_trust("datatrainingallowed=yes\n# datatrainingallowed=no")


RSL = '<rsl xmlns="https://rslstandard.org/rsl"><content url="{}">{}</content></rsl>'


@pytest.mark.parametrize(
    ("licences", "forbidden"),
    [
        ('<license><prohibits type="usage">ai-train</prohibits></license>', True),
        ('<license><prohibits type="usage">search ai-all</prohibits></license>', True),
        ('<license><permits type="usage">search</permits></license>', True),
        ('<license><permits type="usage">all</permits></license>', False),
        ('<license><permits type="usage">ai-train</permits><payment type="free"/></license>', False),
        ('<license><payment type="purchase"><amount currency="USD">1</amount></payment></license>', True),
        ('<license><prohibits type="geo">EU</prohibits></license>', False),
        ('<license><payment type="crawl"/></license><license><permits type="usage">all</permits></license>', False),
        ("", False),
    ],
)
def test_rsl_licences(licences, forbidden):
    rules = SiteRules(licence=licence_rules(RSL.format("/art/", licences), URL(SITE)))
    assert (rules.opt_out(URL(SITE + "/art/a.jpg")) == "opted out: RSL license") == forbidden
    assert rules.opt_out(URL(SITE + "/b.jpg")) is None


@pytest.mark.parametrize(
    ("url", "forbidden"),
    [
        ("https://example.com/", True),
        ("http://EXAMPLE.com:8080/art/*", True),
        ("//example.com/art/", True),
        ("", True),
        ("/%61rt/", True),
        ("https://other.example/", False),
        ("//other.example/art/", False),
        ("http://[", False),
    ],
)
def test_an_rsl_content_holds_for_its_host(url, forbidden):
    licence = '<license><prohibits type="usage">all</prohibits></license>'
    rules = SiteRules(licence=licence_rules(RSL.format(url, licence), URL(SITE)))
    assert (rules.opt_out(URL(SITE + "/art/a.jpg")) is not None) == forbidden


def test_nested_licences_take_no_long_time():
    nested = "<content>" * 6000 + "<license/>" * 6000 + "</content>" * 6000
    start = time.process_time()
    assert len(licence_rules(f"<rsl>{nested}</rsl>", URL(SITE))) == 1
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "text", ["", "<rsl", "no xml", '<!DOCTYPE r [<!ENTITY a "b">]><r><content url="/"><license/></content></r>']
)
def test_broken_or_hostile_licences_are_passed_over(text):
    assert licence_rules(text, URL(SITE)) == []


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/", "/a", True),
        ("/a", "/ab", True),
        ("/a$", "/ab", False),
        ("/a$", "/a", True),
        ("*.jpg$", "/x/y.jpg", True),
        ("*.jpg$", "/x/y.jpg?z", False),
        ("/a*b*c", "/a-b-c-d", True),
        ("/a*b*c$", "/a-b-c-d", False),
        ("/a*b$", "/ab", True),
        ("/ab*b$", "/ab", False),
        ("/a*", "/b", False),
    ],
)
def test_patterns(pattern, path, matches):
    assert path_matches(pattern, path) == matches == PathRule(pattern, True).matches(path)


def test_a_pattern_of_stars_takes_no_long_time():
    assert not path_matches("/" + "*a" * 2000 + "$", "/" + "a" * 1999)
