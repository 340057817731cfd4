"""The contract of a stage's work: a task is a function of its inputs, and its outputs are there whole or not at all.

    work/STAGE/part-SHARD.*          what the task made: written beside it, fsynced, renamed into place
    work/STAGE/part-SHARD.done.json  last: fingerprint, sizes and SHA-256 of the outputs, what came in, out and why not

A task is done where its `.done.json` has its fingerprint (stage, configuration, digests of the inputs) and the outputs
are there in their sizes. Outputs are named by content downstream, so a stage whose result did not change starts none.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from crossgrain.collect.funnel import FunnelRow
from crossgrain.collect.samples import Sample, Samples, read_samples, write_samples
from crossgrain.documents.writing import flush

PAGES, TEXTS, IMAGES, PAIRS = "pages", "texts", "images", "pairs"  # the units of the funnel


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A file that a task made: its place, its bytes and their digest."""

    path: Path
    size: int
    sha256: str

    def exists(self) -> bool:
        """Whether the file is there, in its size."""
        return self.path.is_file() and self.path.stat().st_size == self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A finished task: its outputs by suffix (".parquet"), its account, and small numbers that later stages ask for."""

    stage: str
    shard: str
    fingerprint: str
    outputs: Mapping[str, Output]
    funnel: tuple[FunnelRow, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def path(self, suffix: str) -> Path:
        """Where an output lies."""
        return self.outputs[suffix].path

    def digest(self, *suffixes: str) -> str:
        """What stands for the content of the outputs (of all, or of some) in the fingerprint of a later task."""
        return digest_of([self.shard, *(self.outputs[suffix].sha256 for suffix in suffixes or sorted(self.outputs))])


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One piece of a stage. `function(work)` does it, is picklable, and touches nothing but what `work` gives."""

    stage: str
    shard: str
    folder: Path  # work/STAGE
    function: Callable[["Work"], None]
    config: str  # digest of what of the recipe the stage depends on
    inputs: tuple[str, ...] = ()  # digests of what it reads
    attempt: int = 1

    @property
    def fingerprint(self) -> str:
        """Stage, shard, configuration and inputs: equal fingerprints give equal outputs."""
        return digest_of([self.stage, self.shard, self.config, *self.inputs])

    def part(self, suffix: str) -> Path:
        """The file of this task with a suffix."""
        return self.folder / f"part-{self.shard}{suffix}"

    def done(self) -> Done | None:
        """What an earlier run made of this very task, where it is still there."""
        found = read_done(self.part(".done.json"))
        if found is None or found.fingerprint != self.fingerprint:
            return None
        return found if all(output.exists() for output in found.outputs.values()) else None

    def again(self) -> "Task":
        """The next attempt."""
        return replace(self, attempt=self.attempt + 1)


