"""What a run is, as a value, and how the value becomes a run.

A recipe names a model, the objectives it is trained on, and the stages with their data. Everything here is built from
the recipe alone; a run folder keeps the complete recipe and the vocabulary, so that it can be read anywhere.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import torch
from pydantic import Field
from rich.console import Console

from crossgrain.checks import check_parts, with_stamp
from crossgrain.config import Choice, RecipeError, UserError, config_owner, configclass, load_recipe
from crossgrain.data.asks import Reading
from crossgrain.data.images import ImageConfig
from crossgrain.data.loader import Source, batches
from crossgrain.data.pairs import PairsConfig, RegionsConfig
from crossgrain.data.samples import Recipe
from crossgrain.data.text import TextConfig, Tokenizer, save_vocab
from crossgrain.models import MODELS
from crossgrain.models.interface import VisionLanguageModel, declared
from crossgrain.objectives import OBJECTIVES
from crossgrain.tasks.interface import TASKS, Trained
from crossgrain.tasks.plan import Evaluation
from crossgrain.training import checkpoint
from crossgrain.training.distributed import ALONE, World
from crossgrain.training.learner import Learner
from crossgrain.training.optimizer import OptimizerConfig
from crossgrain.training.precision import autocast, resolve_precision
from crossgrain.training.schedule import Schedule, learning_rate
from crossgrain.training.trainer import Outcome, Plan, TrainConfig, Updates, train

Kind = TypeVar("Kind", bound="PretrainRecipe")


@configclass
class Stage:
    """A part of the training with its own data and rate; each starts from the weights of the one before."""

    name: str = "pretrain"
    steps: Annotated[int, Field(ge=1)]
    sources: tuple[Source, ...]
    lr: Annotated[float, Field(gt=0)] = 1e-4
    schedule: Schedule = Schedule()
    objectives: tuple[str, ...] | None = None  # names of those that this stage trains on; None: all of the recipe
    pairs: PairsConfig | None = None  # in place of the recipe's


@configclass
class Validation:
    """Losses on held-out batches, taken with every checkpoint; the checkpoint with the lowest is kept as the best."""

    split: str = "val"
    steps: Annotated[int, Field(ge=1)] = 8


@configclass
class PretrainRecipe:
    """A pre-training run. `title` and `note` go to the report."""

    title: str = ""
    model: Annotated[Any, Choice(MODELS)]
    objectives: tuple[Annotated[Any, Choice(OBJECTIVES)], ...]
    image: ImageConfig = ImageConfig()
    text: TextConfig
    regions: RegionsConfig = RegionsConfig()
    pairs: PairsConfig = PairsConfig()
    stages: tuple[Stage, ...]
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    validation: Validation | None = None
    evaluation: Evaluation = Evaluation()
    # "full": the contrastive gradient of one process with the whole batch, at any number of ranks; "local": the
    # original's, which shrinks with it (X-VLM xvlm.py:26-43).
    gathered_gradients: Literal["full", "local"] = "full"
    initial_weights: Path | None = None  # a run of the same model, or a checkpoint of one, to start from
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    def __post_init__(self) -> None:
        check_parts(self, [(objective_name(config), config) for config in self.trained_configs()])

    # From here on what a fine-tuning recipe (finetuning.py) does in its own way.
    blind: ClassVar[bool] = False  # whether images show nothing

    def trained_configs(self) -> tuple[Any, ...]:
        """The configurations of all that is trained beside the model."""
        return self.objectives

    def modules(self, model: VisionLanguageModel, tokenizer: Tokenizer | None) -> dict[str, torch.nn.Module]:
        """What is trained beside the model, by name."""
        return {objective_name(config): config_owner(config)(config, model) for config in self.objectives}

    def reading(self, tokenizer: Tokenizer) -> Reading | None:
        """How the texts of a task are read."""
        return None

    def start(self, learner: Learner, console: Console | None) -> None:
        """Read the initial weights."""
        if self.initial_weights is not None:
            checkpoint.restore(checkpoint.checkpoint_of(self.initial_weights), learner)

    def with_answers(self: Kind, folder: Path, console: Console | None, write: bool) -> Kind:
        """The recipe with what a task's answers are, which stands in the run folder."""
        return self


