"""Small records for the tests of the data layer."""

import io

import numpy as np
from PIL import Image

from crossgrain.data.records import Record, Region
from crossgrain.data.regions import RegionFeatures
from crossgrain.data.text import Tokenizer, train_vocab


def encoded(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def picture(seed: int, size: tuple[int, int] = (40, 32)) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return encoded(np.asarray(Image.fromarray(noise).resize(size)), "JPEG")


def record(index: int) -> Record:
    corners = [(0.0, 0.0), (0.5, 0.0), (0.25, 0.5)]
    return Record(
        key=f"record_{index}",
        image=picture(index),
        captions=(f"a star left of house {index}", f"house {index} with a star on its left"),
        regions=tuple(
            Region(box=(x, y, x + 0.4, y + 0.45), label="star", attributes=("red",), phrases=(f"star number {n}",))
            for n, (x, y) in enumerate(corners)
        ),
    )


def detected(seed: int, num: int, *, features: int = 6, classes: int = 5) -> RegionFeatures:
    """What a detector might have found, the surest first; region i of an image has the scores (num - i) / num."""
    draw = np.random.default_rng(seed)
    low = draw.random((num, 2)) * 0.5
    return RegionFeatures.of(
        np.concatenate([low, low + 0.1 + 0.4 * draw.random((num, 2))], axis=1),
        draw.normal(size=(num, features)),
        draw.integers(0, classes, num),
        np.arange(num, 0, -1) / max(num, 1),
        draw.dirichlet(np.ones(classes), num) if num else np.zeros((0, classes)),
    )


def tokenizer(records: list[Record]) -> Tokenizer:
    return Tokenizer(train_vocab((text for r in records for text in (*r.captions, *r.regions[0].texts())), 200))
