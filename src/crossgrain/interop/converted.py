"""A published checkpoint in our terms, and the rules that every BERT in one needs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from crossgrain.config import UserError, config_owner
from crossgrain.interop.keys import Report, Rule, translate

KIND = r"\.(weight|bias)"


@dataclass(frozen=True)
class Converted:
    """The configurations of a model and of its objectives, the weights of each, and the account of every key."""

    config: Any
    heads: dict[str, Any]  # the configuration of each objective
    model: dict[str, Tensor]
    objectives: dict[str, dict[str, Tensor]]
    report: Report

    def build(self) -> tuple[Any, dict[str, nn.Module]]:
        """The model and its objectives with these weights, in evaluation mode."""
        model = config_owner(self.config)(self.config.from_scratch())
        initial = {k: v for k, v in model.state_dict().items() if k in self.report.initialised}
        model.load_state_dict(initial | self.model)
        heads = build_heads(model, self.heads)
        for name, head in heads.items():
            head.load_state_dict(self.objectives[name])
            head.eval()
        return model.eval(), heads


@contextmanager
def reading_sizes(where: str, system: str) -> Iterator[None]:
    """A context that reads an architecture off tensors: UserError where one is missing, or not of the expected form."""
    try:
        yield
    except UserError:
        raise
    except KeyError as error:
        raise UserError(f"{where} is no {system} checkpoint: it has no {error.args[0]}") from None
    except (IndexError, ValueError) as error:
        raise UserError(f"{where} is no {system} checkpoint: its tensors have other forms ({error})") from None


def build_heads(model: nn.Module, heads: Mapping[str, Any]) -> dict[str, nn.Module]:
    """Freshly initialised objectives of these configurations, in their order."""
    return {name: config_owner(config)(config, model) for name, config in heads.items()}


def fill(
    config: Any,
    heads: Mapping[str, Any],
    state: Mapping[str, Tensor],
    rules: Sequence[Rule],
    where: str,
    absent: tuple[str, ...] = (),
) -> Converted:
    """`state` (weights, or gradients) for a model of this configuration with these objectives.

    Parameters of the model whose names open with one of `absent` stay at their initial values. Raises UserError for any
    other that nothing fills, and for keys without a rule.
    """
    with torch.device("meta"):
        model = config_owner(config)(config.from_scratch())
        modules = build_heads(model, heads)
    left = [name for name in model.state_dict() if absent and name.startswith(absent)]
    shapes = {f"model.{k}": v.shape for k, v in model.state_dict().items() if k not in left}
    for name, head in modules.items():
        shapes |= {f"{name}.{k}": v.shape for k, v in head.state_dict().items()}
    filled, report = translate(state, rules, shapes, where)
    report.initialised.extend(left)
    by_owner: dict[str, dict[str, Tensor]] = {"model": {}} | {name: {} for name in modules}
    for key, value in filled.items():
        owner, _, name = key.partition(".")
        by_owner[owner][name] = value
    return Converted(config, dict(heads), by_owner.pop("model"), by_owner, report)


def bert_rules(prefix: str, names: Mapping[str, tuple[str, ...]], ours: str) -> list[Rule]:
    """Rules for BERT's modules `names` (models/bert.py) below the pattern `prefix`, into our module `ours`."""
    return [
        Rule(prefix + name.replace(".", r"\.") + KIND, rf"{ours}.{mine}.\1", part)
        for mine, theirs in names.items()
        for part, name in enumerate(theirs)
    ]


def mlm_rules(prefix: str) -> list[Rule]:
    """Rules for BERT's head of masked words below the pattern `prefix`, whose output matrix is the word embedding."""
    return [
        Rule(prefix + r"transform\.dense" + KIND, r"mlm.dense.\1"),
        Rule(prefix + r"transform\.LayerNorm" + KIND, r"mlm.norm.\1"),
        Rule(prefix + "bias", "mlm.bias"),
        Rule(prefix + r"decoder\.weight", dropped="tied to the word embeddings"),
        Rule(prefix + r"decoder\.bias", dropped="tied to the bias of the predictions"),
    ]


def check_tied(state: Mapping[str, Tensor], decoder: str, words: str, where: str) -> None:
    """The output words of masked language modelling must be the input words, or dropping them would lose something."""
    if decoder in state and words in state and not torch.equal(state[decoder], state[words]):
        raise UserError(f"{where}: the MLM decoder differs from the word embeddings, which this model ties")
