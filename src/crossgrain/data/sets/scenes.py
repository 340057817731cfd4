"""The embedded scenes as a data set: nothing is read, every record is drawn on demand (in whatever worker asks)."""

from collections.abc import Iterator
from functools import partial

from crossgrain.config import UserError
from crossgrain.data.records import Item
from crossgrain.data.scenes.record import scene_record
from crossgrain.data.scenes.world import SPLITS

MAX_HELD_OUT = 500  # scenes in each split but train: the gallery of the reported numbers


def split_sizes(size: int) -> dict[str, int]:
    """How `size` scenes are shared out: an eighth, at most 500, for each of val, test and unseen; the rest is train."""
    held_out = 0 if size < 4 else max(1, min(MAX_HELD_OUT, size // 8))
    return {"train": size - 3 * held_out, **dict.fromkeys(SPLITS[1:], held_out)}


def read(size: int, seed: int, *, split: str | None = None, image_size: int = 128) -> Iterator[Item]:
    """`size` scenes over all splits (train, val, test, unseen in this order), or `size` scenes of one split.

    Every item is a picklable function that draws its record. Raises UserError for a size, split or image size that
    cannot be.
    """
    if size < 1:
        raise UserError(f"scenes: the size must be 1 or more, not {size}")
    if image_size < 16:
        raise UserError(f"scenes: the image size must be 16 pixels or more, not {image_size}")
    if split is not None and split not in SPLITS:
        raise UserError(f"scenes: there is no split {split!r}; choose from {', '.join(SPLITS)}")
    sizes = {split: size} if split else split_sizes(size)
    return (partial(scene_record, seed, name, i, image_size) for name, count in sizes.items() for i in range(count))
