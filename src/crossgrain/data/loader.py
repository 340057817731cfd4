"""Data sources to a stream of batches, decoded and augmented in worker processes.

What a step reads is a function of (seed, step) alone: neither the number of workers nor where a run began changes a bit
of it, and the ranks of a step read together what one process would have read.
"""

import os
import signal
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from crossgrain.config import UserError, configclass
from crossgrain.data.collate import Origin, collate
from crossgrain.data.images import ImageConfig
from crossgrain.data.records import Record
from crossgrain.data.sampler import Ranks, StepSampler, coin
from crossgrain.data.samples import Recipe, Texts, make_sample
from crossgrain.data.shards import Shards
from crossgrain.data.text import TextConfig, Tokenizer
from crossgrain.data.types import Batch

_SAMPLE = 3  # what the random stream of a sample is for (see sampler.py)
_MAX_WORKERS = 8


@configclass
class Source:
    """One data set's share of every batch."""

    path: str  # a folder that `crossgrain prepare` wrote
    split: str = "train"
    texts: Texts = "captions"  # "regions": regions and objects with their boxes, and one caption as the whole image
    batch_size: int  # images a step, over all ranks
    texts_per_image: int = 1
    extra_step: float | None = None  # not part of every step, but with this probability an update of its own before it


class _Opened(NamedTuple):
    """A source with its records. Sources of one data set share `dataset`, so that their groups meet."""

    config: Source
    records: Sequence[Record]
    usable: np.ndarray  # numbers of the records that have what `texts` asks for
    dataset: int


class _Slice(NamedTuple):
    """What one micro-batch reads of a source: positions in its endless row (sampler.py), and the record at each."""

    source: int
    positions: np.ndarray
    records: np.ndarray


class _Failure(NamedTuple):
    """A user's mistake that a worker met; it crosses to the main process as it is, without a worker's traceback."""

    message: str


