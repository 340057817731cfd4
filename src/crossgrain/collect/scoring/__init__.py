"""Stage 4: how well a text fits an image. `interface` first, then `features`, what it is made of, and `training`."""

from crossgrain.collect.scoring.features import FeatureScorer
from crossgrain.collect.scoring.interface import SCORERS, PairScorer, build_scorer
from crossgrain.collect.scoring.training import ScorerTraining, judge_scorer, read_captioned, train_scorer

__all__ = [
    "SCORERS",
    "FeatureScorer",
    "PairScorer",
    "ScorerTraining",
    "build_scorer",
    "judge_scorer",
    "read_captioned",
    "train_scorer",
]
