"""Undo what web servers do to text: left-over HTML, UTF-8 read as cp1252, control characters, odd blanks.

`repair` is idempotent: every step takes characters away or leaves the text as it is (NFC, the exception, is stable), so
that repeating the steps comes to an end, and the end is what is returned.
"""

import re
import unicodedata
from html import unescape
from itertools import count

_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_TAG = re.compile(
    r"</?(?:a|abbr|b|big|blockquote|br|button|center|cite|code|del|div|dd|dl|dt|em|figcaption|figure|font|h[1-6]|hr|i|iframe"
    r"|img|input|ins|label|li|link|mark|noscript|ol|p|picture|pre|q|s|script|small|source|span|strike|strong|style|sub|sup"
    r"|svg|table|tbody|td|th|tr|tt|u|ul|video|wbr)(?:\s[^<>]{0,500}|/)?>|<!--.{0,500}?-->",
    re.DOTALL | re.IGNORECASE,
)


def _as_cp1252(byte: int) -> str:
    """The character that a browser shows for a byte of cp1252: its five unused bytes are control characters."""
    return bytes([byte]).decode("cp1252", errors="ignore") or chr(byte)


_BYTE_OF = {_as_cp1252(byte): byte for byte in range(0x80, 0x100)}
_TAIL = "[" + re.escape("".join(_as_cp1252(byte) for byte in range(0x80, 0xC0))) + "]"
_SEQUENCE = rf"[\u00c2-\u00df]{_TAIL}|[\u00e0-\u00ef]{_TAIL}{{2}}|[\u00f0-\u00f4]{_TAIL}{{3}}"
_ALL_SEQUENCES = re.compile(rf"(?:[\x00-\x7f]|{_SEQUENCE})+")
_ANY_SEQUENCE = re.compile(_SEQUENCE)
_LEAD = re.compile("[\u00c2-\u00f4]")  # every sequence begins with one, and `re` is quick at looking for one sign
# What is mojibake wherever it stands: Latin-1 letters and typographic marks. A closing quotation mark after a capital
# (the end of a Portuguese "AMANHÃ”") is none, unless the word goes on after it.
_PLAIN_SEQUENCE = re.compile(
    rf"Ã(?![”’»]){_TAIL}|Ã[”’»](?=[a-z])|Â[\u00a0-\u00bf]|â(?:€|\u0080)[{re.escape(_TAIL[1:-1])}]|ï»¿|ðŸ{_TAIL}{{2}}"
)

# Controls, soft hyphens, zero-width and direction marks, variation selectors, tags, non-characters: nothing to read.
_NO_SIGN = (
    r"\x00-\x08\x0e-\x1b\x7f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e"
    r"\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\ufdd0-\ufdef"
)
_NO_SIGN_BEYOND = r"\U000e0000-\U000e0fff" + "".join(rf"\U{plane:04x}fffe\U{plane:04x}ffff" for plane in range(1, 17))
# Joiners belong to the writing of Arabic and Indic scripts, and to nothing else.
_INVISIBLE = re.compile(rf"[{_NO_SIGN}{_NO_SIGN_BEYOND}]|(?<![\u0600-\u0dff])[\u200c\u200d]")
_MAYBE_INVISIBLE = re.compile(rf"[{_NO_SIGN}\u200c\u200d\U0001fffe-\U0010ffff]")  # one range is quick to look for
_C1 = {code: _as_cp1252(code) if len(_as_cp1252(code).encode("utf-8")) > 2 else None for code in range(0x80, 0xA0)}
_C1[0x83] = "ƒ"
_C1 |= {0x8A: "Š", 0x8C: "Œ", 0x8E: "Ž", 0x98: "˜", 0x9A: "š", 0x9C: "œ", 0x9E: "ž", 0x9F: "Ÿ", 0x88: "ˆ", 0x85: "…"}
_HAS_C1 = re.compile(r"[\x80-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_MARKUP = re.compile(r"[&<]")
_MAX_PASSES = 10  # layers of entities and tags; what lies deeper, on purpose, loses the signs that open them


def repair(text: str) -> str:
    """`text` in NFC, without markup, mojibake or invisible characters, every run of blanks one space.

    A lone surrogate becomes U+FFFD, which stays: what it stood for is lost (a rule counts such texts).
    """
    if text.isascii() and text.isprintable() and "&" not in text and "<" not in text:
        return " ".join(text.split())
    for passes in count():
        repaired = _repair_once(text)
        if repaired == text:
            break
        text = repaired if passes < _MAX_PASSES else _MARKUP.sub(" ", repaired)
    return text


def _repair_once(text: str) -> str:
    if "&" in text:
        text = _ENTITY.sub(lambda match: unescape(match[0]), text)
    if "<" in text:
        text = _TAG.sub(" ", text)
    if text.isascii():
        text = text if text.isprintable() else _INVISIBLE.sub("", text)
    else:
        text = _SURROGATE.sub("\ufffd", text)
        text = _without_mojibake(text)
        if _HAS_C1.search(text):
            text = text.translate(_C1)
        text = _INVISIBLE.sub("", text) if _MAYBE_INVISIBLE.search(text) else text
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.split())


def _without_mojibake(text: str) -> str:
    """UTF-8 that was read as cp1252, read again.

    As a whole where everything that is not ASCII is of such sequences, twice or more: then even rare letters are no
    accident. Otherwise only sequences that hardly any language writes.
    """
    if not _LEAD.search(text) or not _ANY_SEQUENCE.search(text):
        return text
    if _ALL_SEQUENCES.fullmatch(text) and len(_ANY_SEQUENCE.findall(text)) > 1:
        return _ANY_SEQUENCE.sub(_decoded, text)
    return _PLAIN_SEQUENCE.sub(_decoded, text)


def _decoded(match: re.Match[str]) -> str:
    """A sequence as its bytes say; as it stands where they are no UTF-8 after all (an overlong form)."""
    try:
        return bytes(_BYTE_OF[character] for character in match[0]).decode("utf-8")
    except UnicodeDecodeError:
        return match[0]
