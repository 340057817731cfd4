"""A tiny X-VLM and a tiny ImageBERT with random weights, asked about random pictures and regions."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from crossgrain.data.records import Record, Region
from crossgrain.data.regions import RegionFeatures
from crossgrain.data.types import Pixels, Regions
from crossgrain.models.xvlm import XVLM
from crossgrain.nn.vision import ViT
from crossgrain.objectives.box import Box
from crossgrain.objectives.itm import ITM
from crossgrain.objectives.mlm import MLM
from crossgrain.objectives.region_class import RegionClass
from crossgrain.tasks.interface import Trained
from tiny_regions import CLASSES, FEATURE, tiny_imagebert

WORDS = ["a", "the", "red", "blue", "green", "circle", "star", "house", "small", "large", "left", "right", "two"]


def tokenize(text):
    return [1, *(2 + WORDS.index(word) for word in text.split())]


def read_images(records):
    pictures = [np.random.default_rng(list(record.key.encode())).integers(0, 256, (3, 32, 32)) for record in records]
    return Pixels.whole(torch.from_numpy(np.stack(pictures).astype(np.uint8)))


def read_regions(records):
    """As many rows as the largest image has, one of them at least."""
    most = max(1, *(len(record.detected) for record in records))
    features, boxes = np.zeros((len(records), most, FEATURE), np.float32), np.zeros((len(records), most, 4), np.float32)
    mask = np.zeros((len(records), most), bool)
    for row, record in enumerate(records):
        here = slice(len(record.detected))
        features[row, here], boxes[row, here], mask[row, here] = record.detected.features, record.detected.boxes, True
    tables = {"features": features, "boxes": boxes, "mask": mask, "image": np.arange(len(records))}
    return Regions(**{name: torch.from_numpy(table) for name, table in tables.items()})


def hide_words(ids, chance):
    """One word becomes token 31."""
    place = int(chance.integers(1, len(ids)))
    return [*ids[:place], 31, *ids[place + 1 :]], [place], [ids[place]]


@pytest.fixture(scope="session")
def trained():
    torch.manual_seed(0)
    vision = ViT.Config(image_size=32, dim=16, depth=2, num_heads=2, local_attention_depth=1)
    config = XVLM.Config(
        vision=vision, dim=32, num_heads=2, mlp_dim=64, text_depth=1, cross_depth=2, vocab_size=32, max_length=16,
        embedding_dim=8,
    )  # fmt: skip
    model = XVLM(config)
    with torch.no_grad():  # larger weights than fresh ones, so that answers differ clearly
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    objectives = {"itm": ITM(ITM.Config(), model), "box": Box(Box.Config(), model)}
    return Trained(model.train(), objectives, read_images, tokenize, hide_words=hide_words)


@pytest.fixture(scope="session")
def stream():
    """A single-stream model that reads regions, with a matching head."""
    model = tiny_imagebert()
    heads = {
        "itm": ITM(ITM.Config(negatives="swapped"), model),
        "region_class": RegionClass(RegionClass.Config(num_classes=CLASSES), model),
        "mlm": MLM(MLM.Config(), model),
    }
    with torch.no_grad():
        for head in heads.values():
            for parameter in head.parameters():
                parameter.mul_(4)
    return Trained(model, heads, read_regions, tokenize, hide_words=hide_words)


@pytest.fixture(scope="session")
def records():
    generator = np.random.default_rng([5])

    def text():
        return " ".join(generator.choice(WORDS, generator.integers(2, 9)))

    made = []
    for index in range(13):
        x, y = generator.uniform(0, 0.5, 2).tolist()
        regions = (Region(box=(x, y, x + 0.4, y + 0.3), label="star"), Region(box=(0.0, 0.0, 0.5, 0.5), label="circle"))
        captions = tuple(text() for _ in range(index % 4))  # every fourth picture has none
        found = detected(generator, index % 5)  # every fifth picture shows the detector nothing
        made.append(Record(key=f"p{index}", image=b"", captions=captions, regions=regions, detected=found))
    return made


def detected(generator, count):
    corners = generator.uniform(0, 0.5, (count, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(0.1, 0.5, (count, 2))], axis=1)
    labels = generator.integers(0, CLASSES, count)
    return RegionFeatures.of(boxes, generator.normal(size=(count, FEATURE)), labels)


@pytest.fixture
def counted(trained, stream, monkeypatch):
    """How many images are encoded and prepared, and how many pairs are fused, by either model."""
    counts = SimpleNamespace(encoded=0, prepared=0, fused=0)

    def count(model, name, method):
        original = getattr(model, method)

        def wrapped(side, *others):
            setattr(counts, name, getattr(counts, name) + len(side.image if name == "encoded" else side.x))
            return original(side, *others)

        monkeypatch.setattr(model, method, wrapped)

    for model in (trained.model, stream.model):
        count(model, "encoded", "encode_image")
        count(model, "prepared", "prepare")
        count(model, "fused", "fuse")
    return counts
