"""A reader of the scenes' English that shares nothing with the generator but its word lists.

It takes phrases apart by words and judges them by the boxes, labels and attributes of a record alone.
"""

import re

from crossgrain.data.records import Region
from crossgrain.data.scenes import words


def _lookup(table):
    return {word: name for name, forms in table.items() for word in forms}


KINDS = _lookup(words.KIND_WORDS)
PLURALS = {words.plural(word): kind for word, kind in KINDS.items()}
COLOURS, SIZES = _lookup(words.COLOUR_WORDS), _lookup(words.SIZE_WORDS)
FILLINGS, CLAUSES = _lookup(words.FILLING_WORDS), _lookup(words.FILLING_CLAUSES)
RELATIONS = _lookup(words.RELATION_PHRASES)
THINGS = {form: None for word in words.THING_WORDS for form in (word, words.plural(word))}
HEADS = {**PLURALS, **KINDS, **THINGS}


def _any(table):
    return "|".join(sorted(map(re.escape, table), key=len, reverse=True))


NOUN = re.compile(
    rf"\b(?:(?P<size>{_any(SIZES)}) )?(?:(?P<filling>{_any(FILLINGS)}) )?(?:(?P<colour>{_any(COLOURS)}) )?"
    rf"(?P<head>{_any(HEADS)})\b(?: (?P<clause>{_any(CLAUSES)})\b)?"
)
RELATION = re.compile(rf" (?P<relation>{_any(RELATIONS)}) (?:the|an?) (?!image|picture)")


def noun_of(match):
    """The attributes that a match of NOUN names, as a dictionary; "kind" is None for a mere "thing"."""
    found = {"kind": HEADS[match["head"]], "colour": COLOURS.get(match["colour"]), "size": SIZES.get(match["size"])}
    return {**found, "filling": FILLINGS.get(match["filling"]) or CLAUSES.get(match["clause"])}


def fits(noun, region: Region):
    size, filling, colour = region.attributes
    actual = {"kind": region.label, "colour": colour, "size": size, "filling": filling}
    return all(value is None or value == actual[name] for name, value in noun.items())


def stands(relation, i, j, regions, apart=0.0):
    """Whether region i stands so to region j, by their boxes and their order (later ones are in front)."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = regions[i].box, regions[j].box
    dx, dy = (bx1 + bx2 - ax1 - ax2) / 2, (by1 + by2 - ay1 - ay2) / 2
    touch = ax1 < bx2 and bx1 < ax2 and ay1 < by2 and by1 < ay2
    return {
        "left of": dx > apart,
        "right of": -dx > apart,
        "above": dy > apart,
        "below": -dy > apart,
        "in front of": touch and i > j,
        "behind": touch and i < j,
    }[relation]


def in_place(text, region: Region):
    """Whether the place that a text names, if any, is where the region's middle is."""
    x, y = (region.box[0] + region.box[2]) / 2, (region.box[1] + region.box[3]) / 2
    said = {
        r"\bleft (corner|edge|side of the image)|on the left$": x < 0.5,
        r"\bright (corner|edge|side of the image)|on the right$": x > 0.5,
        r"the (top|upper)\b": y < 0.5,
        r"the (bottom|lower)\b": y > 0.5,
        r"in the (middle|center)|at the center": abs(x - 0.5) < 0.2 and abs(y - 0.5) < 0.2,
    }
    return all(true for pattern, true in said.items() if re.search(pattern, text))


def described(text, regions):
    """The indices of the regions that a phrase fits: a noun, with a relation to another noun or a place."""
    head = NOUN.search(text)
    assert head, text
    found = [i for i, region in enumerate(regions) if fits(noun_of(head), region)]
    relation = RELATION.search(text, head.end())
    if relation:
        landmark = NOUN.match(text, relation.end())
        assert landmark and landmark.end() == len(text), text
        others = [j for j, region in enumerate(regions) if fits(noun_of(landmark), region)]
        name = RELATIONS[relation["relation"]]
        return [i for i in found if any(i != j and stands(name, i, j, regions) for j in others)]
    return [i for i in found if in_place(text[head.end() :], regions[i])]
