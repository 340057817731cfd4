"""Images of which only the region features are at hand: each becomes a small grey picture of the image's shape.

`--file` is a feature file of `--format` (`crossgrain.data.features`), `--captions` a table with columns `image_id` (or
`image`) and `caption`, or JSON lines with the keys `image` and `caption`. The regions are stored beside the shards, so
that models that read regions train on them. One that reads pixels would see grey; `extra` says so: {"image":
"placeholder"}.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from crossgrain.config import UserError
from crossgrain.data.features import feature_format
from crossgrain.data.features.matching import Keys as ImageIds
from crossgrain.data.records import Dropped, Item, Record
from crossgrain.data.sets.annotations import clean_text, given_file
from crossgrain.data.sets.folder import file_captions
from crossgrain.data.sets.pictures import Keys, Splits

_SIDE = 64  # pixels of the longer side of a placeholder
_SHORT_SIDE = 8  # and of the shorter one at least


@dataclass(slots=True)
class _Texts:
    """What is said about one image."""

    where: str
    split: str | None
    captions: list[str] = field(default_factory=list)
    found: bool = False  # whether the feature file has the image


def read(root: Path, *, file: Path, format: str, captions: Path, split: str | None = None) -> Iterator[Item]:
    """One record for every image that stands in the feature file and has a caption."""
    feature_format(format)
    return _records(_features(root, file), format, given_file(captions, root, "captions"), Splits(split))


def finish(out: Path, root: Path, *, file: Path, format: str, captions: Path) -> list[str]:
    """Store the regions beside the finished shards in `out`; lines about it for people."""
    from crossgrain.data.features.importing import import_features

    return import_features(out, format, _features(root, file)).lines()[:1]


def _features(root: Path, file: Path) -> Path:
    found = next((path for path in (file, root / file) if path.exists()), None)
    if found is None:
        raise UserError(f"no features: looked for {file}, {root / file}")
    return found


def _records(file: Path, format: str, captions: Path, splits: Splits) -> Iterator[Item]:
    said: dict[str, _Texts] = {}
    for caption in file_captions(captions):
        text, rule = ("", "") if isinstance(caption, Dropped) else clean_text(caption.text)
        if isinstance(caption, Dropped):
            yield caption
        elif rule:
            yield Dropped(reason=rule, where=caption.where, detail=caption.image[:100])
        else:
            said.setdefault(caption.image, _Texts(caption.where, caption.split)).captions.append(text)
    ids, texts, keys = ImageIds(said), list(said.values()), Keys()
    for row in feature_format(format).read(file):
        if isinstance(row, Dropped):
            yield row
            continue
        found = ids.find(row.image_id)
        if isinstance(found, str):
            yield Dropped(reason="no caption", where=row.where, detail=row.image_id[:100])
            continue
        about = texts[found[0]]
        about.found = True
        split = splits.place(row.image_id, about.split)
        if split is not None:
            extra = {"source": row.where, "image": "placeholder"}
            yield partial(_record, keys.of(row.image_id), row.size, tuple(about.captions), split, extra)
    for name, about in said.items():
        if not about.found:
            yield Dropped(reason="unknown image id", where=about.where, detail=name[:100])


def _record(
    key: str, size: tuple[int, int] | None, captions: tuple[str, ...], split: str, extra: dict[str, Any]
) -> Record:
    """The record with its placeholder. Runs in a worker."""
    from PIL import Image

    width, height = size or (1, 1)
    longer = max(width, height)
    shape = (max(_SHORT_SIDE, round(_SIDE * width / longer)), max(_SHORT_SIDE, round(_SIDE * height / longer)))
    buffer = io.BytesIO()
    Image.new("L", shape, 128).save(buffer, "PNG")
    return Record(key=key, image=buffer.getvalue(), captions=captions, split=split, extra=extra)
