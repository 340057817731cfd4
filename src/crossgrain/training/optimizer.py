"""AdamW over named parameter groups, and beside it SGD or Muon for what is trained so."""

from collections.abc import Sequence
from itertools import islice
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor, nn

from crossgrain.config import UserError, configclass
from crossgrain.training.learner import Learner

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


@configclass
class SGDPart:
    """Parameters of the model whose names start with `prefix`, trained by SGD with momentum.

    Pixel-BERT trains its CNN so, at a rate of 1e-2 where the transformer's is 1e-4: a `factor` of 100. Both rates
    follow one schedule. The decay is a part of the gradient and reaches every parameter, as in SOHO (AdamwSGD.py).
    VL-BERT trains all of itself so for VCR, heads too: the prefix is empty, the factor 1.
    """

    prefix: str  # "": everything, heads included
    factor: Positive = 100.0  # on the rate of the run
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4


@configclass
class OptimizerConfig:
    """AdamW as X-VLM sets it (configs/Pretrain_*.yaml, optim.py).

    The learning rate is not here: a run sets it for every step (training/schedule.py). `new_parameters_factor`
    multiplies it for new parameters: "all" that no published part of a model covers and those of heads, or, where the
    model comes whole from an earlier run, those of "heads" only. `grouping` says what is not decayed: "paper" biases,
    normalisations and other vectors and scalars; "official" what the original's substrings hit, so that the
    normalisations inside heads, the temperature and the class embeddings are decayed there; "all" nothing: VL-BERT
    decays every parameter (pretrain/function/train.py:140-158).
    """

    betas: tuple[Fraction, Fraction] = (0.9, 0.98)
    eps: Positive = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    new_parameters_factor: Positive = 2.0
    new_parameters: Literal["all", "heads"] = "all"
    clip_norm: Positive | None = 1.0
    grouping: Literal["paper", "official", "all"] = "paper"
    sgd_parts: tuple[SGDPart, ...] = ()
    # "muon" trains the weights of linear layers, all but those of few outputs or inputs, with orthogonalised momentum
    # (Jordan et al., 2024), its updates scaled to the size of AdamW's (Liu et al., 2025, arXiv:2502.16982, section
    # 2.2), so that rates and factors mean the same. None of the four papers does; from scratch it needs fewer steps.
    matrices: Literal["adamw", "muon"] = "adamw"


class Together(torch.optim.Optimizer):
    """Several optimizers as one: their groups one after another, the state of all in one place."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]):
        self.parts = tuple(parts)
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = list(islice(groups, len(part.param_groups)))
            part.state = self.state

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step of each, for the parameters that have a gradient."""
        assert closure is None, "the loss is computed before"
        for part in self.parts:
            part.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, which puts new groups and a new state in place of those that the parts know."""
        super().load_state_dict(state_dict)
        self._share()


@runtime_checkable
class _Grown(Protocol):
    """A head that starts from weights of the model or of other heads."""

    def new_parameters(self) -> set[str]: ...


def build_optimizer(learner: Learner, config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW for every trained parameter of `learner`, fused; groups carry "param_names" and a "factor" on the rate.

    With `sgd_parts` those parameters are SGD's, with `matrices: muon` linear layers Muon's; where one of them has all,
    there is that one alone. UserError for a prefix that no trained parameter of the model has.

    torch decays before the update with the bias-corrected eps, transformers 4.12.5 (the original) after it with the raw
    one. The decayed weights differ by lr^2 * weight_decay * update, about 1e-10 of a weight at lr 1e-4.
    """
    new = set()
    if config.new_parameters == "all":
        new = {f"model.{name}" for name in learner.model.new_parameters()}
    for name, head in learner.objectives.items():  # a head is new, but for what it says it takes over
        told = head.new_parameters() if isinstance(head, _Grown) else (part for part, _ in head.named_parameters())
        new |= {f"objectives.{name}.{part}" for part in told}
    muon = _matrices(learner) if config.matrices == "muon" else set()
    groups: dict[tuple[bool, bool, bool], list[tuple[str, nn.Parameter]]] = {}
    by_sgd: dict[SGDPart, list[tuple[str, nn.Parameter]]] = {part: [] for part in config.sgd_parts}
    for name, parameter in learner.named_parameters():
        if not parameter.requires_grad:
            continue
        part = next((part for part in by_sgd if name.startswith(part.prefix and f"model.{part.prefix}")), None)
        if part is not None:
            by_sgd[part].append((name, parameter))
        else:
            kind = name in muon, name in new, _is_decayed(name, parameter, config.grouping)
            groups.setdefault(kind, []).append((name, parameter))
    for part, members in by_sgd.items():
        if not members:
            first = (name.split(".")[0] for name, p in learner.model.named_parameters() if p.requires_grad)
            raise UserError(
                f"optimizer.sgd_parts: no trained parameter is left that starts with {part.prefix!r}: "
                f"there are {', '.join(dict.fromkeys(first))}"
            )

    def of(by_muon: bool) -> list[dict[str, Any]]:
        return [
            {
                "params": members,
                "factor": config.new_parameters_factor if is_new else 1.0,
                "weight_decay": config.weight_decay if decayed else 0.0,
            }
            for (theirs, is_new, decayed), members in groups.items()
            if theirs == by_muon
        ]

    parts: list[torch.optim.Optimizer] = []  # with a rate of 0: `set_rate` gives every step its own
    if rest := of(False):
        parts.append(torch.optim.AdamW(rest, lr=0.0, betas=config.betas, eps=config.eps, fused=True))
    if matrices := of(True):
        parts.append(torch.optim.Muon(matrices, lr=0.0, adjust_lr_fn="match_rms_adamw"))
    if by_sgd:
        sgd = [
            {"params": members, "factor": part.factor, "weight_decay": part.weight_decay, "momentum": part.momentum}
            for part, members in by_sgd.items()
        ]
        parts.append(torch.optim.SGD(sgd, lr=0.0))
    return parts[0] if len(parts) == 1 else Together(parts)


_FEWEST = 32  # outputs and inputs of a layer whose weights Muon trains: a head of two classes has nothing to balance


def _matrices(learner: Learner) -> set[str]:
    """The weights of linear layers, by name."""
    return {
        f"{name}.weight"
        for name, module in learner.named_modules()
        if isinstance(module, nn.Linear) and min(module.weight.shape) >= _FEWEST
    }


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group `rate` times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def _is_decayed(name: str, parameter: Tensor, grouping: Literal["paper", "official", "all"]) -> bool:
    if grouping == "all":
        return True
    if "bias" in name:  # also tables of relative position biases, as in the original
        return False
    if grouping == "official":  # optim.py:17-42; heads name their normalisations by number there, as here
        return not (parameter.ndim < 2 and "norm" in name.lower())
    return parameter.ndim >= 2
