"""X-VLM's JSON files for fine-tuning (data/finetune of its repository), which ALBEF began: lists of entries.

    {"image", "caption": TEXT or [TEXT, ...], "image_id"?}                 retrieval and captioning (re_dataset.py)
    {"image", "question", "question_id", "answer"?, "dataset"?}            VQA, Visual Genome QA (vqa_dataset.py)
    {"images": [PATH, PATH], "sentence", "label": "True" or "False"}       NLVR2 (nlvr_dataset.py)
    {"image", "text", "ref_id", "bbox"?: [x, y, w, h]}                     RefCOCO+ (grounding_dataset.py)

The file's name tells the split (coco_train.json, nlvr_dev.json); Visual Genome's questions are all for training. Boxes
are in pixels of the image. An expression without one is a caption of its image, which is what weakly supervised
grounding trains on. Boxes of RefCOCO+ stand in its official files, not in most of these (use `refcoco` for them).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from crossgrain.config import UserError
from crossgrain.data.images import EncodedImage, ImageError, open_image
from crossgrain.data.records import Dropped, Item, Record, Region
from crossgrain.data.sets.annotations import JsonElements, clean_text, given_file
from crossgrain.data.sets.gathered import Gathered, GatheredImages, Said, with_said
from crossgrain.data.sets.pictures import ImageFolders, Keys, Splits, region
from crossgrain.data.sets.questions import is_id, question_of, split_in_name

_FOLDERS = ("images", "", "coco", "visualgenome", "nlvr2", "images/coco", "images/visualgenome", "images/nlvr2")
_LABELS = {"True": True, "False": False}
_BOXES = "boxes"  # expressions whose boxes wait for the size of their image


def read(
    root: Path, *, split: str | None = None, files: Sequence[Path] = (), images: Path | None = None
) -> Iterable[Item]:
    """The images that `files` speak of, with all that they say. Name the files of one task: splits differ between them.

    `images` has the images as the entries name them, or the folders coco, visualgenome and nlvr2 with them.
    """
    if not files:
        raise UserError(f"xvlm-finetune: name the files of one task with --files: looked for none under {root}")
    found = [given_file(file, root, "annotations") for file in files]
    bases = [root] if images is None else [images, root / images]
    folders = ImageFolders([base / name for base in bases for name in _FOLDERS])
    keys = Keys()
    return GatheredImages(_entries(found, folders, keys), folders, Splits(split), make=_finished, keys=keys)


def _entries(files: Sequence[Path], folders: ImageFolders, keys: Keys) -> Iterator[Said | Dropped]:
    for file in files:
        split = split_in_name(file, "train", "val", "dev", "test")
        for element in JsonElements(file):
            values = element.value if isinstance(element.value, dict) else {}
            if "images" in values:
                yield from _pair(values, element.where, split, folders, keys)
            elif not isinstance(values.get("image"), str) or not values["image"]:
                yield Dropped(reason="malformed entry", where=element.where, detail=str(element.value)[:100])
            elif "question" in values:
                yield from _question(values, element.where, split)
            elif "text" in values:
                yield from _expression(values, element.where, split)
            elif "caption" in values:
                yield from _captions(values["caption"], values["image"], element.where, split)
            else:
                yield Dropped(reason="malformed entry", where=element.where, detail=str(element.value)[:100])


def _captions(texts: Any, image: str, where: str, split: str | None) -> Iterator[Said | Dropped]:
    if texts == []:
        yield Dropped(reason="no caption", where=where, detail=image[:100])
    for text in texts if isinstance(texts, list) else [texts]:
        cleaned, rule = clean_text(text)
        if rule:
            yield Dropped(reason=rule, where=where, detail=f"{image[:100]}: {str(text)[:100]!r}")
        else:
            yield Said((image,), where, "captions", cleaned, split)


def _question(values: dict[str, Any], where: str, split: str | None) -> Iterator[Said | Dropped]:
    told, answer = values.get("dataset"), values.get("answer")
    split = split or ("train" if told == "vg" else None)
    if answer is None and split in ("train", "val"):
        yield Dropped(reason="no answer", where=where, detail=str(values["question"])[:100])
        return
    told = None if told == "vqa" else told
    question, dropped = question_of(values["question"], answer, where, id=values.get("question_id"), dataset=told)
    yield from dropped
    if question is not None:
        yield Said((values["image"],), where, "questions", question, split)


def _pair(
    values: dict[str, Any], where: str, split: str | None, folders: ImageFolders, keys: Keys
) -> Iterator[Said | Dropped]:
    names, label = values["images"], values.get("label")
    statement, rule = clean_text(values.get("sentence"))
    if not isinstance(names, list) or len(names) != 2 or not all(isinstance(name, str) and name for name in names):
        yield Dropped(reason="malformed entry", where=where, detail=f"images: {str(names)[:100]}")
    elif rule:
        yield Dropped(
            reason=rule.replace("caption", "statement"), where=where, detail=repr(values.get("sentence"))[:100]
        )
    elif not (label is None or isinstance(label, bool) or (isinstance(label, str) and label in _LABELS)):
        yield Dropped(reason="malformed label", where=where, detail=repr(label)[:100])
    else:
        files = [folders.find(where, name) for name in names]
        missing = [file for file in files if isinstance(file, Dropped)]
        if missing:
            yield missing[0]
            return
        pair: dict[str, Any] = {"partner": keys.of(names[1]), "statement": statement}
        if label is not None:
            pair["label"] = _LABELS[label] if isinstance(label, str) else label
        if is_id(values.get("identifier")):
            pair["id"] = values["identifier"]
        # the second one first: what breaks off behind a record leaves no partner out
        yield Said((names[1],), where, "pairs", None, split)
        yield Said((names[0],), where, "pairs", [pair, str(files[1]), where], split)


def _expression(values: dict[str, Any], where: str, split: str | None) -> Iterator[Said | Dropped]:
    text, rule = clean_text(values["text"])
    if rule:
        yield Dropped(reason=rule.replace("caption", "expression"), where=where, detail=repr(values["text"])[:100])
    elif "bbox" not in values:
        yield Said((values["image"],), where, "captions", text, split)
    else:
        number = values.get("ref_id") if is_id(values.get("ref_id")) else None
        yield Said((values["image"],), where, _BOXES, [text, values["bbox"], number, where], split)


def _finished(record: Record, gathered: Gathered) -> list[Record | Dropped]:
    """The record of an image, with what needs a look at image files, and what was dropped of it. Runs in a worker."""
    dropped: list[Record | Dropped] = []
    pairs = []
    for pair, partner, where in gathered.get("pairs", ()):
        try:
            open_image(Path(partner))
        except ImageError as error:
            detail = f"{Path(partner).name}: {error}"
            dropped.append(Dropped(reason="partner's image unusable", where=where, detail=detail))
        else:
            pairs.append(pair)
    said = with_said(record, {**gathered, "pairs": pairs})
    said = replace(said, extra={kind: values for kind, values in said.extra.items() if kind != _BOXES and values})
    if gathered.get(_BOXES):
        said = _with_boxes(said, gathered[_BOXES], dropped)
        if dropped and not said.captions and len(said.extra) == 1:
            return [*dropped, Dropped(reason="no region", where=str(record.extra["source"]))]
    return [*dropped, said]


def _with_boxes(record: Record, boxes: Sequence[Any], dropped: list[Record | Dropped]) -> Record:
    """The record with its expressions and their boxes as regions; those that cannot be used go to `dropped`."""
    assert isinstance(record.image, Path)
    try:
        width, height = EncodedImage(record.image).size
    except ImageError:  # is reported when the whole image is decoded
        return record
    regions: list[Region] = []
    expressions: list[dict[str, Any]] = []
    for text, box, number, where in boxes:
        found = region(box, (float(width), float(height)), where, phrases=[text])
        if isinstance(found, Dropped):
            dropped.append(found)
            continue
        index = next((i for i, one in enumerate(regions) if one.box == found.box), len(regions))
        if index == len(regions):
            regions.append(found)
        else:
            regions[index] = replace(regions[index], phrases=(*regions[index].phrases, text))
        expressions.append({"text": text, "index": index, **({} if number is None else {"id": number})})
    extra = {**record.extra, **({"expressions": expressions} if expressions else {})}
    return replace(record, regions=tuple(regions), extra=extra)