@configclass
class Scenes:
    """The embedded data set that the quickstart draws."""

    size: Annotated[int, Field(ge=8)] = 10_000
    seed: int = 0
    image_size: int = 128
    vocab_size: int = 1000


@configclass
class QuickstartRecipe(PretrainRecipe):
    """A pre-training run on drawn scenes: sources whose path is `data` read them where the quickstart puts them.

    Sources with other paths read other data sets, as in every recipe; the detector goes over these too.
    """

    scenes: Scenes = Scenes()
    detector: str | None = None  # recipe of a detector that is trained on the scenes, for models that read regions
    cnn_classifier: str | None = None  # recipe by which the model's CNN first learns to name the objects of the scenes

    def on(self, data: Path) -> "QuickstartRecipe":
        """The recipe with all its paths in `data`; a corpus is a file there."""

        def moved(source: Source) -> Source:
            if not _is_drawn(source):
                return source
            file = (Path(source.path).name,) if source.texts == "corpus" else ()
            return replace(source, path=str(data.joinpath(*file)))

        stages = tuple(replace(stage, sources=tuple(map(moved, stage.sources))) for stage in self.stages)
        cnn = {"cnn": replace(self.model.cnn, weights=str(data / "cnn.safetensors"))} if self.cnn_classifier else {}
        text = replace(self.text, vocab=str(data / "vocab.txt"))
        return replace(self, stages=stages, text=text, model=replace(self.model, **cnn))

    def other_data(self) -> list[Path]:
        """The data sets that its sources read beside the drawn one, each once."""
        sources = [source for stage in self.stages for source in stage.sources]
        return [Path(path) for path in dict.fromkeys(s.path for s in sources if not _is_drawn(s))]


def _is_drawn(source: Source) -> bool:
    return source.path == "data" or source.texts == "corpus"


def load_run_recipe(path: Path, overrides: tuple[str, ...] | list[str] = ()) -> PretrainRecipe:
    """A recipe file of any kind: the quickstart's has a `scenes` block, fine-tuning's a `task`."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    kinds = {line.partition(":")[0] for line in text.splitlines()}
    if "task" in kinds:
        from crossgrain.finetuning import FinetuneRecipe, complete

        return load_recipe(FinetuneRecipe, path, overrides, complete)
    return load_recipe(QuickstartRecipe if "scenes" in kinds else PretrainRecipe, path, overrides)


def objective_name(config: Any) -> str:
    """The name of an objective or a task in its table, or of an outsider's class."""
    owner = config_owner(config)
    entry = f"{owner.__module__}:{owner.__qualname__}"
    known = {**TASKS, **OBJECTIVES}
    return next((name for name, here in known.items() if here in (owner, entry)), owner.__name__.lower())


def with_vocabulary(recipe: Kind, size: int) -> Kind:
    """The recipe with the model's `vocab_size` settled; a model with fewer words than the vocabulary is refused."""
    given = recipe.model.vocab_size
    if given is not None and given < size:
        raise RecipeError(f"model.vocab_size is {given}, but {recipe.text.vocab} has {size} words")
    return recipe if given is not None else replace(recipe, model=replace(recipe.model, vocab_size=size))


def settled(recipe: Kind) -> tuple[Kind, Tokenizer]:
    """The recipe with what its data decide (words of the model, stamp of the regions), and the tokenizer."""
    tokenizer = Tokenizer.load(recipe.text.vocab)
    return with_stamp(with_vocabulary(recipe, len(tokenizer))), tokenizer


