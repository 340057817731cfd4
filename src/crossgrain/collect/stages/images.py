"""Stage 2: every image is taken from its archive or fetched, checked, hashed, and kept in a tar; no outcome is lost.

A task is a bucket of image addresses (all of a domain's that must be fetched). It leaves a row for every address with
what became of it, the kept images in a tar, and a row for every kept image and text, bucketed by the image's content.
While it runs, a journal holds what was done, so that a task that was killed asks nobody twice. A part that an earlier
run made with the same rules is reused address by address, whatever else is wanted now.
"""

import contextlib
import hashlib
import json
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from crossgrain.collect.bucketed import Row, bucket_of, read_metadata, read_rows, read_sorted, write_rows
from crossgrain.collect.fetch.config import FetchConfig
from crossgrain.collect.fetch.politeness import Fetched, Request
from crossgrain.collect.fetch.session import fetch_all
from crossgrain.collect.images.blocklist import BLOCKED, Blocklist, load_blocklist
from crossgrain.collect.images.filter import ImageFilter, ImageFilterConfig, bounded_memory
from crossgrain.collect.journal import Journal
from crossgrain.collect.opt_outs import embedded_opt_out
from crossgrain.collect.pages.warc import read_archived
from crossgrain.collect.samples import SIDE, Sample, Samples
from crossgrain.collect.stages.merge import MERGED_COLUMNS
from crossgrain.collect.tasks import IMAGES, TEXTS, Work
from crossgrain.collect.tombstones import REASON, Tombstones
from crossgrain.config import UserError
from crossgrain.data.images import ImageError
from crossgrain.data.records import Dropped
from crossgrain.data.tars import TarWriter, read_member
from crossgrain.data.thumbnails import small_jpeg

RETRY = ".retry"  # a file beside a part with this suffix says: what failed for the moment is tried again
_MAX_MEMORY = 6 * 2**30  # bytes of address space
NOT_ARCHIVED = "in no archive"
CRASHED = "its decoder crashed twice"

_KEPT = {  # of a kept image, with the Arrow type of each
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
    removed: Sequence[tuple[str, str]] = (),
) -> None:
    """The task: every address of the bucket gets an outcome.

    `fetch` is None where nothing shall be fetched. `rules` is a digest of what decides the outcome of an address; what
    was found under it holds in later runs too.
    """
    task = work.task
    tombstones = Tombstones(removed)
    everything = {url: next(rows) for url, rows in groupby(_rows(parts, bucket), key=_url)}
    wanted = {url: row for url, row in everything.items() if not tombstones.blocks(url)}
    work.take(IMAGES, len(everything) - len(wanted))
    work.drop(IMAGES, {REASON: len(everything) - len(wanted)})
    journal = Journal(task.part(""), rules, first_attempt=task.attempt == 1)
    # a worker of the pool, not the process that somebody calls us from
    worker = multiprocessing.parent_process() is not None
    with journal, bounded_memory(_MAX_MEMORY) if worker else contextlib.nullcontext():
        taking = _Taking(work, journal, ImageFilter(images), rules)
        taking.refuse(wanted, load_blocklist(images.blocklist))
        taking.reuse(wanted)
        taking.read_archives(wanted, archives, max_bytes)
        missing = [url for url in wanted if _name(url) not in journal]
        if fetch is None:
            taking.leave(missing)
        else:
            for fetched in fetch_all((Request(url, "image") for url in missing), fetch):
                taking.judge_fetched(fetched)
        journal.commit()
        taking.write(sorted(wanted), _rows(parts, bucket), num_buckets)
    work.after_commit(journal.remove)
    work.after_commit(lambda: task.part(RETRY).unlink(missing_ok=True))


