"""Noun phrases: things, groups of things, and descriptions that single one thing out."""

from collections.abc import Sequence

from crossgrain.data.scenes.claims import COLUMNS, ROWS, Extreme, Noun, Phrase, Placed, Related, singles_out
from crossgrain.data.scenes.words import (
    COLOUR_WORDS,
    EXTREME_WORDS,
    FILLING_CLAUSES,
    FILLING_WORDS,
    KIND_WORDS,
    NUMBERS,
    RELATION_PHRASES,
    SIZE_WORDS,
    THING_WORDS,
    one_of,
    plural,
    with_article,
)
from crossgrain.data.scenes.world import RELATIONS, Dice, Scene, Thing

ATTRIBUTES = ("kind", "colour", "size", "filling")  # in the order of the fields of Noun


def full_noun(thing: Thing) -> Noun:
    """The noun that names all four attributes."""
    return Noun(thing.kind, thing.colour, thing.size, thing.filling)


def part_of(noun: Noun, attributes: Sequence[str]) -> Noun:
    """The noun with only these attributes left."""
    return Noun(*(getattr(noun, name) if name in attributes else None for name in ATTRIBUTES))


def speak(noun: Noun, dice: Dice, number: int = 1) -> str:
    """The noun in words, without article: "small striped red star", "red stars with dots"."""
    words, clause = [], ""
    if noun.size:
        words.append(one_of(dice, SIZE_WORDS[noun.size]))
    if noun.filling in FILLING_CLAUSES and dice.chance(0.25):
        clause = " " + dice.pick(FILLING_CLAUSES[noun.filling])
    elif noun.filling:
        words.append(one_of(dice, FILLING_WORDS[noun.filling]))
    if noun.colour:
        words.append(one_of(dice, COLOUR_WORDS[noun.colour]))
    head = one_of(dice, KIND_WORDS[noun.kind]) if noun.kind else one_of(dice, THING_WORDS, 0.5)
    words.append(plural(head) if number != 1 else head)
    return " ".join(words) + clause


def counted(noun: Noun, number: int, dice: Dice) -> str:
    """ "a red star", "two red stars"."""
    phrase = speak(noun, dice, number)
    return with_article(phrase) if number == 1 else f"{NUMBERS[number]} {phrase}"


def some_noun(thing: Thing, dice: Dice, extra: float = 0.5) -> Noun:
    """A noun with kind and colour, and size and filling each with probability `extra`."""
    plain = 0.4 if thing.filling == "plain" else 1.0  # people rarely say that a thing has no pattern
    names = ["kind", "colour"]
    names += [name for name, likely in (("size", 1.0), ("filling", plain)) if dice.chance(extra * likely)]
    return part_of(full_noun(thing), names)


def singled_out(scene: Scene, index: int, dice: Dice, start: Sequence[str] = ("kind",)) -> Noun:
    """A noun that describes thing `index` alone: `start` and as many further attributes as that needs."""
    full, names = full_noun(scene.things[index]), list(start)
    for name in dice.shuffled([name for name in ATTRIBUTES if name not in names]):
        noun = part_of(full, names)
        if noun.among(scene) == [index]:
            return noun
        names.append(name)
    return full


def related_phrase(scene: Scene, index: int, dice: Dice, extra: float = 0.5) -> Phrase | None:
    """ "small red star left of the house": a phrase that singles out thing `index` by a relation, or None."""
    for other in dice.shuffled([i for i in range(len(scene.things)) if i != index]):
        landmark = singled_out(scene, other, dice, ("kind", "colour") if dice.chance(0.5) else ("kind",))
        held = sorted(scene.relations[index, other], key=RELATIONS.index)
        if not held:
            continue
        noun = some_noun(scene.things[index], dice, extra)
        what = Related(noun, dice.pick(held), landmark)
        if singles_out(what, scene, index):
            relation = one_of(dice, RELATION_PHRASES[what.relation], 0.5)
            return Phrase(f"{speak(noun, dice)} {relation} the {speak(landmark, dice)}", what)
    return None


