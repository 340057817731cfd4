"""Published checkpoints as run folders, which `evaluate`, `finetune` and `load_run` read like any other.

The architecture is read off the tensors. What they do not tell (how images and texts are prepared, what is asked) comes
from the library's recipe of the same system, so that the converted run is asked as the original was.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

import torch
from torch import nn

from crossgrain.config import UserError, dump_config, find_recipe, read_config, with_overrides
from crossgrain.data.text import Tokenizer, save_vocab
from crossgrain.documents.writing import write_whole
from crossgrain.finetuning import Adopting, FinetuneRecipe
from crossgrain.interop.converted import Converted
from crossgrain.recipes import PretrainRecipe, build_learner, load_run_recipe
from crossgrain.training import checkpoint
from crossgrain.training.learner import Learner
from crossgrain.training.optimizer import build_optimizer

ACCOUNT = "conversion.json"  # in the run folder: what was read, and what became of every key


@dataclass(frozen=True)
class Format:
    """A layout of checkpoints: who reads it (`module:function` of interop), and the library's recipe for such a run."""

    what: str
    reader: str
    recipe: Callable[[Converted], str]
    overrides: tuple[str, ...] = ()  # what the published weights were trained with, where the recipe differs

    def read(self, file: Path) -> Converted:
        """The checkpoint in our names. UserError where it is of another layout."""
        module, _, function = self.reader.partition(":")
        return getattr(import_module(f"crossgrain.interop.{module}"), function)(file)


def _xvlm(what: str, reader: str, recipe: str) -> Format:
    """A fine-tuned X-VLM; its texts were cleaned in the original's way (dataset/utils.py)."""
    return Format(what, reader, lambda _: f"finetune/{recipe}", ("text.clean=true",))


def _vlbert(what: str, reader: str, recipe: str) -> Format:
    return Format(what, reader, lambda _: f"finetune/{recipe}")


def _grounding_recipe(found: Converted) -> str:
    return "finetune/grounding_xvlm" if "box" in found.heads else "finetune/grounding_weak_xvlm"


def _vlbert_recipe(found: Converted) -> str:
    return "pretrain/vlbert_base" if found.config.fast_rcnn is None else "pretrain/vlbert_e2e"


FORMATS = {
    "xvlm": Format("X-VLM, pre-trained", "xvlm:read_xvlm", lambda _: "pretrain/xvlm_official"),
    "xvlm_retrieval": _xvlm("X-VLM, retrieval", "xvlm:read_xvlm", "retrieval_xvlm"),
    "xvlm_vqa": _xvlm("X-VLM, VQA", "xvlm_vqa:read_xvlm_vqa", "vqa_xvlm"),
    "xvlm_nlvr2": _xvlm("X-VLM, NLVR2", "xvlm_nlvr:read_xvlm_nlvr", "nlvr2_xvlm"),
    "xvlm_grounding": Format("X-VLM, RefCOCO+", "xvlm:read_xvlm", _grounding_recipe, ("text.clean=true",)),
    "xvlm_captioning": _xvlm("X-VLM, captioning", "xvlm_captioning:read_xvlm_captioning", "captioning_xvlm"),
    "vlbert": Format("VL-BERT, pre-trained", "vlbert:read_vlbert", _vlbert_recipe),
    "vlbert_vqa": _vlbert("VL-BERT, VQA", "vlbert_vqa:read_vlbert_vqa", "vqa_vlbert"),
    "vlbert_vcr": _vlbert("VL-BERT, VCR", "vlbert_vcr:read_vlbert_vcr", "vcr_vlbert"),
    "vlbert_grounding": _vlbert("VL-BERT, RefCOCO+", "vlbert_refcoco:read_vlbert_refcoco", "grounding_vlbert"),
}


