"""Ray does what the pool does: same bytes, and a worker that is killed costs a second attempt. One start serves all."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from collected import shard_bytes
from planted_web import archived
from test_engine import made, tasks, write_number

from crossgrain.collect.engines import Pool, run_tasks
from crossgrain.collect.pipeline import run_collect

SECONDS = 500  # Ray's start is given three times what it gives itself
RAY = """
import sys
from pathlib import Path
import test_engine as told
from planted_web import archived
from crossgrain.collect.engines import ENGINES, run_tasks
from crossgrain.collect.pipeline import run_collect
from crossgrain.config import UserError

folder = Path(sys.argv[1])
engine = ENGINES["ray"](2, 600.0)
try:
    done, failed = run_tasks(told.tasks(folder / "killed", told.killed_once), engine, 3)
except UserError as error:
    sys.exit(f"NO RAY: {error}")
assert [one.facts["number"] for one in done] == [1, 2, 3, 4, 5, 6] and not failed, failed

done, failed = run_tasks(told.tasks(folder / "hopeless", told.hopeless, range(1, 5)), engine, 2)
assert [one.facts["number"] for one in done] == [1, 4]
assert [(one.task.shard, one.task.attempt) for one in failed] == [("00002", 2), ("00003", 2)]
assert failed[0].reason.startswith("its worker ended") and failed[1].reason == "ZeroDivisionError: said by the task"

try:
    run_tasks(told.tasks(folder / "mistaken", told.mistaken), engine, 3)
except UserError as error:
    assert str(error) == "the recipe is wrong", error
else:
    raise AssertionError("a mistake of the user's was swallowed")

late = ENGINES["ray"](1, 1.0)
done, failed = run_tasks(told.tasks(folder / "late", told.sleeps, [7]), late, 1)
assert [one.reason for one in failed] == ["its worker took over 1 s"], failed

run_collect(archived(6, engine="ray", num_workers=2), folder / "collected")
import ray  # after the engine has told it what to read when it is imported
address, = {node["NodeManagerAddress"] for node in ray.nodes()}
assert address == "127.0.0.1", address
print("all done")
"""


def test_ray_makes_the_same_bytes_and_a_killed_worker_is_tried_again(tmp_path):
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs the extra ray")
    with tempfile.TemporaryDirectory(prefix="ray") as short, (tmp_path / "log").open("w+") as log:
        # in a process of its own, for Ray leaves processes, threads and warnings behind; its sockets need a short path
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        process = subprocess.Popen(
            [sys.executable, "-c", RAY, str(tmp_path)],
            cwd=Path(__file__).parent,
            env={**environment, "RAY_TMPDIR": short},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            status = process.wait(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            status = "no end"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.seek(0)
        said = log.read()[-3000:]
    if "NO RAY: Ray did not start" in said:
        pytest.skip(f"Ray does not start on this machine, or not while it is so busy: {said.splitlines()[-1]}")
    assert status == 0 and "all done" in said, f"status {status}\n{said}"
    run_tasks(tasks(tmp_path / "alone", write_number), Pool(0, 600.0), 3)
    assert made(tmp_path / "killed") == made(tmp_path / "alone")
    run_collect(archived(6), tmp_path / "here")
    assert shard_bytes(tmp_path / "here") == shard_bytes(tmp_path / "collected")
