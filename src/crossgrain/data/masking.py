"""Hide words of a text for masked language modelling, and regions of an image.

The drawing of words is X-VLM's (dataset/pretrain_dataset.py:57-127), equal in distribution: positions are visited in
random order, each alone or as the start of a run of two or three tokens, widened to whole words, until enough tokens
are covered; what is beyond the wanted number is given back at random. With `whole_words` and skip-grams off it is
BERT's.
"""

from typing import TYPE_CHECKING

import numpy as np

from crossgrain.config import configclass

if TYPE_CHECKING:
    from crossgrain.data.text import Tokenizer


@configclass
class Masking:
    """How many tokens are hidden, which together, and what stands in their place."""

    probability: float = 0.25  # share of the tokens, [CLS] counted; 0.15 in BERT, ImageBERT, VL-BERT, Pixel-BERT
    max_masked: int = 8
    whole_words: bool = True
    skip_gram_probability: float = 0.2  # that a visit hides a run of tokens
    skip_gram_sizes: tuple[int, int] = (2, 3)  # shortest and longest run
    mask: float = 0.8  # share of the hidden tokens that become [MASK]
    random: float = 0.1  # share that become any word of the vocabulary; the rest stay as they are

    def __post_init__(self) -> None:
        shares = (self.probability, self.skip_gram_probability, self.mask, self.random, self.mask + self.random)
        if not all(0 <= share <= 1 for share in shares):
            raise ValueError(f"probabilities must be between 0 and 1, and mask + random at most 1, not {shares}")
        if self.max_masked < 1 or not 1 <= self.skip_gram_sizes[0] <= self.skip_gram_sizes[1]:
            raise ValueError("max_masked must be at least 1, and skip_gram_sizes ascend from at least 1")


@configclass
class RegionMasking:
    """How many of an image's regions are predicted, and how many of these the model must not see."""

    probability: float = 0.15  # share of the regions that are chosen, at least one
    hide: float = 0.9  # share of the chosen that are hidden; the rest is predicted in plain sight
    max_masked: int = 15

    def __post_init__(self) -> None:
        if not (0 <= self.probability <= 1 and 0 <= self.hide <= 1):
            raise ValueError(f"probabilities must be between 0 and 1, not {(self.probability, self.hide)}")
        if self.max_masked < 1:
            raise ValueError(f"max_masked must be at least 1, not {self.max_masked}")


def mask_regions(num_regions: int, masking: RegionMasking, rng: np.random.Generator) -> tuple[list[int], list[bool]]:
    """Choose some of an image's regions: their positions in ascending order, and which of these are hidden.

    The number is fixed as for words: 1 to `max_masked`, and none only where the image has no region. The published
    systems throw a coin for each region instead (VL-BERT conceptual_captions.py:319-349, UNITER data/mrm.py:15-21),
    which gives the same number on average.
    """
    wanted = min(masking.max_masked, num_regions, max(1, round(masking.probability * num_regions)))
    positions = sorted(rng.choice(num_regions, wanted, replace=False).tolist()) if wanted else []
    return positions, (rng.random(wanted) < masking.hide).tolist()


def mask_tokens(
    ids: list[int], tokenizer: "Tokenizer", masking: Masking, rng: np.random.Generator
) -> tuple[list[int], list[int], list[int]]:
    """Hide some words of `ids` ([CLS] first, [SEP] at the end or not, no padding).

    Returns the changed ids, the hidden positions in ascending order (1 to `max_masked` of them, never a special token),
    and the ids that stood there. `ids` must hold at least one word.
    """
    end = len(ids) - (ids[-1] == tokenizer.sep)
    assert ids[0] == tokenizer.cls and end >= 2, ids
    wanted = min(masking.max_masked, max(1, round(masking.probability * len(ids))))
    hidden: set[int] = set()
    for position in (1 + rng.permutation(end - 1)).tolist():
        if len(hidden) >= wanted:
            break
        if position not in hidden:
            hidden.update(_run(position, end, ids, tokenizer, masking, rng))
    positions = list(hidden)
    if len(positions) > wanted:
        positions = rng.choice(positions, wanted, replace=False).tolist()
    positions.sort()

    changed = ids.copy()
    for position, draw in zip(positions, rng.random(len(positions)).tolist(), strict=True):
        if draw < masking.mask:
            changed[position] = tokenizer.mask
        elif draw < masking.mask + masking.random:
            changed[position] = int(rng.integers(len(tokenizer)))
    return changed, positions, [ids[position] for position in positions]


def _run(
    position: int, end: int, ids: list[int], tokenizer: "Tokenizer", masking: Masking, rng: np.random.Generator
) -> range:
    """The positions that a visit to `position` covers, all in [1, end)."""
    stop = position + 1
    if masking.skip_gram_probability and rng.random() < masking.skip_gram_probability:
        stop = position + int(rng.integers(masking.skip_gram_sizes[0], masking.skip_gram_sizes[1] + 1))
    if masking.whole_words:
        while position > 1 and tokenizer.is_continuation(ids[position]):
            position -= 1
        while stop < end and tokenizer.is_continuation(ids[stop]):
            stop += 1
    return range(position, min(stop, end))
