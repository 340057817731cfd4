"""Lists of words and phrases of an operator."""

import unicodedata

import pytest

from crossgrain.collect.sentences.phrases import PhraseList


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("エロ", "これはエロ写真です"),
        ("色情", "这是色情图片网站"),
        ("สุนัข", "รูปสุนัขวิ่งในสวน"),
        ("av女優", "人気のAV女優です"),
    ],
)
def test_a_phrase_of_writing_without_blanks_is_found_within_a_text(phrase, text):
    assert PhraseList([phrase]).stand_in(text)


def test_a_phrase_of_other_writing_is_found_as_whole_words_only():
    phrases = PhraseList(["rotten egg", "色情", "@home", "av女優"])
    assert phrases.stand_in("a Rotten  EGG!") and phrases.stand_in("live @home now")
    assert not phrases.stand_in("rotten eggs") and not phrases.stand_in("me@home now") and not phrases.stand_in("色 情")
    assert not phrases.stand_in("lav女優")


def test_a_phrase_is_found_however_its_accents_are_written():
    assert PhraseList([unicodedata.normalize("NFD", "Café")]).stand_in("a café here")
    assert PhraseList(["STRASSE"]).stand_in("die Straße")


def test_a_list_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "list.txt").write_bytes("\ufeffbadword\r\nother  # why\r\n".encode())
    assert PhraseList.read(tmp_path / "list.txt").phrases == ("badword", "other")
