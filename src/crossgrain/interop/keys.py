"""Move a published state dict into our names, with an account of every key.

A `Rule` says what happens to the keys that match a pattern: they fill a parameter of ours, alone or stacked with
others, or they are dropped for a stated reason. A key without a rule, a parameter of ours that nothing fills, and a
shape that does not fit are errors: no checkpoint is ever loaded in part.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from crossgrain.config import UserError


@dataclass(frozen=True)
class Rule:
    """`pattern` (a regular expression for the whole key) fills `ours`, as part `part` of a stack along the first axis.

    `ours` may use the pattern's groups (`\\1`). With `dropped`, the key is left out for that reason.
    """

    pattern: str
    ours: str = ""
    part: int = 0
    dropped: str = ""


@dataclass
class Report:
    """What became of every key of a checkpoint."""

    renamed: dict[str, str] = field(default_factory=dict)  # theirs -> ours
    dropped: dict[str, str] = field(default_factory=dict)  # theirs -> reason
    initialised: list[str] = field(default_factory=list)  # ours that the checkpoint lacks and a task may do without

    def summary(self) -> str:
        """One line per kind of fate, for a person."""
        reasons: dict[str, int] = {}
        for reason in self.dropped.values():
            reasons[reason] = reasons.get(reason, 0) + 1
        lines = [f"{len(self.renamed)} tensors read"]
        if self.initialised:
            lines.append(f"{len(self.initialised)} left at their initial values: {', '.join(self.initialised)}")
        return "; ".join(lines + [f"{count} dropped: {reason}" for reason, count in sorted(reasons.items())])


def translate(
    state: Mapping[str, Tensor], rules: Sequence[Rule], shapes: Mapping[str, torch.Size], where: str
) -> tuple[dict[str, Tensor], Report]:
    """`state` under our names, in our shapes (dimensions of size 1 may differ); float16 becomes float32.

    Raises UserError that names unknown keys, parameters that stay empty, and shapes that do not fit.
    """
    compiled = [(re.compile(rule.pattern), rule) for rule in rules]
    parts: dict[str, dict[int, Tensor]] = {}
    report, unknown = Report(), []
    for key, value in state.items():
        match, rule = next(((m, rule) for p, rule in compiled if (m := p.fullmatch(key))), (None, None))
        if match is None or rule is None:
            unknown.append(key)
        elif rule.dropped:
            report.dropped[key] = rule.dropped
        else:
            ours = match.expand(rule.ours)
            report.renamed[key] = ours
            parts.setdefault(ours, {})[rule.part] = value.float() if value.is_floating_point() else value
    missing, surplus = sorted(set(shapes) - set(parts)), sorted(set(parts) - set(shapes))
    if unknown or missing or surplus:
        problems = {"unknown keys": unknown, "nothing fills": missing, "no place for": surplus}
        told = "; ".join(f"{what} {names[:4]} ({len(names)})" for what, names in problems.items() if names)
        raise UserError(f"{where}: {told}")
    filled = {name: _fit(_stack(pieces), shapes[name], name, where) for name, pieces in parts.items()}
    return filled, report


def _stack(pieces: Mapping[int, Tensor]) -> Tensor:
    ordered = [pieces[i] for i in sorted(pieces)]
    return ordered[0] if len(ordered) == 1 else torch.cat(ordered)


def _fit(value: Tensor, shape: torch.Size, name: str, where: str) -> Tensor:
    if [n for n in value.shape if n != 1] != [n for n in shape if n != 1]:
        raise UserError(f"{where}: {name} has shape {tuple(value.shape)}, the model needs {tuple(shape)}")
    return value.reshape(shape)
