"""One tiny model of every family before the same few drawn scenes, read by the data side as in a run."""

from dataclasses import replace
from functools import cache

import numpy as np
import torch

from crossgrain.data.collate import Origin
from crossgrain.data.images import ImageConfig
from crossgrain.data.pairs import RegionsConfig
from crossgrain.data.partners import Partners
from crossgrain.data.records import Record
from crossgrain.data.regions import RegionFeatures
from crossgrain.data.samples import Recipe
from crossgrain.data.scenes.record import scene_record
from crossgrain.data.scenes.world import KINDS
from crossgrain.data.task_batches import collate_task
from crossgrain.data.task_samples import make_task_sample
from crossgrain.data.text import TextConfig, Tokenizer, train_vocab
from crossgrain.tasks.interface import Trained
from tiny_models import tiny_model
from tiny_pixels import tiny_pixelbert
from tiny_regions import FEATURE, tiny_imagebert
from tiny_vlbert import tiny_vlbert

MAX_TOKENS = 48
SIDES = {"pixelbert": 64}
MODELS = {"imagebert": tiny_imagebert, "vlbert": tiny_vlbert, "pixelbert": tiny_pixelbert, "xvlm": tiny_model}
CHANGES: dict[str, dict] = {"pixelbert": {"sampled_pixels": None}}


@cache
def scenes(count: int = 8) -> tuple[Record, ...]:
    """The first scenes of a split, each of their things found by a detector that sees noise but knows its class."""
    records = [scene_record(0, "train", index, 64) for index in range(count)]
    return tuple(replace(record, detected=_detected(record)) for record in records)


def _detected(record: Record) -> RegionFeatures:
    chance = np.random.default_rng(list(record.key.encode()))
    labels = [KINDS.index(region.label) for region in record.regions]
    features = chance.normal(size=(len(labels), FEATURE))
    return RegionFeatures.of([region.box for region in record.regions], features, labels)


@cache
def tokenizer() -> Tokenizer:
    """A vocabulary of what is said about the scenes."""
    told = [caption for record in scenes() for caption in record.captions]
    for record in scenes():
        told += [pair["statement"] for pair in record.extra["pairs"]]
        for item in record.extra["choices"]:
            for tokens in (item["question"], *item["answer_choices"], *item["rationale_choices"]):
                told.append(" ".join(token for token in tokens if isinstance(token, str)))
    return Tokenizer(train_vocab(told, 300))


def tiny_family(name: str, **changes):
    """A tiny model of this family for the vocabulary of the scenes, in evaluation mode."""
    fixed = {"vocab_size": len(tokenizer()), "max_length": MAX_TOKENS + 2, **CHANGES.get(name, {})}
    return MODELS[name](**{**fixed, **changes})


def trained_on_scenes(name: str, model, heads) -> Trained:
    """The model and its heads, with what turns scenes into their inputs."""
    image = ImageConfig(size=SIDES.get(name, 32), flip=0.0, rand_augment=None, crop_scale=(1.0, 1.0))
    text = TextConfig(vocab="scenes", max_tokens=MAX_TOKENS, end_token=True)
    regions = RegionsConfig(max_regions=8, whole_image=bool(model.whole_image_first))
    return Trained.of(model, heads, tokenizer(), text, image, regions)


def task_batch(name: str, task, model, records, seed: int = 0):
    """One training batch of a task, a sample of each record."""
    trained = trained_on_scenes(name, model, {})
    assert trained.text is not None
    recipe = Recipe(
        image=ImageConfig(size=SIDES.get(name, 32), flip=0.0, rand_augment=None, crop_scale=(1.0, 1.0)),
        text=trained.text,
        tokenizer=tokenizer(),
        regions=trained.regions,
        reads=model.reads,
        want_masked=False,
        reading=trained.reading(**task.reading(model)),
    )
    rng, partners = np.random.default_rng(seed), Partners(scenes())
    samples = [make_task_sample(record, task.texts, recipe, rng, partners.record) for record in records]
    origins = [Origin(0, number, False) for number in range(len(samples))]
    return collate_task(samples, origins, task.texts, recipe)


def learn(learner, batch, steps: int, lr: float = 3e-3) -> list[float]:
    """The losses of this many steps of Adam on one batch."""
    optimizer = torch.optim.Adam(learner.parameters(), lr=lr)
    losses = []
    for _ in range(steps):
        loss, _ = learner(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
