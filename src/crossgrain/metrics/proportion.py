"""How sure a share of successes is, or a mean."""

from math import sqrt

import numpy as np
from jaxtyping import Float

Z_95 = 1.959963984540054  # the normal distribution's two-sided 95 % point


def wilson_interval(successes: int, total: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval of a proportion, as fractions in [0, 1] (Wilson 1927, "Probable inference").

    Unlike the plain normal interval it stays inside [0, 1] and keeps its coverage near 0 and 1, where recalls often
    are. It takes the trials as independent; five captions of one image are not quite that, so it is a little narrow.
    """
    if not 0 <= successes <= total or total == 0:
        raise ValueError(f"{successes} successes of {total} trials have no interval")
    share = successes / total
    scale = 1 + z * z / total
    middle = (share + z * z / (2 * total)) / scale
    half = z * sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / scale
    return max(0.0, middle - half), min(1.0, middle + half)


def mean_interval(values: Float[np.ndarray, " N"], z: float = Z_95) -> tuple[float, float]:
    """The normal interval of the mean of scores that are no mere hits, such as VQA's; a single one has no width."""
    if not len(values):
        raise ValueError("the mean of no values has no interval")
    error = z * float(np.std(values, ddof=1)) / sqrt(len(values)) if len(values) > 1 else 0.0
    mean = float(np.mean(values))
    return mean - error, mean + error
