import json
from dataclasses import replace

import pytest

from crossgrain.config import UserError
from crossgrain.data.records import Record, Region
from crossgrain.data.shards import ShardWriter
from crossgrain.evaluation.predict import evaluate
from crossgrain.evaluation.score import score_file
from crossgrain.models.interface import VisionLanguageModel
from crossgrain.tasks.grounding import Grounding
from crossgrain.tasks.interface import Task, Trained
from crossgrain.tasks.plan import Evaluation
from crossgrain.tasks.retrieval import Retrieval


class Oracle(Task):
    """Answers every grounding question of a record with its true box."""

    name = "grounding"
    Config = type("Config", (), {"__module__": __name__, "__qualname__": "Oracle.Config"})

    def missing(self, trained):
        return None if trained.objectives else "an oracle"

    def predict(self, trained, records, track=None):
        for record in (records[index] for index in track(range(len(records)), "look")):
            for region in record.regions:
                yield {"key": record.key, "text": region.label, "box": region.box, "truth": region.box, "iou": 1.0}

    score = staticmethod(Grounding.score)


def plan(**values):
    return Evaluation(**{"splits": ("test", "unseen"), "tasks": (Oracle.Config(),), **values})


class Blank(VisionLanguageModel):
    """A model that nobody asks."""

    token_embedding = encode_image = encode_text = fuse = lambda *sides: pytest.fail("asked")


KNOWING = Trained(Blank(), {"oracle": None}, lambda record: pytest.fail("read"), lambda text: pytest.fail("read"))


@pytest.fixture
def data(tmp_path, a_png):
    region = Region(box=(0.1, 0.1, 0.5, 0.5), label="star")
    with ShardWriter(tmp_path / "data") as writer:
        for index in range(6):
            split = ("test", "unseen", "train")[index % 3]
            writer.write(Record(key=f"k{index}", image=a_png, regions=(region,), split=split), "png", 16, 16)
    return tmp_path / "data"


def test_scores_are_what_the_predictions_file_alone_gives(data, tmp_path):
    scores = evaluate(KNOWING, data, plan(), tmp_path / "evaluation")
    assert scores["grounding"]["accuracy@0.5"] == 100.0 and scores["unseen"]["grounding"]["phrases"] == 2
    assert scores == json.loads((tmp_path / "evaluation/scores.json").read_text())
    assert scores == score_file(tmp_path / "evaluation/predictions.jsonl")
    assert [path.name for path in sorted((tmp_path / "evaluation").iterdir())] == ["predictions.jsonl", "scores.json"]


def test_a_limit_takes_the_first_records_of_each_split(data, tmp_path):
    assert evaluate(KNOWING, data, plan(limit=1), tmp_path)["grounding"]["images"] == 1
    scores = evaluate(KNOWING, data, plan(limits={"unseen": 1}), tmp_path)
    assert scores["grounding"]["images"] == 2 and scores["unseen"]["grounding"]["images"] == 1
    assert plan(limit=3, limits={"test": 4}).limit_of("test") == 3


def test_a_further_split_that_the_data_lack_is_left_out_but_the_first_is_demanded(data, tmp_path):
    assert set(evaluate(KNOWING, data, plan(splits=("test", "other")), tmp_path)) == {"grounding"}
    with pytest.raises(UserError, match=r"no split 'other' to evaluate on.*test \(2\)"):
        evaluate(KNOWING, data, plan(splits=("other", "test")), tmp_path)


def test_a_task_whose_head_was_not_trained_is_named_when_none_is_left(data, tmp_path):
    with pytest.raises(UserError, match="nothing to evaluate: grounding needs an oracle"):
        evaluate(replace(KNOWING, objectives={}), data, plan(), tmp_path)


def test_data_that_ask_nothing_are_a_clear_error(tmp_path, a_png):
    with ShardWriter(tmp_path / "data") as writer:
        writer.write(Record(key="a", image=a_png, split="test"), "png", 16, 16)
    with pytest.raises(UserError, match="ask nothing of grounding"):
        evaluate(KNOWING, tmp_path / "data", plan(), tmp_path / "evaluation")


def test_earlier_predictions_outlast_an_evaluation_that_asks_nothing(data, tmp_path, a_png):
    evaluate(KNOWING, data, plan(), tmp_path / "evaluation")
    before = {path: path.read_bytes() for path in (tmp_path / "evaluation").iterdir()}
    with ShardWriter(tmp_path / "bare") as writer:
        writer.write(Record(key="a", image=a_png, split="test"), "png", 16, 16)
    with pytest.raises(UserError, match="ask nothing of grounding"):
        evaluate(KNOWING, tmp_path / "bare", plan(), tmp_path / "evaluation")
    assert {path: path.read_bytes() for path in (tmp_path / "evaluation").iterdir()} == before


def test_a_broken_predictions_file_is_named_with_its_line(tmp_path):
    (tmp_path / "predictions.jsonl").write_text('{"task": "grounding", "split": "test"}\n{"task": 3\n')
    with pytest.raises(UserError, match=r"predictions.jsonl, line 2: no prediction"):
        score_file(tmp_path / "predictions.jsonl")
    with pytest.raises(UserError, match="no predictions at"):
        score_file(tmp_path / "other.jsonl")


def test_an_evaluation_asks_about_retrieval_and_grounding_unless_told_otherwise():
    assert Evaluation().tasks == (Retrieval.Config(), Grounding.Config())
