"""What the files of a site say about collecting from it: robots.txt and what has grown around it.

Sources: RFC 9309 (by protego, which reads wildcards); `Content-Signal` and AIPREF's `Content-Usage` lines; TDM
Reservation Protocol, section "TDM File on the Origin Server" (the first rule that matches decides); ai.txt (robots
syntax, patterns without a leading slash); trust.txt (`datatrainingallowed=no`); Really Simple Licensing 1.0, whose
documents robots.txt names in `License:` lines. Every function takes text that was fetched and cannot fail on it.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from urllib.parse import quote, unquote_to_bytes, urlsplit
from xml.etree import ElementTree

from protego import Protego
from yarl import URL

from crossgrain.collect.domains import host_of
from crossgrain.collect.fetch import reasons
from crossgrain.collect.opt_outs import training_preference

_AGENT_LINE = re.compile(r"\s*user(?:-|\s*)agent(?:\s*:|\s|$)([^#]*)", re.IGNORECASE)  # as protego takes it
_AGENT = re.compile(r"[a-z0-9_.-]+")
_MOST_RULES = 10_000
_RESERVED = "=&?:@!,;'()+"  # what stands for itself in either spelling
_PLAIN = re.compile(rf"[\w/.~{_RESERVED}-]*", re.ASCII)
_ESCAPE = re.compile(r"(%(?:2[45aAfF]|(?![0-9a-fA-F]{2})))")  # what is not the same without it: $ % * /
_TRAINING_USES = frozenset({"all", "ai-all", "ai-train", "train-ai"})  # of RSL's vocabulary


@dataclass(frozen=True)
class PathRule:
    """A pattern of paths as in robots.txt (`*`, `$`), and whether it forbids or allows training."""

    pattern: str  # as `plain_pattern` spells it
    forbids: bool

    def matches(self, path: str) -> bool:
        """Whether a path with its query, as `plain_path` spells it, falls under the pattern."""
        return path_matches(self.pattern, path)


@dataclass
class SiteRules:
    """The rules of one origin, put together from its files. `evidence` says which of them were there."""

    robots: "Robots | None" = None
    forbidden: str = ""  # a reason that holds for everything: robots.txt that cannot be reached, trust.txt
    detail: str = ""
    tdm: Sequence[PathRule] = ()
    ai_txt: "Robots | None" = None
    licence: Sequence[PathRule] = ()
    evidence: list[str] = field(default_factory=list)

    def opt_out(self, url: URL) -> str | None:
        """Why this URL may not be fetched, or None."""
        if self.forbidden:
            return self.forbidden
        if self.robots and (reason := self.robots.opt_out(url)):
            return reason
        path = plain_path(url.raw_path_qs)
        if next((rule.forbids for rule in self.tdm if rule.matches(path)), False):
            return "opted out: tdmrep.json"
        if self.ai_txt and self.ai_txt.opt_out(url):
            return "opted out: ai.txt"
        if _longest(self.licence, path):
            return "opted out: RSL license"
        return None


class Robots:
    """A robots.txt, for our token and for the AI agents whose prohibitions we take as meant for us too.

    `tokens`: lower-case agents, our own first.
    """

    def __init__(self, text: str, tokens: Collection[str]):
        self._own, *others = tokens
        text = _for_us(text, tokens)
        self._rules = Protego.parse(text)
        named: set[str] = set()
        preferences: list[tuple[list[str], str, str]] = []  # (agents, kind, value)
        self.licences: list[str] = []
        for agents, field_name, value in _lines(text):
            named.update(agents)
            if field_name == "license" and value:
                self.licences.append(value)
            elif field_name in ("content-signal", "content-usage"):
                preferences.append((agents or ["*"], field_name, value))
        # An agent without a group of its own falls under "*", which has been asked for our own token already.
        self._others = [token for token in others if token in named]
        heard = {self._own if self._own in named else "*", *self._others}
        self._preferences: dict[str, set[PathRule]] = {}
        for agents, kind, value in preferences:
            if not heard.isdisjoint(agents) and (rule := _preference(value)):
                self._preferences.setdefault(kind, set()).add(rule)

    @property
    def crawl_delay(self) -> float:
        """Seconds between two requests that the site asks of us, 0 where it does not."""
        delay = self._rules.crawl_delay(self._own)
        return delay if delay is not None and delay > 0 else 0.0  # neither "nan" nor what is negative

    def opt_out(self, url: URL) -> str | None:
        """Why we may not fetch this URL, or None."""
        text = str(url)
        if not self._rules.can_fetch(text, self._own):
            return reasons.ROBOTS
        if any(not self._rules.can_fetch(text, token) for token in self._others):
            return reasons.ROBOTS_AI
        for kind, rules in self._preferences.items():
            if _longest(rules, plain_path(url.raw_path_qs)):
                shown = {"content-signal": "Content-Signal", "content-usage": "Content-Usage"}[kind]
                return f"opted out: robots.txt {shown}"
        return None


def robots_allows(text: str, tokens: Collection[str], url: str) -> bool:
    """Whether a robots.txt lets all of these lower-case agents (our own first) fetch a URL and train on it."""
    return Robots(text, tokens).opt_out(URL(url)) is None


def tdm_rules(text: str) -> list[PathRule]:
    """The rules of a tdmrep.json in their order; what is no rule is passed over."""
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        return []
    rules = []
    for entry in entries[:_MOST_RULES] if isinstance(entries, list) else [entries]:
        if isinstance(entry, dict) and isinstance(entry.get("location"), str):
            pattern = plain_pattern(entry["location"] or "/")
            rules.append(PathRule(pattern, str(entry.get("tdm-reservation")).strip() == "1"))
    return rules


def ai_txt(text: str, tokens: Collection[str]) -> Robots:
    """An ai.txt: robots syntax whose patterns (`*.jpg`) need no leading slash."""
    return Robots(re.sub(r"(?im)^(\s*(?:dis)?allow\s*:\s*)(?=[^/\s#])", r"\1/", text), tokens)


def forbids_in_trust(text: str) -> bool:
    """Whether a trust.txt says `datatrainingallowed=no`."""
    return re.search(r"(?im)^\s*datatrainingallowed\s*=\s*no\b", text) is not None


def licence_rules(text: str, origin: URL) -> list[PathRule]:
    """What an RSL document says about training, per content: it allows it where one of its licences does, unpaid.

    Contents of other hosts than that of `origin`, whose rules these are, are passed over.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # nothing that a licence needs, and what expands without end
        return []
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError):
        return []
    rules = []
    contents = (element for element in root.iter() if _name(element) == "content")
    for content in islice(contents, _MOST_RULES):
        licences = list(_children(content, "license"))
        pattern = _pattern_of(content.get("url", ""), origin)
        if licences and pattern is not None:
            rules.append(PathRule(pattern, not any(_allows_training(licence) for licence in licences)))
    return rules


