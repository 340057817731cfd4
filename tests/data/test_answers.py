import json

import pytest

from crossgrain.config import UserError
from crossgrain.data.answers import AnswerVocabulary, build_answers, load_answers
from crossgrain.data.records import Record


def record(key, *asked):
    return Record(key=key, image=b"", extra={"questions": [{"question": "what?", **item} for item in asked]})


def test_an_answer_counts_once_for_each_question_that_it_is_the_most_frequent_one_of():
    pets = [{"answers": ["A dog.", "dog", "cat"]}, {"answers": ["cat", "cat", "dog", "dog"]}]  # tie: cat comes first
    numbers = [{"answers": ["Two"] * 3}, {"answers": ["2", "two", "3"]}, {"answers": ["2"]}]
    data = [[record("a", *pets), record("b", {"answers": []}, {})], [record("c", *numbers)]]
    assert build_answers(data, min_count=1).names == ("2", "cat", "dog")
    assert build_answers(data, min_count=2).names == ("2",)
    assert build_answers(data, min_count=1, max_answers=2).names == ("2", "cat")
    with pytest.raises(UserError, match="most frequent one of 4 questions: the best one is of 3"):
        build_answers(data, min_count=4)


def test_nothing_to_choose_from_is_said():
    with pytest.raises(UserError, match="no questions with answers"):
        build_answers([[record("a", {"answers": ["the"]}), Record(key="b", image=b"")]])


def test_places_are_found_by_the_normalised_answer():
    answers = AnswerVocabulary(["dog", "Two dogs!", "2 dogs", "cat"])
    assert dict(answers) == {"dog": 0, "2 dogs": 1, "cat": 3} and answers.names[2] == "2 dogs"
    assert [answers.place(text) for text in ("The dog.", "two dogs", "bird")] == [0, 1, -1]
    assert AnswerVocabulary.of({"b": 1, "a": 0}).names == ("a", "b")
    assert AnswerVocabulary.of(answers) is answers


def test_a_file_gives_the_same_places(tmp_path):
    answers = AnswerVocabulary(["yes", "no", "table tennis"])
    answers.save(tmp_path / "answers.txt")
    assert (tmp_path / "answers.txt").read_text() == "yes\nno\ntable tennis\n"
    assert load_answers(tmp_path / "answers.txt").names == answers.names
    assert [file.name for file in tmp_path.iterdir()] == ["answers.txt"]


def test_files_of_the_originals_are_read(tmp_path):
    (tmp_path / "answer_list.json").write_text(json.dumps(["yes", "table tennis"]))
    assert dict(load_answers(tmp_path / "answer_list.json")) == {"yes": 0, "table tennis": 1}
    (tmp_path / "answers_vqa.txt").write_text("<unk>\r\nyes\r\nno\r\n\r\n")
    read = load_answers(tmp_path / "answers_vqa.txt")
    assert dict(read) == {"yes": 1, "no": 2} and read.names[0] == "<unk>"


@pytest.mark.parametrize("name, text", [("a.json", "{"), ("b.json", '{"yes": 0}'), ("c.json", "[1]"), ("d.txt", "\n")])
def test_a_file_without_answers_is_named(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=name):
        load_answers(tmp_path / name)
    with pytest.raises(UserError, match="no file of answers"):
        load_answers(tmp_path / "missing.txt")
