"""Published weights of parts of a model: read without running code, from a file, a folder or a model hub."""

import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from crossgrain.config import UserError

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file: .safetensors, or a pickle that holds nothing but tensors and containers.

    The usual wrappers ("model", "state_dict", "module." before every name) are opened. Raises UserError where the file
    cannot be read safely.
    """
    if not path.is_file():
        raise UserError(f"no weights at {path}")
    if path.suffix == ".safetensors":
        try:
            return _unwrapped(load_file(path))
        except Exception as error:
            raise UserError(f"{path} is not a safetensors file: {error}") from None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"{path} cannot be loaded as plain tensors: {_reason(error)}") from None
    for wrapper in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    tensors = (
        {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)}
        if isinstance(state, dict)
        else {}
    )
    if not tensors:
        raise UserError(f"{path} holds no tensors")
    return _unwrapped(tensors)


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as they were named before the model was wrapped for several GPUs."""
    wrapped = all(name.startswith("module.") for name in tensors)
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()} if wrapped else tensors


def _reason(error: Exception) -> str:
    """What torch found in a file that it does not open, without its advice and the codes for a terminal."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    found = re.search(r"Unsupported [^.\n]*[\w.]+\w", text)
    first = found[0] if found else next(iter(text.splitlines()), type(error).__name__)
    return "".join(character for character in first if character.isprintable())


def looks_like_path(name: str) -> bool:
    """Whether a `weights` value means a file or folder rather than a name on a hub."""
    path = Path(name)
    return path.exists() or path.is_absolute() or name.startswith((".", "~")) or bool(path.suffix in _SUFFIXES)


_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".th"}


def read_weights(name: str) -> dict[str, Tensor]:
    """Tensors from a file, from a folder with `model.safetensors` or `pytorch_model.bin`, or from the model hub."""
    path = Path(name).expanduser()
    if path.is_dir():
        found = next((path / file for file in WEIGHT_FILES if (path / file).is_file()), None)
        if found is None:
            raise UserError(f"{path} holds none of {', '.join(WEIGHT_FILES)}")
        return read_tensors(found)
    if looks_like_path(name):
        return read_tensors(path)
    from huggingface_hub import hf_hub_download

    problems: list[str] = []
    for file in WEIGHT_FILES:
        try:
            return read_tensors(Path(hf_hub_download(name, file)))
        except UserError:
            raise
        except Exception as error:
            problems.append(f"{file}: {type(error).__name__}")
    raise UserError(
        f"weights {name!r}: no such file or folder here, and the model hub gave none ({'; '.join(problems)}); "
        "give a path, or connect to the network once"
    )


def read_vision_weights(name: str) -> dict[str, Tensor]:
    """Tensors of an image encoder: a file or folder, or a model name of timm's (downloaded once and kept)."""
    if looks_like_path(name):
        return read_weights(name)
    import timm

    if not timm.is_model(name):
        raise UserError(f"weights {name!r} are neither a file nor a model that timm knows (timm.list_pretrained())")
    try:
        return timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    except Exception as error:
        raise UserError(
            f"weights {name!r} could not be downloaded ({type(error).__name__}): "
            "give a file, or connect to the network once"
        ) from None
