"""What the feature scorer sees of an image: overlapping windows of a thumbnail, described by hand.

A window says which colours stand where in it and which way its edges run: a histogram of oriented gradients (Dalal and
Triggs 2005) and the shares of the eleven basic colour terms (Berlin and Kay 1969). No torch.
"""

from functools import cache

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from crossgrain.data.images import ImageError, open_image

SIDE = 64  # pixels of the thumbnail, whatever the shape of the image
GRIDS = ((1.0, 1), (0.5, 3), (0.34, 5), (0.23, 7))  # side of a window as a share of the image, windows along an axis
NUM_WINDOWS = sum(count**2 for _, count in GRIDS)
COLOURS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "black": ((15, 15, 15), (45, 45, 45)),
    "white": ((250, 250, 250), (230, 230, 230)),
    "grey": ((128, 128, 128), (180, 180, 180), (85, 85, 85)),
    "red": ((215, 35, 35), (150, 20, 25)),
    "orange": ((245, 130, 30), (225, 110, 50)),
    "yellow": ((250, 220, 40), (235, 215, 110)),
    "green": ((45, 160, 65), (30, 95, 45), (150, 205, 110)),
    "blue": ((40, 90, 215), (30, 40, 110), (130, 185, 240)),
    "purple": ((125, 45, 180), (180, 130, 215)),
    "pink": ((245, 130, 180), (250, 195, 215)),
    "brown": ((125, 75, 40), (80, 50, 30), (180, 140, 100)),
}
ORIENTATIONS = 8  # of gradients, without their sign
PARTS = 4  # cells along an axis of a window
_CHANNELS = ORIENTATIONS + 3 + len(COLOURS)
WINDOW_SIZE = PARTS**2 * (ORIENTATIONS + 3) + 2 * len(COLOURS) + 3 + len(GRIDS)
NUM_WHOLE = 14 + 2 * len(COLOURS)  # image-only features

Thumbnail = UInt8[np.ndarray, "64 64 3"]


def thumbnail(data: bytes) -> tuple[Thumbnail, float]:
    """The whole image at 64 x 64 pixels, and its width over its height. Raises `ImageError`."""
    image = open_image(data, at_least=2 * SIDE)
    shape = image.width / image.height
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX if min(image.size) >= SIDE else Image.Resampling.BILINEAR)
    return np.asarray(small), shape


def describe(data: bytes) -> tuple[Float[np.ndarray, "W D"], Float[np.ndarray, " G"]] | None:
    """The windows of an image and its image-only features; None where the file is no usable image."""
    try:
        return describe_thumbnail(*thumbnail(data))
    except ImageError:
        return None


def describe_thumbnail(
    pixels: Thumbnail, shape: float = 1.0
) -> tuple[Float[np.ndarray, "W D"], Float[np.ndarray, " G"]]:
    """The same of a thumbnail whose image was `shape` times as wide as high."""
    channels = _channels(pixels)
    windows, colours = _windows(channels)
    return windows, _whole(pixels, channels, colours, shape)


def _channels(pixels: Thumbnail) -> Float[np.ndarray, "64 64 C"]:
    """Per pixel: gradient by orientation, red, green and blue in [0, 1], and how much it is of each basic colour."""
    channels = np.zeros((SIDE, SIDE, _CHANNELS), dtype=np.float32)
    rgb = pixels.astype(np.float32) / 255
    grey = rgb @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    down, across = np.zeros_like(grey), np.zeros_like(grey)
    down[1:-1] = grey[2:] - grey[:-2]
    across[:, 1:-1] = grey[:, 2:] - grey[:, :-2]
    strength = np.hypot(down, across)
    angle = np.arctan2(down, across) % np.pi * (ORIENTATIONS / np.pi)
    below = angle.astype(np.int64)
    share = angle - below
    y, x = np.ogrid[:SIDE, :SIDE]
    channels[y, x, below % ORIENTATIONS] = strength * (1 - share)
    channels[y, x, (below + 1) % ORIENTATIONS] += strength * share
    channels[..., ORIENTATIONS : ORIENTATIONS + 3] = rgb
    level = pixels.astype(np.int64) >> 3
    table = colour_table()
    channels[..., ORIENTATIONS + 3 :] = table[(level[..., 0] << 10) | (level[..., 1] << 5) | level[..., 2]]
    return channels


@cache
def colour_table() -> Float[np.ndarray, "32768 K"]:
    """How much each of 32 x 32 x 32 colours is of each basic colour term: a soft choice of the nearest examples."""
    axis = (np.arange(32, dtype=np.float32) * 8 + 4) / 255
    cube = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    nearest = [
        np.min([((_opponent(cube) - _opponent(np.array(rgb) / 255)) ** 2).sum(-1) for rgb in examples], axis=0)
        for examples in COLOURS.values()
    ]
    weight = np.exp(-40 * (np.stack(nearest, axis=-1) - np.min(nearest, axis=0)[:, None]))
    return (weight / weight.sum(-1, keepdims=True)).astype(np.float32)


