"""The samples of a task to one batch of tensors, all shapes fixed by the recipe."""

from collections.abc import Sequence

import numpy as np
import torch

from crossgrain.data.asks import Material, Words
from crossgrain.data.collate import Origin, canvas, groups_of, pad_words, seen_regions
from crossgrain.data.samples import Recipe, Sample
from crossgrain.data.types import Answers, Batch, Chosen, Image, Judged, Named, Pixels, Tensors

_TARGETS: dict[Material, type[Tensors]] = {
    "questions": Answers,
    "pairs": Judged,
    "choices": Chosen,
    "expressions": Named,
}


def collate_task(samples: Sequence[Sample], origins: Sequence[Origin], material: Material, recipe: Recipe) -> Batch:
    """The batch of these samples: their rows in order, each with its image, and the target of the task.

    A sample's images stand side by side. Every row speaks about a whole image, and nothing is hidden.
    """
    shown = [part for sample in samples for part in (sample, sample.second) if part is not None]
    first = np.cumsum([0, *(1 + (sample.second is not None) for sample in samples)])
    rows = [(first[number] + row.image, row) for number, sample in enumerate(samples) for row in sample.rows]
    image = np.array([place for place, _ in rows], dtype=np.int64)
    words = [Words(row.ids, row.segments, row.tags) for _, row in rows]
    text = pad_words(words, recipe.text.max_tokens, recipe.tokenizer.pad)
    if recipe.reads == "pixels":
        pixels, size = canvas([part.pixels for part in shown], recipe.image)
        boxes = torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(len(rows), 1)
        none = torch.zeros(0, dtype=torch.long)
        seen = Pixels(pixels=pixels, image=torch.from_numpy(image), boxes=boxes, regions=none, size=size)
        images: dict[str, Image] = {"clean": seen, "masked": seen}
    else:
        images, _ = seen_regions(shown, image, recipe)
    targets = [sample.target for sample in samples if sample.target is not None]
    stacked = {name: torch.from_numpy(np.stack([target[name] for target in targets])) for name in targets[0]}
    return Batch(
        image=images,
        text={"clean": text, "masked": text},
        group=torch.from_numpy(np.repeat(groups_of(origins), [len(sample.rows) for sample in samples])),
        targets={material: _TARGETS[material](**stacked)},
    )
