"""Is an image a picture of the world, or furniture of a page: an icon, a chart, a screenshot, a banner, a gradient?

LAIT drops "unnatural" images with a binary classifier (ImageBERT, section 3). This one is small enough for a CPU: some
thirty statistics of the image at 64 x 64 pixels (how many colours, how flat, how its edges lie), a hidden layer, one
score. `train` fits it to any two folders; the weights shipped beside this file (`natural.json`) learnt from what the
library draws (`specimens`), and from no photo.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from crossgrain.collect.images import specimens
from crossgrain.config import UserError
from crossgrain.data.images import ImageError, open_image

SIDE = 64  # pixels of the square that the statistics are taken of
DEFAULT_WEIGHTS = Path(__file__).with_name("natural.json")
_VERSION = 1  # of the statistics: weights of another version mean nothing
_HIDDEN = 16
_EPS = 1e-6


def statistics(image: Image.Image) -> np.ndarray:
    """The statistics of an RGB image: float64 (F,)."""
    small = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))
    planes = np.ascontiguousarray(small.transpose(2, 0, 1))
    luma = np.asarray(Image.fromarray(small).convert("L")).astype(np.int16)
    return np.array([*_colours(planes), *_brightness(luma), *_edges(luma), *_flatness(luma)])


def _colours(planes: np.ndarray) -> Iterator[float]:
    red, green, blue = planes
    coarse = (red >> 4).astype(np.int64) << 8 | green & 0xF0 | blue >> 4
    counts = np.bincount(coarse.ravel(), minlength=4096)
    counts = np.sort(counts[counts > 0])[::-1] / SIDE**2
    yield np.log(len(counts))
    yield counts[0]
    yield counts[:4].sum()
    yield -(counts * np.log(counts)).sum()
    saturation = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    yield saturation.mean() / 64
    yield saturation.std() / 64
    yield np.count_nonzero(saturation < 6) / SIDE**2
    yield np.count_nonzero(saturation > 180) / SIDE**2
    border = np.concatenate([planes[:, 0], planes[:, -1], planes[:, :, 0], planes[:, :, -1]], axis=1)
    yield np.log(border.std(axis=1).mean() + 1)


def _brightness(luma: np.ndarray) -> Iterator[float]:
    counts = np.bincount(luma.ravel() >> 3, minlength=32) / SIDE**2
    yield luma.mean() / 128
    yield luma.std() / 64
    yield -(counts * np.log(counts + _EPS)).sum()
    yield counts.max()
    yield counts[0] + counts[1]
    yield counts[31] + counts[30]
    yield np.count_nonzero(counts) / 32


def _edges(luma: np.ndarray) -> Iterator[float]:
    across, down = np.abs(np.diff(luma, axis=1)), np.abs(np.diff(luma, axis=0))
    steps = np.concatenate([across.ravel(), down.ravel()])
    shares = np.cumsum(np.bincount(steps, minlength=256)) / len(steps)
    yield from shares[[0, 1, 3, 8, 24, 64]]
    mean = steps.mean()
    yield np.log(mean + 0.1)
    yield np.log(steps.std() / (mean + 0.1) + 0.1)
    total = across.mean() + down.mean() + 0.1
    yield (across.mean() - down.mean()) / total
    yield abs(across.mean() - down.mean()) / total
    diagonal = np.minimum(across[:-1], down[:, :-1])  # edges of the world lie aslant, those of pages do not
    yield np.log(diagonal.mean() + 0.1) - np.log(total)
    bend = np.abs(4 * luma[1:-1, 1:-1] - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:])
    yield np.log(bend.mean() + 0.1)
    yield np.count_nonzero(bend <= 2) / bend.size


def _flatness(luma: np.ndarray) -> Iterator[float]:
    yield np.count_nonzero(np.ptp(luma, axis=0) <= 4) / SIDE
    yield np.count_nonzero(np.ptp(luma, axis=1) <= 4) / SIDE
    blocks = luma.reshape(8, 8, 8, 8).transpose(0, 2, 1, 3).reshape(64, 64)
    spread = np.sort(blocks.std(-1))
    yield np.count_nonzero(spread < 1) / 64
    yield np.count_nonzero(spread < 4) / 64
    yield from np.log(spread[[6, 20, 32, 44, 57]] + 0.3)


@dataclass(frozen=True, eq=False, kw_only=True)
class NaturalClassifier:
    """A network of one hidden layer over `statistics`."""

    mean: np.ndarray  # (F,)
    scale: np.ndarray  # (F,)
    hidden: np.ndarray  # (F + 1, H), the last row is the bias
    output: np.ndarray  # (H + 1,)
    note: str = ""  # what it was trained on

    def score(self, image: Image.Image) -> float:
        """How natural an RGB image is, 0 to 1."""
        return float(self.scores(statistics(image)[None])[0])

    def scores(self, values: np.ndarray) -> np.ndarray:
        """The scores of statistics (N, F): (N,)."""
        return _sigmoid(self._forward(values)[1])

    def _forward(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scaled = np.clip((values - self.mean) / self.scale, -4, 4)
        active = np.tanh(scaled @ self.hidden[:-1] + self.hidden[-1])
        return active, active @ self.output[:-1] + self.output[-1]

    @classmethod
    def load(cls, path: Path = DEFAULT_WEIGHTS) -> "NaturalClassifier":
        """Weights that `save` wrote."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            arrays = {name: np.array(values[name], dtype=np.float64) for name in ("mean", "scale", "hidden", "output")}
            if values["version"] != _VERSION or arrays["hidden"].shape[0] != len(arrays["mean"]) + 1:
                raise ValueError(f"version {values['version']}, this library reads {_VERSION}")
            return cls(**arrays, note=str(values["note"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: no weights of the natural-image classifier ({error})") from None

    def save(self, path: Path) -> None:
        """Write the weights as JSON."""
        arrays = {name: np.round(getattr(self, name), 4).tolist() for name in ("mean", "scale", "hidden", "output")}
        path.write_text(json.dumps({"version": _VERSION, "note": self.note, **arrays}) + "\n", encoding="utf-8")


def fit(natural: np.ndarray, unnatural: np.ndarray, note: str, seed: int = 0, steps: int = 1500) -> NaturalClassifier:
    """Fit to the statistics (N, F) and (M, F) of both classes, each of which weighs the same: Adam over all rows."""
    values = np.concatenate([natural, unnatural])
    target = np.concatenate([np.ones(len(natural)), np.zeros(len(unnatural))])
    weight = np.concatenate([np.full(len(natural), 0.5 / len(natural)), np.full(len(unnatural), 0.5 / len(unnatural))])
    mean, scale = values.mean(0), values.std(0) + 1e-3
    scaled = np.clip((values - mean) / scale, -4, 4)
    rng = np.random.default_rng(seed)
    num = values.shape[1]
    hidden = np.concatenate([rng.normal(0, num**-0.5, (num, _HIDDEN)), np.zeros((1, _HIDDEN))])
    output = np.concatenate([rng.normal(0, 0.25, _HIDDEN), [0.0]])
    moments = [np.zeros_like(array) for array in (hidden, hidden, output, output)]
    inputs = np.concatenate([scaled, np.ones((len(scaled), 1))], 1)
    for step in range(1, steps + 1):
        active = np.concatenate([np.tanh(inputs @ hidden), np.ones((len(inputs), 1))], 1)
        error = weight * (_sigmoid(active @ output) - target)
        back = error[:, None] * output[:-1] * (1 - active[:, :-1] ** 2)
        gradients = (inputs.T @ back + 3e-4 * hidden, active.T @ error + 3e-4 * output)
        for array, gradient, first, second in zip(
            (hidden, output), gradients, moments[::2], moments[1::2], strict=True
        ):
            first += 0.1 * (gradient - first)
            second += 0.01 * (gradient**2 - second)
            rate = 0.01 * (1 - step / steps)
            array -= rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)
    return NaturalClassifier(mean=mean, scale=scale, hidden=hidden, output=output, note=note)


def train(natural: Path, unnatural: Path, note: str = "") -> NaturalClassifier:
    """A classifier of the images in two folders; files that are no images are passed over."""
    rows = []
    for folder in (natural, unnatural):
        found = [*_of_files(sorted(path for path in folder.rglob("*") if path.is_file()))]
        if len(found) < 20:
            raise UserError(f"{folder}: {len(found)} readable images, a classifier needs 20 or more of each kind")
        rows.append(np.stack(found))
    return fit(*rows, note=note or f"{len(rows[0])} natural and {len(rows[1])} unnatural images of two folders")


def train_on_specimens(num_each: int = 400, seed: int = 0) -> NaturalClassifier:
    """The shipped classifier: `num_each` drawings of every unnatural kind, and as many natural ones altogether."""
    unnatural = _of_drawings([*specimens.UNNATURAL], num_each, seed)
    share = num_each * len(specimens.UNNATURAL) // len(specimens.NATURAL)
    natural = _of_drawings([*specimens.NATURAL], share, seed)
    note = f"{share} each of {', '.join(specimens.NATURAL)} against {num_each} each of {', '.join(specimens.UNNATURAL)}"
    return fit(natural, unnatural, note=f"drawings: {note}; no photo")


def _of_drawings(kinds: Sequence[str], num_each: int, seed: int) -> np.ndarray:
    numbered = ((kind, seed * 1_000_003 + number) for kind in kinds for number in range(num_each))
    found = (specimens.encode_as_found(specimens.draw(kind, number), number) for kind, number in numbered)
    return np.stack([statistics(open_image(data, at_least=SIDE)) for data in found])


def _of_files(paths: Iterable[Path]) -> Iterator[np.ndarray]:
    for path in paths:
        try:
            yield statistics(open_image(path, at_least=SIDE))
        except ImageError:
            continue


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(values, -40, 40)))
