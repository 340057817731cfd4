"""One record and a random generator to one training sample of a task. Pure functions, no torch.

What samples.py is to pre-training: the rows here are questions with their answers, statements about two pictures,
choices, expressions with their boxes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from crossgrain.config import UserError
from crossgrain.data.asks import (
    Material,
    Reading,
    Words,
    answer_words,
    choice_items,
    choice_words,
    named_boxes,
    object_rows,
    overlaps,
    question_words,
)
from crossgrain.data.augment import flip_box, mentions_direction, swap_directions
from crossgrain.data.pairs import flip_regions
from crossgrain.data.records import WHOLE_IMAGE, Box, Record
from crossgrain.data.regions import RegionFeatures
from crossgrain.data.samples import Recipe, Row, Sample, SeenRegions, read_regions, shown_image, whole_or_crop
from crossgrain.data.shards import texts_of
from crossgrain.data.text import encode_text
from crossgrain.metrics.vqa import vqa_soft_scores

Target = Mapping[str, np.ndarray]
Partner = Callable[[str], Record]  # the record of a key


class _Ask(NamedTuple):
    """Rows of words, each about one of the sample's images, and what is right, ready to be stacked."""

    words: list[Words]
    images: list[int]
    target: Target


def make_task_sample(
    record: Record,
    material: Material,
    recipe: Recipe,
    rng: np.random.Generator,
    partner: Partner,
    weight: float = 1.0,
) -> Sample:
    """One of the asks of a record, drawn at random. `weight` is that of the source, for answers.

    A record that lacks them, or whose partner is not there, is an error with its key.
    """
    reading = recipe.reading
    assert reading is not None
    found = _asked(record, material, reading)
    if not found:
        raise UserError(f"record {record.key!r} has no {material} with an answer")
    chosen = found[int(rng.integers(len(found)))]
    if material == "pairs":
        return _judged(record, chosen, recipe, reading, rng, partner)
    detected = None if recipe.reads == "pixels" else read_regions(record, recipe)
    flip = _may_flip(_texts(material, chosen), recipe, rng)
    view = whole_or_crop(record, recipe, rng, whole=material in ("choices", "expressions"))
    pixels = shown_image(record, view, flip, recipe, rng)
    if flip and detected is not None:
        detected = flip_regions(detected)
    seen = None if detected is None else SeenRegions(detected, ([], []))
    first = int(recipe.regions.whole_image)
    if material == "questions":
        words, target = _question(chosen, reading, weight)
    elif material == "choices":
        words, target = _choice(record, chosen, detected, first, recipe, reading, flip)
    else:
        words, target = _expression(chosen, detected, first, recipe, reading, flip)
    return _sample([pixels], [seen], _Ask(words, [0] * len(words), target))


def references(record: Record, number: int, recipe: Recipe, flipped: bool = False) -> Target:
    """The first captions of a record, {"references": (number, max_tokens)}; padding fills."""
    table = np.full((number, recipe.text.max_tokens), recipe.tokenizer.pad, dtype=np.int64)
    retell = swap_directions if flipped and recipe.image.left_right == "swap_words" else str
    for row, caption in zip(table, record.captions, strict=False):
        ids = encode_text(retell(caption), recipe.tokenizer, recipe.text)
        row[: len(ids)] = ids
    return {"references": table}


def _sample(pixels: list[np.ndarray | None], regions: list[SeenRegions | None], ask: _Ask) -> Sample:
    rows = [
        Row(0, WHOLE_IMAGE, words.ids, None, segments=words.segments, tags=words.tags, image=image)
        for words, image in zip(ask.words, ask.images, strict=True)
    ]
    second = Sample(pixels[1], [], regions[1]) if len(pixels) > 1 else None
    return Sample(pixels[0], rows, regions[0], second=second, target=ask.target)


def _judged(
    record: Record, item: Any, recipe: Recipe, reading: Reading, rng: np.random.Generator, partner: Partner
) -> Sample:
    """A statement, said of this picture and of its partner."""
    pixels: list[np.ndarray | None] = []
    regions: list[SeenRegions | None] = []
    flip = _may_flip([item["statement"]], recipe, rng)
    for shown in (record, partner(item["partner"])):
        detected = None if recipe.reads == "pixels" else read_regions(shown, recipe)
        view = whole_or_crop(shown, recipe, rng, whole=False)
        pixels.append(shown_image(shown, view, flip, recipe, rng))
        detected = flip_regions(detected) if flip and detected is not None else detected
        regions.append(None if detected is None else SeenRegions(detected, ([], [])))
    words = Words(encode_text(item["statement"], reading.tokenizer, reading.text))
    return _sample(pixels, regions, _Ask([words, words], [0, 1], {"label": np.array(item["label"], dtype=np.bool_)}))


