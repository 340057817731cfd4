"""Data sources to a stream of batches, decoded and augmented in worker processes.

What a step reads is a function of (seed, step) alone: neither the number of workers nor where a run began changes a bit
of it, and the ranks of a step read together what one process would have read.
"""

import os
import signal
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch.utils.data import DataLoader, Dataset

from crossgrain.config import Share, UserError, configclass
from crossgrain.data.asks import MATERIAL
from crossgrain.data.collate import Origin, collate
from crossgrain.data.corpus import Corpus
from crossgrain.data.pairs import OtherCaptions, RegionTexts, with_region_texts, with_wrong_captions
from crossgrain.data.partners import Partners, TextsAlone
from crossgrain.data.records import Record
from crossgrain.data.sampler import Ranks, StepSampler, coin
from crossgrain.data.samples import Recipe, Sample, Texts, make_sample, make_text_sample
from crossgrain.data.shards import Shards, texts_of
from crossgrain.data.task_batches import collate_task
from crossgrain.data.task_samples import make_task_sample, references
from crossgrain.data.types import Batch

_SAMPLE, _WRONG = 3, 5  # what the random streams of a sample, and of its wrong captions, are for (see sampler.py)
_MAX_WORKERS = 8


@configclass
class Source:
    """One data set's share of every batch."""

    path: str  # a folder that `crossgrain prepare` wrote; for a corpus a text file, or a folder of them
    split: str = "train"  # a corpus has none
    # "regions": regions and objects with their boxes, and one caption as the whole image; "corpus": text alone. For
    # tasks "questions", "pairs" (statements about two images), "choices" or "expressions": one of each image a step.
    texts: Texts = "captions"
    batch_size: int  # images a step, over all ranks
    texts_per_image: int = 1
    extra_step: float | None = None  # not part of every step, but with this probability an update of its own before it
    weight: Annotated[float, Field(gt=0)] = 1.0  # of its answers in the loss (X-VLM: 0.5 for Visual Genome's questions)
    # For studies: the share of its images that have another's captions and pass for pairs, as on the web; and which
    # texts of regions are left.
    wrong_captions: Share = 0.0
    region_texts: RegionTexts = "all"


Data = Sequence[Record] | Corpus


