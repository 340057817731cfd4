"""Cut out of a page what holds neither image nor text: scripts, styles, drawings, comments.

They are half of an ordinary page. The parser would read them all, and their content would pass for text. One pass with
numpy over the bytes finds where they begin, in a third of the time that parsing them takes.
"""

import numpy as np

_COMMENT, _SCRIPT, _STYLE, _DRAWING, _IMAGE, _ENDING = 1, 2, 4, 8, 16, 32
_STARTS = {"!--": _COMMENT, "scr": _SCRIPT, "sty": _STYLE, "svg": _DRAWING, "img": _IMAGE, "amp": _IMAGE, "/s": _ENDING}
_FIRST_TWO = np.zeros(2**16, dtype=np.uint8)  # what the characters behind "<" may begin, in lower case
_THIRD = np.zeros(2**8, dtype=np.uint8)
_THIRD[[ord(letter) for letter in "cvt"]] = _ENDING
for _word, _meaning in _STARTS.items():
    _first, _second, *_third = (ord(letter) | 32 for letter in _word)
    _FIRST_TWO[_first * 256 + _second] |= _meaning
    _THIRD[_third] |= _meaning
_NAMES = {_SCRIPT: b"script", _STYLE: b"style", _DRAWING: b"svg"}
_MAX_DEPTH = 10_000  # open elements: a parser's time grows with their square
_MAX_JSON = 2**18  # bytes of JSON-LD that are looked at


def prune(html: bytes) -> tuple[bytes, bytes]:
    """(`html` without those elements, all JSON-LD of the page); the first is empty where the page has no image.

    A text that names a script inside an attribute may be cut from there to the script's end.
    """
    places, meanings = _tags(html)
    if not (meanings & _IMAGE).any():
        return b"", b""
    chosen = np.flatnonzero(meanings != _IMAGE)
    kept: list[bytes] = []
    linked_data: list[bytes] = []
    done = begun = 0  # up to where it is cut or kept; where the element begins that is being cut
    closing = b""  # what ends that element
    for place, meaning in zip(places[chosen].tolist(), meanings[chosen].tolist(), strict=True):
        if place < done:
            continue
        if closing:
            if meaning == _ENDING and html[place + 2 : place + 2 + len(closing)].lower() == closing:
                done = html.find(b">", place) + 1 or len(html)
                if closing == b"script" and html.find(b"ld+json", begun, begun + 100) > 0:
                    linked_data.append(html[begun : min(done, begun + _MAX_JSON)])
                closing = b""
        elif meaning == _COMMENT:
            if html[place + 1] == ord("!"):
                kept.append(html[done:place])
                done = html.find(b"-->", place + 2) + 3  # "<!-->" is a whole comment
                if done == 2:
                    done = len(html)
        elif meaning != _ENDING and _is_tag(html, place, _NAMES[meaning]):
            kept.append(html[done:place])
            done = begun = place
            closing = _NAMES[meaning]
    if closing != b"script":  # one without an end takes the rest of the page with it
        kept.append(html[done:])
    return b"".join(kept), b"\n".join(linked_data)[:_MAX_JSON]


def _tags(html: bytes) -> tuple[np.ndarray, np.ndarray]:
    """(places, meanings) of the tags that matter, in their order."""
    letters = np.frombuffer(html, dtype=np.uint8)
    places = (letters[:-3] == ord("<")).nonzero()[0]
    first = (letters[places + 1] | np.uint8(32)).astype(np.uint16)
    meanings = _FIRST_TWO[(first << 8) | (letters[places + 2] | np.uint8(32))]
    known = meanings.nonzero()[0]
    places, meanings = places[known], meanings[known]
    meanings = meanings & _THIRD[letters[places + 3] | np.uint8(32)]
    known = meanings.nonzero()[0]
    return places[known], meanings[known]


def _is_tag(html: bytes, place: int, name: bytes) -> bool:
    behind = place + 1 + len(name)
    return html[place + 1 : behind].lower() == name and html[behind : behind + 1] in b" >\n\t\r\f/"


def nested_too_deeply(html: bytes) -> bool:
    """Whether more elements than any page needs are open at one place; those that need no end count as open."""
    letters = np.frombuffer(html, dtype=np.uint8)
    begins = letters[:-1] == ord("<")
    if np.count_nonzero(begins) <= _MAX_DEPTH:
        return False
    places = begins.nonzero()[0]
    following = letters[places + 1]
    steps = np.where(following == ord("/"), -1, (following | np.uint8(32)) - np.uint8(ord("a")) < 26)
    depths = np.cumsum(steps)
    return bool((depths - np.minimum.accumulate(np.minimum(depths, 0))).max() > _MAX_DEPTH)
