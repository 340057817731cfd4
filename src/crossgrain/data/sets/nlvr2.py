"""NLVR2: statements that are true or false of two photographs, in JSON lines (lil-lab/nlvr, nlvr2/data).

An identifier is "split-set-pair-sentence"; the pictures of a pair are `split-set-pair-img0.png`, the left one, and
`...-img1.png`, in folders by split, and in training by the line's `directory` below it (nlvr2/README.md). The splits
dev and test1 (the public test, "test-P") are val and test here; test2 ("test-U") keeps its name.

The record of the left picture has the statements. A pair of which a picture is missing or broken is dropped, so that
every partner that is named is there.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from crossgrain.config import UserError
from crossgrain.data.images import ImageError, open_image
from crossgrain.data.records import Dropped, Item, Record
from crossgrain.data.sets.annotations import clean_text, given_file, read_json_lines
from crossgrain.data.sets.gathered import Gathered, GatheredImages, Said, with_said
from crossgrain.data.sets.pictures import ImageFolders, Keys, Splits

_FILES = ("train.json", "dev.json", "test1.json", "test2.json")
_FOLDERS = ("images", "", "../images")
_SPLITS = {"dev": "val", "test1": "test"}
_IDENTIFIER = re.compile(r"(([A-Za-z0-9]{1,20})-\d{1,9}-\d{1,9})-\d{1,9}")
_LABELS = {"true": True, "false": False}


def read(
    root: Path, *, split: str | None = None, statements: Sequence[Path] = (), images: Path | None = None
) -> Iterable[Item]:
    """The pictures of all pairs; `statements` are files of JSON lines, in place of all in `root` or its `data`."""
    names = [folder / name for folder in (root, root / "data") for name in _FILES]
    files = [given_file(file, root, "statements") for file in statements] or [name for name in names if name.is_file()]
    if not files:
        raise UserError(f"no statements: looked for {', '.join(str(name) for name in names)}")
    folders, keys = ImageFolders.under(root, _FOLDERS, images), Keys()
    wanted = Splits(_SPLITS.get(split, split) if split else None)
    return GatheredImages(_pairs(files, folders, keys), folders, wanted, make=_with_partners, keys=keys)


def _pairs(files: Sequence[Path], folders: ImageFolders, keys: Keys) -> Iterator[Said | Dropped]:
    taken: set[str] = set()
    for file in files:
        for line in read_json_lines(file):
            if isinstance(line, Dropped):
                yield line
                continue
            where, values = line
            checked = _pair(values, where, taken)
            if isinstance(checked, Dropped):
                yield checked
                continue
            pair, part, left, right = checked
            found = [folders.find(where, *names) for names in (left, right)]
            lost = [one for one in found if isinstance(one, Dropped)]
            if lost:
                yield from lost
                continue
            # the right one first: what breaks off behind a record leaves no partner out
            yield Said(right, where, "pairs", None, part)
            yield Said(left, where, "pairs", [{"partner": keys.of(right[0]), **pair}, str(found[1]), where], part)


def _pair(
    values: dict[str, Any], where: str, taken: set[str]
) -> tuple[dict[str, Any], str, tuple[str, ...], tuple[str, ...]] | Dropped:
    """(statement with label and id, split, names of the left picture, names of the right one)."""
    identifier, label = values.get("identifier"), values.get("label")
    named = _IDENTIFIER.fullmatch(identifier) if isinstance(identifier, str) else None
    if named is None:
        return Dropped(reason="malformed identifier", where=where, detail=repr(identifier)[:100])
    if named[0] in taken:
        return Dropped(reason="duplicate key", where=where, detail=named[0])
    statement, rule = clean_text(values.get("sentence"))
    if rule:
        return Dropped(reason=rule.replace("caption", "statement"), where=where, detail=named[0])
    pair: dict[str, Any] = {"statement": statement, "id": named[0]}
    if label is not None:
        truth = _LABELS.get(str(label).lower()) if isinstance(label, str | bool) else None
        if truth is None:
            return Dropped(reason="malformed label", where=where, detail=f"{named[0]}: {label!r}"[:100])
        pair["label"] = truth
    taken.add(named[0])
    left, right = (_names(f"{named[1]}-{side}.png", named[2], values.get("directory")) for side in ("img0", "img1"))
    return pair, _SPLITS.get(named[2], named[2]), left, right


def _names(file: str, part: str, directory: Any) -> tuple[str, ...]:
    """Where a picture may lie; the first gives the record's key."""
    below = (f"{part}/{directory}/{file}", f"{directory}/{file}") if type(directory) is int else ()
    return (file, *below, f"{part}/{file}")


def _with_partners(record: Record, gathered: Gathered) -> list[Record | Dropped]:
    """The record with its statements, where its partner can be decoded. Runs in a worker."""
    told = gathered.get("pairs", ())
    if told:
        _, partner, where = told[0]
        try:
            open_image(Path(partner))
        except ImageError as error:
            detail = f"{Path(partner).name}: {error}"
            return [Dropped(reason="partner's image unusable", where=where, detail=detail)]
    return [with_said(record, {"pairs": [pair for pair, _, _ in told]} if told else {})]
