"""Random views of an image, with the boxes that speak about it. No torch.

Crop and resize are one resampling. Boxes are (x1, y1, x2, y2) in [0, 1]; a crop is given in the same units.
"""

import math
import re
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from crossgrain.data.images import EncodedImage
from crossgrain.data.records import Box

_MIN_VISIBLE = 0.5  # share of a region that a crop must keep (X-VLM `min_perc_in_image`)
_DIRECTION = re.compile(r"\b(left|right)(?=\b|most\b|hand\b|wards?\b)", re.IGNORECASE)


def random_crop(size: tuple[int, int], scale: tuple[float, float], rng: np.random.Generator) -> Box:
    """A box of random area and aspect ratio (3/4 to 4/3 in pixels), as torchvision's RandomResizedCrop draws it."""
    width, height = size
    for share, aspect in zip(
        rng.uniform(*scale, size=10).tolist(),
        np.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3), size=10)).tolist(),
        strict=True,
    ):
        w = round(math.sqrt(share * width * height * aspect))
        h = round(math.sqrt(share * width * height / aspect))
        if 0 < w <= width and 0 < h <= height:
            return _pixel_box(int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h, size)
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))  # the middle, nearest allowed aspect
    return _pixel_box((width - w) // 2, (height - h) // 2, w, h, size)


def crop_around(box: Box, size: tuple[int, int], rng: np.random.Generator) -> Box:
    """A box of whole pixels that holds all of `box`, each side drawn evenly (X-VLM pretrain_dataset.py:300-306)."""
    width, height = size
    x1 = int(rng.integers(math.floor(box[0] * width) + 1))
    y1 = int(rng.integers(math.floor(box[1] * height) + 1))
    x2 = int(rng.integers(min(math.ceil(box[2] * width), width), width + 1))
    y2 = int(rng.integers(min(math.ceil(box[3] * height), height), height + 1))
    return _pixel_box(x1, y1, max(x2 - x1, 1), max(y2 - y1, 1), size)


def _pixel_box(x: int, y: int, w: int, h: int, size: tuple[int, int]) -> Box:
    return x / size[0], y / size[1], (x + w) / size[0], (y + h) / size[1]


def box_in_crop(box: Box, crop: Box) -> Box | None:
    """`box` as it stands in the crop, clipped to it; None where no more than half of its area is left."""
    width, height = crop[2] - crop[0], crop[3] - crop[1]
    x1, y1 = max(box[0], crop[0]), max(box[1], crop[1])
    x2, y2 = min(box[2], crop[2]), min(box[3], crop[3])
    visible = max(x2 - x1, 0.0) * max(y2 - y1, 0.0)
    if visible <= _MIN_VISIBLE * (box[2] - box[0]) * (box[3] - box[1]):
        return None
    return (x1 - crop[0]) / width, (y1 - crop[1]) / height, (x2 - crop[0]) / width, (y2 - crop[1]) / height


def flip_box(box: Box) -> Box:
    """`box` in the mirrored image."""
    return 1 - box[2], box[1], 1 - box[0], box[3]


def mentions_direction(text: str) -> bool:
    """Whether the text says left or right (also leftmost, right-hand, leftward)."""
    return _DIRECTION.search(text) is not None


def swap_directions(text: str) -> str:
    """The text that is true of the mirrored image: left becomes right and right left, in the same case."""

    def other(match: re.Match[str]) -> str:
        word = match.group()
        swapped = "right" if word.lower() == "left" else "left"
        return swapped.upper() if word.isupper() else swapped.capitalize() if word[0].isupper() else swapped

    return _DIRECTION.sub(other, text)


def render(image: EncodedImage, crop: Box, size: tuple[int, int]) -> Image.Image:
    """The crop of the image in `size` (width, height) pixels (bicubic)."""
    share = min(crop[2] - crop[0], crop[3] - crop[1])
    decoded = image.decode(at_least=math.ceil(min(size) / share))
    w, h = decoded.size
    box = (crop[0] * w, crop[1] * h, crop[2] * w, crop[3] * h)
    return decoded.resize(size, Image.Resampling.BICUBIC, box=box)


# The colour operations of X-VLM's RandAugment on images with boxes (dataset/__init__.py, `box_transform`); its list for
# captioned images adds shears, shifts and rotations, which move what the boxes and "left of" speak about.
_COLOUR: tuple[Callable[[Image.Image, float], Image.Image], ...] = (
    lambda image, strength: image,
    lambda image, strength: ImageOps.autocontrast(image),
    lambda image, strength: ImageOps.equalize(image),
    lambda image, strength: ImageEnhance.Brightness(image).enhance(0.1 + 0.18 * strength),
    lambda image, strength: ImageEnhance.Sharpness(image).enhance(0.1 + 0.18 * strength),
)


def augment_colours(image: Image.Image, num_operations: int, strength: int, rng: np.random.Generator) -> Image.Image:
    """`num_operations` random colour operations, each done with probability 1/2. Strength 0 to 10; 5 is no change."""
    for operation, done in zip(
        rng.integers(len(_COLOUR), size=num_operations).tolist(), rng.random(num_operations) < 0.5, strict=True
    ):
        if done:
            image = _COLOUR[operation](image, strength)
    return image
