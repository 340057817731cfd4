"""Train the small detector, or a CNN that names objects, on a prepared data set whose regions carry labels.

The library's own trainer does it. What it learns is a recipe, what it leaves a run folder: killed and started again it
continues, bit for bit.

Shape letters: B images, M objects at most.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import Dataset

from crossgrain.config import Count, UserError, config_owner, configclass, load_recipe
from crossgrain.data.images import ImageConfig, eval_image
from crossgrain.data.loader import in_workers
from crossgrain.data.records import Record, Region
from crossgrain.data.sampler import StepSampler
from crossgrain.data.shards import Shards
from crossgrain.data.types import Batch, Pixels
from crossgrain.detection.classifier import ObjectClassifier
from crossgrain.detection.small import PAD, Objects, SmallFasterRCNN
from crossgrain.nn.cnn import CNN
from crossgrain.objectives.interface import alone
from crossgrain.training import checkpoint
from crossgrain.training.learner import Learner
from crossgrain.training.optimizer import OptimizerConfig
from crossgrain.training.schedule import Schedule, learning_rate
from crossgrain.training.trainer import Plan, TrainConfig, Updates, train

_FLIP = 4  # what the random stream of a sample is for (data/sampler.py)
MAX_CLASSES, MAX_ATTRIBUTES = 1600, 400  # the most frequent ones are learnt, as many as Visual Genome's detector knows


@configclass
class LossWeights:
    """Factors of the detector's losses."""

    objectness: float = 1.0
    anchor_box: float = 0.2
    classes: float = 1.0
    attributes: float = 0.5
    region_box: float = 0.2


@configclass
class DetectorRecipe:
    """A training of the small detector."""

    title: str = ""
    model: SmallFasterRCNN.Config = SmallFasterRCNN.Config()
    data: str = "data"  # a folder that `crossgrain prepare` wrote
    split: str = "train"
    batch_size: Count = 32
    steps: Count
    lr: Annotated[float, Field(gt=0)] = 2e-3
    schedule: Schedule = Schedule()
    flip: Annotated[float, Field(ge=0, le=1)] = 0.5  # probability of a mirror image
    losses: LossWeights = LossWeights()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    seed: Annotated[int, Field(ge=0)] = 0

    stage: ClassVar[str] = "detector"  # as logs call it


@configclass
class ClassifierRecipe(DetectorRecipe):
    """A training of the CNN that Pixel-BERT starts from. Which CNN, and at what size, is said by who asks for it."""

    model: ObjectClassifier.Config = ObjectClassifier.Config()  # pyright: ignore[reportIncompatibleVariableOverride]

    stage: ClassVar[str] = "cnn"