def convert(format_name: str, file: Path, folder: Path, overrides: Sequence[str] = ()) -> Converted:
    """Write the checkpoint `file` of a format (a key of FORMATS) as a run into the new `folder`.

    `overrides` change the run's recipe: `text.vocab` where the vocabulary lies, `model.KEY` what the tensors do not
    tell, such as the number of heads. UserError where the file is of another format, where a part of a head would stay
    empty, and where the vocabulary or the list of answers is not the one of these weights.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty: name a new folder")
    found = FORMATS[format_name].read(file)
    recipe = recipe_of(FORMATS[format_name], found, file.name, overrides)
    tokenizer = Tokenizer.load(recipe.text.vocab)
    if len(tokenizer) != recipe.model.vocab_size:
        raise UserError(
            f"{recipe.text.vocab} has {len(tokenizer)} words, and {file} {recipe.model.vocab_size}: "
            "name its vocabulary, text.vocab=FILE"
        )
    learner = build_learner(recipe, tokenizer=tokenizer)
    own = checkpoint.unique_tensors(learner.model)
    initial = {key: tensor for key, tensor in own.items() if key in found.report.initialised}
    checkpoint.copy_tensors(initial | found.model, own, str(file))
    for name, head in learner.objectives.items():
        _fill(name, head, learner, found, str(file))
    recipe = recipe.with_answers(folder, None, write=True)
    checkpoint.open_run(folder, recipe)
    save_vocab(tokenizer.tokens, folder / "vocab.txt")
    write_whole(folder / ACCOUNT, [json.dumps(_account(format_name, file, found), indent=1) + "\n"])
    state = checkpoint.State(
        step=0,
        stage=f"converted from {file.name}",
        precision="float32",
        world_size=1,
        versions={"crossgrain": version("crossgrain"), "torch": torch.__version__, "python": python_version()},
    )
    optimizer = build_optimizer(learner, recipe.optimizer)
    checkpoint.save(folder / "checkpoints", learner, optimizer, state, recipe, keep=1)
    return found


def recipe_of(form: Format, found: Converted, title: str, overrides: Sequence[str] = ()) -> PretrainRecipe:
    """The library's recipe for such a run, with the model and the heads of the checkpoint in place of its own."""
    others = [override for override in overrides if not override.startswith("model.")]  # the file's model is another
    recipe = load_run_recipe(find_recipe(form.recipe(found)), ["initial_weights=null", *form.overrides, *others])
    model = _overridden(found.config, "model", overrides)
    changes: dict[str, Any] = {"title": title, "model": model, "initial_weights": None}
    if (size := getattr(getattr(model, "vision", None), "image_size", None)) is not None:
        changes["image"] = replace(recipe.image, size=size)
    if not isinstance(recipe, FinetuneRecipe):
        changes["objectives"] = tuple(found.heads.values())
        if any(getattr(head, "negatives", None) == "swapped" for head in found.heads.values()):
            changes["pairs"] = replace(recipe.pairs, swapped=0.5)  # as sentence-image relationship was trained
    else:
        for name in _HEADED & found.heads.keys():
            changes["task"] = replace(recipe.task, head=_overridden(found.heads[name], "task.head", overrides))
    try:
        return replace(recipe, **changes)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{title} makes no run of {form.what}: {error}") from None


def _overridden(config: Any, path: str, overrides: Sequence[str]) -> Any:
    """A configuration after those of the overrides that change it; it stands at `path` of the recipe."""
    told = [override.removeprefix(f"{path}.") for override in overrides if override.startswith(f"{path}.")]
    return read_config(type(config), with_overrides(dump_config(config), told), path)


_HEADED = frozenset(("vqa", "nlvr2", "vcr"))  # tasks with a head whose configuration the tensors tell


def _fill(name: str, head: nn.Module, learner: Learner, found: Converted, where: str) -> None:
    """Fill a head of the run, whole, by the checkpoint's head of its name or by those that it takes over."""
    if name in found.objectives:
        head.load_state_dict(found.objectives[name])
        return
    with torch.no_grad():
        for tensor in head.parameters():
            tensor.fill_(torch.nan)  # what is not filled will show
        if isinstance(head, Adopting):
            head.adopt(learner.model, found.objectives)
    if empty := [key for key, tensor in head.named_parameters() if tensor.isnan().any()]:
        raise UserError(f"{where} has nothing for {len(empty)} parameters of the head {name}: {', '.join(empty[:4])}")


def _account(format_name: str, file: Path, found: Converted) -> dict[str, Any]:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return {"format": format_name, "file": file.name, "bytes": file.stat().st_size, "sha256": digest,
            **asdict(found.report)}  # fmt: skip