def default_workers(world_size: int = 1) -> int:
    """One worker for every core that this process may use, but one for the training itself; at least 1, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MAX_WORKERS, max(1, cores // world_size - 1))


def batches(
    sources: Sequence[Source],
    image: ImageConfig,
    text: TextConfig,
    tokenizer: Tokenizer,
    *,
    seed: int,
    first_step: int,
    last_step: int,
    num_workers: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    accumulate: int = 1,
    want_masked: bool = True,
    records: Sequence[Sequence[Record]] | None = None,
) -> Iterator[list[list[Batch]]]:
    """What steps `first_step` to `last_step` - 1 train on: for each a list of updates of `accumulate` micro-batches.

    A step is one update, over all sources but those with `extra_step`; each of these adds one update of its own before
    it when its coin falls so (X-VLM Pretrain.py:82-131). `records` are the sources' data sets where they are open
    already. `num_workers` None takes `default_workers`; 0 decodes in this process. Mistakes are UserErrors, raised here
    or, for a record that cannot be read, at the step that reads it.
    """
    if not any(source.extra_step is None for source in sources):
        raise UserError("no source is part of every step: name one without extra_step")
    ranks = Ranks(rank=rank, world_size=world_size, accumulate=accumulate)
    opened = _open(sources, records, ranks)
    plan = _Plan(opened, ranks, seed, range(first_step, last_step))
    recipe = Recipe(image=image, text=text, tokenizer=tokenizer, want_masked=want_masked)
    num_workers = default_workers(world_size) if num_workers is None else num_workers
    return _run(plan, _MicroBatches(opened, recipe, seed), num_workers)


def _run(plan: "_Plan", dataset: "_MicroBatches", num_workers: int) -> Iterator[list[list[Batch]]]:
    with warnings.catch_warnings():
        # The workers use PIL, numpy and tokenizers, whose threads a fork does not leave half-way; and a number of
        # workers that somebody chose is theirs to choose.
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        loader = iter(
            DataLoader(
                dataset,
                batch_size=None,
                sampler=plan,  # yields what a whole micro-batch reads: a worker makes all of it
                num_workers=num_workers,
                collate_fn=_as_it_is,
                pin_memory=torch.cuda.is_available(),
                worker_init_fn=_start_worker,
            )
        )
    for step in plan.steps:
        yield [[_result(next(loader)) for _ in range(plan.ranks.accumulate)] for _ in plan.updates(step)]


def _result(batch: "Batch | _Failure") -> Batch:
    if isinstance(batch, _Failure):
        raise UserError(batch.message)
    return batch


def _as_it_is(batch: Any) -> Any:
    return batch


def _start_worker(worker: int) -> None:
    # Ctrl-C, and a SIGTERM to the whole job, are for the main process: it saves, and then ends its workers. A worker
    # whose main process is gone ends by itself within seconds (torch's watchdog).
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _open(sources: Sequence[Source], records: Sequence[Sequence[Record]] | None, ranks: Ranks) -> list[_Opened]:
    names = [(source.path, source.split) for source in sources]
    opened = []
    for index, source in enumerate(sources):
        data = records[index] if records is not None else Shards(source.path, source.split)
        usable = np.flatnonzero(_has_texts(data, source.texts))
        where = f"{source.path}, split {source.split!r}"
        if not len(usable):
            raise UserError(f"{where}: no record has {source.texts}")
        if source.texts_per_image < 1:
            raise UserError(f"{where}: texts_per_image must be at least 1, not {source.texts_per_image}")
        ranks.check(source.batch_size, len(usable), where)
        opened.append(_Opened(source, data, usable, names.index(names[index])))
    return opened


def _has_texts(records: Sequence[Record], texts: Texts) -> np.ndarray:
    if isinstance(records, Shards):
        return records.column(f"num_{texts}") > 0
    return np.array([bool(record.captions if texts == "captions" else record.regions) for record in records])


@dataclass(frozen=True)
class _Plan:
    """Which updates each step makes, and what each micro-batch of this rank reads. Runs in the main process."""

    opened: list[_Opened]
    ranks: Ranks
    seed: int
    steps: range

    def updates(self, step: int) -> list[list[int]]:
        """The sources of each update of a step, by number."""
        extras = {index: opened.config.extra_step for index, opened in enumerate(self.opened)}
        before = [[i] for i, p in extras.items() if p is not None and coin(self.seed, i, step, p)]
        return [*before, [i for i, p in extras.items() if p is None]]

    def __iter__(self) -> Iterator[list[_Slice]]:
        samplers = [
            StepSampler(len(opened.usable), opened.config.batch_size, seed=self.seed, source=index)
            for index, opened in enumerate(self.opened)
        ]
        for step in self.steps:
            for sources in self.updates(step):
                for micro in range(self.ranks.accumulate):
                    yield [self._slice(source, samplers[source], step, micro) for source in sources]

    def _slice(self, source: int, sampler: StepSampler, step: int, micro: int) -> _Slice:
        positions, samples = sampler.batch(step, self.ranks.part(sampler.batch_size, micro))
        return _Slice(source, positions, self.opened[source].usable[samples])


class _MicroBatches(Dataset):
    """Reads, decodes and collates what the plan asks for. Runs in the workers."""

    def __init__(self, opened: list[_Opened], recipe: Recipe, seed: int):
        self.opened = [o._replace(usable=o.usable[:0]) for o in opened]  # the plan has them; they need not travel
        self.recipe = recipe
        self.seed = seed

    def __getitem__(self, slices: Iterable[_Slice]) -> Batch | _Failure:
        try:
            return self._read(slices)
        except UserError as error:
            return _Failure(str(error))

    def _read(self, slices: Iterable[_Slice]) -> Batch:
        samples, origins = [], []
        for source, positions, numbers in slices:
            config, records, _, dataset = self.opened[source]
            for position, number in zip(positions.tolist(), numbers.tolist(), strict=True):
                rng = np.random.default_rng([self.seed, _SAMPLE, source, position])
                samples.append(make_sample(records[number], config.texts, config.texts_per_image, self.recipe, rng))
                origins.append(Origin(dataset, number, config.texts == "regions"))
        return collate(samples, origins, self.recipe.text, self.recipe.tokenizer.pad)
