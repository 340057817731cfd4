"""JSON lines of X-VLM's own pre-training (dataset/pretrain_dataset.py): images with captions, and images with regions.

    {"image": PATH, "caption": TEXT or [TEXT, ...]}                 "binary": the file in base64, in place of "image"
    {"image": PATH, "caption"?: ..., "elems": [{"bb": [x, y, w, h], "caption": ..., "attributes"?: ...}, ...]}

Boxes are in pixels of the image. An element's texts are its captions, each behind one of its attributes if it has any
(the original draws one, pretrain_dataset.py:380-382). A line is one record, also where an image stands in several.
"""

from base64 import b64decode
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from crossgrain.config import UserError
from crossgrain.data.images import EncodedImage, ImageError
from crossgrain.data.records import Dropped, Item, Record, Region, safe_key
from crossgrain.data.sets.annotations import clean_texts, given_file, read_json_lines
from crossgrain.data.sets.pictures import ImageFolders, Keys, Splits, digest, region


def read(
    root: Path, *, split: str | None = None, captions: Sequence[Path] = (), images: Path | None = None
) -> Iterable[Item]:
    """The lines of all files `*.json` and `*.jsonl` under `root`, or of those in `captions`, one record each."""
    files = [given_file(file, root, "JSON lines") for file in captions]
    files = files or sorted(file for file in root.rglob("*") if file.suffix in (".json", ".jsonl") and file.is_file())
    if not files:
        raise UserError(f"no JSON lines: looked for {root}/**/*.json and {root}/**/*.jsonl")
    return _read_lines(files, ImageFolders.under(root, ("", "images"), images), Splits(split))


def _read_lines(files: Sequence[Path], folders: ImageFolders, splits: Splits) -> Iterator[Item]:
    keys = Keys()
    seen: set[str] = set()
    for file in files:
        for line in read_json_lines(file):
            if isinstance(line, Dropped):
                yield line
                continue
            where, values = line
            name = values.get("image", values.get("binary"))
            if not isinstance(name, str) or not name:
                yield Dropped(reason="malformed line", where=where, detail="no image")
                continue
            image = _image(values, name, folders, where)
            if isinstance(image, Dropped):
                yield image
                continue
            # Lines with one image stay in one split, whatever their keys.
            key = keys.of(name) if isinstance(image, Path) else digest(image).hex()[:32]
            split = splits.held_out(key)
            if key in seen:
                key = f"{key}_{safe_key(where)}"
            seen.add(key)
            texts = {name: values[name] for name in ("caption", "elems", "elem") if name in values}
            yield partial(_read_line, key, image, split, where, texts)  # pyright: ignore[reportReturnType] - several


def _image(values: dict[str, Any], name: str, folders: ImageFolders, where: str) -> Path | str | Dropped:
    """The image's path, or its file in base64, which stands under "image" too in some of the original's files."""
    return name if "image" not in values or _is_base64_image(name) else folders.find(where, name)


def _is_base64_image(text: str) -> bool:
    """Base64 of a JPEG, PNG, WebP, GIF or BMP file, by its first bytes."""
    return text.startswith(("/9j/", "iVBORw0KGgo", "UklGR", "R0lGOD", "Qk")) and len(text) > 200


def _read_line(key: str, image: Path | str, split: str, where: str, values: dict[str, Any]) -> list[Record | Dropped]:
    """The record of one line, and its elements that cannot be used. Runs in a worker."""
    try:
        data = image if isinstance(image, Path) else b64decode(image, validate=True)
        width, height = EncodedImage(data).size
    except ImageError as error:
        return [Dropped(reason=error.reason, where=where, detail=f"{key}: {error.detail}")]
    except ValueError:
        return [Dropped(reason="malformed base64", where=where)]
    captions, rule = clean_texts(values["caption"]) if "caption" in values else ([], "no caption")
    elements = values.get("elems", values.get("elem", []))
    checked = [
        _element(element, (float(width), float(height)), f"{where} elems[{index}]")
        for index, element in enumerate(elements if isinstance(elements, list) else [])
    ]
    dropped: list[Record | Dropped] = [one for one in checked if isinstance(one, Dropped)]
    regions = tuple(one for one in checked if isinstance(one, Region))
    if not captions and not regions:
        return [*dropped, Dropped(reason=rule, where=where)]
    texts, extra = tuple(captions), {"source": where}
    return [*dropped, Record(key=key, image=data, captions=texts, regions=regions, split=split, extra=extra)]


def _element(element: Any, size: tuple[float, float], where: str) -> Region | Dropped:
    values = element if isinstance(element, dict) else {}
    texts, _ = clean_texts(values.get("caption"))
    attributes, _ = clean_texts(values.get("attributes"))
    phrases = [f"{attribute} {text}" for text in texts for attribute in attributes] or texts
    return region(values.get("bb"), size, where, phrases=phrases)
