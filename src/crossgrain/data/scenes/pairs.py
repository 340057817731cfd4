"""Pairs of scenes with a statement that is true or false of both together (as in NLVR2).

The record's own picture is the first of the pair, an earlier scene of its split the second: so a pair never names a
scene that a smaller data set would lack. Each statement comes with two partners: true with one, false with the other.
"""

from dataclasses import dataclass
from typing import Any

from crossgrain.data.scenes.claims import Noun, Related
from crossgrain.data.scenes.phrases import counted, full_noun, part_of, some_noun, speak
from crossgrain.data.scenes.words import NUMBERS, RELATION_PHRASES, one_of, sentence
from crossgrain.data.scenes.world import RELATIONS, Dice, Scene, make_scene

REACH = 64  # how far back the partners may stand
NUM_STATEMENTS = 2
TRIES = 10


@dataclass(frozen=True)
class Statement:
    """A statement about two scenes. `form` says how the counts of `what` in the two are judged (see `holds`)."""

    text: str
    form: str
    what: Noun | Related
    number: int = 1

    def holds(self, first: Scene, second: Scene) -> bool:
        """Whether it is true of the pair."""
        a, b = len(self.what.among(first)), len(self.what.among(second))
        return {
            "both": a > 0 and b > 0,
            "one": (a > 0) != (b > 0),
            "none": a == 0 and b == 0,
            "total": a + b == self.number,
            "more": a > b,
            "same": a == b,
        }[self.form]


def _statement(first: Scene, second: Scene, dice: Dice) -> Statement:
    """A statement with words from the two scenes; true or false, as it comes."""
    thing = dice.pick((*first.things, *second.things))
    noun = part_of(full_noun(thing), dice.pick((("kind",), ("colour",), ("filling",), ("size",), ("colour", "kind"))))
    one, many = counted(noun, 1, dice), speak(noun, dice, 2)
    form = dice.pick(("both", "one", "none", "total", "more", "same", "related"))
    if form == "related":
        return _related_statement(dice.pick((first, second)), dice) or Statement(*_both(one), noun)
    if form == "total":
        total = max(1, len(noun.among(first)) + len(noun.among(second)) + dice.below(2))
        things = f"{'is' if total == 1 else 'are'} exactly {NUMBERS[total]} {speak(noun, dice, total)}"
        return Statement(sentence(f"there {things} in the two pictures together"), "total", noun, total)
    texts = {
        "one": dice.pick((f"only one of the images contains {one}", f"exactly one picture shows {one}")),
        "none": dice.pick((f"neither image shows {one}", f"there are no {many} in either picture")),
        "more": f"the first picture has more {many} than the second",
        "same": f"both pictures have the same number of {many}",
    }
    return Statement(*_both(one), noun) if form == "both" else Statement(sentence(texts[form]), form, noun)


def _both(one: str) -> tuple[str, str]:
    return sentence(f"both images show {one}"), "both"


def _related_statement(scene: Scene, dice: Dice) -> Statement | None:
    pairs = [pair for pair, held in scene.relations.items() if held]
    if not pairs:
        return None
    i, j = dice.pick(pairs)
    relation = dice.pick(sorted(scene.relations[i, j], key=RELATIONS.index))
    noun, other = (some_noun(scene.things[k], dice, 0.0) for k in (i, j))
    words = one_of(dice, RELATION_PHRASES[relation], 0.5)
    text = f"exactly one of the pictures shows {counted(noun, 1, dice)} {words} {counted(other, 1, dice)}"
    return Statement(sentence(text), "one", Related(noun, relation, other))


def _clear(what: Noun | Related, scene: Scene) -> bool:
    """Whether all readers agree on how many things of the scene the description fits."""
    return isinstance(what, Noun) or what.among(scene) == what.possible(scene)


def state(scene: Scene, dice: Dice) -> list[tuple[Scene, Statement]]:
    """Pairs of partner and statement; every statement stands twice, true with one partner and false with the other."""
    if scene.index < 2:
        return []
    nearest = range(max(0, scene.index - REACH), scene.index)
    partners = [make_scene(scene.seed, scene.split, index) for index in dice.shuffled(nearest)[:2]]
    found: list[tuple[Scene, Statement]] = []
    for _ in range(TRIES):
        statement = _statement(scene, partners[dice.below(2)], dice)
        clear = all(_clear(statement.what, shown) for shown in (scene, *partners))
        if clear and statement.holds(scene, partners[0]) != statement.holds(scene, partners[1]):
            found += [(partner, statement) for partner in partners]
        if len(found) == 2 * NUM_STATEMENTS:
            break
    return found


def pairs(scene: Scene, dice: Dice) -> list[dict[str, Any]]:
    """The pairs as JSON values: {"partner": key, "statement", "label": true or false}."""
    return [
        {"partner": partner.key, "statement": statement.text, "label": statement.holds(scene, partner)}
        for partner, statement in state(scene, dice)
    ]
