"""Data sets that ask: the official layouts in small with each mistake that they can hold, and true samples."""

import json
from pathlib import Path

import pytest
from layouts import found, jpeg, put, reasons

from crossgrain.config import UserError
from crossgrain.data import prepare
from crossgrain.data.sets import gathered
from crossgrain.data.sets.questions import question_of, split_in_name
from crossgrain.data.shards import Shards


def questions(record):
    return record.extra["questions"]


def write(file: Path, tree, **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(tree, **options))


def vqa_answers(*answers):
    return [{"answer": answer, "answer_confidence": "yes", "answer_id": i + 1} for i, answer in enumerate(answers)]


def vqa_files(root):
    """Both training files, with the mistakes; a test split without answers."""
    put(root / "train2014", "COCO_train2014_000000000009.jpg", "COCO_train2014_000000000025.jpg")
    put(root / "test2015", "COCO_test2015_000000000001.jpg")
    asked = [
        {"image_id": 9, "question": "What is  it?", "question_id": 9000},
        {"image_id": 25, "question": "How many?", "question_id": 25000},
        {"image_id": 9, "question": "Is it red?", "question_id": 9001},
        {"image_id": 9, "question": " ", "question_id": 9002},
        {"image_id": 9, "question": "No one answered?", "question_id": 9003},
        {"image_id": 9, "question": "Twice?", "question_id": 9000},
        {"image_id": "../9", "question": "Where?", "question_id": 9004},
        {"image_id": 7, "question": "Missing?", "question_id": 7000},
        5,
        {"image_id": 9, "question": "All bad?", "question_id": 9005},
    ]
    head = {"info": {"version": "2.0"}, "task_type": "Open-Ended", "data_subtype": "train2014"}
    write(root / "v2_OpenEnded_mscoco_train2014_questions.json", {**head, "questions": asked}, indent=1)
    told = [
        {"question_id": 9000, "answers": vqa_answers(*["net"] * 9, "Mesh"), "question_type": "what is"},
        {"question_id": 25000, "answers": vqa_answers("2"), "answer_type": "number", "question_type": "how many"},
        {"question_id": 9001, "answers": vqa_answers("yes", "", 3), "answer_type": "yes/no"},
        {"question_id": 9002, "answers": vqa_answers("x")},
        {"question_id": 9005, "answers": []},
        {"question_id": 9000, "answers": vqa_answers("again")},
        {"question_id": 7000, "answers": vqa_answers("x")},
        {"question_id": 404, "answers": vqa_answers("x")},
        {"answers": vqa_answers("x")},
    ]
    write(root / "v2_mscoco_train2014_annotations.json", {**head, "annotations": told})
    test = [{"image_id": 1, "question": "What?", "question_id": 1000}]
    write(root / "v2_OpenEnded_mscoco_test2015_questions.json", {"questions": test})
    write(root / "v2_OpenEnded_mscoco_test-dev2015_questions.json", {"questions": test})


def test_vqa_joins_questions_and_answers_by_image_and_names_every_mistake(tmp_path):
    vqa_files(tmp_path)
    records, drops = found("vqa", tmp_path)
    assert {key: record.split for key, record in records.items()} == {
        "COCO_train2014_000000000009": "train",
        "COCO_train2014_000000000025": "train",
        "COCO_test2015_000000000001": "test",
    }
    assert questions(records["COCO_train2014_000000000009"]) == [
        {"question": "What is it?", "answers": ["net"] * 9 + ["Mesh"], "id": 9000, "question_type": "what is"},
        {"question": "Is it red?", "answers": ["yes", "", ""], "id": 9001, "type": "yes/no"},
    ]
    assert questions(records["COCO_test2015_000000000001"]) == [{"question": "What?", "id": 1000}]
    assert reasons(drops) == {
        "empty question": 1,
        "malformed answer": 1,
        "no answer": 2,
        "duplicate question id": 2,
        "malformed entry": 3,
        "image missing": 1,
        "answers without a question": 1,
    }
    where = {(drop.reason, drop.where) for drop in drops}
    asked, told = "v2_OpenEnded_mscoco_train2014_questions.json", "v2_mscoco_train2014_annotations.json"
    assert ("empty question", f"{asked}:23 questions[3]") in where
    assert ("answers without a question", f"{told}:1 annotations[7]") in where
    assert ("image missing", f"{asked}:43 questions[7]") in where