def _opponent(rgb: Float[np.ndarray, "... 3"]) -> Float[np.ndarray, "... 3"]:
    """Lightness, red against green, yellow against blue: distances in it follow what colours are called."""
    red, green, blue = np.moveaxis(rgb, -1, 0)
    return np.stack([(red + green + blue) / 3, 1.2 * (red - green), 1.2 * ((red + green) / 2 - blue)], axis=-1)


@cache
def _corners() -> tuple[Int[np.ndarray, "W P"], Int[np.ndarray, "W P"], Float[np.ndarray, "W Z"]]:
    """Rows and columns of the cells' corners in each window, and where and how large the window is."""
    rows, columns, places = [], [], []
    for scale, (side, count) in enumerate(GRIDS):
        starts = np.linspace(0, 1 - side, count) if count > 1 else np.zeros(1)
        kind = np.eye(len(GRIDS))[scale]
        for top in starts:
            for left in starts:
                edges = np.arange(PARTS + 1) * (side / PARTS)
                rows.append(np.round((top + edges) * SIDE))
                columns.append(np.round((left + edges) * SIDE))
                places.append([left + side / 2 - 0.5, top + side / 2 - 0.5, side, *kind])
    return np.array(rows, np.int64), np.array(columns, np.int64), np.array(places, np.float32)


def _windows(
    channels: Float[np.ndarray, "64 64 C"],
) -> tuple[Float[np.ndarray, "W D"], Float[np.ndarray, "W K"]]:
    """The descriptors of all windows, and the shares of the colours in their middles."""
    rows, columns, places = _corners()
    total = np.zeros((SIDE + 1, SIDE + 1, _CHANNELS), dtype=np.float32)
    np.cumsum(channels, axis=0, out=total[1:, 1:])
    np.cumsum(total[1:, 1:], axis=1, out=total[1:, 1:])
    at = total[rows[:, :, None], columns[:, None, :]]  # (W, P + 1, P + 1, C)
    cells = at[:, 1:, 1:] - at[:, :-1, 1:] - at[:, 1:, :-1] + at[:, :-1, :-1]
    area = np.diff(rows)[:, :, None] * np.diff(columns)[:, None, :]
    cells /= area[..., None]
    edges = np.sqrt(np.maximum(cells[..., :ORIENTATIONS], 0)).reshape(len(rows), -1)
    edges /= np.linalg.norm(edges, axis=1, keepdims=True) + 0.3
    means = cells[..., ORIENTATIONS : ORIENTATIONS + 3].reshape(len(rows), -1) - 0.5
    colours = cells[..., ORIENTATIONS + 3 :]
    middle = colours[:, 1:-1, 1:-1].mean(axis=(1, 2))
    shares = np.sqrt(np.maximum(np.concatenate([middle, colours.mean(axis=(1, 2))], axis=1), 0))
    return np.concatenate([4 * edges, means, shares, places], axis=1), middle


def _whole(
    pixels: Thumbnail, channels: Float[np.ndarray, "64 64 C"], colours: Float[np.ndarray, "W K"], shape: float
) -> Float[np.ndarray, " G"]:
    """Image-only features: shape, light, colourfulness, edges and where they are, and how much of each colour."""
    strength = channels[..., :ORIENTATIONS].sum(-1)
    quarter = SIDE // 4
    border = np.ones((SIDE, SIDE), dtype=bool)
    border[quarter:-quarter, quarter:-quarter] = False
    rgb = channels[..., ORIENTATIONS : ORIENTATIONS + 3]
    grey = rgb.mean(-1)
    halves = (
        grey[: SIDE // 2].mean() - grey[SIDE // 2 :].mean(),
        grey[:, : SIDE // 2].mean() - grey[:, SIDE // 2 :].mean(),
    )
    num_colours = len(np.unique((pixels >> 4).reshape(-1, 3) @ np.array([256, 16, 1])))
    levels = np.bincount((grey * 15.99).astype(np.int64).ravel(), minlength=16) / grey.size
    plain = [
        np.log(max(shape, 1e-3)),
        grey.mean(),
        grey.std(),
        (rgb.max(-1) - rgb.min(-1)).mean(),
        strength.mean(),
        strength.std(),
        (strength > 0.2).mean(),
        strength[border].mean() - strength[~border].mean(),
        rgb[border].std(axis=0).mean(),
        *halves,
        np.log(num_colours),
        levels.max(),
        -(levels * np.log(levels + 1e-9)).sum(),
    ]
    whole = channels[..., ORIENTATIONS + 3 :].mean(axis=(0, 1))
    return np.array([*plain, *whole, *colours.max(axis=0)], dtype=np.float32)
