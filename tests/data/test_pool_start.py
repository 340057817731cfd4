"""Workers that are hit while they start."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PARENT = """
import sys
from crossgrain.data.pool import ordered_map
import slow
if __name__ == "__main__":
    print(list(ordered_map(slow.double, [1, 2], 1, lambda item, reason: reason)))
"""
SLOW = """
import multiprocessing, os, signal, sys, time
from pathlib import Path
if multiprocessing.current_process().name != "MainProcess":
    log = Path("started")
    with log.open("a") as file:
        print(os.getpid(), file=file)
    {then}

def double(value):
    return 2 * value
"""


@contextlib.contextmanager
def started(folder: Path, then: str) -> Iterator[subprocess.Popen]:
    """A process whose worker does something while it imports what it needs."""
    (folder / "slow.py").write_text(SLOW.format(then=then))
    (folder / "parent.py").write_text(PARENT)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "parent.py"], cwd=folder, start_new_session=True, **pipes) as process:
        yield process


def test_a_worker_that_is_killed_while_it_starts_is_started_again(tmp_path):
    with started(tmp_path, "if len(log.read_text().split()) == 1: os.kill(os.getpid(), signal.SIGKILL)") as process:
        assert process.communicate(timeout=300)[0] == "[2, 4]\n"
    assert len((tmp_path / "started").read_text().split()) == 2


def test_a_worker_that_never_starts_ends_the_run(tmp_path):
    with started(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)") as process:
        assert "a worker process ended while it started, 3 times" in process.communicate(timeout=300)[1]
    assert process.returncode == 1 and len((tmp_path / "started").read_text().split()) == 3


def test_ctrl_c_while_a_worker_starts_is_for_its_parent_to_handle(tmp_path):
    with started(tmp_path, "time.sleep(1)") as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "started").exists() or not (tmp_path / "started").read_text():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        (worker,) = (tmp_path / "started").read_text().split()
        os.kill(int(worker), signal.SIGINT)  # which a terminal sends to both
        assert process.communicate(timeout=300) == ("[2, 4]\n", "")
    assert (tmp_path / "started").read_text().split() == [worker]
