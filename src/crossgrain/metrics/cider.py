"""CIDEr (Vedantam et al. 2015): the cosine of a caption and its references over tf-idf weighted runs of 1 to 4 words.

"CIDEr-D" is what everybody reports as CIDEr (pycocoevalcap cider/cider_scorer.py): no run counts more often than the
reference has it, and captions of another length are damped. "CIDEr" is the plain form (vrama91/cider pyciderevalcap/
cider/cider_scorer.py). Both are on a scale up to 10, and are told times 100 in papers that report 130 for 1.3.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp, log, sqrt
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from crossgrain.metrics.ngrams import NGram, Words, check_captions, count_ngrams

Variant = Literal["CIDEr-D", "CIDEr"]

SIGMA = 6.0  # of the damping, in words
SCALE = 10.0


@dataclass(frozen=True)
class DocumentFrequency:
    """In the references of how many images each run of words occurs.

    Those of a single image need not be listed, since a run that is not counts as one of a single image. `images` is
    how many images there are.
    """

    counts: Counter[NGram]
    images: int

    @classmethod
    def of(cls, references: Iterable[Sequence[Words]]) -> "DocumentFrequency":
        """Counted over the references of every image; ValueError where there are none."""
        counts: Counter[NGram] = Counter()
        images = 0
        for images, texts in enumerate(references, start=1):  # noqa: B007
            counts.update({run for text in texts for runs in count_ngrams(text) for run in runs})
        if not images:
            raise ValueError("no references to count document frequencies over")
        return cls(Counter({run: count for run, count in counts.items() if count > 1}), images)

    @cached_property
    def rarest(self) -> float:
        """The idf of a run that stands in the references of one image, or of none."""
        return log(self.images)

    @cached_property
    def idf(self) -> dict[NGram, float]:
        """The idf of all others."""
        return {run: self.rarest - log(count) for run, count in self.counts.items()}


class Weighed(NamedTuple):
    """A caption as CIDEr sees it: for each length of runs their weights and the norm of these, and the caption's own.

    The length counts runs of two words, as the original does.
    """

    weights: list[dict[NGram, float]]
    norms: list[float]
    length: int


class Cider:
    """Scores single captions under document frequencies that are given, as a reward needs it.

    The references of an image are weighed once, whatever the number of captions that are held against them:

        cider = Cider(DocumentFrequency.of(references))
        wanted = [cider.weigh(text) for text in references[0]]
        reward = cider.score(words, wanted)

    The words may be strings or token ids, as those of the document frequencies.
    """

    def __init__(self, frequency: DocumentFrequency, variant: Variant = "CIDEr-D", sigma: float = SIGMA):
        self.frequency = frequency
        self.variant = variant
        self.sigma = sigma

    def weigh(self, words: Words) -> Weighed:
        """The tf-idf weights of a caption."""
        idf, rarest = self.frequency.idf, self.frequency.rarest
        weights = [{run: times * idf.get(run, rarest) for run, times in runs.items()} for runs in count_ngrams(words)]
        norms = [sqrt(sum(weight * weight for weight in runs.values())) for runs in weights]
        return Weighed(weights, norms, max(len(words) - 1, 0))

    def score(self, words: Words, references: Sequence[Weighed]) -> float:
        """The caption's mean likeness to its references, over all lengths of runs."""
        caption = self.weigh(words)
        total = sum(self._likeness(caption, reference) for reference in references)
        return SCALE * total / len(references)

    def scores(self, candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> Float[np.ndarray, " N"]:
        """The score of each caption against its references."""
        check_captions(candidates, references)
        weighed = ([self.weigh(text) for text in texts] for texts in references)
        return np.array([self.score(words, texts) for words, texts in zip(candidates, weighed, strict=True)])

    def _likeness(self, caption: Weighed, reference: Weighed) -> float:
        cosines = 0.0
        clip = self.variant == "CIDEr-D"
        for own, others, norm, other_norm in zip(
            caption.weights, reference.weights, caption.norms, reference.norms, strict=True
        ):
            if not norm or not other_norm:
                continue
            shared = own.keys() & others.keys()
            product = sum((min(own[run], others[run]) if clip else own[run]) * others[run] for run in shared)
            cosines += product / (norm * other_norm)
        damping = exp(-((caption.length - reference.length) ** 2) / (2 * self.sigma**2)) if clip else 1.0
        return damping * cosines / len(caption.weights)


def cider(
    candidates: Sequence[Words], references: Sequence[Sequence[Words]], variant: Variant = "CIDEr-D"
) -> Float[np.ndarray, " N"]:
    """The score of each caption, with document frequencies from these very references; the corpus has their mean.

    So the scores depend on which images are scored together, and those of a single image are 0.
    """
    check_captions(candidates, references)
    return Cider(DocumentFrequency.of(references), variant).scores(candidates, references)
