"""Train the light scorer on a small supervised set, and measure it on pairs that it has not seen.

Most images teach which windows words belong to; those that are left teach the head, with other images' captions and
with what is no caption as negatives, so that the head weighs what the rest does on images that it was not fitted to.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float
from pydantic import Field

from crossgrain.collect.scoring.alignment import Tower, Weights, train_alignment
from crossgrain.collect.scoring.features import ABOUT, FeatureScorer
from crossgrain.collect.scoring.heads import train_head
from crossgrain.collect.scoring.interface import PairScorer
from crossgrain.collect.scoring.measures import auc, measure
from crossgrain.collect.scoring.negatives import junk_text, junk_thumbnail, mismatched_partners
from crossgrain.collect.scoring.pictures import SIDE, Thumbnail, describe_thumbnail, thumbnail
from crossgrain.collect.scoring.words import hash_units, places_in, units_of, words_of
from crossgrain.config import Count, Share, UserError, configclass, dump_config
from crossgrain.data.augment import swap_directions
from crossgrain.data.images import ImageError
from crossgrain.data.shards import Shards

MIN_IMAGES = 32
_JUDGED_CAPTIONS = 3  # of each held-out image
_HEAD_CAPTIONS = 5
_PAIRS_AT_ONCE = 256  # what a scorer keeps of an image can be large, and each pair has a copy
_HELD_BACK = 0.1  # of a data set without a split to measure on

Say = Callable[[str], None]


@configclass
class ScorerTraining:
    """How a scorer is trained: about a minute on one core by default, whatever the size of the data."""

    split: str = "train"
    held_out: str = "val"  # what it is measured on; where the data have no such split, a tenth of the other
    max_images: Annotated[int, Field(ge=MIN_IMAGES)] = 6000  # drawn from the split; 70 kB of memory each
    max_held_out: Annotated[int, Field(ge=MIN_IMAGES)] = 1000
    min_count: Count = 4  # texts that a word or a pair of words must stand in
    hidden: Count = 192
    dim: Count = 48
    steps: Count = 1200
    batch_size: Annotated[int, Field(ge=2)] = 64
    lr: Annotated[float, Field(gt=0)] = 2e-3
    decay: Annotated[float, Field(ge=0)] = 0.01
    dropout: Share = 0.25
    head_images: Annotated[float, Field(gt=0, lt=1)] = 0.15  # share of the images that teaches the head alone
    head_hidden: Count = 16
    head_epochs: Count = 60
    seed: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True)
class Captioned:
    """An image with its captions."""

    image: bytes
    captions: tuple[str, ...]


@dataclass(frozen=True)
class _Example:
    pixels: Thumbnail
    shape: float
    captions: tuple[str, ...]


def train_scorer(
    data: Path, out: Path, config: ScorerTraining | None = None, say: Say = lambda line: None
) -> dict[str, Any]:
    """Train on prepared shards, write the scorer's folder `out`, and return the report that it holds.

    UserError where the data have no such split or too few images with captions, or where `out` holds something else.
    """
    config = config or ScorerTraining()
    _check_out(out)
    rng = np.random.default_rng(config.seed)
    learn, judge = read_captioned(data, config)
    say(f"read {len(learn):,} images to learn from and {len(judge):,} to measure on")
    examples = list(filter(None, map(_example, learn)))
    captions = [caption for example in examples for caption in example.captions]
    num_head = max(8, int(len(examples) * config.head_images))
    order = rng.permutation(len(examples))
    aligned, for_head = [examples[i] for i in order[num_head:]], [examples[i] for i in order[:num_head]]
    weights = _vocabulary(captions, config.min_count)
    if not len(weights["vocabulary"]):
        raise UserError(f"no word stands in {config.min_count} of the captions of {data}: lower min_count")
    weights |= _align(aligned, weights["vocabulary"], config, rng, say)
    features, matched = _head_pairs(FeatureScorer.of(weights, {}), for_head, captions, rng)
    weights |= train_head(
        features, matched, hidden=config.head_hidden, epochs=config.head_epochs, lr=5e-3, decay=0.05, rng=rng
    )
    scorer = FeatureScorer.of(weights, {})
    report = {"images": len(examples), "unusable": len(learn) - len(examples), **judge_scorer(scorer, judge)}
    FeatureScorer.of(weights, {"training": dump_config(config), "report": report}).save(out)
    say(f"AUC {report['auc']:.4f} on {report['held_out_images']:,} held-out images; wrote {out}")
    return report


def read_captioned(data: Path, config: ScorerTraining) -> tuple[list[Captioned], list[Captioned]]:
    """What is learnt from and what is measured on, drawn by the seed where there is more than asked for."""
    rng = np.random.default_rng(config.seed)
    shards = Shards(data, config.split)
    order = rng.permutation(len(shards))
    if config.held_out in shards.split_names() and config.held_out != config.split:
        others = Shards(data, config.held_out)
        held_out = _captioned(others, rng.permutation(len(others))[: config.max_held_out])
    else:
        number = min(config.max_held_out, round(len(order) * _HELD_BACK))
        held_out, order = _captioned(shards, order[:number]), order[number:]
    learn = _captioned(shards, order[: config.max_images])
    for found, what in ((learn, "learn from"), (held_out, "measure on")):
        if len(found) < (MIN_IMAGES if found is learn else 2):
            raise UserError(f"{data} has {len(found)} images with captions to {what}: {MIN_IMAGES} or more are needed")
    return learn, held_out


def judge_scorer(scorer: PairScorer, pairs: Sequence[Captioned], seed: int = 0) -> dict[str, Any]:
    """How well any scorer tells the captions of these images from other images' captions and from junk.

    Each image meets up to three captions of its own and as many of another image that shares none with it.
    """
    rng = np.random.default_rng([seed, 4])
    images = scorer.image_features([pair.image for pair in pairs])
    partners = mismatched_partners([pair.captions for pair in pairs], rng)
    matched, mismatched, junk = [], [], []
    every = [caption for pair in pairs for caption in pair.captions]
    for row, pair in enumerate(pairs):
        matched += [(row, text) for text in pair.captions[:_JUDGED_CAPTIONS]]
        mismatched += [(row, text) for text in pairs[partners[row]].captions[:_JUDGED_CAPTIONS]]
        junk.append((row, junk_text(every, rng)))
    texts = list(dict.fromkeys(text for _, text in (*matched, *mismatched, *junk)))
    place = {text: number for number, text in enumerate(texts)}
    encoded = scorer.text_features(texts)

    def scores(rows: Sequence[tuple[int, str]]) -> Float[np.ndarray, " K"]:
        image, text = np.array([(row, place[text]) for row, text in rows]).T
        starts = range(0, len(rows), _PAIRS_AT_ONCE)
        parts = [slice(at, at + _PAIRS_AT_ONCE) for at in starts]
        return np.concatenate([scorer.score(images[image[part]], encoded[text[part]]) for part in parts])

    right = scores(matched)
    return {
        "held_out_images": len(pairs),
        **measure(right, scores(mismatched)),
        "auc_against_no_captions": round(auc(right, scores(junk)), 4),
    }


def _captioned(shards: Shards, rows: Sequence[int] | np.ndarray) -> list[Captioned]:
    records = (shards[int(row)] for row in sorted(rows))
    return [Captioned(r.image, r.captions) for r in records if r.captions and isinstance(r.image, bytes)]


def _example(pair: Captioned) -> _Example | None:
    try:
        return _Example(*thumbnail(pair.image), pair.captions)
    except ImageError:
        return None


def _vocabulary(captions: Sequence[str], min_count: int) -> Weights:
    """The hashes of all words and pairs that stand in `min_count` captions, in order, with their rarity."""
    counts: Counter[str] = Counter()
    for caption in captions:
        counts.update(set(units_of(words_of(caption))))
    units = [unit for unit, count in counts.items() if count >= min_count]
    hashes, first = np.unique(hash_units(units), return_index=True)
    share = np.array([counts[units[i]] for i in first], dtype=np.float32) / max(1, len(captions))
    return {"vocabulary": hashes, "rarity": -np.log(np.maximum(share, 1e-9)).astype(np.float32)}


def _align(
    examples: Sequence[_Example], vocabulary: np.ndarray, config: ScorerTraining, rng: np.random.Generator, say: Say
) -> Weights:
    """The two towers, and how well each unit is usually shown."""

    def places(texts: Sequence[str]) -> list[np.ndarray]:
        found = (places_in(vocabulary, units_of(words_of(text))) for text in texts)
        return [np.unique(place[place >= 0]) for place in found]

    seen, mirrored, texts, swapped = [], [], [], []
    for example in examples:
        seen.append(describe_thumbnail(example.pixels)[0].astype(np.float16))
        mirrored.append(describe_thumbnail(example.pixels[:, ::-1])[0].astype(np.float16))
        texts.append(places(example.captions))
        swapped.append(places([swap_directions(caption) for caption in example.captions]))
    views = np.stack(seen), np.stack(mirrored)
    progress = train_alignment(
        views, (texts, swapped), len(vocabulary), hidden=config.hidden, dim=config.dim, steps=config.steps,
        batch_size=min(config.batch_size, len(examples)), lr=config.lr, decay=config.decay, dropout=config.dropout,
        rng=rng,
    )  # fmt: skip
    weights: Weights = {}
    for step, loss, latest in progress:
        weights = latest
        say(f"step {step:,} of {config.steps:,}: loss {loss:.3f}")
    tower = Tower.of(weights)
    shown = np.stack([(tower(row.astype(np.float32)) @ weights["units"].T).max(axis=0) for row in views[0][:1000]])
    return {**weights, "usual": shown.mean(0), "spread": shown.std(0) + 0.1}


def _head_pairs(
    scorer: FeatureScorer, examples: Sequence[_Example], captions: Sequence[str], rng: np.random.Generator
) -> tuple[Float[np.ndarray, "N F"], Float[np.ndarray, " N"]]:
    """Features of pairs that match and of some that do not, with 1 and 0."""
    rows = [scorer.image_row(*describe_thumbnail(example.pixels, example.shape)) for example in examples]
    num_junk = max(1, len(examples) // 10)
    rows += [scorer.image_row(*describe_thumbnail(junk_thumbnail(SIDE, rng))) for _ in range(num_junk)]
    pairs: list[tuple[int, str, float]] = []
    for row, example in enumerate(examples):
        pairs += [(row, caption, 1.0) for caption in example.captions[:_HEAD_CAPTIONS]]
        pairs += [(row, junk_text(captions, rng), 0.0)]
    groups = [example.captions for example in examples]
    for _ in range(4):
        for row, partner in enumerate(mismatched_partners(groups, rng)):
            pairs += [(row, caption, 0.0) for caption in groups[partner][:_HEAD_CAPTIONS]]
    pairs += [(len(examples) + n, captions[int(rng.integers(len(captions)))], 0.0) for n in range(num_junk)]
    images, texts, matched = zip(*pairs, strict=True)
    features = scorer.pair_features(np.stack(rows)[list(images)], scorer.text_features(texts))
    return features, np.array(matched, dtype=np.float32)


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: the scorer needs a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / ABOUT).is_file():
        raise UserError(f"{out} holds something else than a scorer: choose another folder")
