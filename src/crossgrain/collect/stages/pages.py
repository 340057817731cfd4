"""Stage 1 and 3: pages to candidates with clean texts, bucketed by image URL; and where images lie in the archives.

A task is one input shard (a WARC, a part of a folder or of a table). It leaves two tables: a row for every clean text
of every candidate, and a row for every image in the archive.
"""

import contextlib
import multiprocessing
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from crossgrain.collect.bucketed import Row, bucket_of, write_rows
from crossgrain.collect.candidates import ArchivedImage, Candidate, Page, PageText
from crossgrain.collect.fetch.config import FetchConfig
from crossgrain.collect.images.filter import bounded_memory
from crossgrain.collect.pages.html import PageConfig, find_candidates
from crossgrain.collect.pages.inputs import InputShard, read_pages
from crossgrain.collect.sentences import Cleaner, SentenceConfig
from crossgrain.collect.tasks import IMAGES, PAGES, TEXTS, Work
from crossgrain.data.records import Dropped

_MAX_MEMORY = 6 * 2**30  # bytes of address space: a parser makes gigabytes of some pages of a few kB
NOTHING_CLEAN = "no text is left after cleaning"

TEXT_COLUMNS = {
    "bucket": "int32",
    "image_url": "string",
    "page_url": "string",
    "text": "string",
    "kind": "string",
    "language": "string",
    "language_score": "float32",
    "licence": "string",
    "dominant": "float32",
    "candidate": "int64",  # its number in the input shard
}
ARCHIVE_COLUMNS = {
    "bucket": "int32",
    "image_url": "string",
    "archive": "string",  # the input shard that it is
    "archive_offset": "int64",
    "archive_size": "int64",
}


def read_shard(
    work: Work,
    shard: InputShard,
    pages: PageConfig,
    sentences: SentenceConfig,
    fetch: FetchConfig,
    num_buckets: int,
) -> None:
    """The task: read pages, find candidates, clean their texts."""
    reading = _Reading(work, pages, sentences, fetch.tokens(), num_buckets)
    # a worker of the pool, not the process that somebody calls us from
    worker = multiprocessing.parent_process() is not None
    with bounded_memory(_MAX_MEMORY) if worker else contextlib.nullcontext():
        for found in read_pages(shard, fetch):
            reading.take(found, shard)
    reading.texts.sort(key=lambda row: (row["bucket"], row["image_url"], row["page_url"], row["candidate"]))
    reading.archived.sort(key=lambda row: (row["bucket"], row["image_url"], row["archive_offset"]))
    write_rows(work.create(".parquet"), TEXT_COLUMNS, reading.texts)
    write_rows(work.create(".archive.parquet"), ARCHIVE_COLUMNS, reading.archived)


class _Reading:
    """The rows of one input shard, as they are found."""

    def __init__(
        self, work: Work, pages: PageConfig, sentences: SentenceConfig, tokens: Collection[str], num_buckets: int
    ):
        self.work = work
        self.config, self.tokens = pages, tokens
        self.cleaner = Cleaner(sentences)
        self.num_buckets = num_buckets
        self.texts: list[Row] = []
        self.archived: list[Row] = []
        self._candidates = 0

    def take(self, found: Page | ArchivedImage | Candidate | Dropped, shard: InputShard) -> None:
        """One thing of an input shard."""
        if isinstance(found, ArchivedImage):
            self.archived.append(
                {
                    "bucket": bucket_of(found.url, self.num_buckets),
                    "image_url": found.url,
                    "archive": shard.id,
                    "archive_offset": found.offset,
                    "archive_size": found.size,
                }
            )
            return
        self.work.take(PAGES)
        if isinstance(found, Dropped):
            self.work.drop(PAGES, found.reason)
            self.work.show(found.reason, page_url=_writable(found.where), detail=_writable(found.detail))
        elif isinstance(found, Candidate):
            self._clean(found.page_url, [found], 1, Counter())
        else:
            self._page(found)

    def _page(self, page: Page) -> None:
        found = find_candidates(page, self.config, self.tokens)
        if found.opted_out:
            self.work.take(IMAGES, found.num_images)
            self.work.drop(IMAGES, found.dropped)
            self._drop_page(found.opted_out, page.url)
            return
        for reason in found.dropped:
            self.work.show(reason, page_url=page.url)
        self._clean(page.url, found.candidates, found.num_images, found.dropped)

    def _clean(self, page_url: str, candidates: Sequence[Candidate], num_images: int, dropped: Counter[str]) -> None:
        """Clean the texts of a page's candidates; what keeps one becomes rows."""
        self.work.take(IMAGES, num_images)
        self.work.drop(IMAGES, dropped)
        kept = sum(self._candidate(candidate) for candidate in candidates)
        self.work.keep(IMAGES, kept)
        if kept:
            self.work.keep(PAGES)
        else:
            self._drop_page("no image with a usable text" if num_images else "no image", page_url)

    def _candidate(self, candidate: Candidate) -> bool:
        clean, dropped = self.cleaner.clean(candidate.texts, candidate.page_language)
        self.work.take(TEXTS, len(candidate.texts))
        self.work.keep(TEXTS, len(clean))
        self.work.drop(TEXTS, dropped)
        self._show_dropped(candidate, candidate.texts, {text.kind for text in clean}, dropped)
        if not clean:
            self.work.drop(IMAGES, NOTHING_CLEAN)
            return False
        about = {
            "bucket": bucket_of(candidate.image_url, self.num_buckets),
            "image_url": candidate.image_url,
            "page_url": candidate.page_url,
            "licence": candidate.licence,
            "dominant": candidate.placement.dominant,
            "candidate": self._candidates,
        }
        self.texts += [{**about, **_text_row(text)} for text in clean]
        self._candidates += 1
        return True

    def _show_dropped(
        self, candidate: Candidate, texts: Sequence[PageText], kept: set[str], dropped: Counter[str]
    ) -> None:
        """Examples of dropped texts, where it is plain which text the reason is about."""
        lost = [text for text in texts if text.kind not in kept]
        if len(dropped) == 1 and len(lost) == dropped.total():
            (reason,) = dropped
            self.work.show(reason, text=lost[0].text, image_url=candidate.image_url, page_url=candidate.page_url)

    def _drop_page(self, reason: str, url: str) -> None:
        self.work.drop(PAGES, reason)
        self.work.show(reason, page_url=url)


def _writable(text: str) -> str:
    """Without what names of files have where they are no UTF-8."""
    return text.encode("utf-8", "replace").decode()


def _text_row(text: Any) -> Row:
    return {
        "text": text.text,
        "kind": text.kind,
        "language": text.language,
        "language_score": text.language_score,
    }
