"""One record and a random generator to one training sample. Pure functions, no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np

from crossgrain.config import UserError
from crossgrain.data.asks import Reading
from crossgrain.data.augment import (
    augment_colours,
    box_in_crop,
    crop_around,
    flip_box,
    mentions_direction,
    random_crop,
    render,
    swap_directions,
)
from crossgrain.data.images import EncodedImage, ImageConfig, ImageError
from crossgrain.data.masking import mask_regions, mask_tokens
from crossgrain.data.pairs import (
    OtherCaptions,
    PairsConfig,
    Reads,
    RegionsConfig,
    detected_regions,
    flip_regions,
)
from crossgrain.data.records import WHOLE_IMAGE, Box, Record
from crossgrain.data.regions import RegionFeatures
from crossgrain.data.text import TextConfig, Tokenizer, encode_text

T = TypeVar("T")
Texts = Literal["captions", "regions", "corpus", "questions", "pairs", "choices", "expressions"]

_TRIES = 8  # to find a caption that is not this image's as well


class Element(NamedTuple):
    """A visual concept of an image, and one text about it. `index` 0 is the whole image, i + 1 its region i."""

    index: int
    box: Box
    text: str
    matched: bool = True  # False: the text is another image's


class Row(NamedTuple):
    """An element in token ids; `masked` is (ids, positions, labels), or None where no objective asks for it.

    A row that is not `matched` is masked like any other, which would give it away otherwise, but has no labels. Rows of
    tasks may have segments and tags (asks.py), and speak about the second image of their sample (`image` 1).
    """

    index: int
    box: Box
    ids: list[int]
    masked: tuple[list[int], list[int], list[int]] | None
    matched: bool = True
    segments: list[int] | None = None
    tags: list[int] | None = None
    image: int = 0


class SeenRegions(NamedTuple):
    """The detector's regions of an image; `masked` is which of them are predicted, and whether each is hidden."""

    detected: RegionFeatures
    masked: tuple[list[int], list[bool]]


