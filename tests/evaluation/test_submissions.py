import csv
import json

import numpy as np
import pytest
from judged_data import CAPTIONS, KEYS, LABELS, NLVR2, PICKED, VQA, png, vcr_lines, write_data, write_lines

from crossgrain.config import UserError
from crossgrain.data.records import Record
from crossgrain.data.shards import ShardWriter
from crossgrain.evaluation.answer_files import VCR_COLUMNS
from crossgrain.evaluation.official import score_predictions
from crossgrain.evaluation.submissions import vcr_probabilities, write_submission, write_submissions

GQA = {"07333408": "yes", "201740341": "no", "7333408": "red"}


def lines():
    """Predictions of all tasks with an official format, and of one without."""
    for row in VQA:
        yield {"task": "vqa", "key": KEYS[0], "id": row["question_id"], "question": "?", "answer": row["answer"]}
    for name, truth in NLVR2.items():
        yield {"task": "nlvr2", "key": KEYS[0], "id": name, "answer": truth}
    yield from vcr_lines()
    for key, row in zip(KEYS, CAPTIONS, strict=True):
        yield {"task": "captioning", "key": key, "caption": row["caption"], "references": []}
    yield {"task": "grounding", "key": KEYS[0], "text": "the dog", "box": [0, 0, 1, 1], "truth": [0, 0, 1, 1]}


@pytest.fixture(autouse=True)
def no_java(monkeypatch):
    """METEOR takes seconds to start, and has its own test."""
    monkeypatch.setattr("crossgrain.metrics.java.meteor_jar", lambda: None)


@pytest.fixture
def predictions(tmp_path):
    return write_lines(tmp_path / "predictions.jsonl", [{**line, "split": "val"} for line in lines()])


