"""The engine of `crossgrain prepare`: a known layout becomes shards, a vocabulary and a report of every drop."""

import argparse
import hashlib
import json
import os
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain
from operator import length_hint
from pathlib import Path
from typing import Any

from rich.console import Console

from crossgrain.config import UserError
from crossgrain.data.drops import Drops
from crossgrain.data.intake import Checked, check, place
from crossgrain.data.pool import ordered_map
from crossgrain.data.progress import progress_bar
from crossgrain.data.records import Dropped, Item, Record
from crossgrain.data.sets import DATASETS
from crossgrain.data.sets.arguments import VOCAB_SIZE
from crossgrain.data.sets.official import counts, official_lines, official_sizes, task_texts
from crossgrain.data.sets.pictures import is_split_name
from crossgrain.data.shards import ShardWriter

REPORT = "validation.json"
VOCAB = "vocab.txt"
_LEAST = {"limit": 1, "vocab size": 7}  # the special tokens, and a letter where a word begins and within it
_REGION = "region: "  # opens the reasons that cost a region and not its image


@dataclass
class Report(Drops):
    """What became of a data set; `validation.json` holds it."""

    source: str
    kept: int = 0
    kept_by_split: Counter[str] = field(default_factory=Counter)
    captions: int = 0
    regions: int = 0
    counts_by_split: dict[str, Counter[str]] = field(default_factory=dict)  # images and all that is said about them
    official: dict[str, dict[str, Any]] = field(default_factory=dict)  # published counts and their source, by split
    vocabulary: int = 0  # words, 0 without
    notes: list[str] = field(default_factory=list)  # of what the source did behind the shards, for people

    def keep(self, record: Record) -> None:
        """Count a record that went into a shard."""
        self.kept += 1
        self.kept_by_split[record.split] += 1
        self.captions += len(record.captions)
        self.regions += len(record.regions)
        self.counts_by_split.setdefault(record.split, Counter()).update(counts(record))

    @property
    def num_dropped(self) -> int:
        """Records and captions that were dropped; regions count apart."""
        return sum(count for reason, count in self.dropped.items() if not reason.startswith(_REGION))

    @property
    def num_dropped_regions(self) -> int:
        """Regions that were dropped from images that were kept."""
        return self.dropped.total() - self.num_dropped

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values, the same for the same data."""
        values = asdict(self)
        del values["notes"]
        values["kept_by_split"] = dict(sorted(self.kept_by_split.items()))
        values["counts_by_split"] = {split: dict(found) for split, found in sorted(self.counts_by_split.items())}
        values["dropped"] = self.sorted_drops()
        return {**values, "num_dropped": self.num_dropped, "num_dropped_regions": self.num_dropped_regions}

    def lines(self) -> list[str]:
        """The report for people: what was kept, beside what is published, then every reason with its first case."""
        splits = ", ".join(f"{split} {count:,}" for split, count in sorted(self.kept_by_split.items()))
        said = Counter({"captions": 0, "regions": 0})
        for found in self.counts_by_split.values():
            said.update(found)
        *most, last = [f"{count:,} {name}" for name, count in said.items() if name != "images"]
        kept = f"kept {self.kept:,} ({splits}) with {', '.join(most)} and {last}"
        regions = f", and {self.num_dropped_regions:,} regions" if self.num_dropped_regions else ""
        published = official_lines(self.official, self.counts_by_split)
        return [kept, *published, f"dropped {self.num_dropped:,}{regions}", *self.drop_lines(), *self.notes]


def prepare_arguments(arguments: argparse.Namespace, console: Console) -> Report:
    """`prepare` with what `sets.arguments.add_arguments` parsed."""
    flags = {flag.name: getattr(arguments, flag.name) for flag in DATASETS[arguments.source].flags}
    return prepare(
        arguments.source,
        getattr(arguments, "root", None),
        arguments.out,
        flags=flags,
        split=arguments.split,
        limit=arguments.limit,
        num_workers=arguments.workers,
        vocab_size=0 if arguments.no_vocab else arguments.vocab_size,
        vocab=arguments.vocab,
        overwrite=arguments.overwrite,
        console=console,
    )


def prepare(
    source: str,
    root: Path | None,
    out: Path,
    *,
    flags: Mapping[str, Any] | None = None,
    split: str | None = None,
    limit: int | None = None,
    num_workers: int | None = None,
    vocab_size: int = VOCAB_SIZE,
    vocab: Path | None = None,
    overwrite: bool = False,
    records_per_shard: int = 1000,
    console: Console | None = None,
) -> Report:
    """Convert a data set in a known layout into shards in `out`.

    `flags` are the source's own (see `DATASETS`). The bytes written do not depend on `num_workers` (None: one per CPU).
    The words of the file `vocab` are taken over; else a vocabulary of at most `vocab_size` words is trained from the
    texts of the training split (0: none). `limit` stops after so many kept images. A broken record is counted and never
    stops the run. UserError: missing or malformed annotation files, a missing folder, data in `out`, nothing kept.
    """
    chosen = DATASETS.get(source)
    if chosen is None:
        raise UserError(f"unknown source {source!r}: choose from {', '.join(DATASETS)}")
    for name, value in {"limit": limit, "vocab size": vocab_size or None}.items():
        if value is not None and value < _LEAST[name]:
            raise UserError(f"{name} must be at least {_LEAST[name]}, not {value}")
    if num_workers is not None and num_workers < 0:
        raise UserError(f"workers must be 0 or more, not {num_workers}")
    if split is not None and not is_split_name(split):
        raise UserError(f"split {split!r} is no name: letters, digits and _ . - only")
    words = None if vocab is None else _read_vocab(vocab)
    flags = {name: value for name, value in (flags or {}).items() if value is not None}
    items = chosen.reader()(*([root] if chosen.has_root else []), split=split, **flags)
    total = partial(_total, items, flags.get("size", 0), limit)
    plain = {name: value for name, value in flags.items() if isinstance(value, int | str)}
    report = Report(source=source, official=official_sizes(source, flags))
    with ShardWriter(out, records_per_shard, source={"name": source, **plain}, overwrite=overwrite) as writer:
        texts = writer.folder / "texts"
        with texts.open("w", encoding="utf-8") as said, progress_bar(console) as progress, ExitStack() as stack:
            bar = progress.add_task(f"prepare {source}", total=total(), rate="")
            taken: set[int] = set()
            results = stack.enter_context(closing(_checked(items, num_workers)))
            for done, checked in enumerate(results, start=1):
                for kept in _unique(checked, taken, report):
                    writer.write(kept.record, kept.extension, kept.width, kept.height)
                    if kept.record.split == "train":
                        said.writelines(f"{text}\n" for text in _texts(kept.record))
                    report.keep(kept.record)
                seconds = progress.tasks[0].elapsed or 0.0
                rate = f"{done / seconds:.0f}/s" if seconds else ""
                progress.update(bar, completed=done if limit is None else report.kept, total=total(), rate=rate)
                if report.kept == limit:
                    break
        if not report.kept:
            raise UserError(_nothing_kept(source, root, split, report))
        report.vocabulary = _write_vocab(texts, writer.folder / VOCAB, vocab_size, words)
        texts.unlink()
        (writer.folder / REPORT).write_text(json.dumps(report.to_json(), indent=1) + "\n", encoding="utf-8")
    report.notes = chosen.finish(out, root, flags)
    return report


def _checked(items: Iterable[Item], num_workers: int | None) -> Generator[list[Checked | Dropped]]:
    if num_workers is None:
        num_workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ordered_map(check, items, num_workers, _failed, size=_num_bytes)


def _num_bytes(checked: list[Checked | Dropped]) -> int:
    return sum(
        len(one.record.image) for one in checked if isinstance(one, Checked) and isinstance(one.record.image, bytes)
    )


def _failed(item: Item, reason: str) -> list[Checked | Dropped]:
    return [Dropped(reason=reason, where=place(item))]


def _unique(checked: Iterable[Checked | Dropped], taken: set[int], report: Report) -> Iterator[Checked]:
    """The records among what came back, drops counted. A key may stand once; 8 bytes of each are remembered."""
    for one in checked:
        if isinstance(one, Dropped):
            report.drop(one)
            continue
        key = int.from_bytes(hashlib.sha256(one.record.key.encode()).digest()[:8])
        if key in taken:
            report.drop(Dropped(reason="duplicate key", where=place(one.record), detail=one.record.key))
            continue
        taken.add(key)
        yield one


def _total(items: Iterable[Item], size: int, limit: int | None) -> int | None:
    """How many items there will be, as far as is known now."""
    known = [n for n in (length_hint(items) or size, limit) if n]
    return min(known, default=None)


def _texts(record: Record) -> Iterator[str]:
    """What a vocabulary is trained on: captions and regions, and what tasks ask and answer."""
    return chain(record.captions, *(region.texts() for region in record.regions), task_texts(record))


def _read_vocab(file: Path) -> list[str]:
    from crossgrain.data.text import Tokenizer

    if not file.is_file():
        raise UserError(f"no vocabulary at {file}")
    return Tokenizer.load(file).tokens


def _write_vocab(texts: Path, file: Path, size: int, words: list[str] | None) -> int:
    """Put a vocabulary into the data set: the given one, or one trained on a file of texts. How many words it has."""
    if words is None and (size == 0 or not texts.stat().st_size):
        return 0
    from crossgrain.data.text import save_vocab, train_vocab

    if words is None:
        with texts.open(encoding="utf-8") as lines:
            words = train_vocab((line.rstrip("\n") for line in lines), size)
    save_vocab(words, file)
    return len(words)


def _nothing_kept(source: str, root: Path | None, split: str | None, report: Report) -> str:
    reasons = ", ".join(f"{count:,} x {reason}" for reason, count in report.dropped.most_common(5))
    where = f" in {root}" if root else ""
    asked = f" for split {split!r}" if split else ""
    return f"prepare {source}: nothing to keep{where}{asked}" + (f" (dropped: {reasons})" if reasons else "")
