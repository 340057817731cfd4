"""The learning rate as a pure function of the step: nothing to save, nothing to resume."""

import math
from typing import Annotated, Literal

from pydantic import Field

from crossgrain.config import UserError, configclass

Fraction = Annotated[float, Field(ge=0, le=1)]


@configclass
class Schedule:
    """Linear warm-up to the peak, then a decay towards `final_fraction` of it.

    `decay`: "linear" and "cosine" reach `final_fraction` one step after the last; "step" multiplies by `factor` at
    each of `milestones` (steps, counted from the start of the stage); "constant" stays at the peak.
    """

    warmup_steps: Annotated[int, Field(ge=0)] = 0
    decay: Literal["linear", "cosine", "step", "constant"] = "linear"
    final_fraction: Fraction = 0.0
    milestones: tuple[int, ...] = ()
    factor: Fraction = 0.1

    def __post_init__(self) -> None:
        if bool(self.milestones) != (self.decay == "step"):
            raise UserError(f"milestones {self.milestones} with decay {self.decay!r}: they belong to decay 'step' only")


def learning_rate(step: int, total_steps: int, peak: float, schedule: Schedule) -> float:
    """The absolute rate of `step` (0 is the first).

    No step is wasted: the first warms up with peak / warmup_steps and the last is still above the final fraction. The
    original (X-VLM scheduler.py) gives its first step the rate 0 and is otherwise one step behind.
    """
    if step < schedule.warmup_steps:
        return peak * (step + 1) / schedule.warmup_steps
    if schedule.decay == "step":
        return peak * schedule.factor ** sum(step >= milestone for milestone in schedule.milestones)
    progress = (step - schedule.warmup_steps) / max(1, total_steps - schedule.warmup_steps)
    shape = {"linear": 1 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress)), "constant": 1.0}
    return peak * (schedule.final_fraction + (1 - schedule.final_fraction) * shape[schedule.decay])