class _Opened(NamedTuple):
    """A source with its records. Sources of one data set share `dataset`, so that their groups meet."""

    config: Source
    records: Data
    usable: np.ndarray  # numbers of the records that have what `texts` asks for
    donors: np.ndarray  # of those, the ones whose captions others may take; none where no record takes others'
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
    return min(_MAX_WORKERS, max(1, usable_cores() // world_size - 1))


def usable_cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def batches(
    sources: Sequence[Source],
    recipe: Recipe,
    *,
    seed: int,
    first_step: int,
    last_step: int,
    num_workers: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    accumulate: int = 1,
    records: Sequence[Data] | None = None,
) -> Iterator[list[list[Batch]]]:
    """What steps `first_step` to `last_step` - 1 train on: for each a list of updates of `accumulate` micro-batches.

    A step is one update, over all sources but those with `extra_step`; each of these adds one update of its own before
    it when its coin falls so (X-VLM Pretrain.py:82-131). `records` are the sources' data sets where they are open
    already. `num_workers` None takes `default_workers`; 0 decodes in this process. Mistakes are UserErrors, raised here
    or, for a record that cannot be read, at the step that reads it.
    """
    if not any(source.extra_step is None for source in sources):
        raise UserError("no source is part of every step: name one without extra_step")
    if not any(source.extra_step is None and source.texts != "corpus" for source in sources):
        raise UserError("no source with images is part of every step: a corpus is read beside pairs")
    ranks = Ranks(rank=rank, world_size=world_size, accumulate=accumulate)
    opened = _open(sources, records, ranks, recipe)
    plan = _Plan(opened, ranks, seed, range(first_step, last_step))
    num_workers = default_workers(world_size) if num_workers is None else num_workers
    return _run(plan, _MicroBatches(opened, recipe, seed), num_workers)


def in_workers(dataset: Dataset, sampler: Iterable[Any], num_workers: int) -> Iterator[Any]:
    """`dataset[item]` for every item of `sampler`, in order, made in worker processes (0: in this one)."""
    with warnings.catch_warnings():
        # The workers use PIL, numpy and tokenizers, whose threads a fork does not leave half-way; and a number of
        # workers that somebody chose is theirs to choose.
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        return iter(
            DataLoader(
                dataset,
                batch_size=None,
                sampler=sampler,  # an item is what a whole micro-batch reads: a worker makes all of it
                num_workers=num_workers,
                collate_fn=_as_it_is,
                pin_memory=torch.cuda.is_available(),
                worker_init_fn=_start_worker,
            )
        )


def _run(plan: "_Plan", dataset: "_MicroBatches", num_workers: int) -> Iterator[list[list[Batch]]]:
    loader = in_workers(dataset, plan, num_workers)
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


def _open(sources: Sequence[Source], records: Sequence[Data] | None, ranks: Ranks, recipe: Recipe) -> list[_Opened]:
    names = [(source.path, source.split) for source in sources]
    opened = []
    for index, source in enumerate(sources):
        data = records[index] if records is not None else _open_data(source, recipe)
        usable = _usable(data, source)
        where = _where(source)
        if not len(usable):
            kind = "" if source.region_texts == "all" else f" with {source.region_texts}"
            raise UserError(f"{where}: no record has {source.texts}{kind}")
        if source.texts_per_image < 1:
            raise UserError(f"{where}: texts_per_image must be at least 1, not {source.texts_per_image}")
        if source.texts == "corpus" and (source.extra_step is not None or source.texts_per_image > 1):
            raise UserError(f"{where}: a corpus has no extra_step, and texts_per_image 1")
        takes_others = _takes_others(source, recipe)
        donors = np.intersect1d(usable, np.flatnonzero(_has_texts(data, "captions"))) if takes_others else usable[:0]
        if takes_others and len(donors) < 2:
            found = "one record alone has no other's caption" if len(donors) else "no record has captions for another"
            raise UserError(f"{where}: {found} to take (pairs.swapped, wrong_captions)")
        ranks.check(source.batch_size, len(usable), where)
        opened.append(_Opened(source, data, usable, donors, names.index(names[index])))
    return opened


def _where(source: Source) -> str:
    return source.path if source.texts == "corpus" else f"{source.path}, split {source.split!r}"


def _open_data(source: Source, recipe: Recipe) -> Data:
    if source.texts == "corpus":
        return Corpus(source.path)
    return Shards(source.path, source.split, regions=recipe.reads != "pixels", images=recipe.reads != "regions")


def _usable(data: Data, source: Source) -> np.ndarray:
    """Numbers of the records that have what a source asks for."""
    usable = np.flatnonzero(_has_texts(data, source.texts))
    if source.texts != "regions" or source.region_texts == "all" or isinstance(data, Corpus):
        return usable
    left = [with_region_texts(_texts_alone(data, number), source.region_texts) for number in usable.tolist()]
    return usable[[any(region.texts() for region in record.regions) for record in left]]


def _texts_alone(records: Sequence[Record], number: int) -> Record:
    return records.texts(number) if isinstance(records, TextsAlone) else records[number]


def _has_texts(data: Data, texts: Texts) -> np.ndarray:
    if isinstance(data, Corpus):
        return np.ones(len(data), dtype=np.bool_)
    if isinstance(data, Shards):
        return data.column(f"num_{texts}") > 0
    return np.array([bool(texts_of(record, texts)) for record in data])


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
        self.opened = [o._replace(usable=o.usable[:0]) for o in opened]  # the plan's to know: it need not travel
        self.recipe = recipe
        self.seed = seed
        self.partners: dict[int, Partners] = {}

    def __getitem__(self, slices: Sequence[_Slice]) -> Batch | _Failure:
        try:
            return self._read(slices)
        except UserError as error:
            return _Failure(str(error))

    def _read(self, slices: Sequence[_Slice]) -> Batch:
        samples, origins = [], []
        material: Any = self.opened[slices[0].source].config.texts
        for source, positions, numbers in slices:
            opened = self.opened[source]
            for position, number in zip(positions.tolist(), numbers.tolist(), strict=True):
                rng = np.random.default_rng([self.seed, _SAMPLE, source, position])
                samples.append(self._sample(opened, number, rng))
                origins.append(Origin(opened.dataset, number, opened.config.texts == "regions"))
        if material in MATERIAL:
            return collate_task(samples, origins, material, self.recipe)
        return collate(samples, origins, self.recipe)

    def _sample(self, opened: _Opened, number: int, rng: np.random.Generator) -> Sample:
        config, records, recipe = opened.config, opened.records, self.recipe
        if isinstance(records, Corpus):
            return make_text_sample(records.piece(number, recipe.tokenizer, recipe.text, rng), recipe, rng)
        if config.texts in MATERIAL:
            partners = self.partners.setdefault(opened.dataset, Partners(records))
            return make_task_sample(records[number], config.texts, recipe, rng, partners.record, config.weight)
        record = with_region_texts(records[number], config.region_texts)
        others = _other_captions(records, opened.donors, number) if len(opened.donors) else None
        if others is not None and config.wrong_captions:  # the same ones in every step, whoever reads them
            record = with_wrong_captions(record, config.wrong_captions, others, [self.seed, _WRONG, number])
        swapped = others if recipe.pairs.swapped else None
        sample = make_sample(record, config.texts, config.texts_per_image, recipe, rng, swapped)
        wanted = recipe.reading.num_references if recipe.reading is not None else 0
        return replace(sample, target=references(record, wanted, recipe, sample.flipped)) if wanted else sample


def _takes_others(source: Source, recipe: Recipe) -> bool:
    """Whether records of the source may be seen with the captions of others."""
    return source.texts in ("captions", "regions") and bool(recipe.pairs.swapped or source.wrong_captions)


def _other_captions(records: Sequence[Record], donors: np.ndarray, number: int) -> OtherCaptions:
    """Draws the captions of another record than this one, each of `donors` with the same probability."""
    place = int(np.searchsorted(donors, number))
    is_donor = place < len(donors) and donors[place] == number

    def draw(rng: np.random.Generator) -> Sequence[str]:
        other = donors[(place + rng.integers(int(is_donor), len(donors))) % len(donors)]
        return _texts_alone(records, int(other)).captions

    return draw
