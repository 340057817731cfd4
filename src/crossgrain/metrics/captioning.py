"""All scores of captions at once, as the official evaluation of COCO captions has them (pycocoevalcap eval.py)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from crossgrain.metrics.bleu import BleuCounts
from crossgrain.metrics.cider import SCALE, cider
from crossgrain.metrics.java import java_scores
from crossgrain.metrics.ngrams import MAX_LENGTH
from crossgrain.metrics.proportion import mean_interval
from crossgrain.metrics.ptb import caption_words
from crossgrain.metrics.rouge import rouge_l

Tokenize = Callable[[str], Sequence[str]]


@dataclass(frozen=True)
class CaptionScores:
    """The scores of N captions: BLEU-1 to BLEU-4, ROUGE-L and CIDEr, with Java METEOR, and SPICE where its models are.

    All are in [0, 1] but CIDEr, which goes to 10; papers print them times 100. `each` are those of single captions,
    whose mean the corpus has, except of BLEU and METEOR, which add up counts. `confidence_95` is drawn from the spread
    over captions; METEOR has none.
    """

    corpus: dict[str, float]
    confidence_95: dict[str, tuple[float, float]]
    each: dict[str, Float[np.ndarray, " N"]]


def caption_scores(
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    tokenize: Tokenize = caption_words,
    java: bool = True,
) -> CaptionScores:
    """Score one caption an image against that image's references; ValueError where there is nothing to score.

    `tokenize` makes words of a text: by default those of the official evaluation; `str.split` where texts are words
    already, as in nlg-eval. With `java=False` METEOR and SPICE are left out even where they could be computed.
    """
    words = [list(tokenize(caption)) for caption in captions]
    told = [[list(tokenize(text)) for text in texts] for texts in references]
    counts = BleuCounts(words, told)
    each = {f"BLEU-{n + 1}": column for n, column in enumerate(counts.captions().T)}
    means = {"ROUGE-L": rouge_l(words, told), "CIDEr": cider(words, told)}
    corpus = {name: float(score) for name, score in zip(each, counts.corpus(), strict=True)}
    corpus |= {name: float(scores.mean()) for name, scores in means.items()}
    low, high = np.percentile(counts.resampled(), (2.5, 97.5), axis=0)
    confidence = {f"BLEU-{n + 1}": (float(low[n]), float(high[n])) for n in range(MAX_LENGTH)}
    confidence |= {name: _interval(scores, SCALE if name == "CIDEr" else 1.0) for name, scores in means.items()}
    for name, (score, single) in (java_scores(words, told) if java else {}).items():
        corpus[name], each[name] = score, single
        if name == "SPICE":
            confidence[name] = _interval(single)
    return CaptionScores(corpus, confidence, each | means)


def _interval(scores: Float[np.ndarray, " N"], most: float = 1.0) -> tuple[float, float]:
    low, high = mean_interval(scores)
    return max(0.0, low), min(most, high)
