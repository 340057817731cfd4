"""A collection as a value: where pages come from, the rules of every stage, and how the work is spread."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from crossgrain.collect.fetch.config import FetchConfig
from crossgrain.collect.images.filter import ImageFilterConfig
from crossgrain.collect.pages.html import PageConfig
from crossgrain.collect.pages.inputs import Input
from crossgrain.collect.scoring.interface import SCORERS
from crossgrain.collect.sentences import SentenceConfig
from crossgrain.config import Choice, Count, Share, configclass

Bits = Annotated[int, Field(ge=0, le=16)]


@configclass
class ScenesWeb:
    """A web of drawn scenes, made before anything is collected, in the folder `web` of the collection."""

    pages: Count = 2000
    seed: int = 0


@configclass
class Threshold:
    """What a score must reach: a value, or the percentile of all scores below which pairs are dropped. Not both."""

    value: float | None = None
    percentile: Annotated[float, Field(ge=0, lt=100)] | None = None

    def __post_init__(self) -> None:
        if self.value is not None and self.percentile is not None:
            raise ValueError("name a value or a percentile, not both")

    @property
    def asks(self) -> bool:
        """Whether anything is dropped by it."""
        return self.value is not None or self.percentile is not None


@configclass
class AggregateConfig:
    """Which of all pairs of an image is kept."""

    near_distance: Bits = 8  # bits in which perceptual hashes of one image differ at most
    max_images_per_text: Annotated[int, Field(ge=0)] = 10  # a text on more of them is dropped everywhere, 0: no limit
    # What `crossgrain collect hash-set` wrote; images that match one, mirrored or not, are dropped.
    test_sets: tuple[Path, ...] = ()


@configclass
class CollectRecipe:
    """A run of `crossgrain collect`."""

    title: str = ""
    inputs: tuple[Input, ...] = ()
    scenes_web: ScenesWeb | None = None
    pages: PageConfig = PageConfig()
    sentences: SentenceConfig = SentenceConfig()
    fetch: FetchConfig = FetchConfig()
    images: ImageFilterConfig = ImageFilterConfig()
    # Images that lie in no archive of the inputs are fetched; where this is off, they are dropped and nobody is asked.
    fetch_missing: bool = True
    scorer: Annotated[Any, Choice(SCORERS)] | None = None  # none: every pair that is left counts as equally good
    threshold: Threshold = Threshold()
    aggregate: AggregateConfig = AggregateConfig()

    seed: int = 0
    num_buckets: Count = 16  # pieces of the work behind the pages; a piece's texts must fit into memory
    tasks_per_domain: Count = 1  # that may fetch from one domain at a time; its limits are divided among them
    records_per_shard: Count = 1000
    val_share: Share = 0.05
    vocab_size: Annotated[int, Field(ge=0)] = 8000  # words of the vocabulary that the kept texts train, 0: none

    engine: Literal["pool", "ray"] = "pool"
    num_workers: Annotated[int, Field(ge=0)] | None = None  # none: one per CPU; 0: all in this process
    max_retries: Count = 3  # attempts at a piece of work before it is set aside
    task_seconds: Annotated[float, Field(gt=0)] = 6 * 3600.0  # a piece that takes longer is begun again

    def workers(self) -> int:
        """How many processes work: as many as are asked for, else one for each CPU of this machine."""
        if self.num_workers is not None:
            return self.num_workers
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def __post_init__(self) -> None:
        if not self.inputs and self.scenes_web is None:
            raise ValueError("inputs is empty: name archives, folders or lists to read, or scenes_web")
        if self.threshold.asks and self.scorer is None:
            raise ValueError("threshold needs a scorer: name one, or leave the threshold out")
        if re.search(r"[\x00-\x1f]", self.title):
            raise ValueError(f"title is one line of text, not {self.title!r}")
