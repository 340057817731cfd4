"""Samples to one batch of tensors, all shapes fixed by the recipe (but for a canvas that follows its images)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float16, Float32, Int64, UInt8
from torch import Tensor

from crossgrain.data.asks import Words
from crossgrain.data.images import ImageConfig, eval_image
from crossgrain.data.pairs import RegionsConfig, detected_regions
from crossgrain.data.records import WHOLE_IMAGE, Record
from crossgrain.data.regions import RegionFeatures
from crossgrain.data.samples import Recipe, Row, Sample, SeenRegions
from crossgrain.data.types import (
    Batch,
    BoxTarget,
    Hidden,
    HiddenRegions,
    Image,
    Matched,
    Pixels,
    RawRegions,
    References,
    Regions,
    Text,
)

_IGNORED = -100  # a label that no loss counts


class Origin(NamedTuple):
    """Where a sample comes from: which data set, which record of it, and whether its rows are trained on boxes."""

    dataset: int
    record: int
    regions: bool


def collate(samples: Sequence[Sample], origins: Sequence[Origin], recipe: Recipe) -> Batch:
    """The batch of these samples, at least one of them with an image, rows in their order.

    Rows of one element of one record share a `group`. For models that read pixels, every row of a "regions" source has
    a box target, which is not valid where the row speaks about the whole image. The other targets are there if the
    recipe wants them; where it hides nothing, the masked variant is the clean one.
    """
    rows = [row for sample in samples for row in sample.rows]
    shown = [sample for sample in samples if sample.has_image]
    sample_of_row = np.repeat(np.arange(len(samples)), [len(sample.rows) for sample in samples])
    has_image = np.array([sample.has_image for sample in samples])
    image = np.where(has_image, has_image.cumsum() - 1, -1)[sample_of_row]
    element = np.array([row.index for row in rows], dtype=np.int64)
    matched = np.array([row.matched for row in rows])

    text, pad = recipe.text, recipe.tokenizer.pad
    clean = pad_texts([row.ids for row in rows], text.max_tokens, pad)
    texts = {"clean": clean, "masked": clean}
    targets: dict[str, Any] = {}
    if recipe.want_masked:
        texts["masked"], targets["mlm"] = _masked(rows, clean, text.masking.max_masked)
    if samples[0].target is not None:
        targets["references"] = _references(samples, sample_of_row, pad)
    if recipe.pairs.swapped:
        targets["itm"] = Matched(label=torch.from_numpy(matched))
    if recipe.reads == "pixels":
        boxed = np.flatnonzero(np.array([origin.regions for origin in origins])[sample_of_row])
        boxes = torch.tensor([row.box for row in rows], dtype=torch.float32)
        valid = torch.from_numpy(element[boxed] > 0)
        targets["box"] = BoxTarget(rows=torch.from_numpy(boxed), boxes=boxes[boxed], valid=valid)
        pixels, size = canvas([sample.pixels for sample in shown], recipe.image)
        rows_of_parts = torch.from_numpy(boxed)
        seen = Pixels(pixels=pixels, image=torch.from_numpy(image), boxes=boxes, regions=rows_of_parts, size=size)
        images: dict[str, Image] = {"clean": seen, "masked": seen}
    else:
        images, predicted = seen_regions(shown, image, recipe)
        if predicted is not None:
            targets["regions"] = _per_row(predicted, image, matched & (image >= 0))
    return Batch(
        image=images,
        text=texts,
        group=torch.from_numpy(groups_of(origins)[sample_of_row] | element),
        targets=targets,
        paired=None if has_image.all() else torch.from_numpy(image >= 0),
    )


def pad_texts(ids: Sequence[Sequence[int]], length: int, pad: int) -> Text:
    """Rows of token ids, padded to `length`."""
    table, mask = padded_table(ids, length, pad), np.zeros((len(ids), length), dtype=np.bool_)
    for row, values in enumerate(ids):
        mask[row, : len(values)] = True
    return Text(ids=torch.from_numpy(table), mask=torch.from_numpy(mask))


def pad_words(words: Sequence[Words], length: int, pad: int) -> Text:
    """The same of the texts of a task, with segments and tags where these have them."""
    text = pad_texts([row.ids for row in words], length, pad)
    segments = [row.segments for row in words if row.segments is not None]
    tags = [row.tags for row in words if row.tags is not None]
    return replace(
        text,
        segment=torch.from_numpy(padded_table(segments, length, 0)) if segments else None,
        tags=torch.from_numpy(padded_table(tags, length, -1)) if tags else None,
    )


def padded_table(rows: Sequence[Sequence[int]], length: int, fill: int) -> Int64[np.ndarray, "B L"]:
    """Rows of numbers as a table of this length."""
    table = np.full((len(rows), length), fill, dtype=np.int64)
    for number, values in enumerate(rows):
        table[number, : len(values)] = values
    return table


def _references(samples: Sequence[Sample], sample_of_row: Int64[np.ndarray, " B"], pad: int) -> References:
    ids = np.stack([sample.target["references"] for sample in samples if sample.target is not None])[sample_of_row]
    return References(ids=torch.from_numpy(ids), mask=torch.from_numpy(ids != pad))


def pixels_of(records: Sequence[Record], config: ImageConfig) -> Pixels:
    """The images of these records as they are evaluated: whole, and neither flipped nor coloured."""
    pixels, size = canvas([eval_image(record, config) for record in records], config)
    return replace(Pixels.whole(pixels), size=size)


def regions_of(records: Sequence[Record], config: RegionsConfig) -> Regions:
    """The detector's regions of these records, one row for each. UserError for a record without."""
    table = _table([detected_regions(record, config) for record in records], config, features=True)
    return Regions(**table, image=torch.arange(len(records)))


