"""The light scorer for CPUs: hand-made features of a text, of an image and of both, and a small head. No torch.

After LAIT's fourth stage (ImageBERT, Qi et al. 2020, section 3: a weak image-text model with hand-crafted text-only,
image-content and cross-modal features, trained on a small supervised set). A folder holds weights.npz and scorer.json.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float, Int

from crossgrain.collect.scoring.alignment import Tower
from crossgrain.collect.scoring.heads import apply_head
from crossgrain.collect.scoring.interface import PairScorer
from crossgrain.collect.scoring.pictures import COLOURS, NUM_WHOLE, NUM_WINDOWS, WINDOW_SIZE, describe
from crossgrain.collect.scoring.words import (
    MAX_UNITS,
    MAX_WORDS,
    NUM_WRITING,
    colours_named,
    places_in,
    units_of,
    words_of,
    writing,
)
from crossgrain.config import UserError, configclass

FORMAT = 1
WEIGHTS, ABOUT = "weights.npz", "scorer.json"
_AXES = {  # of the saved weights: window, hidden, embedding, vocabulary; pair features and hidden units of the head
    "centre": "D", "scale": "D", "hidden": "DH", "hidden_bias": "H", "out": "HE", "vocabulary": "V", "rarity": "V",
    "units": "VE", "importance": "V", "usual": "V", "spread": "V", "head_centre": "P", "head_scale": "P",
    "head_hidden": "PK", "head_hidden_bias": "K", "head_out": "K1", "head_straight": "P1", "head_bias": "1",
}  # fmt: skip
_UNKNOWN = 16.0  # rarity of a word that the training texts do not have
_AT_ONCE = 128  # pairs that are compared at once


class FeatureScorer(PairScorer):
    """Windows of a thumbnail against the words of a text; see alignment.py for what is learnt of them."""

    @configclass
    class Config:
        """`path` is the folder that `crossgrain collect train-scorer` has written."""

        path: Path

    def __init__(self, config: "FeatureScorer.Config"):
        self._set(*_read(Path(config.path)))

    @classmethod
    def of(cls, weights: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> "FeatureScorer":
        """From weights that are in memory."""
        scorer = cls.__new__(cls)
        scorer._set(dict(weights), dict(about))
        return scorer

    def _set(self, weights: dict[str, np.ndarray], about: dict[str, Any]) -> None:
        self.weights, self.about = weights, about
        self._tower = Tower.of(weights)
        self._dim = weights["out"].shape[1]
        # the last row stands for what a text does not have
        self._units = np.concatenate([weights["units"], np.zeros((1, self._dim), dtype=np.float32)])
        self._gate = np.append(np.exp(weights["importance"]), np.float32(0))
        self._usual = np.append(weights["usual"], np.float32(0))
        self._spread = np.append(weights["spread"], np.float32(1))

    def save(self, folder: Path) -> None:
        """Write the folder that `Config.path` names."""
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / WEIGHTS).open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **self.weights)
        about = {"format": FORMAT, "fingerprint": self.fingerprint(), **self.about}
        (folder / ABOUT).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"features {FORMAT}".encode())
        for name, value in sorted(self.weights.items()):
            digest.update(f"{name} {value.dtype.str} {value.shape}".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()

    def image_features(self, images: Sequence[bytes]) -> Float[np.ndarray, "N F"]:
        """Float16: the vectors of all windows, then the image-only features."""
        rows = np.full((len(images), NUM_WINDOWS * self._dim + NUM_WHOLE), np.nan, dtype=np.float16)
        for row, data in zip(rows, images, strict=True):
            if (seen := describe(data)) is not None:
                row[:] = self.image_row(*seen)
        return rows

    def image_row(self, windows: Float[np.ndarray, "W D"], whole: Float[np.ndarray, " G"]) -> Float[np.ndarray, " F"]:
        """The row of an image whose windows are described."""
        return np.concatenate([self._tower(windows.astype(np.float32)).ravel(), whole]).astype(np.float16)

    def text_features(self, texts: Sequence[str]) -> Float[np.ndarray, "M G"]:
        """Float32: places of the known words and pairs (-1 fills), named colours, number of units, writing."""
        return np.stack([self._text_row(text) for text in texts]) if texts else np.zeros((0, self._text_size))

    @property
    def _text_size(self) -> int:
        return MAX_UNITS + len(COLOURS) + 1 + NUM_WRITING

    def _text_row(self, text: str) -> Float[np.ndarray, " G"]:
        words = words_of(text)
        units = units_of(words)
        place = places_in(self.weights["vocabulary"], units)
        known = np.full(MAX_UNITS, -1, dtype=np.float32)
        distinct = np.unique(place[place >= 0])
        known[: len(distinct)] = distinct
        of_words = place[: min(len(words), MAX_WORDS)]
        rarity = np.where(of_words >= 0, self.weights["rarity"][of_words], _UNKNOWN)
        return np.concatenate([known, colours_named(words), [len(set(units))], writing(text, words, rarity)]).astype(
            np.float32
        )

    def score(self, images: Float[np.ndarray, "K F"], texts: Float[np.ndarray, "K G"]) -> Float[np.ndarray, " K"]:
        features = self.pair_features(images, texts)
        unusable = np.isnan(features).any(axis=1)
        return np.where(unusable, np.float32(self.lowest), apply_head(self.weights, np.nan_to_num(features)))

    def pair_features(
        self, images: Float[np.ndarray, "K F"], texts: Float[np.ndarray, "K G"]
    ) -> Float[np.ndarray, "K P"]:
        """What the head reads of each pair: cross-modal, text-only and image-only features."""
        starts = range(0, max(1, len(images)), _AT_ONCE)  # none is a batch as well
        parts = [self._pair_features(images[at : at + _AT_ONCE], texts[at : at + _AT_ONCE]) for at in starts]
        return np.concatenate(parts)

    def _pair_features(
        self, images: Float[np.ndarray, "K F"], texts: Float[np.ndarray, "K G"]
    ) -> Float[np.ndarray, "K P"]:
        images = images.astype(np.float32)
        vectors = images[:, : NUM_WINDOWS * self._dim].reshape(len(images), NUM_WINDOWS, self._dim)
        whole = images[:, NUM_WINDOWS * self._dim :]
        place = texts[:, :MAX_UNITS].astype(np.int64)
        named, counts, written = np.split(texts[:, MAX_UNITS:], [len(COLOURS), len(COLOURS) + 1], axis=1)
        together = self._together(vectors, place, counts[:, 0])
        coloured = _colours(whole[:, -2 * len(COLOURS) :], named)
        return np.concatenate([together, coloured, written, whole], axis=1).astype(np.float32)

    def _together(
        self, vectors: Float[np.ndarray, "K W E"], place: Int[np.ndarray, "K U"], num_units: Float[np.ndarray, " K"]
    ) -> Float[np.ndarray, "K C"]:
        """How well the image shows the text's known units, against how well images show them usually."""
        shown = (vectors @ self._units[place].transpose(0, 2, 1)).max(axis=1)  # (K, U)
        beyond = shown - self._usual[place]
        gain, sigmas = beyond * self._gate[place], beyond / self._spread[place]
        known = place >= 0
        count = np.maximum(known.sum(1), 1)
        columns = []
        for values in (gain, sigmas):
            kept = np.where(known, values, 0)
            lowest = np.sort(np.where(known, values, np.inf), axis=1)[:, :3]
            lowest = np.where(np.isfinite(lowest), lowest, 0)
            columns += [kept.sum(1), kept.sum(1) / count, *lowest.T, kept.max(1)]
        columns += [
            (gain * (sigmas < -1)).sum(1),
            (shown * self._gate[place]).sum(1),
            known.sum(1),
            known.sum(1) / np.maximum(num_units, 1),
        ]
        return np.stack(columns, axis=1)


