"""Which samples a step reads: a pure function of (seed, source, step). No torch.

A source is read in a fresh random order every epoch; the epochs stand one after the other in one endless row of
positions, and step s reads positions s * batch_size to (s + 1) * batch_size of it. So nothing needs to be remembered to
go on at any step, every sample comes once an epoch, and a batch may be larger than the data.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from crossgrain.config import UserError

_ORDER, _COIN = 1, 2  # what a random stream is for; keeps the streams of equal numbers apart


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """How a batch is divided: into `accumulate` micro-batches one after the other, each over `world_size` processes."""

    rank: int = 0
    world_size: int = 1
    accumulate: int = 1

    def check(self, batch_size: int, num_samples: int, where: str) -> None:
        """UserError unless a batch of this size divides evenly and there is a sample for every rank."""
        parts = self.world_size * self.accumulate
        if num_samples < self.world_size:
            raise UserError(f"{where}: {self.world_size} ranks, but only {num_samples} samples to share between them")
        if batch_size < 1 or batch_size % parts:
            raise UserError(
                f"{where}: batch_size {batch_size} is not a multiple of {parts} "
                f"({self.world_size} ranks times {self.accumulate} accumulated micro-batches)"
            )

    def part(self, batch_size: int, micro: int) -> tuple[int, int]:
        """Where micro-batch `micro` of this rank stands in a batch: first and last + 1.

        The ranks' parts of one micro-batch, put together in order of rank, are what one process would have read.
        """
        size = batch_size // (self.world_size * self.accumulate)
        first = (micro * self.world_size + self.rank) * size
        return first, first + size


class StepSampler:
    """The order in which the `num_samples` samples of one source are read."""

    def __init__(self, num_samples: int, batch_size: int, *, seed: int, source: int):
        self.num_samples = num_samples
        self.batch_size = batch_size
        self._epoch = lru_cache(maxsize=2)(
            lambda epoch: np.random.default_rng([seed, _ORDER, source, epoch]).permutation(num_samples)
        )

    def batch(self, step: int, part: tuple[int, int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the endless row, and the sample at each, of one step (or of this part of its batch)."""
        first, last = part or (0, self.batch_size)
        positions = np.arange(step * self.batch_size + first, step * self.batch_size + last)
        epochs, offsets = np.divmod(positions, self.num_samples)
        samples = np.empty_like(positions)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            here = epochs == epoch
            samples[here] = self._epoch(epoch)[offsets[here]]
        return positions, samples


def coin(seed: int, source: int, step: int, probability: float) -> bool:
    """The same throw for every process: whether an extra update of `source` comes before this step's."""
    return bool(np.random.default_rng([seed, _COIN, source, step]).random() < probability)
