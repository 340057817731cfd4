"""Flickr30k Entities: the phrases of Flickr30k's captions with the boxes of what they name (Plummer et al. 2017).

`Sentences/NUMBER.txt` has a caption a line, with its phrases marked as [/EN#CHAIN/TYPE/... words]; phrases of one chain
name the same thing, and chain 0 is nothing that can be seen. `Annotations/NUMBER.xml` has objects with the chains they
belong to, each with a box or flagged as the whole scene or as without a box. `train.txt`, `val.txt` and `test.txt` list
the images of the splits (README.md and flickr30k_entities_utils.py of BryanPlummer/flickr30k_entities).

A chain becomes one region, the smallest box around all of its boxes, with its phrases: MDETR's MergedBox protocol
(ashkamath/mdetr datasets/flickr_eval.py:292), in which a phrase has one true box. For its AnyBox protocol, where any of
the boxes may be covered, the single boxes stand in `extra["entities"]`, an entry a region. A phrase whose chain has no
box is dropped, as in both protocols; it stays in its caption.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat

from crossgrain.config import UserError
from crossgrain.data.records import Box, Dropped, Item, Record, Region
from crossgrain.data.sets.annotations import clean_text, read_lines
from crossgrain.data.sets.pictures import ImageFolders, Keys, Splits, image_size, pixel_box

_SENTENCES = ("Sentences", "sentences")
_ANNOTATIONS = ("Annotations", "annotations")
_FOLDERS = ("flickr30k-images", "flickr30k_images", "images", "Images", "")
_SPLITS = ("train", "val", "test")
_PHRASE = re.compile(r"\[/EN#(\d{1,18})((?:/[^/\s\]]+)+)\s+([^\]]*)\]")
_MAX_XML = 4 * 2**20  # bytes; the largest has some ten thousand
_MAX_DEPTH = 16
Boxes = dict[str, list[Box]]  # by chain


class Phrase(NamedTuple):
    """A phrase of a caption: its words, its chain and the coarse types of what it names."""

    text: str
    chain: str
    types: tuple[str, ...]


def read(root: Path, *, split: str | None = None, images: Path | None = None) -> Iterable[Item]:
    """The images with their five captions and the phrases in them that have boxes."""
    folder = next((root / name for name in _SENTENCES if (root / name).is_dir()), None)
    if folder is None:
        raise UserError(f"no sentences: looked for {', '.join(str(root / name) for name in _SENTENCES)}")
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise UserError(f"no sentences: looked for {folder}/*.txt")
    annotations = next((root / name for name in _ANNOTATIONS if (root / name).is_dir()), root / _ANNOTATIONS[0])
    folders = ImageFolders.under(root, _FOLDERS, images)
    return list(_items(files, annotations, _official_splits(root), folders, Splits(split)))


def _official_splits(root: Path) -> dict[str, str] | None:
    """The split of every listed image, None where the lists are not there."""
    lists = {split: root / f"{split}.txt" for split in _SPLITS}
    if not all(file.is_file() for file in lists.values()):
        return None
    return {line.strip(): split for split, file in lists.items() for _, line in read_lines(file)}


def _items(
    files: Sequence[Path], annotations: Path, listed: Mapping[str, str] | None, folders: ImageFolders, splits: Splits
) -> Iterator[Item]:
    keys = Keys()
    for sentences in files:
        where, name = f"{sentences.parent.name}/{sentences.name}", sentences.stem
        if listed is not None and name not in listed:
            yield Dropped(reason="image in no official split", where=where, detail=name)
            continue
        split = splits.place(name, None if listed is None else listed[name])
        if split is None:
            continue
        image = folders.find(where, f"{name}.jpg")
        if isinstance(image, Dropped):
            yield image
            continue
        record = Record(key=keys.of(f"{name}.jpg"), image=image, split=split, extra={"source": where})
        yield partial(_record, record, sentences, annotations / f"{name}.xml")  # pyright: ignore[reportReturnType] - several


def _record(record: Record, sentences: Path, annotations: Path) -> list[Record | Dropped]:
    """The record of one image, and what was dropped of it. Runs in a worker."""
    boxes, unboxed, dropped = read_annotations(annotations)
    captions: list[str] = []
    said: dict[str, list[tuple[int, Phrase]]] = {}  # by chain: number of the caption, and the phrase
    for number, line in read_lines(sentences):
        where = f"{sentences.parent.name}/{sentences.name}:{number}"
        if not line.strip():
            continue
        read = read_sentence(line)
        if isinstance(read, str):
            dropped.append(Dropped(reason=read, where=where, detail=line[:100]))
            continue
        for phrase in read[1]:
            if phrase.chain in boxes:
                said.setdefault(phrase.chain, []).append((len(captions), phrase))
            elif phrase.chain != "0":
                why = unboxed.get(phrase.chain, "not annotated")
                detail = f"chain {phrase.chain} ({why}): {phrase.text[:80]}"
                dropped.append(Dropped(reason="region: phrase without a box", where=where, detail=detail))
        captions.append(read[0])
    if not captions:
        return [*dropped, Dropped(reason="no caption", where=f"{sentences.parent.name}/{sentences.name}")]
    regions = tuple(_region(boxes[chain], phrases) for chain, phrases in said.items())
    extra = {**record.extra, "entities": [_entity(chain, boxes[chain], phrases) for chain, phrases in said.items()]}
    expressions = [
        {"text": phrase.text, "index": index, "id": chain, "caption": caption}
        for index, (chain, phrases) in enumerate(said.items())
        for caption, phrase in phrases
    ]
    if expressions:
        extra["expressions"] = expressions
    kept = Record(
        key=record.key, image=record.image, captions=tuple(captions), regions=regions, split=record.split, extra=extra
    )
    return [*dropped, kept]


def _region(boxes: Sequence[Box], phrases: Sequence[tuple[int, Phrase]]) -> Region:
    """The smallest box around all of a chain's, with everything that its phrases say."""
    x1, y1, x2, y2 = zip(*boxes, strict=True)
    texts = dict.fromkeys(phrase.text for _, phrase in phrases)
    return Region(box=(min(x1), min(y1), max(x2), max(y2)), phrases=tuple(texts))


