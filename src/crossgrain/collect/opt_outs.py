"""Opt-outs from text and data mining that a page, a response or an image file carries itself.

What stands beside them, in robots.txt and the other files of a site, is read by `collect.fetch.site_rules`. Every
answer is None or a reason that opens with "opted out:" and names the signal, so that a report can count them.

Sources: the five directives of `X-Robots-Tag` and robots metas in use (noai, noimageai, noindex, noimageindex, noml);
TDM Reservation Protocol (W3C community group report, 10 May 2024); IETF AIPREF drafts (`Content-Usage`) and
`Content-Signal`; PLUS/IPTC Data Mining property (IPTC Photo Metadata 2023.1); training and data mining assertions of
C2PA 1.x and CAWG 1.0.
"""

import binascii
import contextlib
import re
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# Agents that collect for AI. A site that turns these away says no to collecting for AI, whoever does it.
AI_TOKENS = (
    "ai2bot",
    "amazonbot",
    "anthropic-ai",
    "applebot-extended",
    "bytespider",
    "ccbot",
    "claudebot",
    "cohere-ai",
    "cohere-training-data-crawler",
    "diffbot",
    "facebookbot",
    "google-extended",
    "gptbot",
    "img2dataset",
    "laion-huggingface-processor",
    "laiondownloader",
    "meta-externalagent",
    "omgili",
    "omgilibot",
    "panscient.com",
    "timpibot",
    "webzio-extended",
)
OWN_TOKEN = "crossgrain"

_NO = ("noai", "noimageai", "noml", "disallowaitraining", "noindex", "noimageindex", "none")
_AGENT = re.compile(r"\s*(\*|[a-z_][\w.-]*)(?:/[\w.-]*)?\s*:")
_LIMIT = re.compile(r"\bmax-(?:snippet|image-preview|video-preview)\s*:\s*[^\s,;]*")  # their "none" forbids nothing
_UNAVAILABLE = re.compile(r"\bunavailable_after\s*:\s*((?:[a-z]{3,9},)?[^,;]*)")
# Categories of use whose "no" forbids training: AIPREF's present names and those of its earlier drafts.
_TRAINING = ("train-ai", "ai-train", "train-genai", "ai", "genai", "tdm", "bots")
_MAX_TEXT = 2**20  # bytes that a compressed chunk of text may inflate to


def page_opt_out(
    metas: Sequence[tuple[str, str]], headers: Mapping[str, str], tokens: Collection[str] = AI_TOKENS
) -> str | None:
    """Why the images of a page may not be collected, or None.

    `metas`: lower-case name and content of its meta elements; `headers`: lower-case names, several of one name joined
    by line breaks; `tokens`: lower-case agents beside `OWN_TOKEN` whose prohibitions hold for us.
    """
    for name, content in metas:
        if name == "robots" or name == OWN_TOKEN or name in tokens:
            word = _first_no(_without_values(content.lower()))
            if word:
                return f"opted out: meta {word}"
        elif name == "tdm-reservation" and content.strip() == "1":
            return "opted out: meta tdm-reservation"
        elif name in ("content-usage", "content-signal") and forbids_training(content):
            return f"opted out: meta {name}"
    return response_opt_out(headers, tokens)


def response_opt_out(headers: Mapping[str, str], tokens: Collection[str] = AI_TOKENS) -> str | None:
    """Why a response may not be collected, by its headers (as in `page_opt_out`), or None."""
    if "x-robots-tag" in headers and (word := _robots_tag(headers["x-robots-tag"], tokens)):
        return f"opted out: X-Robots-Tag {word}"
    if re.search(r"(?:^|[,\n])\s*1", headers.get("tdm-reservation", "")):
        return "opted out: header tdm-reservation"
    for name, shown in (("content-usage", "Content-Usage"), ("content-signal", "Content-Signal")):
        if name in headers and forbids_training(headers[name]):
            return f"opted out: header {shown}"
    return None


def forbids_training(preferences: str) -> bool:
    """Whether `train-ai=n, search=y` (Content-Usage) or `ai-train=no` (Content-Signal) says no to training."""
    return training_preference(preferences) is True


def training_preference(preferences: str) -> bool | None:
    """True where training is forbidden, False where it is allowed, None where nothing is said of it."""
    answers = set()
    for part in re.split(r"[,;\n]", preferences.lower()):
        name, _, value = part.partition("=")
        value = value.strip()
        if name.strip() in _TRAINING and value[:1] in ("n", "y", "?"):
            answers.add(value[:1] == "n" or value == "?0")
    return True in answers if answers else None


def embedded_opt_out(data: bytes) -> str | None:
    """Why an image file may not be used, by the metadata inside it (XMP with IPTC's fields, C2PA), or None.

    Metadata are searched, not parsed: what is broken or unknown is looked through all the same. Of JPEG, PNG and WebP
    the coded pixels are left out; of what is none of these, or has no sound structure, all is searched.
    """
    text = _metadata(data)
    if b"DataMining" in text:
        for match in _DATA_MINING.finditer(text):
            # DMI-PROHIBITED and its narrower forms, as URI or in the words of the vocabulary.
            if b"prohibited" in match[0].lower():
                return "opted out: IPTC plus:DataMining"
    if b"reservation" in text and _TDM.search(text):
        return "opted out: XMP tdm:reservation"
    if (at := text.find(b"training-mining")) >= 0:
        for match in _C2PA.finditer(text, at):
            if match[2] != b"allowed":
                return f"opted out: C2PA training-mining {match[1].decode()}"
    return None


