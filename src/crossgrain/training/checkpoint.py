"""Run folders and checkpoints.

    RUN/recipe.yaml                     every value of the run
    RUN/checkpoints/step_00001000/      model, objectives and training .safetensors, state.json, recipe.yaml

A checkpoint is written under another name, flushed to the disk and renamed when it is whole: a folder called step_* is
complete, whenever the process was killed. Checkpoints are data, never code: safetensors and JSON.
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from crossgrain.config import UserError, dump_config, dump_recipe, read_yaml
from crossgrain.documents.writing import flush
from crossgrain.training.learner import Learner

NEUTRAL_KEYS = frozenset(
    {"log_every", "save_every", "keep", "num_workers", "tensorboard"}
)  # the weights do not see them
_NAME = re.compile(r"step_(\d{8,})")


@dataclass(frozen=True)
class State:
    """What a checkpoint says about itself (state.json)."""

    step: int  # steps done; the next one has this number, counted from 0
    stage: str
    precision: str
    world_size: int
    versions: dict[str, str]
    score: float | None = None  # of validation, higher is better


def open_run(folder: Path, recipe: Any, write: bool = True) -> Path | None:
    """Prepare a run folder for `recipe` and give its newest checkpoint; None starts at the beginning.

    With several ranks, one has to `write`. UserError if the folder holds the run of another recipe.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: name a folder for the run")
    saved = folder / "recipe.yaml"
    if saved.exists():
        given = dump_config(recipe)
        try:
            check_same_recipe(read_yaml(saved.read_text(encoding="utf-8"), str(saved)), given)
        except UserError as error:
            raise UserError(
                f"{folder} holds another run ({error}): continue it as it was, or name a new folder"
            ) from None
    elif write:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / ".recipe.yaml"
        partial.write_text(dump_recipe(recipe), encoding="utf-8")
        partial.replace(saved)
    return latest(folder / "checkpoints")


def check_same_recipe(saved: Any, given: Any) -> None:
    """UserError naming the first paths where two recipes differ, except in `NEUTRAL_KEYS`."""
    differences = list(_differences(saved, given, ""))
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise UserError("; ".join(differences[:3]) + more)


def _differences(saved: Any, given: Any, path: str) -> Any:
    if isinstance(saved, list | tuple) and isinstance(given, list | tuple) and len(saved) == len(given):
        saved, given = dict(enumerate(saved)), dict(enumerate(given))
    if isinstance(saved, Mapping) and isinstance(given, Mapping):
        for key in dict.fromkeys([*saved, *given]):
            if key not in NEUTRAL_KEYS:
                yield from _differences(saved.get(key), given.get(key), f"{path}.{key}" if path else str(key))
    elif saved != given:
        yield f"{path} is {saved!r} there and {given!r} here"


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint after `step` steps stands."""
    return folder / f"step_{step:08d}"


def latest(folder: Path) -> Path | None:
    """The newest checkpoint in `folder` (RUN/checkpoints), if there is one."""
    return max(_all(folder), default=None)


def checkpoint_of(path: Path) -> Path:
    """A checkpoint folder: `path` itself, or the newest of the run in it. UserError where there is none."""
    if (path / "model.safetensors").is_file():
        return path
    found = latest(path / "checkpoints")
    if found is None:
        raise UserError(f"initial_weights: {path} is neither a run folder with a checkpoint nor a checkpoint")
    return found


def best(folder: Path) -> Path | None:
    """The checkpoint with the highest score, the newest of equals, if any was scored."""
    scores = [(read_state(path).score, path) for path in _all(folder)]
    scored = [(score, path) for score, path in scores if score is not None and isfinite(score)]
    return max(scored, default=(None, None))[1]


def read_state(checkpoint: Path) -> State:
    """What `checkpoint` says about itself."""
    path = checkpoint / "state.json"
    try:
        return TypeAdapter(State).validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        problem = ", ".join(str(error).splitlines())
        raise UserError(f"{checkpoint} is no checkpoint: state.json cannot be read ({problem})") from None


def save(
    folder: Path, learner: Learner, optimizer: torch.optim.Optimizer, state: State, recipe: Any, keep: int
) -> Path:
    """Write folder/step_N; then remove all but the newest `keep` and the best, and what killed writes left behind."""
    final = path_of(folder, state.step)
    partial = folder / f".{final.name}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model = unique_tensors(learner.model)
    save_file(model, partial / "model.safetensors")
    save_file(_own_tensors(learner, model), partial / "objectives.safetensors")
    save_file(_optimizer_tensors(optimizer), partial / "training.safetensors")
    (partial / "state.json").write_text(json.dumps(asdict(state), indent=1), encoding="utf-8")
    (partial / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    for path in [*partial.iterdir(), partial]:
        flush(path)
    partial.rename(final)
    flush(folder)
    _thin(folder, keep)
    return final


def restore(checkpoint: Path, learner: Learner, optimizer: torch.optim.Optimizer | None = None) -> State:
    """Load weights, and the optimizer's state if one is given, in place. UserError if they are another model's."""
    state = read_state(checkpoint)
    model = unique_tensors(learner.model)
    load_tensors(model, checkpoint / "model.safetensors")
    load_tensors(_own_tensors(learner, model), checkpoint / "objectives.safetensors")
    if optimizer is not None:
        _restore_optimizer(optimizer, checkpoint / "training.safetensors")
    return state


def unique_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The state dict, tied tensors once, under their first name."""
    first: dict[Any, str] = {}
    tensors = module.state_dict()
    return {name: t.contiguous() for name, t in tensors.items() if first.setdefault(_identity(t, name), name) == name}


