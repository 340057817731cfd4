import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crossgrain.data.pool import ordered_map


def double(value):
    if value == "crash":
        os.abort()
    if value == "hang":
        time.sleep(600)
    if value == "raise":
        raise ZeroDivisionError("said by the worker")
    return value * 2


def failed(value, reason):
    return f"{value}: {reason}"


@pytest.mark.parametrize("num_workers", [0, 2])
def test_results_come_in_order(num_workers):
    assert list(ordered_map(double, range(40), num_workers, failed)) == list(range(0, 80, 2))


def test_a_worker_that_dies_costs_its_own_item_only():
    items = [1, "crash", 2, 3, "crash"]
    expected = [2, "crash: decoder crashed", 4, 6, "crash: decoder crashed"]
    assert list(ordered_map(double, items, 2, failed)) == expected


def test_a_worker_that_hangs_costs_its_own_item_only():
    assert list(ordered_map(double, ["hang", 2], 1, failed, time_limit=2.0)) == ["hang: decoder took over 2 s", 4]


def test_reading_stays_a_few_items_ahead():
    taken = []
    results = ordered_map(double, (taken.append(i) or i for i in range(1000)), 1, failed)
    assert next(results) == 0
    assert len(taken) < 20
    results.close()


def test_an_error_of_the_program_is_raised():
    with pytest.raises(ZeroDivisionError, match="said by the worker"):
        list(ordered_map(double, [1, "raise"], 1, failed))


def test_a_slow_first_item_holds_back_the_window_and_no_more():
    items = [0.4, *([0.0] * 60)]
    assert list(ordered_map(wait_for, items, 2, failed)) == items


def wait_for(seconds):
    time.sleep(seconds)
    return seconds


def test_large_results_stop_the_reading_ahead():
    taken = []
    items = (taken.append(i) or (0.3 if i == 0 else 0.0) for i in range(40))
    results = ordered_map(wait_for, items, 2, failed, size=lambda _: 2**27)
    assert next(results) == 0.3
    assert len(taken) <= 3  # the slow one, and two that fill what may be held
    assert list(results) == [0.0] * 39


PARENT = """
import sys
import test_pool as told
list(told.ordered_map(told.hold, [sys.argv[1]], 1, told.failed))
"""


def hold(path):
    """Locks a file and says so in it, then does not end."""
    with Path(path).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("held")
        file.flush()
        time.sleep(600)


def test_a_worker_whose_parent_is_killed_ends_in_the_middle_of_its_item(tmp_path):
    path = tmp_path / "held"
    path.touch()
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(path)], cwd=Path(__file__).parent)
    while not path.read_text():
        assert parent.poll() is None
        time.sleep(0.02)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 120
    with path.open() as file:
        while True:  # the lock is free when the worker has ended
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                assert time.monotonic() < deadline, "the worker went on without its parent"
                time.sleep(0.02)
