"""Flickr8k and Flickr30k, as they were released and as they are passed on.

Captions: the token file (`NAME.jpg#0<tab>caption`), a CSV (`image,caption`, or Kaggle's `image_name| comment_number|
comment`), or Karpathy's JSON, which has splits. Flickr8k's lists of images beside the token file give splits too.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from crossgrain.data.records import Dropped, Item
from crossgrain.data.sets.annotations import first_file, given_file, read_lines
from crossgrain.data.sets.folder import table_captions
from crossgrain.data.sets.karpathy import split_captions
from crossgrain.data.sets.pictures import Caption, CaptionedImages, ImageFolders, Splits

_FILES = (
    "dataset_flickr8k.json",
    "dataset_flickr30k.json",
    "Flickr8k.token.txt",
    "results_20130124.token",
    "results.csv",
    "captions.csv",
    "captions.txt",
    "Flickr8k_text/Flickr8k.token.txt",
)
FOLDERS = ("images", "Images", "Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k-images", "flickr30k_images", "")
_LISTS = {"train": "Flickr_8k.trainImages.txt", "val": "Flickr_8k.devImages.txt", "test": "Flickr_8k.testImages.txt"}
_TOKEN = re.compile(r"(.+)#\d+\t(.*)")
_PIPES = re.compile(r"(.+?)\| *\d+ *\|(.*)")


def read(
    root: Path, *, split: str | None = None, captions: Path | None = None, images: Path | None = None
) -> Iterable[Item]:
    """The images, each with its five captions."""
    file = first_file(root, _FILES, "captions") if captions is None else given_file(captions, root, "captions")
    folders = ImageFolders.under(root, FOLDERS, images)
    return CaptionedImages(_captions(file), folders, Splits(split))


def _captions(file: Path) -> Iterator[Caption | Dropped]:
    if file.suffix == ".json":
        return split_captions(file)
    _, first = next(read_lines(file), (0, ""))
    if _TOKEN.fullmatch(first):
        return _official_splits(_matching_lines(file, _TOKEN), file.parent)
    if "|" in first:
        return _matching_lines(file, _PIPES, header=True)
    return table_captions(file)


def _matching_lines(file: Path, pattern: re.Pattern[str], header: bool = False) -> Iterator[Caption | Dropped]:
    for number, line in read_lines(file):
        if not line.strip() or (header and number == 1):
            continue
        where = f"{file.name}:{number}"
        found = pattern.fullmatch(line)
        if found:
            yield Caption(found[1].strip(), found[2], where)
        else:
            yield Dropped(reason="malformed line", where=where, detail=line[:100])


def _official_splits(captions: Iterator[Caption | Dropped], folder: Path) -> Iterator[Caption | Dropped]:
    """Captions with the split of the list that names their image; an image on no list (Flickr8k has 92) is left out."""
    lists = {split: folder / name for split, name in _LISTS.items()}
    if not all(file.is_file() for file in lists.values()):
        yield from captions
        return
    splits = {line.strip(): split for split, file in lists.items() for _, line in read_lines(file)}
    for caption in captions:
        if isinstance(caption, Dropped):
            yield caption
        elif caption.image in splits:
            yield replace(caption, split=splits[caption.image])
        else:
            yield Dropped(reason="image in no official split", where=caption.where, detail=caption.image[:100])
