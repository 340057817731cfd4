import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from reading_scenes import NOUN, RELATION, RELATIONS, described, fits, noun_of, stands

from crossgrain.data.records import record_from_json, record_to_json
from crossgrain.data.scenes import make_scene, page, scene_record
from crossgrain.data.scenes.choices import FACTS, choices
from crossgrain.data.scenes.words import NUMBERS
from crossgrain.data.scenes.world import KINDS, Dice

NUM_SCENES = 60


@pytest.fixture(scope="module")
def records():
    return {f"test_{index:06d}": scene_record(0, "test", index, image_size=32) for index in range(NUM_SCENES)}


def asked(records, kind):
    for record in records.values():
        for question in record.extra["questions"]:
            if question["type"] == kind:
                yield record, question["question"], Counter(question["answers"]).most_common(1)[0][0]


def test_every_question_has_ten_answers_that_mostly_agree(records):
    questions = [question for record in records.values() for question in record.extra["questions"]]
    assert {question["type"] for question in questions} == {"count", "colour", "existence", "comparison", "relation"}
    agreement = [Counter(question["answers"]).most_common(1)[0][1] for question in questions]
    assert all(len(question["answers"]) == 10 for question in questions)
    assert min(agreement) >= 7 and 0.3 < sum(most < 10 for most in agreement) / len(agreement) < 0.7


def test_counts_and_existence_are_answered_as_the_regions_say(records):
    for record, question, answer in asked(records, "count"):
        assert int(answer) == len(described(question, record.regions)), question
    answers = []
    for record, question, answer in asked(records, "existence"):
        assert answer == ("yes" if described(question, record.regions) else "no"), question
        answers.append(answer)
    assert 0.35 < answers.count("yes") / len(answers) < 0.65


def test_colours_are_answered_as_the_regions_say(records):
    for record, question, answer in asked(records, "colour"):
        (index,) = described(question, record.regions)
        assert answer == record.regions[index].attributes[2], question


def test_relations_are_answered_as_the_boxes_say(records):
    for record, question, answer in asked(records, "relation"):
        relation = RELATION.search(question)
        landmark = NOUN.match(question, relation.end())
        others = [i for i, region in enumerate(record.regions) if fits(noun_of(landmark), region)]
        name = RELATIONS[relation["relation"]]
        head = NOUN.search(question[: relation.start()])
        if head is None:
            found = {
                i for i in range(len(record.regions)) for j in others if i != j and stands(name, i, j, record.regions)
            }
            assert [record.regions[i].label for i in found] == [answer], question
            continue
        firsts = [i for i, region in enumerate(record.regions) if fits(noun_of(head), region)]
        true = any(i != j and stands(name, i, j, record.regions) for i in firsts for j in others)
        assert answer == ("yes" if true else "no"), question


def test_comparisons_are_answered_as_the_attributes_say(records):
    sizes = ("small", "medium", "large")
    position = {"color": 2, "size": 0, "pattern": 1}
    for record, question, answer in asked(records, "comparison"):
        first, second = (noun_of(match) for match in list(NOUN.finditer(question))[:2])
        a, b = ([region for region in record.regions if fits(noun, region)] for noun in (first, second))
        if question.startswith("Is "):
            true = sizes.index(a[0].attributes[0]) > sizes.index(b[0].attributes[0])
        elif question.startswith("Are there more"):
            true = len(a) > len(b)
        elif question.endswith("shape?"):
            true = a[0].label == b[0].label
        else:
            at = position[question.rstrip("?").split()[-1]]
            true = a[0].attributes[at] == b[0].attributes[at]
        assert answer == ("yes" if true else "no"), question


def true_choice(tokens, regions):
    """Whether a choice is true of the regions, read from its tokens."""
    tags = [token[0] for token in tokens if isinstance(token, list)]
    text = " ".join("#" if isinstance(token, list) else token for token in tokens)
    fact = re.fullmatch(r"# (.+) , and it is (\w+) \.", text)
    if fact:
        (kind,) = (kind for kind in KINDS if FACTS[kind] == fact[1])
        return regions[tags[0]].label == kind and regions[tags[0]].attributes[2] == fact[2]
    direction = re.fullmatch(r"#(?: , (an? .+) ,)? is (?:to the )?(left of|right of|above|below) # \.", text)
    if direction:
        described_well = not direction[1] or fits(noun_of(NOUN.search(direction[1])), regions[tags[0]])
        return described_well and stands(direction[2], *tags, regions, apart=0.1)
    nouns = [noun_of(match) for match in NOUN.finditer(text)]
    return all(fits(noun, regions[tag]) for noun, tag in zip(nouns, tags, strict=True))


def test_of_four_choices_exactly_one_is_true_and_it_is_the_labelled_one(records):
    labels = Counter()
    for record in records.values():
        assert record.extra["choices"]
        for item in record.extra["choices"]:
            assert item["objects"] == [region.label for region in record.regions]
            for part in ("answer", "rationale"):
                choices, label = item[f"{part}_choices"], item[f"{part}_label"]
                assert len({str(choice) for choice in choices}) == 4
                if "common" not in item["question"] or part == "rationale":
                    judged = [true_choice(choice, record.regions) for choice in choices]
                    assert judged == [i == label for i in range(4)], item
                labels[label] += 1
    assert max(labels.values()) < 0.4 * sum(labels.values())


