"""The learning rate of every step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossgrain.config import RecipeError, read_config
from crossgrain.training.schedule import Schedule, learning_rate


def rates(total: int, **schedule: object) -> list[float]:
    return [learning_rate(step, total, 1.0, Schedule(**schedule)) for step in range(total)]


def test_warm_up_rises_from_the_first_step_and_linear_decay_ends_above_nothing():
    assert rates(6, warmup_steps=2) == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.5, 0.25])


def test_step_decay_multiplies_at_each_milestone():
    assert rates(5, decay="step", milestones=(2, 4)) == pytest.approx([1, 1, 0.1, 0.1, 0.01])


@given(st.sampled_from(["linear", "cosine", "constant"]), st.integers(1, 60), st.integers(0, 20), st.floats(0, 1))
def test_a_rate_never_rises_after_the_warm_up_and_stays_between_its_final_fraction_and_the_peak(
    decay, total, warmup, final
):
    found = rates(total, decay=decay, warmup_steps=warmup, final_fraction=final)
    after = found[warmup:]
    assert all(final - 1e-9 <= rate <= 1 for rate in after) and all(0 < rate <= 1 for rate in found[:warmup])
    assert after == sorted(after, reverse=True)
    assert not after or after[0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"decay": "step"}, "belong to decay 'step' only"),
        ({"milestones": [3]}, "belong to decay 'step' only"),
        ({"decay": "exponential"}, "decay: Input should be 'linear', 'cosine', 'step' or 'constant'"),
        ({"warmup_steps": -1}, "warmup_steps"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused_when_the_recipe_is_read(tree, message):
    with pytest.raises(RecipeError, match=message):
        read_config(Schedule, tree, "recipe.yaml")
