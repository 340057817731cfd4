import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossgrain.config import UserError
from crossgrain.data.sampler import Ranks, StepSampler, coin


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 5))
def test_every_sample_comes_once_an_epoch_whatever_the_batch_size(num_samples, batch_size, seed):
    sampler = StepSampler(num_samples, batch_size, seed=seed, source=0)
    row = np.concatenate([sampler.batch(step)[1] for step in range(3 * num_samples // batch_size + 1)])
    for epoch in range(len(row) // num_samples):
        assert sorted(row[epoch * num_samples : (epoch + 1) * num_samples]) == list(range(num_samples))


def test_a_step_is_the_same_however_it_is_come_to():
    unbroken = StepSampler(10, 4, seed=3, source=1)
    steps = [unbroken.batch(step)[1].tolist() for step in range(9)]
    assert [StepSampler(10, 4, seed=3, source=1).batch(step)[1].tolist() for step in reversed(range(9))] == steps[::-1]
    for other in ({"seed": 4, "source": 1}, {"seed": 3, "source": 2}):
        assert StepSampler(10, 4, **other).batch(0)[1].tolist() != steps[0]
    assert len({tuple(np.concatenate(steps)[i : i + 10]) for i in (0, 10, 20)}) == 3  # a new order every epoch


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_ranks_read_together_what_one_process_would_have_read(world_size, accumulate, size):
    batch_size = world_size * accumulate * size
    for micro in range(accumulate):
        alone = Ranks(accumulate=accumulate).part(batch_size, micro)
        parts = [
            Ranks(rank=r, world_size=world_size, accumulate=accumulate).part(batch_size, micro)
            for r in range(world_size)
        ]
        assert [n for first, last in parts for n in range(first, last)] == list(range(*alone))


@pytest.mark.parametrize(
    ("ranks", "batch_size", "message"),
    [
        (Ranks(world_size=9), 9, "data: 9 ranks, but only 8 samples"),
        (Ranks(world_size=2, accumulate=2), 6, r"batch_size 6 is not a multiple of 4 \(2 ranks times 2"),
        (Ranks(), 0, "batch_size 0"),
    ],
)
def test_a_batch_that_cannot_be_divided_is_a_users_mistake(ranks, batch_size, message):
    with pytest.raises(UserError, match=message):
        ranks.check(batch_size, 8, "data")


def test_the_coin_falls_as_often_as_it_should():
    throws = [coin(0, 1, step, 0.3) for step in range(2000)]
    assert np.mean(throws) == pytest.approx(0.3, abs=0.04)
    assert throws[:50] == [coin(0, 1, step, 0.3) for step in range(50)]