class Work:
    """What a task's function is handed: where its outputs go, and where it accounts for what it keeps and drops."""

    def __init__(self, task: Task):
        self.task = task
        self.samples = Samples()
        self.facts: dict[str, Any] = {}
        self._begun: dict[str, tuple[Path, Path]] = {}  # suffix -> where it is written, where it will stand
        self._afterwards: list[Callable[[], None]] = []
        self._in: Counter[str] = Counter()
        self._out: Counter[str] = Counter()
        self._dropped: dict[str, Counter[str]] = {}

    def create(self, suffix: str, final: Path | None = None) -> Path:
        """Where to write an output; `final` where it shall not stand beside the task's other files."""
        final = final or self.task.part(suffix)
        temporary = final.with_name(f".tmp-{final.name}")
        temporary.unlink(missing_ok=True)
        self._begun[suffix] = (temporary, final)
        return temporary

    def take(self, unit: str, count: int = 1) -> None:
        """Count what comes in."""
        self._in[unit] += count

    def keep(self, unit: str, count: int = 1) -> None:
        """Count what goes on to the next stage."""
        self._out[unit] += count

    def drop(self, unit: str, reasons: str | Mapping[str, int]) -> None:
        """Count what goes no further: one for a reason, or many with their numbers."""
        self._dropped.setdefault(unit, Counter()).update([reasons] if isinstance(reasons, str) else reasons)

    def show(self, reason: str, image: bytes | Callable[[], bytes] | None = None, **what: Any) -> None:
        """Offer an example of what is kept (no reason) or dropped; see `Sample` for what may be said of it."""
        self.samples.add(Sample(stage=self.task.stage, reason=reason, **what), image)

    def after_commit(self, function: Callable[[], None]) -> None:
        """Have something done when the outputs are in their places."""
        self._afterwards.append(function)

    def commit(self) -> Done:
        """Put the outputs into their places, and say so last. ValueError where the account does not add up."""
        units = [unit for unit in (PAGES, IMAGES, TEXTS, PAIRS) if unit in {*self._in, *self._out, *self._dropped}]
        funnel = tuple(
            FunnelRow(
                stage=self.task.stage,
                unit=unit,
                num_in=self._in[unit],
                num_out=self._out[unit],
                dropped=dict(sorted(self._dropped.get(unit, Counter()).items())),
            )
            for unit in units
        )
        if len(self.samples):
            write_samples(self.task.part(".samples.jsonl"), self.samples)
        else:
            self.task.part(".samples.jsonl").unlink(missing_ok=True)
        self.task.part(".done.json").unlink(missing_ok=True)
        outputs = {suffix: _rename(*paths) for suffix, paths in sorted(self._begun.items())}
        done = Done(
            stage=self.task.stage,
            shard=self.task.shard,
            fingerprint=self.task.fingerprint,
            outputs=outputs,
            funnel=funnel,
            facts=self.facts,
        )
        write_durably(self.task.part(".done.json"), _done_to_json(done, self.task.folder))
        for function in self._afterwards:
            function()
        return done


def run_task(task: Task) -> Done:
    """Do a task, unless it is done."""
    found = task.done()
    if found is None:
        task.folder.mkdir(parents=True, exist_ok=True)
        work = Work(task)
        task.function(work)
        found = work.commit()
    return found


def samples_of(task: Task) -> list[Sample]:
    """The examples that a finished task left."""
    return read_samples(task.part(".samples.jsonl"))


def digest_of(values: Any) -> str:
    """SHA-256 of plain JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def digests(parts: Sequence[Done], *suffixes: str) -> tuple[str, ...]:
    """What stands for the outputs of some finished tasks among the inputs of another."""
    return tuple(part.digest(*suffixes) for part in parts)


def write_durably(path: Path, text: str) -> None:
    """Write a small file so that it survives a loss of power, whole or not at all."""
    temporary = path.with_name(f".tmp-{path.name}")
    temporary.write_text(text, encoding="utf-8")
    _rename(temporary, path)


def read_done(path: Path) -> Done | None:
    """The record of a finished task; None where there is none that can be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        outputs = {
            suffix: Output(path=path.parent / output["path"], size=output["size"], sha256=output["sha256"])
            for suffix, output in values["outputs"].items()
        }
        funnel = tuple(FunnelRow.from_json(row) for row in values["funnel"])
        names = {name: values[name] for name in ("stage", "shard", "fingerprint", "facts")}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Done(**names, outputs=outputs, funnel=funnel)


def _done_to_json(done: Done, folder: Path) -> str:
    values = {
        "stage": done.stage,
        "shard": done.shard,
        "fingerprint": done.fingerprint,
        "outputs": {
            suffix: {"path": os.path.relpath(output.path, folder), "size": output.size, "sha256": output.sha256}
            for suffix, output in done.outputs.items()
        },
        "funnel": [row.to_json() for row in done.funnel],
        "facts": dict(done.facts),
    }
    return json.dumps(values, indent=1) + "\n"


def _rename(temporary: Path, final: Path) -> Output:
    """Make a written file durable under its name."""
    with temporary.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    flush(temporary)
    size = temporary.stat().st_size
    temporary.replace(final)
    flush(final.parent)
    return Output(path=final, size=size, sha256=sha256)
