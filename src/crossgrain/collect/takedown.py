"""Take-downs: pictures leave the shards of a collection, and a list keeps them out of every later run.

The list is written first, so what was asked for is kept out even where the removal itself was killed; the same command
then finishes it.
"""

import contextlib
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossgrain.collect.forgetting import Entry, forget, pictures_at
from crossgrain.collect.lock import alone
from crossgrain.collect.tombstones import Seen, Tombstones, is_hash, run_folder, tombstone_file
from crossgrain.config import UserError
from crossgrain.data.manifest import MANIFEST, read_manifest
from crossgrain.data.removal import finish_removal, locked, remove_records
from crossgrain.data.shards import Shards


@dataclass(kw_only=True)
class Removal:
    """What a removal took, or would take."""

    data: Path
    tombstones: Path
    wanted: Tombstones
    num_left: int = 0
    dry_run: bool = False
    removed: list[dict[str, str]] = field(default_factory=list)  # key, addresses, hashes, kind and value of the entry

    def lines(self, most: int = 20) -> list[str]:
        """For people."""
        found = Counter((entry["kind"], entry["value"]) for entry in self.removed)
        verb = "would be removed" if self.dry_run else "removed"
        lines = [f"{verb}: {entry['key']}  {entry['image_url']}".rstrip() for entry in self.removed[:most]]
        lines += [f"... and {len(self.removed) - most:,} more"] if len(self.removed) > most else []
        lines += [f"{kind} {value}: {found[kind, value]:,} records" for kind, value in self.wanted.entries]
        lines.append(f"{len(self.removed):,} records {verb} from {self.data}, {self.num_left:,} are left")
        return lines if self.dry_run else [*lines, f"kept out of later runs by {self.tombstones}"]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        wanted = [{"kind": kind, "value": value} for kind, value in self.wanted.entries]
        where = {"data": str(self.data), "tombstones": str(self.tombstones)}
        return {**where, "dry_run": self.dry_run, "wanted": wanted, "removed": self.removed, "left": self.num_left}


def remove(
    data: Path,
    urls: Iterable[str] = (),
    hashes: Iterable[str] = (),
    domains: Iterable[str] = (),
    *,
    dry_run: bool = False,
) -> Removal:
    """Take every picture that these name out of a collection (its folder, or that of its shards) and list them.

    URLs are those of pictures or of pages; hashes are the SHA-256 or MD5 of a picture's file, as it was fetched or as
    it is kept, or its 64-bit perceptual hash, which also finds copies of it; domains go with their subdomains. A
    picture is found at every address and page that the collection met it at. With `dry_run` nothing is changed. The
    same call again finishes one that was killed.
    """
    wanted = Tombstones.of(urls, hashes, domains)
    if not wanted:
        raise UserError("say what to remove: a URL, a hash or a domain")
    shards_folder, listed, run = data_folder(data), tombstone_file(data), run_folder(data)
    removal = Removal(data=shards_folder, tombstones=listed, wanted=wanted, dry_run=dry_run)
    at_work = alone(run / "work") if run and (run / "work").is_dir() else contextlib.nullcontext()
    with at_work, locked(shards_folder):
        known = pictures_at(run, wanted) if run else {}
        wanted |= Tombstones(known)
        if not dry_run:
            (Tombstones.load(listed) | wanted).save(listed)
            finish_removal(shards_folder)
        rows: dict[str, list[int]] = {}
        for shard, row, entry in _found(shards_folder, wanted, known):
            removal.num_left += entry is None
            if entry is not None:
                rows.setdefault(shard, []).append(row)
                removal.removed.append(entry)
        if not dry_run:
            same = (pair for entry in removal.removed for pair in _same_picture(entry))
            everything = Tombstones.load(listed) | Tombstones(same)
            everything.save(listed)
            remove_records(shards_folder, rows)
            if run is not None:  # a picture of which only a page was taken down may stand on another
                alike = [(one["image_url"], one["sha256"], _as_int(one["phash"])) for one in removal.removed]
                gone = [url for url, sha256, phash in alike if everything.blocks(url, sha256, phash=phash)]
                forget(run, everything, gone)
    return removal


def read_list(path: Path) -> dict[str, list[str]]:
    """Arguments of `remove` from a text file: a URL, a hash or a domain a line; " #" begins a comment."""
    if not path.is_file():
        raise UserError(f"no list at {path}")
    found: dict[str, list[str]] = {"urls": [], "hashes": [], "domains": []}
    for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines():
        entry = re.split(r"(?:^|\s)#", line)[0].strip()
        if "://" in entry:
            found["urls"].append(entry)
        elif entry := entry.partition("#")[0]:
            found["hashes" if is_hash(entry) else "domains"].append(entry)
    return found


def data_folder(path: Path) -> Path:
    """Where the shards are: `path`, or `path`/shards of a collection. UserError where neither holds a data set."""
    for folder in (path, path / "shards"):
        if (folder / MANIFEST).is_file():
            return folder
    raise UserError(f"no data set in {path}: neither it nor {path / 'shards'} has a {MANIFEST}")


def _found(
    folder: Path, wanted: Tombstones, known: Mapping[Entry, Entry]
) -> Iterator[tuple[str, int, dict[str, str] | None]]:
    """Every record by shard and row, with what it is where it falls under an entry; `known`: hashes with their URLs."""
    if not read_manifest(folder)["splits"]:
        return
    shards = Shards(folder)
    names = [(shard["name"], row) for shard in shards.manifest["shards"] for row in range(shard["records"])]
    stored = shards.column("image_sha256").tolist()
    needs_md5 = any(kind == "md5" for kind, _ in wanted.entries)
    for index, (shard, row) in enumerate(names):
        record = shards.texts(index)
        told = record.extra.get("provenance") or {}
        hashes = [stored[index], told.get("sha256", ""), told.get("md5", "")]
        if needs_md5:  # that of the file as it is kept stands nowhere
            image = shards[index].image
            assert isinstance(image, bytes)
            hashes.append(hashlib.md5(image, usedforsecurity=False).hexdigest())
        addresses = {name: told.get(name) or "" for name in ("image_url", "page_url")}
        entry = wanted.match(Seen(**addresses, hashes=hashes, phash=_as_int(told.get("phash"))))
        if entry is None:
            yield shard, row, None
        else:
            kind, value = known.get(entry, entry)
            same = {"sha256": told.get("sha256") or stored[index], "phash": told.get("phash") or ""}
            yield shard, row, {"key": record.key, **addresses, **same, "kind": kind, "value": value}


def _same_picture(entry: Mapping[str, str]) -> Iterator[Entry]:
    """What keeps a picture out wherever else it lies, copies included, where its own address or file was named."""
    own = entry["kind"] == "url" and Tombstones([("url", entry["value"])]).blocks(entry["image_url"])
    if own or entry["kind"] in ("sha256", "md5"):
        yield from ((kind, entry[kind]) for kind in ("sha256", "phash") if entry[kind])


def _as_int(phash: Any) -> int | None:
    return int(phash, 16) if isinstance(phash, str) and phash else phash if isinstance(phash, int) else None