class DetectorLearner(Learner):
    """The network with its losses, as the trainer takes a model with its objectives."""

    def __init__(self, model: SmallFasterRCNN | ObjectClassifier, weights: LossWeights):
        nn.Module.__init__(self)
        self.model: SmallFasterRCNN | ObjectClassifier = model  # pyright: ignore[reportIncompatibleVariableOverride]
        self.objectives = nn.ModuleDict()
        self.weights = {f.name: getattr(weights, f.name) for f in fields(weights)}
        self.gather, self.chosen = alone, ()

    def forward(self, batch: Batch) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The weighted sum of the losses, and each of them to log."""
        image = batch.image["clean"]
        assert isinstance(image, Pixels)
        losses = self.model.losses(image.pixels, batch.targets["objects"])
        total = torch.stack([self.weights[name] * loss for name, loss in losses.items()]).sum()
        return total, {f"{name}/loss": loss.detach() for name, loss in losses.items()}


def train_detector(recipe: DetectorRecipe | Path, data: Path, out: Path, console: Console | None = None) -> Path:
    """Train on `data` in the run folder `out`, from its newest checkpoint if it has one; gives `out`.

    KeyboardInterrupt where a signal stopped it (the same call continues), UserError where the data name no objects.
    """
    _train(load_recipe(DetectorRecipe, recipe) if isinstance(recipe, Path) else recipe, data, out, console)
    return out


def train_cnn(
    recipe: Path, data: Path, out: Path, cnn: CNN.Config, image_size: int, console: Console | None = None
) -> dict[str, Tensor]:
    """Teach `cnn` to name the objects of `data`, in the run folder `out`; its tensors, in timm's names.

    As `train_detector` otherwise. The classifier's own layers stay in the run folder.
    """
    loaded = load_recipe(ClassifierRecipe, recipe)
    given = replace(loaded, model=replace(loaded.model, cnn=cnn, image_size=image_size))
    model = _train(given, data, out, console)
    assert isinstance(model, ObjectClassifier)
    return model.backbone()


def _train(recipe: DetectorRecipe, data: Path, out: Path, console: Console | None) -> nn.Module:
    records = Shards(data, recipe.split)
    recipe = with_classes(replace(recipe, data=str(data)), records)
    usable = np.flatnonzero(records.column("num_regions") > 0)
    torch.manual_seed(recipe.seed)
    learner = DetectorLearner(config_owner(recipe.model)(recipe.model), recipe.losses)

    def batches_from(step: int) -> Iterator[Updates]:
        sampler = StepSampler(len(usable), recipe.batch_size, seed=recipe.seed, source=0)
        slices = [sampler.batch(number) for number in range(step, recipe.steps)]
        made = in_workers(_Batches(records, usable, recipe), slices, recipe.train.num_workers)
        return ([[batch]] for batch in made)

    plan = Plan(
        recipe.steps,
        lambda step: learning_rate(step, recipe.steps, recipe.lr, recipe.schedule),
        batches_from,
        stage_at=lambda step: recipe.stage,
    )
    outcome = train(
        learner,
        plan,
        out,
        recipe,
        config=recipe.train,
        optimizer=recipe.optimizer,
        seed=recipe.seed,
        console=console,
    )
    if outcome.status == "stopped":
        raise KeyboardInterrupt
    return learner.model


def load_network(run: Path) -> SmallFasterRCNN:
    """The trained network of a run folder, in evaluation mode; UserError where it is none or not finished."""
    file = run / "recipe.yaml"
    if not file.is_file():
        raise UserError(f"{run} is no run folder of a detector: it has no recipe.yaml")
    recipe = load_recipe(DetectorRecipe, file)
    newest = checkpoint.latest(run / "checkpoints")
    if newest is None or checkpoint.read_state(newest).step < recipe.steps:
        raise UserError(f"the detector in {run} is not trained to its end: continue its training")
    model = SmallFasterRCNN(recipe.model)
    checkpoint.restore(newest, DetectorLearner(model, recipe.losses))
    return model.eval()


def with_classes(recipe: DetectorRecipe, records: Shards) -> DetectorRecipe:
    """The recipe with the classes and attributes that it left out: the most frequent ones of the data, in order."""
    if recipe.model.classes:
        return recipe
    labels: Counter[str] = Counter()
    attributes: Counter[str] = Counter()
    for index in range(len(records)):
        for region in _objects(records.texts(index)):
            labels[region.label] += 1
            attributes.update(region.attributes)
    if not labels:
        raise UserError(f"{records.path}, split {recipe.split!r}: no region has a label, so there is nothing to detect")
    classes, named = (
        tuple(sorted(name for name, _ in count.most_common(most)))
        for count, most in ((labels, MAX_CLASSES), (attributes, MAX_ATTRIBUTES))
    )
    return replace(recipe, model=replace(recipe.model, classes=classes, attributes=named))


def _objects(record: Record) -> list[Region]:
    return [region for region in record.regions if region.label]


class _Batches(Dataset):
    """Reads and decodes what a step trains on. Runs in the workers."""

    def __init__(self, records: Shards, usable: np.ndarray, recipe: DetectorRecipe):
        self.records, self.usable, self.recipe = records, usable, recipe
        self.image = ImageConfig(size=recipe.model.image_size)
        self.classes = {name: index for index, name in enumerate(recipe.model.classes)}
        self.attributes = {name: index for index, name in enumerate(recipe.model.attributes)}

    def __getitem__(self, part: tuple[np.ndarray, np.ndarray]) -> Batch:
        """The batch of a step: positions in the endless row of samples, and the sample at each (data/sampler.py)."""
        pixels, regions = [], []
        for position, sample in zip(part[0].tolist(), self.usable[part[1]].tolist(), strict=True):
            record = self.records[sample]
            image, objects = eval_image(record, self.image), [r for r in _objects(record) if r.label in self.classes]
            boxes = np.array([r.box for r in objects], np.float32).reshape(-1, 4)
            if np.random.default_rng([self.recipe.seed, _FLIP, position]).random() < self.recipe.flip:
                image, boxes = image[:, :, ::-1], boxes[:, [2, 1, 0, 3]] * (-1, 1, -1, 1) + (1, 0, 1, 0)
            pixels.append(np.ascontiguousarray(image))
            regions.append((boxes, objects))
        return Batch(
            image={"clean": Pixels.whole(torch.from_numpy(np.stack(pixels)))},
            text={},
            group=torch.arange(len(pixels)),
            targets={"objects": self._targets(regions)},
        )

    def _targets(self, images: Sequence[tuple[np.ndarray, list[Region]]]) -> Objects:
        most = max(1, *(len(objects) for _, objects in images))
        boxes = torch.zeros(len(images), most, 4)
        label = torch.full((len(images), most), PAD)
        attributes = torch.zeros(len(images), most, len(self.attributes))
        for row, (corners, objects) in enumerate(images):
            boxes[row, : len(objects)] = torch.from_numpy(corners)
            for column, region in enumerate(objects):
                label[row, column] = self.classes[region.label]
                known = [self.attributes[name] for name in region.attributes if name in self.attributes]
                attributes[row, column, known] = 1.0
        return Objects(boxes=boxes, label=label, attributes=attributes)
