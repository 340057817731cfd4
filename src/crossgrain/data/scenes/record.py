"""A scene with everything that is said about it, as one record."""

from typing import Any

from crossgrain.data.records import Record, Region
from crossgrain.data.scenes.captions import captions
from crossgrain.data.scenes.choices import choices
from crossgrain.data.scenes.draw import draw_scene, encode
from crossgrain.data.scenes.pairs import pairs
from crossgrain.data.scenes.phrases import expressions, region_phrases
from crossgrain.data.scenes.questions import questions
from crossgrain.data.scenes.world import SPLITS, Dice, Scene, make_scene


def regions(scene: Scene, dice: Dice) -> tuple[Region, ...]:
    """Every thing as a region, from back to front."""
    return tuple(
        Region(
            box=thing.box,
            label=thing.kind,
            attributes=(thing.size, thing.filling, thing.colour),
            phrases=tuple(phrase.text for phrase in region_phrases(scene, index, dice)),
        )
        for index, thing in enumerate(scene.things)
    )


def material(scene: Scene, dice: Dice, dice_of_choices: Dice) -> dict[str, Any]:
    """What the tasks read, as plain JSON values under a key per task (indices count the record's regions).

    expressions: {"text", "index"}, one object and no other · questions: {"question", "type", "answers"}, ten of them ·
    choices: VCR's fields (see `choices`) · pairs: {"partner", "statement", "label"}, this record is the first picture ·
    scene: {"seed", "index", "background"}, where it comes from.
    """
    named = [(index, phrase) for index in range(len(scene.things)) for phrase in expressions(scene, index, dice)]
    return {
        "scene": {"seed": scene.seed, "index": scene.index, "background": scene.background},
        "expressions": [{"text": phrase.text, "index": index} for index, phrase in named],
        "questions": questions(scene, dice),
        "choices": choices(scene, dice_of_choices),
        "pairs": pairs(scene, dice),
    }


def scene_record(seed: int, split: str, index: int, image_size: int = 128) -> Record:
    """Record `index` of a split: the encoded picture, captions, regions and the material of every task."""
    scene = make_scene(seed, split, index)
    dice, dice_of_tasks, dice_of_choices = (Dice(seed, SPLITS.index(split), index, stream) for stream in (2, 3, 4))
    return Record(
        key=scene.key,
        image=encode(draw_scene(scene, image_size)),
        captions=tuple(caption.text for caption in captions(scene, dice)),
        regions=regions(scene, dice),
        split=split,
        extra=material(scene, dice_of_tasks, dice_of_choices),
    )
