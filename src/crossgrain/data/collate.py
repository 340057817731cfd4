"""Samples to one batch of tensors, all shapes fixed by the recipe."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from crossgrain.data.samples import Row, Sample
from crossgrain.data.text import TextConfig
from crossgrain.data.types import Batch, BoxTarget, Hidden, Pixels, Text

_IGNORED = -100  # a label that no loss counts


class Origin(NamedTuple):
    """Where a sample comes from: which data set, which record of it, and whether its rows are trained on boxes."""

    dataset: int
    record: int
    regions: bool


def collate(samples: Sequence[Sample], origins: Sequence[Origin], text: TextConfig, pad: int) -> Batch:
    """The batch of these samples, rows in their order.

    Rows of one element of one record share a `group`. Every row of a "regions" source has a box target, which is not
    valid where the row speaks about the whole image. "masked" and "mlm" are there if the samples were masked.
    """
    rows = [row for sample in samples for row in sample.rows]
    image = np.repeat(np.arange(len(samples)), [len(sample.rows) for sample in samples])
    boxes = torch.tensor([row.box for row in rows], dtype=torch.float32)
    element = np.array([row.index for row in rows], dtype=np.int64)
    group = _groups(origins)[image] | element
    boxed = np.flatnonzero(np.array([origin.regions for origin in origins])[image])

    clean = pad_texts([row.ids for row in rows], text.max_tokens, pad)
    texts = {"clean": clean}
    targets: dict[str, Hidden | BoxTarget] = {
        "box": BoxTarget(rows=torch.from_numpy(boxed), boxes=boxes[boxed], valid=torch.from_numpy(element[boxed] > 0))
    }
    if rows[0].masked is not None:
        texts["masked"], targets["mlm"] = _masked(rows, clean, text.masking.max_masked)
    pixels = Pixels(
        pixels=torch.from_numpy(np.stack([sample.pixels for sample in samples])),
        image=torch.from_numpy(image),
        boxes=boxes,
        regions=torch.from_numpy(boxed),
    )
    return Batch(
        image={"clean": pixels},
        text=texts,
        group=torch.from_numpy(group),
        targets=targets,
    )


def pad_texts(ids: Sequence[Sequence[int]], length: int, pad: int) -> Text:
    """Rows of token ids, padded to `length`."""
    table = np.full((len(ids), length), pad, dtype=np.int64)
    mask = np.zeros((len(ids), length), dtype=np.bool_)
    for row, values in enumerate(ids):
        table[row, : len(values)] = values
        mask[row, : len(values)] = True
    return Text(ids=torch.from_numpy(table), mask=torch.from_numpy(mask))


def _groups(origins: Sequence[Origin]) -> np.ndarray:
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
