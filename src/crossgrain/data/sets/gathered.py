"""One record an image, from annotations that speak of images in any order: questions, captions, statements.

What is said waits in a temporary file once it is more than 64 MiB; in memory stay 12 bytes of each annotation, so that
the 14 million questions of GQA take less than their images' names.
"""

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

import numpy as np

from crossgrain.data.records import Dropped, Item, Record
from crossgrain.data.sets.pictures import ImageFolders, Keys, Splits

_IN_MEMORY = 64 * 2**20  # bytes of annotations before they go to a file


@dataclass(frozen=True, slots=True)
class Said:
    """One annotation of one image.

    `names` are those that the image's file may have, the first gives the record's key. `kind` is "captions", or the key
    of `extra` under which `value` (plain JSON) is listed; a `value` of None says that the image belongs to the data set
    and nothing else. `split` is None where the layout has none.
    """

    names: tuple[str, ...]
    where: str
    kind: str
    value: Any
    split: str | None = None


Gathered = Mapping[str, list[Any]]  # what was said of one image, by kind, in the order of the annotations
Make = Callable[[Record, Gathered], list[Record | Dropped]]


class Spool:
    """Plain JSON values on disk, by number in the order that they came. A context manager: leaving it forgets them."""

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - `__exit__` closes it
        self._ends = array("q", [0])

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, value: Any) -> int:
        """Keep a value; its number."""
        data = json.dumps(value, separators=(",", ":")).encode()
        self._file.seek(self._ends[-1])
        self._file.write(data)
        self._ends.append(self._ends[-1] + len(data))
        return len(self) - 1

    def __getitem__(self, number: int) -> Any:
        start, end = self._ends[number : number + 2]
        self._file.seek(start)
        return json.loads(self._file.read(end - start))


class GatheredImages:
    """The items of a layout whose annotations name their images: one an image and split, in order of first mention.

    A record takes what was said of it into `captions` and `extra`; `make`, where given, does it instead, in a worker.
    An image whose file is missing is one drop, whatever was said of it. `keys` is given where annotations name other
    records. The length hint is known once the annotations have been read.
    """

    def __init__(
        self,
        said: Iterable[Said | Dropped],
        folders: ImageFolders,
        splits: Splits,
        *,
        make: Make | None = None,
        keys: Keys | None = None,
    ):
        self.said = said
        self.folders = folders
        self.splits = splits
        self.make = make
        self.keys = keys or Keys()
        self._length = 0

    def __length_hint__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Item]:
        images: dict[tuple[str, str], tuple[int, tuple[str, ...], str]] = {}  # number, names, where; by name and split
        owners, dropped = array("i"), 0
        with Spool() as spool:
            for one in self.said:
                if isinstance(one, Dropped):
                    dropped += 1
                    yield one
                    continue
                split = self.splits.place(one.names[0], one.split)
                if split is None:
                    continue
                number, _, _ = images.setdefault((one.names[0], split), (len(images), one.names, one.where))
                if one.value is not None:
                    spool.append([one.kind, one.value])
                    owners.append(number)
            self._length = dropped + len(images)
            groups = _groups(owners, len(images))
            for ((name, split), (_, names, where)), numbers in zip(images.items(), groups, strict=True):
                file = self.folders.find(where, *names)
                if isinstance(file, Dropped):
                    yield file
                    continue
                told: dict[str, list[Any]] = {}
                for kind, value in map(spool.__getitem__, numbers):
                    told.setdefault(kind, []).append(value)
                yield self._item(self.keys.of(name), file, split, where, told)

    def _item(self, key: str, file: Path, split: str, where: str, gathered: dict[str, list[Any]]) -> Item:
        record = Record(key=key, image=file, split=split, extra={"source": where})
        if self.make is not None:
            return partial(self.make, record, gathered)  # pyright: ignore[reportReturnType] - returns several
        return with_said(record, gathered)


def with_said(record: Record, gathered: Gathered) -> Record:
    """The record with what was said of it."""
    extra = {**record.extra, **{kind: values for kind, values in gathered.items() if kind != "captions"}}
    return Record(
        key=record.key,
        image=record.image,
        captions=tuple(gathered.get("captions", ())),
        regions=record.regions,
        split=record.split,
        extra=extra,
    )


def _groups(owners: array, size: int) -> Iterator[list[int]]:
    """For each of `size` owners the numbers of what it owns, in order."""
    owned = np.frombuffer(owners, dtype=np.int32) if owners else np.zeros(0, dtype=np.int32)
    order = np.argsort(owned, kind="stable")
    bounds = np.searchsorted(owned[order], np.arange(size + 1))
    return (order[start:end].tolist() for start, end in pairwise(bounds.tolist()))
