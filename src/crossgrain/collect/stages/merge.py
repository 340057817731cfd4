"""Between pages and images: every image URL once, with all that any page says of it and where it lies, if archived.

A task is a bucket of image URLs. Its rows (one for an image and a text) are bucketed anew for the images stage: what
lies in an archive by its URL, what must be fetched by the registrable domain of its host, so that one task asks a
domain, at its pace; `tasks_per_domain` allows more than one.
"""

import heapq
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from crossgrain.collect.bucketed import Row, bucket_of, read_rows, read_sorted, write_rows
from crossgrain.collect.domains import registrable_domain
from crossgrain.collect.stages.pages import ARCHIVE_COLUMNS, TEXT_COLUMNS
from crossgrain.collect.tasks import IMAGES, TEXTS, Work

MERGED_COLUMNS = {
    **{name: kind for name, kind in TEXT_COLUMNS.items() if name != "candidate"},
    **{name: kind for name, kind in ARCHIVE_COLUMNS.items() if name not in TEXT_COLUMNS},
}


def merge_bucket(
    work: Work, bucket: int, parts: Sequence[Path], archives: Sequence[Path], num_buckets: int, tasks_per_domain: int
) -> None:
    """The task: the rows of one bucket of all parts, grouped by image URL."""
    archived = {}
    for row in read_sorted(archives, bucket, key=_url):
        archived.setdefault(row["image_url"], row)  # the first of the archives has it
    rows: list[Row] = []
    for url, group in groupby(_rows(parts, bucket), key=_url):
        found = list(group)
        at = archived.get(url)
        place = {name: at[name] if at else None for name in ARCHIVE_COLUMNS if name not in TEXT_COLUMNS}
        images_bucket = bucket if at else domain_bucket(url, num_buckets, tasks_per_domain)
        placements = len({(row["part"], row["candidate"]) for row in found})
        distinct = {}
        for row in sorted(found, key=lambda row: (row["text"], row["page_url"], row["kind"], -row["dominant"])):
            distinct.setdefault(row["text"], row)
        work.take(IMAGES, placements)
        work.keep(IMAGES)
        work.drop(IMAGES, {"the same address again": placements - 1})
        work.take(TEXTS, len(found))
        work.keep(TEXTS, len(distinct))
        work.drop(TEXTS, {"the same text of the same image": len(found) - len(distinct)})
        rows += [{**row, **place, "bucket": images_bucket} for row in distinct.values()]
    rows.sort(key=lambda row: (row["bucket"], row["image_url"], row["text"]))
    write_rows(work.create(".parquet"), MERGED_COLUMNS, ({k: row[k] for k in MERGED_COLUMNS} for row in rows))


def domain_bucket(url: str, num_buckets: int, tasks_per_domain: int = 1) -> int:
    """The bucket of the domain that an image must be fetched from."""
    return bucket_of(f"{registrable_domain(url)} {bucket_of(url, tasks_per_domain)}", num_buckets)


def _rows(parts: Sequence[Path], bucket: int) -> Iterator[Row]:
    """The rows of the bucket by image URL, each with the number of the part that it comes from."""
    return heapq.merge(*(_numbered(part, number, bucket) for number, part in enumerate(parts)), key=_url)


def _numbered(part: Path, number: int, bucket: int) -> Iterator[Row]:
    for row in read_rows(part, bucket):
        yield {**row, "part": number}


def _url(row: Row) -> str:
    return row["image_url"]
