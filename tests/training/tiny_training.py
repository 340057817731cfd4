"""A model, objectives, data and recipe small enough to train in milliseconds, with all that makes resuming hard:
dropout, tied weights, a parameter that has no gradient, data from worker processes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from crossgrain.config import configclass
from crossgrain.data.types import Batch, Pixels, Text
from crossgrain.models.interface import DualEncoder, Fused, Tokens
from crossgrain.objectives.interface import Loss, Views, alone
from crossgrain.objectives.itc import ITC
from crossgrain.training.learner import Learner
from crossgrain.training.optimizer import OptimizerConfig
from crossgrain.training.trainer import Outcome, Plan, TrainConfig, train

WORDS, ROWS = 32, 8


class TinyModel(DualEncoder):
    """An image is the projection of its pixels, a text the mean of its words."""

    def __init__(self, dim: int = 16, dropout: float = 0.1):
        super().__init__()
        self.dim = dim
        self.words = nn.Embedding(WORDS, dim)
        self.image_projection = nn.Linear(3 * 16, dim)
        self.norm = nn.LayerNorm(dim)
        self.temperature = nn.Parameter(torch.tensor(0.07))
        self.idle = nn.Parameter(torch.ones(3), requires_grad=False)
        self.dropout = nn.Dropout(dropout)

    @property
    def token_embedding(self) -> nn.Embedding:
        return self.words

    def encode_image(self, image: Pixels) -> Tokens:
        x = self.image_projection(image.pixels.flatten(1) / 255)[image.image, None]
        return Tokens(self.norm(self.dropout(x)), torch.ones(x.shape[:2], dtype=torch.bool))

    def encode_text(self, text: Text) -> Tokens:
        return Tokens(self.dropout(self.words(text.ids)), text.mask)

    def fuse(self, image: Tokens, text: Tokens) -> Fused:
        x = text.x + image.x
        return Fused(x, x.shape[1])

    def embed_image(self, image: Tokens) -> Tensor:
        return F.normalize(image.x[:, 0].float(), dim=-1)

    def embed_text(self, text: Tokens) -> Tensor:
        return F.normalize(text.x.mean(1).float(), dim=-1)

    def new_parameters(self) -> set[str]:
        return {"temperature", "image_projection.weight", "image_projection.bias"}


class Recall(nn.Module):
    """Say every word again, with the word embedding as the output matrix."""

    @configclass
    class Config:
        weight: float = 0.5

    def __init__(self, config: Config, model: TinyModel):
        super().__init__()
        self.config = config
        self.decoder = nn.Linear(model.dim, WORDS)
        self.decoder.weight = model.token_embedding.weight

    def forward(self, views: Views) -> Loss:
        logits = self.decoder(views.fused().text).float()
        ids = views.batch.text["clean"].ids
        return Loss(F.cross_entropy(logits.flatten(0, 1), ids.flatten()), {})


@configclass
class TinyRecipe:
    steps: int = 10
    seed: int = 3
    train: TrainConfig = TrainConfig(
        precision="float32", num_workers=2, log_every=1, save_every=2, keep=2, tensorboard=False
    )
    optimizer: OptimizerConfig = OptimizerConfig()


class Steps(Dataset):
    """One batch for every step."""

    def __getitem__(self, step: int) -> Batch:
        return make_batch(step)


def make_batch(step: int, rows: slice = slice(None)) -> Batch:
    generator = torch.Generator().manual_seed(step)
    pixels = torch.randint(0, 256, (ROWS, 3, 4, 4), dtype=torch.uint8, generator=generator)[rows]
    ids = torch.randint(0, WORDS, (ROWS, 6), generator=generator)[rows]
    text = Text(ids=ids, mask=torch.ones(ids.shape, dtype=torch.bool))
    return Batch(image={"clean": Pixels.whole(pixels)}, text={"clean": text}, group=torch.arange(ROWS)[rows])


def make_learner(dropout: float = 0.1, gather: Any = alone) -> Learner:
    torch.manual_seed(0)
    model = TinyModel(dropout=dropout)
    return Learner(model, {"itc": ITC(ITC.Config(), model), "recall": Recall(Recall.Config(), model)}, gather)


def make_plan(recipe: TinyRecipe, **changes: Any) -> Plan:
    def batches_from(step: int) -> Iterator[list[list[Batch]]]:
        workers = recipe.train.num_workers
        for batch in DataLoader(Steps(), batch_size=None, sampler=range(step, recipe.steps), num_workers=workers):
            yield [[batch]]

    defaults: dict[str, Any] = {"lr_at": lambda step: 1e-2 / (1 + step), "batches_from": batches_from}
    return Plan(total_steps=recipe.steps, **defaults | changes)


def train_tiny(folder: Path, recipe: TinyRecipe, learner: Learner | None = None, **changes: Any) -> Outcome:
    console = changes.pop("console", None)
    return train(
        learner or make_learner(),
        make_plan(recipe, **changes),
        folder,
        recipe,
        config=recipe.train,
        optimizer=recipe.optimizer,
        seed=recipe.seed,
        console=console,
    )
