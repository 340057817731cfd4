import io
import time
from dataclasses import replace

from rich.console import Console
from small_web import LengthScorer, text

from crossgrain.collect import stage_bar
from crossgrain.collect.funnel import FunnelRow
from crossgrain.collect.pipeline import run_collect
from crossgrain.collect.report import write_report
from crossgrain.collect.stage_bar import StageBar
from crossgrain.collect.tasks import Done
from crossgrain.data.progress import progress_bar


def part(number):
    row = FunnelRow(stage="pages", unit="pages", num_in=10, num_out=10)
    return Done(stage="pages", shard=str(number), fingerprint="", outputs={}, funnel=(row,))


def test_parts_of_an_earlier_run_say_nothing_about_the_time_that_is_left(tmp_path, monkeypatch):
    progress = progress_bar(Console(file=io.StringIO(), force_terminal=True))
    clock = iter(range(0, 10_000, 4))
    monkeypatch.setattr(progress, "get_time", lambda: float(next(clock)))
    with StageBar(progress, "pages", tmp_path, 20, frozenset(map(str, range(15)))) as bar:
        for number in range(15):
            bar.advance(part(number))
        assert (progress.tasks[0].completed, progress.tasks[0].time_remaining) == (15, None)
        bar.advance(part(15))
        speed = progress.tasks[0].speed
        assert speed is not None and 0 < speed < 1  # one part since the bar was made, not sixteen
        assert progress.tasks[0].fields["rate"].startswith("10 pages")


def test_output_that_is_no_terminal_gets_a_line_now_and_then(tmp_path, monkeypatch):
    monkeypatch.setattr(stage_bar, "_SECONDS_A_LINE", 0.0)
    said = []
    with StageBar(progress_bar(None), "pages", tmp_path, 3, frozenset(), said.append) as bar:
        for number in range(2):
            time.sleep(0.01)
            bar.advance(part(number))
        assert said[-1].startswith("pages: 2 of 3 parts, 20 pages, ") and said[-1].endswith(" left")
    assert said[-1].startswith("pages: 2 of 3 parts")


def test_a_run_says_how_far_it_is_before_its_end(web, tmp_path):
    _, recipe = web
    file = io.StringIO()
    run_collect(recipe, tmp_path / "out", Console(file=file))
    lines = file.getvalue().splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "pages",
        "merge",
        "images",
        "scores",
        "aggregate",
        "select",
        "shards",
    ]
    assert lines[2].startswith("images: 4 of 4 parts, 30 images, ")


def test_what_was_given_up_is_told_in_the_report_and_the_datasheet_until_it_is_mended(web, tmp_path):
    _, recipe = web
    for fails_at, told in ((text(8), True), ("", False)):
        config = LengthScorer.Config(log=tmp_path / "log", fails_at=fails_at)
        run_collect(replace(recipe, scorer=config), tmp_path / "out")
        for document in write_report(tmp_path / "out"):
            assert ("ZeroDivisionError: this text" in document.read_text()) == told
            assert ("This collection is partial" in document.read_text()) == told
