"""Texts that were made to break the cleaning, or to take long."""

import time

import pytest

from crossgrain.collect.candidates import PageText
from crossgrain.collect.sentences import Cleaner, SentenceConfig
from crossgrain.collect.sentences.cut import cut
from crossgrain.collect.sentences.language import OTHER_BY_PYCLD2, LanguageTest
from crossgrain.collect.sentences.repair import repair

LAIT = Cleaner(SentenceConfig())
NON_CHARACTERS = [chr(plane << 16 | low) for plane in range(1, 17) for low in (0xFFFE, 0xFFFF)]


@pytest.mark.parametrize("sign", NON_CHARACTERS, ids=ascii)
def test_a_non_character_is_taken_out(sign):
    clean, _ = LAIT.clean([PageText("alt", f"A brown dog runs on the grass {sign} and barks{sign}")], "en")
    assert [one.text for one in clean] == ["A brown dog runs on the grass and barks"]


def test_what_pycld2_refuses_to_read_is_another_language():
    test = LanguageTest("en", "both", 0.5, 16)
    assert test.check("a dog runs on the grass \U0003fffe", 6) == (OTHER_BY_PYCLD2, 0.0)


@pytest.mark.parametrize(
    "text",
    [
        "a dog on the grass " + "(" * 10_000 + ")" * 10_000,
        "a dog on the grass " + "( " * 5_000 + " )" * 5_000,
        "a dog on " + "a." * 10_000 + "b",
        "stock photo of " * 1_300,
        "a dog on the grass" + ", stock photo" * 1_500,
        "a dog on the grass" + " 1 day ago" * 2_000,
        "source..." * 2_200,
        "(photo " * 3_000,
        "royalty-free " * 1_500,
    ],
    ids=lambda text: text[-20:],
)
def test_cutting_takes_time_by_length_alone(text):
    start = time.process_time()
    cut(text)
    assert time.process_time() - start < 6


@pytest.mark.parametrize(
    "text",
    ["a dog &" + "amp;" * 5_000, "<b" * 7_000 + ">" * 7_000, "&lt;b" * 4_000 + "&gt;" * 4_000, ("<a" + " " * 499) * 40,
     "<!--" * 5_000],
    ids=lambda text: text[:8],
)  # fmt: skip
def test_repairing_takes_time_by_length_alone(text):
    start = time.process_time()
    repaired = repair(text)
    assert repair(repaired) == repaired
    assert time.process_time() - start < 3


def test_markup_that_was_escaped_again_and_again_is_still_undone():
    assert repair("a &amp;amp;amp;amp;lt;b&amp;amp;amp;amp;gt; dog &amp;amp;amp;amp; a cat") == "a dog & a cat"


def test_no_caption_is_as_long_as_a_page():
    assert LAIT.clean([PageText("alt", "a dog " * 700)], "en")[1] == {"too long": 1}
