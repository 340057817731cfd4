"""VCR: question to answer, question and answer to rationale, and both (rowanz/r2c models/eval_q2ar.py).

Rationales are chosen with the right answer given, so that Q->AR asks whether two independent choices are both right
(Zellers et al. 2019, section 3).
"""

import numpy as np
from jaxtyping import Bool, Float, Int

NUM_CHOICES = 4
CHANCE = {"Q->A": 1 / NUM_CHOICES, "QA->R": 1 / NUM_CHOICES, "Q->AR": 1 / NUM_CHOICES**2}


def hits(scores: Float[np.ndarray, "N C"], labels: Int[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
    """Whether the choice with the highest score is the right one; of equal ones the first counts."""
    if np.isnan(scores).any():
        raise ValueError("scores hold NaN, which no choice can be made by")
    return scores.argmax(axis=1) == labels


def vcr_accuracy(answered: Bool[np.ndarray, " N"], justified: Bool[np.ndarray, " N"]) -> dict[str, float]:
    """Q->A, QA->R and Q->AR from what was hit of the same N questions."""
    if not len(answered):
        raise ValueError("no questions to score")
    if len(answered) != len(justified):
        raise ValueError(f"{len(answered)} answers but {len(justified)} rationales")
    shares = {"Q->A": answered, "QA->R": justified, "Q->AR": answered & justified}
    return {name: float(np.mean(right)) for name, right in shares.items()}
