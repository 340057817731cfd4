"""What is predicted of hidden regions, texts alone and swapped texts, on numbers small enough to work out by hand."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from crossgrain.data.types import Batch, Hidden, HiddenRegions, Matched, Regions, Text
from crossgrain.models.interface import Fused, Tokens, VisionLanguageModel
from crossgrain.objectives.interface import Views, hidden_loss
from crossgrain.objectives.itm import ITM
from crossgrain.objectives.mlm import MLM
from crossgrain.objectives.region_class import RegionClass
from crossgrain.objectives.region_feature import RegionFeature
from tiny_models import tiny_model

NONE = -100


class Given(VisionLanguageModel):
    """Two pairs of two words and three regions, which became the vectors that it was made with."""

    dim, feature_dim, reads = 2, 2, "regions"

    def __init__(self, words, regions):
        super().__init__()
        self.sequence = torch.cat([torch.tensor(words), torch.tensor(regions)], dim=1)
        self.vocabulary = nn.Embedding(4, 2)
        self.met = []

    @property
    def token_embedding(self):
        return self.vocabulary

    def encode_image(self, image):
        return Tokens(self.sequence[:, 2:], image.mask)

    def encode_text(self, text):
        return Tokens(self.sequence[:, :2], text.mask)

    def fuse(self, image, text):
        self.met.append((image, text))
        return Fused(self.sequence, 2)


WORDS = [[[1.0, 0.0], [0.0, 2.0]], [[3.0, 1.0], [0.0, 0.0]]]
REGIONS = [[[1.0, 0.0], [0.0, 2.0], [4.0, 4.0]], [[0.0, 3.0], [1.0, 1.0], [2.0, 0.0]]]


def make_views(model=None, paired=None, features=None, **targets):
    text = Text(ids=torch.zeros(2, 2, dtype=torch.long), mask=torch.ones(2, 2, dtype=torch.bool))
    features = torch.zeros(2, 3, 2).half() if features is None else torch.tensor(features).half()
    clean = Regions(
        features=features,
        boxes=torch.rand(2, 3, 4),
        mask=torch.ones(2, 3, dtype=torch.bool),
        image=torch.tensor([1, 0]),  # the first pair speaks about the second image
    )
    masked = replace(clean, hidden=torch.ones(2, 3, dtype=torch.bool))
    batch = Batch(
        image={"clean": clean, "masked": masked},
        text={"clean": text, "masked": text},
        group=torch.arange(2),
        targets=targets,
        paired=None if paired is None else torch.tensor(paired),
    )
    return Views(model or Given(WORDS, REGIONS), batch)


def hidden(position, label, probs=None):
    probs = None if probs is None else torch.tensor(probs)
    return HiddenRegions(position=torch.tensor(position), label=torch.tensor(label), probs=probs)


def identity(linear):
    with torch.no_grad():
        linear.weight.copy_(torch.eye(2))
        linear.bias.zero_()


def log_softmax(*scores):
    return [score - math.log(sum(map(math.exp, scores))) for score in scores]


def region_class(views, **config):
    objective = RegionClass(RegionClass.Config(num_classes=2, **config), views.model)
    identity(objective.head)
    return objective(views)


def test_region_class_is_the_cross_entropy_at_the_chosen_regions():
    views = make_views(regions=hidden([[1, 2], [0, 1]], [[1, 0], [0, NONE]]))
    loss = region_class(views)
    scores = [log_softmax(0, 2)[1], log_softmax(4, 4)[0], log_softmax(0, 3)[0]]
    assert loss.value.item() == pytest.approx(-sum(scores) / 3, rel=1e-5)
    assert loss.metrics["accuracy"].item() == pytest.approx(2 / 3)  # of two equal scores the first counts as highest


def test_region_class_with_soft_targets_leaves_out_what_is_no_distribution():
    probs = [[[0.25, 0.75], [0.2, 0.2]], [[0.05, 1.0], [1.0, 0.0]]]  # sums 1, 0.4, 1.05, 1
    views = make_views(regions=hidden([[1, 2], [0, 2]], [[1, 1], [1, NONE]], probs))
    loss = region_class(views, soft=True)
    first, second = log_softmax(0, 2), log_softmax(0, 3)
    expected = -(0.25 * first[0] + 0.75 * first[1] + 0.05 * second[0] + 1.0 * second[1]) / 2
    assert loss.value.item() == pytest.approx(expected, rel=1e-5)
    assert loss.metrics["accuracy"].item() == 1


def test_the_larger_head_of_region_class_is_linear_gelu_linear():
    views = make_views(regions=hidden([[2], [1]], [[0], [1]]))
    objective = RegionClass(RegionClass.Config(num_classes=2, head="transform"), views.model)
    first, gelu, last = objective.head
    identity(first)
    identity(last)
    assert isinstance(gelu, nn.GELU)
    scores = [log_softmax(*[x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in row]) for row in ((4, 4), (1, 1))]
    assert objective(views).value.item() == pytest.approx(-(scores[0][0] + scores[1][1]) / 2, rel=1e-5)


def test_region_feature_is_the_squared_distance_to_what_stood_there():
    """Features of the image that a pair speaks about, seen by the loss although the model must not see them."""
    features = [[[9.0, 9.0], [1.0, 2.0], [9.0, 9.0]], [[9.0, 9.0], [9.0, 9.0], [3.0, 0.0]]]
    views = make_views(features=features, regions=hidden([[2, 0], [1, 0]], [[0, NONE], [1, NONE]]))
    objective = RegionFeature(RegionFeature.Config(), views.model)
    identity(objective.head)
    loss = objective(views)
    errors = [((4 - 3) ** 2 + (4 - 0) ** 2) / 2, ((1 - 1) ** 2 + (1 - 2) ** 2) / 2]
    assert loss.value.item() == pytest.approx(sum(errors) / 2)
    assert loss.metrics["relative_error"].item() == pytest.approx(sum(errors) / (9 / 2 + 5 / 2))


@pytest.mark.parametrize("objective", [RegionClass, RegionFeature])
def test_without_a_hidden_region_the_loss_is_zero_and_harmless(objective):
    views = make_views(regions=hidden([[0], [0]], [[NONE], [NONE]], [[[0.5, 0.5]], [[0.5, 0.5]]]))
    for options in ({}, {"soft": True}) if objective is RegionClass else ({},):
        config = objective.Config(**{"num_classes": 2} if objective is RegionClass else {}, **options)
        module = objective(config, views.model)
        loss = module(views)
        loss.value.backward()
        assert loss.value.item() == 0
        assert not any(p.grad.any() for p in module.parameters())


def test_regions_are_predicted_only_where_regions_are_read():
    with pytest.raises(
        ValueError, match="region_class predicts what a detector says of regions, and XVLM reads pixels"
    ):
        RegionClass(RegionClass.Config(), tiny_model())
    with pytest.raises(ValueError, match="feature_dim is 3, but Given reads features of 2 numbers"):
        RegionFeature(RegionFeature.Config(feature_dim=3), Given(WORDS, REGIONS))


def test_matching_of_swapped_texts_asks_every_pair_once_and_no_text_alone():
    for paired, rows in ((None, (0, 1)), ([False, True], (1,))):
        views = make_views(paired=paired, itm=Matched(label=torch.tensor([True, False])))
        itm = ITM(ITM.Config(negatives="swapped", head="linear", image="masked", text="masked"), views.model)
        identity(itm.head)
        loss = itm(views)
        each = [-log_softmax(1, 0)[1], -log_softmax(3, 1)[0]]  # [CLS] of both pairs; the first belong together
        assert loss.value.item() == pytest.approx(sum(each[row] for row in rows) / len(rows), rel=1e-5)
        assert loss.metrics["accuracy"].item() == pytest.approx(sum((0, 1)[row] for row in rows) / len(rows))
        assert len(views.model.met) == 1


def test_masked_words_of_texts_alone_are_a_mean_of_their_own():
    position, label = torch.tensor([[0, 1], [0, 1]]), torch.tensor([[1, 2], [3, NONE]])
    target = Hidden(position=position, label=label)
    model = Given(WORDS, REGIONS)
    mlm = MLM(MLM.Config(image="masked"), model)
    one, two, three = (
        -mlm.logits(model.sequence[:, :2], model.vocabulary.weight)
        .log_softmax(-1)
        .detach()[[0, 0, 1], [0, 1, 0], [1, 2, 3]]
    )
    apart = mlm(make_views(model, paired=[True, False], mlm=target))
    assert apart.value.item() == pytest.approx(((one + two) / 2 + three).item(), rel=1e-5)
    assert apart.metrics["text_only_loss"].item() == pytest.approx(three.item(), rel=1e-5)
    together = ((one + two + three) / 3).item()
    for paired, config in ((None, MLM.Config()), ([True, False], MLM.Config(apart=False))):
        mlm.config = config
        assert mlm(make_views(model, paired=paired, mlm=target)).value.item() == pytest.approx(together, rel=1e-5)
    mlm.config = MLM.Config()
    assert mlm(make_views(model, paired=[True, True], mlm=target)).value.item() == pytest.approx(together, rel=1e-5)


def test_the_loss_of_hidden_tokens_counts_those_that_are():
    logits = torch.tensor([[[0.0, 1.0], [5.0, 0.0]]])
    loss = hidden_loss(logits, torch.tensor([[0, NONE]]))
    assert loss.value.item() == pytest.approx(-log_softmax(0, 1)[0], rel=1e-5)
    assert loss.metrics["accuracy"].item() == 0
