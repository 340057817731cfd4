from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from crossgrain.config import RecipeError, UserError, read_config
from crossgrain.data.types import Text
from crossgrain.objectives.interface import Views
from crossgrain.objectives.itm import ITM
from crossgrain.objectives.ranking import Judged, Ranking, binary, multiclass, triplet
from crossgrain.training.learner import Learner
from tiny_families import learn
from tiny_models import make_batch, tiny_model
from tiny_pixels import pixel_batch, tiny_pixelbert
from tiny_regions import region_batch, tiny_imagebert
from tiny_vlbert import tiny_vlbert


def as_they_are(make_batch):
    """Every row with its own text."""
    return lambda: replace(make_batch(), targets={})


FAMILIES = {
    "imagebert": (tiny_imagebert, as_they_are(region_batch)),
    "vlbert": (tiny_vlbert, as_they_are(region_batch)),
    "pixelbert": (lambda: tiny_pixelbert(sampled_pixels=None), as_they_are(pixel_batch)),
    "xvlm": (tiny_model, as_they_are(make_batch)),
}
every_family = pytest.mark.parametrize("family", FAMILIES)


def ranking_of(model, **config):
    torch.manual_seed(2)
    head = Ranking(Ranking.Config(**config), model)
    with torch.no_grad():  # larger weights than fresh ones, so that scores differ clearly
        for parameter in head.parameters():
            parameter.mul_(4)
    return head


def every_odds(model, head, batch):
    """The log-odds of every image row with every text row, each pair fused alone."""
    with torch.no_grad():
        views = Views(model, batch)
        image, text, rows = views.image(), views.text(), range(len(batch.group))
        ones = [torch.tensor([row]) for row in rows]
        return torch.tensor(
            [[head.match(model.fuse(image.take(i), text.take(t)).cls)[0, 1].item() for t in ones] for i in ones]
        )


def test_each_loss_is_its_formula():
    right, others = torch.tensor([[1.0], [-0.5]]), torch.tensor([[[0.5, 2.0], [-1.0, 0.0]], [[0.1, 0.2], [0.3, 9.0]]])
    wrong = torch.ones(2, 2, 2, dtype=torch.bool)
    wrong[1, 1, 1] = False  # the one with 9.0
    judged = Judged(right, others, wrong)
    told = others[wrong]
    expected = torch.cat([F.softplus(-right).flatten(), F.softplus(told)]).mean()
    torch.testing.assert_close(binary(judged, 0.2), expected)
    rows = [[1.0, 0.5, 2.0], [1.0, -1.0, 0.0], [-0.5, 0.1, 0.2], [-0.5, 0.3]]
    expected = torch.stack([-torch.tensor(row).log_softmax(0)[0] for row in rows]).mean()
    torch.testing.assert_close(multiclass(judged, 0.2), expected)
    chances = [torch.tensor(row).sigmoid() for row in rows]
    expected = torch.stack([(0.2 + row[1:].max() - row[0]).clamp(min=0) for row in chances]).mean()
    torch.testing.assert_close(triplet(judged, 0.2), expected)
    nobody = judged._replace(wrong=torch.zeros_like(wrong))
    assert (multiclass(nobody, 0.2), triplet(nobody, 0.2)) == (0, 0)


@every_family
@pytest.mark.parametrize("losses", [("binary",), ("multiclass",), ("triplet",), ("binary", "multiclass", "triplet")])
def test_losses_of_a_batch_are_those_of_its_pairs_fused_alone(family, losses, monkeypatch):
    make, make_one = FAMILIES[family]
    model, batch = make(), make_one()
    head = ranking_of(model, losses=losses, num_candidates=3)
    odds, drawn = every_odds(model, head, batch), []
    draw = head.draw
    monkeypatch.setattr(head, "draw", lambda *a, **k: drawn.append(draw(*a, **k)) or drawn[-1])
    loss = head(Views(model, batch))
    texts, images = drawn
    others = torch.stack([odds.gather(1, texts.row), odds.T.gather(1, images.row)], dim=1)
    judged = Judged(odds.diagonal()[:, None], others, torch.stack([texts.wrong, images.wrong], dim=1))
    parts = {"binary": binary, "multiclass": multiclass, "triplet": triplet}
    expected = [parts[name](judged, 0.2) for name in losses]
    torch.testing.assert_close(loss.value.detach(), torch.stack(expected).sum(), atol=1e-4, rtol=1e-3)
    if len(losses) > 1:
        assert [loss.metrics[name].item() for name in losses] == pytest.approx([e.item() for e in expected], abs=1e-4)
    first = (others < judged.right[..., None]) | ~judged.wrong
    assert loss.metrics["accuracy"].item() == pytest.approx(first.all(2).float().mean().item())


def test_wrong_candidates_are_neither_of_the_same_image_nor_of_the_same_words():
    model, batch = tiny_imagebert(), region_batch()
    ids = batch.text["clean"].ids.clone()
    ids[5], group = ids[0], torch.tensor([0, 1, 1, 2, 3, 4])
    text = Text(ids=ids, mask=batch.text["clean"].mask)
    views = Views(model, replace(batch, text=batch.text | {"clean": text}, group=group))
    head, seen = ranking_of(model, num_candidates=4), torch.zeros(6, 6, dtype=torch.bool)
    for seed in range(20):
        torch.manual_seed(seed)
        drawn = head.draw(views)
        assert all(len(set(row)) == 3 for row in drawn.row.tolist())
        for row in range(6):
            seen[row, drawn.row[row][drawn.wrong[row]]] = True
    same = torch.eye(6, dtype=torch.bool)
    for a, b in ((1, 2), (0, 5)):
        same[a, b] = same[b, a] = True
    assert torch.equal(seen, ~same)


