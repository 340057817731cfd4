"""RefCOCO, RefCOCO+ and RefCOCOg as lichengunc/refer hands them out: `refs(SPLITTER).p` and `instances.json`.

A reference is {ref_id, ann_id, image_id, category_id, split, sentences}, a sentence {sent_id, sent, raw, tokens}. The
regions of a record are all annotations of its image, among which a model may have to choose; its expressions say which
one they mean. Boxes are (x, y, width, height) in pixels.

With UNC's and UMD's partitions an image stands in one split. Google's divides the objects: there an image may have
training and validation expressions. It becomes one record a split then, and the key of every one but the training
record ends in its split.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from crossgrain.config import UserError
from crossgrain.data.records import Dropped, Item, Record, Region
from crossgrain.data.sets.annotations import JsonElements, clean_text, first_file
from crossgrain.data.sets.pictures import ImageFolders, Keys, Splits, image_size, is_split_name, region
from crossgrain.data.sets.plain_pickle import read_plain_pickle

PARTITIONS = ("unc", "umd", "google")
_MSCOCO = ("images/mscoco/images/train2014", "mscoco/images/train2014", "images/train2014", "train2014")
_FOLDERS = ("images", *_MSCOCO, *(f"../{folder}" for folder in _MSCOCO), "../train2017", "train2017", "")


class Expression(NamedTuple):
    """One sentence and the annotation that it means."""

    text: str
    annotation: int
    sentence: int | None
    reference: int
    where: str


class _Annotation(NamedTuple):
    number: int
    box: Any
    category: Any
    crowd: bool
    where: str


@dataclass(slots=True)
class _Image:
    """What both files say about one image."""

    expressions: dict[str, list[Expression]] = field(default_factory=dict)  # by split
    annotations: list[_Annotation] = field(default_factory=list)
    name: Any = None
    size: tuple[float, float] | None = None


def read(
    root: Path, *, split: str | None = None, split_by: str | None = None, images: Path | None = None
) -> Iterable[Item]:
    """The images that expressions speak of. `root` is the folder of one of the three data sets.

    `split_by` is the partition: "unc" (RefCOCO, RefCOCO+), "umd" (RefCOCOg) or "google"; None takes the first there is.
    """
    names = [f"refs({partition}).p" for partition in ([split_by] if split_by else PARTITIONS)]
    refs = first_file(root, names, "references")
    instances = first_file(root, ("instances.json",), "annotations")
    return RefCoco(refs, instances, ImageFolders.under(root, _FOLDERS, images), Splits(split))


class RefCoco:
    """The items of one of the data sets; the length hint is known once the files have been read."""

    def __init__(self, refs: Path, instances: Path, folders: ImageFolders, splits: Splits):
        self.refs = refs
        self.instances = instances
        self.folders = folders
        self.splits = splits
        self._images: dict[int, _Image] = {}
        self._categories: dict[int, str] = {}
        self._dropped = 0

    def __length_hint__(self) -> int:
        return self._dropped + sum(len(image.expressions) for image in self._images.values())

    def __iter__(self) -> Iterator[Item]:
        for found in (self._read_references, self._read_instances):
            for dropped in found():
                self._dropped += 1
                yield dropped
        keys = Keys()
        for number, image in self._images.items():
            yield from self._items(number, image, keys)

    def _read_references(self) -> Iterator[Dropped]:
        references = read_plain_pickle(self.refs)
        if not isinstance(references, list):
            raise UserError(f"{self.refs} holds a {type(references).__name__}, not a list of references")
        taken: set[int] = set()
        for index, values in enumerate(references):
            values = values if isinstance(values, dict) else {}
            ref = values.get("ref_id")
            where = f"{self.refs.name} " + (f"ref_id {ref}" if _is_id(ref) else f"[{index}]")
            wrong = [name for name in ("ref_id", "ann_id", "image_id") if not _is_id(values.get(name))]
            wrong += [] if isinstance(values.get("sentences"), list) else ["sentences"]
            if wrong:
                yield Dropped(reason="malformed entry", where=where, detail=f"no usable {', '.join(wrong)}")
            elif not is_split_name(values.get("split")):
                yield Dropped(reason="malformed split", where=where, detail=_shown(values.get("split")))
            elif ref in taken:
                yield Dropped(reason="duplicate key", where=where, detail="a second reference of this number")
            else:
                taken.add(values["ref_id"])
                yield from self._read_sentences(values, where)

    def _read_sentences(self, values: dict[str, Any], where: str) -> Iterator[Dropped]:
        image = self._images.setdefault(values["image_id"], _Image())
        for place, sentence in enumerate(values["sentences"]):
            told = sentence if isinstance(sentence, dict) else {}
            number = told.get("sent_id")
            at = f"{where} " + (f"sent_id {number}" if _is_id(number) else f"sentences[{place}]")
            text, rule = clean_text(told.get("sent"))
            if rule:
                yield Dropped(reason=rule.replace("caption", "expression"), where=at, detail=_shown(told.get("sent")))
                continue
            told_by = number if _is_id(number) else None
            expression = Expression(text, values["ann_id"], told_by, values["ref_id"], at)
            image.expressions.setdefault(values["split"], []).append(expression)

    def _read_instances(self) -> Iterator[Dropped]:
        found = set()
        for element in JsonElements(self.instances):
            found.add(element.name)
            values = element.value if isinstance(element.value, dict) else {}
            number = values.get("image_id" if element.name == "annotations" else "id")
            if element.name not in ("images", "annotations", "categories"):
                continue
            if not _is_id(number) or (element.name == "annotations" and not _is_id(values.get("id"))):
                yield Dropped(reason="malformed entry", where=element.where, detail=str(element.value)[:100])
            elif element.name == "categories":
                self._categories[number] = clean_text(values.get("name"))[0]
            elif (image := self._images.get(number)) is None:
                continue  # nothing is said of it
            elif element.name == "images":
                image.name = values.get("file_name")
                image.size = image_size(values.get("width"), values.get("height"))
            else:
                kept = (values["id"], values.get("bbox"), values.get("category_id"), bool(values.get("iscrowd")))
                image.annotations.append(_Annotation(*kept, element.where))
        if missing := {"images", "annotations", "categories"} - found:
            raise UserError(f"{self.instances} has no {', '.join(sorted(missing))}: it is no file of instances")

    def _items(self, number: int, image: _Image, keys: Keys) -> Iterator[Record | Dropped]:
        """The records of one image, and what was dropped of it."""
        wanted = [split for split in image.expressions if self.splits.official(split) is not None]
        if not wanted:
            return
        where = image.expressions[wanted[0]][0].where
        if image.size is None:
            yield Dropped(reason="unknown image id", where=where, detail=f"{number}: no size in {self.instances.name}")
            return
        file = self.folders.find(where, image.name, f"{number:012d}.jpg")
        if isinstance(file, Dropped):
            yield file
            return
        meant = {expression.annotation for said in image.expressions.values() for expression in said}
        regions: list[Region] = []
        places: dict[int, int] = {}
        for one in image.annotations:
            checked = self._region(one, image.size, one.number in meant)
            if isinstance(checked, Dropped):
                yield checked
            elif one.number in places:
                yield Dropped(reason="region: second annotation of an id", where=one.where, detail=str(one.number))
            else:
                places[one.number] = len(regions)
                regions.append(checked)
        key = keys.of(image.name)
        for split in wanted:
            yield from _lost(image.expressions[split], places)
            said = [_expression(one, places) for one in image.expressions[split] if one.annotation in places]
            if said:
                yield Record(
                    key=key if split == "train" or len(image.expressions) == 1 else f"{key}_{split}",
                    image=file,
                    regions=tuple(regions),
                    split=split,
                    extra={"source": image.expressions[split][0].where, "expressions": said},
                )

    def _region(self, one: _Annotation, size: tuple[float, float], meant: bool) -> Region | Dropped:
        label = self._categories.get(one.category, "") if _is_id(one.category) else ""
        if one.crowd and not meant:  # it outlines no single object
            return Dropped(reason="region: crowd", where=one.where, detail=label)
        return region(one.box, size, one.where, label=label)


def _lost(said: Iterable[Expression], places: Mapping[int, int]) -> Iterator[Dropped]:
    for one in said:
        if one.annotation not in places:
            detail = f"annotation {one.annotation}: {one.text[:80]}"
            yield Dropped(reason="expression without a region", where=one.where, detail=detail)


def _expression(one: Expression, places: Mapping[int, int]) -> dict[str, Any]:
    """As a record holds it: `id` is the official number of the sentence, `ref` that of the reference."""
    official = {} if one.sentence is None else {"id": one.sentence}
    return {"text": one.text, "index": places[one.annotation], **official, "ref": one.reference}


def _is_id(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    """A value from a pickle for people: never a container, which may be endless."""
    return repr(value[:100]) if isinstance(value, str) else type(value).__name__
