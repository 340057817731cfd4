"""Four-way questions with a rationale, in VCR's notation: tokens, and lists of object indices where things are named.

Official field names (visualcommonsense.com, val.jsonl): question, answer_choices, answer_label, rationale_choices,
rationale_label, objects. Exactly one of the four choices is true of the scene.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from crossgrain.data.scenes.claims import Noun
from crossgrain.data.scenes.phrases import ATTRIBUTES, full_noun, part_of
from crossgrain.data.scenes.words import with_article
from crossgrain.data.scenes.world import COLOURS, INVERSE, KINDS, Dice, Scene

Tokens = list[str | list[int]]
NUM_CHOICES = 4
NOTHING_LEFT_OUT = 60  # of 100 pairs that share nothing: else half of all answers would say so
LEVEL = 0.1  # centres this close in one direction count as level
DIRECTIONS = ("left of", "right of", "above", "below")
DIRECTION_WORDS = {"left of": "to the left of", "right of": "to the right of", "above": "above", "below": "below"}
FACTS = {
    "circle": "is perfectly round", "square": "has four equal sides", "triangle": "has three corners",
    "star": "has five points", "heart": "is the sign of love", "moon": "is a thin crescent",
    "ring": "is round with a hole inside", "cross": "has four equal arms", "house": "has a roof and a door",
    "tree": "has a trunk and branches", "fish": "has a tail and fins", "car": "has wheels and windows",
    "cup": "has a handle", "flower": "has petals around its center", "boat": "has a mast and a sail",
    "umbrella": "has a curved handle", "mushroom": "has a cap on a stem", "butterfly": "has wings and feelers",
    "cat": "has whiskers and pointed ears", "bottle": "has a narrow neck and a cork",
}  # fmt: skip


def _tokens(text: str, *tags: int) -> Tokens:
    """The words of `text`; "{}" stands for the next object's tag."""
    rest = iter(tags)
    return [[next(rest)] if word == "{}" else word for word in text.split()]


def _four(true: Tokens, false: list[Tokens], dice: Dice) -> tuple[list[Tokens], int]:
    """Three false choices and the true one in random order, and the place of the true one."""
    choices = dice.shuffled([true, *false[: NUM_CHOICES - 1]])
    return choices, choices.index(true)


def _item(question: Tokens, answers: tuple[list[Tokens], int], rationales: tuple[list[Tokens], int]) -> dict[str, Any]:
    return {
        "question": question,
        "answer_choices": answers[0],
        "answer_label": answers[1],
        "rationale_choices": rationales[0],
        "rationale_label": rationales[1],
    }


def _describe(noun: Noun) -> str:
    words = [word for word in (noun.size, noun.filling, noun.colour, noun.kind) if word]
    return with_article(" ".join(words))


def _beside(noun: Noun, dice: Dice) -> list[Noun]:
    """The noun, and three that differ from it, and from each other, in their colour alone.

    Where each differed in another attribute, the true noun would be the one that has most in common with all others;
    and half of all things are plain, so that a filling could be guessed. Colours are all as frequent.
    """
    others = [colour for colour in dice.shuffled(COLOURS) if colour != noun.colour]
    return [noun, *(replace(noun, colour=colour) for colour in others[: NUM_CHOICES - 1])]


def identity(scene: Scene, dice: Dice) -> dict[str, Any]:
    """What is [i]? Its tag tells the kind, so the answers differ in colour."""
    i = dice.below(len(scene.things))
    thing = scene.things[i]
    noun = part_of(full_noun(thing), ("kind", "colour"))
    question = _tokens(dice.pick(("What is {} ?", "What do you call {} ?", "How would you describe {} ?")), i)
    answers = [_tokens(f"{{}} is {_describe(n)} .", i) for n in _beside(noun, dice)]
    others = [kind for kind in dice.shuffled(KINDS) if kind != thing.kind]
    reasons = [_tokens(f"{{}} {FACTS[kind]} , and it is {thing.colour} .", i) for kind in (thing.kind, *others)]
    return _item(question, _four(answers[0], answers[1:], dice), _four(reasons[0], reasons[1:], dice))


def _only_direction(scene: Scene, i: int, j: int) -> str | None:
    """The direction in which thing i stands from thing j, unless it also stands a little in another."""
    (ax, ay), (bx, by) = scene.things[i].centre, scene.things[j].centre
    directions = [name for name in DIRECTIONS if name in scene.relations[i, j]]
    return directions[0] if directions and min(abs(ax - bx), abs(ay - by)) < LEVEL else None


def place(scene: Scene, dice: Dice) -> dict[str, Any] | None:
    """Where is [i] compared with [j]? Only where one direction alone is true."""
    clear = [(pair, direction) for pair in scene.relations if (direction := _only_direction(scene, *pair))]
    if not clear:
        return None
    (i, j), true = dice.pick(clear)
    question = _tokens(dice.pick(("Where is {} relative to {} ?", "Where does {} stand compared with {} ?")), i, j)
    directions = [true, *(direction for direction in DIRECTIONS if direction != true)]
    answers = [_tokens(f"{{}} is {DIRECTION_WORDS[d]} {{}} .", i, j) for d in directions]
    other = _describe(part_of(full_noun(scene.things[j]), ("kind", "colour")))
    reasons = [_tokens(f"{{}} , {other} , is {DIRECTION_WORDS[INVERSE[d]]} {{}} .", j, i) for d in directions]
    return _item(question, _four(answers[0], answers[1:], dice), _four(reasons[0], reasons[1:], dice))


def common(scene: Scene, dice: Dice) -> dict[str, Any] | None:
    """What do [i] and [j] have in common? Only where they share exactly one attribute, or none."""
    if len(scene.things) < 2:
        return None
    i, j = dice.shuffled(range(len(scene.things)))[:2]
    first, second = full_noun(scene.things[i]), full_noun(scene.things[j])
    shared = [name for name in ATTRIBUTES if getattr(first, name) == getattr(second, name)]
    if len(shared) > 1 or (not shared and dice.below(100) < NOTHING_LEFT_OUT):
        return None
    words = {"colour": "color", "kind": "shape", "size": "size", "filling": "pattern"}
    said = {name: f"They have the same {words[name]} ." for name in ATTRIBUTES} | {
        None: "They have nothing in common ."
    }
    true = shared[0] if shared else None
    false = dice.shuffled([name for name in said if name != true])
    question = _tokens("What do {} and {} have in common ?", i, j)
    reasons = [_tokens(f"{{}} is {_describe(n)} and {{}} is {_describe(second)} .", i, j) for n in _beside(first, dice)]
    answers = [_tokens(said[name]) for name in (true, *false)]
    return _item(question, _four(answers[0], answers[1:], dice), _four(reasons[0], reasons[1:], dice))


FORMS: tuple[Callable[[Scene, Dice], dict[str, Any] | None], ...] = (identity, place, common)


def choices(scene: Scene, dice: Dice) -> list[dict[str, Any]]:
    """One or two items of different forms; tags count the record's regions."""
    objects = [thing.kind for thing in scene.things]
    found = (form(scene, dice) for form in dice.shuffled(FORMS)[:2])
    items = [item for item in found if item is not None] or [identity(scene, dice)]
    return [{"objects": objects, **item} for item in items]
