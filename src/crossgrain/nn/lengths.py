"""Short texts that do not pay for long ones.

A batch is padded to one length so that a compiled graph sees one shape. A CPU gains nothing from that: where captions
and short phrases stand in one batch, it runs the layers over each kind with the padding of its own.

Shape letters: B rows, L padded length, M positions, D width.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

WORTHWHILE = 0.85  # share of the padded tokens below which two groups are cheaper than one
FEWEST = 512  # tokens of a batch below which nothing is gained


class Group(NamedTuple):
    """Rows of a batch, and how many of their tokens may be real."""

    rows: Int[Tensor, " K"]
    length: int


@runtime_checkable
class Last(Protocol):
    """What `Fused` reads of a last layer (nn/transformer.LastLayer)."""

    @property
    def place(self) -> tuple[int, torch.device]:
        """The number of rows, and where they are."""
        ...

    def at(self, positions: Tensor) -> Tensor:
        """The output at these positions of each row."""
        ...

    def whole(self) -> Tensor:
        """The output everywhere."""
        ...


def groups_by_length(mask: Bool[Tensor, "B L"]) -> list[Group] | None:
    """The rows as short ones and long ones, where that saves work; None where the batch had better stay whole."""
    if mask.device.type != "cpu" or torch.compiler.is_compiling() or mask.numel() < FEWEST:
        return None
    ends = (mask * torch.arange(1, mask.shape[1] + 1)).amax(1)
    longest, order = int(ends.max()), ends.argsort(stable=True)
    ascending = ends[order].tolist()
    cost, cut = min((n * ascending[n - 1] + (len(ascending) - n) * longest, n) for n in range(1, len(ascending) + 1))
    if cost > WORTHWHILE * mask.numel():
        return None
    if ascending[cut - 1] == longest:
        return [Group(order, longest)]
    return [Group(order[:cut], ascending[cut - 1]), Group(order[cut:], longest)]


def run_by_length(
    x: Float[Tensor, "B L D"], mask: Bool[Tensor, "B L"], run: Callable[[Tensor, Tensor], Tensor]
) -> Float[Tensor, "B L D"]:
    """`run(x, mask)` of each group of rows; zeros where padding was left out."""
    groups = groups_by_length(mask)
    if groups is None:
        return run(x, mask)
    parts = [run(x[rows, :length], mask[rows, :length]) for rows, length in groups]
    return _in_order([F.pad(part, (0, 0, 0, x.shape[1] - part.shape[1])) for part in parts], groups)


class Grouped:
    """The last layers of several groups, read as one."""

    def __init__(self, lasts: list[Last], groups: list[Group], length: int):
        self.lasts, self.groups, self.length = lasts, groups, length

    @property
    def place(self) -> tuple[int, torch.device]:
        """The number of rows, and where they are."""
        return sum(len(rows) for rows, _ in self.groups), self.lasts[0].place[1]

    def at(self, positions: Int[Tensor, "B M"]) -> Float[Tensor, "B M D"]:
        """The output at M positions of each row; positions in the padding give that of the last one before it."""
        pairs = zip(self.lasts, self.groups, strict=True)
        parts = [last.at(positions.index_select(0, rows).clamp(max=length - 1)) for last, (rows, length) in pairs]
        return _in_order(parts, self.groups)

    def whole(self) -> Float[Tensor, "B L D"]:
        """The output everywhere; zeros where padding was left out."""
        parts = [last.whole() for last in self.lasts]
        return _in_order([F.pad(part, (0, 0, 0, self.length - part.shape[1])) for part in parts], self.groups)


def _in_order(parts: list[Tensor], groups: list[Group]) -> Tensor:
    """The rows of all groups in the order of the batch."""
    return torch.cat(parts).index_select(0, torch.cat([group.rows for group in groups]).argsort())
