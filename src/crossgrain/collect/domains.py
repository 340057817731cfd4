"""Whose site a URL belongs to, by the list of public suffixes."""

from functools import cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from publicsuffixlist import PublicSuffixList


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()


def host_of(url: str) -> str:
    """The host of a URL, in lower case and as names are looked up (punycode); empty where there is none."""
    try:
        host = (urlsplit(url.strip()).hostname or "").rstrip(".")
        return host if host.isascii() else host.encode("idna").decode()
    except (ValueError, UnicodeError):
        return ""


def registrable_domain(url: str) -> str:
    """The part of a URL's host that somebody registered: example.co.uk of img.example.co.uk; an address as it is."""
    host = host_of(url)
    if not host or _is_address(host):
        return host
    return _suffixes().privatesuffix(host) or host


def is_public_suffix(name: str) -> bool:
    """Whether everybody may register below a name: com, co.uk."""
    return not _is_address(name) and _suffixes().privatesuffix(name) is None


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
