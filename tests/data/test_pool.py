import os
import time

import pytest

from crossgrain.data.pool import ordered_map


def double(value):
    if value == "crash":
        os.abort()
    if value == "hang":
        time.sleep(60)
    if value == "raise":
        raise ZeroDivisionError("said by the worker")
    return value * 2


def failed(value, reason):
    return f"{value}: {reason}"


@pytest.mark.parametrize("num_workers", [0, 2])
def test_results_come_in_order(num_workers):
    assert list(ordered_map(double, range(40), num_workers, failed)) == list(range(0, 80, 2))


def test_a_worker_that_dies_or_hangs_costs_its_own_item_only():
    items = [1, "crash", 2, "hang", 3, "crash"]
    expected = [2, "crash: decoder crashed", 4, "hang: decoder took over 1 s", 6, "crash: decoder crashed"]
    assert list(ordered_map(double, items, 2, failed, time_limit=1.0)) == expected


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