def test_every_task_with_an_official_format_gets_its_file(predictions, tmp_path):
    names = [path.name for path in write_submissions(predictions, tmp_path / "out")]
    assert names == ["vqa_val.json", "nlvr2_val.csv", "vcr_val.csv", "captioning_val.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    assert json.loads((tmp_path / "out" / "vqa_val.json").read_text()) == VQA
    assert json.loads((tmp_path / "out" / "captioning_val.json").read_text()) == CAPTIONS
    rows = (tmp_path / "out" / "nlvr2_val.csv").read_text().splitlines()
    assert rows == [f"{name},{truth}" for name, truth in NLVR2.items()]
    assert rows[0] == "dev-1-0-0,True"


def test_the_vcr_table_is_that_of_the_leaderboard(tmp_path):
    write_submission("vcr", list(vcr_lines()), tmp_path / "vcr.csv")
    header, *rows = csv.reader((tmp_path / "vcr.csv").read_text().splitlines())
    assert tuple(header) == VCR_COLUMNS
    assert header[:2] + header[5:6] + header[-1:] == [
        "annot_id", "answer_0", "rationale_conditioned_on_a0_0", "rationale_conditioned_on_a3_3",
    ]  # fmt: skip
    assert [row[0] for row in rows] == list(PICKED)
    for row, (answer, rationale), (given, _) in zip(rows, PICKED.values(), LABELS.values(), strict=True):
        blocks = [row[start : start + 4] for start in range(1, 21, 4)]
        likely = np.array(blocks[0], dtype=float)
        assert likely.sum() == pytest.approx(1) and likely.argmax() == answer
        assert likely.max() == pytest.approx(np.exp(3) / (np.exp(3) + 3))
        assert np.array(blocks[1 + given], dtype=float).argmax() == rationale
        assert [block for place, block in enumerate(blocks[1:]) if place != given] == [[""] * 4] * 3  # not asked


def test_what_we_write_scores_as_our_lines_do(predictions, tmp_path):
    data = write_data(tmp_path / "data")
    ours = score_predictions(predictions, data)
    written = write_submissions(predictions, tmp_path / "out")
    write_submission("vcr", list(vcr_lines()), tmp_path / "out" / "vcr.npz")
    for path in [*written, tmp_path / "out" / "vcr.npz"]:
        task = path.stem.removesuffix("_val")
        assert score_predictions(path, data)[task] == ours[task]


def test_where_no_label_is_known_all_rationales_are_written():
    said = {"id": "test-0", "key": "k", "number": 0, "label": None, "scores": [0.0, 0.0, 0.0, np.log(3)]}
    asked = [{"kind": "rationale", "given": given} for given in range(4)] + [{"kind": "answer"}]
    names, probabilities = vcr_probabilities([{**said, **one} for one in asked])
    assert names.tolist() == ["test-0"]
    np.testing.assert_allclose(probabilities, np.broadcast_to([1 / 6, 1 / 6, 1 / 6, 1 / 2], (1, 5, 4)))


def test_a_file_is_written_with_how_many_questions_it_leaves_open(predictions, tmp_path):
    data = write_data(tmp_path / "data")
    assert set(write_submissions(predictions, tmp_path / "out", data=data).values()) == {0}
    kept = [line for line in map(json.loads, predictions.read_text().splitlines()) if line["key"] == KEYS[0]]
    left = write_submissions(write_lines(predictions, kept), tmp_path / "out", data=data)
    assert {path.name: count for path, count in left.items()} == {
        "vqa_val.json": 0,
        "nlvr2_val.csv": 0,
        "vcr_val.csv": 4,
        "captioning_val.json": 2,
    }


def test_rationales_alone_are_no_submission(tmp_path):
    """A model that learnt nothing else answers nothing else."""
    rationales = [line for line in vcr_lines() if line["kind"] == "rationale"]
    predictions = write_lines(tmp_path / "predictions.jsonl", rationales)
    assert not write_submissions(predictions, tmp_path / "out", any_task=True)
    with pytest.raises(UserError, match="no answer to val-0"):
        write_submissions(predictions, tmp_path / "out")


def test_ids_that_are_texts_are_handed_in_as_gqa_names_them(tmp_path):
    """A number would lose its zeros."""
    asked = [{"question": f"{name}?", "id": name, "answers": [answer]} for name, answer in GQA.items()]
    with ShardWriter(tmp_path / "data") as writer:
        writer.write(Record(key="n1", image=png(), split="val", extra={"questions": asked}), "png", 8, 8)
    said = [{"key": "n1", "id": name, "question": f"{name}?", "answer": answer} for name, answer in GQA.items()]
    write_submission("vqa", said, tmp_path / "gqa.json")
    rows = json.loads((tmp_path / "gqa.json").read_text())
    assert rows == [{"questionId": name, "prediction": answer} for name, answer in GQA.items()]
    assert score_predictions(tmp_path / "gqa.json", tmp_path / "data")["vqa"]["accuracy"] == 100.0


def test_images_that_share_a_number_are_named_by_key(tmp_path):
    said = [{"key": key, "caption": "x"} for key in ("a_7", "b_07", "c_8", "d")]
    write_submission("captioning", said, tmp_path / "captions.json")
    rows = json.loads((tmp_path / "captions.json").read_text())
    assert [row["image_id"] for row in rows] == ["a_7", "b_07", 8, "d"]


def test_what_no_server_would_take_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"the question 'why\?' of k has no official id"):
        write_submission("vqa", [{"key": "k", "id": None, "question": "why?", "answer": "x"}], tmp_path / "x.json")
    rationale = {"kind": "rationale", "id": "val-0", "scores": [0.0] * 4, "given": 1}
    with pytest.raises(UserError, match=r"no answer to val-0: the leaderboard needs answers and rationales"):
        write_submission("vcr", [rationale], tmp_path / "x.csv")
    with pytest.raises(UserError, match=r"the rationale of val-0 does not say which answer"):
        write_submission("vcr", [{**rationale, "given": None}], tmp_path / "x.csv")
    with pytest.raises(UserError, match=r"grounding has no official format: choose from vqa, nlvr2, vcr, captioning"):
        write_submission("grounding", [], tmp_path / "x.json")
    line = {"task": "grounding", "split": "val", "key": "k", "text": "x", "box": [0, 0, 1, 1], "truth": [0, 0, 1, 1]}
    with pytest.raises(UserError, match=r"holds answers of no task with an official format"):
        write_submissions(write_lines(tmp_path / "predictions.jsonl", [line]), tmp_path / "out")
    assert list(tmp_path.glob("x.*")) == []