def _pattern_of(url: str, origin: URL) -> str | None:
    """The pattern of paths that a URL or a path stands for; None where it is none of this host."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if parts.netloc and host_of(url) != origin.raw_host:
        return None
    return plain_pattern(f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/")


def plain_path(path: str) -> str:
    """A path with its query in the one spelling that patterns are compared in: nothing escaped that need not be.

    RFC 9309, section 2.2.2, and reserved characters besides: sites do not mean `%2C` to be another thing than a comma.
    """
    return _respelled(path, "/")


def plain_pattern(pattern: str) -> str:
    """The same for a pattern, whose `*` and last `$` stay special."""
    return _respelled(pattern.removesuffix("$"), "/*") + "$" * pattern.endswith("$")


def _respelled(path: str, safe: str) -> str:
    if _PLAIN.fullmatch(path):
        return path
    pieces = _ESCAPE.split(path)
    for i, piece in enumerate(pieces):
        if i % 2:
            pieces[i] = "%25" if piece == "%" else piece.upper()
        else:
            pieces[i] = quote(unquote_to_bytes(piece.encode("utf-8", "replace")), safe=safe + _RESERVED)
    return "".join(pieces)


def path_matches(pattern: str, path: str) -> bool:
    """robots.txt's matching: a prefix, in which `*` is anything and a last `$` the end. Linear in time."""
    ends = pattern.endswith("$")
    first, *rest = (pattern[:-1] if ends else pattern).split("*")
    if not path.startswith(first):
        return False
    at = len(first)
    for i, part in enumerate(rest):
        if ends and i == len(rest) - 1:
            return path.endswith(part) and len(path) - len(part) >= at
        at = path.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return not ends or at == len(path)


def _for_us(text: str, tokens: Collection[str]) -> str:
    """A robots.txt whose lines of agents name only those that concern us, in the spelling of `tokens`.

    `GPTBot/1.0` and `*GPTBot*` are GPTBot. A line that names others stays, empty, as a group begins with it. So a file
    costs no more than its rules times our tokens, whoever else it names.
    """
    own = next(iter(tokens))

    def respelled(line: str) -> str:
        match = _AGENT_LINE.match(line)
        if match is None:
            return line
        agent = match[1].strip().lower()
        if agent != "*" and agent not in tokens:
            found = _AGENT.match(agent.lstrip("*"))
            agent = found[0] if found and (found[0] in tokens or own.startswith(found[0])) else ""
        return f"user-agent: {agent}"

    return "\n".join(map(respelled, text.splitlines()))


def _lines(text: str) -> Iterator[tuple[list[str], str, str]]:
    """(agents of the group, field, value) of every line that has both; a line of agents comes with itself."""
    agents: list[str] = []
    in_head = False
    for line in text.splitlines():
        name, colon, value = line.partition("#")[0].partition(":")
        name, value = name.strip().lower(), value.strip()
        if not colon or not name:
            continue
        if name == "user-agent":
            agents = agents if in_head else []
            agents = agents if value in agents else [*agents, value]
            in_head = True
        elif name not in ("sitemap", "license"):
            in_head = False
        yield agents, name, value


def _preference(value: str) -> PathRule | None:
    """A rule of `/art/ train-ai=n`, where the path may be missing; None where nothing is said about training."""
    path, _, rest = value.partition(" ")
    pattern, wishes = (path, rest) if path.startswith(("/", "*")) else ("/", value)
    forbids = training_preference(wishes)
    return None if forbids is None else PathRule(plain_pattern(pattern), forbids)


def _longest(rules: Iterable[PathRule], path: str) -> bool:
    """What the most specific rule says, the stricter one of two alike; no rule forbids nothing."""
    found = [(len(rule.pattern), rule.forbids) for rule in rules if rule.matches(path)]
    return max(found)[1] if found else False


def _name(element: ElementTree.Element) -> str:
    return element.tag.split("}")[-1] if isinstance(element.tag, str) else ""


def _children(element: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (child for child in element if _name(child) == name)


def _uses(licence: ElementTree.Element, name: str) -> set[str]:
    found = (child for child in _children(licence, name) if child.get("type", "usage") == "usage")
    return {word for child in found for word in re.split(r"[\s,]+", child.text or "") if word}


def _allows_training(licence: ElementTree.Element) -> bool:
    if _uses(licence, "prohibits") & _TRAINING_USES:
        return False
    permitted = _uses(licence, "permits")
    if permitted and not permitted & _TRAINING_USES:
        return False
    return all(payment.get("type", "") in ("free", "attribution") for payment in _children(licence, "payment"))
