import json
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from crossgrain.collect.engines import Pool, run_tasks
from crossgrain.collect.tasks import PAIRS, Task, digests, read_done, run_task
from crossgrain.config import UserError


def write_number(work, number, folder=None):
    """A task's function: its number, and a line for each time that it was done."""
    if folder:
        with (Path(folder) / "log").open("a") as log:
            log.write(f"{number}\n")
    work.take(PAIRS, number)
    work.keep(PAIRS, number - 1)
    work.drop(PAIRS, "too many")
    work.show("too many", text=f"number {number}")
    work.facts["number"] = number
    work.create(".txt").write_text(f"number {number}\n" * number)


def killed_once(work, number, folder):
    marker = Path(folder) / f"killed{number}"
    if number in (1, 4) and not marker.exists():
        marker.touch()
        work.create(".txt").write_text("half of")
        os.kill(os.getpid(), signal.SIGKILL)
    write_number(work, number, folder)


def hopeless(work, number, folder):
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 3:
        raise ZeroDivisionError("said by the task")
    write_number(work, number, folder)


def sleeps(work, number, folder):
    time.sleep(600)


def mistaken(work, number, folder):
    raise UserError("the recipe is wrong")


def tasks(folder, function, numbers=range(1, 7), config="a"):
    return [
        Task(
            stage="count",
            shard=f"{number:05d}",
            folder=folder / "count",
            function=partial(function, number=number, folder=str(folder)),
            config=config,
        )
        for number in numbers
    ]


def made(folder):
    return {file.name: file.read_bytes() for file in sorted((folder / "count").iterdir())}


def log(folder):
    return sorted((folder / "log").read_text().split())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    done, failed = run_tasks(tasks(folder, write_number), Pool(0, 600.0), 3)
    assert [one.facts["number"] for one in done] == [1, 2, 3, 4, 5, 6] and not failed
    return made(folder)


def test_a_pool_makes_the_same_bytes_and_a_killed_worker_is_tried_again(tmp_path, alone):
    reports = []
    engine = Pool(2, 600.0)
    done, failed = run_tasks(tasks(tmp_path, killed_once), engine, 3, reports.append)
    engine.close()
    assert [one.shard for one in done] == [f"{n:05d}" for n in range(1, 7)] and not failed
    assert made(tmp_path) == alone
    assert len(reports) == 6 and log(tmp_path) == list("123456")


def test_what_fails_three_times_is_set_aside_with_its_reason(tmp_path):
    engine = Pool(1, 600.0)
    done, failed = run_tasks(tasks(tmp_path, hopeless, range(1, 5)), engine, 3)
    engine.close()
    assert [one.facts["number"] for one in done] == [1, 4]
    reasons = [(one.task.shard, one.task.attempt, one.reason) for one in failed]
    assert reasons == [("00002", 3, "its worker crashed"), ("00003", 3, "ZeroDivisionError: said by the task")]


def test_a_mistake_of_the_users_ends_the_run(tmp_path):
    with pytest.raises(UserError, match="the recipe is wrong"):
        run_tasks(tasks(tmp_path, mistaken), Pool(0, 600.0), 3)


def test_what_is_done_is_not_done_again_unless_something_it_depends_on_changed(tmp_path):
    run_tasks(tasks(tmp_path, write_number), Pool(0, 600.0), 3)
    before = made(tmp_path)
    run_tasks(tasks(tmp_path, write_number), Pool(0, 600.0), 3)
    assert log(tmp_path) == list("123456")
    (tmp_path / "count" / "part-00002.txt").unlink()  # an output is gone
    os.truncate(tmp_path / "count" / "part-00003.txt", 3)  # or not whole
    (tmp_path / "count" / "part-00004.done.json").write_text("{torn")
    run_tasks(tasks(tmp_path, write_number), Pool(0, 600.0), 3)
    assert log(tmp_path) == sorted("123456" + "234")
    assert made(tmp_path) == before
    run_tasks(tasks(tmp_path, write_number, config="b"), Pool(0, 600.0), 3)
    assert log(tmp_path) == sorted("123456" * 2 + "234")


def test_outputs_stand_for_their_content_in_what_reads_them(tmp_path):
    one, two = (run_task(tasks(tmp_path / name, write_number, [number])[0]) for name, number in (("a", 1), ("b", 2)))
    same = run_task(tasks(tmp_path / "c", write_number, [1], config="other")[0])
    assert digests([one]) == digests([same]) != digests([two])


def test_the_record_of_a_task_says_where_why_and_how_many(tmp_path):
    task = tasks(tmp_path, write_number, [3])[0]
    done = run_task(task)
    assert read_done(task.part(".done.json")) == done
    told = json.loads(task.part(".done.json").read_text())
    assert told["funnel"] == [{"stage": "count", "unit": "pairs", "in": 3, "out": 2, "dropped": {"too many": 1}}]
    assert told["outputs"][".txt"]["path"] == "part-00003.txt"


def test_an_account_that_does_not_add_up_is_an_error(tmp_path):
    def loses_one(work):
        work.take(PAIRS, 2)
        work.keep(PAIRS, 1)

    task = Task(stage="count", shard="0", folder=tmp_path, function=loses_one, config="")
    with pytest.raises(ValueError, match="does not add up"):
        run_task(task)
    assert not task.part(".done.json").exists()
