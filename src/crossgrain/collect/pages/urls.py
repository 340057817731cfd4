"""Addresses as a browser understands them (WHATWG URL standard), for http and https; everything else is refused.

`urllib.parse` follows RFC 3986 instead: it keeps spaces, backslashes, tabs, `HTTP://` and default ports, so that one
image would have many names. Tracking parameters stay: what they change is the server's business.
"""

import re
import unicodedata
from urllib.parse import quote, unquote_to_bytes

MAX_LENGTH = 4096  # characters; longer ones are data that somebody put into an address

_PLAIN = re.compile(  # what is in its normal form already, as nearly all are; a dot behind a slash may be a segment
    r"https?://[a-z0-9-]+(?:\.[a-z0-9-]+)+(?:/(?:[\w!$&'()*+,;=:@~|\[\]-]|%(?!2[eE]))(?:[\w!$&'()*+,.;=:@%~|\[\]-])*)+/?"
    r"(?:\?[\w!$&()*+,./:;=?@%~|\[\]-]*)?",
    re.ASCII,
)
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):")
_HOST = re.compile(r"[a-z0-9_~!$&'()*+,;=.-]+|\[[0-9a-f:.]+\]")
_KEPT = re.compile(r"[^.。．｡]*[ßς][^.。．｡]*")  # labels with letters that Python's older IDNA would replace
_ENDS = "".join(map(chr, range(33)))  # C0 controls and the space
_IN_PATH = "!$%&'()*+,/:;=@[]|~"  # what stays as it is beside letters, digits and "-._"; "^" is encoded since 2023
_IN_QUERY = _IN_PATH + "?`{}^\\"
_PORTS = {"http": "80", "https": "443"}
_DOTS = re.compile(r"/(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)


class Resolver:
    """Resolves the addresses of one page against its base, which is taken apart once.

    `base` is the page's own address; `href` what its first `<base>` says, if there is one.
    """

    def __init__(self, base: str, href: str = ""):
        page = normalise(base)
        self.base = (Resolver(page).resolve(href) if href and page else None) or page
        path = (self.base or "").partition("?")[0]
        self._scheme, _, rest = path.partition("://")
        host = rest.partition("/")[0]
        self._origin = f"{self._scheme}://{host}"
        self._folder = path[: path.rfind("/") + 1]
        self._path = path

    def resolve(self, reference: str) -> str | None:
        """The absolute address, normalised and without its fragment; None where it is none of http or https."""
        if len(reference) <= MAX_LENGTH and _PLAIN.fullmatch(reference):
            return reference
        reference = _trimmed(reference)
        scheme = _SCHEME.match(reference)
        if scheme:
            name = scheme[1].lower()
            if name not in _PORTS:
                return None
            rest = reference[scheme.end() :]
            if name != self._scheme or rest[:1] in ("/", "\\"):
                return normalise(reference)
            reference = rest  # "http:image.jpg" on a page of the same scheme is relative
        if not self.base or not reference:
            return None
        slashed = reference.replace("\\", "/", 2)
        if slashed.startswith("//"):
            return normalise(f"{self._scheme}:{reference}")
        if slashed.startswith("/"):
            return normalise(self._origin + reference)
        return normalise((self._path if reference.startswith("?") else self._folder) + reference)


def normalise(url: str) -> str | None:
    """An absolute address in its one written form, without fragment; None where it is not a usable http(s) address."""
    if len(url) <= MAX_LENGTH and _PLAIN.fullmatch(url):
        return url
    url = _trimmed(url)
    scheme, colon, rest = url.partition(":")
    scheme = scheme.lower()
    if not colon or scheme not in _PORTS:
        return None
    before, question, query = rest.partition("?")
    host, _, path = before.replace("\\", "/").lstrip("/").partition("/")
    authority = _normal_authority(host, scheme)
    if authority is None:
        return None
    path = _without_dots(quote("/" + path, safe=_IN_PATH, errors="replace"))
    if question:
        query = "?" + quote(query, safe=_IN_QUERY, errors="replace").replace("'", "%27")
    whole = f"{scheme}://{authority}{path}{query}"
    return whole if len(whole) <= MAX_LENGTH else None


def _trimmed(url: str) -> str:
    """Without its fragment, control characters and spaces around it, and tabs and line breaks inside it."""
    url = url.partition("#")[0].strip(_ENDS)
    return url.replace("\t", "").replace("\n", "").replace("\r", "") if not url.isprintable() else url


def _normal_authority(authority: str, scheme: str) -> str | None:
    """Host in lower case and ASCII, and the port where it is not the scheme's; None with a password or without host."""
    if "@" in authority:  # a password is nobody else's to use
        return None
    host, colon, port = authority, "", ""
    if not authority.endswith("]"):
        head, colon, tail = authority.rpartition(":")
        host, port = (head, tail) if colon else (authority, "")
    if port:
        if not (port.isascii() and port.isdigit()):
            return None
        port = port.lstrip("0") or "0"
        if len(port) > 5 or int(port) > 65535:
            return None
    host = host.lower()
    if not host.isascii() or "%" in host:
        try:
            host = _ascii_host(host)
        except (UnicodeError, ValueError):
            return None
    if not _HOST.fullmatch(host):
        return None
    return f"{host}:{port}" if port and port != _PORTS[scheme] else host


def _ascii_host(host: str) -> str:
    host = _KEPT.sub(_punycode, unquote_to_bytes(host).decode("utf-8"))
    return host.encode("idna").decode("ascii").lower()


def _punycode(label: re.Match[str]) -> str:
    return "xn--" + unicodedata.normalize("NFKC", label[0].lower()).encode("punycode").decode("ascii")


def _without_dots(path: str) -> str:
    """`/a/../b/./c` as `/b/c`; escaped dots count as dots, and nothing climbs above the root."""
    if not _DOTS.search(path):
        return path
    kept: list[str] = []
    parts = path.split("/")[1:]
    for number, part in enumerate(parts):
        dots = part.lower().replace("%2e", ".")
        if dots == "..":
            kept = kept[:-1]
        elif dots != ".":
            kept.append(part)
        if dots in (".", "..") and number == len(parts) - 1:
            kept.append("")  # "/a/.." is the folder "/"
    return "/" + "/".join(kept)
