"""Fine-tuning: a recipe with a task, which starts from the weights of another run.

What a recipe of this kind leaves out, it has from that run (`initial_weights`): the model, its texts, images and
regions. The task's head is trained beside the model like any objective; it may take over what pre-training learnt in
heads of its own (`adopt`), such as the matching head for ranking or the words' transform for answers.
"""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from crossgrain.config import Choice, Count, RecipeError, UserError, config_owner, configclass, find_class, read_yaml
from crossgrain.data.answers import AnswerVocabulary, build_answers, load_answers
from crossgrain.data.asks import MATERIAL, Reading
from crossgrain.data.shards import Shards
from crossgrain.data.text import Tokenizer
from crossgrain.models.interface import VisionLanguageModel
from crossgrain.objectives import OBJECTIVES
from crossgrain.recipes import PretrainRecipe
from crossgrain.tasks.interface import TASKS, Task
from crossgrain.training import checkpoint
from crossgrain.training.learner import Learner

ANSWERS = "answers.txt"
_INHERITED = ("model", "text", "image", "regions")


@runtime_checkable
class Adopting(Protocol):
    """A head that takes over weights of pre-training objectives.

    `weights` holds the tensors of each objective of the initial run by its name; returned are the names of what was
    taken over. Called once, after the model's own weights were read, before the first step.
    """

    def adopt(self, model: VisionLanguageModel, weights: Mapping[str, Mapping[str, Tensor]]) -> list[str]: ...


@configclass
class FinetuneRecipe(PretrainRecipe):
    """A fine-tuning run. `initial_weights` is a run folder or a checkpoint in one; None starts from nothing."""

    task: Annotated[Any, Choice(TASKS)]
    objectives: tuple[Annotated[Any, Choice(OBJECTIVES)], ...] = ()  # besides the task's own loss
    answers: str | None = None  # a file of answers, one a line; None: those of the training questions
    min_answer_count: Count = 9  # questions that an answer needs to be among these, as is usual for VQA v2
    blind: bool = False  # for a baseline: images show nothing, in training and at the evaluation

    def trained_configs(self) -> tuple[Any, ...]:
        return self.task, *self.objectives

    def __post_init__(self) -> None:
        super().__post_init__()
        name, texts = config_owner(self.task).name, config_owner(self.task).texts
        if texts is None:
            raise ValueError(f"task: {name} only asks a model; there is nothing to fine-tune")
        if texts in MATERIAL and not any(source.texts == texts for stage in self.stages for source in stage.sources):
            raise ValueError(f"task {name} needs a source with `texts: {texts}`")
        for stage in self.stages:
            kinds = {source.texts for source in stage.sources if source.extra_step is None}
            if len(kinds) > 1 and kinds & set(MATERIAL):
                raise ValueError(f"stage {stage.name!r} mixes {', '.join(sorted(kinds))} in one batch: choose one kind")

    def build_task(self) -> Task:
        """The task, with its answer vocabulary where it has one."""
        answers = None if self.answers is None else load_answers(Path(self.answers))
        return config_owner(self.task)(self.task, answers)

    def modules(self, model: VisionLanguageModel, tokenizer: Tokenizer | None) -> dict[str, nn.Module]:
        assert tokenizer is not None, "a task's head needs the tokenizer"
        task = self.build_task()
        return {task.name: task.head(model, tokenizer), **super().modules(model, tokenizer)}

    def reading(self, tokenizer: Tokenizer) -> Reading | None:
        task = self.build_task()
        with torch.device("meta"):  # what a task reads depends on the kind of the model, not on its weights
            from_scratch = getattr(self.model, "from_scratch", lambda: self.model)()
            model = config_owner(self.model)(from_scratch)
        return Reading(tokenizer=tokenizer, text=self.text, answers=task.answers, **task.reading(model))

    def start(self, learner: Learner, console: Console | None) -> None:
        """Read the initial run's weights into the model, and what heads adopt of its objectives."""
        if self.initial_weights is None:
            return
        found = checkpoint.checkpoint_of(self.initial_weights)
        tensors = checkpoint.read(found / "model.safetensors")
        checkpoint.copy_tensors(resized(tensors, learner.model), checkpoint.unique_tensors(learner.model), str(found))
        learnt: dict[str, dict[str, Tensor]] = {}
        if (heads := found / "objectives.safetensors").is_file():
            for key, tensor in checkpoint.read(heads).items():
                name, _, rest = key.partition(".")
                learnt.setdefault(name, {})[rest] = tensor
        adopted: list[str] = []
        for name, head in learner.objectives.items():
            if isinstance(head, Adopting):
                with torch.no_grad():
                    parts = head.adopt(learner.model, learnt)
                adopted += [f"{name} ({len(parts)} parts)"] if parts else []
            elif name in learnt:
                own = checkpoint.unique_tensors(head)
                checkpoint.copy_tensors(learnt[name], own, f"{heads}, {name},")
                adopted.append(name)
        if console:
            told = ", ".join(adopted) or "no head"
            console.print(f"starting from {found}; taken over besides the model: {told}", markup=False, highlight=False)

    def with_answers(self, folder: Path, console: Console | None, write: bool) -> "FinetuneRecipe":
        """The recipe with its answer vocabulary settled: a file of the run folder, made of the training questions.

        It is the run's once `recipe.yaml` stands beside it. UserError where `answers` then names other ones.
        """
        file = folder / ANSWERS
        if config_owner(self.task).texts != "questions":
            return self
        given = load_answers(Path(self.answers)) if write and self.answers is not None else None
        if write and not (file.is_file() and (folder / "recipe.yaml").is_file()):
            answers = self._training_answers(console) if given is None else given
            folder.mkdir(parents=True, exist_ok=True)
            answers.save(file)
        elif given is not None and given.names != load_answers(file).names:
            raise UserError(f"{folder} holds another run, whose answers differ from {self.answers}: name a new folder")
        return replace(self, answers=str(file))

    def _training_answers(self, console: Console | None) -> AnswerVocabulary:
        """Those that the questions of the sources have often enough."""
        sources = [source for stage in self.stages for source in stage.sources if source.texts == "questions"]
        paths = dict.fromkeys((source.path, source.split) for source in sources)
        records = [Shards(path, split, images=False) for path, split in paths]
        return build_answers(records, min_count=self.min_answer_count, console=console)


