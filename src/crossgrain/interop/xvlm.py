"""X-VLM's published checkpoints (github.com/zengyan-97/X-VLM) as our model and objectives.

Reads the pre-training layout (`text_encoder.bert.*`), and the fine-tuning one, where `bert.` is gone and heads are
missing. The architecture is read off the tensors; what they do not tell can be handed in.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from crossgrain.config import UserError, dump_config, read_config
from crossgrain.interop.converted import Converted, bert_rules, check_tied, fill, mlm_rules, reading_sizes
from crossgrain.interop.keys import Rule
from crossgrain.models.bert import CROSS_LAYER, EMBEDDING, LAYER
from crossgrain.models.xvlm import XVLM
from crossgrain.nn.weights import read_tensors
from crossgrain.objectives.box import Box
from crossgrain.objectives.itc import ITC
from crossgrain.objectives.itm import ITM
from crossgrain.objectives.mlm import MLM


def read_xvlm(path: Path, **known: Any) -> Converted:
    """Read a checkpoint file (`.th`, `.pth`, `.safetensors`); `known` overrides what is read off the tensors."""
    return convert_xvlm(read_tensors(path), where=str(path), **known)


def convert_xvlm(state: Mapping[str, Tensor], *, where: str = "checkpoint", **known: Any) -> Converted:
    """An original state dict in our names.

    `known` holds `XVLM.Config` fields, e.g. `num_heads=12` or `vision={"local_attention_depth": 4}`.
    """
    state = dict(state)
    inferred = dump_config(infer_config(state, where))
    vision = inferred["vision"] | known.pop("vision", {})
    config = read_config(XVLM.Config, inferred | known | {"vision": vision}, where)
    return convert_with(config, state, where)


def convert_with(config: XVLM.Config, state: Mapping[str, Tensor], where: str = "checkpoint") -> Converted:
    """An original state dict (or a dict of gradients) in our names, for a model of this configuration."""
    check_tied(state, _CLS + "decoder.weight", "text_encoder.bert.embeddings.word_embeddings.weight", where)
    heads = {name: head for name, (sign, head) in _HEADS.items() if any(key.startswith(sign) for key in state)}
    absent = () if "vision_proj.weight" in state else _CONTRASTIVE
    return fill(config, heads, state, rules(config), where, absent)


_CLS = "text_encoder.cls.predictions."
_CONTRASTIVE = ("image_projection.", "text_projection.", "temperature")  # box checkpoints lack them
_HEADS: dict[str, tuple[str, Any]] = {  # what each leaves in a checkpoint, in the order X-VLM computes them
    "itc": ("temp", ITC.Config()),
    "itm": ("itm_head.", ITM.Config()),
    "mlm": ("text_encoder.cls.", MLM.Config()),
    "box": ("bbox_head.", Box.Config()),
}


def rules(config: XVLM.Config) -> list[Rule]:
    """Every key of the original and where it goes."""
    bert, text_depth, cross_depth = r"text_encoder\.(?:bert\.)?", config.text_depth, config.cross_depth
    found = [
        Rule(r"vision_proj\.(.*)", r"model.image_projection.\1"),
        Rule(r"text_proj\.(.*)", r"model.text_projection.\1"),
        Rule(r"temp", "model.temperature"),
        Rule(r"itm_head\.(.*)", r"itm.head.\1"),
        Rule(r"bbox_head\.(.*)", r"box.head.\1"),
        *mlm_rules(_CLS.replace(".", r"\.")),
        Rule(bert + r"embeddings\.position_ids", dropped="constant buffer"),
        Rule(r"vision_encoder\.(?:.*\.)?(?:attn_mask|relative_position_index|position_ids)", dropped="constant buffer"),
    ]
    found += bert_rules(bert + r"embeddings\.", EMBEDDING, "model.text_embedding")
    for i in range(text_depth + cross_depth):
        cross = i >= text_depth
        mine = f"model.cross_layers.{i - text_depth}" if cross else f"model.text_layers.{i}"
        found += bert_rules(bert + rf"encoder\.layer\.{i}\.", CROSS_LAYER if cross else LAYER, mine)
    return found + _vision_rules(config)


def _vision_rules(config: XVLM.Config) -> list[Rule]:
    body, vision = "model.vision.body.", dump_config(config)["vision"]
    if vision["type"] == "swin":
        # Microsoft's Swin merges patches at the end of stage i, timm's at the start of stage i + 1.
        stages = range(len(vision["depths"]))
        moved = [
            Rule(rf"vision_encoder\.layers\.{i}\.downsample\.(.*)", rf"{body}layers.{i + 1}.downsample.\1")
            for i in stages
        ]
        return [*moved, Rule(r"vision_encoder\.(.*)", body + r"\1")]
    if vision["form"] == "deit":
        return [Rule(r"vision_encoder\.(.*)", body + r"\1")]
    layer = r"vision_encoder\.encoder\.layers\.(\d+)\."
    attention = [
        Rule(layer + rf"self_attn\.{name}_proj\.(.*)", body + r"blocks.\1.attn.qkv.\2", part)
        for part, name in enumerate("qkv")
    ]
    return [
        *attention,
        Rule(layer + r"self_attn\.out_proj\.(.*)", body + r"blocks.\1.attn.proj.\2"),
        Rule(layer + r"layer_norm([12])\.(.*)", body + r"blocks.\1.norm\2.\3"),
        Rule(layer + r"mlp\.(.*)", body + r"blocks.\1.mlp.\2"),
        Rule(r"vision_encoder\.class_embedding", body + "cls_token"),
        Rule(r"vision_encoder\.pos_embed\.weight", body + "pos_embed"),
        Rule(r"vision_encoder\.patch_embed\.weight", body + "patch_embed.proj.weight"),
        Rule(r"vision_encoder\.pre_layrnorm\.(.*)", body + r"norm_pre.\1"),
        Rule(r"vision_encoder\.post_layernorm\.(.*)", body + r"norm.\1"),
    ]


def infer_config(state: Mapping[str, Tensor], where: str = "checkpoint") -> XVLM.Config:
    """The architecture that these tensors belong to.

    Heads of 64 dimensions (as in every published BERT and ViT) and a local attention depth of 4 are assumed: tensors do
    not tell them.
    """
    with reading_sizes(where, "X-VLM"):
        words = _first(state, "embeddings.word_embeddings.weight", where)
        layers = {
            int(k.split(".layer.")[1].split(".")[0]) for k in state if k.startswith("text_encoder") and ".layer." in k
        }
        crossed = {int(k.split(".layer.")[1].split(".")[0]) for k in state if "crossattention.self.query.weight" in k}
        projection = next((v for k, v in state.items() if k == "vision_proj.weight"), None)
        dim = words.shape[1]
        return XVLM.Config(
            vision=_infer_vision(state),
            dim=dim,
            num_heads=max(1, dim // 64),
            mlp_dim=_first(state, "layer.0.intermediate.dense.weight", where).shape[0],
            text_depth=len(layers - crossed),
            cross_depth=len(crossed),
            vocab_size=words.shape[0],
            max_length=_first(state, "embeddings.position_embeddings.weight", where).shape[0],
            embedding_dim=256 if projection is None else projection.shape[0],
        )


def _infer_vision(state: Mapping[str, Tensor]) -> Any:
    from crossgrain.nn.vision import Swin, ViT

    encoder = {k.removeprefix("vision_encoder."): v for k, v in state.items() if k.startswith("vision_encoder.")}
    if not encoder:
        raise KeyError("vision_encoder.*")
    tables = {k: v for k, v in encoder.items() if k.endswith("relative_position_bias_table")}
    if tables:
        depths, heads = [0] * 8, [0] * 8
        for key, table in tables.items():
            stage = int(key.split(".")[1])
            depths[stage] += 1
            heads[stage] = table.shape[1]
        num_stages = sum(1 for d in depths if d)
        window = (math.isqrt(next(iter(tables.values())).shape[0]) + 1) // 2
        patch = encoder["patch_embed.proj.weight"]
        shifted = encoder.get("layers.0.blocks.1.attn_mask")
        # 7, 12 and 15 are the windows of 224, 384 and 480 pixels: eight windows along each side of the first stage.
        windows = math.isqrt(shifted.shape[0]) if shifted is not None else 8
        return Swin.Config(
            image_size=windows * window * patch.shape[-1],
            patch_size=patch.shape[-1],
            embed_dim=patch.shape[0],
            depths=tuple(depths[:num_stages]),
            num_heads=tuple(heads[:num_stages]),
            window_size=window,
        )
    clip = "class_embedding" in encoder
    patch = encoder["patch_embed.weight" if clip else "patch_embed.proj.weight"]
    positions = encoder["pos_embed.weight" if clip else "pos_embed"].shape[-2]
    dim, side = patch.shape[0], math.isqrt(positions - 1)
    layer = "encoder.layers" if clip else "blocks"
    depth = len({k.split(".")[layer.count(".") + 1] for k in encoder if k.startswith(layer + ".")})
    return ViT.Config(
        image_size=side * patch.shape[-1],
        patch_size=patch.shape[-1],
        dim=dim,
        depth=depth,
        num_heads=max(1, dim // 64),
        mlp_ratio=encoder[f"{layer}.0.mlp.fc1.weight"].shape[0] / dim,
        local_attention_depth=min(4, depth),
        form="clip" if clip else "deit",
    )


def _first(state: Mapping[str, Tensor], ending: str, where: str) -> Tensor:
    found = next((v for k, v in state.items() if k.startswith("text_encoder.") and k.endswith(ending)), None)
    if found is None:
        raise UserError(f"{where} is no X-VLM checkpoint: it has no text_encoder....{ending}")
    return found
