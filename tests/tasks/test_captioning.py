import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from crossgrain.config import UserError
from crossgrain.data.collate import Origin, collate
from crossgrain.data.images import ImageConfig
from crossgrain.data.samples import Recipe, make_sample
from crossgrain.data.task_samples import references
from crossgrain.data.types import Text
from crossgrain.metrics.captioning import caption_scores
from crossgrain.models.interface import VisionLanguageModel
from crossgrain.objectives.interface import Views
from crossgrain.objectives.mlm import MLM
from crossgrain.tasks import scst
from crossgrain.tasks.captioning import Captioning, readable
from crossgrain.tasks.captioning_head import CaptionHead, smoothed_cross_entropy, until_end
from crossgrain.tasks.generation import Decoding
from crossgrain.tasks.scst import SelfCritical
from crossgrain.training.learner import Learner
from tiny_families import MODELS, SIDES, learn, scenes, tiny_family, tokenizer, trained_on_scenes

every_family = pytest.mark.parametrize("family", MODELS)
DECODING = Decoding(max_length=48, min_length=0, num_beams=2)


def made(family, **config):
    """The task, a tiny model and its head."""
    torch.manual_seed(1)
    model = tiny_family(family)
    task = Captioning(Captioning.Config(prompt="a", **{"decoding": DECODING, **config}))
    return task, model, task.head(model, tokenizer())


def batch_of(family, model, count=4, num_references=0, end_token=True):
    """One caption of each of the first scenes, with references where a recipe asks for them."""
    trained = trained_on_scenes(family, model, {})
    recipe = Recipe(
        image=ImageConfig(size=SIDES.get(family, 32), flip=0.0, rand_augment=None, crop_scale=(1.0, 1.0)),
        text=replace(trained.text, end_token=end_token),
        tokenizer=tokenizer(),
        regions=trained.regions,
        reads=model.reads,
        want_masked=False,
    )
    samples = [make_sample(record, "captions", 1, recipe, np.random.default_rng(0)) for record in scenes()[:count]]
    if num_references:
        told = [references(record, num_references, recipe) for record in scenes()[:count]]
        samples = [replace(sample, target=target) for sample, target in zip(samples, told, strict=True)]
    return collate(samples, [Origin(0, number, False) for number in range(count)], recipe)


def image_and_text(family, model, head):
    views = Views(model, batch_of(family, model))
    return views.image(), head.prompted(views.batch.text["clean"])


@every_family
def test_one_batch_is_learnt_and_written(family):
    _, model, head = made(family, label_smoothing=0.0)
    batch = batch_of(family, model)
    losses = learn(Learner(model, {"captioning": head}).train(), batch, 90 if family == "vlbert" else 60, lr=1e-2)
    assert losses[-1] < 0.1 < 3 < losses[0]
    model.eval(), head.eval()
    views = Views(model, batch)
    with torch.no_grad():
        for method in ("greedy", "beam"):
            past = model.begin(views.image())
            written = head.write(model, past, replace(DECODING, method=method))
            assert head.captions(written.ids) == [tokenizer().decode(ids) for ids in batch.text["clean"].ids.tolist()]
            assert written.ended.all()


@every_family
def test_a_word_sees_the_image_and_the_words_before_it(family):
    _, model, head = made(family)
    image, text = image_and_text(family, model, head)
    with torch.no_grad():
        whole = model.decode(image, text)
        for place in (1, 4, 7):
            ids = text.ids.clone()
            ids[:, place] = (ids[:, place] + 7) % len(tokenizer())
            changed = (model.decode(image, replace(text, ids=ids)) - whole).abs().amax(2)
            assert changed[:, :place].max() < 1e-5 < 1e-3 < changed[:, place].min()
            cut = Text(ids=text.ids[:, : place + 1], mask=text.mask[:, : place + 1])
            torch.testing.assert_close(model.decode(image, cut), whole[:, : place + 1], atol=1e-5, rtol=1e-4)
        others = torch.arange(len(image.x)).roll(1)
        assert (model.decode(image.take(others), text) - whole).abs().amax(2).min() > 1e-4


