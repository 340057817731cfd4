"""The end: kept pairs become the shards that training reads, one task a shard, and the manifest last."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from crossgrain.collect.bucketed import Row, bucket_of, read_rows, read_sorted
from crossgrain.collect.tasks import PAIRS, Done, Work
from crossgrain.data.manifest import MANIFEST, read_manifest
from crossgrain.data.records import Record
from crossgrain.data.regions import REGIONS
from crossgrain.data.shards import ShardFile, shard_name, write_manifest
from crossgrain.data.tars import read_member
from crossgrain.data.text import save_vocab, train_vocab

VOCAB = "vocab.txt"
_OF_A_SHARD = re.compile(r"\d{6,}\.|\.tmp-")
_PARTS_OF_1 = 1_000_000  # how finely the share of the validation split is cut


def write_shard(
    work: Work, bucket: int, parts: Sequence[Path], images: Path, data: Path, seed: int, val_share: float
) -> None:
    """The task: the pairs of one shard to its tar and sidecar."""
    name = shard_name(bucket)
    data.mkdir(parents=True, exist_ok=True)
    shard = ShardFile(work.create(".tar", data / f"{name}.tar"))
    splits: Counter[str] = Counter()
    for row in read_sorted(parts, bucket, key=lambda row: row["place"]):
        image = read_member(images / row["tar"], row["tar_offset"], row["tar_size"], "crossgrain collect")
        record = Record(
            key=row["key"],
            image=image,
            captions=(row["text"],),
            split="val" if bucket_of(f"{seed} val {row['key']}", _PARTS_OF_1) < val_share * _PARTS_OF_1 else "train",
            extra={"provenance": provenance(row)},
        )
        shard.write(record, row["extension"], row["width"], row["height"])
        splits[record.split] += 1
        told = {"text": row["text"], "image_url": row["image_url"], "page_url": row["page_url"]}
        work.show("", image, **told)
    work.take(PAIRS, shard.num_records)
    work.keep(PAIRS, shard.num_records)
    sha256 = shard.finish(work.create(".parquet", data / f"{name}.parquet"))
    work.facts.update(name=name, records=shard.num_records, sha256=sha256, splits=dict(sorted(splits.items())))


def provenance(row: Row) -> dict[str, Any]:
    """Where a pair comes from, what was measured, and what was looked at before it was taken."""
    return {
        "page_url": row["page_url"],
        "image_url": row["image_url"],
        "text_kind": row["kind"],
        "licence": row["licence"],
        "sha256": row["sha256"],
        "md5": row["md5"],
        "phash": f"{row['phash']:016x}",
        "language": row["language"],
        "language_score": _rounded(row["language_score"]),
        "score": _rounded(row["score"]),
        "natural": _rounded(row["natural"]),
        "unsafe": _rounded(row["unsafe"]),
        "opt_outs_checked": json.loads(row["opt_outs_checked"]),
    }


def write_vocab(data: Path, parts: Sequence[Path], size: int) -> None:
    """Train a vocabulary of at most `size` words from the texts of some parts; 0: none."""
    (data / VOCAB).unlink(missing_ok=True)
    texts = (row["text"] for part in parts for row in read_rows(part, columns=["text"]))
    first = next(texts, None)
    if size and first is not None:
        save_vocab(train_vocab(chain([first], texts), size), data / VOCAB)


def publish(data: Path, source: Mapping[str, Any], shards: Sequence[Done]) -> None:
    """Say which shards the data set has; what earlier runs left of others goes first, and regions of other images."""
    told = [_told(done) for done in shards]
    splits: Counter[str] = Counter()
    for done in shards:
        splits.update(done.facts["splits"])
    if _manifest(data).get("shards") != told:
        (data / REGIONS).unlink(missing_ok=True)  # first: it says that every shard has them
        current = {path.name for done in shards for path in (done.path(".tar"), done.path(".parquet"))}
        for file in data.iterdir():
            if _OF_A_SHARD.match(file.name) and file.name not in current:
                file.unlink()
    write_manifest(data, source, splits, told)


def holds(data: Path, source: Mapping[str, Any], shards: Sequence[Done]) -> bool:
    """Whether the data set in a folder is made of these shards already, and is called so, and has its vocabulary."""
    manifest, needs_vocab = _manifest(data), bool(source["vocab_size"] and shards)
    same = (manifest.get("source"), manifest.get("shards")) == (source, [_told(done) for done in shards])
    return same and (data / VOCAB).exists() == needs_vocab


def _manifest(data: Path) -> dict[str, Any]:
    return read_manifest(data) if (data / MANIFEST).exists() else {}


def _told(done: Done) -> dict[str, Any]:
    return {name: done.facts[name] for name in ("name", "records", "sha256")}


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 6)  # JSON has no NaN
