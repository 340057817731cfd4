"""AdamW over named parameter groups."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from crossgrain.config import configclass
from crossgrain.training.learner import Learner

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


@configclass
class OptimizerConfig:
    """AdamW as X-VLM sets it (configs/Pretrain_*.yaml, optim.py).

    The learning rate is not here: a run sets it for every step (training/schedule.py). `new_parameters_factor`
    multiplies it for parameters that no pre-trained part covers. `grouping` says what is not decayed: "paper" biases,
    normalisations and other vectors and scalars; "official" what the original's substrings hit, so that the
    normalisations inside heads, the temperature and the class embeddings are decayed there.
    """

    betas: tuple[Fraction, Fraction] = (0.9, 0.98)
    eps: Positive = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    new_parameters_factor: Positive = 2.0
    clip_norm: Positive | None = 1.0
    grouping: Literal["paper", "official"] = "paper"


def build_optimizer(learner: Learner, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW for every trained parameter of `learner`, fused; groups carry "param_names" and a "factor" on the rate.

    torch decays before the update with the bias-corrected eps, transformers 4.12.5 (the original) after it with the raw
    one. The decayed weights differ by lr^2 * weight_decay * update, about 1e-10 of a weight at lr 1e-4.
    """
    new = {f"model.{name}" for name in learner.model.new_parameters()}
    groups: dict[tuple[bool, bool], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in learner.named_parameters():
        if parameter.requires_grad:
            is_new = name in new or name.startswith("objectives.")
            groups.setdefault((is_new, _is_decayed(name, parameter, config.grouping)), []).append((name, parameter))
    return torch.optim.AdamW(
        [
            {
                "params": members,
                "factor": config.new_parameters_factor if is_new else 1.0,
                "weight_decay": config.weight_decay if decayed else 0.0,
            }
            for (is_new, decayed), members in groups.items()
        ],
        lr=0.0,  # `set_rate` gives every step its own
        betas=config.betas,
        eps=config.eps,
        fused=True,
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group `rate` times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def _is_decayed(name: str, parameter: Tensor, grouping: Literal["paper", "official"]) -> bool:
    if "bias" in name:  # also tables of relative position biases, as in the original
        return False
    if grouping == "official":  # optim.py:17-42; heads name their normalisations by number there, as here
        return not (parameter.ndim < 2 and "norm" in name.lower())
    return parameter.ndim >= 2
