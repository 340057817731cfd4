"""A model with the objectives it is trained on: the module whose forward pass is one loss."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crossgrain.data.types import Batch
from crossgrain.models.interface import VisionLanguageModel
from crossgrain.objectives.interface import Gather, Loss, Views, alone


class Learner(nn.Module):
    """What DDP wraps and torch.compile compiles: a batch in, the weighted sum of the objectives' losses out.

    `gather` is handed to the objectives that compare across the batches of all ranks (training/distributed.py).
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        objectives: Mapping[str, Any],
        gather: Gather = alone,
    ):
        super().__init__()
        self.model = model
        self.objectives = nn.ModuleDict(dict(objectives))
        self.weights: dict[str, float] = {name: objective.config.weight for name, objective in objectives.items()}
        self.gather = gather
        self.chosen: tuple[str, ...] = tuple(self.objectives)

    def choose(self, names: tuple[str, ...] | None) -> None:
        """Train on these objectives from now on (a stage's); None for all."""
        self.chosen = tuple(self.objectives) if names is None else names

    def forward(self, batch: Batch) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss to minimise, and scalars to log: "itc/loss" (before weighting), "itm/accuracy", ..."""
        views = Views(self.model, batch, self.gather)
        terms: list[Tensor] = []
        logs: dict[str, Tensor] = {}
        for name in self.chosen:
            loss: Loss = self.objectives[name](views)
            terms.append(self.weights[name] * loss.value.float())
            logs[f"{name}/loss"] = loss.value.detach()
            logs |= {f"{name}/{key}": value.detach() for key, value in loss.metrics.items()}
        return torch.stack(terms).sum(), logs
