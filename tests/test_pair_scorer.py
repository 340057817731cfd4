"""A run of this library as the scorer of pairs."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from crossgrain.collect.scoring import SCORERS, build_scorer, judge_scorer
from crossgrain.collect.scoring.training import Captioned
from crossgrain.config import UserError, find_class
from crossgrain.data.shards import Shards
from crossgrain.pair_scorer import CheckpointScorer
from crossgrain.recipes import load_run, load_run_recipe, pretrain
from crossgrain.tasks.gallery import BatchSizes, encode_gallery, match_all
from tiny_runs import RECIPE, STAGED, draw_scenes, invent_regions, write_recipe

ONE_STEP = ("stages.0.steps=1", "stages.0.schedule.warmup_steps=0", "train.num_workers=0", "validation=null")
CAPTIONS = "stages.0.sources=[{{path: {data}, batch_size: 4}}]"
PIXELS = """
model: {{type: pixelbert, dim: 16, depth: 1, num_heads: 2, mlp_dim: 32, max_length: 32,
        cnn: {{name: test_resnet, frozen_norm: false}}, sampled_pixels: null}}
objectives: [{{type: mlm, image: masked}}, {{type: itm, negatives: swapped, image: masked, text: masked}}]
image: {{size: 64, long_side: 128}}
text: {{vocab: {data}/vocab.txt, max_tokens: 20, end_token: true}}
pairs: {{swapped: 0.5, masked_side: both}}
stages: [{{steps: 1, schedule: {{warmup_steps: 0}}, sources: [{{path: {data}, batch_size: 4}}]}}]
train: {{precision: float32, num_workers: 0, tensorboard: false}}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Runs of one step on 16 scenes, by family, and pairs of an image and a caption."""
    folder = tmp_path_factory.mktemp("pairs")
    data = invent_regions(draw_scenes(folder / "data", size=16))
    sources = CAPTIONS.format(data=data).replace("{{", "{").replace("}}", "}")
    recipes = {
        "xvlm": (RECIPE, ONE_STEP),
        "no_head": (RECIPE, (*ONE_STEP, "objectives=[{type: itc}]", sources)),
        "pixelbert": (PIXELS, ()),
        "unmatched": (PIXELS, ("objectives=[{type: mlm}]", "pairs.swapped=0")),
        "imagebert": (STAGED, ("stages.0.steps=1", "stages.1.steps=1")),
    }
    for name, (text, overrides) in recipes.items():
        path = write_recipe(folder / f"{name}.yaml", data, *overrides, recipe=text)
        pretrain(load_run_recipe(path), folder / name)
    records = Shards(data)[:6]
    return SimpleNamespace(folder=folder, records=records, images=[r.image for r in records],
                           texts=[r.captions[0] for r in records])  # fmt: skip


def scorer_of(made, name: str, **changes) -> CheckpointScorer:
    return CheckpointScorer(CheckpointScorer.Config(run=made.folder / name, device="cpu", **changes))


@pytest.mark.parametrize(
    ("name", "method", "default"),
    [("xvlm", "similarity", True), ("xvlm", "matching", False), ("pixelbert", "matching", True)],
)
def test_scores_are_those_of_retrieval(made, name, method, default):
    scorer = scorer_of(made, name, method=None if default else method, images_per_batch=4, pairs_per_batch=5)
    assert scorer.method == method
    trained = load_run(made.folder / name, device="cpu").trained()
    with trained.answering():
        gallery = encode_gallery(trained, made.records, 1, BatchSizes())
        if method == "similarity":
            expected = (gallery.image_embeddings @ gallery.text_embeddings.T).numpy()
        else:
            logits = match_all(trained, gallery.image_tokens, gallery.text_tokens, BatchSizes())
            expected = 1 / (1 + np.exp(-_odds(trained, gallery, logits)))
    image, text = np.divmod(np.arange(36), 6)
    scores = scorer.score(scorer.image_features(made.images)[image], scorer.text_features(made.texts)[text])
    assert scores.dtype == np.float32
    assert scores.reshape(6, 6) == pytest.approx(expected, abs=1e-4)
    assert np.ptp(scores) > 1e-6


def _odds(trained, gallery, logits):
    """The logit of "matched" minus that of "wrong", which `match_all` leaves out."""
    head, wrong = trained.objectives["itm"], []
    for row in range(6):
        tokens = trained.model.prepare(gallery.image_tokens.take(torch.tensor([row] * 6)))
        wrong.append(head.match(trained.model.fuse(tokens, gallery.text_tokens).cls)[:, 0].numpy())
    return logits - np.stack(wrong)


@pytest.mark.parametrize(("name", "method"), [("xvlm", "similarity"), ("pixelbert", "matching")])
def test_what_stands_beside_a_row_changes_nothing_and_broken_files_score_lowest(made, name, method):
    scorer = scorer_of(made, name)
    images = scorer.image_features([made.images[0], b"no image", *made.images[1:]])
    texts = scorer.text_features(made.texts)
    assert np.isnan(images).all(1).tolist() == [False, True, *[False] * 5]
    alone = scorer.image_features(made.images[2:3])
    assert alone[0] == pytest.approx(images[3], abs=1e-4)
    assert scorer.text_features(made.texts[2:3])[0] == pytest.approx(texts[2], abs=1e-4)
    scores = scorer.score(images[[1, 3]], texts[[2, 2]])
    assert scores[0] == scorer.lowest == (-1 if method == "similarity" else 0)
    assert scores[1] == pytest.approx(scorer.score(alone, texts[2:3])[0], abs=1e-4)
    assert scorer.score(images[:0], texts[:0]).shape == (0,)


def test_it_can_be_judged_like_any_scorer(made):
    pairs = [Captioned(record.image, record.captions) for record in made.records]
    report = judge_scorer(scorer_of(made, "xvlm"), pairs)
    assert report["pairs"] == {"matched": 18, "mismatched": 18}
    assert 0 <= report["auc"] <= 1


def test_the_fingerprint_is_of_weights_and_method(made):
    scorer = scorer_of(made, "xvlm")
    assert scorer.fingerprint() == scorer_of(made, "xvlm", images_per_batch=1).fingerprint()
    prints = {scorer.fingerprint(), scorer_of(made, "xvlm", method="matching").fingerprint()}
    with torch.no_grad():
        next(scorer._run.learner.model.parameters()).add_(1e-3)
    assert len({*prints, scorer.fingerprint()}) == 3


def test_a_recipe_finds_it_by_name(made):
    config = find_class("checkpoint", SCORERS).Config(run=made.folder / "no_head", device="cpu")
    assert isinstance(build_scorer(config), CheckpointScorer)


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("imagebert", {}, "cannot score pairs: ImageBERT reads a detector's regions"),
        ("unmatched", {}, "it has no embedding space and no matching head"),
        ("no_head", {"method": "matching"}, "cannot score pairs by matching: it can by similarity"),
        ("pixelbert", {"method": "similarity"}, "cannot score pairs by similarity: it can by matching"),
        ("gone", {}, "is no run folder"),
        ("xvlm", {"which": "best"}, "has no best checkpoint"),
    ],
)
def test_what_cannot_score_says_why(made, name, changes, told):
    with pytest.raises(UserError, match=told):
        scorer_of(made, name, **changes)


def test_a_blind_run_is_refused(made, monkeypatch):
    run = load_run(made.folder / "xvlm", device="cpu")
    monkeypatch.setattr(type(run.recipe), "blind", True)
    monkeypatch.setattr("crossgrain.pair_scorer.load_run", lambda *_: replace(run))
    with pytest.raises(UserError, match="its images show nothing"):
        scorer_of(made, "xvlm")
