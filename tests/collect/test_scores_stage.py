"""The stage of scores: a percentile needs numbers, and memory does not grow with the texts of one image."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from crossgrain.collect.stages import scores
from crossgrain.collect.stages.shards import _rounded
from crossgrain.config import UserError


def threshold_of(monkeypatch, values, percentile=50):
    work = SimpleNamespace(facts={})
    monkeypatch.setattr(scores, "read_scores", lambda part: np.array(values, np.float32))
    unchecked = scores.find_threshold.__wrapped__
    unchecked(work, [Path("part")], percentile)
    return work.facts["threshold"]


def test_a_percentile_of_scores_that_are_no_numbers_is_refused(monkeypatch):
    with pytest.raises(UserError, match="gave no number"):
        threshold_of(monkeypatch, [np.nan, np.nan])
    assert threshold_of(monkeypatch, [np.nan, 2, 3]) == 3
    assert threshold_of(monkeypatch, []) is None


@pytest.mark.parametrize(("value", "stored"), [(0.12345678, 0.123457), (None, None), (np.nan, None), (np.inf, None)])
def test_a_score_that_json_has_no_word_for_is_stored_as_unknown(value, stored):
    assert _rounded(value) == stored


def test_an_image_with_many_texts_is_scored_a_few_pairs_at_a_time():
    sizes = []

    class Scorer:
        def image_features(self, files):
            return np.zeros((len(files), 4), np.float32)

        def text_features(self, texts):
            return np.ones((len(texts), 4), np.float32)

        def score(self, images, texts):
            sizes.append(len(images))
            return texts.sum(1)

    pairs = dict.fromkeys(scores.PAIR_COLUMNS)
    rows = [{**pairs, "sha256": "a", "tar": "t", "text": f"text {number}"} for number in range(600)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "_image", lambda folder, row: b"")
        scored = list(scores._scored(iter(rows), Path(), Scorer()))
    assert [row["text"] for row in scored] == [row["text"] for row in rows] and {row["score"] for row in scored} == {
        4.0
    }
    assert max(sizes) <= 256 and sum(sizes) == 600
