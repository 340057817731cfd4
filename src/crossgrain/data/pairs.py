"""What a pair is made of besides words and pixels: the regions that a detector found, and now and then a wrong text.

No torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from crossgrain.config import Count, Share, UserError, configclass
from crossgrain.data.masking import RegionMasking
from crossgrain.data.records import Record
from crossgrain.data.regions import RegionFeatures

Reads = Literal["pixels", "regions", "raw_regions"]  # what of an image a model reads: see data/types.py
RegionTexts = Literal["all", "objects", "phrases"]  # "objects": labels with their attributes; "phrases": all but these
OtherCaptions = Callable[[np.random.Generator], Sequence[str]]  # those of a random other record


@configclass
class RegionsConfig:
    """What becomes of a detector's regions on their way into a batch."""

    max_regions: Count = 100  # the ones with the highest scores; every image has room for as many
    whole_image: bool = False  # put the whole image before them, its feature the mean of theirs
    probs: bool = False  # targets also hold the detector's distribution over its classes
    masking: RegionMasking = RegionMasking()
    # Which detector made them, on one line. Filled in from the data when a run begins; features of another are refused.
    stamp: str | None = None

    @property
    def num_regions(self) -> int:
        """Regions of every image in a batch, the whole image counted."""
        return self.max_regions + self.whole_image


@configclass
class PairsConfig:
    """How texts and images are put together."""

    swapped: Share = 0.0  # share of the pairs whose text is another image's, for matching
    # Where both words and regions are hidden: in every pair ("both", VL-BERT's joint masking), or on one side, drawn
    # evenly, of each image with its texts ("one", ImageBERT's conditional masking).
    masked_side: Literal["both", "one"] = "both"


def detected_regions(record: Record, config: RegionsConfig) -> RegionFeatures:
    """What a model sees of the record's regions: at most `max_regions`, in the detector's order.

    UserError where no detector has been over the record.
    """
    if record.detected is None:
        raise UserError(f"record {record.key!r} has no detected regions: run `crossgrain detect` on its data")
    scores = record.detected.scores
    if len(scores) <= config.max_regions:
        return record.detected
    return _take(record.detected, np.sort(np.argsort(-scores, kind="stable")[: config.max_regions]))


def with_region_texts(record: Record, kept: RegionTexts) -> Record:
    """The record with these texts of its regions only."""
    if kept == "all":
        return record
    without = {"phrases": ()} if kept == "objects" else {"label": "", "attributes": ()}
    return replace(record, regions=tuple(replace(region, **without) for region in record.regions))


def with_wrong_captions(record: Record, share: float, others: OtherCaptions, seed: Sequence[int]) -> Record:
    """The record, with probability `share` with the captions of another; `seed` decides which."""
    rng = np.random.default_rng(seed)
    return replace(record, captions=tuple(others(rng))) if rng.random() < share else record


def flip_regions(regions: RegionFeatures) -> RegionFeatures:
    """The regions in the mirrored image; their features stay what they were."""
    x1, y1, x2, y2 = regions.boxes.T
    return replace(regions, boxes=np.stack([1 - x2, y1, 1 - x1, y2], axis=1))


def _take(regions: RegionFeatures, rows: np.ndarray) -> RegionFeatures:
    return RegionFeatures(
        boxes=regions.boxes[rows],
        features=regions.features[rows],
        labels=regions.labels[rows],
        scores=regions.scores[rows],
        class_probs=None if regions.class_probs is None else regions.class_probs[rows],
        attributes=None if regions.attributes is None else regions.attributes[rows],
    )
