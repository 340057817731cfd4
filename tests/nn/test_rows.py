"""Rows that are taken many times add up their gradients as `index_select` does, whatever the number format."""

import torch

from crossgrain.nn.rows import take_rows


def test_values_and_gradients_are_those_of_index_select():
    x = torch.randn(5, 3, 4, dtype=torch.float64, requires_grad=True)
    rows = torch.tensor([4, 0, 0, 2, 4, 4, 0])  # row 1 and 3 are not taken
    weights = torch.randn(7, 3, 4, dtype=torch.float64)
    taken = take_rows(x, rows)
    assert torch.equal(taken, x[rows])
    ours, theirs = (torch.autograd.grad((y * weights).sum(), x)[0] for y in (taken, x.index_select(0, rows)))
    torch.testing.assert_close(ours, theirs)
    assert not ours[1].any() and not ours[3].any()
    assert torch.autograd.gradcheck(lambda x: take_rows(x, rows), x)


def test_many_small_gradients_are_summed_in_float32():
    x = torch.zeros(1, 8, dtype=torch.bfloat16, requires_grad=True)
    take_rows(x, torch.zeros(4096, dtype=torch.long)).sum().backward()
    assert x.grad is not None and (x.grad == 4096).all()  # one by one, bfloat16 would stop at 256