def _colours(shares: Float[np.ndarray, "K S"], named: Float[np.ndarray, "K C"]) -> Float[np.ndarray, "K 5"]:
    """Colour words against colours: how much of the named ones the whole image and its windows show, least and mean."""
    columns = [named.sum(1)]
    for share in np.split(shares, 2, axis=1):
        number = np.maximum(named.sum(1), 1)
        least = np.where(named > 0, share, 1).min(axis=1)
        columns += [np.where(named.any(1), least, 0.5), (named * share).sum(1) / number]
    return np.stack(columns, axis=1)


def _read(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The saved weights and what is said about them; UserError where they are not there or not whole."""
    if not (folder / ABOUT).is_file() or not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder} holds no scorer: write one with crossgrain collect train-scorer")
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        with (folder / WEIGHTS).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            weights = {name: file[name] for name in file.files}
    except (ValueError, OSError, BadZipFile, KeyError) as error:
        raise UserError(f"{folder}: {WEIGHTS} or {ABOUT} cannot be read: {error}") from None
    found = about.get("format") if isinstance(about, dict) else None
    if found != FORMAT:
        raise UserError(f"{folder} has format {found!r} of the scorer; this version reads {FORMAT}")
    if missing := set(_AXES) - set(weights):
        raise UserError(f"{folder}/{WEIGHTS} has no {', '.join(sorted(missing))}")
    sizes = {"1": 1, "D": WINDOW_SIZE}
    for name, axes in _AXES.items():
        value = weights[name]
        fits = value.ndim == len(axes) and all(
            sizes.setdefault(axis, size) == size for axis, size in zip(axes, value.shape, strict=True)
        )
        if not fits or value.dtype.kind not in "fu" or not np.isfinite(value).all():
            raise UserError(f"{folder}/{WEIGHTS}: {name} is not of the size that the others have, or holds no numbers")
    return weights, about
