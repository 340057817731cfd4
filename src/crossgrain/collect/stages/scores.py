"""Stage 4: how well each text fits its image. A task is a bucket of images by content; each is embedded once.

What a distinct text becomes is remembered within a task, the most recent of them.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from crossgrain.collect.bucketed import Row, read_sorted, read_tables, write_rows
from crossgrain.collect.stages.images import PAIR_COLUMNS
from crossgrain.collect.tasks import PAIRS, Work
from crossgrain.config import UserError
from crossgrain.data.tars import read_member

SCORE_COLUMNS = {**{name: kind for name, kind in PAIR_COLUMNS.items() if name != "bucket"}, "score": "float32"}

_IMAGES_AT_ONCE = 64
_PAIRS_AT_ONCE = 256  # each has a copy of its image's features, which can be large
_MAX_TEXT_BYTES = 256 * 2**20  # of features of texts that are remembered


def score_bucket(work: Work, bucket: int, parts: Sequence[Path], make_scorer: Callable[[], Any] | None) -> None:
    """The task: the pairs of a bucket of all parts, with their scores; without a scorer the score is missing."""
    rows = read_sorted(parts, bucket, key=lambda row: (row["sha256"], row["image_url"], row["text"]))
    scored = _scored(rows, parts[0].parent, make_scorer()) if parts and make_scorer else _unscored(rows)
    count = write_rows(work.create(".parquet"), SCORE_COLUMNS, scored)
    work.take(PAIRS, count)
    work.keep(PAIRS, count)


def find_threshold(work: Work, parts: Sequence[Path], percentile: float) -> None:
    """The task of its own that turns a percentile into a score: facts["threshold"], the least score to keep.

    A pair of the data, not a value between two: so no rounding decides.
    """
    scores = np.concatenate([np.zeros(0, np.float32), *(read_scores(part) for part in parts)])
    known = scores[~np.isnan(scores)]
    if len(scores) and not len(known):
        raise UserError("threshold.percentile: the scorer gave no number")
    work.facts["threshold"] = float(np.percentile(known, percentile, method="higher")) if len(known) else None


def read_scores(part: Path) -> np.ndarray:
    """The scores of a part, in its order: float32 (N,), NaN without a scorer."""
    columns = [table["score"].to_numpy() for table in read_tables(part, columns=["score"])]
    return np.concatenate([np.zeros(0, np.float32), *(column.astype(np.float32) for column in columns)])


def _unscored(rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        yield {**_pair(row), "score": None}


def _scored(rows: Iterator[Row], folder: Path, scorer: Any) -> Iterator[Row]:
    texts = _TextFeatures(scorer)
    for batch in _batches(groupby(rows, key=lambda row: row["sha256"])):
        images = scorer.image_features([_image(folder, group[0]) for group in batch])
        pairs = [(number, row) for number, group in enumerate(batch) for row in group]
        for start in range(0, len(pairs), _PAIRS_AT_ONCE):
            some = pairs[start : start + _PAIRS_AT_ONCE]
            text_features = texts.of([row["text"] for _, row in some])
            scores = scorer.score(images[[number for number, _ in some]], text_features)
            for (_, row), score in zip(some, scores, strict=True):
                yield {**_pair(row), "score": float(score)}


def _batches(groups: Any) -> Iterator[list[list[Row]]]:
    """Distinct images with their rows, some at a time."""
    batch: list[list[Row]] = []
    for _, group in groups:
        batch.append(list(group))
        if len(batch) == _IMAGES_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


class _TextFeatures:
    def __init__(self, scorer: Any):
        self.scorer = scorer
        self._known: OrderedDict[str, np.ndarray] = OrderedDict()

    def of(self, texts: Sequence[str]) -> np.ndarray:
        """(len(texts), ...): features row by row, each distinct text embedded once."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            rows = self.scorer.text_features(new)
            self._known.update((text, row.copy()) for text, row in zip(new, rows, strict=True))  # a view keeps them all
        features = np.stack([self._known[text] for text in texts])
        for text in texts:
            self._known.move_to_end(text)
        while len(self._known) * features[0].nbytes > _MAX_TEXT_BYTES:
            self._known.popitem(last=False)
        return features


def _image(folder: Path, row: Row) -> bytes:
    return read_member(folder / row["tar"], row["tar_offset"], row["tar_size"], "crossgrain collect")


def _pair(row: Row) -> Row:
    return {name: row[name] for name in SCORE_COLUMNS if name != "score"}