def test_where_others_are_too_few_those_that_are_there_count():
    model, batch = tiny_imagebert(), region_batch()
    views = Views(model, replace(batch, group=torch.tensor([0, 0, 0, 0, 0, 1])))
    drawn = ranking_of(model, num_candidates=4).draw(views)
    assert drawn.wrong.sum(1).tolist() == [1, 1, 1, 1, 1, 3]
    assert all(row[there].tolist() == [5] for row, there in zip(drawn.row[:5], drawn.wrong[:5], strict=True))
    alone = Views(model, replace(batch, group=torch.zeros(6, dtype=torch.long), targets={}))
    loss = ranking_of(model, losses=("multiclass", "triplet"))(alone)
    assert loss.value == 0 and loss.metrics["accuracy"] == 1
    with pytest.raises(UserError, match=r"set pairs.swapped to 0"):
        ranking_of(model)(Views(model, region_batch()))
    with pytest.raises(UserError, match="a batch of 6 pairs has no 6 other candidates"):
        ranking_of(model, num_candidates=7).draw(views)


@every_family
def test_the_hardest_are_those_that_the_model_ranks_highest(family):
    make, make_one = FAMILIES[family]
    model, batch = make(), make_one()
    head = ranking_of(model, num_candidates=3, negatives="hardest")
    odds = every_odds(model, head, batch)
    views, itself = Views(model, batch), torch.eye(len(odds), dtype=torch.bool)
    for wrong_images, table in ((False, odds), (True, odds.T)):
        drawn = head.draw(views, wrong_images=wrong_images)
        hardest = table.masked_fill(itself, -99.0).topk(2, dim=1)
        torch.testing.assert_close(table.gather(1, drawn.row), hardest.values, atol=1e-4, rtol=1e-3)
        assert drawn.wrong.all()
    pooled = ranking_of(model, negatives="hardest", pool=2)
    torch.manual_seed(0)
    drawn = pooled.draw(views)
    torch.manual_seed(0)
    pool = torch.rand(itself.shape).masked_fill(itself, -1.0).topk(2, dim=1).indices
    best = pool.gather(1, odds.gather(1, pool).argmax(1, keepdim=True))
    assert torch.equal(drawn.row, best) and drawn.wrong.all()


@every_family
def test_one_batch_is_learnt(family):
    make, make_one = FAMILIES[family]
    model, batch = make(), make_one()
    if family in ("pixelbert", "xvlm"):  # two texts of an image, which are not wrong for it
        batch = replace(batch, group=torch.arange(len(batch.group)) // 2)
    head = Ranking(Ranking.Config(losses=("multiclass",), num_candidates=3), model)
    steps = {"vlbert": 150, "imagebert": 80}.get(family, 50)
    losses = learn(Learner(model, {"ranking": head}).train(), batch, steps, lr=3e-3)
    assert sum(losses[-5:]) / 5 < 0.4 < 1 < losses[0]
    odds = every_odds(model, head, batch)
    wrong = odds.masked_fill(batch.group[:, None] == batch.group[None], -99.0)
    best = torch.cat([odds.diagonal() > wrong.amax(0), odds.diagonal() > wrong.amax(1)])
    assert best.float().mean() > 0.5  # chance is 0.2


@pytest.mark.parametrize("form", ["mlp", "linear", "pooler"])
def test_matching_goes_on_where_pre_training_ended(form):
    model = tiny_imagebert()
    itm = ITM(ITM.Config(negatives="swapped", head=form), model)
    head = Ranking(Ranking.Config(head=form), model)
    assert head.adopt(model, {"mlm": {}, "itm": itm.state_dict()}) == ["head"]
    cls = torch.randn(5, model.dim)
    first, second = itm.match(cls).unbind(1)
    torch.testing.assert_close(head.match(cls), torch.stack([torch.zeros(5), second - first], dim=1))
    torch.testing.assert_close(head.match(cls).softmax(1), itm.match(cls).softmax(1))
    earlier = Ranking(Ranking.Config(head=form), model)
    assert earlier.adopt(model, {"itm": itm.state_dict(), "retrieval": head.state_dict()}) == ["head"]
    assert head.adopt(model, {"mlm": {}}) == []


def test_a_head_of_another_form_is_not_left_out_silently():
    model = tiny_imagebert()
    itm = ITM(ITM.Config(negatives="swapped", head="linear"), model)
    with pytest.raises(UserError, match="write head: linear"):
        Ranking(Ranking.Config(), model).adopt(model, {"itm": itm.state_dict()})


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"losses": []}, "losses"),
        ({"losses": ["binary", "binary"]}, "name each once"),
        ({"losses": ["hinge"]}, "losses"),
        ({"num_candidates": 1}, "num_candidates"),
        ({"num_candidates": 5, "pool": 3}, "a pool of 3 has no 4 wrong candidates"),
    ],
)
def test_mistakes_in_a_recipe_are_named(config, told):
    with pytest.raises(RecipeError, match=told):
        read_config(Ranking.Config, config, "recipe")
