"""What else of a collection holds a picture that was taken down: its intermediate files, examples and account."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crossgrain.collect.bucketed import read_rows
from crossgrain.collect.funnel import FUNNEL, FunnelRow, read_funnel, write_funnel
from crossgrain.collect.samples import Sample, read_samples, write_samples
from crossgrain.collect.tombstones import REASON, Seen, Tombstones
from crossgrain.data.manifest import read_manifest

STAGE = "takedown"
_COLUMNS = ("image_url", "sha256", "md5", "phash", "tar_offset", "tar_size")


def forget(run: Path, tombstones: Tombstones) -> None:
    """Blank the pictures in work/, leave them out of the examples, and say in the account that records were removed.

    All of it may be done again.
    """
    for table in sorted((run / "work" / "images").glob("part-*.parquet")):
        if not table.name.endswith(".pairs.parquet") and table.with_suffix(".tar").exists():
            _blank(table, tombstones)
    for file in (run / "work" / "images").glob("part-*.journal.*"):  # of a task that was killed; it begins anew
        file.unlink()
    for file in sorted([*run.glob("samples/*.jsonl"), *run.glob("work/*/part-*.samples.jsonl")]):
        samples = read_samples(file)
        kept = [sample for sample in samples if tombstones.match(_seen(sample)) is None]
        if len(kept) < len(samples):
            write_samples(file, kept)
    _account_for(run)


def _blank(table: Path, tombstones: Tombstones) -> None:
    """Overwrite pictures in the tar of a part: it keeps its size, so nothing is fetched again on their account."""
    places = list(_places(table, tombstones))
    if not places:
        return
    with table.with_suffix(".tar").open("r+b") as tar:
        for offset, size in places:
            tar.seek(offset)
            tar.write(bytes(size))
        tar.flush()
        os.fsync(tar.fileno())


def _places(table: Path, tombstones: Tombstones) -> Iterator[tuple[int, int]]:
    for row in read_rows(table, columns=_COLUMNS):
        if row["tar_size"] and tombstones.match(_seen_row(row)) is not None:
            yield row["tar_offset"], row["tar_size"]


def _seen_row(row: dict[str, Any]) -> Seen:
    return Seen(image_url=row["image_url"], hashes=(row["sha256"] or "", row["md5"] or ""), phash=row["phash"])


def _seen(sample: Sample) -> Seen:
    return Seen(image_url=sample.image_url, page_url=sample.page_url, hashes=(sample.sha256,))


def _account_for(run: Path) -> None:
    """The last row of the funnel: how many of the records that the run ended with are there still."""
    file = run / FUNNEL
    if not file.is_file():
        return
    rows = [row for row in read_funnel(file) if row.stage != STAGE]
    left = sum(shard["records"] for shard in read_manifest(run / "shards")["shards"])
    if rows and rows[-1].num_out > left:
        before = rows[-1].num_out
        lost = {REASON: before - left}
        write_funnel(
            file, [*rows, FunnelRow(stage=STAGE, unit=rows[-1].unit, num_in=before, num_out=left, dropped=lost)]
        )