def _question(item: Any, reading: Reading, weight: float) -> tuple[list[Words], Target]:
    scores = vqa_soft_scores(item["answers"])
    votes = {answer: item["answers"].count(answer) for answer in dict.fromkeys(item["answers"])}
    kept = sorted(votes, key=lambda answer: -votes[answer])[: reading.max_answers]
    size, length = reading.max_answers, reading.max_answer_tokens
    index, score = np.full(size, -1, dtype=np.int64), np.zeros(size, dtype=np.float32)
    share, ids = np.zeros(size, dtype=np.float32), np.full((size, length), reading.tokenizer.pad, dtype=np.int64)
    mask = np.zeros((size, length), dtype=np.bool_)
    for place, answer in enumerate(kept):
        share[place] = weight * votes[answer] / len(item["answers"])
        pieces = answer_words(answer, reading)
        ids[place, : len(pieces)], mask[place, : len(pieces)] = pieces, True
    known = reading.answers or {}
    # by their normalised form, under which several of the answers may be one
    for place, (answer, value) in enumerate(sorted(scores.items(), key=lambda pair: -pair[1])[:size]):
        index[place], score[place] = known.get(answer, -1), value * weight
    return [question_words(item["question"], reading)], {
        "index": index, "score": score, "weight": share, "ids": ids, "mask": mask,
    }  # fmt: skip


def _choice(
    record: Record,
    item: Any,
    detected: RegionFeatures | None,
    first: int,
    recipe: Recipe,
    reading: Reading,
    flip: bool,
) -> tuple[list[Words], Target]:
    _, _, context, choices, label = item
    names = [region.label for region in record.regions]
    shown = record if not flip else _flipped_boxes(record)
    rows = object_rows(shown, detected, first)
    words = [choice_words(context, choice, names, rows, reading) for choice in choices]
    classes = np.full(0 if detected is None else recipe.regions.num_regions, -100, dtype=np.int64)
    if detected is not None:
        classes[first : first + len(detected)] = np.where(detected.labels < 0, -100, detected.labels)
    return words, {"label": np.array(label, dtype=np.int64), "region_class": classes}


def _expression(
    item: tuple[str, Box], detected: RegionFeatures | None, first: int, recipe: Recipe, reading: Reading, flip: bool
) -> tuple[list[Words], Target]:
    text, box = item[0], flip_box(item[1]) if flip else item[1]
    overlap = np.zeros(0 if detected is None else recipe.regions.num_regions, dtype=np.float32)
    if detected is not None and len(detected):
        overlap[first : first + len(detected)] = overlaps(np.array([box]), detected.boxes)[0]
    words = Words(encode_text(text, reading.tokenizer, reading.text))
    return [words], {"box": np.array(box, dtype=np.float32), "overlap": overlap}


def _may_flip(texts: Sequence[str], recipe: Recipe, rng: np.random.Generator) -> bool:
    """Whether to mirror the image: not where a text names a side, which the truth about it may turn on."""
    flip = recipe.reads != "regions" and bool(rng.random() < recipe.image.flip)
    told = recipe.image.left_right != "ignore" and any(mentions_direction(text) for text in texts)
    return flip and not told


def _flipped_boxes(record: Record) -> Record:
    return replace(record, regions=tuple(replace(region, box=flip_box(region.box)) for region in record.regions))


def _texts(material: Material, item: Any) -> list[str]:
    if material == "questions":
        return [item["question"], *item["answers"]]
    if material == "expressions":
        return [item[0]]
    _, _, context, choices, _ = item
    return [" ".join(word for word in tokens if isinstance(word, str)) for tokens in (context, *choices)]


def _asked(record: Record, material: Material, reading: Reading) -> Sequence[Any]:
    """What can be asked of a record, with its answer."""
    if material == "choices":
        return [item for item in choice_items(record, reading.kinds) if item[-1] is not None]
    return named_boxes(record) if material == "expressions" else texts_of(record, material)
