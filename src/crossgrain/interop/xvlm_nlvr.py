"""X-VLM's checkpoints for NLVR2 (models/model_nlvr.py, models/model_nlvr_pretrain.py) as our model and its head.

The original doubles the cross layers in place: of the layers from the first with cross-attention on, those of even
number are the body's here, and see the first image; the others are the head's. Keys and values stand twice there.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crossgrain.config import UserError, dump_config, read_config
from crossgrain.interop import xvlm
from crossgrain.interop.converted import Converted, bert_rules, fill
from crossgrain.interop.keys import Rule
from crossgrain.models.bert import CROSS_LAYER
from crossgrain.models.xvlm import XVLM
from crossgrain.nn.weights import read_tensors
from crossgrain.tasks.nlvr2_heads import Doubled

LAYER = r"text_encoder\.(?:bert\.)?encoder\.layer\."
SHARED = "cross_attention.key_value"
# What the judging layout lacks, and that of text assignment lacks in part: ours, and the key that would fill it.
CONTRASTIVE = {
    "image_projection.": "vision_proj.weight",
    "text_projection.": "text_proj.weight",
    "temperature": "temp",
}


def read_xvlm_nlvr(path: Path, **known: Any) -> Converted:
    """Read a checkpoint file (`.th`, `.pth`, `.safetensors`); `known` overrides what is read off the tensors."""
    return convert_xvlm_nlvr(read_tensors(path), where=str(path), **known)


def convert_xvlm_nlvr(state: Mapping[str, Tensor], *, where: str = "checkpoint", **known: Any) -> Converted:
    """An original state dict in our names, with the head "nlvr2". `known` holds `XVLM.Config` fields."""
    inferred = xvlm.infer_config(state, where)
    if inferred.cross_depth % 2 or not {"cls_head.0.weight", "ta_head.weight"} & state.keys():
        raise UserError(f"{where} is no X-VLM for NLVR2: it has {inferred.cross_depth} cross layers, or no head")
    tree = dump_config(replace(inferred, cross_depth=inferred.cross_depth // 2))
    vision = tree["vision"] | known.pop("vision", {})
    config = read_config(XVLM.Config, tree | known | {"vision": vision}, where)
    _check_shared(state, config, where)
    head = Doubled.Config(
        classifier="mlp" if "cls_head.0.weight" in state else None, text_assignment="ta_head.weight" in state
    )
    absent = tuple(ours for ours, theirs in CONTRASTIVE.items() if theirs not in state)
    return fill(config, {"nlvr2": head}, state, rules(config), where, absent)


def rules(config: XVLM.Config) -> list[Rule]:
    """Every key of the original and where it goes; the first rule that fits counts."""
    own = {ours: theirs for ours, theirs in CROSS_LAYER.items() if ours != SHARED}
    shared = "|".join(re.escape(name) for name in CROSS_LAYER[SHARED])
    found = [
        Rule(r"cls_head\.(.*)", r"nlvr2.classifier.\1"),
        Rule(r"ta_head\.(.*)", r"nlvr2.assignment.\1"),
    ]
    for number in range(config.cross_depth):
        first = config.text_depth + 2 * number
        found += bert_rules(rf"{LAYER}{first}\.", CROSS_LAYER, f"model.cross_layers.{number}")
        found += bert_rules(rf"{LAYER}{first + 1}\.", own, f"nlvr2.second_layers.{number}")
        found.append(Rule(rf"{LAYER}{first + 1}\.(?:{shared})\..*", dropped="shared with the layer of the first image"))
    return found + xvlm.rules(config)


def _check_shared(state: Mapping[str, Tensor], config: XVLM.Config, where: str) -> None:
    """Both layers of a pair must have the same keys and values, or dropping one's would lose something."""
    for key, value in state.items():
        match = re.fullmatch(rf"({LAYER})(\d+)(\.crossattention\.self\.(?:key|value)\..*)", key)
        number = int(match[2]) - config.text_depth if match else 0
        if match and number % 2:
            other = f"{match[1]}{int(match[2]) - 1}{match[3]}"
            if other not in state or not torch.equal(state[other], value):
                raise UserError(f"{where}: {key} differs from {other}, which this model shares")
