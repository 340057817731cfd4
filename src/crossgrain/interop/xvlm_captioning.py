"""X-VLM's published captioning checkpoints: a body whose whole BERT writes, and its word prediction.

They hold the image encoder and `text_decoder.*`, and nothing of the contrastive half (model_captioning.py).
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from crossgrain.config import UserError
from crossgrain.interop.converted import Converted
from crossgrain.interop.xvlm import convert_xvlm
from crossgrain.nn.weights import read_tensors

DECODER = "text_decoder."


def read_xvlm_captioning(path: Path, **known: Any) -> Converted:
    """Read a checkpoint file (`.th`, `.pth`, `.safetensors`); `known` overrides what is read off the tensors."""
    return convert_xvlm_captioning(read_tensors(path), where=str(path), **known)


def convert_xvlm_captioning(state: Mapping[str, Tensor], *, where: str = "checkpoint", **known: Any) -> Converted:
    """The body, and the objective "mlm", whose weights a `CaptionHead` takes over (`adopt`).

    UserError for a checkpoint of another task.
    """
    if not any(key.startswith(DECODER) for key in state):
        raise UserError(f"{where}: no captioning checkpoint of X-VLM, it has no {DECODER}*")
    theirs = {_encoder(key): key for key in state}
    if len(theirs) < len(state):
        raise UserError(f"{where}: has a text encoder besides its decoder, which captioning checkpoints have not")
    found = convert_xvlm({encoder: state[key] for encoder, key in theirs.items()}, where=where, **known)
    renamed, dropped = (
        {theirs[k]: v for k, v in fate.items()} for fate in (found.report.renamed, found.report.dropped)
    )
    return replace(found, report=replace(found.report, renamed=renamed, dropped=dropped))


def _encoder(key: str) -> str:
    return "text_encoder." + key.removeprefix(DECODER) if key.startswith(DECODER) else key