def raw_regions_of(records: Sequence[Record], image: ImageConfig, config: RegionsConfig) -> RawRegions:
    """The images of these records, with the boxes that a detector found in them. UserError for a record without."""
    pixels, size = canvas([eval_image(record, image) for record in records], image)
    table = _table([detected_regions(record, config) for record in records], config, features=False)
    return RawRegions(pixels=pixels, size=_filled(pixels, size), **table, image=torch.arange(len(records)))


def groups_of(origins: Sequence[Origin]) -> Int64[np.ndarray, " S"]:
    """64 bits: data set (15), record (32), element (16, added by the caller)."""
    numbers = np.array([(origin.dataset, origin.record) for origin in origins], dtype=np.int64)
    return (numbers[:, 0] << 48) | (numbers[:, 1] << 16)


def _masked(rows: Sequence[Row], clean: Text, max_masked: int) -> tuple[Text, Hidden]:
    position = np.zeros((len(rows), max_masked), dtype=np.int64)
    label = np.full((len(rows), max_masked), _IGNORED, dtype=np.int64)
    ids: Tensor = clean.ids.clone()
    for index, row in enumerate(rows):
        assert row.masked is not None
        changed, positions, labels = row.masked
        ids[index, : len(changed)] = torch.tensor(changed)
        position[index, : len(positions)] = positions
        label[index, : len(labels)] = labels
    return Text(ids=ids, mask=clean.mask), Hidden(position=torch.from_numpy(position), label=torch.from_numpy(label))


def canvas(
    pictures: Sequence[UInt8[np.ndarray, "3 _ _"] | None], config: ImageConfig
) -> tuple[UInt8[Tensor, "I 3 H W"], Int64[Tensor, "I 2"] | None]:
    """The pictures in one tensor, and the (height, width) of each; None where all of them fill it."""
    whole = [picture for picture in pictures if picture is not None]
    if config.long_side is None:
        return torch.from_numpy(np.stack(whole)), None
    sizes = [(picture.shape[1], picture.shape[2]) for picture in whole]
    canvas = np.zeros((len(whole), 3, *config.canvas_size(sizes)), dtype=np.uint8)
    for place, picture, (height, width) in zip(canvas, whole, sizes, strict=True):
        place[:, :height, :width] = picture
    return torch.from_numpy(canvas), torch.tensor(sizes)


def _filled(pixels: UInt8[Tensor, "I 3 H W"], size: Int64[Tensor, "I 2"] | None) -> Int64[Tensor, "I 2"]:
    return torch.tensor([[*pixels.shape[2:]]]).repeat(len(pixels), 1) if size is None else size


