"""SBU captioned photos: a pair of text files with a URL and a caption on equal lines, or one JSON file with both lists.

    SBU_captioned_photo_dataset_urls.txt, SBU_captioned_photo_dataset_captions.txt
    {"image_urls": [...], "captions": [...]}                                        sbu-captions-all.json

An image has the name that its URL ends with.
"""

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from crossgrain.config import UserError
from crossgrain.data.records import Dropped, Item, Record
from crossgrain.data.sets.annotations import Element, JsonElements, clean_text, first_file, given_file, read_lines
from crossgrain.data.sets.pictures import ImageFolders, Keys, Splits

_TEXTS = "SBU_captioned_photo_dataset_captions.txt"
_FILES = (
    "sbu-captions-all.json",
    "sbu_captions.json",
    _TEXTS,
    f"dataset/{_TEXTS}",
    f"SBUCaptionedPhotoDataset/{_TEXTS}",
)
_FOLDERS = ("images", "sbu_images", "dataset/images", "")
Pair = tuple[Any, Any, str]  # URL, caption, place; None where one list is shorter


def read(
    root: Path, *, split: str | None = None, captions: Path | None = None, images: Path | None = None
) -> Iterable[Item]:
    """One record for every pair whose image is there."""
    file = first_file(root, _FILES, "captions") if captions is None else given_file(captions, root, "captions")
    pairs = _json_pairs(file) if file.suffix == ".json" else _text_pairs(file)
    return _records(pairs, ImageFolders.under(root, _FOLDERS, images), Splits(split))


def _records(pairs: Iterator[Pair], folders: ImageFolders, splits: Splits) -> Iterator[Item]:
    keys = Keys()
    for url, text, where in pairs:
        if not isinstance(url, str) or text is None:
            yield Dropped(reason="malformed entry", where=where, detail="a URL or a caption without the other")
            continue
        caption, rule = clean_text(text)
        name = unquote(_path(url)).rsplit("/", 1)[-1]
        found = Dropped(reason=rule, where=where, detail=str(text)[:100]) if rule else folders.find(where, name)
        if isinstance(found, Dropped):
            yield found
            continue
        key = keys.of(name)
        extra = {"source": where, **({"url": url[:2000]} if url.isprintable() else {})}
        yield Record(key=key, image=found, captions=(caption,), split=splits.held_out(name), extra=extra)


def _path(url: str) -> str:
    try:
        return urlsplit(url.strip()).path
    except ValueError:  # a bracket that opens an IPv6 address and never closes
        return ""


def _text_pairs(file: Path) -> Iterator[Pair]:
    urls = file.with_name(file.name.replace("captions", "urls"))
    if urls == file or not urls.is_file():
        raise UserError(f"no URLs beside {file}: looked for {urls}")
    for url, text in zip_longest(read_lines(urls), read_lines(file)):
        number, _ = url or text
        yield url and url[1], text and text[1], f"{file.name}:{number}"


def _json_pairs(file: Path) -> Iterator[Pair]:
    """The two lists side by side: the file is read twice at once, so that neither list is held."""
    for url, text in zip_longest(_elements(file, "image_urls"), _elements(file, "captions")):
        yield url and url.value, text and text.value, (text or url).where


def _elements(file: Path, name: str) -> Iterator[Element]:
    return (element for element in JsonElements(file) if element.name == name)
