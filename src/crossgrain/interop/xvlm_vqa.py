"""X-VLM's checkpoints for questions (models/model_vqa.py) as our model with its answer decoder."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from crossgrain.config import UserError, dump_config, read_config
from crossgrain.interop import xvlm
from crossgrain.interop.converted import Converted, bert_rules, check_tied, fill, mlm_rules
from crossgrain.interop.keys import Rule
from crossgrain.interop.xvlm_nlvr import CONTRASTIVE
from crossgrain.models.bert import CROSS_LAYER, EMBEDDING
from crossgrain.models.xvlm import XVLM
from crossgrain.nn.weights import read_tensors
from crossgrain.tasks.vqa_decoder import AnswerDecoder

_DECODER, _WORDS = "text_decoder.bert.", "text_decoder.cls.predictions."


def read_xvlm_vqa(path: Path, **known: Any) -> Converted:
    """Read a checkpoint file (`.th`, `.pth`, `.safetensors`); `known` overrides what is read off the tensors."""
    return convert_xvlm_vqa(read_tensors(path), where=str(path), **known)


def convert_xvlm_vqa(state: Mapping[str, Tensor], *, where: str = "checkpoint", **known: Any) -> Converted:
    """An original state dict in our names, with the head "vqa". `known` holds `XVLM.Config` fields."""
    depth = len({key.split(".")[4] for key in state if key.startswith(f"{_DECODER}encoder.layer.")})
    if not depth:
        raise UserError(f"{where} is no X-VLM for questions: it has no {_DECODER}encoder")
    check_tied(state, f"{_WORDS}decoder.weight", f"{_DECODER}embeddings.word_embeddings.weight", where)
    body = {key: value for key, value in state.items() if not key.startswith("text_decoder.")}
    tree = dump_config(xvlm.infer_config(body, where))
    vision = tree["vision"] | known.pop("vision", {})
    config = read_config(XVLM.Config, tree | known | {"vision": vision}, where)
    absent = tuple(ours for ours, theirs in CONTRASTIVE.items() if theirs not in state)
    head = AnswerDecoder.Config(depth=depth)
    return fill(config, {"vqa": head}, state, rules(config, depth), where, absent)


def rules(config: XVLM.Config, depth: int) -> list[Rule]:
    """Every key of the original and where it goes, for a decoder of `depth` layers."""
    decoder = _DECODER.replace(".", r"\.")
    found = bert_rules(decoder + r"embeddings\.", EMBEDDING, "vqa.embedding")
    for number in range(depth):
        found += bert_rules(rf"{decoder}encoder\.layer\.{number}\.", CROSS_LAYER, f"vqa.layers.{number}")
    found.append(Rule(decoder + r"embeddings\.position_ids", dropped="constant buffer"))
    words = mlm_rules(_WORDS.replace(".", r"\."))
    found += [replace(rule, ours=rule.ours.replace("mlm.", "vqa.words.")) for rule in words]
    return found + xvlm.rules(config)