def _table(detected: Sequence[RegionFeatures], config: RegionsConfig, *, features: bool) -> dict[str, Tensor]:
    """Boxes, mask and, where they are wanted, features of I images: one copy of what was read, still in float16."""
    first, shape = int(config.whole_image), (len(detected), config.num_regions)
    boxes: Float32[np.ndarray, "I N 4"] = np.zeros((*shape, 4), dtype=np.float32)
    mask: Bool[np.ndarray, "I N"] = np.zeros(shape, dtype=np.bool_)
    size = max(regions.features.shape[1] for regions in detected) if features else 0
    table = torch.zeros((*shape, size), dtype=torch.float16)
    copied: Float16[np.ndarray, "I N F"] = table.numpy()
    for row, regions in enumerate(detected):
        end = first + len(regions)
        boxes[row, first:end] = regions.boxes
        mask[row, :end] = True
        if features and len(regions):
            copied[row, first:end] = regions.features
            if config.whole_image:
                table[row, 0] = table[row, first:end].float().mean(0)  # a quarter of numpy's time
    if config.whole_image:
        boxes[:, 0] = WHOLE_IMAGE
    given = {"boxes": torch.from_numpy(boxes), "mask": torch.from_numpy(mask)}
    return {"features": table, **given} if features else given


def seen_regions(
    shown: Sequence[Sample], image: Int64[np.ndarray, " B"], recipe: Recipe
) -> tuple[dict[str, Image], HiddenRegions | None]:
    """The variants of the images' regions, and of each image (not row) those that are predicted.

    Both variants are made of the same tensors; the masked one also says what is hidden.
    """
    seen = [sample.regions for sample in shown if sample.regions is not None]
    raw = recipe.reads == "raw_regions"
    table = _table([regions.detected for regions in seen], recipe.regions, features=not raw)
    rows = torch.from_numpy(image)
    if raw:
        pixels, size = canvas([sample.pixels for sample in shown], recipe.image)
        clean = RawRegions(pixels=pixels, size=_filled(pixels, size), **table, image=rows)
    else:
        clean = Regions(**table, image=rows)
    if not recipe.want_hidden:
        return {"clean": clean, "masked": clean}, None
    hidden, predicted = _predicted(seen, recipe.regions)
    return {"clean": clean, "masked": replace(clean, hidden=hidden)}, predicted


def _predicted(seen: Sequence[SeenRegions], config: RegionsConfig) -> tuple[Bool[Tensor, "I N"], HiddenRegions]:
    """Which regions of each image are hidden, and which are predicted: positions, labels and distributions."""
    first, shape = int(config.whole_image), (len(seen), config.masking.max_masked)
    hidden = np.zeros((len(seen), config.num_regions), dtype=np.bool_)
    position = np.zeros(shape, dtype=np.int64)
    label = np.full(shape, _IGNORED, dtype=np.int64)
    probs = None
    for row, (detected, (positions, are_hidden)) in enumerate(seen):
        position[row, : len(positions)] = np.add(positions, first)
        hidden[row, position[row, : len(positions)]] = are_hidden
        label[row, : len(positions)] = detected.labels[positions]
        if config.probs and detected.class_probs is not None:
            probs = np.zeros((*shape, detected.class_probs.shape[1]), np.float16) if probs is None else probs
            probs[row, : len(positions)] = detected.class_probs[positions]
    target = HiddenRegions(
        position=torch.from_numpy(position),
        label=torch.from_numpy(label),
        probs=None if probs is None else torch.from_numpy(probs),
    )
    return torch.from_numpy(hidden), target


def _per_row(predicted: HiddenRegions, image: Int64[np.ndarray, " B"], asked: Bool[np.ndarray, " B"]) -> HiddenRegions:
    """What is predicted of each row's image; nothing where the row is not `asked`, as its text is wrong or alone."""
    if not (len(image) == len(predicted.label) and (image == np.arange(len(image))).all()):
        rows = torch.from_numpy(image.clip(min=0))
        predicted = predicted.map(lambda tensor: tensor.index_select(0, rows))
    return replace(predicted, label=predicted.label.where(torch.from_numpy(asked)[:, None], _IGNORED))
