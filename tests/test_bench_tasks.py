"""The bench of tasks fine-tunes every cell from its family's quickstart, sighted and blind, and tells it in a table."""

import contextlib
import io
import json
from types import SimpleNamespace

import pytest
from rich.console import Console

from crossgrain import cli
from crossgrain.bench.measure import RESULT
from crossgrain.bench.tasks import load_tasks, run_tasks
from crossgrain.config import RecipeError, UserError, find_recipe
from crossgrain.tasks.interface import TASKS
from test_bench import FAMILIES, START

CELL = """
title: Questions in miniature
initial_weights: somewhere
task: {type: vqa, head: {type: classifier}}
stages: [{steps: 3, lr: 1e-3, sources: [{path: somewhere, batch_size: 4}]}]
train: {precision: float32, log_every: 1, num_workers: 0, tensorboard: false}
min_answer_count: 1
evaluation: {splits: [test]}
"""
BENCH = """
title: Tiny tasks
limit: 2
families: [{name: xvlm, recipe: START}]
tasks:
  - {name: vqa, title: questions, recipe: CELL, score: vqa/accuracy, chance: vqa/chance/accuracy}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> SimpleNamespace:
    """A bench of one cell, run by the command with its quickstart; what it printed, and where all lies."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "start.yaml").write_text(START)
    (folder / "cell.yaml").write_text(CELL)
    text = BENCH.replace("START", str(folder / "start.yaml")).replace("CELL", str(folder / "cell.yaml"))
    (folder / "bench.yaml").write_text(text)
    name, out, printed = str(folder / "bench.yaml"), folder / "out", io.StringIO()
    with contextlib.redirect_stdout(printed):
        command = ["bench", "tasks", "--recipe", name, "--out", str(out), "--runs", str(folder / "none")]
        assert cli.main([*command, "--jobs", "2", "--json"]) == 0
    return SimpleNamespace(name=name, out=out, folder=folder, told=json.loads(printed.getvalue()))


def test_a_cell_holds_its_score_and_that_of_words_alone(made):
    sighted, blind = made.told["cells"]
    assert (sighted["family"], sighted["task"], sighted["blind"], blind["blind"]) == ("xvlm", "vqa", False, True)
    for cell in (sighted, blind):
        assert cell["status"] == "finished" and cell["steps"] == 3
        assert cell["scores"]["vqa"]["images"] == 2
    table = (made.out / "bench.md").read_text()
    row = next(line for line in table.splitlines() if line.startswith("| xvlm"))
    assert f"{sighted['scores']['vqa']['accuracy']:.1f}" in row
    assert f"words alone {blind['scores']['vqa']['accuracy']:.1f}" in row
    assert f"chance {sighted['scores']['vqa']['chance']['accuracy']:.1f}" in row
    assert "crossgrain bench tasks" in table and made.told["date"] in table


def test_finished_cells_are_not_run_again_and_a_finished_quickstart_is_taken(made, monkeypatch):
    calls = []
    monkeypatch.setattr("crossgrain.bench.tasks.in_processes", lambda target, todo, jobs: calls.extend(todo))
    bench = load_tasks(made.name, None, None, None)
    run_tasks(bench, made.out, made.folder / "none", Console(quiet=True))
    assert calls == []
    (made.out / "vqa_xvlm_blind" / RESULT).unlink()
    (made.out / "xvlm").rename(made.folder / "start")  # runs/ and the name of the quickstart's recipe
    results = run_tasks(bench, made.out, made.folder, Console(quiet=True))
    ((recipe, folder, _),) = calls
    assert folder.name == "vqa_xvlm_blind" and recipe.blind
    assert recipe.initial_weights == made.folder / "start"
    assert results["xvlm", "vqa", True]["status"] == "failed"  # its process ended without a result


def test_mistakes_are_named(made):
    with pytest.raises(UserError, match="no 'gqa': choose from vqa"):
        load_tasks(made.name, None, ["gqa"], None)
    with pytest.raises(UserError, match="limit must be at least 1"):
        load_tasks(made.name, None, None, 0)
    file = made.folder / "other.yaml"
    file.write_text((made.folder / "bench.yaml").read_text().replace("score: vqa", "families: {bert: []}, score: vqa"))
    with pytest.raises(RecipeError, match=r"task vqa names \['bert'\]"):
        load_tasks(str(file), None, None, None)


def test_the_librarys_bench_has_every_family_at_every_task():
    bench = load_tasks("tasks", None, None, None)
    assert sorted(family.name for family in bench.families) == sorted(FAMILIES)
    asked = [task.name for task in bench.tasks]
    assert asked == [name for name in ("retrieval", "vqa", "nlvr2", "vcr", "grounding", "captioning") if name in TASKS]
    assert all(find_recipe(task.recipe).is_file() for task in bench.tasks)