def load_tensors(into: Mapping[str, Tensor], path: Path) -> None:
    """Copy a safetensors file into tensors of the same names and shapes; UserError names what differs."""
    copy_tensors(read(path), into, str(path))


def copy_tensors(saved: Mapping[str, Tensor], into: Mapping[str, Tensor], where: str) -> None:
    """The same, of tensors that were read already; `where` opens the message."""
    problems = [f"{name} is missing" for name in into if name not in saved]
    problems += [f"{name} is unknown" for name in saved if name not in into]
    problems += [
        f"{name} has shape {tuple(saved[name].shape)}, not {tuple(t.shape)}"
        for name, t in into.items()
        if name in saved and saved[name].shape != t.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(f"{where} is a checkpoint of another model: {'; '.join(problems[:3])}{more}")
    with torch.no_grad():
        for name, tensor in into.items():
            tensor.copy_(saved[name])


def _own_tensors(learner: Learner, model: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The objectives' tensors without those that they share with the model."""
    shared = {_identity(tensor, name) for name, tensor in model.items()}
    own = unique_tensors(learner.objectives)
    return {name: tensor for name, tensor in own.items() if _identity(tensor, name) not in shared}


def _identity(tensor: Tensor, name: str) -> Any:
    return (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else name


def _named_parameters(optimizer: torch.optim.Optimizer) -> dict[str, nn.Parameter]:
    groups = optimizer.param_groups
    return {n: p for group in groups for n, p in zip(group["param_names"], group["params"], strict=True)}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as "exp_avg/NAME", "exp_avg_sq/NAME", "step/NAME"."""
    parameters = _named_parameters(optimizer)
    return {f"{key}/{n}": t.contiguous() for n, p in parameters.items() for key, t in optimizer.state[p].items()}


def _restore_optimizer(optimizer: torch.optim.Optimizer, path: Path) -> None:
    index = {name: i for i, name in enumerate(_named_parameters(optimizer))}
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in read(path).items():
        kind, _, name = key.partition("/")
        if name not in index:
            raise UserError(f"{path} is a checkpoint of another model: {name} is not trained here")
        state.setdefault(index[name], {})[kind] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of one file of a checkpoint; UserError where it cannot be read."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


def _all(folder: Path) -> list[Path]:
    return [path for path in folder.glob("step_*") if _NAME.fullmatch(path.name)]


def _thin(folder: Path, keep: int) -> None:
    kept = {*sorted(_all(folder))[-keep:], best(folder)}
    for path in _all(folder):
        if path not in kept:
            path.rename(folder / f".{path.name}")  # gone at once: a half-removed folder must not look whole
    for leftover in folder.glob(".step_*"):
        shutil.rmtree(leftover)