def test_vqa_reads_the_part_of_the_test_split_that_is_asked_for(tmp_path):
    vqa_files(tmp_path)
    records, drops = found("vqa", tmp_path, split="test-dev")
    assert [(record.key, record.split) for record in records.values()] == [("COCO_test2015_000000000001", "test-dev")]
    assert not drops


def test_vqa_without_any_answers_is_read_as_questions_alone(tmp_path):
    vqa_files(tmp_path)
    (tmp_path / "v2_mscoco_train2014_annotations.json").unlink()
    records, _ = found("vqa", tmp_path, split="train")
    asked = questions(records["COCO_train2014_000000000009"])
    assert len(asked) == 4 and not any("answers" in one for one in asked)


def test_vqa_annotations_of_another_layout_are_one_error(tmp_path):
    vqa_files(tmp_path)
    write(tmp_path / "v2_mscoco_train2014_annotations.json", {"questions": []})
    with pytest.raises(UserError, match="has no annotations: it is no official VQA file"):
        found("vqa", tmp_path)


def test_visual_genome_qa_gives_an_entry_an_image(tmp_path):
    put(tmp_path, "VG_100K/1.jpg", "VG_100K_2/2.jpg")
    asked = {"question": "What is it?", "answer": "A cat.", "qa_id": 11, "image_id": 1, "a_objects": []}
    entries = [
        {"id": 1, "qas": [asked, {**asked, "qa_id": 12, "answer": None}, 7, {**asked, "question": 3}]},
        {"image_id": 2, "qas": [{**asked, "qa_id": 21}]},
        {"id": 3, "qas": [asked]},
        {"id": "../1", "qas": [asked]},
        {"id": 4, "qas": []},
    ]
    (tmp_path / "question_answers.json").write_text("[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]")
    records, drops = found("visual-genome-qa", tmp_path, split="train")
    assert questions(records["1"]) == [{"question": "What is it?", "answers": ["A cat."], "id": 11}]
    assert {record.split for record in records.values()} == {"train"}
    assert {(drop.reason, drop.where) for drop in drops} == {
        ("empty answer", "question_answers.json:2 [0] qas[1]"),
        ("malformed entry", "question_answers.json:2 [0] qas[2]"),
        ("malformed question", "question_answers.json:2 [0] qas[3]"),
        ("image missing", "question_answers.json:4 [2]"),
        ("malformed entry", "question_answers.json:5 [3]"),
        ("no question", "question_answers.json:6 [4]"),
    }


def gqa_question(image, **values):
    types = {"structural": "query", "semantic": "rel", "detailed": "relS"}
    return {"question": "What is it?", "answer": "cat", "imageId": image, "types": types, "isBalanced": True, **values}


