"""Small records for the tests of the data layer."""

import io

import numpy as np
from PIL import Image

from crossgrain.data.records import Record, Region
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


def tokenizer(records: list[Record]) -> Tokenizer:
    return Tokenizer(train_vocab((text for r in records for text in (*r.captions, *r.regions[0].texts())), 200))
