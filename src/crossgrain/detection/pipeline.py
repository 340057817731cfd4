"""`crossgrain detect`: every image of a prepared data set gets its regions, stored beside its shard.

What is written is a function of the data, the detector and `batch_size` alone. Images are only computed together that
have the same size once resized, so none is ever padded because of another; which ones are computed together is decided
from the index before anything runs; and on a CPU every process computes with one thread. So neither the number of
processes, nor a kill and a second start, changes a byte.
"""

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from rich.console import Console

from crossgrain.config import Choice, Count, UserError, config_owner, configclass
from crossgrain.data.images import ImageConfig, ImageError, eval_image
from crossgrain.data.pool import ordered_map
from crossgrain.data.progress import progress_bar
from crossgrain.data.regions import RegionFeatures, finish_regions, open_regions, write_region_shard
from crossgrain.data.shards import Shards
from crossgrain.detection import DETECTORS
from crossgrain.detection.annotated import NO_BOXES, Boxes, annotated_boxes, check_describes, regions_of_images
from crossgrain.detection.interface import Detector, Probability, Selection

MAX_PROCESSES = 16
_PATIENCE = 3600.0  # seconds that a group of images may take in a process before it counts as lost


@configclass
class DetectConfig:
    """How regions are found. What is None here is the detector's own choice (see `Selection`)."""

    detector: Annotated[Any, Choice(DETECTORS)]
    score_threshold: Probability | None = None
    min_boxes: Annotated[int, Field(ge=0)] | None = None
    max_boxes: Count | None = None
    nms: Probability | None = None
    class_agnostic: bool | None = None
    whole_image: bool | None = None
    short_side: Count | None = None
    long_side: Count | None = None
    batch_size: Count = 8
    processes: Count | None = None  # None: one on a GPU, else one for every core
    num_workers: Annotated[int, Field(ge=0)] = 2  # decode for a detector that has a process of its own
    device: Literal["auto", "cpu", "cuda"] = "auto"
    overwrite: bool = False  # replace the regions of another detector
    boxes: Boxes = "detected"  # or the annotated ones of the data, described by the detector; "both": these come last
    annotated_splits: tuple[str, ...] | None = None  # other splits keep detected boxes; None: all have annotated ones

    def __post_init__(self) -> None:
        if self.boxes == "detected" and self.annotated_splits is not None:
            raise ValueError("annotated_splits are those of boxes=annotated or boxes=both, and boxes is detected")

    def stamp(self, detector: Detector) -> dict[str, Any]:
        """The detector's stamp, and which boxes it described where these are not its own."""
        if self.boxes == "detected":
            return detector.stamp()
        splits = {} if self.annotated_splits is None else {"annotated_splits": sorted(set(self.annotated_splits))}
        return {**detector.stamp(), "boxes": self.boxes, **splits}

    def takes_annotated(self, split: str) -> bool:
        """Whether the annotated boxes of this split's images become regions."""
        return self.boxes != "detected" and (self.annotated_splits is None or split in self.annotated_splits)

    def selection(self) -> Selection:
        """The detector's own selection with what is said here; UserError where that makes no sense."""
        own: Selection = config_owner(self.detector).default_selection(self.detector)
        given = {f.name: value for f in fields(own) if (value := getattr(self, f.name)) is not None}
        try:
            return replace(own, **given)
        except ValueError as error:
            raise UserError(str(error)) from None

    def build(self) -> Detector:
        """The detector, on the device of this process."""
        return config_owner(self.detector)(self.detector, self.selection(), _device(self.device))


