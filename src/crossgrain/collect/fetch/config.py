"""What a recipe says about fetching: who asks, how much, how fast, and what counts as too much."""

import os
import re
from collections.abc import Collection
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from crossgrain import __version__
from crossgrain.collect.opt_outs import AI_TOKENS
from crossgrain.config import Count, UserError, configclass

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Pause = Annotated[float, Field(ge=0, allow_inf_nan=False)]
SiteFile = Literal["tdmrep.json", "ai.txt", "trust.txt", "license"]

ROBOTS_BYTES = 512 * 1024  # of a robots.txt that are read; RFC 9309 asks for 500 KiB at least
_LOOPBACK = "CROSSGRAIN_TEST_ALLOW_LOOPBACK"
_OTHERS = re.compile(r"mozilla|chrome|safari|firefox|googlebot|bingbot|^edge?$", re.IGNORECASE)


@configclass
class FetchConfig:
    """How images and pages are fetched. The defaults are slow for one domain and fast over many."""

    agent: str = "crossgrain"  # the product token that robots.txt files may name
    contact: str = ""  # URL or e-mail address where a site's owner reaches you; nothing is fetched without one

    concurrency: Count = 64  # requests at a time, over all domains
    domain_concurrency: Count = 4  # at a time for one registrable domain
    domain_delay: Pause = 0.25  # seconds between the starts of two requests to one
    address_concurrency: Count = 16  # the same for one IP address: many domains may share a server
    address_delay: Pause = 0.02
    max_crawl_delay: Pause = 30.0  # seconds; a site whose robots.txt asks for more is left alone
    sharers: Count = 1  # that ask a site at once, each with its part of these limits: see `for_one_of`

    connect_seconds: Seconds = 5.0
    total_seconds: Seconds = 20.0  # one answer from connecting to its last byte, redirects included
    deadline: Seconds = 3600.0  # the lot; what is left then is transient
    min_rate: Pause = 1024.0  # bytes per second, after `grace_seconds` of a body
    grace_seconds: Seconds = 4.0

    max_image_bytes: Count = 20 * 2**20  # decoded
    max_page_bytes: Count = 8 * 2**20
    max_bytes_in_flight: Count = 256 * 2**20  # bodies that are being read or wait to be taken
    max_redirects: Annotated[int, Field(ge=0, le=10)] = 3
    ports: tuple[int, ...] = (80, 443)

    retries: Annotated[int, Field(ge=0, le=10)] = 2
    backoff_seconds: Seconds = 1.0  # before the first retry, doubled for each further one, times 0.5 to 1.5
    max_backoff_seconds: Seconds = 60.0  # a Retry-After beyond it ends the attempts
    breaker_after: Count = 10  # failures of a domain in a row
    breaker_seconds: Seconds = 300.0  # that it is left alone for then

    # Agents whose prohibitions hold for us too: a site that turns AI crawlers away means this one as well.
    ai_tokens: tuple[str, ...] = AI_TOKENS
    site_files: tuple[SiteFile, ...] = ("tdmrep.json", "ai.txt", "trust.txt", "license")  # beside robots.txt
    site_hours: Annotated[float, Field(gt=0, le=24)] = 24.0  # that they are kept for

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z][A-Za-z_-]{0,39}", self.agent) or _OTHERS.search(self.agent):
            raise ValueError(f"agent is a product token of your own (letters, - and _), not {self.agent!r}")
        if not re.fullmatch(r"[\x21-\x7e]*", self.contact) or set(self.contact) & set("()<>"):
            raise ValueError(f"contact is a URL or an e-mail address, not {self.contact!r}")
        if self.max_bytes_in_flight < 2 * max(self.max_image_bytes, self.max_page_bytes, ROBOTS_BYTES):
            raise ValueError(
                f"max_bytes_in_flight {self.max_bytes_in_flight:,} must hold two bodies of the largest allowed size"
                f" ({ROBOTS_BYTES:,} at least)"
            )
        if not self.ports or not all(0 < port < 65536 for port in self.ports):
            raise ValueError(f"ports are numbers from 1 to 65535, not {self.ports}")

    @property
    def user_agent(self) -> str:
        """The User-Agent header: who asks, and where its owner is reached."""
        return f"{self.agent}/{__version__} (+{self.contact})" if self.contact else f"{self.agent}/{__version__}"

    def tokens(self) -> Collection[str]:
        """Lower-case agents whose prohibitions hold, our own first."""
        return tuple(dict.fromkeys((self.agent.lower(), *(token.lower() for token in self.ai_tokens))))

    def for_one_of(self, sharers: int) -> "FetchConfig":
        """What each of several that fetch from the same sites at once keeps to, so that together they keep to this."""
        return replace(
            self,
            sharers=self.sharers * sharers,
            domain_concurrency=max(self.domain_concurrency // sharers, 1),
            domain_delay=self.domain_delay * sharers,
            address_concurrency=max(self.address_concurrency // sharers, 1),
            address_delay=self.address_delay * sharers,
        )

    def check_contact(self) -> None:
        """Raise UserError where nobody is named whom a site's owner could reach."""
        if not self.contact and not loopback_allowed():
            raise UserError(
                "fetch.contact is empty: name a URL or an e-mail address where the owner of a site reaches you"
            )


def loopback_allowed() -> bool:
    """Whether this is a test that fetches from its own machine; no recipe can say so."""
    return os.environ.get(_LOOPBACK) == "1"
