"""Stage 2: every image is taken from its archive or fetched, checked, hashed, and kept in a tar; no outcome is lost.

A task is a bucket of image addresses (all of a domain's that must be fetched). It leaves a row for every address with
what became of it, the kept images in a tar, and a row for every kept image and text, bucketed by the image's content.
While it runs, a journal holds what was done, so that a task that was killed asks nobody twice. What an earlier run
found out with the same rules from the address itself is reused, whatever else is wanted now; what it read from an
archive is read again, for the archive may have changed.
"""

import contextlib
import hashlib
import json
import multiprocessing
import os
import tarfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from crossgrain.collect.bucketed import Row, bucket_of, read_metadata, read_rows, read_sorted, write_rows
from crossgrain.collect.fetch.config import FetchConfig
from crossgrain.collect.fetch.politeness import Fetched, Request
from crossgrain.collect.fetch.session import fetch_all
from crossgrain.collect.images.blocklist import BLOCKED, Blocklist, load_blocklist
from crossgrain.collect.images.filter import (
    UNNATURAL,
    UNSAFE,
    ImageFilter,
    ImageFilterConfig,
    KeptImage,
    bounded_memory,
)
from crossgrain.collect.journal import Journal
from crossgrain.collect.opt_outs import embedded_opt_out
from crossgrain.collect.pages.warc import read_archived
from crossgrain.collect.samples import SIDE, Sample, Samples
from crossgrain.collect.stages.merge import MERGED_COLUMNS
from crossgrain.collect.tasks import IMAGES, TEXTS, Work
from crossgrain.collect.tombstones import REASON, Seen, Tombstones
from crossgrain.config import UserError
from crossgrain.data.images import ImageError
from crossgrain.data.records import Dropped
from crossgrain.data.tars import TarWriter, read_member
from crossgrain.data.thumbnails import small_jpeg

RETRY = ".retry"  # a file beside a part with this suffix says: what failed for the moment is tried again
EARLIER = "earlier"  # a folder of the stage: parts that cut the addresses into tasks in another way
_MAX_MEMORY = 6 * 2**30  # bytes of address space
NOT_ARCHIVED = "in no archive"
CRASHED = "its decoder crashed twice"
# Drops whose picture may be shown: their header was read to its end, and promised an image of bounded cost.
_DECODABLE = frozenset(("too few bytes", "too small", "extreme aspect ratio", UNNATURAL, UNSAFE))
_EMBEDDED = json.dumps(["embedded"])  # what can be checked of an image that lies in an archive
_HIDDEN = "sha256:"  # opens what stands for an address on a block list

_KEPT = {  # of a kept image, with the Arrow type of each; the hashes also of one that was taken down
    "sha256": "string",
    "md5": "string",
    "phash": "uint64",
    "mirrored_phash": "uint64",
    "width": "int32",
    "height": "int32",
    "extension": "string",
    "natural": "float32",
    "unsafe": "float32",
}
_PLACE = {"tar_offset": "int64", "tar_size": "int64"}  # of the kept file, which may be encoded anew
STATUS_COLUMNS = {
    "image_url": "string",
    "reason": "string",  # empty: kept
    "detail": "string",
    "transient": "bool_",
    "status": "int32",  # of HTTP; 0 where no answer was had or needed
    "fetched": "bool_",  # or refused by whoever would be asked; not: read from an archive
    "opt_outs_checked": "string",  # a JSON list
    **_KEPT,
    **_PLACE,
    "kept_sha256": "string",
}
PAIR_COLUMNS = {
    **{name: kind for name, kind in MERGED_COLUMNS.items() if not name.startswith("archive")},
    "opt_outs_checked": "string",
    **_KEPT,
    "tar": "string",
    **_PLACE,
}


