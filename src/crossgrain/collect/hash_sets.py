"""The perceptual hashes of a test set, by which its images and their mirror images are kept out of what is collected.

A hash set is a text file: a first line that names the hash and the set, then for each image its hash and that of its
mirror image, in hexadecimal. No image can be made from that. Build them from COCO, Flickr30k and whatever else a model
will be tested on.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossgrain.collect.hashes import DECODE_SIDE, PHASH, SAME_IMAGE, mirrored_phashes
from crossgrain.collect.near import NearIndex
from crossgrain.config import UserError
from crossgrain.data.drops import Drops
from crossgrain.data.images import ImageError, open_image
from crossgrain.data.records import Dropped

_FIRST_LINE = re.compile(r"# hash set (\S+) (\S+)")
_IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True, eq=False)
class HashSet:
    """A named set of perceptual hashes: uint64 (N,) of the images and (N,) of their mirror images."""

    name: str
    hashes: np.ndarray
    mirrored: np.ndarray

    def index(self) -> NearIndex:
        """What tells whether an image is in the set: the hashes of both, rows N and beyond are mirrored."""
        return NearIndex(np.concatenate([self.hashes, self.mirrored]))

    def contains(self, hashes: np.ndarray, distance: int = SAME_IMAGE) -> np.ndarray:
        """Whether each hash (M,) is that of an image of the set, or of its mirror image: bool (M,)."""
        return self.index().find(hashes, distance) >= 0


def images_below(folder: Path) -> list[Path]:
    """The image files in a folder and the folders in it, in the order of their paths."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no folder of images")
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _IMAGES)


def build(images: Iterable[Path | bytes], name: str, out: Path) -> tuple[HashSet, Drops]:
    """Hash images (files, or their content) and write the set to `out`; what is no image is counted.

    UserError where there is not one.
    """
    if not re.fullmatch(r"\S+", name):
        raise UserError(f"name of a hash set {name!r}: one word, such as coco_val2014")
    drops, found = Drops(), []
    for number, image in enumerate(images):
        try:
            found.append(mirrored_phashes(open_image(image, at_least=DECODE_SIDE)))
        except ImageError as error:
            where = str(image) if isinstance(image, Path) else f"image {number}"
            drops.drop(Dropped(reason=error.reason, where=where, detail=error.detail))
    if not found:
        why = "; ".join(line.strip() for line in drops.drop_lines())
        raise UserError(f"no image to hash for {name}{': ' if why else ''}{why}")
    hashes = np.unique(np.array(found, dtype=np.uint64).reshape(-1, 2), axis=0)
    lines = [f"# hash set {PHASH} {name}", *(f"{one:016x} {mirrored:016x}" for one, mirrored in hashes.tolist())]
    partial = out.with_name(f".tmp-{out.name}")
    partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    partial.rename(out)
    return HashSet(name, hashes[:, 0], hashes[:, 1]), drops


def load(path: Path) -> HashSet:
    """A set that `build` wrote."""
    try:
        first, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no hash set ({error})") from None
    head = _FIRST_LINE.fullmatch(first)
    if not head or head[1] != PHASH:
        raise UserError(f"{path}: no hash set of {PHASH}; build one with `crossgrain collect hash-set`")
    try:
        hashes = np.array([[int(part, 16) for part in line.split()] for line in lines], dtype=np.uint64).reshape(-1, 2)
    except (ValueError, OverflowError):
        raise UserError(f"{path}: broken hash set, a line is not two numbers of 16 hexadecimal digits") from None
    return HashSet(head[2], hashes[:, 0], hashes[:, 1])
