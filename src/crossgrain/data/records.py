"""The noun of the data on disk: one image with everything that is said about it.

A reader of `data/sets` yields records; shards keep them; nothing here knows pixels or tokens. No torch.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossgrain.data.regions import RegionFeatures

Box = tuple[float, float, float, float]  # (x1, y1, x2, y2) in [0, 1], x1 < x2, y1 < y2
WHOLE_IMAGE: Box = (0.0, 0.0, 1.0, 1.0)

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A box of the image and the texts that speak about it: an object (label, attributes) or a described region."""

    box: Box
    label: str = ""
    attributes: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()

    def texts(self) -> tuple[str, ...]:
        """Everything that names this region: its phrases, and "attribute label" (X-VLM pretrain_dataset.py:380-382)."""
        named = (" ".join((*self.attributes, self.label)),) if self.label else ()
        return self.phrases + tuple(text for text in named if text not in self.phrases)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One image with its texts.

    `image` is the encoded file (bytes), or the path that it is read from before it enters a shard. `extra` holds plain
    JSON values that tasks read (questions, pairs, expressions, provenance) under a key per task. `detected` is what a
    detector found in the image, where one has been over the data and the reader asks for it; it has its own files.
    """

    key: str  # unique in the data set; letters, digits, "_" and "-" only
    image: bytes | Path
    captions: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()
    split: str = "train"
    extra: Mapping[str, Any] = field(default_factory=dict)
    detected: RegionFeatures | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A record that a reader could not use: which rule it broke and where it stands."""

    reason: str  # the rule, in few words and without values, so that equal reasons are counted together
    where: str  # file, and line or key inside it
    detail: str = ""  # the value that broke the rule


# What a reader yields: the record itself, or a picklable function without arguments that makes it in a worker
# (decoding an archive member, drawing a scene), or several: region drops beside their record.
Item = Record | Dropped | Callable[[], Record | Dropped | Sequence[Record | Dropped]]


def safe_key(name: str) -> str:
    """`name` as a record key: every run of other characters than letters, digits, "_" and "-" becomes one "_"."""
    return _UNSAFE.sub("_", name).strip("_") or "_"


def record_to_json(record: Record) -> dict[str, Any]:
    """Everything but the image, as plain JSON values with a stable order of keys."""
    regions = [
        {"box": [round(v, 6) for v in r.box], "label": r.label, "attributes": [*r.attributes], "phrases": [*r.phrases]}
        for r in record.regions
    ]
    return {
        "key": record.key,
        "split": record.split,
        "captions": [*record.captions],
        "regions": regions,
        "extra": dict(record.extra),
    }


def record_from_json(values: Mapping[str, Any], image: bytes) -> Record:
    """The inverse of `record_to_json`."""
    regions = tuple(
        Region(box=tuple(r["box"]), label=r["label"], attributes=tuple(r["attributes"]), phrases=tuple(r["phrases"]))
        for r in values["regions"]
    )
    return Record(
        key=values["key"],
        image=image,
        captions=tuple(values["captions"]),
        regions=regions,
        split=values["split"],
        extra=values["extra"],
    )
