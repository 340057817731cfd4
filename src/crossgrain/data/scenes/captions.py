"""Five captions for a scene: they differ in wording and in what they mention."""

from crossgrain.data.scenes.claims import Caption, Claim, Count, Ground, Noun, Placed, Related
from crossgrain.data.scenes.phrases import (
    counted,
    full_noun,
    part_of,
    said_place,
    singled_out,
    some_noun,
    speak,
    speak_place,
)
from crossgrain.data.scenes.words import (
    BACKGROUND_PHRASES,
    NUMBERS,
    RELATION_PHRASES,
    THING_WORDS,
    joined,
    one_of,
    plural,
    sentence,
    with_article,
)
from crossgrain.data.scenes.world import RELATIONS, Dice, Scene

NUM_CAPTIONS = 5
PICTURES = ("picture", "image", "drawing", "scene", "painting", "illustration", "photo", "snapshot")


def _groups(scene: Scene) -> list[list[int]]:
    """The things gathered by kind and colour: what one would count together."""
    groups: dict[tuple[str, str], list[int]] = {}
    for i, thing in enumerate(scene.things):
        groups.setdefault((thing.kind, thing.colour), []).append(i)
    return list(groups.values())


def _mention(scene: Scene, group: list[int], dice: Dice, extra: float) -> tuple[str, Claim]:
    """A group in words ("two red stars") with its claim; attributes that its members do not share are left out."""
    first, *rest = (scene.things[i] for i in group)
    noun = some_noun(first, dice, extra)
    shared = [name for name in ("size", "filling") if all(getattr(t, name) == getattr(first, name) for t in rest)]
    noun = part_of(noun, ["kind", "colour", *shared])
    return counted(noun, len(group), dice), Count(noun, len(group))


def _frame(listing: str, plural_verb: bool, dice: Dice) -> str:
    """A list of things as a sentence."""
    picture = dice.pick(PICTURES)
    verb = "are" if plural_verb else "is"
    frames = (
        listing,
        f"{with_article(picture)} of {listing}",
        f"there {verb} {listing}",
        f"this {picture} shows {listing}",
        f"the {picture} contains {listing}",
        f"we can see {listing}",
        f"{with_article(picture)} with {listing}",
        f"you see {listing} here",
        f"someone drew {listing}",
    )
    return dice.weighted(frames, (4.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5))


def _with_ground(text: str, claims: list[Claim], scene: Scene, dice: Dice, probability: float) -> Caption:
    if dice.chance(probability):
        text = f"{text} {one_of(dice, BACKGROUND_PHRASES[scene.background], 0.6)}"
        claims.append(Ground(scene.background))
    return Caption(sentence(text), tuple(claims))


def everything(scene: Scene, dice: Dice) -> Caption:
    """Every thing of the scene (at most four groups) with colour and kind, often with size or filling."""
    groups = dice.shuffled(_groups(scene))[:4]
    extra = {1: 0.9, 2: 0.7, 3: 0.5}.get(len(groups), 0.3)
    mentions = [_mention(scene, group, dice, extra) for group in groups]
    text = _frame(joined([text for text, _ in mentions]), len(groups[0]) > 1, dice)
    return _with_ground(text, [claim for _, claim in mentions], scene, dice, 0.9 if len(groups) == 1 else 0.35)


