"""What else of a collection knows a picture that was taken down: its intermediate files, examples and account."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from crossgrain.collect.bucketed import read_rows
from crossgrain.collect.funnel import FUNNEL, FunnelRow, read_funnel, write_funnel
from crossgrain.collect.samples import Sample, read_samples, write_samples
from crossgrain.collect.stages.images import blank
from crossgrain.collect.tombstones import REASON, Seen, Tombstones
from crossgrain.data.manifest import read_manifest

STAGE = "takedown"
_KNOWN = ("image_url", "sha256", "md5", "phash")

Entry = tuple[str, str]


def pictures_at(run: Path, wanted: Tombstones) -> dict[Entry, Entry]:
    """The hashes of all pictures at the URLs of a list, and on the pages at them, each with the entry of its URL.

    Aggregation keeps one address and one page of a picture; that it has others is known to these files alone.
    """
    urls = Tombstones(entry for entry in wanted.entries if entry[0] == "url")
    if not urls:
        return {}
    shown: dict[str, Entry] = {}
    for table in sorted((run / "work" / "pages").glob("part-*.parquet")):
        for row in read_rows(table, columns=("image_url", "page_url")):
            if entry := urls.match(Seen(page_url=row.get("page_url", ""))):  # a table of archived images has no pages
                shown[row["image_url"]] = entry
    found: dict[Entry, Entry] = {}
    for table in _tables(run):
        for row in read_rows(table, columns=_KNOWN):
            entry = urls.match(Seen(image_url=row["image_url"])) or shown.get(row["image_url"])
            if entry and row["phash"] is not None:
                found["sha256", row["sha256"]] = found["phash", f"{row['phash']:016x}"] = entry
    return found


def forget(run: Path, tombstones: Tombstones, removed: Iterable[str] = ()) -> None:
    """Blank the pictures in work/, leave them out of the examples, and say in the account that records were removed.

    `removed` are image addresses of records that were. All of it may be done again.
    """
    gone = {*removed, *(url for table in _tables(run) for url in _gone(table, tombstones))}
    for tar in sorted((run / "work" / "images").rglob("part-*.tar")):
        blank(tar, gone)
    halves = [*run.glob("work/images/part-*.journal.*"), *run.glob("work/*/.tmp-part-*"), *run.glob("shards/.tmp-*")]
    for file in halves:  # of tasks that were killed; they begin anew
        file.unlink()
    for file in sorted([*run.glob("samples/*.jsonl"), *run.glob("work/*/part-*.samples.jsonl")]):
        samples = read_samples(file)
        kept = [one for one in samples if one.image_url not in gone and tombstones.match(_seen(one)) is None]
        if len(kept) < len(samples):
            write_samples(file, kept)
    _account_for(run)


def _tables(run: Path) -> list[Path]:
    """The outcomes of the images stage."""
    tables = sorted((run / "work" / "images").rglob("part-*.parquet"))
    return [table for table in tables if not table.name.endswith(".pairs.parquet")]


def _gone(table: Path, tombstones: Tombstones) -> Iterator[str]:
    """The addresses in a part that are taken down."""
    unwanted = _unwanted(table.with_suffix(".pairs.parquet"), tombstones)
    for row in read_rows(table, columns=_KNOWN):
        seen = Seen(image_url=row["image_url"], hashes=(row["sha256"] or "", row["md5"] or ""), phash=row["phash"])
        if row["image_url"] in unwanted or tombstones.match(seen) is not None:
            yield row["image_url"]


def _unwanted(pairs: Path, tombstones: Tombstones) -> set[str]:
    """The images of a part of which every page was taken down."""
    if not pairs.exists():
        return set()
    rows = groupby(read_rows(pairs, columns=("image_url", "page_url")), key=lambda row: row["image_url"])
    return {
        url for url, shown in rows if all(tombstones.match(Seen(page_url=row["page_url"])) is not None for row in shown)
    }


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
