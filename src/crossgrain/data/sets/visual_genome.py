"""Visual Genome in its official JSON: described regions, and objects with names and attributes.

`region_descriptions.json`, `objects.json`, `attributes.json` (any of them) and `image_data.json`, which has the sizes.
The region file is 700 MB: one pass notes where each image's part lies, and workers read and check the parts.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from crossgrain.config import UserError
from crossgrain.data.records import Dropped, Item, Record, Region
from crossgrain.data.sets.annotations import JsonElements, first_file
from crossgrain.data.sets.pictures import ImageFolders, Splits, image_size, region

_PARTS = {"region_descriptions.json": "regions", "objects.json": "objects", "attributes.json": "attributes"}
FOLDERS = ("", "VG_100K", "VG_100K_2", "images")
Part = tuple[str, str, int, int, str]  # file, key of its list, first byte, byte behind the last, file:line


def read(root: Path, *, split: str | None = None, images: Path | None = None) -> Iterable[Item]:
    """The images with their regions and objects; Visual Genome has no captions and no splits of its own."""
    sizes = first_file(root, ("image_data.json",), "image sizes")
    files = [root / name for name in _PARTS if (root / name).is_file()]
    if not files:
        raise UserError(f"no regions or objects: looked for {', '.join(str(root / name) for name in _PARTS)}")
    return VisualGenome(sizes, files, ImageFolders.under(root, FOLDERS, images), Splits(split))


class VisualGenome:
    """The items of Visual Genome; its length hint is known once the annotations have been noted."""

    def __init__(self, sizes: Path, files: list[Path], folders: ImageFolders, splits: Splits):
        self.sizes = sizes
        self.files = files
        self.folders = folders
        self.splits = splits
        self._parts: defaultdict[int, list[Part]] = defaultdict(list)

    def __length_hint__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[Item]:
        for file in self.files:
            yield from self._note_parts(file)
        for element in JsonElements(self.sizes):
            values = element.value if isinstance(element.value, dict) else {}
            number, size = values.get("image_id"), image_size(values.get("width"), values.get("height"))
            if not isinstance(number, int) or size is None:
                yield Dropped(reason="malformed entry", where=element.where, detail=str(element.value)[:100])
                continue
            parts = self._parts.pop(number, None)
            if parts is not None:
                yield self._image(number, size, parts, values.get("url"), element.where)
        for number, parts in self._parts.items():
            yield Dropped(reason="unknown image id", where=parts[0][-1], detail=str(number))

    def _note_parts(self, file: Path) -> Iterator[Dropped]:
        list_name = _PARTS[file.name]
        for element in JsonElements(file, encoding="latin-1"):
            values = element.value if isinstance(element.value, dict) else {}
            number = values.get("image_id", values.get("id"))
            if isinstance(number, int) and isinstance(values.get(list_name), list):
                self._parts[number].append((str(file), list_name, element.start, element.end, element.where))
            else:
                yield Dropped(reason="malformed entry", where=element.where, detail=str(element.value)[:100])

    def _image(self, number: int, size: tuple[float, float], parts: list[Part], url: Any, where: str) -> Item:
        # the address ends in FOLDER/NUMBER.jpg, as the archives do
        official = PurePosixPath(urlsplit(url).path).parts[-2:] if isinstance(url, str) else ()
        file = self.folders.find(where, "/".join(official) or f"{number}.jpg", f"{number}.jpg")
        if isinstance(file, Dropped):
            return file
        split = self.splits.held_out(str(number))
        return partial(_read_parts, number, file, size, parts, split)  # pyright: ignore[reportReturnType] - returns several


def _read_parts(
    number: int, image: Path, size: tuple[float, float], parts: list[Part], split: str
) -> list[Record | Dropped]:
    """The record of one image, and its regions that cannot be used. Runs in a worker."""
    regions: list[Region] = []
    dropped: list[Dropped] = []
    attributes = {}
    for file, list_name, start, end, place in reversed(parts):  # attributes stand last and belong to objects
        values = _read_part(file, start, end)[list_name]
        if list_name == "attributes" and any(part[1] == "objects" for part in parts):
            attributes = {
                v["object_id"]: v.get("attributes")
                for v in values
                if isinstance(v, dict) and isinstance(v.get("object_id"), int | str)
            }
            continue
        for index, value in enumerate(values):
            where = f"{place} {list_name}[{index}]"
            checked = _region(value, size, where, attributes)
            (dropped if isinstance(checked, Dropped) else regions).append(checked)  # type: ignore[arg-type]
    source = {"source": parts[0][-1]}
    if not regions:
        return [*dropped, Dropped(reason="no region", where=source["source"])]
    return [*dropped, Record(key=str(number), image=image, regions=tuple(regions), split=split, extra=source)]


def _read_part(file: str, start: int, end: int) -> Any:
    handle = os.open(file, os.O_RDONLY)
    try:
        return json.loads(os.pread(handle, end - start, start).decode("utf-8", "replace"))
    finally:
        os.close(handle)


def _region(value: Any, size: tuple[float, float], where: str, attributes: dict[Any, Any]) -> Region | Dropped:
    """A region ("phrase", width and height spelled out) or an object ("names", "w" and "h")."""
    values = value if isinstance(value, dict) else {}
    box = [values.get(name) for name in ("x", "y")]
    box += [values.get("width", values.get("w")), values.get("height", values.get("h"))]
    names, kinds, number = (values.get(name) for name in ("names", "attributes", "object_id"))
    kinds = kinds or (attributes.get(number) if isinstance(number, int | str) else None)
    return region(
        box,
        size,
        where,
        label=names[0] if isinstance(names, list) and names else "",
        attributes=kinds if isinstance(kinds, list) else (),
        phrases=[values["phrase"]] if "phrase" in values else (),
    )