@every_family
def test_kept_words_and_images_give_what_all_words_at_once_give(family):
    _, model, head = made(family)
    image, text = image_and_text(family, model, head)
    real = text.mask.all(0).sum()  # words that every text has
    with torch.no_grad():
        whole = model.decode(image, text)[:, :real]
        past, steps = model.begin(image), []
        for piece in text.ids[:, :real].split([3, 1, int(real) - 4], dim=1):
            out, past = model.extend(past, Text(ids=piece, mask=torch.ones_like(piece, dtype=torch.bool)))
            steps.append(out)
        torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=1e-5, rtol=1e-4)
        assert past.num_words == real
        # rows in another order, and some of them twice, go on as they would have
        rows = torch.tensor([2, 0, 0])
        last = Text(ids=text.ids[:, real - 1 : real], mask=text.mask[:, real - 1 : real])
        again = model.extend(past.take(rows), last.map(lambda tensor: tensor[rows]))[0]
        torch.testing.assert_close(again, model.extend(past, last)[0][rows], atol=1e-5, rtol=1e-4)


def test_an_image_in_which_nothing_was_found_has_a_caption():
    """A detector that finds nothing leaves ImageBERT without a single image token."""
    _, model, head = made("imagebert")
    image, text = image_and_text("imagebert", model, head)
    nothing = image._replace(mask=torch.zeros_like(image.mask))
    with torch.no_grad():
        assert model.decode(nothing, text).isfinite().all()
        assert head.write(model, model.begin(nothing), DECODING).ids.shape == (4, 48)


@every_family
def test_lines_are_complete_and_scored_from_themselves(family):
    task, model, head = made(family)
    asked = [*scenes(), replace(scenes()[0], key="told nothing", captions=())]
    lines = list(task.predict(trained_on_scenes(family, model, {"captioning": head}), asked))
    assert [(line["key"], line["references"]) for line in lines] == [(r.key, list(r.captions)) for r in asked]
    score = task.score(json.loads(json.dumps(lines)))
    told = [line for line in lines if line["references"]]
    exact = caption_scores([line["caption"] for line in told], [line["references"] for line in told])
    for name in ("BLEU-1", "BLEU-4", "CIDEr", "ROUGE-L"):
        assert score[name] == pytest.approx(100 * exact.corpus[name], abs=0.006)
        low, high = score["confidence_95"][name]
        assert low <= score[name] <= high
    assert (score["images"], score["references"]) == (8, sum(len(record.captions) for record in scenes()))
    assert task.score(lines[-1:]) == {"unscored": 1}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("a medium - sized hut , and a star .", "a medium-sized hut, and a star."),
        ("the dog ' s ball isn ' t red", "the dog's ball isn't red"),
        ("a sign that says ' stop ' on it", "a sign that says ' stop ' on it"),
        ("the dogs ' bowl", "the dogs ' bowl"),
        ("a - frame - work", "a-frame-work"),
        ("- a ' b", "- a ' b"),
        ("3 . 5 m", "3. 5 m"),
        ("", ""),
    ],
)
def test_captions_are_readable(written, read):
    assert readable(written) == read


def test_chance_is_the_score_of_other_images_captions():
    lines = [{"key": r.key, "caption": r.captions[0], "references": list(r.captions)} for r in scenes()]
    score = Captioning.score(lines)
    assert score["BLEU-4"] == score["ROUGE-L"] == 100 and score["CIDEr"] > 200
    rolled = [line | {"caption": lines[(place + 4) % 8]["caption"]} for place, line in enumerate(lines)]
    told = Captioning.score(rolled)
    assert score["chance"] == {name: told[name] for name in score["chance"]}
    assert 0 < score["chance"]["CIDEr"] < score["CIDEr"]
    assert "chance" not in Captioning.score(lines[:1])


@pytest.mark.parametrize("method", ["greedy", "beam", "sample"])
def test_the_same_captions_each_time(method):
    task, model, head = made("imagebert", decoding=replace(DECODING, method=method, max_length=12))
    trained = trained_on_scenes("imagebert", model, {"captioning": head})
    first = list(task.predict(trained, scenes()))
    torch.rand(1)
    assert list(task.predict(trained, scenes())) == first
    assert len({line["caption"] for line in first}) > 1