def take_images(
    work: Work,
    bucket: int,
    parts: Sequence[Path],
    archives: Mapping[str, Path],
    fetch: FetchConfig | None,
    max_bytes: int,
    images: ImageFilterConfig,
    num_buckets: int,
    rules: str,
    layout: str = "",
    removed: Sequence[tuple[str, str]] = (),
) -> None:
    """The task: every address of the bucket gets an outcome.

    `fetch` is None where nothing shall be fetched. `rules` is a digest of what decides the outcome of an address; what
    was found under it holds in later runs too. `layout` says how addresses are cut into tasks.
    """
    task = work.task
    tombstones = Tombstones(removed)
    wanted, num_removed = {}, 0
    for url, rows in groupby(_rows(parts, bucket), key=_url):
        if row := next((row for row in rows if not tombstones.blocks(url, page_url=row["page_url"])), None):
            wanted[url] = row
        else:
            num_removed += 1
    work.take(IMAGES, num_removed)
    work.drop(IMAGES, {REASON: num_removed})
    journal = Journal(task.part(""), rules, first_attempt=task.attempt == 1)
    # a worker of the pool, not the process that somebody calls us from
    worker = multiprocessing.parent_process() is not None
    with journal, bounded_memory(_MAX_MEMORY) if worker else contextlib.nullcontext():
        blocklist = load_blocklist(images.blocklist)
        taking = _Taking(work, journal, ImageFilter(images), blocklist, rules, layout, tombstones)
        taking.refuse(wanted)
        names = {_name(url): url for url, row in wanted.items() if row["archive"] is None}
        for part in [task.part(".parquet"), *sorted((task.folder / EARLIER).glob("*/part-*.parquet"))]:
            taking.reuse(part, names)
        taking.read_archives(wanted, archives, max_bytes)
        missing = [url for url in wanted if _name(url) not in journal]
        if fetch is None:
            taking.leave(missing)
        else:
            for fetched in fetch_all((Request(url, "image") for url in missing), fetch, blocklist=blocklist):
                taking.judge_fetched(fetched)
        journal.commit()
        taking.write(sorted(wanted), _rows(parts, bucket), num_buckets)
    work.after_commit(journal.remove)
    work.after_commit(lambda: task.part(RETRY).unlink(missing_ok=True))


