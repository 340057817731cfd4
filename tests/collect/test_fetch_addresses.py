"""Only public addresses, however they are written and whatever a name resolves to later."""

import asyncio
import socket
import threading
from ipaddress import ip_address

import pytest
from yarl import URL

from crossgrain.collect.fetch.addresses import (
    Resolver,
    address_group,
    check_redirect,
    check_url,
    is_public,
    literal_address,
    owner_of,
)
from crossgrain.collect.fetch.reasons import FetchError

PRIVATE = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.1.2.3",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:a9fe:a9fe::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "2a00:1450:4001::5efe:10.0.0.1",
]
PUBLIC = [
    "8.8.8.8",
    "93.184.216.34",
    "172.32.0.1",
    "192.169.0.1",
    "2606:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
]


@pytest.mark.parametrize("text", PRIVATE)
def test_no_address_of_an_inner_network(text):
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses(text):
    assert is_public(ip_address(text))


@pytest.mark.parametrize("text", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_loopback_only_by_the_switch(text):
    assert is_public(ip_address(text), allow_loopback=True) and not is_public(ip_address(text))
    assert not is_public(ip_address("10.0.0.1"), allow_loopback=True)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0x7f.0.0.1", "127.0.0.1"),
        ("0177.0.0.01", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("[::1]", "::1"),
        ("8.8.2056", "8.8.8.8"),
        ("example.com", None),
        ("1.example", None),
    ],
)
def test_addresses_in_every_spelling(host, address):
    assert literal_address(host) == (address and ip_address(address))


@pytest.mark.parametrize("host", ["256.1.1.1", "1.2.3.4.5", "4294967296", "08.1.1.1", "1.2.3.0x", "::zz", "1..2"])
def test_numbers_that_are_no_address(host):
    if host == "1.2.3.0x":  # WHATWG reads an empty hexadecimal number as 0
        assert literal_address(host) == ip_address("1.2.3.0")
        return
    with pytest.raises(FetchError, match="bad URL"):
        literal_address(host)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///etc/passwd", "scheme is not http or https"),
        ("ftp://example.com/a.jpg", "scheme is not http or https"),
        ("gopher://example.com/", "scheme is not http or https"),
        ("data:image/png;base64,AAAA", "scheme is not http or https"),
        ("javascript:alert(1)", "scheme is not http or https"),
        ("/relative.jpg", "scheme is not http or https"),
        ("", "scheme is not http or https"),
        ("http://", "bad URL"),
        ("http://user@example.com/", "credentials in URL"),
        ("http://user:secret@example.com/", "credentials in URL"),
        ("http://example.com\\@127.0.0.1/", "bad URL"),
        ("http://example.com:22/", "port not allowed"),
        ("http://example.com:6379/", "port not allowed"),
        ("http://example.com:99999/", "bad URL"),
        ("http://127.0.0.1/", "address not public"),
        ("http://127.1/", "address not public"),
        ("http://2130706433/", "address not public"),
        ("http://0x7f000001/", "address not public"),
        ("http://0177.0.0.1/", "address not public"),
        ("http://169.254.169.254/latest/meta-data/", "address not public"),
        ("http://[::ffff:127.0.0.1]/", "address not public"),
        ("http://[::1]/", "address not public"),
        ("http://[fd00:ec2::254]/", "address not public"),
        ("http://[64:ff9b::7f00:1]/", "address not public"),
        ("http://１２７.０.０.１/", "address not public"),  # full-width digits, which IDNA makes plain
        ("http://127。0。0。1/", "address not public"),
        ("http://exa mple.com/", "bad URL"),
        ("http://example.com\r\nHost: inside/", "bad URL"),
        ("http://" + "a" * 5000 + ".com/", "bad URL"),
    ],
)
def test_urls_that_are_refused_before_anything_is_asked(url, reason):
    with pytest.raises(FetchError) as refused:
        check_url(url, (80, 443))
    assert refused.value.reason == reason


