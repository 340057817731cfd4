"""The four objectives on batches small enough to work out by hand."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from crossgrain.data.types import Batch, BoxTarget, Hidden, Pixels, Text
from crossgrain.models.interface import DualEncoder, Fused, Tokens, VisionLanguageModel
from crossgrain.objectives.box import Box
from crossgrain.objectives.interface import Views, cross_entropy
from crossgrain.objectives.itc import ITC
from crossgrain.objectives.itm import ITM, draw, negative_weights
from crossgrain.objectives.mlm import MLM
from tiny_models import PAD, make_batch, tiny_model


class Plain(VisionLanguageModel):
    """Gives back the numbers it was made with: one vector for each image and for each text."""

    dim = 2

    def __init__(self, image: Tensor, text: Tensor):
        super().__init__()
        self.image, self.text = image, text
        self.words = nn.Embedding(5, self.dim)
        self.met: list[tuple[list, list]] = []

    @property
    def token_embedding(self) -> nn.Embedding:
        return self.words

    def encode_image(self, image: Pixels) -> Tokens:
        return Tokens(self.image[:, None], torch.ones(len(self.image), 1, dtype=torch.bool))

    def encode_text(self, text: Text) -> Tokens:
        return Tokens(self.text[:, None], torch.ones(len(self.text), 1, dtype=torch.bool))

    def fuse(self, image: Tokens, text: Tokens) -> Fused:
        self.met.append((image.x[:, 0].tolist(), text.x[:, 0].tolist()))
        return Fused(torch.cat([text.x, image.x], dim=1), text.x.shape[1])


class Given(Plain, DualEncoder):
    """The same numbers as embeddings."""

    def __init__(self, image: Tensor, text: Tensor, temperature: float = 0.5):
        super().__init__(image, text)
        self.temperature = nn.Parameter(torch.tensor(temperature))

    def embed_image(self, image: Tokens) -> Tensor:
        return image.x[:, 0]

    def embed_text(self, text: Tokens) -> Tensor:
        return text.x[:, 0]


def batch_of(group, **targets) -> Batch:
    rows = torch.arange(len(group))
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(len(group), 1)
    pixels = Pixels(pixels=torch.zeros(len(group), 3, 1, 1), image=rows, boxes=boxes)
    text = Text(ids=rows[:, None], mask=torch.ones(len(group), 1, dtype=torch.bool))
    words = {"clean": text, "masked": text}
    return Batch(image={"clean": pixels}, text=words, group=torch.tensor(group), targets=targets)


# ITC: rows 0 and 1 are two texts of one concept.

EAST, NORTH = [1.0, 0.0], [0.0, 1.0]
IMAGE = torch.tensor([EAST, EAST, NORTH])
TEXT = torch.tensor([EAST, [0.6, 0.8], NORTH])
GROUP = [7, 7, 3]


def log_softmax(scores):
    return [s - math.log(sum(math.exp(x) for x in scores)) for s in scores]


def contrastive_loss(targets):
    """Mean over both directions and three rows of the cross-entropy with `targets`, temperature 1/2."""
    similarity = [[2.0, 1.2, 0.0], [2.0, 1.2, 0.0], [0.0, 1.6, 2.0]]
    rows = [log_softmax(row) for row in similarity]
    columns = [log_softmax(column) for column in zip(*similarity, strict=True)]
    sides = [sum(t * p for t, p in zip(targets[i], side[i], strict=True)) for i in range(3) for side in (rows, columns)]
    return -sum(sides) / 6


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ("group", [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]]),
        ("one_hot", [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
    ],
)
def test_itc_shares_the_target_among_texts_of_one_concept_unless_told_otherwise(targets, expected):
    model = Given(IMAGE, TEXT)
    loss = ITC(ITC.Config(targets=targets), model)(Views(model, batch_of(GROUP)))
    assert loss.value.item() == pytest.approx(contrastive_loss(expected), rel=1e-5)
    assert loss.metrics["accuracy"].item() == pytest.approx(1.0 if targets == "group" else 2 / 3)


@pytest.mark.parametrize(("start", "kept"), [(10.0, 0.5), (-1.0, 0.001), (0.2, 0.2)])
def test_itc_puts_the_temperature_back_into_its_range(start, kept):
    model = Given(IMAGE, TEXT, temperature=start)
    loss = ITC(ITC.Config(), model)(Views(model, batch_of(GROUP)))
    loss.value.backward()
    assert model.temperature.item() == pytest.approx(kept)
    assert loss.metrics["temperature"].item() == pytest.approx(kept)
    assert model.temperature.grad is not None
    assert model.temperature.grad != 0


def test_itc_asks_for_the_rows_of_all_ranks():
    """A gather that doubles the batch gives the loss of the doubled batch."""
    model = Given(IMAGE, TEXT)
    both = Given(torch.cat([IMAGE, IMAGE]), torch.cat([TEXT, TEXT]))
    itc = ITC(ITC.Config(), model)
    gathered = itc(Views(model, batch_of(GROUP), lambda x: torch.cat([x, x]))).value
    torch.testing.assert_close(gathered, itc(Views(both, batch_of(GROUP * 2))).value)


# ITM


def test_negative_weights_are_softmax_plus_a_little_without_the_same_concept():
    similarity = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0], [500.0, 0.0, 0.0]])
    same = torch.tensor([[True, False, False], [False, True, True], [False, False, True]])
    total = math.exp(2) + math.exp(1) + 1
    expected = [[0, math.exp(1) / total + 1e-5, 1 / total + 1e-5], [1 / 3 + 1e-5, 0, 0], [1 + 1e-5, 1e-5, 0]]
    torch.testing.assert_close(negative_weights(similarity, same), torch.tensor(expected))


def test_a_row_without_any_other_concept_keeps_its_own():
    weights = negative_weights(torch.zeros(2, 2), torch.ones(2, 2, dtype=torch.bool))
    assert torch.equal(weights, torch.ones(2, 2))


def test_negatives_are_drawn_in_proportion_to_their_weights():
    similarity = torch.tensor([[0.0, math.log(3.0), 0.0]]).repeat(3, 1)
    same = torch.eye(3, dtype=torch.bool)
    drawn = torch.stack([draw(similarity, same) for _ in range(2000)])
    assert (drawn[:, 0] == 1).float().mean().item() == pytest.approx(3 / 4, abs=0.04)
    assert (drawn[:, 1] == 0).float().mean().item() == pytest.approx(1 / 2, abs=0.04)


@pytest.mark.parametrize("negatives", ["hard", "random"])
def test_itm_never_takes_the_same_concept_for_a_negative(negatives):
    group = torch.tensor([0, 0, 1, 2, 1, 0])
    model = Given(torch.randn(6, 2), torch.randn(6, 2))
    views = Views(model, batch_of(group.tolist()))
    itm = ITM(ITM.Config(negatives=negatives), model)
    pairs = torch.stack([torch.stack(itm.draw_negatives(views)) for _ in range(50)])
    assert not (group[pairs] == group).any()
    assert set(pairs[:, 0, 3].tolist()) > {0}  # more than one choice is made


def test_a_random_share_of_one_draws_almost_evenly_and_none_changes_nothing():
    similarity, same = torch.tensor([[0.0, 50.0, 0.0]]).repeat(3, 1), torch.eye(3, dtype=torch.bool)
    assert torch.equal(negative_weights(similarity, same, 0.0), negative_weights(similarity, same))
    half = negative_weights(similarity, same, 0.5)[0]
    assert half.tolist() == pytest.approx([0.0, 0.5 + 0.5 / 3, 0.5 / 3], abs=1e-4)


def test_same_grain_negatives_never_mix_regions_with_whole_images():
    whole, part = [0.0, 0.0, 1.0, 1.0], [0.1, 0.1, 0.5, 0.5]
    boxes = torch.tensor([whole, part, whole, part, part, whole])
    pixels = Pixels(pixels=torch.zeros(6, 3, 8, 8), image=torch.arange(6), boxes=boxes)
    model = Given(torch.randn(6, 2), torch.randn(6, 2))
    views = Views(model, replace(batch_of(list(range(6))), image={"clean": pixels}))
    itm = ITM(ITM.Config(same_grain=True), model)
    is_part = boxes[:, 2] < 1
    for _ in range(20):
        for drawn in itm.draw_negatives(views):
            assert torch.equal(is_part[drawn], is_part)


def test_the_hardest_negatives_are_each_texts_nearest_image_and_each_images_nearest_text():
    """Image i is near text i + 1, and so text t near image t - 1."""
    model = Given(torch.eye(3), 20 * torch.eye(3).roll(1, 0), temperature=0.5)
    wrong_image, wrong_text = ITM(ITM.Config(), model).draw_negatives(Views(model, batch_of([0, 1, 2])))
    assert wrong_image.tolist() == [2, 0, 1]
    assert wrong_text.tolist() == [1, 2, 0]


def test_itm_meets_each_pair_each_wrong_image_and_each_wrong_text():
    image, text = torch.tensor([[1.0, 0], [2, 0]]), torch.tensor([[0, 1.0], [0, 2]])
    model = Plain(image, text)
    itm = ITM(ITM.Config(negatives="random"), model)
    itm.head = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        itm.head.weight.copy_(torch.tensor([[0.0, 0.0], [0.0, 1.0]]))  # the logit of a match: the text's number
    loss = itm(Views(model, batch_of([0, 1])))
    ones, twos = [1.0, 0.0], [2.0, 0.0]
    one, two = [0.0, 1.0], [0.0, 2.0]
    assert model.met == [([ones, twos, twos, ones, ones, twos], [one, two, one, two, two, one])]
    wrong = [log_softmax([0, n])[0] for n in (1, 2, 2, 1)]
    right = [log_softmax([0, n])[1] for n in (1, 2)]
    assert loss.value.item() == pytest.approx(-sum(right + wrong) / 6, rel=1e-5)
    assert loss.metrics["accuracy"].item() == pytest.approx(2 / 6)


def test_itm_asks_a_share_of_the_pairs_with_negatives_from_all_of_them():
    numbers = torch.stack([torch.arange(8.0), torch.zeros(8)], 1)
    model = Plain(numbers, numbers)
    itm = ITM(ITM.Config(negatives="random", asked=0.4), model)
    asked, partners = set(), set()
    for _ in range(30):
        itm(Views(model, batch_of(list(range(8)))))
        images, texts = (torch.tensor(side)[:, 0].reshape(3, 4) for side in model.met.pop())
        assert images[0].equal(texts[0]) and images[2].equal(images[0]) and texts[1].equal(texts[0])
        assert len(set(images[0].tolist())) == 4
        assert (images[1] != texts[1]).all() and (images[2] != texts[2]).all()
        asked |= set(images[0].tolist())
        partners |= set(images[1].tolist())
    assert asked == partners == set(range(8))


def test_balanced_matching_asks_every_text_and_every_image_once_right_and_once_wrong():
    model = Plain(torch.tensor([[1.0, 0], [2, 0], [3, 0]]), torch.tensor([[0, 1.0], [0, 2], [0, 3]]))
    itm = ITM(ITM.Config(negatives="balanced"), model)
    itm.head = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        itm.head.weight.copy_(torch.tensor([[0.0, 0.0], [0.0, 1.0]]))  # the logit of a match: the text's number
    batch = batch_of([0, 1, 1])
    loss = itm(Views(model, batch))
    (images, texts), (same, moved) = model.met
    assert images == same == [[1, 0], [2, 0], [3, 0]] and texts == [[0, 1], [0, 2], [0, 3]]
    assert moved == [[0, 3], [0, 1], [0, 2]]
    right = [log_softmax([0, n])[1] for n in (1, 2, 3)]
    wrong = [log_softmax([0, n])[0] for n in (3, 1)]  # the last image and the second text are one concept
    assert loss.value.item() == pytest.approx(-sum(right + wrong) / 5, rel=1e-5)
    assert loss.metrics["accuracy"].item() == pytest.approx(3 / 5)

    alone = replace(batch, paired=torch.tensor([True, False, True]))  # the second text has no image
    right, wrong = [log_softmax([0, n])[1] for n in (1, 3)], [log_softmax([0, 3])[0]]
    assert itm(Views(model, alone)).value.item() == pytest.approx(-sum(right + wrong) / 3, rel=1e-5)

    twins = torch.tensor([[4], [5], [4]])
    right = [log_softmax([0, n])[1] for n in (1, 2, 3)]
    text = replace(batch.text["clean"], ids=twins)
    loss = itm(Views(model, replace(batch_of([0, 1, 2]), text={"clean": text, "masked": text})))
    wrong = [log_softmax([0, n])[0] for n in (1, 2)]  # the first image and the third text: its own, word for word
    assert loss.value.item() == pytest.approx(-sum(right + wrong) / 5, rel=1e-5)


def test_balanced_matching_shares_the_pass_in_which_words_are_hidden():
    model = Plain(torch.rand(4, 2), torch.rand(4, 2))
    views = Views(model, batch_of(list(range(4))))
    views.fused("clean", "masked")
    ITM(ITM.Config(negatives="balanced", text="masked"), model)(views)
    assert len(model.met) == 2


def test_objectives_that_need_embeddings_refuse_a_model_without():
    model = Plain(IMAGE, TEXT)
    with pytest.raises(ValueError, match="itc compares image and text embeddings, which Plain does not have"):
        ITC(ITC.Config(), model)
    with pytest.raises(ValueError, match=r"itm draws hard negatives .* does not have: write negatives: random, s"):
        ITM(ITM.Config(), model)
    assert ITM(ITM.Config(negatives="random"), model).draw_negatives(Views(model, batch_of(GROUP)))


# MLM


def test_mlm_asks_a_share_of_the_rows_in_a_pass_of_their_own():
    model, batch = tiny_model(), make_batch()
    one = MLM(MLM.Config(asked=1 / 6), model).requires_grad_(False)
    rows = [index for index in range(6) if (batch.targets["mlm"].label[index] >= 0).any()]
    every = MLM(MLM.Config(), model).requires_grad_(False)
    every.load_state_dict(one.state_dict())
    logits = every.logits(
        Views(model, batch).fused(text="masked").words(batch.targets["mlm"].position), model.token_embedding.weight
    )
    losses = cross_entropy(logits, batch.targets["mlm"].label).sum(1)
    counts = (batch.targets["mlm"].label >= 0).sum(1)
    alone = {round((losses[row] / counts[row]).item(), 4) for row in rows}
    seen = {round(one(Views(model, batch)).value.item(), 4) for _ in range(40)}
    assert seen - {0.0} == alone  # each row is asked now and then, by itself, and says what it says among the others


def test_mlm_looks_at_the_hidden_words_alone():
    model, batch = tiny_model(), make_batch()
    mlm = MLM(MLM.Config(), model).requires_grad_(False)
    loss = mlm(Views(model, batch))
    target = batch.targets["mlm"]
    words = Views(model, batch).fused(text="masked").text.detach().requires_grad_()
    logits = mlm.logits(words, model.token_embedding.weight).log_softmax(-1)
    places = [(b, p, w) for b in range(6) for p, w in zip(target.position[b], target.label[b], strict=True) if w >= 0]
    assert len(places) == 11
    expected = -torch.stack([logits[b, p, w] for b, p, w in places]).mean()
    torch.testing.assert_close(loss.value, expected, rtol=1e-4, atol=1e-5)
    right = sum(logits[b, p].argmax() == w for b, p, w in places) / len(places)
    torch.testing.assert_close(loss.metrics["accuracy"], torch.as_tensor(right, dtype=torch.float32))


def test_mlm_without_a_hidden_word_is_zero_and_harmless():
    model, batch = tiny_model(), make_batch()
    none = Hidden(position=torch.zeros(6, 2, dtype=torch.long), label=torch.full((6, 2), -100))
    loss = MLM(MLM.Config(), model)(Views(model, replace(batch, targets=batch.targets | {"mlm": none})))
    loss.value.backward()
    assert loss.value.item() == loss.metrics["accuracy"].item() == 0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_mlm_predicts_with_the_words_own_vectors():
    model = tiny_model()
    mlm = MLM(MLM.Config(), model)
    assert all(p.shape != model.token_embedding.weight.shape for p in mlm.parameters())
    assert mlm.logits(torch.zeros(1, 1, 16), model.token_embedding.weight).shape == (1, 1, 40)
    assert PAD not in make_batch().targets["mlm"].label


# Box


def box_loss(monkeypatch, predicted, target, valid):
    model = Plain(torch.zeros(4, 2), torch.zeros(4, 2))
    box = Box(Box.Config(), model)
    monkeypatch.setattr(box, "boxes", lambda cls: torch.tensor(predicted))
    rows = torch.arange(len(valid))
    targets = BoxTarget(rows=rows, boxes=torch.tensor(target), valid=torch.tensor(valid))
    return box(Views(model, batch_of([0, 1, 2, 3], box=targets)))


def test_box_is_l1_of_centre_and_sides_plus_giou_over_the_valid_rows(monkeypatch):
    quarter, middle, whole = [0.0, 0.0, 0.5, 0.5], [0.25, 0.25, 0.75, 0.75], [0.0, 0.0, 1.0, 1.0]
    loss = box_loss(monkeypatch, [quarter, whole, whole], [middle, whole, quarter], [True, True, False])
    giou = 1 - 0.0625 / 0.4375 + (0.5625 - 0.4375) / 0.5625
    assert loss.metrics["l1"].item() == pytest.approx((0.25 + 0.25) / 2)  # the second row is exact, the third not asked
    assert loss.metrics["giou"].item() == pytest.approx(giou / 2)
    assert loss.value.item() == pytest.approx(0.25 + giou / 2)


def test_box_without_a_valid_row_is_zero_and_harmless():
    model, batch = tiny_model(), make_batch()
    target = replace(batch.targets["box"], valid=torch.zeros(3, dtype=torch.bool))
    box = Box(Box.Config(), model)
    loss = box(Views(model, replace(batch, targets={"box": target})))
    loss.value.backward()
    assert loss.value.item() == 0
    gradients = [p.grad for module in (model, box) for p in module.parameters() if p.grad is not None]
    assert gradients
    assert not any(gradient.any() for gradient in gradients)


def test_box_reads_the_whole_image_and_not_the_region():
    """What the loss may not see: where the region is, which its mask would give away."""
    model, batch = tiny_model("swin"), make_batch()
    moved = replace(batch.image["clean"], boxes=batch.image["clean"].boxes.flip(0))
    box = Box(Box.Config(), model)
    loss = box(Views(model, batch)).value
    torch.testing.assert_close(box(Views(model, replace(batch, image={"clean": moved}))).value, loss)
