"""Questions about a scene, each with the answers of ten people who mostly agree (as in VQA v2)."""

from dataclasses import dataclass, replace
from typing import Any

from crossgrain.data.scenes.claims import Alike, Bigger, Claim, Count, Description, MoreOf, Noun, Related, singles_out
from crossgrain.data.scenes.phrases import ATTRIBUTES, counted, full_noun, part_of, singled_out, some_noun, speak
from crossgrain.data.scenes.words import COLOUR_WORDS, KIND_WORDS, RELATION_PHRASES, one_of
from crossgrain.data.scenes.world import COLOURS, FILLINGS, INVERSE, KINDS, SIZES, Dice, Scene

NUM_ANSWERS = 10
VALUES = {"kind": KINDS, "colour": COLOURS, "size": SIZES, "filling": FILLINGS}
NEIGHBOURS = {
    "red": "orange", "orange": "yellow", "yellow": "orange", "green": "blue", "blue": "purple", "purple": "blue",
    "pink": "purple", "brown": "orange", "black": "brown", "white": "yellow",
}  # fmt: skip


@dataclass(frozen=True)
class Question:
    """A question, the answer that is right, answers that people give by mistake or in other words, and what is asked:
    a claim (yes or no), or a description whose number (type "count"), colour or kind is wanted."""

    type: str
    text: str
    answer: str
    others: tuple[str, ...]
    about: Claim | Description


def _yes_or_no(kind: str, text: str, claim: Claim, scene: Scene) -> Question:
    answer = claim.holds(scene)
    return Question(kind, f"{text}?", "yes" if answer else "no", ("no" if answer else "yes",), claim)


def absent(scene: Scene, noun: Noun, dice: Dice) -> Noun | None:
    """The noun with one attribute changed so that nothing of the scene fits it, or None when tries fail."""
    named = [name for name in ATTRIBUTES if getattr(noun, name)]
    for _ in range(8):
        name = dice.pick(named)
        changed = replace(noun, **{name: dice.pick(VALUES[name])})
        if not changed.among(scene):
            return changed
    return None


def two_nouns(scene: Scene, dice: Dice) -> tuple[int, int, Noun, Noun] | None:
    """Two things (their indices) with nouns that single them out; None if there is only one thing."""
    if len(scene.things) < 2:
        return None
    i, j = dice.shuffled(range(len(scene.things)))[:2]
    return i, j, singled_out(scene, i, dice), singled_out(scene, j, dice)


def count_question(scene: Scene, dice: Dice) -> Question:
    """How many things fit a noun of one or two attributes."""
    names = dice.pick((("kind",), ("colour",), ("filling",), ("size",), ("colour", "kind"), ()))
    noun = part_of(full_noun(dice.pick(scene.things)), names)
    if names and dice.chance(0.12):
        noun = absent(scene, noun, dice) or noun
    total = len(noun.among(scene))
    near = tuple(str(number) for number in (total - 1, total + 1) if number >= 0)
    things = speak(noun, dice, 2)
    text = dice.pick(
        (f"How many {things} are there?", f"How many {things} can you see?", f"What number of {things} is shown?")
    )
    return Question("count", text, str(total), near, noun)


def colour_question(scene: Scene, dice: Dice) -> Question | None:
    """The colour of a thing that is named without it."""
    index = dice.below(len(scene.things))
    thing = scene.things[index]
    for names in (("kind",), ("kind", "size"), ("kind", "filling"), ("kind", "size", "filling")):
        noun = part_of(full_noun(thing), names)
        if noun.among(scene) == [index]:
            named = speak(noun, dice)
            text = dice.pick((f"What color is the {named}?", f"Which color does the {named} have?"))
            return Question(
                "colour", text, thing.colour, (*COLOUR_WORDS[thing.colour][1:], NEIGHBOURS[thing.colour]), noun
            )
    return None


def existence_question(scene: Scene, dice: Dice) -> Question:
    """Whether there is such a thing; as often yes as no."""
    noun = some_noun(dice.pick(scene.things), dice, 0.3)
    if dice.chance(0.5):
        noun = absent(scene, noun, dice) or noun
    phrase = counted(noun, 1, dice)
    text = dice.pick((f"Is there {phrase}", f"Can you see {phrase}", f"Does the picture show {phrase}"))
    return _yes_or_no("existence", text, Count(noun), scene)


def comparison_question(scene: Scene, dice: Dice) -> Question | None:
    """Which is larger, what is more, what is alike."""
    pair = two_nouns(scene, dice)
    if pair is None:
        return None
    i, j, first, second = pair
    one, two = f"the {speak(first, dice)}", f"the {speak(second, dice)}"
    form = dice.below(3)
    if form == 0 and scene.things[i].size != scene.things[j].size:
        return _yes_or_no(
            "comparison", f"Is {one} {dice.pick(('bigger', 'larger'))} than {two}", Bigger(first, second), scene
        )
    if form == 1:
        attribute, words = dice.pick((("colour", "color"), ("size", "size"), ("kind", "shape"), ("filling", "pattern")))
        question = f"Do {one} and {two} have the same {words}"
        return _yes_or_no("comparison", question, Alike(attribute, first, second), scene)
    name = dice.pick(("colour", "kind"))
    more, less = (part_of(full_noun(scene.things[k]), [name]) for k in (i, j))
    if more == less:
        return None
    question = f"Are there more {speak(more, dice, 2)} than {speak(less, dice, 2)}"
    return _yes_or_no("comparison", question, MoreOf(more, less), scene)


def relation_question(scene: Scene, dice: Dice) -> Question | None:
    """Whether one thing stands so to another, or what does."""
    pair = two_nouns(scene, dice)
    held = sorted(scene.relations[pair[:2]]) if pair else []
    if pair is None or not held:
        return None
    i, _, first, second = pair
    relation = dice.pick(held)
    if dice.chance(0.4):
        what = Related(Noun(), relation, second)
        if singles_out(what, scene, i):
            words = one_of(dice, RELATION_PHRASES[relation], 0.6)
            kind = scene.things[i].kind
            others = (*KIND_WORDS[kind][1:], f"{scene.things[i].colour} {kind}")
            return Question("relation", f"What is {words} the {speak(second, dice)}?", kind, others, what)
    if dice.chance(0.5):
        relation = INVERSE[relation]
    words = one_of(dice, RELATION_PHRASES[relation], 0.6)
    question = f"Is the {speak(first, dice)} {words} the {speak(second, dice)}"
    return _yes_or_no("relation", question, Count(Related(first, relation, second)), scene)


def ask(scene: Scene, dice: Dice) -> list[Question]:
    """One question of every type that the scene allows."""
    kinds = (count_question, colour_question, existence_question, comparison_question, relation_question)
    return [question for kind in kinds if (question := kind(scene, dice)) is not None]


def ten_answers(question: Question, dice: Dice) -> list[str]:
    """What ten people answer: at least seven say what is right."""
    dissent = dice.weighted((0, 1, 2, 3), (0.5, 0.25, 0.15, 0.1))
    answers = [question.answer] * (NUM_ANSWERS - dissent) + [dice.pick(question.others) for _ in range(dissent)]
    return dice.shuffled(answers)


def questions(scene: Scene, dice: Dice) -> list[dict[str, Any]]:
    """The questions as JSON values: {"question", "type", "answers": ten strings}."""
    return [
        {"question": question.text, "type": question.type, "answers": ten_answers(question, dice)}
        for question in ask(scene, dice)
    ]
