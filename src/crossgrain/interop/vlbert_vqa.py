"""VL-BERT's checkpoints for questions (vqa/modules/resnet_vlbert_for_vqa.py) as our model with its classifier."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from crossgrain.config import UserError, dump_config, read_config
from crossgrain.interop import vlbert
from crossgrain.interop.converted import KIND, Converted, fill
from crossgrain.interop.keys import Rule
from crossgrain.models.vlbert import VLBERT
from crossgrain.nn.weights import read_tensors
from crossgrain.tasks.vqa_heads import AnswerAtMask

# CLASSIFIER_TYPE of the original by its last key, and where the parts of each stand in ours.
TYPES: dict[str, tuple[Any, dict[str, int]]] = {
    "final_mlp.0.dense.weight": ("transform", {r"0\.dense": 0, r"0\.LayerNorm": 2, "2": 4}),
    "final_mlp.4.weight": ("2fc", {"1": 1, "4": 4}),
    "final_mlp.1.weight": ("1fc", {"1": 1}),
}


def read_vlbert_vqa(path: Path, **known: Any) -> Converted:
    """Read a checkpoint file (`.model`, `.safetensors`); `known` overrides what is read off the tensors."""
    return convert_vlbert_vqa(read_tensors(path), where=str(path), **known)


def convert_vlbert_vqa(state: Mapping[str, Tensor], *, where: str = "checkpoint", **known: Any) -> Converted:
    """An original state dict in our names, with the head "vqa". `known` holds `VLBERT.Config` fields."""
    state = {key.removeprefix("module."): value for key, value in state.items()}
    kind = next((kind for key, kind in TYPES.items() if key in state), None)
    if kind is None:
        raise UserError(f"{where} is no VL-BERT for questions: it has no final_mlp")
    config = read_config(VLBERT.Config, dump_config(vlbert.infer_config(state, where)) | known, where)
    layers, places = kind
    last = max(places.values())
    head = AnswerAtMask.Config(
        layers=layers,
        hidden_dim=len(state["final_mlp.1.bias"]) if layers == "2fc" else None,
        from_words=False,  # these weights are learnt
        num_answers=next(len(state[f"final_mlp.{theirs}.bias"]) for theirs, ours in places.items() if ours == last),
    )
    absent = tuple(o for o, theirs in vlbert.VECTORS.items() if f"{theirs}.weight" not in state and o != "end")
    final = [Rule(rf"final_mlp\.{theirs}{KIND}", rf"vqa.layers.{ours}.\1") for theirs, ours in places.items()]
    return fill(config, {"vqa": head}, state, [*final, *vlbert.rules(config, state)], where, absent)