def test_gqa_reads_balanced_questions_or_all_of_them_in_shards(tmp_path):
    put(tmp_path / "images", "1.jpg", "n2.jpg", "3.jpg")
    folder = tmp_path / "questions"
    write(folder / "train_balanced_questions.json", {"a": gqa_question("1")})
    write(folder / "val_balanced_questions.json", {"b": gqa_question("n2")})
    write(folder / "submission_all_questions.json", {"s": gqa_question("1")})
    hidden = gqa_question("3")
    del hidden["answer"]
    write(folder / "test_balanced_questions.json", {"c": hidden})
    for number, image in enumerate(["1", "n2", "1"] + ["3"] * 8):
        shard = {f"{number}0": gqa_question(image, question=f"Number {number}?")}
        write(folder / f"train_all_questions/train_all_questions_{number}.json", shard)
    records, drops = found("gqa", tmp_path)
    assert {key: record.split for key, record in records.items()} == {"1": "train", "n2": "val", "3": "test"}
    told = {"type": "query", "semantic_type": "rel"}
    assert questions(records["1"]) == [{"question": "What is it?", "answers": ["cat"], "id": "a", **told}]
    assert questions(records["3"]) == [{"question": "What is it?", "id": "c", **told}]
    assert not drops
    records, _ = found("gqa", tmp_path, variant="all")
    assert [one["id"] for one in questions(records["1"])] == ["00", "20"]
    assert [one["id"] for one in questions(records["3"])][-1] == "100"  # by the numbers of the files, not as text
    assert list(found("gqa", tmp_path, variant="all", split="submission")[0]) == ["1"]
    with pytest.raises(UserError, match="unknown variant 'most': choose from balanced, all"):
        found("gqa", tmp_path, variant="most")


def test_gqa_names_every_mistake(tmp_path):
    put(tmp_path, "1.jpg")
    lost = gqa_question("1")
    del lost["answer"]
    tree = {
        "00": gqa_question("1"),
        "01": 5,
        "02": gqa_question("1", answer=""),
        "03": gqa_question("../1"),
        "04": gqa_question(None),
        "05": lost,
        "0 6": gqa_question("1"),
        "07": gqa_question(1),
    }
    write(tmp_path / "train_balanced_questions.json", tree, indent=0)
    records, drops = found("gqa", tmp_path)
    assert [one["id"] for one in questions(records["1"])] == ["00", "07"]
    assert {(drop.reason, drop.where.split(" ", 1)[1]) for drop in drops} == {
        ("malformed entry", "01"),
        ("empty answer", "02"),
        ("image path leaves its folder", "03"),
        ("malformed entry", "04"),
        ("no answer", "05"),
        ("malformed question id", "0 6"),
    }
    assert "train_balanced_questions.json:13 01" in {drop.where for drop in drops}


def ve_line(image="1", label="neutral", **values):
    told = {"sentence1": "A cat.", "sentence2": "It sleeps.", "pairID": "1.jpg#0r1n"}
    return json.dumps({"Flickr30K_ID": image, "gold_label": label, **told, **values})


def test_snli_ve_makes_a_question_of_every_hypothesis(tmp_path):
    put(tmp_path / "flickr30k_images", "1.jpg", "2.jpg")
    lines = [ve_line(), ve_line(label="entailment", sentence2="An animal."), ve_line(label="-"), "{", ve_line("9")]
    lines += [ve_line("../1"), ve_line(sentence2=None), json.dumps({"gold_label": "neutral"})]
    (tmp_path / "snli_ve_dev.jsonl").write_text("\n".join(lines))
    (tmp_path / "snli_ve_train.jsonl").write_text(ve_line("2", "contradiction"))
    records, drops = found("snli-ve", tmp_path)
    assert {key: record.split for key, record in records.items()} == {"1": "val", "2": "train"}
    assert questions(records["1"]) == [
        {"question": "It sleeps.", "answers": ["neutral"], "id": "1.jpg#0r1n", "type": "entailment"},
        {"question": "An animal.", "answers": ["entailment"], "id": "1.jpg#0r1n", "type": "entailment"},
    ]
    assert {(drop.reason, drop.where) for drop in drops} == {
        ("no gold label", "snli_ve_dev.jsonl:3"),
        ("malformed line", "snli_ve_dev.jsonl:4"),
        ("image missing", "snli_ve_dev.jsonl:5"),
        ("image path leaves its folder", "snli_ve_dev.jsonl:6"),
        ("malformed question", "snli_ve_dev.jsonl:7"),
        ("malformed line", "snli_ve_dev.jsonl:8"),
    }


