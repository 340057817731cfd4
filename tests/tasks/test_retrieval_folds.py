"""Retrieval beyond one gallery and one model: folds, candidates of another run, heads of fine-tuning."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from crossgrain.config import UserError
from crossgrain.data.types import Batch
from crossgrain.metrics.retrieval import chance_recall
from crossgrain.objectives.interface import Views
from crossgrain.objectives.itc import ITC
from crossgrain.objectives.itm import ITM
from crossgrain.objectives.ranking import Ranking
from crossgrain.tasks.retrieval import DIRECTIONS, Retrieval
from crossgrain.tasks.retrieval_heads import ContrastAndMatch, matcher
from crossgrain.training.learner import Learner
from tiny_families import MODELS, learn, scenes, tiny_family, tokenizer, trained_on_scenes
from tiny_models import make_batch, tiny_model

SMALL = {"images_per_batch": 4, "texts_per_batch": 5, "pairs_per_batch": 7}


def write(path, lines, **changes):
    path.write_text("".join(json.dumps({"task": "retrieval", **line, **changes}) + "\n" for line in lines))
    return str(path)


@pytest.mark.parametrize("kind", ["trained", "stream"])
def test_each_fold_is_a_gallery_of_its_own_and_scores_are_means(kind, records, request):
    model = request.getfixturevalue(kind)
    lines = list(Retrieval(Retrieval.Config(folds=3, **SMALL)).predict(model, records))
    parts = [records[:4], records[4:8], records[8:]]
    apart = [list(Retrieval(Retrieval.Config(**SMALL)).predict(model, part)) for part in parts]
    assert lines == [line | {"fold": fold} for fold, answers in enumerate(apart) for line in answers]
    score, alone = Retrieval.score(json.loads(json.dumps(lines))), [Retrieval.score(answers) for answers in apart]
    for direction in DIRECTIONS:
        for name, value in score[direction].items():
            assert value == pytest.approx(np.mean([one[direction][name] for one in alone]), abs=0.011)
            low, high = score["confidence_95"][direction][name]
            assert 0 <= low < high <= 100
        sizes = [[len(line["truth"]) for line in part if line["direction"] == direction] for part in apart]
        galleries = [next(line["gallery"] for line in part if line["direction"] == direction) for part in apart]
        chance = [chance_recall(*fold)["R@1"] for fold in zip(galleries, sizes, strict=True)]
        assert score["chance"][direction]["R@1"] == pytest.approx(100 * np.mean(chance), abs=0.006)
    assert score["folds"] == 3 and score["gallery"]["images"] == 4
    assert "folds" not in alone[0]


def test_more_candidates_are_listed_where_a_line_shall_have_them(trained, records):
    long, short = (
        list(Retrieval(Retrieval.Config(k=4, listed=n, **SMALL)).predict(trained, records)) for n in (12, 10)
    )
    for a, b in zip(long, short, strict=True):
        assert len(a["ranked"]) == 12 and a["ranked"][:10] == b["ranked"] and a["rank"] == b["rank"]
    assert Retrieval.score(long) == Retrieval.score(short)


@pytest.mark.parametrize("k", [2, 5])
def test_only_the_candidates_of_another_run_are_matched(trained, stream, records, counted, k, tmp_path):
    plain = list(Retrieval(Retrieval.Config(listed=18, **SMALL)).predict(trained, records))
    file = write(tmp_path / "predictions.jsonl", plain)
    everything = list(Retrieval(Retrieval.Config(listed=18, **SMALL)).predict(stream, records))
    before = counted.fused
    for place in (file, str(tmp_path)):
        config = Retrieval.Config(prefilter=place, k=k, listed=18, **SMALL)
        lines = list(Retrieval(config).predict(stream, records))
    pairs = set()
    for line in plain:
        for name in line["ranked"][:k]:
            image, text = (name, line["query"]) if line["direction"] == DIRECTIONS[0] else (line["query"], name)
            pairs.add((image, text))
    assert counted.fused - before == 2 * len(pairs)
    for line, given, whole in zip(lines, plain, everything, strict=True):
        allowed = set(given["ranked"][:k])
        expected = [name for name in whole["ranked"] if name in allowed]
        scores = dict(zip(whole["ranked"], whole["scores"], strict=True))
        assert set(line["ranked"]) == allowed
        assert line["scores"] == pytest.approx([scores[name] for name in expected], abs=2e-5)
        found = [place for place, name in enumerate(line["ranked"], start=1) if name in given["truth"]]
        assert line["rank"] == (found[0] if found else given["rank"])
    score = Retrieval.score(lines)
    assert score["protocol"] == "pre-filtered" and score["gallery"] == {"images": 13, "texts": 18}


def test_candidates_of_other_data_are_refused(trained, stream, records, tmp_path):
    plain = list(Retrieval(Retrieval.Config(**SMALL)).predict(trained, records))

    def asked(**changes):
        return list(Retrieval(Retrieval.Config(**SMALL, **changes)).predict(stream, records))

    with pytest.raises(UserError, match="no predictions at"):
        asked(prefilter=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="has no candidates for 'p1#0'"):
        asked(prefilter=write(tmp_path / "few.jsonl", plain[3:]))
    with pytest.raises(UserError, match="has no candidates for 'p1#0'"):
        asked(prefilter=write(tmp_path / "others.jsonl", plain, ranked=["elsewhere"]))
    (tmp_path / "broken.jsonl").write_text('{"task": "retrieval"}\n')
    with pytest.raises(UserError, match=r"broken.jsonl, line 1: no answer of a retrieval"):
        asked(prefilter=str(tmp_path / "broken.jsonl"))


@pytest.mark.parametrize("family", MODELS)
def test_every_family_is_fine_tuned_as_published(family):
    head = Retrieval(Retrieval.Config()).head(tiny_family(family), tokenizer())
    if family == "xvlm":
        assert isinstance(head, ContrastAndMatch) and head.config.itc.targets == "group"
        return
    assert isinstance(head, Ranking)
    assert head.config.losses == (("multiclass",) if family == "pixelbert" else ("binary",))


def test_a_model_without_an_embedding_space_cannot_contrast():
    config = Retrieval.Config(head=ContrastAndMatch.Config())
    with pytest.raises(ValueError, match="ImageBERT does not have"):
        Retrieval(config).head(tiny_family("imagebert"), tokenizer())


def test_contrast_and_matching_are_the_sum_of_their_objectives():
    model = tiny_model()
    batch = make_batch()
    batch = replace(batch, group=torch.tensor([0, 0, 1, 2, 2, 3]))
    head = ContrastAndMatch(ContrastAndMatch.Config(itc=ITC.Config(weight=0.5)), model)
    itm = ITM(ITM.Config(), model)
    assert head.adopt(model, {"itm": itm.state_dict(), "mlm": {}}) == ["head"]
    torch.manual_seed(0)
    views = Views(model, batch)
    parts = ITC(ITC.Config(), model)(views).value, itm(views).value
    torch.manual_seed(0)
    loss = head(Views(model, batch))
    torch.testing.assert_close(loss.value, 0.5 * parts[0] + parts[1])
    assert loss.metrics["itc_loss"] == parts[0] and loss.metrics["itm_loss"] == parts[1]
    again = ContrastAndMatch(ContrastAndMatch.Config(), model)
    assert again.adopt(model, {"retrieval": head.state_dict(), "itm": {}}) == ["itm"]
    cls = torch.randn(3, model.dim)
    assert torch.equal(again.match(cls), itm.match(cls))


def test_a_fine_tuned_head_is_what_matches(trained, stream, records):
    """Under the task's name or as an objective, before the head of pre-training."""
    itm = stream.objectives["itm"]
    ranking = Ranking(Ranking.Config(), stream.model)
    assert matcher({"itm": itm, "retrieval": ranking, "ranking": itm}) is ranking
    assert matcher({"itm": itm, "ranking": ranking}) is ranking and matcher({"mlm": itm.head}) is None
    ranking.load_state_dict(itm.state_dict())
    lines, tuned = (
        list(Retrieval(Retrieval.Config(**SMALL)).predict(replace(stream, objectives=heads), records))
        for heads in ({"itm": itm}, {"retrieval": ranking})
    )
    assert Retrieval(Retrieval.Config()).missing(replace(stream, objectives={"ranking": ranking})) is None
    assert [line["query"] for line in lines] == [line["query"] for line in tuned]
    assert any(a["scores"] != b["scores"] for a, b in zip(lines, tuned, strict=True))  # log-odds, not a raw logit
    both = ContrastAndMatch(ContrastAndMatch.Config(), trained.model)
    both.itm.load_state_dict(trained.objectives["itm"].state_dict())
    first, second = (
        list(Retrieval(Retrieval.Config(k=3, **SMALL)).predict(replace(trained, objectives=heads), records))
        for heads in ({"itm": trained.objectives["itm"]}, {"retrieval": both})
    )
    assert first == second


def test_fine_tuning_finds_the_right_ones():
    """A run on one batch of scenes, whose images and captions are then found."""
    torch.manual_seed(0)
    model = tiny_family("imagebert")
    task = Retrieval(
        Retrieval.Config(captions_per_image=1, head=Ranking.Config(losses=("multiclass",), num_candidates=4))
    )
    head = task.head(model, tokenizer())
    trained = trained_on_scenes("imagebert", model, {"retrieval": head})
    text = trained.texts([record.captions[0] for record in scenes()])
    batch = Batch(image={"clean": trained.read_images(scenes())}, text={"clean": text}, group=torch.arange(8))
    learn(Learner(model, {"retrieval": head}).train(), batch, 80, lr=3e-3)
    score = task.score(list(task.predict(trained, scenes())))
    for direction in DIRECTIONS:
        assert score[direction]["R@1"] > 40 > score["chance"][direction]["R@1"]
