"""A folder of images with one file of captions.

`captions.csv` or `captions.tsv` (header `image,caption[,split]`), or `captions.jsonl` (objects with the same keys;
`caption` may be a list). Paths are relative to the folder, or to `images` in it; an image may stand in several rows.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from crossgrain.config import UserError
from crossgrain.data.records import Dropped, Item
from crossgrain.data.sets.annotations import first_file, read_json_lines, read_table
from crossgrain.data.sets.pictures import Caption, CaptionedImages, ImageFolders, Splits, is_split_name


def read(root: Path, *, split: str | None = None) -> Iterable[Item]:
    """The images of the folder, each with all its captions."""
    file = first_file(root, ("captions.csv", "captions.tsv", "captions.jsonl"), "captions")
    return CaptionedImages(file_captions(file), ImageFolders.under(root, ("", "images")), Splits(split))


def file_captions(file: Path) -> Iterator[Caption | Dropped]:
    """The captions of a CSV, TSV or JSON lines file."""
    return _json_lines(file) if file.suffix == ".jsonl" else table_captions(file)


def table_captions(file: Path) -> Iterator[Caption | Dropped]:
    """The rows of a CSV or TSV file with columns `image` (or `image_id`), `caption`, and `split` where it has one."""
    rows = read_table(file, "\t") if file.suffix == ".tsv" else read_table(file, ",")
    header = [name.strip().lower() for name in next(rows, (0, None))[1] or []]
    header = ["image" if name == "image_id" and "image" not in header else name for name in header]
    if "image" not in header or "caption" not in header:
        raise UserError(f"{file}, line 1: columns are {', '.join(header) or 'none'}; needs image and caption")
    for line, row in rows:
        where = f"{file.name}:{line}"
        if row is None or len(row) != len(header):
            count = "unreadable" if row is None else f"{len(row)} columns instead of {len(header)}"
            yield Dropped(reason="malformed line", where=where, detail=count)
        else:
            yield _caption(dict(zip(header, row, strict=True)), where)


def _json_lines(file: Path) -> Iterator[Caption | Dropped]:
    for line in read_json_lines(file):
        if isinstance(line, Dropped):
            yield line
            continue
        where, values = line
        texts = values.get("caption")
        if texts == []:
            yield Dropped(reason="no caption", where=where, detail=str(values.get("image"))[:100])
        for text in texts if isinstance(texts, list) else [texts]:
            yield _caption({**values, "caption": text}, where)


def _caption(values: dict[str, Any], where: str) -> Caption | Dropped:
    image, split = values.get("image"), values.get("split")
    if not isinstance(image, str) or not image.strip():
        return Dropped(reason="malformed line", where=where, detail="no image")
    split = (split.strip() or None) if isinstance(split, str) else split
    if split is not None and not is_split_name(split):
        return Dropped(reason="malformed split", where=where, detail=repr(split)[:100])
    return Caption(image.strip(), values.get("caption"), where, split)
