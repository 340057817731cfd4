"""Readers of data sets in their official layouts, one file each; `DATASETS` is the table of them."""

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossgrain.data.records import Item


@dataclass(frozen=True)
class Flag:
    """A flag of `crossgrain prepare` that belongs to one source; the reader gets it as a keyword argument."""

    name: str
    help: str
    type: Callable[[str], Any] = Path
    required: bool = False
    default: Any = None
    many: bool = False  # takes several values


@dataclass(frozen=True)
class Source:
    """A layout: where its reader is, what it needs."""

    module: str
    help: str
    flags: tuple[Flag, ...] = ()
    has_root: bool = True

    def reader(self) -> Callable[..., Iterable[Item]]:
        """`read(root, *, split, **flags)` of the source's module, imported now."""
        return importlib.import_module(f"{__name__}.{self.module}").read


_CAPTIONS = "file of captions, in place of the one under --root"
_IMAGES = Flag("images", "folder of the images, in place of the one under --root")
_FLICKR_FLAGS = (Flag("captions", f"{_CAPTIONS}: token file, CSV or Karpathy's JSON"), _IMAGES)

DATASETS: dict[str, Source] = {
    "folder": Source("folder", "a folder of images with captions.csv, captions.tsv or captions.jsonl"),
    "scenes": Source(
        "scenes",
        "drawn scenes with captions, boxes and phrases, made without a download",
        (
            Flag("size", "number of scenes", int, default=10_000),
            Flag("seed", "the same seed gives the same bytes", int, default=0),
            Flag("image_size", "pixels a side", int, default=128),
        ),
        has_root=False,
    ),
    "coco": Source(
        "coco",
        "COCO captions, with objects from instances, in the official JSON",
        (
            Flag("captions", f"{_CAPTIONS} (several: train and val)", many=True),
            Flag("instances", "file of instances: boxes with category names (several: train and val)", many=True),
            _IMAGES,
            Flag("karpathy", "Karpathy's dataset_coco.json, for his splits"),
        ),
    ),
    "flickr8k": Source("flickr", "Flickr8k", _FLICKR_FLAGS),
    "flickr30k": Source("flickr", "Flickr30k", _FLICKR_FLAGS),
    "visual-genome": Source("visual_genome", "Visual Genome regions and objects, in the official JSON", (_IMAGES,)),
    "xvlm": Source(
        "xvlm",
        "JSON lines of X-VLM's pre-training: captions, or regions with captions",
        (Flag("captions", "the file or files of JSON lines, in place of all under --root", many=True), _IMAGES),
    ),
    "webdataset": Source(
        "webdataset", "tars as img2dataset writes them: KEY.jpg, KEY.txt, KEY.json (a folder, a tar or a glob)"
    ),
}
