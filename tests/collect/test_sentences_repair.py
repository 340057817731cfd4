"""Unicode repair, cutting and splitting."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossgrain.collect.sentences.boilerplate import is_boilerplate, is_file_name
from crossgrain.collect.sentences.cut import cut
from crossgrain.collect.sentences.repair import repair
from crossgrain.collect.sentences.split import count_words, sentences, words_of

# Text as the web has it: pieces that rules look for, put together at random.
PIECES = st.sampled_from(
    [
        "a", "A cat", "the red boat", "on a hill", ".", "!", "?", "...", "…", "©", "(c) 2019", "|", " - ",
        " – ", ":", "(", ")",
        "[", "]", "&amp;", "&lt;b&gt;", "<b>", "</b>", "&#233;", "Ã©", "â€™", "Â", "É”", "\u200b", "\u200d",
        "\x93", "\ufeff",
        "e\u0301", "stock photo", "Stock photo of", "click to enlarge", "Photo:", "credit:", "Getty Images",
        "via", "see",
        "http://x.example.com/a", "www.example.org", "example.com", "IMG_1234.jpg", "dog.png", "1 of 5",
        "(2 of 7)", "Mr.",
        "U.S.", "The Example Times", "Read more", "share this", "copyright", "all rights reserved",
        "ein Bild", "这是画。",
        "Картина", "\n", "\t", "  ", "2019", "#5", "'", '"', "”", "»", "*", "_", "-", "/", "=",
        "image may contain:", "\u0301",
    ]
)  # fmt: skip
WEB_TEXT = st.lists(PIECES, max_size=14).flatmap(lambda parts: st.sampled_from(["".join(parts), " ".join(parts)]))
ANY_TEXT = st.one_of(st.text(max_size=60), WEB_TEXT)


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        ("a cafÃ© by the sea", "a café by the sea"),
        ("itâ€™s a dog â€œRexâ€\x9d", "it’s a dog “Rex”"),
        ("a cafÃƒÂ© in PrÃ¼m", "a café in Prüm"),  # read wrongly twice
        ("ÐšÐ°Ñ€Ñ‚Ð¸Ð½Ð°", "Картина"),
        ("10Â°C on the beach", "10°C on the beach"),
        ("Tom &amp;amp; Jerry &#39;live&#39; &eacute;", "Tom & Jerry 'live' é"),
        ("a <i>red</i> boat<br/>at &lt;b&gt;sea&lt;/b&gt;", "a red boat at sea"),
        ("cafe\u0301", "café"),
        ("\ufeffa\u200b dog\u00ad house\x00", "a dog house"),
        ("\x93a dog\x94", "“a dog”"),
        ("  a \n\t dog\u00a0runs \u3000", "a dog runs"),
        ("👩\u200d🚒 at work", "👩🚒 at work"),
        ("می\u200cخواهم", "می\u200cخواهم"),  # the joiner is part of the spelling
        ("a lone \ud83d half", "a lone \ufffd half"),
    ],
)
def test_repair(broken, whole):
    assert repair(broken) == whole


@pytest.mark.parametrize(
    "text",
    ["ein Café in Köln", "“CAFÉ”", 'o "AMANHÃ” de ontem', "Größe ß“ x", "AT&T and R&B", "5 < 6 and 7 > 3",
     "naïve façade",
     "<The Tower: a Tale>", "Ünïcödé", "Картина на стене", "日本の写真"],
)  # fmt: skip
def test_sound_text_stays(text):
    assert repair(text) == text


@settings(max_examples=150, deadline=None)
@given(ANY_TEXT)
def test_repair_and_cut_are_idempotent(text):
    repaired = repair(text)
    assert repair(repaired) == repaired
    assert unicodedata.is_normalized("NFC", repaired)
    assert repaired == " ".join(repaired.split())
    shorter = cut(repaired)
    assert cut(shorter) == shorter
    assert len(shorter) <= len(repaired)


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x24F, exclude_categories=["Cc"]), max_size=60))
def test_what_cp1252_broke_is_mended(text):
    """Plain text with accents that was broken once comes back, unless it looked broken before."""
    text = repair(text)
    try:
        broken = text.encode("utf-8").decode("cp1252")
    except UnicodeDecodeError:  # a byte that cp1252 does not have
        return
    sequences = sum(not character.isascii() for character in text)
    if sequences > 1 and "\u00a0" not in broken and "\u00ad" not in broken:
        assert repair(broken) == repair(text)


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("Stock photo of a dog on a beach", "a dog on a beach"),
        ("A dog on a beach - Stock Photo", "A dog on a beach"),
        ("Royalty-free stock photography: a red boat", "a red boat"),
        ("a red boat at sea | Example Pictures", "a red boat at sea"),
        ("Example Pictures | a red boat at sea", "a red boat at sea"),
        ("a red boat is at sea - The Example Times", "a red boat is at sea"),
        ("A dog on a beach (Photo: Ann Example/Getty Images)", "A dog on a beach"),
        ("A dog on a beach. Credit: iStock", "A dog on a beach."),
        ("A dog on a beach. Credit...Ann Example", "A dog on a beach."),
        ("A dog on a beach. © 2019 Example Media Ltd. All rights reserved.", "A dog on a beach."),
        ("A dog on a beach, photo by Ann on Unsplash", "A dog on a beach"),
        ("Image caption: A dog on a beach", "A dog on a beach"),
        ("Media captionA dog on a beach", "A dog on a beach"),
        ("3 of 4 A dog on a beach", "A dog on a beach"),
        ("A dog on a beach (3 of 4)", "A dog on a beach"),
        ("click to enlarge: A dog on a beach", "A dog on a beach"),
        ("A dog on a beach - click to enlarge", "A dog on a beach"),
        ("A dog on a beach (click image to view full size)", "A dog on a beach"),
        ("A dog on a beach, see www.example.com/dogs", "A dog on a beach"),
        ("A dog on a beach https://example.com/?q=1#x", "A dog on a beach"),
        ("IMG_1234.JPG A dog on a beach", "A dog on a beach"),
        ("Image may contain: a dog and a beach", "a dog and a beach"),
        ("A photo of a dog on a beach .", "A photo of a dog on a beach."),
    ],
)
def test_cut(text, caption):
    assert cut(text) == caption


@pytest.mark.parametrize(
    "text",
    ["a photo of a cat", "an image of two stars above a boat", "a picture by the sea",
     "the cat and the dog share this photo",
     "a stop sign up close", "a man clicks a pen", "a family views the sea", "a well-known bridge - in fog",
     "Dr. Smith drives"],
)  # fmt: skip
def test_captions_stay_whole(text):
    assert cut(text) == text
    assert not is_boilerplate(text) and not is_file_name(text)


def test_sentences():
    text = 'Dr. Smith sees a dog. "It runs!" he says. In the U.S. there are 3.5 dogs per cat... Who knows? e.g. no one.'
    assert sentences(text) == [
        "Dr. Smith sees a dog.", '"It runs!" he says.', "In the U.S. there are 3.5 dogs per cat...",
        "Who knows? e.g. no one.",
    ]  # fmt: skip
    assert sentences("这是一幅画。在阁楼上！") == ["这是一幅画。", "在阁楼上！"]
    assert sentences("It is warm. Dr. Smith sees J. R. Ewing.") == ["It is warm.", "Dr. Smith sees J. R. Ewing."]
    assert sentences("") == []


@given(WEB_TEXT)
def test_sentences_lose_nothing(text):
    text = repair(text)
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())


def test_words():
    assert words_of("It’s a well-known café, No. 3_b!") == ("it’s", "a", "well-known", "café", "no", "3", "b")
    assert words_of("यह चित्र है") == ("यह", "चित्र", "है")
    assert count_words("这是我们收藏中的一幅画") == 6
    assert count_words("a 画") == 2