def said_place(thing: Thing) -> tuple[str | None, str | None] | None:
    """The column and row of the image that one names for the thing's place; None when it stands between the places."""
    x, y = thing.centre
    column = next((name for name, (low, high) in COLUMNS.items() if low <= x <= high), None)
    row = next((name for name, (low, high) in ROWS.items() if low <= y <= high), None)
    if column == row == "middle":
        return column, row
    column, row = (None if column == "middle" else column), (None if row == "middle" else row)
    return (column, row) if column or row else None


def speak_place(column: str | None, row: str | None, dice: Dice) -> str:
    """A place in words: "in the top left corner", "at the bottom", "in the middle"."""
    if column == row == "middle":
        return dice.pick(("in the middle", "in the center", "at the center of the picture"))
    if column in ("left", "right"):
        if row in ("top", "bottom"):
            height = dice.pick(("upper", "top") if row == "top" else ("lower", "bottom"))
            return f"{dice.pick(('in', 'near'))} the {height} {column} corner"
        return dice.pick((f"on the {column}", f"at the {column} edge", f"on the {column} side of the image"))
    return f"{dice.pick(('at', 'near'))} the {row}{dice.pick(('', ' of the picture', ' edge'))}"


def placed_phrase(scene: Scene, index: int, dice: Dice, extra: float = 0.3) -> Phrase | None:
    """ "red star in the top left corner": a phrase that singles out thing `index` by its place, or None."""
    place = said_place(scene.things[index])
    if place is None:
        return None
    noun = some_noun(scene.things[index], dice, extra)
    what = Placed(noun, *place)
    if not singles_out(what, scene, index):
        return None
    return Phrase(f"{speak(noun, dice)} {speak_place(*place, dice)}", what)


def extreme_phrase(scene: Scene, index: int, dice: Dice) -> Phrase | None:
    """ "leftmost star", "highest thing": a phrase that singles out thing `index` as the outermost, or None."""
    thing = scene.things[index]
    noun = dice.pick((Noun(), Noun(kind=thing.kind), Noun(colour=thing.colour), Noun(filling=thing.filling)))
    for direction in dice.shuffled(tuple(EXTREME_WORDS)):
        what = Extreme(noun, direction)
        if what.among(scene) == [index]:
            return Phrase(f"{one_of(dice, EXTREME_WORDS[direction])} {speak(noun, dice)}", what)
    return None


def region_phrases(scene: Scene, index: int, dice: Dice) -> list[Phrase]:
    """What one can call thing `index`: two nouns that single it out, and longer phrases that do."""
    nouns = []
    for start in (("kind", "colour"), ("kind", dice.pick(("size", "filling")))):
        noun = singled_out(scene, index, dice, start)
        nouns.append(Phrase(speak(noun, dice), noun))
    longer = [related_phrase(scene, index, dice), placed_phrase(scene, index, dice)]
    if dice.chance(0.5):
        longer.append(related_phrase(scene, index, dice))
    named = [
        Phrase(f"the {phrase.text}", phrase.what) if dice.chance(0.5) else phrase
        for phrase in longer
        if phrase is not None
    ]
    return list({phrase.text: phrase for phrase in [*nouns, *named]}.values())


def expressions(scene: Scene, index: int, dice: Dice) -> list[Phrase]:
    """Referring expressions: phrases that fit thing `index` and nothing else of the scene, all beginning with "the"."""
    noun = singled_out(scene, index, dice, (dice.pick(ATTRIBUTES),))
    found = [
        Phrase(speak(noun, dice), noun),
        related_phrase(scene, index, dice, 0.2),
        placed_phrase(scene, index, dice, 0.1),
        extreme_phrase(scene, index, dice),
    ]
    picked = dice.shuffled([phrase for phrase in found if phrase is not None])[:2]
    return [Phrase(f"the {phrase.text}", phrase.what) for phrase in picked]
