"""Conceptual Captions: the official TSV (caption, URL) with the images that somebody downloaded, or (caption, path).

Row n (from 0) with URL u may have its image under any of these names, with a usual ending or none:

    CRC                    decimal CRC-32 of u: DownloadConceptualCaptions, ViLBERT, VOLTA
    n_CRC                  the same with the row in front
    0000000n               eight digits: VL-BERT; also the bare number
    0000k/00000000n        nine digits in folders of 10000: the "files" output of img2dataset
    MD5, SHA-1             of u, in hexadecimal

in `training`, `train`, `train_image`, or `validation`, `val`, `val_image`, by what the TSV's name says; or in `images`
or beside the TSV. Names of the row's number alone are looked for in the latter two only where one TSV is read, and in
the others where one of the split is, as else they could mean several images. The kinds of name that find the first
images are taken for the rest.
"""

import hashlib
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from crossgrain.config import UserError
from crossgrain.data.records import Dropped, Item, Record, safe_key
from crossgrain.data.sets.annotations import clean_text, given_file, read_lines
from crossgrain.data.sets.pictures import Caption, CaptionedImages, ImageFolders, Splits

_SPLITS = {"train": ("training", "train", "train_image"), "val": ("validation", "val", "val_image")}
_SHARED = ("images", "")
_ENDINGS = (".jpg", "", ".png", ".jpeg", ".webp", ".gif")
_SURE = 200  # images after which only the rules are tried that have found one


def _crc(url: str) -> int:
    return zlib.crc32(url.encode("utf-8", "surrogateescape"))


_BY_URL: dict[str, Callable[[int, str], str]] = {
    "crc": lambda row, url: str(_crc(url)),
    "row and crc": lambda row, url: f"{row}_{_crc(url)}",
    "md5": lambda row, url: hashlib.md5(url.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest(),
    "sha1": lambda row, url: hashlib.sha1(url.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest(),
}
_BY_ROW: dict[str, Callable[[int, str], str]] = {
    "eight digits": lambda row, url: f"{row:08d}",
    "img2dataset": lambda row, url: f"{row // 10_000:05d}/{row:09d}",
    "number": lambda row, url: str(row),
}


def read(
    root: Path, *, split: str | None = None, captions: Sequence[Path] = (), images: Path | None = None
) -> Iterable[Item]:
    """The rows of `*.tsv` under `root`, or of `captions`: a record for each; where rows name paths, for each image."""
    files = [given_file(file, root, "captions") for file in captions] or sorted(root.glob("*.tsv"))
    if not files:
        raise UserError(f"no captions: looked for {root}/*.tsv")
    splits = Splits(split)
    return chain.from_iterable(_items(file, root, images, splits, files) for file in files)


def _items(file: Path, root: Path, images: Path | None, splits: Splits, files: Sequence[Path]) -> Iterator[Item]:
    official = _split_of(file)
    if not _has_urls(file):
        names = (*_SHARED, *_SPLITS.get(official or "", ()))
        yield from CaptionedImages(_paths(file, official), ImageFolders.under(root, names, images), splits)
        return
    of_split = sum(_split_of(other) == official for other in files)
    finder = _Finder(root, images, official, alone=len(files) == 1, alone_in_split=of_split == 1)
    prefix = official if official and of_split == 1 else safe_key(file.stem)
    for row, (where, text, url) in enumerate(_rows(file)):
        caption, rule = clean_text(text)
        if rule or "://" not in url:
            yield Dropped(reason=rule or "malformed line", where=where, detail=f"{text[:100]!r}, {url[:100]!r}")
            continue
        key = f"{prefix}_{row:08d}"
        chosen = splits.place(key, official)
        if chosen is None:
            continue
        found = finder.find(row, url, where)
        if isinstance(found, Dropped):
            yield found
        else:
            extra = {"source": where, **({"url": url[:2000]} if url.isprintable() else {})}
            yield Record(key=key, image=found, captions=(caption,), split=chosen, extra=extra)


class _Finder:
    """Finds the image of a row by the rules above, and learns which of them hold."""

    def __init__(self, root: Path, images: Path | None, split: str | None, *, alone: bool, alone_in_split: bool):
        root = root if images is None else next((path for path in (images, root / images) if path.is_dir()), images)
        own = [root / name for name in _SPLITS.get(split or "", ())]
        shared = [root / name for name in _SHARED]
        self._anywhere = ImageFolders([*own, *shared])
        numbered = [*(own if alone_in_split else ()), *(shared if alone else ())]
        by_row = [folder for folder in numbered if folder.is_dir()]
        self._by_row = ImageFolders(by_row) if by_row else None
        self._rules = {**_BY_URL, **(_BY_ROW if self._by_row else {})}
        self._found: Counter[str] = Counter()

    def find(self, row: int, url: str, where: str) -> Path | Dropped:
        for rule, name in self._rules.items():
            folders = self._by_row if rule in _BY_ROW and self._by_row else self._anywhere
            file = folders.find(where, *(name(row, url) + ending for ending in _ENDINGS))
            if isinstance(file, Path):
                self._found[rule] += 1
                if self._found.total() == _SURE:
                    self._rules = {rule: self._rules[rule] for rule, _ in self._found.most_common()}
                return file
        return Dropped(reason="image missing", where=where, detail=f"row {row}, {url[:160]}")


def _split_of(file: Path) -> str | None:
    """The official files are Train_GCC-training.tsv and Validation_GCC-1.1.0-Validation.tsv."""
    name = file.name.lower()
    return "train" if "train" in name else "val" if "val" in name else None


def _rows(file: Path) -> Iterator[tuple[str, str, str]]:
    """(place, caption, URL or path) of every row; a row without a tab has no URL."""
    for number, line in read_lines(file):
        text, _, source = line.partition("\t")
        if number > 1 or (text.strip().lower(), source.strip().lower()) not in _HEADERS:
            yield f"{file.name}:{number}", text, source.strip()


_HEADERS = {("caption", name) for name in ("url", "image_url", "path", "image", "file")}


def _has_urls(file: Path) -> bool:
    return any("://" in url for _, (_, _, url) in zip(range(100), _rows(file), strict=False))


def _paths(file: Path, split: str | None) -> Iterator[Caption | Dropped]:
    for where, text, path in _rows(file):
        if path:
            yield Caption(path, text, where, split)
        elif text.strip():
            yield Dropped(reason="malformed line", where=where, detail=text[:100])