def test_a_drawn_caption_does_not_depend_on_the_other_images():
    task, model, head = made("imagebert", decoding=replace(DECODING, method="sample", max_length=12))
    trained = trained_on_scenes("imagebert", model, {"captioning": head})
    together = list(task.predict(trained, scenes()))
    few = Captioning(replace(task.config, images_per_batch=3))
    assert list(few.predict(trained, scenes()[::-1])) == together[::-1]


def test_the_smoothed_loss_is_the_originals():
    """1 - smoothing on the right word, smoothing / V on every wrong one: it does not sum to 1 (xbert.py:1206-1213)."""
    logits, label = torch.randn(2, 3, 5), torch.tensor([[0, 4, 2], [1, 1, 3]])
    target = torch.full((2, 3, 5), 0.1 / 5).scatter(2, label[..., None], 0.9)
    expected = -(logits.log_softmax(2) * target).sum(2)
    torch.testing.assert_close(smoothed_cross_entropy(logits, label, 0.1), expected)
    plain = torch.nn.functional.cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="none")
    torch.testing.assert_close(smoothed_cross_entropy(logits, label, 0.0), plain.view(2, 3))


def test_the_prompt_is_given_and_not_learnt():
    _, model, head = made("imagebert")
    views = Views(model, batch_of("imagebert", model))
    text = head.prompted(views.batch.text["clean"])
    told = [ids[there].tolist() for ids, there in zip(text.ids, text.mask, strict=True)]
    words = tokenizer()
    prompt = [words.cls, *words.split("a")]
    captions = views.batch.text["clean"]
    for row, ids in enumerate(told):
        assert ids == [*prompt, *captions.ids[row][captions.mask[row]].tolist()[1:]] and ids[-1] == words.sep
    # captions that came without [SEP] are the same
    bare = head.prompted(batch_of("imagebert", model, end_token=False).text["clean"])
    assert [ids[there].tolist() for ids, there in zip(bare.ids, bare.mask, strict=True)] == told
    # where there is no room for all of it, a caption loses its end and keeps its [SEP]
    short = head.prompted(captions.map(lambda tensor: tensor[:, :5]))
    assert short.ids.tolist() == [[*ids[:4], words.sep] for ids in told] and short.mask.all()
    with pytest.raises(UserError, match="the prompt takes 2 of them"):
        head.prompted(captions.map(lambda tensor: tensor[:, :3]))
    # the loss is the mean over words and ends, each read where the word before it stands
    with torch.no_grad():
        hidden = model.decode(views.image(), text)
        logits = head.words.logits(hidden[:, :-1], model.token_embedding.weight)
        losses = smoothed_cross_entropy(logits, text.ids[:, 1:], 0.1)
        counted = text.mask[:, 1:].clone()
        counted[:, : len(prompt) - 1] = False
        assert head(views).value.item() == pytest.approx(losses[counted].mean().item(), rel=1e-5)


def test_what_was_learnt_before_is_taken_over():
    _, model, head = made("imagebert")
    words = MLM(MLM.Config(), model)
    torch.nn.init.normal_(words.bias)
    assert set(head.adopt(model, {"mlm": words.state_dict()})) == {"dense", "norm", "bias"}
    assert torch.equal(head.words.bias, words.bias)
    other = CaptionHead(CaptionHead.Config(), model, tokenizer())
    assert other.adopt(model, {"captioning": head.state_dict(), "mlm": {}}) == ["words"]
    assert torch.equal(other.words.bias, words.bias)


def test_models_that_do_not_write_and_prompts_without_room_are_refused():
    _, model, head = made("imagebert")

    class Reader(type(model)):
        begin = VisionLanguageModel.begin

    model.__class__ = Reader
    with pytest.raises(UserError, match="Reader has no `begin`"):
        CaptionHead(CaptionHead.Config(), model, tokenizer())
    with pytest.raises(UserError, match=r"max_length is 2, of which the prompt takes 2"):
        model.__class__ = Reader.__mro__[1]
        image, _ = image_and_text("imagebert", model, head)
        head.write(model, model.begin(image), replace(DECODING, max_length=2))


