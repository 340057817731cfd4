"""VL-BERT's checkpoints that were fine-tuned on RefCOCO+, as our model with the head of grounding by proposals."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from crossgrain.config import UserError, dump_config, read_config
from crossgrain.interop.converted import KIND, Converted, fill
from crossgrain.interop.keys import Rule
from crossgrain.interop.vlbert import VECTORS, infer_config, rules
from crossgrain.models.vlbert import VLBERT
from crossgrain.nn.weights import read_tensors
from crossgrain.tasks.grounding_heads import ProposalHead

HEAD = [
    Rule(r"final_mlp\.0\.dense" + KIND, r"grounding.transform.\1"),
    Rule(r"final_mlp\.2" + KIND, r"grounding.score.\1"),
]
# Fine-tuning hides no region and reads no text alone, so that checkpoints lack these.
UNUSED = ("hidden_region_word", "hidden_feature", "visual_of_text_alone")


def read_vlbert_refcoco(path: Path, **known: Any) -> Converted:
    """Read a checkpoint file (`.model`, `.safetensors`); `known` overrides what is read off the tensors."""
    return convert_vlbert_refcoco(read_tensors(path), where=str(path), **known)


def convert_vlbert_refcoco(state: Mapping[str, Tensor], *, where: str = "checkpoint", **known: Any) -> Converted:
    """An original state dict in our names. `known` holds `VLBERT.Config` fields, e.g. `num_heads=12`.

    UserError for keys without a rule, and where there is no head.
    """
    state = {key.removeprefix("module."): value for key, value in state.items()}
    if not any(key.startswith("final_mlp.") for key in state):
        raise UserError(f"{where} has no final_mlp: it is no VL-BERT that was fine-tuned on RefCOCO+")
    config = read_config(VLBERT.Config, dump_config(infer_config(state, where)) | known, where)
    absent = tuple(name for name in UNUSED if f"{VECTORS[name]}.weight" not in state)
    return fill(config, {"grounding": ProposalHead.Config()}, state, [*HEAD, *rules(config, state)], where, absent)
