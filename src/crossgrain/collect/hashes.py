"""What an image is known by: a 64-bit perceptual hash that survives re-encoding and resizing.

The perceptual hash, version `PHASH` (Zauner 2010, chapter 3.2, with other frequencies; all arithmetic on integers, so
that every machine has the same bits from the same pixels):
1. the upright RGB image over white becomes grey (ITU-R 601) and is averaged by area to 32 x 32 pixels;
2. the mean is taken out, and a type-II cosine transform (table rounded to 1/4096) gives the 64 lowest frequencies
   (u down, v across) besides the constant, ordered by (u + v, u);
3. bit i, the highest first, is 1 where coefficient i is above the median of the 64. A blank image has the hash 0.

Copies lie within a Hamming distance of `SAME_IMAGE`; mirroring only turns the sign of what is odd across, so the hash
of the mirrored image costs no second transform.
"""

import numpy as np
from PIL import Image

PHASH = "phash64-1"
SAME_IMAGE = 8  # bits that copies of one image may differ in
DECODE_SIDE = 64  # pixels that each side of a partly decoded JPEG must keep; the areas averaged stay two pixels wide
_SIDE = 32

_FREQUENCIES = np.array(
    [(u, v) for _, u, v in sorted((u + v, u, v) for u in range(11) for v in range(11) if u + v)[:64]]
)
_COSINES = np.rint(
    4096 * np.cos(np.pi / (2 * _SIDE) * np.arange(11)[:, None] * (2 * np.arange(_SIDE) + 1)[None, :])
).astype(np.int64)
_MIRROR = np.where(_FREQUENCIES[:, 1] % 2, -1, 1)


def phash(image: Image.Image) -> int:
    """The perceptual hash of an upright image, 0 to 2**64 - 1."""
    return _pack(_coefficients(image))


def mirrored_phashes(image: Image.Image) -> tuple[int, int]:
    """The perceptual hashes of an upright image and of its mirror image."""
    coefficients = _coefficients(image)
    return _pack(coefficients), _pack(coefficients * _MIRROR)


def _coefficients(image: Image.Image) -> np.ndarray:
    """The cosine transform at the 64 frequencies: int64 (64,)."""
    grey = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    values = np.asarray(grey).astype(np.int64)
    values = values * values.size - values.sum()
    return (_COSINES @ values @ _COSINES.T)[_FREQUENCIES[:, 0], _FREQUENCIES[:, 1]]


def _pack(coefficients: np.ndarray) -> int:
    ordered = np.sort(coefficients)
    above = 2 * coefficients > ordered[31] + ordered[32]
    return int.from_bytes(np.packbits(above).tobytes(), "big")
