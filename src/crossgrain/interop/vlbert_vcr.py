"""VL-BERT's checkpoints for VCR (vcr/modules/resnet_vlbert_for_vcr.py) as our model with its head.

The original wraps the transformer to read four choices at a time, so that its keys open with `vlbert._module.`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from crossgrain.config import UserError, dump_config, read_config
from crossgrain.interop import vlbert
from crossgrain.interop.converted import KIND, Converted, fill
from crossgrain.interop.keys import Rule
from crossgrain.models.vlbert import VLBERT
from crossgrain.nn.weights import read_tensors
from crossgrain.tasks.vcr_heads import Choices

RULES = [
    Rule(r"vlbert\.pooler\.dense" + KIND, r"vcr.pooler.0.\1"),
    Rule(r"final_mlp\.(\d)" + KIND, r"vcr.classifier.\1.\2"),
    Rule(r"cnn_loss_reg\.0\.dense" + KIND, r"vcr.region_class.0.\1"),
    Rule(r"cnn_loss_reg\.2" + KIND, r"vcr.region_class.2.\1"),
    Rule(
        r"image_feature_extractor\.regularizing_predictor\..*",
        dropped="classes from the backbone's features, where the published configurations read the transformer's",
    ),
]


def read_vlbert_vcr(path: Path, **known: Any) -> Converted:
    """Read a checkpoint file (`.model`, `.safetensors`); `known` overrides what is read off the tensors."""
    return convert_vlbert_vcr(read_tensors(path), where=str(path), **known)


def convert_vlbert_vcr(
    state: Mapping[str, Tensor],
    *,
    where: str = "checkpoint",
    loss: Literal["sigmoid", "softmax"] = "sigmoid",
    **known: Any,
) -> Converted:
    """An original state dict in our names, with the head "vcr". `known` holds `VLBERT.Config` fields."""
    state = {key.removeprefix("module.").replace("vlbert._module.", "vlbert.", 1): v for key, v in state.items()}
    if "final_mlp.1.weight" not in state:
        raise UserError(f"{where} is no VL-BERT for VCR: it has no final_mlp.1.weight")
    config = read_config(VLBERT.Config, dump_config(vlbert.infer_config(state, where)) | known, where)
    classes, hidden = state.get("cnn_loss_reg.2.bias"), len(state["final_mlp.1.bias"])
    head = Choices.Config(
        classifier="2fc" if "final_mlp.4.weight" in state else "1fc",
        hidden_dim=hidden,
        loss=loss,
        region_class_weight=0.0 if classes is None else 1.0,
        num_classes=1 if classes is None else len(classes),
    )
    absent = tuple(o for o, theirs in vlbert.VECTORS.items() if f"{theirs}.weight" not in state and o != "end")
    return fill(config, {"vcr": head}, state, [*RULES, *vlbert.rules(config, state)], where, absent)
