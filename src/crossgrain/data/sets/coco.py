"""COCO captions and instances in the official JSON, with Karpathy's splits where his file is given.

Boxes are (x, y, width, height) in pixels of the size that `images` gives. A crowd's box outlines no single object and
is dropped. Files are read one element at a time: the instances of train2017 alone are 450 MB.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossgrain.config import UserError
from crossgrain.data.records import Dropped, Item, Record, Region
from crossgrain.data.sets.annotations import JsonElements, clean_text, given_file
from crossgrain.data.sets.karpathy import read_split_file
from crossgrain.data.sets.pictures import ImageFolders, Keys, Splits, image_size, region

_FOLDERS = ("images", "train2017", "val2017", "train2014", "val2014", "")


@dataclass(slots=True)
class _Image:
    """One image, from all the files that speak about it."""

    names: tuple[Any, ...]
    where: str
    split: str | None = None
    size: tuple[float, float] | None = None
    listed_in: Path | None = None
    captions: list[str] = field(default_factory=list)
    objects: array = field(default_factory=lambda: array("d"))  # x1, y1, x2, y2 in [0, 1] and category of each


def read(
    root: Path,
    *,
    split: str | None = None,
    captions: Sequence[Path] = (),
    instances: Sequence[Path] = (),
    images: Path | None = None,
    karpathy: Path | None = None,
) -> Iterable[Item]:
    """The images with their captions, and their objects where instances are given.

    Without `captions`, Karpathy's file gives them, or all `annotations/captions_*.json` under `root` are read, with the
    instances beside them.
    """
    files = [given_file(file, root, "captions") for file in captions]
    boxes = [given_file(file, root, "instances") for file in instances]
    split_file = given_file(karpathy, root, "Karpathy's split file") if karpathy else None
    if not files and split_file is None:
        files = sorted(root.glob("annotations/captions_*.json")) or sorted(root.glob("captions*.json"))
        if not files:
            raise UserError(f"no captions: looked for {root}/annotations/captions_*.json and {root}/captions*.json")
        boxes = boxes or sorted(files[0].parent.glob("instances*.json"))
    folders = ImageFolders.under(root, _FOLDERS, images)
    return CocoImages(files, boxes, split_file, folders, Splits(split))


class CocoImages:
    """The items of COCO; its length hint is known once the annotations have been read."""

    def __init__(
        self,
        captions: Sequence[Path],
        instances: Sequence[Path],
        split_file: Path | None,
        folders: ImageFolders,
        splits: Splits,
    ):
        self.captions = captions
        self.instances = instances
        self.split_file = split_file
        self.folders = folders
        self.splits = splits
        self._images: dict[int, _Image] = {}
        self._categories: dict[int, str] = {}
        self._num_dropped = 0

    def __length_hint__(self) -> int:
        return len(self._images) + self._num_dropped

    def __iter__(self) -> Iterator[Item]:
        for dropped in self._read_annotation_files():
            self._num_dropped += 1
            yield dropped
        keys = Keys()
        for image in self._images.values():
            item = self._item(image, keys)
            if item is not None:
                yield item

    def _read_annotation_files(self) -> Iterator[Dropped]:
        if self.split_file:
            yield from self._read_splits(self.split_file)
        for file in (*self.captions, *self.instances):
            # Twice through the file: nothing says that "images" stands before "annotations" in it.
            yield from self._read_images(file)
            yield from self._read_annotations(file, self._add_box if file in self.instances else self._add_caption)

    def _read_splits(self, file: Path) -> Iterator[Dropped]:
        for entry in read_split_file(file):
            if isinstance(entry, Dropped):
                yield entry
            elif entry.coco_id is None:
                yield Dropped(reason="malformed entry", where=entry.where, detail=f"{entry.name}: no cocoid")
            else:
                names = (entry.name, Path(entry.name).name)
                self._images[entry.coco_id] = image = _Image(names, entry.where, entry.split)
                for sentence in entry.sentences if not self.captions else ():
                    yield from _add_text(image, sentence, entry.where)

    def _read_images(self, file: Path) -> Iterator[Dropped]:
        for element in JsonElements(file):
            values = element.value if isinstance(element.value, dict) else {}
            number = values.get("id")
            if element.name == "categories" and isinstance(number, int) and abs(number) < 2**53:
                self._categories[number] = clean_text(values.get("name"))[0]
            if element.name != "images":
                continue
            if not isinstance(number, int):
                yield Dropped(reason="malformed entry", where=element.where, detail=str(element.value)[:100])
                continue
            image = self._images.get(number)
            if image is None:
                if self.split_file:
                    yield Dropped(reason="image in no official split", where=element.where, detail=str(number))
                    continue
                image = self._images[number] = _Image((), element.where)
            if image.listed_in == file:
                yield Dropped(reason="duplicate key", where=element.where, detail=f"image id {number}")
                continue
            image.listed_in = file
            image.names = tuple(dict.fromkeys((values.get("file_name"), *image.names)))
            image.size = image.size or image_size(values.get("width"), values.get("height"))

    def _read_annotations(
        self, file: Path, add: Callable[[_Image, dict[str, Any], str], Iterable[Dropped]]
    ) -> Iterator[Dropped]:
        found = False
        for element in JsonElements(file):
            if element.name != "annotations":
                continue
            found = True
            values = element.value if isinstance(element.value, dict) else {}
            number = values.get("image_id")
            image = self._images.get(number) if isinstance(number, int) else None
            if image is not None:
                yield from add(image, values, element.where)
            elif number is None:
                yield Dropped(reason="malformed entry", where=element.where, detail=str(element.value)[:100])
            elif not self.split_file:
                yield Dropped(reason="unknown image id", where=element.where, detail=str(number)[:100])
        if not found:
            raise UserError(f"{file} has no annotations: it is no official COCO file")

    def _add_caption(self, image: _Image, values: dict[str, Any], where: str) -> Iterable[Dropped]:
        return _add_text(image, values.get("caption"), where)

    def _add_box(self, image: _Image, values: dict[str, Any], where: str) -> Iterator[Dropped]:
        category = values.get("category_id")
        label = self._categories.get(category, "") if isinstance(category, int) else ""
        if values.get("iscrowd"):
            yield Dropped(reason="region: crowd", where=where, detail=label)
        elif image.size is None:
            yield Dropped(reason="region: image without a size", where=where, detail=str(values.get("image_id")))
        else:
            checked = region(values.get("bbox"), image.size, where, label=label)
            if isinstance(checked, Dropped):
                yield checked
            else:
                image.objects.extend((*checked.box, float(category or 0)))

    def _item(self, image: _Image, keys: Keys) -> Record | Dropped | None:
        split = self.splits.place(str(image.names[0]), image.split)
        if split is None:
            return None
        if not image.captions and not image.objects:
            return Dropped(reason="no caption", where=image.where, detail=str(image.names[0])[:100])
        file = self.folders.find(image.where, *image.names)
        if isinstance(file, Dropped):
            return file
        values = image.objects.tolist()
        rows = (values[i : i + 5] for i in range(0, len(values), 5))
        return Record(
            key=keys.of(str(image.names[0])),
            image=file,
            captions=tuple(image.captions),
            regions=tuple(Region(box=(x1, y1, x2, y2), label=self._categories[int(c)]) for x1, y1, x2, y2, c in rows),
            split=split,
            extra={"source": image.where},
        )


def _add_text(image: _Image, value: Any, where: str) -> Iterator[Dropped]:
    text, rule = clean_text(value)
    if rule:
        yield Dropped(reason=rule, where=where, detail=f"{image.names[0]}: {str(value)[:100]!r}")
    else:
        image.captions.append(text)
