"""What a recipe says about evaluation: which splits are asked about, and what."""

from typing import Annotated, Any

from crossgrain.config import Choice, configclass
from crossgrain.tasks.grounding import Grounding
from crossgrain.tasks.interface import TASKS
from crossgrain.tasks.retrieval import Retrieval


@configclass
class Evaluation:
    """The first split is the one whose scores stand at the top of scores.json; each other one is a block beside it.

    A split that the data do not have is left out, unless it is the first. `limit` takes only the first records of each.
    """

    splits: tuple[str, ...] = ("test", "unseen")
    tasks: tuple[Annotated[Any, Choice(TASKS)], ...] = (Retrieval.Config(), Grounding.Config())
    limit: int | None = None

    def __post_init__(self) -> None:
        if not self.splits or not self.tasks:
            raise ValueError("evaluation needs at least one split and one task")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit is a number of records, at least 1, not {self.limit}")