def test_urls_that_are_asked_for():
    assert str(check_url("https://example.com/a b.jpg#part", (80, 443))) == "https://example.com/a%20b.jpg"
    assert check_url("https://bücher.example/ä.jpg", (443,)).raw_host == "xn--bcher-kva.example"
    assert check_url("https://BÜCHER.example./", (443,)).raw_host == "xn--bcher-kva.example."
    assert str(check_url("http://134744072/x", (80,))) == "http://8.8.8.8/x"
    assert str(check_url("http://[2606:4700::1111]:80/a%2Fb", (80,))) == "http://[2606:4700::1111]/a%2Fb"


@pytest.mark.parametrize(
    "url", ["https://example.com/fetch/https%3A%2F%2Fe.org?x=%2C%40", "https://example.com/%7ea%2fb?q=a+b%20c"]
)
def test_escapes_of_a_url_stay_as_they_are(url):
    assert str(check_url(url, (443,))) == url
    assert str(check_redirect(URL("https://example.com/a"), url.removeprefix("https:"), (443,))) == url


def test_whose_limits_a_request_counts_against():
    assert owner_of("img.a.example.co.uk") == "example.co.uk" == owner_of("example.co.uk")
    assert owner_of("someone.github.io") == "someone.github.io"
    assert owner_of("10.1.2.3") == "10.1.2.3" and owner_of("2606:4700::1111") == "2606:4700::1111"
    assert address_group("2001:db8:1:2:3::1") == address_group("2001:db8:1:2::9") != address_group("2001:db8:1:3::1")


class Names:
    """A name server that gives its answers one after the other, the last one for ever."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), 0

    def __call__(self, host):
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if isinstance(answer, Exception):
            raise answer
        return answer


def resolve(names, times=1, **options):
    async def main():
        resolver = Resolver(names, **{"allow_loopback": False, "timeout": 30.0, **options})
        try:
            return [await resolver.resolve("name.example", 80) for _ in range(times)]
        finally:
            await resolver.close()

    return asyncio.run(main())


def test_every_address_of_a_name_must_be_public():
    assert [a["host"] for a in resolve(Names(["8.8.8.8", "2606:4700::1111"]))[0]] == ["8.8.8.8", "2606:4700::1111"]
    for inner in ("10.0.0.1", "::1", "::ffff:169.254.169.254"):
        with pytest.raises(OSError, match="address not public"):
            resolve(Names(["8.8.8.8", inner]))


def test_a_name_that_is_bound_anew_reaches_nothing():
    names = Names(["8.8.8.8"], ["127.0.0.1"])
    assert [a[0]["host"] for a in resolve(names, times=5)] == ["8.8.8.8"] * 5 and names.asked == 1
    with pytest.raises(OSError, match="address not public"):
        resolve(Names(["8.8.8.8"], ["127.0.0.1"]), times=2, seconds=0.0)


def test_a_socket_is_opened_to_public_addresses_only():
    resolver = Resolver(Names([]), allow_loopback=False, timeout=1.0)
    with pytest.raises(FetchError, match="address not public"):
        resolver.open_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("192.168.0.1", 80)))
    resolver.open_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("8.8.8.8", 80))).close()


def test_many_who_ask_for_one_name_ask_once_and_failures_are_told_apart():
    names = Names(socket.gaierror(socket.EAI_NONAME, "unknown"))

    async def main(names):
        resolver = Resolver(names, allow_loopback=False, timeout=30.0)
        found = await asyncio.gather(*(resolver.addresses("a.example") for _ in range(20)), return_exceptions=True)
        await resolver.close()
        return {error.reason for error in found}

    assert asyncio.run(main(names)) == {"unknown host"} and names.asked == 1
    assert asyncio.run(main(Names(socket.gaierror(socket.EAI_AGAIN, "later")))) == {"name server error"}
    assert asyncio.run(main(Names([]))) == {"unknown host"}


def test_a_name_server_that_never_answers_holds_nobody():
    release = threading.Event()

    def silent(host):
        release.wait(60)
        answered.append(host)
        return ["8.8.8.8"]

    answered = []
    with pytest.raises(OSError, match="name server error"):
        resolve(silent, timeout=0.2)
    assert not answered
    release.set()