class _Taking:
    """One bucket on its way from addresses to outcomes; the journal holds an entry for each."""

    def __init__(
        self,
        work: Work,
        journal: Journal,
        images: ImageFilter,
        blocklist: Blocklist,
        rules: str,
        layout: str,
        removed: Tombstones,
    ):
        self.work = work
        self.journal = journal
        self.images = images
        self.blocklist = blocklist
        self.rules = rules
        self.layout = layout
        self.removed = removed
        self.shown = Samples()
        # What was read from an archive, or was in none, holds for the same archives only.
        for name, entry in [*journal.entries.items()]:
            if not entry.get("fetched") and entry.get("task") != work.task.fingerprint:
                del journal.entries[name]

    def refuse(self, wanted: dict[str, Row]) -> None:
        """Addresses on a block list, which nobody is asked for."""
        for url in wanted:
            if _name(url) not in self.journal and (listed := self.blocklist.blocks_url(url)):
                self._drop(url, BLOCKED, detail=listed)
        self.journal.commit()

    def reuse(self, part: Path, names: Mapping[str, str]) -> None:
        """Take over what an earlier run was answered under the same rules, save what shall be tried again.

        `names`: the addresses that are wanted, by what each is called.
        """
        tar = part.with_suffix(".tar")
        if not tar.exists() or read_metadata(part).get("rules") != self.rules:
            return
        again = part.with_suffix(RETRY).exists()
        for row in read_rows(part):
            name = _name_of(row.pop("image_url"))
            if name not in names or name in self.journal or not row.get("fetched") or (row["transient"] and again):
                continue
            offset, size, sha256 = (row.pop(column) for column in (*_PLACE, "kept_sha256"))
            if self._taken_down(names[name], row):
                self.journal.add(name, {**row, "reason": REASON})
            elif row["reason"]:
                if row["reason"] != REASON:  # otherwise the list of take-downs has lost an entry
                    self.journal.add(name, row)
            elif data := _intact(tar, offset, size, sha256):
                self.journal.add(name, row, data)
        self.journal.commit()

    def read_archives(self, wanted: dict[str, Row], archives: Mapping[str, Path], max_bytes: int) -> None:
        """Images that lie in an archive of the run."""
        for url, row in wanted.items():
            if row["archive"] is None or _name(url) in self.journal:
                continue
            try:
                data = read_archived(archives[row["archive"]], row["archive_offset"], max_bytes)
            except (OSError, ValueError) as error:
                self._drop(url, "archived image cannot be read", detail=str(error)[:200])
                continue
            if listed := self.blocklist.blocks_file(data):
                self._drop(url, BLOCKED, detail=listed)
            elif opted_out := embedded_opt_out(data):
                self._drop(url, opted_out, opt_outs_checked=_EMBEDDED)
            else:
                self._judge(url, data, opt_outs_checked=_EMBEDDED)
        self.journal.commit()

    def leave(self, urls: Sequence[str]) -> None:
        """Images that would have to be fetched, where the recipe asks nobody."""
        for url in urls:
            self._drop(url, NOT_ARCHIVED)

    def judge_fetched(self, fetched: Fetched) -> None:
        """What a host answered; the fetcher has asked the block list and looked for opt-outs."""
        url, checked = fetched.request.url, json.dumps([*fetched.evidence])
        seen: Row = {"status": fetched.status, "fetched": True, "opt_outs_checked": checked}
        if fetched.data is None:
            self._drop(url, fetched.reason, transient=fetched.transient, detail=fetched.detail, **seen)
        else:
            self._judge(url, fetched.data, **seen)

    def _judge(self, url: str, data: bytes, **seen: Any) -> None:
        """Everything about an image that nobody has forbidden."""
        name = _name(url)
        if self.journal.strikes(name) >= 2:
            self._drop(url, CRASHED, **seen)
            return
        self.journal.begin(name)
        found = self.images.check(data)
        if self.removed and self._taken_down(url, hashes := _hashes(data, found)):
            self._drop(url, REASON, **hashes, **seen)
        elif isinstance(found, Dropped):
            self._drop(url, found.reason, data, detail=found.detail, **seen)
        else:
            entry = {column: getattr(found, column) for column in _KEPT}
            self._add(url, {**entry, **seen}, found.data)

    def _taken_down(self, url: str, hashes: Row) -> bool:
        known = (hashes["sha256"] or "", hashes["md5"] or "")
        return self.removed.match(Seen(image_url=url, hashes=known, phash=hashes["phash"])) is not None

    def _drop(self, url: str, reason: str, data: bytes = b"", **seen: Any) -> None:
        """An entry for what is not kept, with a small picture where it may become an example."""
        self._add(url, {"reason": reason, **seen}, self._picture(url, reason, data))

    def _add(self, url: str, entry: Row, data: bytes) -> None:
        self.journal.add(_name(url), {**_outcome(), "task": self.work.task.fingerprint, **entry}, data)

    def _picture(self, url: str, reason: str, data: bytes) -> bytes:
        if reason not in _DECODABLE:
            return b""
        chosen: list[bytes] = []
        sample = Sample(stage=self.work.task.stage, reason=reason, image_url=url)
        self.shown.add(sample, lambda: chosen.append(data) or b"")
        try:
            return small_jpeg(data, SIDE)[0] if data and chosen else b""
        except ImageError:
            return b""

    def write(self, urls: Sequence[str], rows: Iterator[Row], num_buckets: int) -> None:
        """All outcomes to the part's files, in the order of the addresses."""
        tar_path, kept = self.work.create(".tar"), {}
        tar, statuses = TarWriter(tar_path), []
        for url in urls:
            entry = self.journal.entries[_name(url)]
            data = self.journal.data(_name(url))
            status = {**{name: entry.get(name) for name in STATUS_COLUMNS}, "image_url": url}
            self.work.take(IMAGES)
            if entry["reason"]:
                self._account_for(url, entry, data)
                if entry["reason"] == BLOCKED:
                    status["image_url"] = f"{_HIDDEN}{_digest(url)}"
            else:
                offset = tar.add(f"{_name(url)}.{entry['extension']}", data)
                status |= {"tar_offset": offset, "tar_size": len(data), "kept_sha256": hashlib.sha256(data).hexdigest()}
                kept[url] = status
                self.work.keep(IMAGES)
            statuses.append(status)
        tar.finish()
        write_rows(self.work.create(".parquet"), STATUS_COLUMNS, statuses, rules=self.rules, layout=self.layout)
        tar_name = self.work.task.part(".tar").name
        write_rows(self.work.create(".pairs.parquet"), PAIR_COLUMNS, self._pairs(rows, kept, tar_name, num_buckets))
        self.work.facts["num_transient"] = sum(bool(status["transient"]) for status in statuses)

    def _account_for(self, url: str, entry: Row, picture: bytes) -> None:
        reason = entry["reason"]
        self.work.drop(IMAGES, reason)
        if reason not in (BLOCKED, REASON):
            what = {"image_url": url, "detail": entry["detail"], "picture": picture}
            self.work.samples.add(Sample(stage=self.work.task.stage, reason=reason, **what))

    def _pairs(self, rows: Iterator[Row], kept: dict[str, Row], tar: str, num_buckets: int) -> list[Row]:
        pairs = []
        for row in rows:
            self.work.take(TEXTS)
            image = kept.get(row["image_url"])
            if image is None or self.removed.blocks("", page_url=row["page_url"]):
                self.work.drop(TEXTS, REASON if image else "its image was dropped")
                continue
            self.work.keep(TEXTS)
            bucket = bucket_of(image["sha256"], num_buckets)
            pairs.append({**row, **{k: image[k] for k in PAIR_COLUMNS if k in image}, "tar": tar, "bucket": bucket})
        pairs.sort(key=lambda row: (row["bucket"], row["sha256"], row["image_url"], row["text"]))
        return [{name: row[name] for name in PAIR_COLUMNS} for row in pairs]