def complete(tree: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A fine-tuning recipe as written, with what it leaves out: blocks of the initial run, what follows from the task.

    `given` is the tree with the overrides in it, which may name the initial run.
    """
    tree, initial = dict(tree), given.get("initial_weights")
    if isinstance(initial, str) and any(name not in tree for name in _INHERITED):
        run = Path(initial).parent.parent if (Path(initial) / "model.safetensors").is_file() else Path(initial)
        file = next((f / "recipe.yaml" for f in (Path(initial), run) if (f / "recipe.yaml").is_file()), None)
        if file is None and "model" not in tree:
            raise RecipeError(f"initial_weights: no run at {initial}, whose model this recipe takes over")
        saved = read_yaml(file.read_text(encoding="utf-8"), str(file)) if file is not None else {}
        for name in _INHERITED:
            if name not in tree and isinstance(saved, dict) and isinstance(saved.get(name), dict):
                tree[name] = dict(saved[name])
                if name == "text" and (run / "vocab.txt").is_file():
                    tree[name]["vocab"] = str(run / "vocab.txt")
                if name == "model" and tree[name].get("sampled_pixels") is not None:
                    tree[name]["sampled_pixels"] = None  # Pixel-BERT samples in pre-training only (section 3.4)
    task = given.get("task")
    name = task.get("type") if isinstance(task, dict) else None
    texts = find_class(name, TASKS).texts if isinstance(name, str) and name in TASKS else None
    for stage in _listed(tree, "stages"):
        for source in _listed(stage, "sources"):
            if texts is not None and isinstance(source, dict):
                source.setdefault("texts", texts)
    evaluation = tree.setdefault("evaluation", {})
    if isinstance(evaluation, dict) and task is not None:
        evaluation.setdefault("tasks", [task])
    return tree


def _listed(tree: Any, key: str) -> list[Any]:
    """The list at `key`; none where there is something else, which the reader of the recipe names."""
    found = tree.get(key) if isinstance(tree, dict) else None
    return found if isinstance(found, list) else []


def resized(tensors: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The tensors with positions of images fitted to another size: tables of relative ones, grids of absolute ones.

    ViT's are bicubic, as X-VLM's loader has them (xvlm.py:204-252); Swin's tables are as timm fits them, where the
    original lays a cubic spline through them.
    """
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    return {name: _fit(name, tensor, wanted.get(name)) for name, tensor in tensors.items()}


def _fit(name: str, tensor: Tensor, shape: torch.Size | None) -> Tensor:
    if shape is None or tensor.shape == shape or not name.startswith("vision."):
        return tensor
    from timm.layers.pos_embed import resample_abs_pos_embed
    from timm.layers.pos_embed_rel import resize_rel_pos_bias_table

    if name.endswith("relative_position_bias_table"):  # (2 W - 1)^2 offsets of a window of W x W
        side = (round(shape[0] ** 0.5) + 1) // 2
        with warnings.catch_warnings(action="ignore"):  # of torch, about timm's own code
            return resize_rel_pos_bias_table(tensor, new_window_size=(side, side), new_bias_shape=tuple(shape))
    if name.endswith("pos_embed"):  # (1, [CLS] + H W, D)
        side = round((shape[1] - 1) ** 0.5)
        return resample_abs_pos_embed(tensor, [side, side], num_prefix_tokens=1, antialias=False)
    if name == "vision.position":  # (H, W, D)
        grid = tensor.permute(2, 0, 1)[None]
        return F.interpolate(grid, size=shape[:2], mode="bicubic", antialias=True)[0].permute(1, 2, 0)
    return tensor
