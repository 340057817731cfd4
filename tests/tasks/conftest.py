"""A tiny X-VLM with random weights, asked about random pictures."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from crossgrain.data.records import Record, Region
from crossgrain.models.xvlm import XVLM
from crossgrain.nn.vision import ViT
from crossgrain.objectives.box import Box
from crossgrain.objectives.itm import ITM
from crossgrain.tasks.interface import Trained

WORDS = ["a", "the", "red", "blue", "green", "circle", "star", "house", "small", "large", "left", "right", "two"]


def tokenize(text):
    return [1, *(2 + WORDS.index(word) for word in text.split())]


def read_image(record):
    return np.random.default_rng(list(record.key.encode())).integers(0, 256, (3, 32, 32), dtype=np.uint8)


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
    return Trained(model.train(), objectives, read_image, tokenize)


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
        made.append(Record(key=f"p{index}", image=b"", captions=captions, regions=regions))
    return made


@pytest.fixture
def counted(trained, monkeypatch):
    """How many images are encoded and prepared, and how many pairs are fused."""
    counts = SimpleNamespace(encoded=0, prepared=0, fused=0)

    def count(name, method):
        original = getattr(trained.model, method)

        def wrapped(side, *others):
            setattr(counts, name, getattr(counts, name) + len(side.pixels if name == "encoded" else side.x))
            return original(side, *others)

        monkeypatch.setattr(trained.model, method, wrapped)

    count("encoded", "encode_image")
    count("prepared", "prepare")
    count("fused", "fuse")
    return counts
