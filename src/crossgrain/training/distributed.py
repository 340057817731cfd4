"""Several processes as one: the only file that names `torch.distributed`.

Each rank has its own slice of the batch. Losses that are means over a batch need nothing but DDP's mean of gradients;
losses that compare across the whole batch (ITC) `gather` their features first.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from crossgrain.objectives.interface import Gather, alone


@dataclass(frozen=True)
class World:
    """The processes of a run, seen from one of them."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def is_main(self) -> bool:
        """True on the one rank that writes and prints."""
        return self.rank == 0

    def gather(self, gradients: Literal["full", "local"] = "full") -> Gather:
        """A function that brings the rows of all ranks together, in the order of ranks.

        "full": the gradient of the run equals that of a single process with the whole batch, at any world size.
        "local": as the original does it (X-VLM xvlm.py:38-43), where the other ranks' share of the gradient is dropped:
        encoders and projections get 1 / world size of it, the temperature all.
        """
        if self.size == 1:
            return alone
        return lambda x: _Gather.apply(x, gradients == "full") if x.is_floating_point() else _all_rows(x)

    def wrap(self, learner: nn.Module) -> nn.Module:
        """`learner` with its gradients averaged over ranks, whichever parameters take part in a loss.

        DDP looks for those that take part in every step. Where it does not, it also changes the order of its sums after
        the first step, and a run that was continued would not end with the bits of an unbroken one.
        """
        if self.size == 1:
            return learner
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(learner, device_ids=devices, find_unused_parameters=True)

    def any(self, flag: bool) -> bool:
        """True on every rank if `flag` is on one. A number on the host: the device is not waited for."""
        if self.size == 1:
            return flag
        count = torch.tensor([int(flag)])
        dist.all_reduce(count)
        return bool(count.item())

    def barrier(self) -> None:
        """Wait for every rank."""
        self.any(False)


ALONE = World()


@contextmanager
def join_world(device: Literal["auto", "cpu", "cuda"] = "auto") -> Iterator[World]:
    """The world that torchrun's environment describes; a single process without it. Left when the context ends."""
    cuda = torch.cuda.is_available() if device == "auto" else device == "cuda"
    size = int(os.environ.get("WORLD_SIZE", "1"))
    place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(place)
    if size == 1:
        yield World(device=place)
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    try:
        yield World(rank=dist.get_rank(), size=size, device=place)
    finally:
        dist.destroy_process_group()


def accumulating(learner: nn.Module) -> AbstractContextManager[Any]:
    """Forward and backward of a micro-batch that is not the last of its update: gradients stay on their rank."""
    return learner.no_sync() if isinstance(learner, DistributedDataParallel) else nullcontext()


def _all_rows(x: Tensor) -> Tensor:
    gathered = x.new_empty(dist.get_world_size() * x.shape[0], *x.shape[1:])
    dist.all_gather_into_tensor(gathered, x.contiguous())
    return gathered


class _Gather(torch.autograd.Function):
    """Rows of all ranks forward; backward, the gradients that all ranks have for the rows of this one, summed.

    DDP then takes the mean over ranks. With W ranks that all compute the same loss L of the gathered rows g, the sum is
    W * dL/dg, its share in DDP's mean dL/dg, and the sum over ranks of what flows on from there the gradient of a
    single process. Parameters behind the gathering (the temperature) have the whole gradient on every rank.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, reduce: bool) -> Tensor:
        ctx.rows, ctx.reduce = x.shape[0], reduce
        return _all_rows(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0].contiguous()
        if ctx.reduce:
            gradient = gradient.clone()
            dist.all_reduce(gradient)
        start = dist.get_rank() * ctx.rows
        return gradient[start : start + ctx.rows], None
