"""A small web on loopback: pictures at addresses, and a list of pairs that names them."""

import contextlib
import io
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from loopback import Loopback, loopback
from PIL import Image

from crossgrain.collect.images.filter import ImageFilterConfig
from crossgrain.collect.pages.inputs import Input
from crossgrain.collect.recipe import CollectRecipe
from crossgrain.collect.scoring.interface import PairScorer
from crossgrain.collect.tasks import digest_of
from crossgrain.config import configclass

PLACES = ("harbour", "village", "mountain", "garden", "market", "station", "castle", "valley", "bridge", "beach")
GOOD = 30 - 3 - 1  # pictures of a small web of 30: three are none, and one is missing
THINGS = ("old wooden boat", "small red house", "tall green tree", "young brown horse", "long black train")


def picture(number: int, side: int = 96) -> bytes:
    """A JPEG that looks like no other: a few smooth waves."""
    rng = np.random.default_rng(number)
    at = np.linspace(0, 1, side)
    waves = [np.outer(np.sin(at * rng.uniform(2, 20)), np.cos(at * rng.uniform(2, 20))) for _ in range(3)]
    file = io.BytesIO()
    Image.fromarray(np.uint8(127 + 120 * np.stack(waves, axis=-1))).save(file, "JPEG", quality=90)
    return file.getvalue()


def text(number: int) -> str:
    """A sentence that passes every rule: 13 words, or 17."""
    more = " of a quiet day" if number % 2 else ""
    return f"There is a {THINGS[number % 5]} near the {PLACES[number // 5 % 10]} in the evening light{more}"


@contextlib.contextmanager
def small_web(folder: Path, size: int = 30) -> Iterator[tuple[Loopback, CollectRecipe]]:
    """`size` pictures at /N.jpg, of which every tenth is no picture and one is missing; and a recipe for them."""
    with pytest.MonkeyPatch.context() as patch, loopback() as server:
        patch.setenv("CROSSGRAIN_TEST_ALLOW_LOOPBACK", "1")
        server.paths |= {f"/{n}.jpg": picture(n) if n % 10 != 9 else b"no picture" for n in range(size)}
        del server.paths["/4.jpg"]
        folder.mkdir(parents=True, exist_ok=True)
        rows = [{"url": server.url(f"/{n}.jpg"), "text": text(n)} for n in range(size)]
        (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        yield (
            server,
            CollectRecipe(
                inputs=(Input(path=folder / "pairs.jsonl", kind="pairs", text_column="text"),),
                fetch=server.config(),
                images=ImageFilterConfig(min_side=32, min_natural=0.0),
                num_buckets=4,
                tasks_per_domain=4,
                records_per_shard=8,
                vocab_size=200,
                num_workers=0,
            ),
        )


def asked(server: Loopback, function, *arguments):
    """What a call returned, and which pictures it asked for."""
    before = Counter(server.asked)
    result = function(*arguments)
    return result, {path: n for path, n in (server.asked - before).items() if path.endswith(".jpg")}


class LengthScorer(PairScorer):
    """Long texts fit every image; one text may be more than it can bear."""

    @configclass
    class Config:
        log: Path
        fails_at: str = ""

    def __init__(self, config):
        self.config = config

    def fingerprint(self):
        return digest_of(self.config.fails_at)

    def image_features(self, images):
        self._note("images", images)
        return np.array([[len(image)] for image in images], np.float32)

    def text_features(self, texts):
        self._note("texts", texts)
        return np.array([[len(text)] for text in texts], np.float32)

    def score(self, images, texts):
        return texts[:, 0] / 100

    def _note(self, what, seen):
        with self.config.log.open("a") as log:
            log.writelines(json.dumps([what, digest_of(str(one))]) + "\n" for one in seen)
        if self.config.fails_at and self.config.fails_at in seen:
            raise ZeroDivisionError("this text")


class Deadly:
    """A classifier of unsafe images that ends its process where an image is black."""

    def score(self, image):
        if image.getextrema() == ((0, 0),) * 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0.0
