"""Records by their keys, for statements about two pictures (NLVR2). No torch."""

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np

from crossgrain.config import UserError
from crossgrain.data.records import Record
from crossgrain.data.shards import Shards


@runtime_checkable
class TextsAlone(Protocol):
    """Records that can be had without their images, which is much faster."""

    def texts(self, index: int) -> Record:
        """Everything but the image."""
        ...


class Partners:
    """The records of a split, found by key. Of shards the keys are read when first asked for, as arrays."""

    def __init__(self, records: Sequence[Record]):
        self.records: Sequence[Record] = getattr(records, "whole", records)  # where these are the first of a split

    def record(self, key: str) -> Record:
        """The record of this key. UserError where the split has none."""
        return self.records[self.number(key)]

    def number(self, key: str) -> int:
        """Its place in the split."""
        keys, order = self._sorted
        place = int(np.searchsorted(keys, key))
        if place == len(keys) or keys[place] != key:
            raise UserError(f"a statement names the picture {key!r}, which the split does not have: prepare it again")
        return int(order[place])

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        whole = self.records
        keys = whole.column("key") if isinstance(whole, Shards) else np.array([record.key for record in whole])
        order = np.argsort(keys, kind="stable")
        return keys[order], order
