"""Rows taken many times each: an image's keys and values for every text that meets it."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


class _TakeRows(torch.autograd.Function):
    """`index_select` whose backward pass is a matrix product with the rows' places.

    That of torch adds row by row, on a CPU in one thread, on a GPU in any order. Here it is parallel, deterministic,
    and sums in float32 whatever it is given.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.num_rows = len(x)
        return x.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (rows,), (grad,) = ctx.saved_tensors, grads
        places = torch.arange(ctx.num_rows, device=rows.device)[:, None] == rows
        return (places.to(grad.dtype) @ grad.flatten(1)).unflatten(1, grad.shape[1:]), None


def take_rows(x: Float[Tensor, "U *shape"], rows: Int[Tensor, " K"]) -> Float[Tensor, "K *shape"]:
    """Row `rows[k]` of x for every k; each row of x may be taken often."""
    return _TakeRows.apply(x, rows)
