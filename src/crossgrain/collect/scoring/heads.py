"""A small head over hand-made features: standardised, one hidden layer, the probability of a match. Numpy only."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from crossgrain.collect.scoring.alignment import Adam, Weights, normal

_CLIP = 5.0  # standard deviations beyond which a feature says no more


def apply_head(weights: Mapping[str, np.ndarray], features: Float[np.ndarray, "K F"]) -> Float[np.ndarray, " K"]:
    """Probabilities; each row is multiplied on its own, so that no result depends on its neighbours."""
    standard = _standard(weights, features)[:, None]
    hidden = np.tanh(standard @ weights["head_hidden"] + weights["head_hidden_bias"])
    logits = (hidden @ weights["head_out"] + standard @ weights["head_straight"])[:, 0, 0] + weights["head_bias"][0]
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


def train_head(
    features: Float[np.ndarray, "N F"],
    matched: Float[np.ndarray, " N"],
    *,
    hidden: int,
    epochs: int,
    lr: float,
    decay: float,
    rng: np.random.Generator,
) -> Weights:
    """Weights that minimise the binary cross entropy; both classes weigh the same, whatever their numbers."""
    size = features.shape[1]
    weights: Weights = {
        "head_hidden": normal(rng, (size, hidden), (1 / size) ** 0.5),
        "head_hidden_bias": np.zeros(hidden, dtype=np.float32),
        "head_out": np.zeros((hidden, 1), dtype=np.float32),
        "head_straight": np.zeros((size, 1), dtype=np.float32),
        "head_bias": np.zeros(1, dtype=np.float32),
    }
    fixed = {
        "head_centre": features.mean(0).astype(np.float32),
        "head_scale": (features.std(0) + 1e-3).astype(np.float32),
    }
    standard = _standard(fixed, features)
    share = float(matched.mean())
    weight = np.where(matched > 0, 0.5 / share, 0.5 / (1 - share)).astype(np.float32)
    optimizer = Adam(weights, decay)
    batch_size = 256
    total = epochs * -(-len(features) // batch_size)
    for _ in range(epochs):
        order = rng.permutation(len(features))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            x = standard[rows]
            seen = np.tanh(x @ weights["head_hidden"] + weights["head_hidden_bias"])
            logits = (seen @ weights["head_out"] + x @ weights["head_straight"])[:, 0] + weights["head_bias"]
            slope = ((1 / (1 + np.exp(-logits)) - matched[rows]) * weight[rows] / len(rows))[:, None]
            on_hidden = slope @ weights["head_out"].T * (1 - seen**2)
            gradients = {
                "head_hidden": x.T @ on_hidden,
                "head_hidden_bias": on_hidden.sum(0),
                "head_out": seen.T @ slope,
                "head_straight": x.T @ slope,
                "head_bias": slope.sum(0),
            }
            optimizer.update(gradients, lr * (1 - optimizer.step / total))
    return {**fixed, **weights}


def _standard(weights: Mapping[str, np.ndarray], features: Float[np.ndarray, "N F"]) -> Float[np.ndarray, "N F"]:
    standard = (features - weights["head_centre"]) / weights["head_scale"]
    return np.clip(standard, -_CLIP, _CLIP).astype(np.float32)
