"""VCR: visual questions with four answers and four rationales each, and the objects that their words point at.

`train.jsonl`, `val.jsonl`, `test.jsonl` beside `vcr1images`, which holds each image with its metadata: `boxes` as (x1,
y1, x2, y2, score) in pixels, `names`, `width`, `height` (the official README.md of release 1.0). A word is a text, or a
list of places in `objects`. The regions of a record are its objects in the official order; where one has no usable box
it is dropped with the questions that name it, and the others are numbered anew.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from crossgrain.config import UserError
from crossgrain.data.records import Dropped, Item, Record, Region
from crossgrain.data.sets.annotations import clean_text, given_file, read_json_lines
from crossgrain.data.sets.gathered import Gathered, GatheredImages, Said, with_said
from crossgrain.data.sets.pictures import ImageFolders, Splits, image_size, is_split_name, region

NUM_CHOICES = 4
_FILES = ("train.jsonl", "val.jsonl", "test.jsonl")
_CHOICES = {"answer_choices": "answer_label", "rationale_choices": "rationale_label"}
_MAX_METADATA = 16 * 2**20  # bytes; the polygons of the largest have some hundred thousand
Tokens = list[str | list[int]]


def read(
    root: Path, *, split: str | None = None, questions: Sequence[Path] = (), images: Path | None = None
) -> Iterable[Item]:
    """The images with their questions; the split is what an `annot_id` begins with."""
    files = [given_file(file, root, "questions") for file in questions]
    files = files or [root / name for name in _FILES if (root / name).is_file()]
    if not files:
        raise UserError(f"no questions: looked for {', '.join(str(root / name) for name in _FILES)}")
    folders = ImageFolders.under(root, ("vcr1images", "images"), images)
    return GatheredImages(_questions(files), folders, Splits(split), make=partial(_record, folders))


def _questions(files: Sequence[Path]) -> Iterator[Said | Dropped]:
    kept = ("annot_id", "metadata_fn", "objects", "question", *_CHOICES, *_CHOICES.values())
    for file in files:
        for line in read_json_lines(file):
            if isinstance(line, Dropped):
                yield line
                continue
            where, values = line
            name, number = values.get("img_fn"), values.get("annot_id")
            split = number.rpartition("-")[0] if isinstance(number, str) else None
            if not isinstance(name, str) or not is_split_name(split):
                missing = "annot_id" if isinstance(name, str) else "img_fn"
                yield Dropped(reason="malformed line", where=where, detail=f"no usable {missing}")
                continue
            told = {key: values[key] for key in kept if key in values}
            yield Said((name,), where, "choices", [where, told], split)


def _record(folders: ImageFolders, record: Record, gathered: Gathered) -> list[Record | Dropped]:
    """The record of one image with its objects, and the questions that cannot be used. Runs in a worker."""
    told = gathered["choices"]
    where, first = told[0]
    metadata = _metadata(folders, first.get("metadata_fn"), where)
    if isinstance(metadata, Dropped):
        return [metadata]
    names = metadata.get("names", first.get("objects"))
    regions, places, dropped = _objects(metadata, names, f"{where} {first['metadata_fn']}")
    if not isinstance(names, list) or len(regions) + len(dropped) != len(names):
        return [Dropped(reason="malformed metadata", where=where, detail="boxes, names, width or height")]
    items: list[dict[str, Any]] = []
    for where, values in told:
        item = _item(values, places) if values.get("objects") == names else "objects differ from the metadata"
        if isinstance(item, str):
            dropped.append(Dropped(reason=item, where=where, detail=values["annot_id"]))
        else:
            items.append(item)
    if not items:
        return [*dropped, Dropped(reason="no question", where=where, detail=str(record.image))]
    return [*dropped, replace(with_said(record, {"choices": items}), regions=tuple(regions))]


def _metadata(folders: ImageFolders, name: Any, where: str) -> dict[str, Any] | Dropped:
    file = folders.find(where, name)
    if isinstance(file, Dropped):
        reason = file.reason.replace("image", "metadata", 1)
        return Dropped(reason=reason, where=where, detail=file.detail)
    problem = "too large"
    if file.stat().st_size <= _MAX_METADATA:
        try:
            values = json.loads(file.read_bytes())
        except (ValueError, RecursionError) as error:
            problem = str(error)
        else:
            if isinstance(values, dict):
                return values
            problem = f"a {type(values).__name__}, not an object"
    return Dropped(reason="malformed metadata", where=where, detail=f"{name}: {problem}")


def _objects(
    metadata: Mapping[str, Any], names: Any, where: str
) -> tuple[list[Region], dict[int, int], list[Record | Dropped]]:
    """The objects as regions, the region of each official number, and what was dropped; nothing where all is wrong."""
    boxes, size = metadata.get("boxes"), image_size(metadata.get("width"), metadata.get("height"))
    regions: list[Region] = []
    places: dict[int, int] = {}
    dropped: list[Record | Dropped] = []
    if not isinstance(boxes, list) or not isinstance(names, list) or len(boxes) != len(names) or size is None:
        return regions, places, dropped
    for number, (box, name) in enumerate(zip(boxes, names, strict=True)):
        checked = region(_corners(box), size, f"{where} boxes[{number}]", label=name)
        if isinstance(checked, Dropped):
            dropped.append(checked)
        else:
            places[number] = len(regions)
            regions.append(checked)
    return regions, places, dropped


def _corners(box: Any) -> Any:
    """(x, y, width, height) of (x1, y1, x2, y2, score)."""
    try:
        x1, y1, x2, y2 = (float(value) for value in box[:4])
    except (TypeError, ValueError, OverflowError):
        return None
    return x1, y1, x2 - x1, y2 - y1


def _item(values: Mapping[str, Any], places: Mapping[int, int]) -> dict[str, Any] | str:
    """A question as a record holds it, or the rule that it breaks."""
    try:
        item: dict[str, Any] = {"question": _tokens(values.get("question"), values["objects"], places)}
        for name in _CHOICES:
            choices = values.get(name)
            if not isinstance(choices, list) or len(choices) != NUM_CHOICES:
                return "not four choices"
            item[name] = [_tokens(choice, values["objects"], places) for choice in choices]
    except _UnusableError as error:
        return str(error)
    labels = {name: values[name] for name in _CHOICES.values() if values.get(name) is not None}
    if not all(type(label) is int and 0 <= label < NUM_CHOICES for label in labels.values()) or len(labels) == 1:
        return "malformed label"
    return {**item, **labels, "id": values["annot_id"]}


class _UnusableError(ValueError):
    """A rule that words break."""


def _tokens(tokens: Any, objects: Sequence[Any], places: Mapping[int, int]) -> Tokens:
    """The words, with the numbers of objects as those of regions."""
    if not isinstance(tokens, list) or not tokens:
        raise _UnusableError("malformed tokens")
    found: Tokens = []
    for token in tokens:
        if isinstance(token, str) and not clean_text(token)[1]:
            found.append(clean_text(token)[0])
        elif not isinstance(token, list) or not token or not all(type(number) is int for number in token):
            raise _UnusableError("malformed tokens")
        elif not all(0 <= number < len(objects) for number in token):
            raise _UnusableError("tag of no object")
        elif not all(number in places for number in token):
            raise _UnusableError("tag of a dropped object")
        else:
            found.append([places[number] for number in token])
    return found
