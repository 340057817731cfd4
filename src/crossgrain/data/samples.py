"""One record and a random generator to one training sample. Pure functions, no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np

from crossgrain.config import UserError
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
from crossgrain.data.masking import mask_tokens
from crossgrain.data.records import WHOLE_IMAGE, Box, Record
from crossgrain.data.text import TextConfig, Tokenizer, encode_text

T = TypeVar("T")
Texts = Literal["captions", "regions"]


class Element(NamedTuple):
    """A visual concept of an image, and one text about it. `index` 0 is the whole image, i + 1 its region i."""

    index: int
    box: Box
    text: str


class Row(NamedTuple):
    """An element in token ids; `masked` is (ids, positions, labels), or None where no objective asks for it."""

    index: int
    box: Box
    ids: list[int]
    masked: tuple[list[int], list[int], list[int]] | None


@dataclass(frozen=True)
class Sample:
    """One image, uint8 (3, size, size), and its rows."""

    pixels: np.ndarray
    rows: list[Row]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What turns a record into a sample, apart from chance."""

    image: ImageConfig
    text: TextConfig
    tokenizer: Tokenizer
    want_masked: bool = True


def make_sample(record: Record, texts: Texts, num_texts: int, recipe: Recipe, rng: np.random.Generator) -> Sample:
    """One image with `num_texts` rows; elements repeat where it has fewer. A broken image is an error with its key."""
    try:
        image = EncodedImage(record.image)
        crop, elements = _choose(record, texts, num_texts, image.size, recipe.image, rng)
        elements, flipped = _flip(elements, recipe.image, rng)
        view = render(image, crop, recipe.image.size)
    except ImageError as error:
        raise UserError(f"record {record.key!r}: its image cannot be read: {error}") from None
    if recipe.image.rand_augment:
        view = augment_colours(view, *recipe.image.rand_augment, rng)
    pixels = np.asarray(view).transpose(2, 0, 1)
    return Sample(pixels[:, :, ::-1] if flipped else pixels, [_row(element, recipe, rng) for element in elements])


def _row(element: Element, recipe: Recipe, rng: np.random.Generator) -> Row:
    ids = encode_text(element.text, recipe.tokenizer, recipe.text)
    masked = mask_tokens(ids, recipe.tokenizer, recipe.text.masking, rng) if recipe.want_masked else None
    return Row(element.index, element.box, ids, masked)


def _choose(
    record: Record, texts: Texts, num_texts: int, size: tuple[int, int], config: ImageConfig, rng: np.random.Generator
) -> tuple[Box, list[Element]]:
    """The crop, and `num_texts` elements that are seen in it.

    Where the crop shows fewer, elements come again, with another of their texts as long as there is one.
    """
    whole = [(0, WHOLE_IMAGE, record.captions)] if record.captions else []
    if texts == "captions":
        crop, seen = random_crop(size, config.crop_scale, rng), whole
    else:
        crop, regions = _choose_regions(record, size, rng)
        seen = [*whole, *regions][:num_texts]
    told = [(index, box, _shuffled(names, rng)) for index, box, names in seen]
    elements = []
    for number in range(num_texts):
        again, which = divmod(number, len(told))
        index, box, names = told[which]
        elements.append(Element(index, box, names[again % len(names)]))
    return crop, elements


def _choose_regions(
    record: Record, size: tuple[int, int], rng: np.random.Generator
) -> tuple[Box, list[tuple[int, Box, Sequence[str]]]]:
    """A crop around one region, and in random order, that one first, the regions that stay more than half visible."""
    named = [(i, region.box, texts) for i, region in enumerate(record.regions) if (texts := region.texts())]
    if not named:
        raise UserError(f"record {record.key!r}: none of its {len(record.regions)} regions has a text")
    named = _shuffled(named, rng)
    crop = crop_around(named[0][1], size, rng)
    return crop, [(i + 1, seen, texts) for i, box, texts in named if (seen := box_in_crop(box, crop))]


def _flip(elements: list[Element], config: ImageConfig, rng: np.random.Generator) -> tuple[list[Element], bool]:
    """The elements in the mirrored image or as they were, and whether the image is to be mirrored."""
    flipped = bool(rng.random() < config.flip)
    if flipped and config.left_right == "keep_image":
        flipped = not any(mentions_direction(element.text) for element in elements)
    if not flipped:
        return elements, False
    retell = swap_directions if config.left_right == "swap_words" else str
    return [Element(e.index, flip_box(e.box), retell(e.text)) for e in elements], True


def _shuffled(items: Sequence[T], rng: np.random.Generator) -> Sequence[T]:
    return [items[i] for i in rng.permutation(len(items)).tolist()] if len(items) > 1 else items
