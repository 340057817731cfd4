"""Windows of images against words of texts: a two-tower map, and how it is learnt with in-batch negatives. Numpy only.

One hidden layer turns a window into an E-vector; each known word and pair of words has an E-vector of its own. An image
shows a word as well as its best window does, M[i, w] = max_l h[i, l] . u[w] (late interaction as in FILIP, Yao et al.
2021), and a pair scores the sum of M over the text's words. The loss is the symmetric InfoNCE of the batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

Weights = dict[str, np.ndarray]
_BETAS = 0.9, 0.98
_WARMUP = 30  # steps
_TELL_EVERY = 100


@dataclass(frozen=True, kw_only=True)
class Tower:
    """The image side: what is learnt of windows."""

    centre: Float[np.ndarray, " D"]
    scale: Float[np.ndarray, " D"]
    hidden: Float[np.ndarray, "D H"]
    hidden_bias: Float[np.ndarray, " H"]
    out: Float[np.ndarray, "H E"]

    @staticmethod
    def of(weights: Mapping[str, np.ndarray]) -> "Tower":
        """Its part of saved weights."""
        return Tower(**{name: weights[name] for name in ("centre", "scale", "hidden", "hidden_bias", "out")})

    def __call__(self, windows: Float[np.ndarray, "W D"]) -> Float[np.ndarray, "W E"]:
        """The vectors of one image's windows: image by image, so that no result depends on its neighbours."""
        standard = (windows - self.centre) / self.scale
        return np.maximum(standard @ self.hidden + self.hidden_bias, 0) @ self.out


class Adam:
    """Kingma and Ba 2015, with decoupled weight decay, in place over named arrays."""

    def __init__(self, weights: Weights, decay: float):
        self.weights, self.decay, self.step = weights, decay, 0
        self._first = {name: np.zeros_like(value) for name, value in weights.items()}
        self._second = {name: np.zeros_like(value) for name, value in weights.items()}

    def update(self, gradients: Mapping[str, np.ndarray], lr: float) -> None:
        """One step down."""
        self.step += 1
        slow, fast = (1 - beta**self.step for beta in _BETAS)
        for name, gradient in gradients.items():
            first, second, value = self._first[name], self._second[name], self.weights[name]
            first += (1 - _BETAS[0]) * (gradient - first)
            second += (1 - _BETAS[1]) * (gradient**2 - second)
            if value.ndim > 1:
                value *= 1 - lr * self.decay
            value -= lr * (first / slow) / (np.sqrt(second / fast) + 1e-8)


