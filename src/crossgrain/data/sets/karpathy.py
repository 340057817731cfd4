"""Karpathy's split files (dataset_coco.json, dataset_flickr8k.json, ...): images with their split and sentences."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossgrain.data.records import Dropped
from crossgrain.data.sets.annotations import JsonElements
from crossgrain.data.sets.pictures import Caption, is_split_name


@dataclass(frozen=True, slots=True)
class SplitImage:
    """One image of a split file. `name` has the folder in front where the file gives one (COCO: val2014/...)."""

    name: str
    split: str
    sentences: tuple[Any, ...]
    coco_id: int | None
    where: str

    def captions(self) -> Iterator[Caption | Dropped]:
        """Its sentences, as captions with an official split."""
        if not self.sentences:
            yield Dropped(reason="no caption", where=self.where, detail=self.name[:100])
        yield from (Caption(self.name, text, self.where, self.split) for text in self.sentences)


def read_split_file(file: Path) -> Iterator[SplitImage | Dropped]:
    """The images of a split file, in its order."""
    for element in JsonElements(file):
        if element.name != "images":
            continue
        values = element.value if isinstance(element.value, dict) else {}
        name, split, sentences = values.get("filename"), values.get("split"), values.get("sentences", [])
        if not (isinstance(name, str) and is_split_name(split) and isinstance(sentences, list)):
            yield Dropped(reason="malformed entry", where=element.where, detail=str(element.value)[:100])
            continue
        folder, coco_id = values.get("filepath"), values.get("cocoid")
        yield SplitImage(
            name=f"{folder}/{name}" if isinstance(folder, str) and folder else name,
            split=split,
            sentences=tuple(s.get("raw") if isinstance(s, dict) else None for s in sentences),
            coco_id=coco_id if isinstance(coco_id, int) else None,
            where=element.where,
        )


def split_captions(file: Path) -> Iterator[Caption | Dropped]:
    """Every sentence of a split file."""
    for image in read_split_file(file):
        yield from [image] if isinstance(image, Dropped) else image.captions()
