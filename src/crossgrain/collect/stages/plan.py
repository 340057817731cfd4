"""Stage 5 on disk: one task reads a few numbers of every scored pair, decides, and says where what is kept will stand.

The plan has a row for every kept pair: which part of the scores and which row of it, which shard and which place in it.
Then a task a part (`select_pairs`) brings the rows into the shards' buckets, so that a shard reads what is its own.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossgrain.collect import hash_sets
from crossgrain.collect.aggregate import Pairs, decide, samples_of, text_hash
from crossgrain.collect.bucketed import Row, read_rows, read_tables, write_rows
from crossgrain.collect.samples import MOST
from crossgrain.collect.stages.scores import SCORE_COLUMNS
from crossgrain.collect.tasks import PAIRS, Work
from crossgrain.collect.tombstones import REASON, Seen, Tombstones
from crossgrain.data.tars import read_member

PLAN_COLUMNS = {"bucket": "int32", "row": "int64", "shard": "int32", "place": "int32"}
FINAL_COLUMNS = {"bucket": "int32", "place": "int32", "key": "string", **SCORE_COLUMNS}


def plan_shards(
    work: Work,
    parts: Sequence[Path],
    images: Path,
    *,
    threshold: float | None,
    near_distance: int,
    max_images_per_text: int,
    test_sets: Mapping[str, Path],
    removed: Sequence[tuple[str, str]],
    seed: int,
    records_per_shard: int,
) -> None:
    """The task: decide about every pair, and give every kept one its place."""
    scored = _Scored(parts, Tombstones(removed))
    verdicts = decide(
        scored.pairs,
        near_distance=near_distance,
        max_images_per_text=max_images_per_text,
        threshold=threshold,
        test_sets={name: _both_ways(hash_sets.load(path)) for name, path in test_sets.items()},
        order=scored.order,
    )
    work.take(PAIRS, len(verdicts.verdict))
    work.drop(PAIRS, verdicts.counts())
    kept = np.flatnonzero(verdicts.verdict == 0)
    work.keep(PAIRS, len(kept))
    rank = scored.pairs.text ^ scored.pairs.phashes[scored.pairs.image]
    examples = {row: reason for row, reason in samples_of(verdicts, rank, MOST) if reason != REASON}
    for row, pair in scored.read(examples):
        detail = f"score {pair['score']:.3f}" if pair["score"] is not None else ""
        told = {name: pair[name] for name in ("text", "image_url", "page_url")}
        work.show(examples[row], _image(images, pair), detail=detail, **told)
    write_rows(work.create(".parquet"), PLAN_COLUMNS, _places(scored, kept, seed, records_per_shard))
    work.facts["num_shards"] = -(-len(kept) // records_per_shard)


def select_pairs(work: Work, part: Path, number: int, plan: Path) -> None:
    """The task: the kept pairs of a part of the scores, bucketed by the shard that they go to."""
    planned = {row["row"]: row for row in read_rows(plan, number)}
    rows = [
        {**pair, "key": key_of(pair["image_url"]), "bucket": planned[row]["shard"], "place": planned[row]["place"]}
        for row, pair in enumerate(read_rows(part))
        if row in planned
    ]
    rows.sort(key=lambda row: (row["bucket"], row["place"]))
    work.take(PAIRS, len(rows))
    work.keep(PAIRS, write_rows(work.create(".parquet"), FINAL_COLUMNS, rows))


def key_of(image_url: str) -> str:
    """The key of the record of an image: 20 hexadecimal digits."""
    return hashlib.sha256(image_url.encode("utf-8", "surrogatepass")).hexdigest()[:20]


class _Scored:
    """The pairs of all parts, numbered through."""

    def __init__(self, parts: Sequence[Path], removed: Tombstones):
        self.parts = parts
        phash, text, score, taken_down, position = [], [], [], [], []
        self.lengths: list[int] = []
        for part in parts:
            length = 0
            columns = ["phash", "text", "score", "image_url", "page_url", "sha256", "md5"]
            for table in read_tables(part, columns=columns):
                length += len(table)
                phash.append(table["phash"].to_numpy())
                text.append(np.array([text_hash(value) for value in table["text"].to_pylist()], np.uint64))
                score.append(table["score"].to_numpy().astype(np.float32))
                taken_down.append(_taken_down(table, removed))
                position.append(_hashes(table["image_url"].to_pylist()))
            self.lengths.append(length)
        self.first = np.cumsum([0, *self.lengths])
        self.url = _joined(position, np.uint64)
        self.pairs = Pairs.of(
            _joined(phash, np.uint64), _joined(text, np.uint64), _joined(score, np.float32), _joined(taken_down, bool)
        )

    def read(self, rows: Any) -> Iterator[tuple[int, Row]]:
        """(number, pair) of some pairs, in their order."""
        wanted = np.array(sorted(rows), dtype=np.int64)
        for part, first, length in zip(self.parts, self.first[:-1].tolist(), self.lengths, strict=True):
            inside = wanted[(wanted >= first) & (wanted < first + length)]
            if len(inside):
                chosen = set((inside - first).tolist())
                yield from ((first + row, pair) for row, pair in enumerate(read_rows(part)) if row in chosen)

    def order(self, rows: np.ndarray) -> list[tuple[str, str]]:
        """What sorts pairs with equal scores."""
        named = {row: (pair["image_url"], pair["text"]) for row, pair in self.read(rows.tolist())}
        return [named[row] for row in rows.tolist()]


def _places(scored: _Scored, kept: np.ndarray, seed: int, records_per_shard: int) -> list[Row]:
    """A row for every kept pair; the order of all is one by a hash of the seed and the record's key."""
    keys = np.array([_order(seed, row) for row in scored.url[kept].tolist()], np.uint64)
    ranked = kept[np.argsort(keys, kind="stable")]
    parts = np.searchsorted(scored.first, ranked, side="right") - 1
    rows = [
        {
            "bucket": part,
            "row": row - int(scored.first[part]),
            "shard": place // records_per_shard,
            "place": place % records_per_shard,
        }
        for place, (part, row) in enumerate(zip(parts.tolist(), ranked.tolist(), strict=True))
    ]
    rows.sort(key=lambda row: (row["bucket"], row["row"]))
    return rows


def _order(seed: int, url_hash: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {url_hash:016x}".encode()).digest()[:8])


def _hashes(urls: list[str]) -> np.ndarray:
    """The beginnings of the records' keys, as numbers."""
    return np.array([int(key_of(url)[:16], 16) for url in urls], np.uint64)


def _taken_down(table: Any, removed: Tombstones) -> np.ndarray:
    if not removed:
        return np.zeros(len(table), bool)
    return np.array([
        bool(
            removed.match(
                Seen(
                    image_url=row["image_url"],
                    page_url=row["page_url"],
                    hashes=(row["sha256"], row["md5"]),
                    phash=row["phash"],
                )
            )
        )
        for row in table.to_pylist()
    ])  # fmt: skip


def _both_ways(test_set: hash_sets.HashSet) -> np.ndarray:
    """The hashes of the images and of their mirror images."""
    return np.concatenate([test_set.hashes, test_set.mirrored])


def _image(folder: Path, pair: Row) -> Any:
    return lambda: read_member(folder / pair["tar"], pair["tar_offset"], pair["tar_size"], "crossgrain collect")


def _joined(arrays: list[np.ndarray], kind: Any) -> np.ndarray:
    return np.concatenate([np.zeros(0, kind), *(array.astype(kind) for array in arrays)])
