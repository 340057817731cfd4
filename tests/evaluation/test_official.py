import json
from itertools import chain

import numpy as np
import pytest
from judged_data import CAPTIONS, KEYS, LABELS, NLVR2, PICKED, VQA, png, scores, vcr_lines, write_data, write_json
from judged_data import write_lines as write

from crossgrain.config import UserError
from crossgrain.data.records import Record
from crossgrain.data.scenes.record import scene_record
from crossgrain.data.shards import ShardWriter
from crossgrain.evaluation.answer_files import VCR_COLUMNS
from crossgrain.evaluation.official import score_predictions
from crossgrain.evaluation.score import score_file
from crossgrain.evaluation.truth import image_number


@pytest.fixture(autouse=True)
def no_java(monkeypatch):
    """METEOR takes seconds to start, and has its own test."""
    monkeypatch.setattr("crossgrain.metrics.java.meteor_jar", lambda: None)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("judged") / "data")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "answers"


def write_text(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def vcr_table():
    """The leaderboard's CSV; rationales for wrong answers say something else, which nobody reads."""
    rows = [",".join(VCR_COLUMNS)]
    for name, (answer, rationale) in PICKED.items():
        blocks = [scores(answer), *(scores(rationale if given == LABELS[name][0] else 0) for given in range(4))]
        rows.append(",".join([name, *map(str, chain(*blocks))]))
    return "\n".join(rows) + "\n"


# What official files score.


def test_vqa_results_are_scored_by_hand(data, file):
    block = score_predictions(write_json(file, VQA), data)["vqa"]
    assert block["accuracy"] == round(100 * (1 + 0 + 0.6) / 3, 2)
    assert {kind: part["accuracy"] for kind, part in block["by_type"].items()} == {
        "number": 100.0, "yes/no": 0.0, "other": 60.0,
    }  # fmt: skip
    assert (block["questions"], block["images"]) == (3, 2)


@pytest.mark.parametrize("header", ["", "identifier,prediction\n"], ids=["plain", "header"])
def test_nlvr2_predictions_are_scored_by_hand(data, file, header):
    rows = "".join(f"{name},{str(truth).lower()}\n" for name, truth in NLVR2.items())
    block = score_predictions(write_text(file, header + rows), data)["nlvr2"]
    # three of four pairs; the statement dev-1-0 has a wrong one, dev-2-1 is consistent
    assert (block["accuracy"], block["consistency"], block["statements"]) == (75.0, 50.0, 2)


def test_nlvr2_predictions_as_json_lines_score_the_same(data, file):
    rows = [{"identifier": name, "prediction": "True" if truth else "False"} for name, truth in NLVR2.items()]
    assert score_predictions(write(file, rows), data)["nlvr2"]["accuracy"] == 75.0


def test_a_vcr_leaderboard_table_is_scored_by_hand(data, file):
    block = score_predictions(write_text(file, vcr_table()), data)["vcr"]
    assert [block[name] for name in ("Q->A", "QA->R", "Q->AR")] == [66.67, 66.67, 33.33]


def test_vcr_arrays_score_as_the_table_does(data, tmp_path):
    table = score_predictions(write_text(tmp_path / "table.csv", vcr_table()), data)
    cells = [row.split(",") for row in vcr_table().splitlines()[1:]]
    probabilities = np.array([row[1:] for row in cells], dtype=float).reshape(-1, 5, 4)
    np.savez(tmp_path / "arrays.npz", annot_id=np.array([row[0] for row in cells]), probabilities=probabilities)
    assert score_predictions(tmp_path / "arrays.npz", data) == table


def test_coco_captions_are_scored_against_the_references(data, file):
    block = score_predictions(write_json(file, CAPTIONS[::-1]), data)["captioning"]
    # words right: 3 + 1 + 3 of 9 ("a" of "a dog sits"; all of "two birds fly"); references are no longer
    assert block["BLEU-1"] == pytest.approx(100 * 7 / 9, abs=0.01)
    assert (block["images"], block["references"]) == (3, 6)
    named_by_key = [{"image_id": key, "caption": line["caption"]} for key, line in zip(KEYS, CAPTIONS, strict=True)]
    assert score_predictions(write_json(file, named_by_key), data)["captioning"] == block


def test_the_split_is_found_by_the_questions_or_named(data, file):
    assert score_predictions(write_json(file, [{"question_id": 990, "answer": "here"}]), data) == {
        "vqa": {"unscored": 1}
    }
    write_json(file, VQA)
    assert score_predictions(file, data, split="val") == score_predictions(file, data, task="vqa")
    with pytest.raises(UserError, match=r"answers:\d+ .*: answers 70, which split 'test' of .* does not ask"):
        score_predictions(file, data, split="test")


# What our own lines score.


def our_lines(split="val"):
    """Lines of every task; their truths are lies, which nobody believes."""
    lines = [
        {"task": "vqa", "key": KEYS[0], "id": row["question_id"], "answer": row["answer"], "answers": [row["answer"]]}
        for row in VQA
    ]
    lines += [{"task": "nlvr2", "key": "?", "id": name, "answer": t, "label": t} for name, t in NLVR2.items()]
    lines += [{**line, "label": line["answer"]} for line in vcr_lines()]
    for number, box in ((11, [0.1, 0.1, 0.5, 0.4]), (12, [0.0, 0.0, 0.1, 0.1]), (13, [0.1, 0.1, 0.5, 0.5])):
        lines.append({"task": "grounding", "id": number, "text": "?", "box": box, "truth": box, "iou": 1.0})
    lines += [
        {"task": "captioning", "key": key, "caption": row["caption"], "references": [row["caption"]]}
        for key, row in zip(KEYS, CAPTIONS, strict=True)
    ]
    return [{**line, "split": split} for line in lines]


def test_our_lines_score_by_the_truth_of_the_data(data, file):
    found = score_predictions(write(file, our_lines()), data)
    assert list(found) == ["vqa", "nlvr2", "vcr", "grounding", "captioning"]
    assert found["vqa"] == score_predictions(write_json(file, VQA), data)["vqa"]
    assert found["nlvr2"]["accuracy"] == 75.0
    assert [found["vcr"][name] for name in ("Q->A", "QA->R", "Q->AR")] == [66.67, 66.67, 33.33]
    assert found["grounding"]["accuracy@0.5"] == 66.67
    assert found["captioning"] == score_predictions(write_json(file, CAPTIONS), data)["captioning"]


def test_what_has_no_id_is_found_by_its_text(data, file):
    boxes = {(KEYS[0], "the dog"): [0.1, 0.1, 0.5, 0.4], (KEYS[1], "the dog"): [0.1, 0.1, 0.5, 0.5]}
    said = {"task": "grounding", "split": "val"}
    lines = [{**said, "key": key, "text": text, "box": box} for (key, text), box in boxes.items()]
    both = [*lines, *({**line, "method": "gradcam", "point": [0.3, 0.3]} for line in lines)]
    block = score_predictions(write(file, both), data)["grounding"]
    assert (block["accuracy@0.5"], block["gradcam"]["pointing"], block["missing"]) == (100.0, 100.0, 1)
    answer = {"task": "vqa", "split": "val", "key": KEYS[1], "question": "which color?", "answer": "red"}
    assert score_predictions(write(file, [answer]), data)["vqa"]["accuracy"] == 60.0
    with pytest.raises(UserError, match=rf"answers:3: answers {KEYS[1]}: the dog, which split 'val' of"):
        score_predictions(write(file, [*lines, lines[1]]), data)


def test_task_and_split_take_a_part_of_our_lines(data, file):
    hidden = [{"task": "vqa", "split": "test", "id": 990, "answer": "here", "answers": ["here"]}]
    write(file, our_lines() + hidden)
    assert list(score_predictions(file, data, task="nlvr2")) == ["nlvr2"]
    assert score_predictions(file, data, split="test") == {"vqa": {"unscored": 1}}
    both = score_predictions(file, data, task="vqa")
    assert both["test"] == {"vqa": {"unscored": 1}} and both["vqa"]["questions"] == 3
    with pytest.raises(
        UserError, match=r"holds no predictions nlvr2 of test: it holds captioning of val, .*vqa of val"
    ):
        score_predictions(file, data, "nlvr2", "test")


def test_what_our_lines_leave_out_is_counted(data, file):
    write(file, [line for line in our_lines() if line.get("id") not in (71, "val-2", "dev-2-0-1", 12)][:-1])
    found = score_predictions(file, data)
    missing = {"vqa": 1, "nlvr2": 1, "vcr": 2, "grounding": 1, "captioning": 1}
    assert {task: block["missing"] for task, block in found.items()} == missing


def test_a_rationale_of_a_question_without_labels_is_for_one_of_four_answers(data, file):
    asked = [{"kind": "answer"}, *({"kind": "rationale", "given": given} for given in range(4))]
    lines = [{"task": "vcr", "split": "test", "id": "test-0", "scores": scores(0), **one} for one in asked]
    assert score_predictions(write(file, lines), data) == {"vcr": {"unscored": 5}}
    row = ",".join(["test-0", *map(str, scores(0) * 5)])
    assert score_predictions(write_text(file, f"{','.join(VCR_COLUMNS)}\n{row}\n"), data) == {"vcr": {"unscored": 5}}


def retrieval():
    """Every text finds its image but the last; every image finds its second text first."""
    texts = [f"{key}#{n}" for key in KEYS for n in range(2)]
    for place, text in enumerate(texts):
        own = KEYS[place // 2]
        order = sorted(KEYS, key=lambda key: (key == own) == (place == 5))
        line = {"direction": "text_to_image", "query": text, "ranked": order, "truth": order[:1]}
        yield {"task": "retrieval", "split": "val", **line, "gallery": 1000}
    for key in KEYS:
        order = [f"{key}#1", *(text for text in texts if text != f"{key}#1")]
        line = {"direction": "image_to_text", "query": key, "ranked": order, "truth": ["?"]}
        yield {"task": "retrieval", "split": "val", **line, "gallery": 1000}


def test_retrieval_is_scored_by_the_captions_of_the_data(data, file):
    block = score_predictions(write(file, retrieval()), data)["retrieval"]
    assert block["text_to_image"]["R@1"] == 83.33 and block["image_to_text"]["R@1"] == 100.0
    assert block["gallery"] == {"images": 3, "texts": 6}
    assert block["chance"]["image_to_text"]["R@1"] == 33.33
    fewer = [line for line in retrieval() if line["query"] != KEYS[0]]
    assert score_predictions(write(file, fewer), data)["retrieval"]["missing"] == 1


@pytest.mark.parametrize("parts", [[[0], [1, 2]], [[0, 1]]], ids=["folds", "a limit"])
def test_a_part_of_a_retrieval_scores_as_it_did_alone(data, file, parts):
    """Its lines know how many candidates they chose from."""
    lines = []
    for number, part in enumerate(parts):
        keys = [KEYS[place] for place in part]
        for key in keys:
            said = {"task": "retrieval", "split": "val", "fold": number}
            to_image = {"direction": "text_to_image", "query": f"{key}#0", "ranked": keys, "truth": [key]}
            texts = [f"{other}#0" for other in keys]
            to_text = {"direction": "image_to_text", "query": key, "ranked": texts, "truth": [f"{key}#0"]}
            lines += [{**said, **one, "gallery": len(keys)} for one in (to_image, to_text)]
    block = score_predictions(write(file, lines), data)["retrieval"]
    block.pop("missing", None)
    assert block == score_file(file)["retrieval"]


@pytest.mark.parametrize("gallery", [2, 7, True, 3.0, "3", None])
def test_a_gallery_that_cannot_be_is_not_believed(data, file, gallery):
    lines = [{**line, "gallery": gallery} for line in retrieval()]
    assert score_predictions(write(file, lines), data)["retrieval"]["gallery"] == {"images": 3, "texts": 6}


def test_what_was_hidden_is_not_in_the_data(data, file):
    line = {"task": "masked_words", "split": "val", "key": KEYS[0], "position": 3, "truth": 5, "predicted": 5}
    assert score_predictions(write(file, [line]), data) == {"masked_words": {"unscored": 1}}


def test_scenes_are_scored_as_their_own_predictions_are(tmp_path):
    """Lines as the tasks write them, with the truth, score the same from the file alone and against the data."""
    chance = np.random.default_rng(0)
    drawn = [scene_record(0, "test", index, 32) for index in range(12)]
    lines = []
    for record in drawn:
        said = {"split": "test", "key": record.key}
        for item in record.extra["questions"]:
            told = {"id": None, "question": item["question"], "type": item["type"], "answers": item["answers"]}
            lines.append({"task": "vqa", **said, **told, "answer": str(chance.choice(["yes", "no", "2", "red"]))})
        for number, pair in enumerate(record.extra["pairs"]):
            told = {"id": f"{record.key}#{number}", **pair, "answer": bool(chance.integers(2))}
            lines.append({"task": "nlvr2", **said, **told})
        for number, item in enumerate(record.extra["choices"]):
            told = {"id": f"{record.key}#{number}", "number": number, "scores": chance.random(4).round(6).tolist()}
            lines.append({"task": "vcr", **said, **told, "kind": "answer", "label": item["answer_label"]})
            given = {"given": item["answer_label"], "label": item["rationale_label"]}
            lines.append({"task": "vcr", **said, **told, "kind": "rationale", **given})
        for item in record.extra["expressions"]:
            truth = [round(side, 6) for side in record.regions[item["index"]].box]
            box = [side + 0.05 * float(chance.random()) for side in truth]
            told = {"text": item["text"], "box": box, "truth": truth, "method": "box"}
            lines.append({"task": "grounding", **said, **told})
        told = {"caption": drawn[0].captions[0], "references": list(record.captions)}
        lines.append({"task": "captioning", **said, **told})
    with ShardWriter(tmp_path / "data") as writer:
        for record in drawn:
            writer.write(record, "png", 32, 32)
    lines.sort(key=lambda line: line["task"])
    path = write(tmp_path / "predictions.jsonl", lines)
    assert score_predictions(path, tmp_path / "data") == score_file(path)


# What is refused.

MISTAKES = {
    "an empty file": ("", r"answers is empty: expected our predictions.jsonl, VQA"),
    "an empty list": ("[]", r"answers holds no predictions : it holds nothing"),
    "no JSON": ('[{"question_id": 70,\n "answer": }]', r"answers, line \d: not valid JSON"),
    "no object": ('[{"question_id": 70, "answer": "2"},\n 5]', r"answers:2 \[1\]: a int, not an object"),
    "no JSON line": ('{"task": "vqa", "split": "val", "id": 70, "answer": "2"}\n{oops', r"answers:2: malformed line"),
    "an unknown form": ('[{"id": 3, "text": "2"}]', r"answers:1 \[0\]: no answer in a known form: expected our"),
    "an unknown task": ('{"task": "vaq", "split": "val"}', r"answers:1: unknown task 'vaq': choose from retrieval, "),
    "an unknown split": (
        '{"task": "vqa", "split": "dev", "id": 70, "answer": "2"}', r"has no split 'dev': its splits are test, val",
    ),
    "an unknown question": ('[{"question_id": 5, "answer": "2"}]', r"\[0\]: answers 5, which no split of .* asks"),
    "a stranger among questions": (
        '[{"question_id": 70, "answer": "2"},\n{"question_id": 5, "answer": "2"}]',
        r"answers:2 \[1\]: answers 5, which split 'val' of .* does not ask",
    ),
    "a second answer": (
        '[{"question_id": 70, "answer": "2"},\n\n{"question_id": 70, "answer": "3"}]',
        r"answers:3 \[1\]: 70 is answered already, at answers:1 \[0\]",
    ),
    "an open question": (json.dumps(VQA[:2]), r"answers leaves 1 of 3 questions of split 'val' of .* the first is 420"),
    "an answer that is no text": ('[{"question_id": 70, "answer": 2}]', r"\[0\]: answer 2 is no text"),
    "an id that is none": ('[{"question_id": [7], "answer": "2"}]', r"\[0\]: question_id \[7\] is no id"),
    "a caption of no image": ('[{"image_id": 8, "caption": "x"}]', r"answers 8, which no split"),
    "an image without a caption": (json.dumps(CAPTIONS[1:]), rf"leaves 1 of 3 .* the first is {KEYS[0]}"),
    "a prediction that is no truth value": (
        "dev-1-0-0,True\ndev-1-1-0,maybe\n", r"answers:2: prediction 'maybe' is neither True nor False",
    ),
    "a table of another width": ("dev-1-0-0,True\ndev-1-1-0\n", r"answers:2: \['dev-1-1-0'\] is no line identifier"),
    "no table at all": ("hello world\n", r"answers:1: \['hello world'\] is no line identifier,prediction; nor is"),
    "a missing column": ("annot_id,answer_0\nval-0,1\n", r"answers:1: the leaderboard's column answer_1 is missing"),
    "too few cells": (f"{','.join(VCR_COLUMNS)}\nval-0,1\n", r"answers:2: 2 values in place of 21"),
    "a cell that is no number": (vcr_table().replace("2.0", "x", 1), r"answers:2: could not convert string to float"),
    "an empty cell that is needed": (
        vcr_table().replace("val-1,2.0", "val-1,", 1), r"answers:3: scores \[nan, -1.0, -1.0, -1.0\] are not 4 numbers",
    ),
    "no id of ours": ('{"task": "nlvr2", "split": "val", "answer": true}', r"answers:1: no 'id' in a line of nlvr2"),
    "no truth value in our line": (
        '{"task": "nlvr2", "split": "val", "id": "dev-1-0-0", "answer": "True"}', r":1: answer 'True' is neither true",
    ),
    "a box of three": (
        '{"task": "grounding", "split": "val", "id": 11, "box": [0, 1, 2]}', r"answers:1: box \[0, 1, 2\] are not 4",
    ),
    "a direction that is none": (
        '{"task": "retrieval", "split": "val", "direction": "up", "query": "x"}', r"answers:1: a line of retrieval",
    ),
    "a query that is none": (
        '{"task": "retrieval", "split": "val", "direction": "text_to_image", "query": "x#0", "ranked": []}',
        r"answers:1: answers x#0, which split 'val'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_its_place_and_rule(data, file, mistake):
    text, message = MISTAKES[mistake]
    with pytest.raises(UserError, match=message):
        score_predictions(write_text(file, text), data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ranked": ["x"]}, r"answers:1: ranks x, which is no candidate in split 'val'"),
        ({"ranked": KEYS[:1] * 2}, r"answers:1: ranked is no list of different names"),
        ({"ranked_without_rerank": "x"}, r"answers:1: ranked_without_rerank is no list"),
        ({"query": f"{KEYS[0]}#1"}, rf"answers:2: {KEYS[0]}#1 is answered already, at answers:1"),
        ({"query": f"{KEYS[0]}#2"}, rf"answers:1: answers {KEYS[0]}#2, which split 'val'"),
    ],
)
def test_a_mistake_in_a_ranking_is_named(data, file, change, message):
    first, *others = retrieval()
    with pytest.raises(UserError, match=message):
        score_predictions(write(file, [{**first, **change}, *others]), data)


def test_a_file_that_is_not_there_or_half_an_array_is_named(data, tmp_path):
    with pytest.raises(UserError, match=r"no predictions at .*nowhere"):
        score_predictions(tmp_path / "nowhere", data)
    np.savez(tmp_path / "half.npz", annot_id=np.array(["val-0"]))
    with pytest.raises(UserError, match=r"half.npz is no NPZ of annot_id and probabilities"):
        score_predictions(tmp_path / "half.npz", data)
    np.savez(tmp_path / "other.npz", annot_id=np.array(["val-0"]), probabilities=np.zeros((1, 4)))
    with pytest.raises(UserError, match=r"other.npz: probabilities have the shape \(1, 4\), not \(1, 5, 4\)"):
        score_predictions(tmp_path / "other.npz", data)


def test_images_of_one_number_are_named_by_their_keys(tmp_path, file):
    with ShardWriter(tmp_path / "data") as writer:
        for key in ("a_1", "b_01"):
            writer.write(Record(key=key, image=png(), captions=("a dog",), split="test"), "png", 8, 8)
    with pytest.raises(UserError, match=r"answers 1, which no split"):
        score_predictions(write_json(file, [{"image_id": 1, "caption": "a dog"}]), tmp_path / "data")
    rows = [{"image_id": key, "caption": "a dog"} for key in ("a_1", "b_01")]
    assert score_predictions(write_json(file, rows), tmp_path / "data")["captioning"]["images"] == 2
    assert [image_number(key) for key in ("COCO_val2014_000000000042", "1000", "dog")] == [42, 1000, None]
