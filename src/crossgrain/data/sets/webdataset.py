"""WebDataset tars as img2dataset writes them: KEY.jpg, KEY.txt and KEY.json side by side, in one tar or many.

The caption is KEY.txt, else "caption" in KEY.json, or the "captions" of our own shards. A key that an earlier sample
has, as where each tar counts from 0, gets the name of its tar. Only the headers are read here; workers read the files
they name.
"""

import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from functools import partial
from glob import glob
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from crossgrain.config import UserError
from crossgrain.data.images import LIMITS
from crossgrain.data.records import Dropped, Item, Record, safe_key
from crossgrain.data.sets.annotations import clean_texts
from crossgrain.data.sets.pictures import Splits, digest

_IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "jp2", "ppm", "avif")
_MAX_TEXT_FILE = 2**20
Members = dict[str, tuple[int, int]]  # extension -> (first byte in the tar, size)


def read(root: Path, *, split: str | None = None) -> Iterable[Item]:
    """The samples of the tars: `root` is a folder of them, one of them, or a pattern like `data/{a glob}.tar`."""
    named = [root] if root.is_file() else [Path(name) for name in sorted(glob(str(root)))]  # noqa: PTH207
    tars = sorted(root.rglob("*.tar")) if root.is_dir() else named
    tars = [tar for tar in tars if not tar.name.endswith(".regions.tar")]  # what a detector found, in our own shards
    if not tars:
        raise UserError(f"no tars: looked for {root}/**/*.tar" if root.is_dir() else f"no tars: looked for {root}")
    return _samples(tars, Splits(split))


def _samples(tars: list[Path], splits: Splits) -> Iterator[Item]:
    base = os.path.commonpath([tar.parent for tar in tars])
    taken: set[int] = set()  # 8 bytes of the hash of each record's key
    for tar in tars:
        for key, members in groupby(
            _members(tar), key=lambda member: member if isinstance(member, Dropped) else member[0]
        ):
            if isinstance(key, Dropped):
                yield key
                continue
            places: Members = {extension: (start, size) for _, extension, start, size in members}  # type: ignore[misc]
            where = _where(tar.name, key)
            image = next((extension for extension in _IMAGES if extension in places), None)
            if image is None:
                yield Dropped(reason="image missing", where=where, detail=", ".join(places)[:100])
                continue
            name, number = key, _number(key)
            if number in taken:
                name = f"{key}_{tar.relative_to(base)}"
                number = _number(name)
            taken.add(number)
            yield partial(_read_sample, str(tar), key, safe_key(name), image, places, splits.held_out(name))


def _members(tar: Path) -> Iterator[tuple[str, str, int, int] | Dropped]:
    """(key, extension, first byte, size) of every file in a tar; the key ends at the first dot of the file's name."""
    try:
        with tarfile.open(tar, "r:") as archive:
            size = tar.stat().st_size
            while (member := archive.next()) is not None:
                archive.members.clear()  # pyright: ignore[reportAttributeAccessIssue] - tarfile would keep every header
                path = PurePosixPath(member.name)
                if member.isdir():
                    continue
                stem, _, extension = path.name.partition(".")
                key = str(path.parent / stem)
                if not member.isreg() or member.offset_data + member.size > size:
                    problem = "a link or device" if not member.isreg() else "runs over the end of the tar"
                    yield Dropped(reason="broken tar member", where=_where(tar.name, key), detail=problem)
                    continue
                yield key, extension.lower(), member.offset_data, member.size
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        yield Dropped(reason="broken tar", where=tar.name, detail=str(error))


def _number(name: str) -> int:
    return int.from_bytes(digest(safe_key(name))[:8])


def _where(tar: str, key: str) -> str:
    return f"{tar} {key.encode('ascii', 'backslashreplace').decode()}"


def _read_sample(tar: str, name: str, key: str, image: str, members: Members, split: str) -> Record | Dropped:
    """The record of one sample, which the tar calls `name`. Runs in a worker."""
    where = _where(Path(tar).name, name)
    values: Any = {}
    if "json" in members:
        try:
            values = json.loads(_read_member(tar, members["json"], _MAX_TEXT_FILE))
        except (ValueError, RecursionError) as error:
            return Dropped(reason="malformed line", where=f"{where}.json", detail=str(error)[:100])
    values = values if isinstance(values, dict) else {}
    if "txt" in members:
        caption: Any = _read_member(tar, members["txt"], _MAX_TEXT_FILE).decode("utf-8", "surrogateescape")
    else:
        caption = values.get("caption", values.get("captions"))
    captions, rule = clean_texts(caption)
    if rule:
        return Dropped(reason=rule, where=where, detail=repr(caption)[:100])
    url = values.get("url")
    extra = {"source": where, **({"url": url[:2000]} if isinstance(url, str) and url.isprintable() else {})}
    data = _read_member(tar, members[image])
    return Record(key=key, image=data, captions=tuple(captions), split=split, extra=extra)


def _read_member(tar: str, place: tuple[int, int], limit: int = LIMITS.max_bytes + 1) -> bytes:
    handle = os.open(tar, os.O_RDONLY)
    try:
        return os.pread(handle, min(place[1], limit), place[0])
    finally:
        os.close(handle)