def build_learner(recipe: PretrainRecipe, world: World = ALONE, tokenizer: Tokenizer | None = None) -> Learner:
    """The model and its objectives, initialised from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    try:
        model = config_owner(recipe.model)(recipe.model)
    except UserError:
        raise
    except ValueError as error:
        raise RecipeError(f"model: {error}") from None
    try:
        objectives = recipe.modules(model, tokenizer)
    except UserError:
        raise
    except ValueError as error:
        raise RecipeError(f"objectives: {error}") from None
    return Learner(model, objectives, world.gather(recipe.gathered_gradients))


def pretrain(recipe: PretrainRecipe, folder: Path, *, console: Console | None = None, world: World = ALONE) -> Outcome:
    """Run the recipe in `folder`, from its newest checkpoint if it has one."""
    recipe, tokenizer = settled(recipe)
    if (told := recipe.with_answers(folder, console, world.is_main)) is not recipe:
        world.barrier()  # the main rank has written them
        recipe = told
    for index, stage in enumerate(recipe.stages):  # mistakes in the data are said before a folder is made
        _read(recipe, stage, index, tokenizer, range(0), world)
    learner = build_learner(recipe, world, tokenizer)
    if checkpoint.latest(folder / "checkpoints") is None:
        recipe.start(learner, console)
    checkpoint.open_run(folder, recipe, write=world.is_main)
    if world.is_main:
        save_vocab(tokenizer.tokens, folder / "vocab.txt")
    return train(
        learner,
        _plan(recipe, tokenizer, world),
        folder,
        recipe,
        config=recipe.train,
        optimizer=recipe.optimizer,
        seed=recipe.seed,
        world=world,
        console=console,
    )


def _plan(recipe: PretrainRecipe, tokenizer: Tokenizer, world: World) -> Plan:
    """The stages one after another, as functions of the step counted over all of them."""
    ends = list(accumulate(stage.steps for stage in recipe.stages))

    def at(step: int) -> tuple[int, Stage, int]:
        index = next(i for i, end in enumerate(ends) if step < end)
        return index, recipe.stages[index], step - (ends[index] - recipe.stages[index].steps)

    def lr_at(step: int) -> float:
        _, stage, local = at(step)
        return learning_rate(local, stage.steps, stage.lr, stage.schedule)

    def batches_from(step: int) -> Iterator[Updates]:
        while step < ends[-1]:
            index, stage, local = at(step)
            yield from _read(recipe, stage, index, tokenizer, range(local, stage.steps), world)
            step += stage.steps - local

    score = None
    if recipe.validation is not None:
        score = _Validation(recipe, recipe.validation, tokenizer, world)
    return Plan(
        ends[-1],
        lr_at,
        batches_from,
        stage_at=lambda step: at(step)[1].name,
        objectives_at=lambda step: at(step)[1].objectives,
        begins_at=lambda step: step in ends,
        score=score,
    )


def _read(
    recipe: PretrainRecipe, stage: Stage, index: int, tokenizer: Tokenizer, steps: range, world: World
) -> Iterator[Updates]:
    """The batches of these steps of a stage. Each stage draws from a seed of its own."""
    updates = batches(
        stage.sources,
        sample_recipe(recipe, stage, tokenizer),
        seed=recipe.seed + 7919 * index,
        first_step=steps.start,
        last_step=steps.stop,
        rank=world.rank,
        world_size=world.size,
        num_workers=recipe.train.num_workers,
        accumulate=recipe.train.accumulate,
    )
    if not recipe.blind:
        return updates
    return ([[batch.blind() for batch in update] for update in step] for step in updates)


def sample_recipe(recipe: PretrainRecipe, stage: Stage, tokenizer: Tokenizer) -> Recipe:
    """What turns the records of a stage into samples: words and regions are hidden where an objective predicts them."""
    chosen = stage.objectives or [objective_name(config) for config in recipe.trained_configs()]
    return Recipe(
        image=recipe.image,
        text=recipe.text,
        tokenizer=tokenizer,
        regions=recipe.regions,
        pairs=stage.pairs or recipe.pairs,
        reads=declared(recipe.model, "reads"),
        want_masked="mlm" in chosen,
        want_hidden="region_class" in chosen or "region_feature" in chosen,
        want_classes="region_class" in chosen,
        reading=recipe.reading(tokenizer),
    )


class _Validation:
    """Minus the mean loss on the same held-out batches each time; the higher the better."""

    def __init__(self, recipe: PretrainRecipe, config: Validation, tokenizer: Tokenizer, world: World):
        plain = replace(recipe.train, num_workers=0, accumulate=1)
        self.recipe, self.config, self.tokenizer, self.world = replace(recipe, train=plain), config, tokenizer, world
        sources = tuple(
            replace(source, split=config.split, extra_step=None)
            for source in recipe.stages[-1].sources
            if source.texts != "corpus"  # which has no other split
        )
        self.stage = replace(recipe.stages[-1], sources=sources)
        self._read()

    def _read(self) -> Iterator[Updates]:
        steps = range(self.config.steps)
        return _read(self.recipe, self.stage, 0, self.tokenizer, steps, ALONE)

    @torch.no_grad()
    def __call__(self, learner: Learner, step: int) -> float:
        alone = Learner(learner.model, dict(learner.objectives.items())).eval()
        alone.choose(self.stage.objectives)
        torch.manual_seed(self.recipe.seed)
        precision = resolve_precision(self.recipe.train.precision, self.world.device)
        losses = []
        for updates in self._read():
            with autocast(precision, self.world.device):
                losses += [alone(batch.to(self.world.device))[0] for update in updates for batch in update]
        return -torch.stack(losses).mean().item()


@dataclass(frozen=True)
class Run:
    """A run folder, opened at one of its checkpoints."""

    folder: Path
    recipe: PretrainRecipe
    learner: Learner
    tokenizer: Tokenizer
    state: checkpoint.State

    def facts(self) -> dict[str, str]:
        """What the report says about the run besides its recipe."""
        stage = self.state.stage
        model = _size(self.learner.model)
        return {
            "parameters": f"{model / 1e6:.1f} million, and {(_size(self.learner) - model) / 1e6:.1f} million in heads",
            "checkpoint": f"step {self.state.step:,} ({stage}), trained in {self.state.precision}",
            "data": ", ".join(dict.fromkeys(source.path for s in self.recipe.stages for source in s.sources)),
            "objectives": ", ".join(self.learner.objectives),
        }

    def data(self) -> Path:
        """Where the pairs of the last stage come from."""
        return next(Path(s.path) for stage in self.recipe.stages[::-1] for s in stage.sources if s.texts != "corpus")

    def trained(self) -> Trained:
        """The model as tasks ask it, in the precision it was trained in, with the objectives that a stage trained."""
        precision = torch.bfloat16 if self.state.precision == "bfloat16" else torch.float32
        recipe, known = self.recipe, tuple(self.learner.objectives)
        learnt = {name for stage in recipe.stages for name in (stage.objectives or known)}
        objectives = {name: head for name, head in self.learner.objectives.items() if name in learnt}
        answers = reading.answers if (reading := recipe.reading(self.tokenizer)) is not None else None
        parts = self.tokenizer, recipe.text, recipe.image, recipe.regions, precision
        return Trained.of(self.learner.model, objectives, *parts, answers=answers, blind=recipe.blind)


def load_run(folder: Path, which: Literal["latest", "best"] = "latest", device: str | None = None) -> Run:
    """Open a run folder, on a GPU where there is one; UserError where it is no run or holds no whole checkpoint."""
    if not (folder / "recipe.yaml").is_file():
        raise UserError(f"{folder} is no run folder: it has no recipe.yaml")
    find = checkpoint.best if which == "best" else checkpoint.latest
    found = find(folder / "checkpoints")
    if found is None:
        raise UserError(f"{folder} has no {which} checkpoint: {_explain_missing(which)}")
    recipe = load_run_recipe(found / "recipe.yaml")
    from_scratch = getattr(recipe.model, "from_scratch", lambda: recipe.model)  # outsiders may have nothing to read
    recipe = replace(recipe, model=from_scratch(), initial_weights=None).with_answers(folder, None, write=False)
    tokenizer = Tokenizer.load(folder / "vocab.txt")
    learner = build_learner(recipe, tokenizer=tokenizer)
    state = checkpoint.restore(found, learner)
    learner.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return Run(folder, recipe, learner.eval(), tokenizer, state)


def _size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _explain_missing(which: str) -> str:
    return "it was trained without `validation`" if which == "best" else "it stopped before its first one"
