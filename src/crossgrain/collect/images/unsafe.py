"""The place for a classifier of unsafe content: none is shipped, the operator names one as `package.module:Class`.

Such a model is trained on material that this library neither has nor wants. Its score is stored with every image, and
an image above the threshold is dropped; without a classifier the score is None, and reports say so.
"""

import importlib
from typing import Protocol, runtime_checkable

from PIL import Image

from crossgrain.config import UserError

MIN_SIDE = 224  # pixels that the shorter side keeps for the classifier, where the image has as many


@runtime_checkable
class UnsafeClassifier(Protocol):
    """Made without arguments, once per worker process."""

    def score(self, image: Image.Image) -> float:
        """How likely an upright RGB image is to be unsafe, 0 to 1."""
        ...


def load_unsafe(name: str) -> UnsafeClassifier | None:
    """The classifier that `package.module:Class` names; None for an empty name."""
    if not name:
        return None
    module, colon, attribute = name.partition(":")
    form = "name it as package.module:Class, a class with a method score(image) -> float"
    if not colon:
        raise UserError(f"unsafe classifier {name!r}: {form}")
    try:
        classifier = getattr(importlib.import_module(module), attribute)()
    except Exception as error:  # it is not ours: anything can go wrong, such as a file of weights that is missing
        raise UserError(f"unsafe classifier {name!r} cannot be made ({error}); {form}") from None
    if not isinstance(classifier, UnsafeClassifier):
        raise UserError(f"unsafe classifier {name!r} has no method score; {form}")
    return classifier
