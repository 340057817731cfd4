"""Take records out of a data set on disk, for good: it can be read at every moment, and keeps no byte of them.

A shard that loses records is written anew under the next free number, with its sidecar and the regions beside it; the
manifest that names the new shards replaces the old one by one rename, and then the old files go. `.removal.json` says
which these are: what was killed before the rename changed nothing, what was killed after it is finished by the next
call. pyarrow is imported when a table is rewritten; no torch.
"""

import fcntl
import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crossgrain.config import UserError
from crossgrain.data.manifest import MANIFEST, read_manifest, shard_names
from crossgrain.data.regions import REGIONS_TABLE, REGIONS_TAR, finish_regions, read_stamp
from crossgrain.data.tars import TarWriter, read_member
from crossgrain.documents.writing import flush

JOURNAL = ".removal.json"
_AGAIN = "crossgrain prepare"
_SUFFIXES = (".tar", ".parquet", REGIONS_TAR, REGIONS_TABLE)

Row = dict[str, Any]
_Members = Callable[[Row], list[tuple[str, str, str]]]  # columns of offset and size, and the name of the tar's member


@contextmanager
def locked(folder: Path, busy: str = "") -> Iterator[None]:
    """Hold a folder against whoever else writes to it; UserError (`busy`) where somebody does.

    The operating system lets go when the process ends, however it does.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(busy or f"{folder} is being written to by another process") from None
        except OSError:  # a file system that has no locks
            pass
        yield
    finally:
        os.close(handle)


def remove_records(folder: Path, rows: Mapping[str, Collection[int]]) -> int:
    """Remove records by shard and row; how many are left. The caller holds the lock.

    ValueError for a shard or a row that is not there. A shard that has no record left goes with them.
    """
    finish_removal(folder)
    manifest = read_manifest(folder)
    lengths = {shard["name"]: shard["records"] for shard in manifest["shards"]}
    chosen = {name: set(numbers) for name, numbers in rows.items() if numbers}
    for name, numbers in chosen.items():
        if name not in lengths or min(numbers) < 0 or max(numbers) >= lengths[name]:
            raise ValueError(f"{folder}: shard {name} has {lengths.get(name, 0)} records, not {sorted(numbers)[-1]}")
    free = 1 + max(map(int, lengths), default=-1)
    renamed = {
        name: f"{free + place:06d}"
        for place, name in enumerate(name for name in chosen if len(chosen[name]) < lengths[name])
    }
    if chosen:
        _write_json(folder, JOURNAL, {"before": list(chosen), "after": list(renamed.values())})
        _write_json(folder, MANIFEST, _thinned(folder, manifest, chosen, renamed))
        finish_removal(folder)
    return sum(shard["records"] for shard in read_manifest(folder)["shards"])


def finish_removal(folder: Path) -> None:
    """Clear away what a removal that was killed left behind; nothing where none was."""
    journal = folder / JOURNAL
    if not journal.is_file():
        return
    told = json.loads(journal.read_text(encoding="utf-8"))
    names = set(shard_names(read_manifest(folder)))
    committed = not names & set(told["before"])
    for name in told["before" if committed else "after"]:
        for suffix in _SUFFIXES:
            (folder / f"{name}{suffix}").unlink(missing_ok=True)
    if read_stamp(folder) is not None:
        finish_regions(folder)
    flush(folder)
    journal.unlink()


def _thinned(
    folder: Path, manifest: Mapping[str, Any], chosen: Mapping[str, set[int]], renamed: Mapping[str, str]
) -> dict[str, Any]:
    """Write the shards anew; the manifest that names them."""
    splits, shards = Counter(manifest["splits"]), []
    for shard in manifest["shards"]:
        name = shard["name"]
        if name not in chosen:
            shards.append(shard)
            continue
        splits.subtract(_splits(folder / f"{name}.parquet", chosen[name]))
        if name not in renamed:
            continue
        kept = [row for row in range(shard["records"]) if row not in chosen[name]]
        sha256 = _rewrite(folder, (name, renamed[name]), (".tar", ".parquet"), kept, _record_members)
        if (folder / f"{name}{REGIONS_TABLE}").exists():
            _rewrite(folder, (name, renamed[name]), (REGIONS_TAR, REGIONS_TABLE), kept, _region_members)
        shards.append({**shard, "name": renamed[name], "records": len(kept), "sha256": sha256})
    flush(folder)
    return {**manifest, "splits": {split: count for split, count in splits.items() if count}, "shards": shards}


def _rewrite(
    folder: Path, names: tuple[str, str], suffixes: tuple[str, str], kept: list[int], members: _Members
) -> str:
    """Copy some rows of a table, and what they name in its tar, to new files; the SHA-256 of the new tar."""
    import pyarrow
    import pyarrow.parquet

    (old_tar, old_table), (new_tar, new_table) = ([folder / f"{name}{s}" for s in suffixes] for name in names)
    with pyarrow.parquet.ParquetFile(old_table) as file:
        table = file.read(use_threads=False)
    rows = table.take(kept).to_pylist()
    tar = TarWriter(new_tar)
    try:
        for row in rows:
            for offset, size, name in members(row):
                row[offset] = tar.add(name, read_member(old_tar, row[offset], row[size], _AGAIN))
        sha256 = tar.finish()
    finally:
        tar.close()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=table.schema), new_table, compression="zstd")
    for file in (new_tar, new_table):
        flush(file)
    return sha256


def _record_members(row: Row) -> list[tuple[str, str, str]]:
    key = row["key"]
    image = ("image_offset", "image_size", f"{key}.{row['image_extension']}")
    return [image, ("json_offset", "json_size", f"{key}.json")]


def _region_members(row: Row) -> list[tuple[str, str, str]]:
    return [] if row["offset"] < 0 else [("offset", "size", f"{row['key']}.regions.npz")]


def _splits(table: Path, rows: Collection[int]) -> Counter[str]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(table) as file:
        splits = file.read(["split"], use_threads=False)["split"].to_pylist()
    return Counter(splits[row] for row in rows)


def _write_json(folder: Path, name: str, values: Mapping[str, Any]) -> None:
    part = folder / f".tmp-{name}"
    part.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    flush(part)
    part.replace(folder / name)
    flush(folder)