@dataclass
class Report:
    """What a detection did. Counts are those of this run: shards that were done before are not read again."""

    images: int = 0
    boxes: int = 0
    classes: set[int] = field(default_factory=set)
    empty: Counter[str] = field(default_factory=Counter)  # images without regions, by reason
    shards: int = 0
    shards_before: int = 0
    seconds: float = 0.0

    def count(self, regions: RegionFeatures, reason: str) -> None:
        """Note what was found in an image."""
        self.images += 1
        self.boxes += len(regions)
        self.classes.update(regions.labels.tolist())
        if not len(regions):
            self.empty[reason or "nothing found"] += 1

    def lines(self) -> list[str]:
        """The report for people."""
        before = f"; {self.shards_before} shards were done before" if self.shards_before else ""
        lines = [
            f"{self.images:,} images in {self.shards} shards: {self.boxes:,} regions, "
            f"{self.boxes / max(1, self.images):.1f} an image, of {len(self.classes):,} classes; "
            f"{self.images / max(1e-9, self.seconds):.1f} images/s{before}"
        ]
        return [*lines, *(f"  {count:,} without regions: {reason}" for reason, count in self.empty.most_common())]


def detect(data: Path, config: DetectConfig, console: Console | None = None) -> Report:
    """Give every image of `data` its regions, going on where an earlier run ended.

    UserError where regions of another detector stand there (both stamps are shown), a process was lost, or the detector
    cannot describe annotated boxes that are asked for.
    """
    records = Shards(data)
    work = _Work(data, config)
    names = [shard["name"] for shard in records.manifest["shards"]]
    for split in config.annotated_splits or ():
        Shards(data, split)  # UserError for one that the data has not
    if config.boxes != "detected":
        check_describes(work.detector)
    done = open_regions(data, config.stamp(work.detector), overwrite=config.overwrite)
    todo = [name for name in names if name not in done]
    report = Report(shards=len(todo), shards_before=len(done))
    groups = [group for group in _plan(records, work.image, config.batch_size) if group.shard in set(todo)]
    start = time.perf_counter()
    with progress_bar(console) as progress, closing(_results(work, groups)) as results:
        before = len(records) - sum(len(group.indices) for group in groups)
        bar = progress.add_task("detect", total=len(records), completed=before, rate="")

        def found(part: Iterator[tuple[str, "_Found"]]) -> Iterator[tuple[str, RegionFeatures]]:
            for _, regions in part:
                for key, one, reason in regions:
                    report.count(one, reason)
                    yield key, one
                rate = f"{report.images / (time.perf_counter() - start):.1f}/s"
                progress.update(bar, completed=before + report.images, rate=rate)

        for shard, part in groupby(results, key=lambda result: result[0]):
            write_region_shard(data, shard, found(part))
    finish_regions(data)
    report.seconds = time.perf_counter() - start
    return report


class _Group(NamedTuple):
    """Records of a shard whose images have one size, computed together."""

    shard: str
    indices: tuple[int, ...]


_Found = list[tuple[str, RegionFeatures, str]]  # key, regions, and why there are none


def _plan(records: Shards, image: ImageConfig, batch_size: int) -> list[_Group]:
    """All groups, shard by shard; in a shard in the order of their first records."""
    sizes = list(zip(records.column("width").tolist(), records.column("height").tolist(), strict=True))
    groups: list[_Group] = []
    first = 0
    for shard in records.manifest["shards"]:
        alike: dict[tuple[int, int], list[int]] = {}
        for index in range(first, first + shard["records"]):
            alike.setdefault(image.shown_size(sizes[index]), []).append(index)
        parts = [tuple(rows[i : i + batch_size]) for rows in alike.values() for i in range(0, len(rows), batch_size)]
        groups += [_Group(shard["name"], part) for part in sorted(parts)]
        first += shard["records"]
    return groups


def _results(work: "_Work", groups: list[_Group]) -> Generator[tuple[str, _Found]]:
    """What was found in each group, in their order."""
    num_processes = work.num_processes(len(groups))
    if num_processes > 1:
        yield from ordered_map(work, groups, num_processes, _lost, time_limit=_PATIENCE, size=_num_bytes)
        return
    indices = (index for group in groups for index in group.indices)
    num_workers = work.config.num_workers if work.device.type == "cuda" else 0
    with _one_thread(work.device), closing(ordered_map(work.decode, indices, num_workers, _crashed)) as decoded:
        for group in groups:
            yield group.shard, work.describe([next(decoded) for _ in group.indices])


