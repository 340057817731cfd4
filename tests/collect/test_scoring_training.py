"""The light scorer as a whole: trained on drawn scenes, saved, loaded, and asked about pairs."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import pytest

from crossgrain.collect.scoring import (
    SCORERS,
    FeatureScorer,
    PairScorer,
    ScorerTraining,
    build_scorer,
    judge_scorer,
    read_captioned,
    train_scorer,
)
from crossgrain.config import Choice, RecipeError, UserError, configclass, read_config
from crossgrain.data.shards import Shards
from tiny_runs import draw_scenes

SHORT = ScorerTraining(steps=150, hidden=48, dim=16, head_epochs=20, min_count=2, lr=4e-3)


@configclass
class Recipe:
    scorer: Annotated[Any, Choice(SCORERS)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """256 scenes, and a scorer that learnt from 160 of them for some seconds."""
    folder = tmp_path_factory.mktemp("scoring")
    data, said = draw_scenes(folder / "data", size=256), []
    report = train_scorer(data, folder / "scorer", SHORT, said.append)
    scorer = build_scorer(FeatureScorer.Config(path=folder / "scorer"))
    return SimpleNamespace(folder=folder, data=data, path=folder / "scorer", report=report, scorer=scorer, said=said)


def test_it_tells_captions_from_those_of_other_images(made):
    assert made.report["auc"] > 0.8
    assert made.report["auc_against_no_captions"] > 0.9
    assert made.report["accuracy"]["value"] > 0.7
    assert made.report["held_out_images"] == 32
    recalls = made.report["recalls"]
    assert [row["threshold"] for row in recalls] == sorted(row["threshold"] for row in recalls)
    assert [row["mismatched_dropped"] for row in recalls] == sorted(row["mismatched_dropped"] for row in recalls)
    assert any(line.startswith("step 100 of 150") for line in made.said)


def test_the_saved_scorer_is_the_trained_one(made):
    about = json.loads((made.path / "scorer.json").read_text())
    assert about["report"] == made.report
    assert about["training"]["steps"] == 150
    assert about["fingerprint"] == made.scorer.fingerprint()
    assert not (np.load(made.path / "weights.npz", allow_pickle=False)["vocabulary"][1:] <= 0).any()
    _, held_out = read_captioned(made.data, SHORT)
    again = judge_scorer(made.scorer, held_out)
    assert again == {key: made.report[key] for key in again}


def test_the_same_seed_makes_the_same_files(made, tmp_path):
    few = replace(SHORT, steps=20, head_epochs=2, max_images=40, max_held_out=32)
    folders = [tmp_path / name for name in "abc"]
    for folder, seed in zip(folders, (0, 0, 1), strict=True):
        train_scorer(made.data, folder, replace(few, seed=seed))
    assert len({(folder / "weights.npz").read_bytes() for folder in folders[:2]}) == 1
    assert len({build_scorer(FeatureScorer.Config(path=folder)).fingerprint() for folder in folders}) == 2


def test_a_score_depends_on_its_own_pair_alone(made):
    records = Shards(made.data, "val")[:7]
    images = made.scorer.image_features([record.image for record in records])
    texts = made.scorer.text_features([record.captions[0] for record in records])
    scores = made.scorer.score(images, texts)
    assert scores.dtype == np.float32
    assert scores.shape == (7,)
    assert ((scores >= 0) & (scores <= 1)).all()
    for row, record in enumerate(records):
        assert np.array_equal(made.scorer.image_features([record.image])[0], images[row])
        assert np.array_equal(made.scorer.text_features([record.captions[0]])[0], texts[row])
        assert made.scorer.score(images[row : row + 1], texts[row : row + 1])[0] == scores[row]
    many = np.tile(np.arange(7), 50)  # more than are compared at once
    assert np.array_equal(made.scorer.score(images[many], texts[many]), scores[many])


def test_what_cannot_be_read_scores_lowest_and_odd_texts_are_scored(made):
    image = Shards(made.data, "val")[0].image
    images = made.scorer.image_features([image, b"no image"])
    assert np.isnan(images[1]).all()
    odd = ["", "   ", "?!", "ein roter Stern", "赤い星", "word " * 500, "\ud83d", "a" * 5000]
    texts = made.scorer.text_features(odd)
    assert np.isfinite(made.scorer.score(images[np.zeros(len(odd), int)], texts)).all()
    assert (made.scorer.score(images[np.ones(len(odd), int)], texts) == made.scorer.lowest).all()
    none = made.scorer.image_features([]), made.scorer.text_features([])
    assert made.scorer.score(*none).shape == (0,)


def test_data_without_a_split_to_measure_on_give_a_tenth_away(made):
    learn, judge = read_captioned(made.data, replace(SHORT, held_out="nothing"))
    assert (len(learn), len(judge)) == (144, 16)
    assert not {pair.image for pair in learn} & {pair.image for pair in judge}


def test_mistakes_are_one_line(made, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else than a scorer"):
        train_scorer(made.data, tmp_path, SHORT)
    with pytest.raises(UserError, match="has no split 'dev'"):
        train_scorer(made.data, tmp_path / "out", replace(SHORT, split="dev"))
    with pytest.raises(UserError, match="holds no scorer"):
        build_scorer(FeatureScorer.Config(path=tmp_path))
    few = draw_scenes(tmp_path / "few", size=16)
    with pytest.raises(UserError, match="has 10 images with captions to learn from: 32 or more"):
        train_scorer(few, tmp_path / "out", SHORT)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("spoil", [
    lambda path: (path / "weights.npz").write_bytes(b"PK\x03\x04 cut"),
    lambda path: (path / "weights.npz").write_bytes((path / "weights.npz").read_bytes()[:2000]),
    lambda path: (path / "scorer.json").write_text('{"format": 99}'),
    lambda path: (path / "scorer.json").write_text("{"),
    lambda path: np.savez(path / "weights.npz", centre=np.zeros(3)),
    lambda path: np.savez(path / "weights.npz", centre=np.array([{"code": "run"}], dtype=object)),
])  # fmt: skip
def test_a_broken_scorer_is_refused(made, tmp_path, spoil):
    folder = tmp_path / "scorer"
    folder.mkdir()
    for name in ("weights.npz", "scorer.json"):
        (folder / name).write_bytes((made.path / name).read_bytes())
    spoil(folder)
    with pytest.raises(UserError, match="scorer"):
        build_scorer(FeatureScorer.Config(path=folder))


def rewrite(path: Path, **changes: np.ndarray | None) -> None:
    """Save the weights again with some of them changed, or left out."""
    with np.load(path / "weights.npz") as file:
        weights = {name: file[name] for name in file.files} | changes
    np.savez(path / "weights.npz", **{name: value for name, value in weights.items() if value is not None})


@pytest.mark.parametrize("spoil", [
    *(partial(rewrite, **{name: None}) for name in ("hidden", "out", "importance", "scale", "head_bias")),
    partial(rewrite, head_bias=np.array([np.nan], np.float32)),
    partial(rewrite, head_bias=np.array(["0"])),
    partial(rewrite, units=np.zeros((3, 16), np.float32)),
    partial(rewrite, centre=np.zeros(3, np.float32), scale=np.ones(3, np.float32)),
    lambda path: (path / "scorer.json").write_text("[]"),
    lambda path: (path / "scorer.json").write_text("null"),
])  # fmt: skip
def test_a_scorer_without_all_of_its_weights_is_refused(made, tmp_path, spoil):
    shutil.copytree(made.path, tmp_path / "scorer")
    spoil(tmp_path / "scorer")
    with pytest.raises(UserError, match="scorer"):
        build_scorer(FeatureScorer.Config(path=tmp_path / "scorer"))


class Length(PairScorer):
    """An outsider: the longer the text, the better."""

    @configclass
    class Config:
        factor: float = 1.0

    def __init__(self, config):
        self.factor = config.factor

    def fingerprint(self):
        return f"length {self.factor}"

    def image_features(self, images):
        return np.zeros((len(images), 1))

    def text_features(self, texts):
        return np.array([[len(text)] for text in texts], dtype=np.float32)

    def score(self, images, texts):
        return (self.factor * texts[:, 0]).astype(np.float32)


def test_only_some_pairs_are_scored_at_once(made, monkeypatch):
    asked = []
    score = Length.score
    monkeypatch.setattr(Length, "score", lambda *rows: (asked.append(len(rows[1])), score(*rows))[1])
    report = judge_scorer(Length(Length.Config()), read_captioned(made.data, replace(SHORT, held_out="nothing"))[0])
    assert report["pairs"]["matched"] == sum(asked[:2]) > max(asked) == 256


def test_a_recipe_names_its_scorer(made):
    recipe = read_config(Recipe, {"scorer": {"type": "features", "path": str(made.path)}}, "recipe")
    assert recipe.scorer == FeatureScorer.Config(path=Path(made.path))
    assert build_scorer(recipe.scorer).fingerprint() == made.scorer.fingerprint()
    other = read_config(Recipe, {"scorer": {"type": f"{__name__}:Length", "factor": 2}}, "recipe")
    assert build_scorer(other.scorer).score(np.zeros((1, 1)), np.array([[3.0]])).tolist() == [6]
    with pytest.raises(RecipeError, match="scorer: unknown type 'feature'"):
        read_config(Recipe, {"scorer": {"type": "feature"}}, "recipe")
