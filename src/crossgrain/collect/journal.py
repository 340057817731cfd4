"""A record of what a long task has done so far, on disk before it counts: what it lists is never done again.

    part-SHARD.journal.jsonl  a first line that names the task, then a JSON line an entry, with where its bytes lie
    part-SHARD.journal.data   the bytes of the entries, one behind the other
    part-SHARD.journal.begun  what each attempt of the running task began, to name what ends its process

Entries are written in batches: their bytes and an fsync, then their lines and an fsync. A killed process leaves at most
a torn end, which the next one cuts off.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_EVERY = 200  # entries
_SECONDS = 5.0
_BYTES = 32 * 2**20


class Journal:
    """The entries of one task, by name. A context manager: leaving it commits what was added, with an error too."""

    def __init__(self, part: Path, fingerprint: str, first_attempt: bool = True):
        """`part`: the path that the files' names begin with. Entries under another fingerprint are thrown away."""
        self._paths = [part.with_name(f"{part.name}.journal.{kind}") for kind in ("jsonl", "data", "begun")]
        self._fingerprint = fingerprint
        if first_attempt:
            self._paths[2].unlink(missing_ok=True)
        self.entries: dict[str, dict[str, Any]] = {}
        self._lines = self._paths[0].open("a+b")
        self._data = self._paths[1].open("a+b")
        self._begun = self._paths[2].open("a+", encoding="utf-8")
        self._strikes = self._read_begun()
        self.begin("")
        self._read_entries()
        self._waiting: list[dict[str, Any]] = []
        self._waiting_data: list[bytes] = []
        self._since = time.monotonic()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error: object) -> None:
        self.commit()
        for file in (self._lines, self._data, self._begun):
            file.close()

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def begin(self, name: str) -> None:
        """Note what may end this process, before it does."""
        self._begun.write(f"{name}\n")
        self._begun.flush()

    def strikes(self, name: str) -> int:
        """How many earlier attempts of the running task ended with this begun."""
        return self._strikes[name]

    def add(self, name: str, entry: Mapping[str, Any], data: bytes = b"") -> None:
        """Add an entry of plain JSON values with its bytes. It counts once it is committed."""
        self._waiting.append({**entry, "name": name, "size": len(data)})
        self._waiting_data.append(data)
        many = len(self._waiting) >= _EVERY or sum(map(len, self._waiting_data)) >= _BYTES
        if many or time.monotonic() - self._since > _SECONDS:
            self.commit()

    def commit(self) -> None:
        """Make durable what was added."""
        if self._waiting:
            for entry, data in zip(self._waiting, self._waiting_data, strict=True):
                entry["offset"] = self._data.tell()
                self._data.write(data)
            _sync(self._data)
            self._lines.write("".join(json.dumps(entry) + "\n" for entry in self._waiting).encode())
            _sync(self._lines)
            self.entries.update((entry["name"], entry) for entry in self._waiting)
        self._waiting, self._waiting_data, self._since = [], [], time.monotonic()

    def data(self, name: str) -> bytes:
        """The bytes of a committed entry."""
        entry = self.entries[name]
        return os.pread(self._data.fileno(), entry["size"], entry["offset"])

    def remove(self) -> None:
        """Delete the files, when the task's outputs hold all that they held."""
        for path in self._paths:
            path.unlink(missing_ok=True)

    def _read_begun(self) -> Counter[str]:
        """The last thing that each attempt began."""
        self._begun.seek(0)
        last: list[str] = []
        for line in self._begun:
            name = line.strip()
            if name:
                last[-1:] = [name]
            else:
                last.append("")
        return Counter(last)

    def _read_entries(self) -> None:
        """Read what stands whole, and cut off the rest."""
        self._lines.seek(0)
        head = json.dumps({"task": self._fingerprint}).encode() + b"\n"
        length = data_length = 0
        if self._lines.readline() == head:
            length, num_bytes = len(head), self._data.seek(0, os.SEEK_END)
            for line in self._lines:
                entry = _parsed(line)
                if entry is None or entry["offset"] + entry["size"] > num_bytes:
                    break
                self.entries[entry["name"]] = entry
                length += len(line)
                data_length = max(data_length, entry["offset"] + entry["size"])
        self._data.truncate(data_length)
        self._data.seek(data_length)
        self._lines.truncate(length)
        self._lines.seek(length)
        if not length:
            self._lines.write(head)
            _sync(self._lines)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
        return entry if entry and {"name", "offset", "size"} <= entry.keys() else None
    except (ValueError, AttributeError):
        return None


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
