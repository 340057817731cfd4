"""Which number format the forward pass computes in. Parameters, optimizer state and losses are float32 throughout."""

from typing import Literal

import torch

Resolved = Literal["float32", "bfloat16"]
Precision = Literal["auto", Resolved]


def resolve_precision(precision: Precision, device: torch.device) -> Resolved:
    """What "auto" means on `device`: bfloat16 where the hardware multiplies matrices in it, float32 elsewhere."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return "bfloat16" if native else "float32"


def autocast(precision: Resolved, device: torch.device) -> torch.autocast:
    """The context of a forward pass. bfloat16 has the range of float32, so that gradients need no scaling."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
