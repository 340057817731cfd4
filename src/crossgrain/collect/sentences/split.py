"""Where one sentence ends and the next begins, and what counts as a word."""

import re
from functools import lru_cache

from crossgrain.collect.sentences.wordlists import word_set

# Signs that belong to letters but are no letters to `\w`: Latin accents, Hebrew and Arabic points, Indic and
# South-East Asian vowels.
MARKS = (
    "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0903\u093a-\u094f\u0951-\u0957\u0962\u0963"
    "\u0981-\u0983\u09bc-\u09cd\u0a01-\u0a03\u0a3c-\u0a4d\u0a70\u0a71\u0a81-\u0a83\u0abc-\u0acd\u0b01-\u0b03"
    "\u0b3c-\u0b57\u0b82\u0bbe-\u0bcd\u0c00-\u0c04\u0c3e-\u0c56\u0c81-\u0c83\u0cbc-\u0cd6\u0d00-\u0d03\u0d3b-\u0d4d"
    "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ecd\u102b-\u103e\u17b6-\u17d3\u200c\u200d"
)
_WORD = re.compile(rf"[^\W_](?:[^\W_]+|[{MARKS}]+|['’\u2010\u2011-](?=[^\W_]))*")
# ASCII in lower case, what is no letter or digit as a blank: for texts whose words hold neither "'" nor "-".
_SPACED = bytes(ord(chr(code).lower()) if code < 128 and chr(code).isalnum() else 32 for code in range(256))
_ASCII_WORD = re.compile(r"[a-z0-9]+(?:['-][a-z0-9]+)*")
_IDEOGRAPH = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # or kana
_THAI_LIKE = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
UNSPACED = _IDEOGRAPH + _THAI_LIKE  # letters of writing without blanks between words
_IDEOGRAPHS, _THAI_LIKES = re.compile(f"[{_IDEOGRAPH}]"), re.compile(f"[{_THAI_LIKE}]")

_END = re.compile(  # one set of signs in front is what `re` finds quickest
    r"[.!?…。！？।؟](?:"
    r"(?<=[.!?…])[\"'”’»)\]]*\s+(?=[\"'“‘«(\[¿¡]*[^\W_a-z])"  # an end, a blank, and not a small letter
    r"|(?<=[。！？])[」』”’）]*\s*(?=\S)|(?<=[।؟])\s+)"
)
_ABBREVIATIONS = word_set(
    "mr mrs ms dr prof st rev gen gov sen rep col capt lt sgt jr sr co corp inc ltd no vol fig pp ca vs etc e.g i.e "
    "approx dept est jan feb mar apr jun jul aug sep sept oct nov dec"
)
_INITIALS = re.compile(r"[^\W\d_](?:\.[^\W\d_])*")  # "J", "U.S"


@lru_cache(maxsize=64)  # every rule asks for the words of the same text, one after another
def words_of(text: str) -> tuple[str, ...]:
    """The words of `text` in lower case; "it's" and "well-known" are one each, and so is a run of ideographs."""
    if not text.isascii():
        return tuple(_WORD.findall(text.lower()))
    if "'" in text or "-" in text:
        return tuple(_ASCII_WORD.findall(text.lower()))
    return tuple(text.encode().translate(_SPACED).decode().split())


@lru_cache(maxsize=64)
def count_words(text: str) -> int:
    """How many words `text` has; writing without blanks is counted by its characters.

    Two ideographs or kana are taken for a word, and four letters of Thai, Lao, Khmer or Burmese: about the average.
    """
    words = words_of(text)
    if text.isascii():
        return len(words)
    ideographs, letters = len(_IDEOGRAPHS.findall(text)), len(_THAI_LIKES.findall(text))
    if not ideographs and not letters:
        return len(words)
    spaced = sum(not _IDEOGRAPHS.search(word) and not _THAI_LIKES.search(word) for word in words)
    return spaced + (ideographs + 1) // 2 + (letters + 3) // 4


def sentences(text: str) -> list[str]:
    """The sentences of a text without line breaks; joined with spaces (none after "。") they are the text again."""
    found, start = [], 0
    for match in _END.finditer(text):
        if not _is_abbreviated(text[start : match.end()]):
            found.append(text[start : match.end()].strip())
            start = match.end()
    found.append(text[start:].strip())
    return [sentence for sentence in found if sentence]


def _is_abbreviated(text: str) -> bool:
    """Whether a text that ends like a sentence ends with an abbreviation instead."""
    if not (last := text.rsplit(None, 1)[-1:]):
        return False
    word, stop, after = last[0].lstrip("([\"'“‘«").rpartition(".")
    if not stop or after.strip("\"'”’»)]"):
        return False
    return word.lower() in _ABBREVIATIONS or _INITIALS.fullmatch(word) is not None
