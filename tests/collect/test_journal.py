import os

import pytest

from crossgrain.collect.journal import Journal


def journal(folder, task="one", first_attempt=True):
    return Journal(folder / "part-00000", task, first_attempt)


def filled(folder, count=5):
    with journal(folder) as written:
        for number in range(count):
            written.add(f"image{number}", {"reason": "", "number": number}, bytes([number]) * (number + 1))
    return folder / "part-00000.journal.jsonl", folder / "part-00000.journal.data"


def test_what_was_added_is_there_in_the_next_process(tmp_path):
    filled(tmp_path)
    with journal(tmp_path) as read:
        assert [read.entries[f"image{n}"]["number"] for n in range(5)] == list(range(5))
        assert [read.data(f"image{n}") for n in range(5)] == [bytes([n]) * (n + 1) for n in range(5)]
        assert "image5" not in read
        read.add("image5", {}, b"more")
        assert "image5" not in read  # it counts once it is committed
        read.commit()
        assert read.data("image5") == b"more" and read.data("image4") == b"\4" * 5


@pytest.mark.parametrize("torn", [1, 7, 30])
def test_a_torn_line_is_cut_off_with_its_bytes_and_written_anew(tmp_path, torn):
    lines, data = filled(tmp_path)
    os.truncate(lines, lines.stat().st_size - torn)
    with journal(tmp_path) as read:
        assert set(read.entries) == {f"image{n}" for n in range(4)}
        assert data.stat().st_size == 1 + 2 + 3 + 4
        read.add("image4", {"number": 44}, b"again")
    with journal(tmp_path) as read:
        assert read.entries["image4"]["number"] == 44 and read.data("image4") == b"again"


def test_an_entry_whose_bytes_are_missing_does_not_count(tmp_path):
    _, data = filled(tmp_path)
    os.truncate(data, 11)
    with journal(tmp_path) as read:
        assert set(read.entries) == {f"image{n}" for n in range(4)}


def test_entries_of_another_task_are_thrown_away(tmp_path):
    filled(tmp_path)
    with journal(tmp_path, task="two") as read:
        assert not read.entries
    with journal(tmp_path, task="two") as read:
        assert not read.entries


def test_what_an_attempt_ended_with_gets_a_strike_and_nothing_else_does(tmp_path):
    for attempt, last in enumerate(("bad", "bad", "other")):
        with journal(tmp_path, first_attempt=attempt == 0) as written:
            for name in ("fine", last):
                written.begin(name)
    with journal(tmp_path, first_attempt=False) as read:
        assert [read.strikes(name) for name in ("bad", "other", "fine")] == [2, 1, 0]
    with journal(tmp_path) as read:
        assert read.strikes("bad") == 0


def test_removing_leaves_nothing(tmp_path):
    filled(tmp_path)
    with journal(tmp_path) as read:
        read.remove()
    assert not list(tmp_path.iterdir())