def _first_no(text: str) -> str | None:
    words = re.split(r"[,;\s]+", text)
    return next((("noindex" if word == "none" else word) for word in _NO if word in words), None)


def _without_values(text: str) -> str:
    """Directives without the values of those that have one; where a time is over, "noindex" stands before it."""
    if ":" not in text:
        return text
    return _UNAVAILABLE.sub(lambda match: ("", "noindex ")[_is_past(match[1])] + match[1], _LIMIT.sub("", text))


def _is_past(date: str) -> bool:
    """Whether a date in one of HTTP's or ISO's forms is over; one that cannot be read is not."""
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            when = read(date.strip().upper())
            return (when if when.tzinfo else when.replace(tzinfo=UTC)) < datetime.now(UTC)
    return False


def _robots_tag(value: str, tokens: Collection[str]) -> str | None:
    for line in value.lower().split("\n"):
        words = []
        for_us = True
        for part in _without_values(line).split(","):
            if agent := _AGENT.match(part):  # for all words up to the next agent
                for_us = agent[1] in ("*", OWN_TOKEN) or agent[1] in tokens
                part = part[agent.end() :]
            if for_us:
                words.append(part)
        if word := _first_no(",".join(words)):
            return word
    return None


_DATA_MINING = re.compile(
    rb"DataMining(?:\s*=\s*[\"'][^<\"']{1,300}"
    # As an element: its tag, and what stands in it, values in elements of RDF included, with the tag that ends it.
    rb"|(?!\s*=)(?:(?!DataMining)[^<>]){0,600}"
    rb">(?:(?<=/>)|(?:(?!</?[\w:.-]{0,30}DataMining).){0,800}(?:</[\w:.-]{0,30}DataMining)?))",
    re.DOTALL,
)
_TDM = re.compile(rb"\btdm(?:rep)?[:_-]reservation(?:\s*=\s*[\"']|[^<>]{0,100}>)\s*1\b")
_C2PA = re.compile(
    rb"(?:c2pa|cawg)\.(data_mining|ai_training|ai_generative_training)\b(?:(?!c2pa\.|cawg\.).){0,600}?"
    rb"use.{1,6}?(notAllowed|constrained|allowed)",
    re.DOTALL,
)


def _metadata(data: bytes) -> bytes:
    if data.startswith(b"\xff\xd8"):
        return _before_scan(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"".join(_png_texts(data))
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return b"".join(_riff_chunks(data))
    return data


def _before_scan(jpeg: bytes) -> bytes:
    """JPEG's segments up to its first scan; what APP11 segments carry comes last, and as one piece.

    A C2PA manifest of more than 64 KB is cut between two segments.
    """
    parts, manifest, at = [], [], 2
    while at + 4 <= len(jpeg) and jpeg[at] == 0xFF:
        marker = jpeg[at + 1]
        if marker == 0xDA:
            return b"".join((*parts, *manifest))
        if marker == 0xFF or 0xD0 <= marker <= 0xD8 or marker == 1:  # padding, or a marker without a length
            at += 1 if marker == 0xFF else 2
            continue
        length = max(int.from_bytes(jpeg[at + 2 : at + 4]), 2)
        segment = jpeg[at + 4 : at + 2 + length]
        if marker == 0xEB:
            # Identifier (2 bytes), box number (2), sequence number (4); from the second on, the box's head again (8).
            manifest.append(segment[16 if manifest else 8 :])
        else:
            parts.append(segment)
        at += 2 + length
    return jpeg


def _png_texts(png: bytes) -> Iterator[bytes]:
    """All chunks of a PNG but its pixels; text that does not show in them is unpacked, a bounded amount."""
    at, left = 8, 16
    while at + 12 <= len(png):
        length, kind = int.from_bytes(png[at : at + 4]), png[at + 4 : at + 8]
        body = png[at + 8 : at + 8 + length] if kind not in (b"IDAT", b"fdAT") else b""
        yield body
        if left and (text := _hidden_text(kind, body)):
            left -= 1
            yield text
        at += 12 + length


def _hidden_text(kind: bytes, body: bytes) -> bytes:
    """What is packed in a chunk of text, or stands there in hexadecimal, as a "Raw profile type" does."""
    if kind not in (b"tEXt", b"zTXt", b"iTXt"):
        return b""
    name, _, text = body.partition(b"\0")
    packed = kind == b"zTXt" or (kind == b"iTXt" and text[:1] == b"\1")
    if packed:
        text = text[1:] if kind == b"zTXt" else text[2:].split(b"\0", 2)[-1]
        with contextlib.suppress(zlib.error):
            text = zlib.decompressobj().decompress(text, _MAX_TEXT)
    if name.startswith(b"Raw profile type"):  # a line with its name, one with its length, and lines of digits
        digits = b"".join(text.strip().split(b"\n", 2)[-1].split())
        with contextlib.suppress(binascii.Error):
            return binascii.unhexlify(digits[: len(digits) // 2 * 2])
    return name + b" " + text if packed else b""


def _riff_chunks(webp: bytes) -> Iterator[bytes]:
    at = 12
    while at + 8 <= len(webp):
        length = int.from_bytes(webp[at + 4 : at + 8], "little")
        if webp[at : at + 4] not in (b"VP8 ", b"VP8L", b"ALPH", b"ANMF"):
            yield webp[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
