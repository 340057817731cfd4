"""Pairs that do not match, for training and measuring scorers: other images' captions, and what is none at all."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

_JUNK = (
    "IMG_{0}.JPG", "DSC0{0}", "image{0}", "photo {1} of {0}", "logo", "banner ad {1}", "click to enlarge",
    "click here to see the full gallery", "share this on your favourite network", "read more about our products",
    "buy now and save {1}%", "advertisement", "subscribe to our newsletter", "posted by admin on {0}",
    "untitled document", "next page", "free shipping on orders over {1}", "thumbnail {0}", "screenshot {0}-{1}",
    "view all {1} comments", "copyright {0} all rights reserved", "home / shop / item {0}", "loading", "sign in",
)  # fmt: skip


def mismatched_partners(groups: Sequence[Sequence[str]], rng: np.random.Generator) -> Int[np.ndarray, " N"]:
    """For each image another one whose caption it gets, none of whose captions is also its own."""
    count = len(groups)
    own = [{text.lower() for text in texts} for texts in groups]
    partners = (np.arange(count) + rng.integers(1, count, size=count)) % count
    for image in range(count):
        for _ in range(20):
            if own[image].isdisjoint(own[partners[image]]):
                break
            partners[image] = (image + rng.integers(1, count)) % count
    return partners


def junk_text(captions: Sequence[str], rng: np.random.Generator) -> str:
    """A file name, a button's or a footer's words, or a caption's words in disorder or over and over."""
    kind = rng.integers(4)
    words = captions[int(rng.integers(len(captions)))].split() if kind > 1 else []
    if len(words) > 2 and kind == 2:
        return " ".join(words[i] for i in rng.integers(len(words), size=len(words)))
    if len(words) > 2:
        return " ".join([words[rng.integers(len(words))]] * int(rng.integers(3, 9)))
    return _JUNK[int(rng.integers(len(_JUNK)))].format(int(rng.integers(100, 10000)), int(rng.integers(2, 90)))


def junk_thumbnail(side: int, rng: np.random.Generator) -> np.ndarray:
    """A picture that shows nothing: one colour, a gradient, noise, or bars as of a chart; uint8 (side, side, 3)."""
    kind = rng.integers(4)
    first, second = rng.integers(0, 256, size=(2, 3))
    ramp = np.linspace(0, 1, side)[:, None, None]
    if kind == 0:
        picture = np.broadcast_to(first.astype(float), (side, side, 3))
    elif kind == 1:
        picture = np.broadcast_to(first * ramp + second * (1 - ramp), (side, side, 3))
    elif kind == 2:
        picture = rng.integers(0, 256, size=(side, side, 3))
    else:
        heights = np.repeat(rng.integers(0, side, size=side // 4), 4)
        picture = np.where((np.arange(side)[:, None] > heights)[..., None], first, second)
    return np.ascontiguousarray(
        picture.astype(np.uint8).swapaxes(0, 1) if rng.integers(2) else picture.astype(np.uint8)
    )