def test_questions_are_merged_by_image_also_when_they_went_to_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(gathered, "_IN_MEMORY", 100)
    put(tmp_path, *(f"{i}.jpg" for i in range(5)))
    tree = {str(n): gqa_question(str(n * 7 % 5), question=f"Ünusual question {n}?") for n in range(200)}
    write(tmp_path / "train_balanced_questions.json", tree)
    records, drops = found("gqa", tmp_path)
    assert list(records) == ["0", "2", "4", "1", "3"] and not drops
    for key, record in records.items():
        numbers = [n for n in range(200) if n * 7 % 5 == int(key)]
        assert [one["question"] for one in questions(record)] == [f"Ünusual question {n}?" for n in numbers]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("v2_OpenEnded_mscoco_train2014_questions.json", "train"),
        ("v2_OpenEnded_mscoco_test-dev2015_questions.json", "test-dev"),
        ("v2_OpenEnded_mscoco_test2015_questions.json", "test"),
        ("nlvr_dev.json", "val"),
        ("refcoco+_val.json", "val"),
        ("trained.json", None),
        ("vg_qa.json", None),
    ],
)
def test_a_files_name_tells_its_split(name, split):
    assert split_in_name(Path(name), "test-dev", "train", "val", "dev", "test") == split


@pytest.mark.parametrize("id", [True, 2**70, "", "a b", "x" * 200, [1], 1.5])
def test_ids_that_cannot_be_handed_in_are_refused(id):
    question, drops = question_of("What?", ["x"], "file:1", id=id)
    assert question is None and [drop.reason for drop in drops] == ["malformed question id"]


SAMPLES = {
    "vqa": ("vqav2", "vqav2", {}, {"images": 1, "questions": 3, "answers": 30}),
    "gqa": ("gqa", "gqa", {"questions": [Path("question_dir")]}, {"images": 2, "questions": 2, "answers": 2}),
    "visual-genome-qa": ("vgqa", "vgqa", {}, {"images": 2, "questions": 8, "answers": 8}),
    "snli-ve": ("visual_entailment", "visual_entailment", {}, {"images": 2, "questions": 16, "answers": 16}),
}


@pytest.mark.parametrize("source", SAMPLES)
def test_true_samples_round_trip_through_shards(shared, tmp_path, source):
    folder, images, flags, counts = SAMPLES[source]
    root, flags = shared / "formats" / folder, {**flags, "images": shared / "formats/images" / images}
    if not root.is_dir():
        pytest.skip(f"no samples of {folder}")
    report = prepare.prepare(source, root, tmp_path / "out", flags=flags, split="train", num_workers=0, vocab_size=200)
    assert report.counts_by_split == {"train": counts} and not report.num_dropped
    shards = Shards(tmp_path / "out")
    records, drops = found(source, root, split="train", **flags)
    assert not drops
    assert {record.key: record.extra for record in shards} == {key: one.extra for key, one in records.items()}
    assert shards.column("num_questions").sum() == counts["questions"]
    assert report.vocabulary > 100  # from questions and answers, as there are no captions


def test_prepare_prints_published_sizes_beside_what_it_found(tmp_path):
    root = tmp_path / "root"
    vqa_files(root)
    report = prepare.prepare("vqa", root, tmp_path / "out", num_workers=0, vocab_size=0)
    assert report.lines()[:4] == [
        "kept 3 (test 1, train 2) with 0 captions, 0 regions, 4 questions and 14 answers",
        "beside the published sizes:",
        "  train: 2 of 82,783 images, 3 of 443,757 questions, 14 of 4,437,570 answers (visualqa.org/download)",
        "  test: 1 of 81,434 images, 1 of 447,793 questions (visualqa.org/download)",
    ]
    told = json.loads((tmp_path / "out/validation.json").read_text())
    assert told["official"]["val"]["counts"]["questions"] == 214_354
    assert told["counts_by_split"]["train"] == {"images": 2, "questions": 3, "answers": 14}


