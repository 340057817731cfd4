"""Pages that would keep a parser busy for minutes: at every tag it may look through all elements open there."""

import re
from collections import Counter

import numpy as np

_MAX_STEPS = 10**8  # open elements, summed over all tags; a second of parsing
_NEVER_MANY_OPEN = frozenset(  # void elements and shapes, and those that the next of their kind or their parent ends
    b"area base basefont bgsound br col embed frame hr image img input keygen link meta param source track wbr "
    b"circle ellipse line path polygon polyline rect stop use "
    b"caption colgroup dd dt li option p tbody td tfoot th thead tr".split()
)
_ATTRIBUTES = rb"""(?:[\s/]++|[^\s/>][^\s/>=]*+(?:\s*+=\s*+(?:"[^"]*+"|'[^']*+'|(?:[^\s>"'][^\s>]*+)?+))?+)*+"""
_TOKEN = re.compile(
    rb"""<!--(?:-?>|.*?(?:--!?>|\Z))  # a comment
    | <(iframe|noembed|noframes|script|style|textarea|title|xmp)(?=[\s/>])ATTRIBUTES>?+.*?(?:</\1(?=[\s/>])|\Z)
    | <(/?)([a-z][^\s/>]*+)ATTRIBUTES  # an end or a start, and its name
    | <[!?/][^>]*+""".replace(b"ATTRIBUTES", _ATTRIBUTES),
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)


def nested_too_deeply(html: bytes) -> bool:
    """Whether a page has far more elements open inside each other than any page needs."""
    if np.count_nonzero(np.frombuffer(html, dtype=np.uint8) == ord("<")) ** 2 <= 2 * _MAX_STEPS:
        return False
    open_elements: Counter[bytes] = Counter()
    depth = steps = 0
    for token in _TOKEN.finditer(html):
        name = token[3]
        if name is not None:
            name = name.lower()
            if name not in _NEVER_MANY_OPEN:
                change = 1 if not token[2] else -1 if open_elements[name] else 0
                open_elements[name] += change
                depth += change
            steps += depth
            if steps > _MAX_STEPS:
                return True
    return False