class _Decoded(NamedTuple):
    key: str
    pixels: np.ndarray | None
    reason: str = ""
    annotated: np.ndarray | None = None  # the boxes that are described; None: detected ones alone


@dataclass
class _Work:
    """Decodes and describes images; travels to other processes, where it makes a detector of its own."""

    data: Path
    config: DetectConfig

    def __getstate__(self) -> dict[str, Any]:
        return {"data": self.data, "config": self.config}

    @cached_property
    def detector(self) -> Detector:
        """Made once in every process."""
        return self.config.build()

    @cached_property
    def records(self) -> Shards:
        """The data set."""
        return Shards(self.data)

    @cached_property
    def image(self) -> ImageConfig:
        """How images are resized."""
        return self.config.selection().image

    @property
    def device(self) -> torch.device:
        """Of this process."""
        return _device(self.config.device)

    def num_processes(self, most: int) -> int:
        """How many processes detect."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        default = 1 if self.device.type == "cuda" else min(cores, MAX_PROCESSES)
        return max(1, min(self.config.processes or default, most))

    def decode(self, index: int) -> _Decoded:
        """One image as the detector sees it."""
        record = self.records[index]
        try:
            annotated = annotated_boxes(record) if self.config.takes_annotated(record.split) else None
            without = self.config.boxes == "annotated" and annotated is not None and not len(annotated)
            return _Decoded(record.key, eval_image(record, self.image), NO_BOXES if without else "", annotated)
        except ImageError as error:
            return _Decoded(record.key, None, error.reason)

    def describe(self, images: list[_Decoded]) -> _Found:
        """The regions of some images; those of one size are computed together."""
        sizes = dict.fromkeys(image.pixels.shape for image in images if image.pixels is not None)
        found: dict[str, RegionFeatures] = {}
        for size in sizes:
            alike = [image for image in images if image.pixels is not None and image.pixels.shape == size]
            pixels = [torch.from_numpy(image.pixels) for image in alike]
            annotated = [image.annotated for image in alike]
            regions = regions_of_images(self.detector, pixels, annotated, self.config.boxes != "annotated")
            found |= {image.key: one for image, one in zip(alike, regions, strict=True)}
        nothing = RegionFeatures.empty(self.detector.feature_size, self.detector.num_classes)
        return [(image.key, found.get(image.key, nothing), image.reason) for image in images]

    def __call__(self, group: _Group) -> tuple[str, _Found]:
        """One group, in a process that only does this."""
        with _one_thread(self.device):
            return group.shard, self.describe([self.decode(index) for index in group.indices])


def _device(name: str) -> torch.device:
    """Detecting processes share the GPUs out among them by their number."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    identity = multiprocessing.current_process()._identity  # () in the main process
    return torch.device("cuda", (identity[0] - 1 if identity else 0) % max(1, torch.cuda.device_count()))


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """On a CPU sums are split between threads, and rounded accordingly: one thread makes them the same everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if device.type == "cpu" else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _lost(group: _Group, reason: str) -> tuple[str, _Found]:
    raise UserError(
        f"a detecting process was lost in shard {group.shard}, records {group.indices[0]} to {group.indices[-1]} "
        f"({reason.removeprefix('decoder ')}): out of memory? Try fewer processes, or a smaller batch_size"
    )


def _crashed(index: int, reason: str) -> _Decoded:
    raise UserError(f"record {index} cannot be decoded: {reason}; run `crossgrain prepare` again")


def _num_bytes(result: tuple[str, _Found]) -> int:
    return sum(regions.features.nbytes for _, regions, _ in result[1])