def test_choices_do_not_tell_among_themselves_which_is_true():
    right, answers = Counter(), Counter()
    for index in range(400):
        for item in choices(make_scene(3, "train", index), Dice(3, 0, index)):
            for part in ("answer", "rationale"):
                words = [Counter(map(str, choice)) for choice in item[f"{part}_choices"]]
                shared = [sum((one & other).total() for other in words) / one.total() for one in words]
                guessed = [i for i, number in enumerate(shared) if number == max(shared)]
                right[part] += (item[f"{part}_label"] in guessed) / len(guessed)
                right[f"all {part}"] += 1
            if "common" in item["question"]:
                answers[" ".join(item["answer_choices"][item["answer_label"]])] += 1
    for part in ("answer", "rationale"):
        assert 0.2 < right[part] / right[f"all {part}"] < 0.3
    assert max(answers.values()) < 0.45 * answers.total()


def test_what_two_objects_have_in_common_is_read_from_their_attributes(records):
    seen = 0
    for record in records.values():
        for item in record.extra["choices"]:
            if "common" in item["question"]:
                i, j = (token[0] for token in item["question"] if isinstance(token, list))
                a, b = record.regions[i], record.regions[j]
                names = ("size", "pattern", "color", "shape")
                shared = [
                    n
                    for n, x, y in zip(names, (*a.attributes, a.label), (*b.attributes, b.label), strict=True)
                    if x == y
                ]
                answer = " ".join(item["answer_choices"][item["answer_label"]])
                assert answer == (f"They have the same {shared[0]} ." if shared else "They have nothing in common .")
                seen += 1
    assert seen > 10


def judge(statement, first, second):
    """Whether a statement is true of two records, read from its words."""
    text = statement.lower().rstrip(".")
    a, b = (len(described(text, record.regions)) for record in (first, second))
    if text.startswith("both images show"):
        return a > 0 and b > 0
    if text.startswith(("only one", "exactly one")):
        return (a > 0) != (b > 0)
    if text.startswith(("neither", "there are no")):
        return a == 0 and b == 0
    if text.startswith("there"):
        return a + b == NUMBERS.index(text.split()[3])
    return a > b if " more " in text else a == b


def test_pairs_name_earlier_scenes_of_their_split_and_are_labelled_rightly(records):
    labels = Counter()
    for key, record in records.items():
        balance = Counter()
        for pair in record.extra["pairs"]:
            assert pair["partner"] in records and pair["partner"] < key
            assert judge(pair["statement"], record, records[pair["partner"]]) == pair["label"], pair
            labels[pair["label"]] += 1
            balance[pair["statement"]] += 1 if pair["label"] else -1
        assert not any(balance.values())  # each statement is true once and false once
    assert labels[True] == labels[False] > NUM_SCENES


class Images(HTMLParser):
    """The pictures of a page with their words, and the text of its captions."""

    def __init__(self, text):
        super().__init__()
        self.images, self.caption, self._inside = {}, "", False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self._inside = tag == "figcaption"
        if tag == "img":
            self.images[values["src"]] = values

    def handle_endtag(self, tag):
        self._inside = False

    def handle_data(self, data):
        self.caption += data if self._inside else ""


def test_a_page_shows_the_picture_with_a_caption_among_noise(records):
    places = Counter()
    for record in list(records.values())[:60]:
        text = page(record)
        assert text == page(record)
        read = Images(text)
        picture = read.images[f"{record.key}.jpg"]
        said = {"alt": picture["alt"], "figcaption": read.caption, "title": picture.get("title")}
        found = [place for place, words in said.items() if words in record.captions]
        assert "alt" in found or "figcaption" in found
        places.update(found or ["none"])
        assert len(read.images) >= 7 and re.search(r'lang="(de|fr|es|zh|ru)"', text) and "<nav>" in text
    assert all(5 < places[place] < 60 for place in ("alt", "figcaption", "title"))


def test_a_page_escapes_what_captions_contain(records):
    record = replace(records["test_000000"], captions=tuple(f'<b>"{i}" & more</b>' for i in range(5)))
    text = page(record, "pictures/a b.jpg?x=1&y=2")
    assert "<b>" not in text
    assert "pictures/a b.jpg?x=1&amp;y=2" in text and "pictures/a b.jpg?x=1&y=2" in Images(text).images


def test_records_survive_the_way_to_disk_and_back(records):
    for record in records.values():
        back = record_from_json(json.loads(json.dumps(record_to_json(record))), record.image)
        assert (back.key, back.captions, back.extra) == (record.key, record.captions, record.extra)
        assert [region.phrases for region in back.regions] == [region.phrases for region in record.regions]


def test_material_is_the_same_wherever_it_is_made(records):
    make_scene.cache_clear()
    assert scene_record(0, "test", 50, image_size=32) == records["test_000050"]
