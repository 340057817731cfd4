"""What tasks read: one ask of each image, with its truth, in tensors."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from crossgrain.config import UserError
from crossgrain.data.asks import Reading, choice_items, choice_words, object_rows, overlaps, question_words
from crossgrain.data.images import ImageConfig
from crossgrain.data.loader import Source, batches
from crossgrain.data.pairs import RegionsConfig
from crossgrain.data.partners import Partners
from crossgrain.data.records import Record, Region
from crossgrain.data.regions import RegionFeatures
from crossgrain.data.samples import Recipe
from crossgrain.data.shards import Shards
from crossgrain.data.task_samples import make_task_sample
from crossgrain.data.text import TextConfig, Tokenizer
from tiny_runs import draw_scenes, invent_regions


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """48 scenes with regions."""
    return invent_regions(draw_scenes(tmp_path_factory.mktemp("scenes"), size=48))


@pytest.fixture(scope="module")
def read(scenes):
    """Reads one batch of a kind of source of tiny scenes."""
    tokenizer = Tokenizer.load(scenes / "vocab.txt")
    text = TextConfig(vocab=str(scenes / "vocab.txt"), max_tokens=32, end_token=True)

    def first(texts, *, reads="pixels", seed=0, **values):
        reading = Reading(tokenizer=tokenizer, text=text, **values)
        image = ImageConfig(size=32, rand_augment=None)
        regions = RegionsConfig(max_regions=4, whole_image=reads == "regions")
        recipe = Recipe(
            image=image,
            text=text,
            tokenizer=tokenizer,
            regions=regions,
            reads=reads,
            want_masked=False,
            reading=reading,
        )
        sources = [Source(path=str(scenes), texts=texts, batch_size=6)]
        return next(batches(sources, recipe, seed=seed, first_step=0, last_step=1, num_workers=0))[0][0], recipe

    return first


@pytest.mark.parametrize("reads", ["pixels", "regions"])
@pytest.mark.parametrize(("texts", "rows"), [("questions", 1), ("pairs", 2), ("choices", 4), ("expressions", 1)])
def test_rows_targets_and_images_of_every_task(read, texts, rows, reads):
    batch, _ = read(texts, reads=reads, answers={"yes": 0, "no": 1})
    image = batch.image["clean"]
    assert len(batch.text["clean"].ids) == len(image.image) == len(batch.group) == 6 * rows
    assert set(batch.targets) == {texts}
    if texts == "pairs":
        assert image.image.tolist() == list(range(12))
        assert torch.equal(batch.text["clean"].ids[::2], batch.text["clean"].ids[1::2])
    else:
        assert image.image.tolist() == [sample for sample in range(6) for _ in range(rows)]
    hidden = batch.blind().image["clean"]
    seen = hidden.pixels if reads == "pixels" else hidden.features
    assert (seen == seen.flatten()[0]).all()
    if texts == "expressions":
        box = batch.targets[texts].box
        assert ((box[:, :2] < box[:, 2:]).all()) and batch.targets[texts].overlap.shape == (6, 5 * (reads == "regions"))


def test_a_batch_is_a_function_of_the_seed(read):
    (one, _), (again, _), (other, _) = (read("questions", seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one.text["clean"].ids, again.text["clean"].ids)
    assert not torch.equal(one.text["clean"].ids, other.text["clean"].ids)


def test_answers_carry_scores_shares_and_their_tokens(read, scenes):
    batch, recipe = read("questions", answers={"yes": 0, "no": 1})
    answers, tokenizer = batch.targets["questions"], recipe.tokenizer
    assert answers.weight.sum(1).allclose(torch.ones(6))
    assert (answers.score.max(1).values > 0.85).all()  # at least seven of ten agree
    assert (answers.ids[answers.mask.any(-1)][:, 0] == tokenizer.cls).all()
    words = [tokenizer.decode(ids.tolist()) for ids in answers.ids[:, 0]]
    for row, word in enumerate(words):
        if word in ("yes", "no"):
            assert answers.index[row, 0] == ("yes", "no").index(word)


def test_a_question_may_be_followed_by_a_place_for_its_answer(read):
    batch, recipe = read("questions", answer_slot=True)
    text, tokenizer = batch.text["clean"], recipe.tokenizer
    last = text.mask.sum(1) - 1
    assert (text.ids.gather(1, last[:, None]) == tokenizer.sep).all()
    assert (text.ids.gather(1, last[:, None] - 1) == tokenizer.mask).all()
    assert (text.segment.sum(1) == 2).all()


def test_tags_point_at_the_regions_of_their_objects(scenes):
    tokenizer = Tokenizer.load(scenes / "vocab.txt")
    text = TextConfig(vocab=str(scenes / "vocab.txt"), max_tokens=12)
    reading = Reading(tokenizer=tokenizer, text=text, tags=True, segments=True)
    words = choice_words(["what", "is", [1], "?"], ["a", [0, 1]], ["star", "house"], [-1, 3], reading)
    assert words.tags is not None and words.segments is not None
    told = [tokenizer.tokens[i] for i in words.ids]
    assert [tag for token, tag in zip(told, words.tags, strict=True) if token == "house"] == [3, 3]
    assert [tag for token, tag in zip(told, words.tags, strict=True) if token != "house"] == [-1] * (len(told) - 2)
    assert sum(words.segments) == len(told) - told.index("[SEP]") - 1
    short = replace(reading, text=replace(text, max_tokens=7))
    assert len(choice_words(["what", "is", [1], "?"], ["a", [0, 1]], ["star", "house"], [-1, 3], short).ids) == 7


def test_objects_are_shown_by_the_region_that_overlaps_them_most():
    boxes = [(0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0), (0.0, 0.6, 0.1, 0.7)]
    record = Record(key="a", image=b"", regions=tuple(Region(box=box, label="x") for box in boxes))
    found = np.array([[0.5, 0.5, 0.95, 1.0], [0.0, 0.0, 0.5, 0.45]])
    detected = RegionFeatures.of(found, np.zeros((2, 3)), [0, 1], [0.9, 0.8])
    assert object_rows(record, detected, first=1) == [2, 1, -1]
    assert overlaps(found, found).diagonal().tolist() == pytest.approx([1.0, 1.0])
    assert object_rows(record, None, first=0) == [-1, -1, -1]


def test_a_rationale_follows_the_question_with_its_answer(scenes):
    record = next(record for record in Shards(scenes, "train") if record.extra["choices"])
    item = record.extra["choices"][0]
    both = choice_items(record, "both")
    assert [kind for _, kind, *_ in both[:2]] == ["answer", "rationale"]
    assert both[1][2] == [*item["question"], *item["answer_choices"][item["answer_label"]]]
    assert [kind for _, kind, *_ in choice_items(record, "rationale")] == ["rationale"] * len(record.extra["choices"])


def test_a_missing_partner_and_a_record_without_asks_are_named(read, scenes):
    records = Shards(scenes, "train")
    with pytest.raises(UserError, match="'nobody'"):
        Partners(records).record("nobody")
    key = records[5].key
    assert Partners(records).record(key).key == key
    _, recipe = read("questions")
    bare = replace(records[0], extra={})
    with pytest.raises(UserError, match=f"{bare.key!r} has no pairs"):
        make_task_sample(bare, "pairs", recipe, np.random.default_rng(0), Partners(records).record)


def test_a_question_or_answer_that_names_a_side_keeps_its_image(read, scenes):
    _, recipe = read("questions")
    flips = replace(recipe, image=replace(recipe.image, flip=1.0, crop_scale=(1.0, 1.0)))
    record = Shards(scenes, "train")[0]
    shown = {}
    asks = (("Is the star left of it?", "yes"), ("On which side is the star?", "left"), ("Is there a star?", "yes"))
    for text, answer in asks:
        asked = replace(record, extra={"questions": [{"question": text, "answers": ["it", answer]}]})
        shown[text] = make_task_sample(asked, "questions", flips, np.random.default_rng(0), str).pixels
    kept, kept_too, mirrored = shown.values()
    assert np.array_equal(kept, kept_too)
    assert np.array_equal(kept[:, :, ::-1], mirrored) and not np.array_equal(kept, mirrored)


def test_questions_are_cut_to_the_length_of_a_row(read):
    _, recipe = read("questions")
    assert recipe.reading is not None
    for slot in (False, True):
        words = question_words("star " * 99, replace(recipe.reading, answer_slot=slot))
        assert len(words.ids) == recipe.text.max_tokens