def train_alignment(
    views: Sequence[Float[np.ndarray, "N W D"]],
    texts: Sequence[Sequence[Sequence[Int[np.ndarray, " _"]]]],
    vocabulary_size: int,
    *,
    hidden: int,
    dim: int,
    steps: int,
    batch_size: int,
    lr: float,
    decay: float,
    dropout: float,
    rng: np.random.Generator,
) -> Iterator[tuple[int, float, Weights]]:
    """Every hundred steps their number, the mean loss and the weights (the same arrays each time).

    `views` are the same images as they are and changed (mirrored); `texts[v][i]` are the places of the known units of
    each text of image i, as view v shows it.
    """
    num_images, _, size = views[0].shape
    flat = views[0][:: max(1, num_images // 500)].reshape(-1, size).astype(np.float32)
    fixed: Weights = {"centre": flat.mean(0), "scale": flat.std(0) + 0.05}
    learnt: Weights = {
        "hidden": normal(rng, (size, hidden), (2 / size) ** 0.5),
        "hidden_bias": np.zeros(hidden, dtype=np.float32),
        "out": normal(rng, (hidden, dim), (1 / hidden) ** 0.5),
        "units": normal(rng, (vocabulary_size, dim), 0.02),
        "importance": np.zeros(vocabulary_size, dtype=np.float32),
    }
    optimizer = Adam(learnt, decay)
    losses: list[float] = []
    for step, rows in enumerate(_batches(num_images, batch_size, steps, rng), 1):
        view = int(rng.integers(len(views)))
        chosen = [texts[view][row][rng.integers(len(texts[view][row]))] for row in rows]
        here, words = np.unique(np.concatenate(chosen), return_inverse=True)
        counts = np.zeros((batch_size, len(here)), dtype=np.float32)
        counts[np.repeat(np.arange(batch_size), [len(text) for text in chosen]), words] = 1
        keep = (rng.random((1, hidden), dtype=np.float32) >= dropout).astype(np.float32) / np.float32(1 - dropout)
        standard = (views[view][rows].astype(np.float32) - fixed["centre"]) / fixed["scale"]
        loss, gradients = _step(learnt, standard, here, counts, keep)
        optimizer.update(gradients, lr * min(1.0, step / _WARMUP) * 0.5 * (1 + np.cos(np.pi * step / steps)))
        losses.append(loss)
        if step % _TELL_EVERY == 0 or step == steps:
            yield step, float(np.mean(losses)), {**fixed, **learnt}
            losses.clear()


def _batches(num_images: int, batch_size: int, steps: int, rng: np.random.Generator) -> Iterator[Int[np.ndarray, " B"]]:
    """Rows of whole batches, every image once before any comes again."""
    order = np.zeros(0, dtype=np.int64)
    for _ in range(steps):
        if len(order) < batch_size:
            order = rng.permutation(num_images)
        yield order[:batch_size]
        order = order[batch_size:]


def _step(
    weights: Weights,
    windows: Float[np.ndarray, "B W D"],
    here: Int[np.ndarray, " U"],
    counts: Float[np.ndarray, "B U"],
    keep: Float[np.ndarray, "1 H"],
) -> tuple[float, Weights]:
    """Loss and gradients of a batch; `here` are the units of its texts, `counts` which text has which."""
    batch, num_windows, size = windows.shape
    flat = windows.reshape(-1, size)
    hidden = flat @ weights["hidden"]
    hidden += weights["hidden_bias"]
    np.maximum(hidden, 0, out=hidden)
    hidden *= keep
    vectors = hidden @ weights["out"]
    units = weights["units"][here]
    shown = (vectors @ units.T).reshape(batch, num_windows, -1)
    most = shown.max(axis=1)  # (B, U)
    gate = np.exp(weights["importance"][here])
    logits = (most * gate) @ counts.T  # image i with text j
    loss, slope = _info_nce(logits)
    toward = slope @ counts
    on_gate = (toward * most).sum(0) * gate
    toward *= gate
    at = ((shown == most[:, None]) * toward[:, None]).reshape(-1, len(here))
    on_vectors = at @ units
    on_hidden = on_vectors @ weights["out"].T
    on_hidden *= keep
    on_hidden *= hidden > 0
    gradients = {
        "hidden": flat.T @ on_hidden,
        "hidden_bias": on_hidden.sum(0),
        "out": hidden.T @ on_vectors,
        "units": np.zeros_like(weights["units"]),
        "importance": np.zeros_like(weights["importance"]),
    }
    gradients["units"][here] = at.T @ vectors
    gradients["importance"][here] = on_gate
    return loss, gradients


def _info_nce(logits: Float[np.ndarray, "B B"]) -> tuple[float, Float[np.ndarray, "B B"]]:
    """The mean of both directions' cross entropies, and its gradient."""
    batch = len(logits)
    loss, slope = 0.0, np.zeros_like(logits)
    for axis in (0, 1):
        shifted = logits - logits.max(axis=axis, keepdims=True)
        log_share = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
        loss -= float(np.diagonal(log_share).mean()) / 2
        slope += (np.exp(log_share) - np.eye(batch, dtype=logits.dtype)) / (2 * batch)
    return loss, slope


def normal(rng: np.random.Generator, shape: tuple[int, ...], deviation: float) -> np.ndarray:
    """Initial weights."""
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(deviation)
