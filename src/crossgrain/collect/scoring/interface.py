"""What scores how well a text fits an image: encode each side once, then compare the pairs that are asked for."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from crossgrain.config import config_owner

# By the `type:` of a recipe; the checkpoint's scorer needs torch and is named, not imported.
SCORERS: dict[str, type | str] = {
    "features": "crossgrain.collect.scoring.features:FeatureScorer",
    "checkpoint": "crossgrain.pair_scorer:CheckpointScorer",
}


class PairScorer(ABC):
    """A weak image-text model; made from its nested `Config`.

    The three verbs are functions of one row: what stands beside it in a call changes nothing. Rows are
    numpy arrays of a fixed shape, so that a caller can keep them in files and score any pairs of them later.
    """

    @abstractmethod
    def fingerprint(self) -> str:
        """Changes when scores may change: a hash of the weights and of everything else that decides them."""

    @abstractmethod
    def image_features(self, images: Sequence[bytes]) -> Float[np.ndarray, "N F"]:
        """One row for each encoded file; a file that is no usable image gets NaN."""

    @abstractmethod
    def text_features(self, texts: Sequence[str]) -> Float[np.ndarray, "M G"]:
        """One row for each text."""

    @abstractmethod
    def score(self, images: Float[np.ndarray, "K F"], texts: Float[np.ndarray, "K G"]) -> Float[np.ndarray, " K"]:
        """How well image row k and text row k fit, float32, the higher the better; `lowest` where the image is NaN."""

    lowest: float = 0.0  # of an image that could not be read


def build_scorer(config: Any) -> PairScorer:
    """The scorer of a config that a recipe's `type:` has chosen. UserError where what it names is not there."""
    return config_owner(config)(config)