def test_a_drawn_data_set_and_other_flags_have_no_published_sizes(tmp_path):
    put(tmp_path, "1.jpg")
    write(tmp_path / "mine.json", {"0": gqa_question("1")})
    flags = {"questions": [Path("mine.json")]}
    report = prepare.prepare("gqa", tmp_path, tmp_path / "out", flags=flags, num_workers=0, vocab_size=0)
    assert report.official == {} and len(report.lines()) == 2


def test_questions_about_a_picture_that_does_not_decode_are_one_drop(tmp_path):
    put(tmp_path, "1.jpg")
    put(tmp_path, "2.jpg", data=jpeg(200, 200)[:-200])
    write(
        tmp_path / "train_balanced_questions.json",
        {"0": gqa_question("1"), "1": gqa_question("2"), "2": gqa_question("2")},
    )
    report = prepare.prepare("gqa", tmp_path, tmp_path / "out", num_workers=0, vocab_size=0)
    assert report.kept == 1 and dict(report.dropped) == {"truncated": 1}
    assert report.first_dropped["truncated"]["where"] == "train_balanced_questions.json:1 1"


ODD = [None, True, -1, 10**30, 1e300, "", "x", "../x", "a\0b", "\ud800", "y" * 9999, [], [1], [[]], {}, {"answer": 3}]
ENTRIES = {  # source: (flags, file, how an entry stands in it, a whole entry)
    "vqa": (
        {},
        "a_questions.json",
        lambda one: {"questions": one},
        {"image_id": 1, "question": "What?", "question_id": 2},
    ),
    "gqa": ({}, "train_balanced_questions.json", lambda many: dict(enumerate(many)), gqa_question("1")),
    "visual-genome-qa": (
        {},
        "question_answers.json",
        lambda many: [{"id": 1, "qas": [entry]} if "qa_id" in entry else entry for entry in many],
        {"question": "What?", "answer": "x", "qa_id": 3, "image_id": 1, "id": 1},
    ),
    "xvlm-finetune": (
        {"files": [Path("a_train.json")]},
        "a_train.json",
        lambda many: many,
        {"image": "1.jpg", "question": "What?", "answer": ["x"], "question_id": 1, "dataset": "vqa"},
    ),
    "xvlm-finetune pairs": (
        {"files": [Path("a_train.json")]},
        "a_train.json",
        lambda many: many,
        {"images": ["1.jpg", "1.jpg"], "sentence": "Both.", "label": "True", "identifier": "a"},
    ),
    "xvlm-finetune boxes": (
        {"files": [Path("a_train.json")]},
        "a_train.json",
        lambda many: many,
        {"image": "1.jpg", "text": "it", "bbox": [1, 2, 3, 4], "ref_id": 7},
    ),
}


@pytest.mark.parametrize("source", ENTRIES)
def test_whatever_stands_in_an_entry_the_rest_is_read(tmp_path, source):
    flags, file, tree, entry = ENTRIES[source]
    put(tmp_path, "1.jpg", "000000000001.jpg")
    broken = [{**entry, name: odd} for name in entry for odd in ODD]
    write(tmp_path / file, tree([*broken, {**entry, "question_id": 5}]))
    records, drops = found(source.split(" ")[0], tmp_path, **flags)
    assert records and drops and not any(drop.reason.startswith("unexpected") for drop in drops)
    assert all(file in drop.where for drop in drops)


def test_whatever_stands_in_a_line_the_rest_is_read(tmp_path):
    put(tmp_path, "1.jpg")
    entry = json.loads(ve_line())
    lines = [json.dumps({**entry, name: odd}) for name in entry for odd in ODD]
    (tmp_path / "snli_ve_train.jsonl").write_text("\n".join([*lines, ve_line(sentence2="Last.")]))
    records, drops = found("snli-ve", tmp_path)
    assert questions(records["1"])[-1]["question"] == "Last." and len(drops) > 30
    assert not any(drop.reason.startswith("unexpected") for drop in drops)