@dataclass(frozen=True)
class Sample:
    """One image with its rows: uint8 pixels (3, height, width), regions, or both, as the model reads it.

    A sample of text alone has neither. One of a task may have a `second` image, whose rows stand here, and the
    `target` of the task: arrays that are stacked over the samples of a batch.
    """

    pixels: np.ndarray | None
    rows: list[Row]
    regions: SeenRegions | None = None
    second: "Sample | None" = None
    target: Mapping[str, np.ndarray] | None = None
    flipped: bool = False  # whether the image is mirrored

    @property
    def has_image(self) -> bool:
        """Whether it is more than text."""
        return self.pixels is not None or self.regions is not None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What turns a record into a sample, apart from chance."""

    image: ImageConfig
    text: TextConfig
    tokenizer: Tokenizer
    regions: RegionsConfig = RegionsConfig()
    pairs: PairsConfig = PairsConfig()
    reads: Reads = "pixels"
    want_masked: bool = True  # hide words
    want_hidden: bool = False  # hide regions
    want_classes: bool = False  # of regions
    reading: Reading | None = None  # of the texts of a task

    @property
    def crops(self) -> bool:
        """Whether a part of each image is shown; otherwise always the whole of it."""
        return self.reads == "pixels" and self.image.long_side is None


def make_sample(
    record: Record,
    texts: Texts,
    num_texts: int,
    recipe: Recipe,
    rng: np.random.Generator,
    other_captions: OtherCaptions | None = None,
) -> Sample:
    """One image with `num_texts` rows; elements repeat where it has fewer.

    `other_captions` is what swapped texts are taken from. A record whose image is broken, or that lacks what is asked
    for, is an error with its key. Where the model reads stored regions no image is decoded.
    """
    detected = None if recipe.reads == "pixels" else read_regions(record, recipe)
    pixels, flipped = None, False
    try:
        image = None if recipe.reads == "regions" else EncodedImage(record.image)
        cropped = image.size if image is not None and recipe.crops else None
        crop, elements = _choose(record, texts, num_texts, cropped, recipe.image, rng)
        if other_captions is not None:
            elements = _swap(elements, record.captions, other_captions, recipe.pairs.swapped, rng)
        if image is not None:
            others = record.captions[: recipe.reading.num_references] if recipe.reading else ()
            elements, flipped = _flip(elements, others, recipe.image, rng)
            pixels = _pixels(image, crop, flipped, recipe.image, rng)
    except ImageError as error:
        raise unreadable(record, error) from None
    words, regions = _sides(recipe, len(detected) if detected is not None else 0, rng)
    rows = [_row(element, words, recipe, rng) for element in elements]
    if detected is None:
        return Sample(pixels, rows, flipped=flipped)
    masked = mask_regions(len(detected), recipe.regions.masking, rng) if regions else ([], [])
    seen = SeenRegions(flip_regions(detected) if flipped else detected, masked)
    return Sample(pixels, rows, seen, flipped=flipped)


def whole_or_crop(record: Record, recipe: Recipe, rng: np.random.Generator, whole: bool) -> Box:
    """What is shown of the image of a task: a crop as the recipe has it, or the whole."""
    if whole or not recipe.crops:
        return WHOLE_IMAGE
    try:
        return random_crop(EncodedImage(record.image).size, recipe.image.crop_scale, rng)
    except ImageError as error:
        raise unreadable(record, error) from None


def shown_image(
    record: Record, crop: Box, flipped: bool, recipe: Recipe, rng: np.random.Generator
) -> np.ndarray | None:
    """The pixels of a crop (3, height, width), with augmented colours; None where the model reads no pixels."""
    if recipe.reads == "regions":
        return None
    try:
        return _pixels(EncodedImage(record.image), crop, flipped, recipe.image, rng)
    except ImageError as error:
        raise unreadable(record, error) from None


def unreadable(record: Record, error: ImageError) -> UserError:
    """A record whose image is broken, named."""
    return UserError(f"record {record.key!r}: its image cannot be read: {error}")


def _pixels(image: EncodedImage, crop: Box, flipped: bool, config: ImageConfig, rng: np.random.Generator) -> np.ndarray:
    view = render(image, crop, config.shown_size(image.size))
    if config.rand_augment:
        view = augment_colours(view, *config.rand_augment, rng)
    return np.asarray(view).transpose(2, 0, 1)[:, :, :: -1 if flipped else 1]


def make_text_sample(ids: list[int], recipe: Recipe, rng: np.random.Generator) -> Sample:
    """One row of text alone, given in token ids."""
    masked = mask_tokens(ids, recipe.tokenizer, recipe.text.masking, rng) if recipe.want_masked else None
    return Sample(None, [Row(0, WHOLE_IMAGE, ids, masked)])


def read_regions(record: Record, recipe: Recipe) -> RegionFeatures:
    """What a detector found in the record, checked for what the objectives need."""
    detected = detected_regions(record, recipe.regions)
    if recipe.want_classes and (detected.labels < 0).any():
        raise UserError(f"record {record.key!r}: its regions have no classes, which an objective predicts")
    if recipe.want_hidden and recipe.regions.probs and detected.class_probs is None and len(detected):
        raise UserError(f"record {record.key!r}: its regions have no distribution over classes (regions.probs)")
    return detected


def _sides(recipe: Recipe, num_regions: int, rng: np.random.Generator) -> tuple[bool, bool]:
    """Whether words are masked in this sample, and whether regions are."""
    if not (recipe.want_masked and recipe.want_hidden and recipe.pairs.masked_side == "one"):
        return recipe.want_masked, recipe.want_hidden
    words = bool(rng.random() < 0.5) or not num_regions
    return words, not words


def _row(element: Element, mask_words: bool, recipe: Recipe, rng: np.random.Generator) -> Row:
    ids = encode_text(element.text, recipe.tokenizer, recipe.text)
    masked = (ids, [], []) if recipe.want_masked else None
    if mask_words:
        masked = mask_tokens(ids, recipe.tokenizer, recipe.text.masking, rng)
        masked = masked if element.matched else (masked[0], [], [])
    return Row(element.index, element.box, ids, masked, element.matched)


def _swap(
    elements: list[Element], own: Sequence[str], others: OtherCaptions, share: float, rng: np.random.Generator
) -> list[Element]:
    """The elements, a `share` of them with a caption of another image instead of their text."""
    return [_with_wrong_text(e, own, others, rng) if rng.random() < share else e for e in elements]


def _with_wrong_text(element: Element, own: Sequence[str], others: OtherCaptions, rng: np.random.Generator) -> Element:
    """The element as it is where only captions are found that say the same of its own image."""
    for _ in range(_TRIES):
        captions = others(rng)
        text = captions[int(rng.integers(len(captions)))]
        if text not in own:
            return element._replace(text=text, matched=False)
    return element


def _choose(
    record: Record,
    texts: Texts,
    num_texts: int,
    size: tuple[int, int] | None,
    config: ImageConfig,
    rng: np.random.Generator,
) -> tuple[Box, list[Element]]:
    """The crop of an image of this (width, height), and `num_texts` elements that are seen in it.

    Without a size the whole image is the crop. Where the crop shows fewer, elements come again, with another of their
    texts as long as there is one.
    """
    whole = [(0, WHOLE_IMAGE, record.captions)] if record.captions else []
    if texts == "captions":
        crop, seen = random_crop(size, config.crop_scale, rng) if size else WHOLE_IMAGE, whole
    else:
        crop, regions = _choose_regions(record, size, config, rng)
        seen = [*whole, *regions][:num_texts]
    told = [(index, box, _shuffled(names, rng)) for index, box, names in seen]
    elements = []
    for number in range(num_texts):
        again, which = divmod(number, len(told))
        index, box, names = told[which]
        elements.append(Element(index, box, names[again % len(names)]))
    return crop, elements


def _choose_regions(
    record: Record, size: tuple[int, int] | None, config: ImageConfig, rng: np.random.Generator
) -> tuple[Box, list[tuple[int, Box, Sequence[str]]]]:
    """A crop that shows one region, and in random order, that one first, those that stay more than half visible."""
    named = [(i, region.box, texts) for i, region in enumerate(record.regions) if (texts := region.texts())]
    if not named:
        raise UserError(f"record {record.key!r}: none of its {len(record.regions)} regions has a text")
    named = _shuffled(named, rng)
    if size is None:
        crop = WHOLE_IMAGE
    elif config.region_crop == "around_region":
        crop = crop_around(named[0][1], size, rng)
    else:
        crop = random_crop(size, config.crop_scale, rng)
        crop = crop if box_in_crop(named[0][1], crop) else WHOLE_IMAGE
    return crop, [(i + 1, seen, texts) for i, box, texts in named if (seen := box_in_crop(box, crop))]


def _flip(
    elements: list[Element], others: Sequence[str], config: ImageConfig, rng: np.random.Generator
) -> tuple[list[Element], bool]:
    """The elements in the mirrored image or as they were, and whether the image is to be mirrored.

    `others` are what else is read of the image's texts.
    """
    flipped = bool(rng.random() < config.flip)
    if flipped and config.left_right == "keep_image":
        flipped = not any(map(mentions_direction, (*(element.text for element in elements), *others)))
    if not flipped:
        return elements, False
    retell = swap_directions if config.left_right == "swap_words" else str
    return [e._replace(box=flip_box(e.box), text=retell(e.text)) for e in elements], True


def _shuffled(items: Sequence[T], rng: np.random.Generator) -> Sequence[T]:
    return [items[i] for i in rng.permutation(len(items)).tolist()] if len(items) > 1 else items
