"""Give a prepared data set the regions of a feature file, as if a detector had been over it.

The file has its own order, and may be larger than the memory: its rows are first laid out by shard on disk, then each
shard's are written in the order of its records.
"""

import hashlib
import shutil
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from crossgrain.config import UserError
from crossgrain.data.drops import Drops
from crossgrain.data.features import FeatureFormat, feature_format
from crossgrain.data.features.matching import Keys
from crossgrain.data.features.rows import FeatureRow
from crossgrain.data.progress import progress_bar
from crossgrain.data.records import Dropped
from crossgrain.data.regions import RegionFeatures, finish_regions, open_regions, remove_regions, write_region_shard
from crossgrain.data.shards import Shards

_WORK = ".features"  # the folder in the data set's where rows wait for their shard
_HEADER = struct.Struct("<qq")  # of a waiting row: number of its record in the shard, bytes
_READ = 2**20


@dataclass(kw_only=True)
class ImportReport(Drops):
    """What became of a feature file."""

    rows: int = 0  # that could be read
    matched: int = 0  # records with regions now
    missing: int = 0  # records without
    matched_by: Counter[str] = field(default_factory=Counter)  # rule of `matching.Keys`: rows
    stamp: dict[str, Any] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The report for people."""
        rules = ", ".join(f"{count:,} by {rule}" for rule, count in sorted(self.matched_by.items()))
        first = f"regions of {self.matched:,} records ({rules or 'none'}); {self.missing:,} records have none"
        return [first, f"dropped {self.dropped.total():,} rows", *self.drop_lines()]


def import_features(
    data: Path, format: str, path: Path, *, overwrite: bool = False, console: Console | None = None
) -> ImportReport:
    """Store the regions of a feature file beside the shards of the data set in `data`.

    `format` is a name of `FEATURE_FILES`. Rows belong to records by their image id (`matching.Keys`); broken rows, rows
    without a record, and a second row for a record are counted and dropped. UserError: an unknown format, no such file,
    no row that fits, regions of another stamp there already (unless `overwrite`). Killed half way, it is called again.
    """
    chosen = feature_format(format)
    shards = Shards(data)
    report = ImportReport()
    rows = _readable(chosen, Path(path), report)
    first = next(rows, None)
    if first is None:
        raise UserError(f"no row of {path} can be read as {format}:\n" + "\n".join(report.drop_lines()))
    report.stamp = _stamp(format, chosen, Path(path), first.regions)
    done = set() if overwrite else open_regions(data, report.stamp)
    work = data / _WORK
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        keys = shards.column("key").tolist()
        names = [shard["name"] for shard in shards.manifest["shards"]]
        starts = np.cumsum([0, *(shard["records"] for shard in shards.manifest["shards"])])
        taken = bytearray(len(keys))
        with progress_bar(console) as progress:
            bar = progress.add_task(f"read {format}", total=len(keys), rate="")
            for place, row in _matched(chain([first], rows), Keys(keys), taken, report):
                shard = int(np.searchsorted(starts, place, "right")) - 1
                if names[shard] not in done:
                    _put(work / names[shard], place - int(starts[shard]), row.regions)
                progress.advance(bar)
        if not report.matched:
            if not overwrite and not done:
                remove_regions(data, names)
            raise UserError(f"no row of {path} fits a record of {data}:\n" + "\n".join(report.drop_lines()))
        if overwrite:  # what stands there is removed only now that there is something in its place
            open_regions(data, report.stamp, overwrite=True)
        for shard, name in enumerate(names):
            if name not in done:
                write_region_shard(data, name, _in_order(work / name, keys[starts[shard] : starts[shard + 1]]))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    finish_regions(data)
    report.missing = len(keys) - report.matched
    return report


def _readable(chosen: FeatureFormat, path: Path, report: ImportReport) -> Iterator[FeatureRow]:
    """The rows that can be used together: all with as many features and classes as the first."""
    shape = None
    for row in chosen.read(path):
        if isinstance(row, Dropped):
            report.drop(row)
            continue
        report.rows += 1
        found = _shape(row.regions)
        shape = shape or found
        if found == shape:
            yield row
        else:
            report.drop(Dropped(reason="other size of features", where=row.where, detail=f"{found}, not {shape}"))


def _shape(regions: RegionFeatures) -> tuple[int, int | None]:
    probs = regions.class_probs
    return regions.features.shape[1], None if probs is None else probs.shape[1]


def _stamp(format: str, chosen: FeatureFormat, path: Path, regions: RegionFeatures) -> dict[str, Any]:
    """The stamp of a file: what computed it is not known, so its content stands for the weights."""
    size, classes = _shape(regions)
    unknown = ("score_threshold", "min_boxes", "max_boxes", "nms", "class_agnostic", "whole_image", "image_size")
    return {
        "detector": format,
        "weights": _digest(path),
        **dict.fromkeys(unknown),
        "feature_size": size,
        "num_classes": (classes or 0) if chosen.num_classes is None else chosen.num_classes,
    }


def _digest(path: Path) -> str:
    """SHA-256 of a file's content, or of the names and sizes of all files in a folder."""
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file() and file.name != "lock.mdb":
                digest.update(f"{file.relative_to(path).as_posix()}\t{file.stat().st_size}\n".encode())
    else:
        with path.open("rb") as file:
            while chunk := file.read(_READ):
                digest.update(chunk)
    return digest.hexdigest()


def _matched(
    rows: Iterator[FeatureRow], keys: Keys, taken: bytearray, report: ImportReport
) -> Iterator[tuple[int, FeatureRow]]:
    """The rows with the number of their record, each record once."""
    for row in rows:
        found = keys.find(row.image_id)
        if isinstance(found, tuple) and taken[found[0]]:
            found = "second row of a record"
        if isinstance(found, str):
            report.drop(Dropped(reason=found, where=row.where, detail=row.image_id))
            continue
        place, rule = found
        taken[place] = 1
        report.matched += 1
        report.matched_by[rule] += 1
        yield place, row


def _put(file: Path, number: int, regions: RegionFeatures) -> None:
    data = regions.to_bytes()
    with file.open("ab") as waiting:
        waiting.write(_HEADER.pack(number, len(data)))
        waiting.write(data)


def _in_order(file: Path, keys: list[str]) -> Iterator[tuple[str, RegionFeatures]]:
    """The waiting rows of one shard in the order of its records, one in memory at a time."""
    if not file.exists():
        return
    places: dict[int, tuple[int, int]] = {}
    with file.open("rb") as waiting:
        while header := waiting.read(_HEADER.size):
            number, size = _HEADER.unpack(header)
            places[number] = (waiting.tell(), size)
            waiting.seek(size, 1)
        for number in sorted(places):
            start, size = places[number]
            waiting.seek(start)
            yield keys[number], RegionFeatures.from_bytes(waiting.read(size))
