"""In which encoding a page is written: byte order mark, HTTP header, meta element, then UTF-8 or windows-1252."""

import codecs
import re

_META = re.compile(rb"""<meta[^>]{0,300}?charset\s*=\s*["']?\s*([a-zA-Z0-9_:.\-]{2,40})""", re.IGNORECASE)
_PRESCAN = 4096  # bytes; the standard stops after 1,024, pages do not
_HEADER = re.compile(r"""charset\s*=\s*["']?\s*([a-zA-Z0-9_:.\-]{2,40})""", re.IGNORECASE)
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
# Labels that browsers read as a larger encoding than the one they name (WHATWG Encoding standard, section 4.2).
_LARGER = {
    "iso8859-1": "cp1252",
    "ascii": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
}
_ALIASES = {  # labels of that standard that Python does not know
    **dict.fromkeys(("unicode-1-1-utf-8", "unicode11utf8", "x-unicode20utf8"), "utf-8"),
    **dict.fromkeys(("ucs-2", "unicode"), "utf-16-le"),
    "iso88592": "iso8859-2",
    **dict.fromkeys(("csiso88596e", "csiso88596i", "iso-8859-6-e", "iso-8859-6-i"), "iso8859-6"),
    "sun_eu_greek": "iso8859-7",
    **dict.fromkeys(("csiso88598e", "iso-8859-8-e", "visual"), "iso8859-8"),
    **dict.fromkeys(("csiso88598i", "iso-8859-8-i", "logical"), "iso8859-8"),
    **dict.fromkeys(("koi", "koi8"), "koi8-r"),
    "koi8-ru": "koi8-u",
    **dict.fromkeys(("csmacintosh", "mac", "x-mac-roman"), "mac-roman"),
    **dict.fromkeys(("x-mac-cyrillic", "x-mac-ukrainian"), "mac-cyrillic"),
    **dict.fromkeys(("windows-874", "dos-874"), "cp874"),
    **{f"x-cp{number}": f"cp{number}" for number in range(1250, 1259)},
    **dict.fromkeys(("csgb2312", "gb_2312-80", "x-gbk"), "gb18030"),
    **dict.fromkeys(("cn-big5", "x-x-big5"), "big5hkscs"),
    **dict.fromkeys(("cseucpkdfmtjapanese", "x-euc-jp"), "euc_jp"),
    **dict.fromkeys(("windows-31j", "x-sjis"), "cp932"),
    **dict.fromkeys(("cseuckr", "csksc56011987", "iso-ir-149", "ks_c_5601-1989", "ksc_5601", "windows-949"), "cp949"),
}
_NO_TEXT = ("idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape")
_UNKNOWN = ("utf-7", "utf-32")  # to browsers
_SEVEN_BIT = ("iso2022_jp", "iso2022_kr", "hz")  # what they write is ASCII, and valid UTF-8
_UTF8 = "utf-8"


def as_utf8(html: bytes, content_type: str = "") -> bytes:
    """The page in UTF-8; bytes that its encoding does not have become U+FFFD."""
    for mark, name in _MARKS:
        if html.startswith(mark):
            return html[len(mark) :] if name == _UTF8 else _recoded(html[len(mark) :], name)
    header = _HEADER.search(content_type)
    declared = _codec(header[1]) if header else ""
    meta = None if declared else _META.search(html, 0, _PRESCAN)
    name = _codec(meta[1].decode("ascii")) if meta else declared
    if name in _SEVEN_BIT:
        return _recoded(html, name)
    if name in ("utf-16-le", "utf-16-be"):  # where it is, every tag has a zero in it
        return _recoded(html, name) if b"\0" in html[:_PRESCAN] else html
    # What is valid UTF-8 with characters of several bytes is hardly ever anything else, whatever a label says.
    if name == _UTF8 or html.isascii() or _is_utf8(html):
        return html
    return _recoded(html, name or "cp1252")


def _codec(label: str) -> str:
    """Python's codec for a label, "" where it has none (or a codec that is none of text: "base64", "rot13")."""
    try:
        found = codecs.lookup(_ALIASES.get(label.lower(), label))
    except (LookupError, ValueError):
        return ""
    if not found._is_text_encoding or found.name in _NO_TEXT or found.name.startswith(_UNKNOWN):
        return ""
    if found.name.startswith("utf-16"):
        return "utf-16-be" if found.name == "utf-16-be" else "utf-16-le"
    return _LARGER.get(found.name, found.name)


def _is_utf8(html: bytes) -> bool:
    try:
        html.decode(_UTF8)
    except UnicodeDecodeError:
        return False
    return True


def _recoded(html: bytes, name: str) -> bytes:
    return html.decode(name, "replace").encode(_UTF8, "replace")
