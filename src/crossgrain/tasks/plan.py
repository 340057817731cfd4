"""What a recipe says about evaluation: which splits are asked about, and what."""

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any

from crossgrain.config import Choice, configclass
from crossgrain.tasks.grounding import Grounding
from crossgrain.tasks.interface import TASKS
from crossgrain.tasks.retrieval import Retrieval


@configclass
class Evaluation:
    """The first split is the one whose scores stand at the top of scores.json; each other one is a block beside it.

    A split that the data do not have is left out, unless it is the first. `limit` takes only the first records of each,
    `limits` those of single splits, asked or not.
    """

    splits: tuple[str, ...] = ("test", "unseen")
    tasks: tuple[Annotated[Any, Choice(TASKS)], ...] = (Retrieval.Config(), Grounding.Config())
    limit: int | None = None
    limits: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.splits or not self.tasks:
            raise ValueError("evaluation needs at least one split and one task")
        for limit in (self.limit, *self.limits.values()):
            if limit is not None and limit < 1:
                raise ValueError(f"limit is a number of records, at least 1, not {limit}")

    def limit_of(self, split: str) -> int | None:
        """How many records of a split are asked about at most."""
        limits = [limit for limit in (self.limit, self.limits.get(split)) if limit is not None]
        return min(limits, default=None)
