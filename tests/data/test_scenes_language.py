import re
from itertools import combinations

import pytest
from reading_scenes import COLOURS, KINDS, NOUN, PLURALS, described, fits, noun_of

from crossgrain.data.scenes import make_scene, scene_record
from crossgrain.data.scenes.captions import captions
from crossgrain.data.scenes.phrases import expressions, region_phrases
from crossgrain.data.scenes.words import BACKGROUND_PHRASES, NUMBERS, with_article
from crossgrain.data.scenes.world import SPLITS, Dice

NUM_SCENES = 60


@pytest.fixture(scope="module")
def records():
    return [scene_record(0, "val", index, image_size=32) for index in range(NUM_SCENES)]


def told(split, index, seed=0):
    scene = make_scene(seed, split, index)
    return scene, captions(scene, Dice(seed, SPLITS.index(split), index, 2))


def test_every_scene_has_five_different_captions_that_are_true():
    for split in SPLITS:
        for index in range(25):
            scene, said = told(split, index)
            assert len({caption.text for caption in said}) == 5
            assert all(caption.claims and caption.holds(scene) for caption in said)


def test_every_thing_that_a_caption_names_is_in_the_picture_as_often_as_it_says(records):
    numbers = {word: count for count, word in enumerate(NUMBERS)}
    for record in records:
        for caption in record.captions:
            for match in NOUN.finditer(caption.lower()):
                fitting = sum(fits(noun_of(match), region) for region in record.regions)
                before = caption.lower()[: match.start()].split()[-1:]
                if before == ["other"]:
                    fitting, before = fitting - 1, caption.lower()[: match.start()].split()[-2:-1]
                count = numbers.get(before[0], 1) if before else 1
                assert fitting == count if count > 1 else fitting >= 1, (caption, match[0])


def test_captions_differ_in_what_they_mention(records):
    mentioned = [{len(list(NOUN.finditer(caption.lower()))) for caption in record.captions} for record in records]
    assert sum(len(numbers) > 1 for numbers in mentioned) > 0.75 * len(records)


def test_the_first_caption_is_true_of_one_scene_in_the_gallery_only():
    gallery = [told("test", index) for index in range(60)]
    unique = sum(sum(said[0].holds(scene) for scene, _ in gallery) == 1 for _, said in gallery)
    assert unique >= 0.95 * len(gallery)


def test_most_captions_fit_few_other_scenes():
    gallery = [told("test", index, seed=3) for index in range(60)]
    for number in range(1, 5):
        unique = sum(sum(said[number].holds(scene) for scene, _ in gallery) == 1 for _, said in gallery)
        assert unique >= 0.85 * len(gallery)


def test_region_phrases_are_true_of_their_region_alone(records):
    related = 0
    for record in records:
        for index, region in enumerate(record.regions):
            assert 1 <= len(region.phrases) == len(set(region.phrases)) <= 5
            related += any(re.search(r" (left|right) ", phrase) for phrase in region.phrases)
            for phrase in region.phrases:
                assert described(phrase, record.regions) == [index], phrase
    assert related > 35


def test_expressions_single_out_one_object(records):
    extremes = {"left": 0, "top": 1, "high": 1, "right": 2, "bottom": 3, "low": 3}
    for record in records:
        assert record.extra["expressions"]
        for expression in record.extra["expressions"]:
            text, index = expression["text"], expression["index"]
            found = described(text, record.regions)
            outermost = re.match(r"the (left|right|top|bottom|high|low)(?:e?st|most|est)\b", text)
            if outermost:
                side = extremes[outermost[1]]
                best = min if side < 2 else max
                found = [
                    best(found, key=lambda i: record.regions[i].box[side % 2] + record.regions[i].box[side % 2 + 2])
                ]
            assert found == [index], text


def test_descriptions_know_what_they_single_out():
    for index in range(30):
        scene = make_scene(4, "train", index)
        for thing in range(len(scene.things)):
            dice = Dice(index, thing)
            assert all(thing in phrase.what.among(scene) for phrase in region_phrases(scene, thing, dice))
            assert all(phrase.what.among(scene) == [thing] for phrase in expressions(scene, thing, dice))


def test_left_and_right_name_sides_only(records):
    texts = [text for record in records for text in record.captions]
    texts += [phrase for record in records for region in record.regions for phrase in region.phrases]
    for text in texts:
        for match in re.finditer(r"\b(left|right)\b", text):
            after = text[match.end() :]
            assert re.match(r" of\b| side of\b| corner| edge|\.|,| there|$| (on|in|above|by) ", after), text


def test_the_language_has_synonyms_and_at_least_200_words(records):
    texts = [text for record in records for text in record.captions]
    texts += [phrase for record in records for region in record.regions for phrase in region.phrases]
    texts += [question["question"] for record in records for question in record.extra["questions"]]
    spoken = {word for text in texts for word in re.findall(r"[a-z-]+", text.lower())}
    assert len(spoken) >= 200
    assert set(COLOURS) | {word for word in KINDS if " " not in word} <= spoken | set(PLURALS)


def test_articles_and_numbers_agree_with_their_nouns(records):
    texts = [text for record in records for text in record.captions]
    texts += [question["question"] for record in records for question in record.extra["questions"]]
    texts += [pair["statement"] for record in records for pair in record.extra["pairs"]]
    for text in texts:
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|\s\s|\s[.,?]| {|}", text, re.IGNORECASE), text
        assert re.fullmatch(r"[A-Z].*[.?]", text), text
        for match in NOUN.finditer(text.lower()):
            before = text.lower()[: match.start()].split()[-1:]
            singular_kind = match["head"] in KINDS and match["head"] != "fish"
            assert not (before and before[0] in NUMBERS[2:] and singular_kind), text
    assert with_article("orange cat") == "an orange cat" and with_article("red cat") == "a red cat"


def test_synonyms_never_name_two_values():
    for a, b in combinations(BACKGROUND_PHRASES.values(), 2):
        assert not set(a) & set(b)
    assert len(KINDS) == len(set(KINDS)) and not set(KINDS) & set(COLOURS)
