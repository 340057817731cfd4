"""Region features that others computed, in the formats in which they are passed on; `FEATURE_FILES` lists them."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossgrain.config import UserError


@dataclass(frozen=True)
class FeatureFormat:
    """A format: where its reader is, and what its class labels are."""

    reader: str  # "module:function" in this package
    help: str
    num_classes: int | None = None  # None: as many as its class probabilities have columns; 0: it has no labels

    def read(self, path: Path) -> Iterator[Any]:
        """The images of a file or folder, one at a time: `rows.FeatureRow` (id, regions, ...), or `records.Dropped`."""
        module, function = self.reader.split(":")
        return getattr(importlib.import_module(f"{__name__}.{module}"), function)(path)


FEATURE_FILES: dict[str, FeatureFormat] = {
    "bottom_up": FeatureFormat(
        "tsv:read_bottom_up", "bottom-up-attention's TSV of 6 columns, 36 or 10 to 100 boxes an image", 0
    ),
    "lxmert": FeatureFormat("tsv:read_lxmert", "LXMERT's TSV of 10 columns, with objects and attributes", 1600),
    "uniter_npz": FeatureFormat("uniter:read_npz_folder", "UNITER's folder of .npz files"),
    "uniter_lmdb": FeatureFormat("uniter:read_lmdb", "UNITER's LMDB, compressed or not (needs the package lmdb)"),
    "vlbert": FeatureFormat("vlbert:read", "VL-BERT's base64 JSON per image: a folder, a zip or one file"),
}


def feature_format(name: str) -> FeatureFormat:
    """The format of a name; UserError with the choices for an unknown one."""
    if name not in FEATURE_FILES:
        raise UserError(f"unknown format of features {name!r}: choose from {', '.join(FEATURE_FILES)}")
    return FEATURE_FILES[name]