class _Taking:
    """One bucket on its way from addresses to outcomes; the journal holds an entry for each."""

    def __init__(self, work: Work, journal: Journal, images: ImageFilter, rules: str):
        self.work = work
        self.journal = journal
        self.images = images
        self.rules = rules
        self.shown = Samples()

    def refuse(self, wanted: dict[str, Row], blocklist: Blocklist) -> None:
        """Addresses on a block list, which nobody is asked for."""
        for url in wanted:
            if _name(url) not in self.journal and (listed := blocklist.blocks_url(url)):
                self._drop(url, BLOCKED, detail=listed)
        self.journal.commit()

    def reuse(self, wanted: dict[str, Row]) -> None:
        """Take over what an earlier run found out under the same rules, save what shall be tried again."""
        status, tar = self.work.task.part(".parquet"), self.work.task.part(".tar")
        again = self.work.task.part(RETRY).exists()
        if not tar.exists() or read_metadata(status).get("rules") != self.rules:
            return
        for row in read_rows(status):
            url = row.pop("image_url")
            if url not in wanted or _name(url) in self.journal or (row["transient"] and again):
                continue
            offset, size = row.pop("tar_offset"), row.pop("tar_size")
            try:
                data = b"" if row["reason"] else read_member(tar, offset, size, "crossgrain collect")
            except UserError:  # the part was being replaced when its run was killed
                continue
            if row["reason"] or hashlib.sha256(data).hexdigest() == row.pop("kept_sha256"):
                self.journal.add(_name(url), row, data)
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
            self._judge(url, data, 0, ("embedded",))
        self.journal.commit()

    def leave(self, urls: Sequence[str]) -> None:
        """Images that would have to be fetched, where the recipe asks nobody."""
        for url in urls:
            self._drop(url, NOT_ARCHIVED)

    def judge_fetched(self, fetched: Fetched) -> None:
        """What a host answered."""
        url = fetched.request.url
        if fetched.data is None:
            seen = {
                "status": fetched.status,
                "detail": fetched.detail,
                "opt_outs_checked": json.dumps([*fetched.evidence]),
            }
            self._drop(url, fetched.reason, transient=fetched.transient, **seen)
        else:
            self._judge(url, fetched.data, fetched.status, (*fetched.evidence, "embedded"))

    def _judge(self, url: str, data: bytes, status: int, checked: Sequence[str]) -> None:
        """Opt-outs in the file, then everything about the image."""
        seen = {"status": status, "opt_outs_checked": json.dumps([*dict.fromkeys(checked)])}
        name = _name(url)
        if self.journal.strikes(name) >= 2:
            self._drop(url, CRASHED, **seen)
            return
        self.journal.begin(name)
        if opted_out := embedded_opt_out(data):
            self._drop(url, opted_out, **seen)
            return
        found = self.images.check(data)
        if isinstance(found, Dropped):
            self._drop(url, found.reason, data, detail=found.detail, **seen)
        else:
            entry = {column: getattr(found, column) for column in _KEPT}
            self.journal.add(name, {**_outcome(), **entry, **seen}, found.data)

    def _drop(self, url: str, reason: str, data: bytes = b"", **seen: Any) -> None:
        """An entry for what is not kept, with a small picture where it may become an example."""
        blocked = reason == BLOCKED
        picture = b"" if blocked else self._picture(url, reason, data)
        self.journal.add(_name(url), {**_outcome(), "reason": reason, **seen}, picture)

    def _picture(self, url: str, reason: str, data: bytes) -> bytes:
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
                    status["image_url"] = f"sha256:{hashlib.sha256(url.encode()).hexdigest()}"
            else:
                offset = tar.add(f"{_name(url)}.{entry['extension']}", data)
                status |= {"tar_offset": offset, "tar_size": len(data), "kept_sha256": hashlib.sha256(data).hexdigest()}
                kept[url] = status
                self.work.keep(IMAGES)
            statuses.append(status)
        tar.finish()
        write_rows(self.work.create(".parquet"), STATUS_COLUMNS, statuses, rules=self.rules)
        tar_name = self.work.task.part(".tar").name
        write_rows(self.work.create(".pairs.parquet"), PAIR_COLUMNS, self._pairs(rows, kept, tar_name, num_buckets))
        self.work.facts["num_transient"] = sum(bool(status["transient"]) for status in statuses)

    def _account_for(self, url: str, entry: Row, picture: bytes) -> None:
        reason = entry["reason"]
        self.work.drop(IMAGES, reason)
        if reason != BLOCKED:
            what = {"image_url": url, "detail": entry["detail"], "picture": picture}
            self.work.samples.add(Sample(stage=self.work.task.stage, reason=reason, **what))

    def _pairs(self, rows: Iterator[Row], kept: dict[str, Row], tar: str, num_buckets: int) -> list[Row]:
        pairs = []
        for row in rows:
            self.work.take(TEXTS)
            image = kept.get(row["image_url"])
            if image is None:
                self.work.drop(TEXTS, "its image was dropped")
                continue
            self.work.keep(TEXTS)
            bucket = bucket_of(image["sha256"], num_buckets)
            pairs.append({**row, **{k: image[k] for k in PAIR_COLUMNS if k in image}, "tar": tar, "bucket": bucket})
        pairs.sort(key=lambda row: (row["bucket"], row["sha256"], row["image_url"], row["text"]))
        return [{name: row[name] for name in PAIR_COLUMNS} for row in pairs]


def _outcome() -> Row:
    return {"reason": "", "detail": "", "transient": False, "status": 0, "opt_outs_checked": "[]"}


def _rows(parts: Sequence[Path], bucket: int) -> Iterator[Row]:
    return read_sorted(parts, bucket, key=_url)


def _url(row: Row) -> str:
    return row["image_url"]


def _name(url: str) -> str:
    """What an address is called in the journal and the tar: a hash, for nothing may name what a block list matches."""
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:32]
