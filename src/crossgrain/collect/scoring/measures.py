"""How well scores tell matched pairs from mismatched ones."""

from typing import Any

import numpy as np
from jaxtyping import Float

RECALLS = (0.99, 0.97, 0.95, 0.9, 0.8, 0.5)
PERCENTILES = (1, 2, 3, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99)


def auc(matched: Float[np.ndarray, " P"], mismatched: Float[np.ndarray, " N"]) -> float:
    """The area under the ROC curve: how often a matched pair scores higher than a mismatched one; ties count half."""
    order = np.sort(mismatched)
    below = np.searchsorted(order, matched, side="left")
    not_above = np.searchsorted(order, matched, side="right")
    return float((below + not_above).mean() / 2 / max(1, len(mismatched)))


def accuracy(matched: Float[np.ndarray, " P"], mismatched: Float[np.ndarray, " N"]) -> tuple[float, float]:
    """The best accuracy, both kinds weighing the same, and the threshold that has it."""
    thresholds = np.unique(np.concatenate([matched, mismatched]))
    kept = 1 - np.searchsorted(np.sort(matched), thresholds, side="left") / len(matched)
    dropped = np.searchsorted(np.sort(mismatched), thresholds, side="left") / len(mismatched)
    best = int((kept + dropped).argmax())
    return float((kept[best] + dropped[best]) / 2), float(thresholds[best])


def measure(matched: Float[np.ndarray, " P"], mismatched: Float[np.ndarray, " N"]) -> dict[str, Any]:
    """AUC, accuracy, what each recall of matched pairs costs, and the scores' percentiles, as plain JSON values."""
    best, at = accuracy(matched, mismatched)
    rows = []
    for recall in RECALLS:
        threshold = float(np.quantile(matched, 1 - recall, method="lower"))
        rows.append(
            {
                "recall": round(float((matched >= threshold).mean()), 4),
                "threshold": round(threshold, 6),
                "mismatched_dropped": round(float((mismatched < threshold).mean()), 4),
            }
        )
    table = {
        name: {str(p): round(float(np.percentile(scores, p)), 6) for p in PERCENTILES}
        for name, scores in (("matched", matched), ("mismatched", mismatched))
    }
    return {
        "pairs": {"matched": len(matched), "mismatched": len(mismatched)},
        "auc": round(auc(matched, mismatched), 4),
        "accuracy": {"value": round(best, 4), "threshold": round(at, 6)},
        "recalls": rows,
        "percentiles": table,
    }