def _entity(chain: str, boxes: Sequence[Box], phrases: Sequence[tuple[int, Phrase]]) -> dict[str, Any]:
    types = dict.fromkeys(kind for _, phrase in phrases for kind in phrase.types)
    return {"id": chain, "types": [*types], "boxes": [[*box] for box in boxes]}


def read_sentence(line: str) -> tuple[str, list[Phrase]] | str:
    """A marked caption as (plain text, phrases), or the rule that it breaks."""
    caption, rule = clean_text(_PHRASE.sub(r"\3", line))
    if rule:
        return rule
    phrases = [Phrase(clean_text(m[3])[0], m[1], tuple(m[2][1:].split("/"))) for m in _PHRASE.finditer(line)]
    if "[/EN#" in caption or not all(phrase.text for phrase in phrases):
        return "malformed phrase"
    return caption, phrases


def read_annotations(file: Path) -> tuple[Boxes, dict[str, str], list[Record | Dropped]]:
    """The boxes of each chain in [0, 1], what stands in place of them ("whole scene", "no box"), and what was dropped.

    Pixels count from 1; as the authors' reader does, 1 is taken from all four sides (flickr30k_entities_utils.py:102).
    """
    where = f"{file.parent.name}/{file.name}"
    boxes: Boxes = {}
    unboxed: dict[str, str] = {}
    tree = parse_xml(file)
    if isinstance(tree, str):
        return boxes, unboxed, [Dropped(reason="region: malformed XML", where=where, detail=tree)]
    size = image_size(_number(tree, "size/width"), _number(tree, "size/height"))
    if size is None:
        return boxes, unboxed, [Dropped(reason="region: image without a size", where=where)]
    dropped: list[Record | Dropped] = []
    for number, thing in enumerate(tree.findall("object")):
        chains = [(name.text or "").strip() for name in thing.findall("name")]
        if thing.find("bndbox") is None:
            why = "whole scene" if _number(thing, "scene") else "no box"
            unboxed.update(dict.fromkeys(chains, why))
            continue
        sides = [_number(thing, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        box = _corners(sides, size)
        if isinstance(box, str):
            detail = f"chain {', '.join(chains)[:60]}: {sides} in an image of {size[0]:g} x {size[1]:g}"
            dropped.append(Dropped(reason=box, where=f"{where} object[{number}]", detail=detail))
            continue
        for chain in chains:
            boxes.setdefault(chain, []).append(box)
    return boxes, unboxed, dropped


def _corners(sides: Sequence[float | None], size: tuple[float, float]) -> Box | str:
    x1, y1, x2, y2 = (float("nan") if side is None else side - 1 for side in sides)
    return pixel_box((x1, y1, x2 - x1, y2 - y1), *size)


def _number(element: ElementTree.Element, path: str) -> float | None:
    try:
        return float(element.findtext(path, ""))
    except ValueError:
        return None


def parse_xml(file: Path) -> ElementTree.Element | str:
    """The tree of a small XML file, or why it is not read: a document type, which may define entities, is refused."""
    depth = 0

    def refuse(*_: object) -> None:
        raise ValueError("a document type is not read: it may define entities")

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deep")
        tree.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        tree.end(tag)

    tree, parser = ElementTree.TreeBuilder(), expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, tree.data
    try:
        if file.stat().st_size > _MAX_XML:
            return f"more than {_MAX_XML} bytes"
        parser.Parse(file.read_bytes(), True)
    except (OSError, ValueError, expat.ExpatError) as error:
        return "no such file" if isinstance(error, FileNotFoundError) else str(error)
    return tree.close()
