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
_UTF8 = "utf-8"


def as_utf8(html: bytes, content_type: str = "") -> bytes:
    """The page in UTF-8; bytes that its encoding does not have become U+FFFD."""
    for mark, name in _MARKS:
        if html.startswith(mark):
            return html[len(mark) :] if name == _UTF8 else _recoded(html[len(mark) :], name)
    header = _HEADER.search(content_type)
    meta = None if header else _META.search(html, 0, _PRESCAN)
    label = header[1] if header else meta[1].decode("ascii") if meta else ""
    name = _codec(label)
    if name == _UTF8 or (html.isascii() and name != "utf-7"):
        return html
    if name in ("utf-16-le", "utf-16-be"):
        return _recoded(html, name) if header else html  # a meta that could be read is not in UTF-16
    # What is valid UTF-8 with characters of several bytes is hardly ever anything else, whatever a label says.
    if name not in ("iso2022_jp", "iso2022_kr", "hz", "utf-7") and _is_utf8(html):
        return html
    return _recoded(html, name or "cp1252")


def _codec(label: str) -> str:
    """Python's codec for a label, "" where it has none (or a codec that is none of text: "base64", "rot13")."""
    if not label:
        return ""
    try:
        found = codecs.lookup(label)
    except (LookupError, ValueError):
        return ""
    if not found._is_text_encoding or found.name in ("idna", "punycode", "unicode_escape", "raw_unicode_escape"):
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