def set_aside(folder: Path, rules: str, layout: str, done: Collection[str]) -> None:
    """Move parts that cut the addresses in another way to where every task looks: any of them may want what they hold.

    Parts of `done` shards stay, and so do those of other rules, which are of no use to any.
    """
    for part in sorted(folder.glob("part-*.parquet")):
        told = read_metadata(part)
        shard = part.name.removeprefix("part-").partition(".")[0]
        if shard in done or told.get("rules") != rules or told.get("layout") in (None, layout):
            continue
        shelf = folder / EARLIER / told["layout"]
        shelf.mkdir(parents=True, exist_ok=True)
        for suffix in (".tar", RETRY, ".pairs.parquet", ".parquet"):  # last what says that there is a part
            with contextlib.suppress(FileNotFoundError):
                part.with_suffix(suffix).replace(shelf / f"part-{shard}{suffix}")


def blank(tar: Path, urls: Iterable[str]) -> None:
    """Overwrite the images of some addresses in the tar of a part, which keeps its size.

    They are found by their names in it: its table may be that of another tar, where a run was killed between the two.
    """
    names = {_name(url) for url in urls}
    with tarfile.open(tar, "r:") as members:
        places = [(one.offset_data, one.size) for one in members if one.name.partition(".")[0] in names]
    if places:
        with tar.open("r+b") as file:
            for offset, size in places:
                file.seek(offset)
                file.write(bytes(size))
            file.flush()
            os.fsync(file.fileno())


def _outcome() -> Row:
    return {"reason": "", "detail": "", "transient": False, "status": 0, "fetched": False, "opt_outs_checked": "[]"}


def _hashes(data: bytes, found: KeptImage | Dropped) -> dict[str, Any]:
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    phash = None if isinstance(found, Dropped) else found.phash
    return {"sha256": hashlib.sha256(data).hexdigest(), "md5": md5, "phash": phash}


def _intact(tar: Path, offset: int, size: int, sha256: str) -> bytes:
    """A kept file; empty where the part was being replaced when its run was killed, or was overwritten."""
    try:
        data = read_member(tar, offset, size, "crossgrain collect")
    except UserError:
        return b""
    return data if hashlib.sha256(data).hexdigest() == sha256 else b""


def _rows(parts: Sequence[Path], bucket: int) -> Iterator[Row]:
    return read_sorted(parts, bucket, key=_url)


def _url(row: Row) -> str:
    return row["image_url"]


def _digest(url: str) -> str:
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()


def _name(url: str) -> str:
    """What an address is called in the journal and the tar: a hash, for nothing may name what a block list matches."""
    return _digest(url)[:32]


def _name_of(stored: str) -> str:
    """The name of an address as a part has it."""
    return stored.removeprefix(_HIDDEN)[:32] if stored.startswith(_HIDDEN) else _name(stored)
