"""VL-BERT's published checkpoints (github.com/jackroos/VL-BERT) as our model and objectives.

Reads the layout of pre-training, with stored features or end to end. The architecture is read off the tensors; what
they do not tell can be handed in.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from crossgrain.config import UserError, dump_config, read_config
from crossgrain.interop.converted import KIND, Converted, bert_rules, check_tied, fill, mlm_rules, reading_sizes
from crossgrain.interop.keys import Rule
from crossgrain.models.bert import LAYER
from crossgrain.models.vlbert import VLBERT
from crossgrain.nn.fast_rcnn import FastRCNN
from crossgrain.nn.weights import read_tensors
from crossgrain.objectives.itm import ITM
from crossgrain.objectives.mlm import MLM
from crossgrain.objectives.region_class import RegionClass

GEOMETRY_DIM = 2048  # 4 numbers, 256 sines and as many cosines of each (fast_rcnn.py:170-173)
ROBERTA_POSITIONS = 514  # 512 behind the padding's
RESNETS = {6: "resnet50", 23: "resnet101", 36: "resnet152"}  # by the number of blocks in C4
EMBEDDINGS = {
    "text_embedding.token": ("word_embeddings",),
    "text_embedding.position": ("position_embeddings",),
    "text_embedding.segment": ("token_type_embeddings",),
    "text_embedding.norm": ("embedding_LayerNorm",),
    "word_visual_norm": ("visual_ln_text",),
    "region_visual_norm": ("visual_ln_object",),
}
# Vectors of the model that the original keeps as tables of one row.
VECTORS = {
    "region_word": "object_linguistic_embeddings",
    "hidden_region_word": "object_mask_word_embedding",
    "hidden_feature": "object_mask_visual_embedding",
    "visual_of_text_alone": "aux_text_visual_embedding",
    "end": "vlbert.end_embedding",
}


def read_vlbert(path: Path, **known: Any) -> Converted:
    """Read a checkpoint file (`.model`, `.safetensors`); `known` overrides what is read off the tensors."""
    return convert_vlbert(read_tensors(path), where=str(path), **known)


def convert_vlbert(state: Mapping[str, Tensor], *, where: str = "checkpoint", **known: Any) -> Converted:
    """An original state dict in our names. `known` holds `VLBERT.Config` fields, e.g. `num_heads=12`."""
    state = {key.removeprefix("module."): value for key, value in state.items()}
    config = read_config(VLBERT.Config, dump_config(infer_config(state, where)) | known, where)
    return convert_with(config, state, where)


def convert_with(config: VLBERT.Config, state: Mapping[str, Tensor], where: str = "checkpoint") -> Converted:
    """An original state dict (or a dict of gradients) in our names, for a model of this configuration."""
    check_tied(state, "vlbert.mlm_head.predictions.decoder.weight", "vlbert.word_embeddings.weight", where)
    # Pre-training without text-only rows knows no stand-in for the image, and fine-tuning hides no regions.
    needed = ("hidden_region_word", "hidden_feature") if "vlbert.mvrc_head.region_cls_pred.weight" in state else ()
    absent = [
        ours for ours, theirs in VECTORS.items() if f"{theirs}.weight" not in state and ours not in (*needed, "end")
    ]
    return fill(config, heads_of(state), state, rules(config, state), where, tuple(absent))


def heads_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The objectives whose heads these tensors hold; all of them read one pass over hidden words and regions."""
    heads: dict[str, Any] = {}
    if "vlbert.mlm_head.predictions.bias" in state:
        heads["mlm"] = MLM.Config(image="masked")
    classes = state.get("vlbert.mvrc_head.region_cls_pred.bias")
    if classes is not None:
        heads["region_class"] = RegionClass.Config(num_classes=len(classes), soft=True, head="transform")
    if "vlbert.relationsip_head.caption_image_relationship.bias" in state:
        heads["itm"] = ITM.Config(negatives="swapped", head="pooler", image="masked", text="masked")
    return heads


def rules(config: VLBERT.Config, state: Mapping[str, Tensor]) -> list[Rule]:
    """Every key of the original and where it goes."""
    matched = "itm" in heads_of(state)
    pooler = Rule(r"vlbert\.pooler\.dense" + KIND, r"itm.head.0.\1")
    unread = Rule(pooler.pattern, dropped="pooled [CLS], which nothing but a relationship head reads")
    return [
        *bert_rules(r"vlbert\.", EMBEDDINGS, "model"),
        *(Rule(theirs.replace(".", r"\.") + r"\.weight", f"model.{ours}") for ours, theirs in VECTORS.items()),
        Rule(r"image_feature_extractor\.obj_downsample\.1" + KIND, r"model.visual_embedding.linear.\1"),
        Rule(r"image_feature_extractor\.backbone\.(.*)", r"model.fast_rcnn.body.\1"),
        Rule(r"image_feature_extractor\.roi_head_feature_extractor\.(.*)", r"model.fast_rcnn.body.layer4.\1"),
        Rule(r"image_feature_extractor\.head\.0\..*", dropped="roi_head_feature_extractor under a second name"),
        *(
            rule
            for i in range(config.depth)
            for rule in bert_rules(rf"vlbert\.encoder\.layer\.{i}\.", LAYER, f"model.stream.layers.{i}")
        ),
        *mlm_rules(r"vlbert\.mlm_head\.predictions\."),
        Rule(r"vlbert\.mvrc_head\.transform\.dense" + KIND, r"region_class.head.0.\1"),
        Rule(r"vlbert\.mvrc_head\.region_cls_pred" + KIND, r"region_class.head.2.\1"),
        Rule(r"vlbert\.relationsip_head\.caption_image_relationship" + KIND, r"itm.head.2.\1"),
        pooler if matched else unread,
    ]


def infer_config(state: Mapping[str, Tensor], where: str = "checkpoint") -> VLBERT.Config:
    """The architecture that these tensors belong to; heads of 64 dimensions are assumed, as in every published BERT."""
    with reading_sizes(where, "VL-BERT"):
        num_words, dim = state["vlbert.word_embeddings.weight"].shape
        if len(state["vlbert.position_embeddings.weight"]) == ROBERTA_POSITIONS:
            raise UserError(
                f"{where} was built on RoBERTa, which counts positions from 2 on: there is no such model here"
            )
        return VLBERT.Config(
            dim=dim,
            depth=len({key.split(".")[3] for key in state if key.startswith("vlbert.encoder.layer.")}),
            num_heads=max(1, dim // 64),
            mlp_dim=len(state["vlbert.encoder.layer.0.intermediate.dense.bias"]),
            vocab_size=num_words,
            max_length=len(state["vlbert.position_embeddings.weight"]),
            feature_dim=state["image_feature_extractor.obj_downsample.1.weight"].shape[1] - GEOMETRY_DIM,
            geometry_dim=GEOMETRY_DIM,
            fast_rcnn=_infer_backbone(state),
        )


def _infer_backbone(state: Mapping[str, Tensor]) -> FastRCNN.Config | None:
    """None where features were stored; otherwise a network in the form of Caffe's, which all published ones have."""
    blocks = {k.split(".")[3] for k in state if k.startswith("image_feature_extractor.backbone.layer3.")}
    if not blocks:
        return None
    if len(blocks) not in RESNETS:
        raise ValueError(f"a ResNet with {len(blocks)} blocks in C4")
    return FastRCNN.Config(name=RESNETS[len(blocks)], stride_in_1x1=True, pixels="caffe")