def test_rewards_are_cider_of_what_was_drawn_and_of_the_greedy_caption():
    critic = SelfCritical(SelfCritical.Config(num_samples=2), tokenizer())
    told = [["a red circle .", "a circle is red"], ["two blue stars"]]
    drawn = ["a red circle", "a green house", "two blue stars", "stars"]
    reward, baseline = critic.rewards(drawn, ["a red circle", "two"], told)
    assert reward.shape == baseline.shape == (4,)
    assert baseline[0] == baseline[1] == reward[0] > reward[1]
    assert reward[2] == pytest.approx(10) and reward[2] > reward[3] > 0
    assert critic.rewards(["a", "b"], ["a"], [[]])[0].tolist() == [0, 0]


def test_how_rare_words_are_is_told_by_a_corpus(monkeypatch):
    """The references of a batch of one image tell nothing of it."""
    monkeypatch.setattr(scst, "Shards", lambda path, split, images: {"train": scenes()}[split])
    critic = SelfCritical(SelfCritical.Config(corpus="data"), tokenizer())
    assert critic.frequency.images == 8
    alone = SelfCritical(SelfCritical.Config(), tokenizer())
    drawn, told = [scenes()[0].captions[0].lower()], [[scenes()[0].captions[0].lower()]]
    assert critic.rewards(drawn, drawn, told)[0] == pytest.approx(10, rel=0.3)
    assert alone.rewards(drawn, drawn, told)[0] == 0


def early_words(text):
    """The share of words from the first half of the alphabet."""
    words = text.split()
    return sum(word[0] < "m" for word in words) / max(1, len(words))


@every_family
def test_what_is_rewarded_becomes_likelier(family, monkeypatch):
    _, model, head = made(family, scst=SelfCritical.Config(num_samples=16, num_references=2, max_length=5))
    batch, heard = batch_of(family, model, num_references=2), []

    def rewards(drawn, greedy, told):
        assert told == [[tokenizer().decode(tokenizer().split(text)) for text in r.captions[:2]] for r in scenes()[:4]]
        reward = torch.tensor([early_words(text) for text in drawn])
        heard.append(reward.mean().item())
        return reward, torch.tensor([early_words(text) for text in greedy]).repeat_interleave(16)

    monkeypatch.setattr(head.critic, "rewards", rewards)
    learn(Learner(model, {"captioning": head}).train(), batch, 15, lr=1e-2)
    assert model.training and head.training
    assert heard[0] < 0.7 < 0.74 < sum(heard[-3:]) / 3


@every_family
def test_a_drawn_caption_is_learnt_as_it_was_drawn(family, monkeypatch):
    """Read at once, its words are as likely as they were when each was drawn; an end that was put there is not one."""
    _, model, head = made(family, scst=SelfCritical.Config(num_samples=8, max_length=9))
    head.words.bias.data[tokenizer().sep] += 4  # some captions end before they are as long as they may be
    views = Views(model, batch_of(family, model, num_references=1))
    drawn, greedy = head.drawn(views, head.critic.config)
    assert drawn.ids.shape == (32, 9) and greedy.ids.shape == (4, 9) and 3 < drawn.ended.sum() < 30
    monkeypatch.setattr(head, "drawn", lambda views, config: (drawn, greedy))
    for row in torch.arange(32)[drawn.ended][:4]:
        reward = torch.zeros(32).index_fill(0, row, 32.0)
        monkeypatch.setattr(head.critic, "rewards", lambda *texts, reward=reward: (reward, torch.zeros(32)))
        assert head(views).value.item() == pytest.approx(-drawn.score[row].item(), rel=1e-4)


def test_text_ends_with_its_first_end():
    ids = torch.tensor([[5, 6, 3, 0, 3], [5, 6, 7, 8, 9]])
    assert until_end(ids, 3).int().tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