def related(scene: Scene, dice: Dice) -> Caption | None:
    """A relation of two things, both described, and a third thing if there is one."""
    pairs = [pair for pair, held in scene.relations.items() if held]
    if not pairs:
        return None
    i, j = dice.pick(pairs)
    relation = dice.pick(sorted(scene.relations[i, j], key=RELATIONS.index))
    noun, other = some_noun(scene.things[i], dice, 0.6), some_noun(scene.things[j], dice, 0.6)
    words = one_of(dice, RELATION_PHRASES[relation], 0.5)
    subject, landmark = counted(noun, 1, dice), counted(other, 1, dice)
    verb = dice.pick(("is", "is", "stands", "is drawn", "appears"))
    text = f"{subject} {verb} {words} {landmark}" if dice.chance(0.5) else f"{subject} {words} {landmark}"
    claims: list[Claim] = [Count(Related(noun, relation, other))]
    rest = [k for k in range(len(scene.things)) if k not in (i, j)]
    third = [Noun(scene.things[k].kind, scene.things[k].colour) for k in rest]
    third = [n for n in third if not any(n.matches(scene.things[k]) for k in (i, j))]
    if third and dice.chance(0.85):
        noun = dice.pick(third)
        number = len(noun.among(scene))
        what = counted(noun, number, dice)
        verb = "is" if number == 1 else "are"
        text += dice.pick((f", and there {verb} {what} too", f", along with {what}", f", and also {what}"))
        claims.append(Count(noun, number))
        return Caption(sentence(text), tuple(claims))
    return _with_ground(text, claims, scene, dice, 0.8)


def focus(scene: Scene, dice: Dice) -> Caption | None:
    """One thing in all detail, where it stands, and on what."""
    i = dice.below(len(scene.things))
    noun, place = full_noun(scene.things[i]), said_place(scene.things[i])
    if place is None:
        return None
    what, where = counted(noun, 1, dice), speak_place(*place, dice)
    text = dice.pick((f"{what} {where}", f"{what} can be seen {where}", f"{where} there is {what}", f"{where}, {what}"))
    others = len(scene.things) - 1
    claims: list[Claim] = [Count(Placed(noun, *place))]
    if others and dice.chance(0.6):
        thing = one_of(dice, THING_WORDS, 0.4)
        text += f", and {NUMBERS[others]} other {thing if others == 1 else plural(thing)}"
        claims.append(Count(Noun(), others + 1, exact=True))
        return Caption(sentence(text), tuple(claims))
    return _with_ground(text, claims, scene, dice, 0.9)


def numbered(scene: Scene, dice: Dice) -> Caption:
    """How many things there are, and some of them."""
    total = len(scene.things)
    groups = dice.shuffled(_groups(scene))[: 1 + dice.below(2)]
    mentions = [_mention(scene, group, dice, 0.6) for group in groups]
    listed = joined([text for text, _ in mentions])
    head = one_of(dice, THING_WORDS, 0.4)
    claims: list[Claim] = [Count(Noun(), total, exact=True), *(claim for _, claim in mentions)]
    things = f"{NUMBERS[total]} {head if total == 1 else plural(head)}"
    if sum(len(group) for group in groups) == total:
        text = dice.pick((f"{things}: {listed}", f"exactly {things}, namely {listed}"))
    else:
        framed = f"{with_article(dice.pick(PICTURES))} with {things}, including {listed}"
        text = dice.pick((f"{things}, among them {listed}", framed))
    return _with_ground(text, claims, scene, dice, 0.6 if total == 1 else 0.4)


def detail(scene: Scene, dice: Dice) -> Caption | None:
    """Two named things by their fillings and sizes, the way one mentions what strikes the eye."""
    if len(scene.things) < 2:
        return None
    i, j = dice.shuffled(range(len(scene.things)))[:2]
    first, second = (singled_out(scene, k, dice, ("kind", "colour", dice.pick(("size", "filling")))) for k in (i, j))
    text = f"the {speak(first, dice)} and the {speak(second, dice)}"
    if dice.chance(0.5):
        text = dice.pick((f"{text} share this {dice.pick(PICTURES)}", f"look at {text}"))
    return _with_ground(text, [Count(first), Count(second)], scene, dice, 0.5)


def captions(scene: Scene, dice: Dice) -> list[Caption]:
    """Five different captions; the first names so much that it fits hardly any other scene."""
    plan = [everything, related, focus, numbered, detail]
    found = [everything(scene, dice) if dice.chance(0.5) else related(scene, dice) or everything(scene, dice)]
    texts = {found[0].text}
    turns = dice.shuffled(plan)
    while len(found) < NUM_CAPTIONS:
        kind = turns.pop() if turns else dice.pick(plan)
        caption = kind(scene, dice)
        if caption is not None and caption.text not in texts:
            found.append(caption)
            texts.add(caption.text)
    return found
