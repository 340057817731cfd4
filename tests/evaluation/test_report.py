import base64
import re
from html.parser import HTMLParser
from io import StringIO

import pytest
from rich.console import Console

from crossgrain.documents.markup import Cell, Table, tag
from crossgrain.evaluation.curves import draw_curves
from crossgrain.evaluation.report import print_tables, write_report

LOG = [{"step": step, "stage": "train", "lr": 0.1, "loss": 2.0 / step, "itc/loss": 1.0 / step} for step in (10, 20, 30)]
RECIPE = """
title: tiny
model: {type: xvlm}
objectives: [{type: itc, weight: 1}]
stages: [{steps: 30, sources: [{path: some/data, batch_size: 4}]}]
"""
STAGES = """
title: tiny in two stages
model: {type: vlbert}
objectives: [{type: mlm}, {type: itm}]
stages:
  - {name: words, steps: 20, lr: 0.001, schedule: {decay: cosine}, objectives: [mlm],
     sources: [{path: much/data, batch_size: 8}, {path: a/corpus, texts: corpus, batch_size: 2}]}
  - {name: pairs, steps: 10, lr: 0.0005, sources: [{path: few/data, batch_size: 4}]}
"""


class Reader(HTMLParser):
    """Every tag must be closed by its own end; collects addresses and text."""

    def __init__(self, page):
        super().__init__()
        self.open, self.addresses, self.words = [], [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, name, attributes):
        self.addresses += [value for key, value in attributes if key in ("src", "href")]
        if name not in ("img", "meta"):
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.words.append(data)


def read(run):
    page = (run / "evaluation/report.html").read_text()
    return page, Reader(page), (run / "evaluation/report.md").read_text()


def test_what_is_scored_once_is_not_scored_again(make_run, retrieval, monkeypatch):
    """Scores of captions take minutes."""
    run, data = make_run([line for split in ("test", "unseen") for line in retrieval(split)])
    monkeypatch.setattr("crossgrain.tasks.retrieval.Retrieval.score", lambda lines: pytest.fail("scored again"))
    write_report(run, data)
    console = Console(width=200, file=StringIO())
    print_tables(run / "evaluation", console)
    for told in (read(run)[2], console.file.getvalue()):
        assert "3 images and 3 texts in test, 3 images and 3 texts in unseen" in told


def test_boxes_of_a_single_object_have_no_chance_beside_them(make_run, grounding):
    run, data = make_run([line | {"point": [0.2, 0.2], "method": "gradcam"} for line in grounding("test")][:1])
    write_report(run, data)
    page, reader, _ = read(run)
    assert "heat maps that peak in the box" in page and "mean IoU 100.0 %" in reader.words


def test_the_page_holds_everything_itself_and_tells_the_run(make_run, retrieval, grounding):
    lines = [line for split in ("test", "unseen") for make in (retrieval, grounding) for line in make(split)]
    run, data = make_run(lines, LOG, RECIPE)
    assert write_report(run, data, {"hardware": "2 cores"}) == run / "evaluation/report.html"
    page, reader, markdown = read(run)
    assert all(address.startswith("data:") for address in reader.addresses) and "url(" not in page
    text = " ".join(reader.words)
    for fact in ("tiny", "some/data", "2 cores", "xvlm", "itc", "unseen"):
        assert fact in text and fact in markdown
    assert "66.7" in markdown and "66.7" in text  # two of three queries are right at once
    assert "50.0" in markdown  # one of two boxes
    assert sum(address.startswith("data:image/svg") for address in reader.addresses) == 1


def test_texts_are_shown_and_never_become_markup(make_run, retrieval, grounding):
    run, data = make_run([*retrieval("test"), *grounding("test")])
    write_report(run, data)
    page, reader, markdown = read(run)
    assert "<b>red</b>" not in page and "a <b>red</b> star" in "".join(reader.words)
    assert "the <star> of k1" in "".join(reader.words) and "<star>" not in markdown.replace("\\<star\\>", "")


def test_boxes_stand_over_the_picture_and_end_at_its_edge(make_run, grounding):
    run, data = make_run(grounding("test"))
    write_report(run, data)
    page, *_ = read(run)
    assert '<i class="true" style="left:10.0%;top:10.0%;width:40.0%;height:40.0%"></i>' in page
    assert '<i class="predicted" style="left:60.0%;top:60.0%;width:40.0%;height:40.0%"></i>' in page


def test_the_right_answer_is_marked_and_mistakes_come_worst_first(make_run, retrieval):
    run, data = make_run(retrieval("test"))
    write_report(run, data)
    page, _, markdown = read(run)
    queries = re.findall(r'<div class="query">.*?</div></div>', page)
    marked = [re.findall(r"<figcaption>(\d)( ✓)?", query) for query in queries[:3]]
    assert [[place for place, right in query if right] for query in marked] == [["1"], ["2"], ["1"]]
    assert "“two fish”: its image k1 has rank 2 of 3, first is k0" in markdown


@pytest.mark.parametrize("only", ["retrieval", "grounding"])
def test_what_was_not_asked_is_absent_and_not_zero(make_run, request, only):
    run, data = make_run(request.getfixturevalue(only)("test"))
    write_report(run, data)
    page, reader, markdown = read(run)
    absent = {"retrieval": "Grounding", "grounding": "Retrieval"}[only]
    assert absent not in markdown and absent not in "".join(reader.words)
    assert "Training" not in page  # no log, no curves


def test_without_the_pictures_there_are_tables_only(make_run, retrieval):
    run, _ = make_run(retrieval("test"), LOG)
    write_report(run, None)
    _, reader, markdown = read(run)
    assert "66.7" in markdown and len(reader.addresses) == 1


def test_curves_are_the_same_bytes_for_the_same_log_and_skip_what_is_no_number():
    log = [*LOG, {"step": 40, "loss": float("nan"), "note": "x"}]
    assert draw_curves(log) == draw_curves(log) is not None
    assert draw_curves(LOG[:1]) is None and draw_curves([]) is None


def test_the_stages_of_a_run_are_a_table_and_marks_on_the_curves(make_run, masked):
    run, data = make_run(masked("test"), LOG, STAGES)
    write_report(run, data)
    _, reader, markdown = read(run)
    assert "| words | 20 | 1.0e-03, cosine | mlm |" in markdown
    assert "much/data (captions), 8 a step; a/corpus (corpus), 2 a step" in markdown
    assert "| pairs | 10 | 5.0e-04 | mlm, itm | few/data (captions), 4 a step |" in markdown
    assert "A dashed line is where a stage begins" in "".join(reader.words)
    drawn = [read_svg(draw_curves(LOG, stages)) for stages in ([], [("words", 30)], [("words", 20), ("pairs", 10)])]
    assert drawn[0] == drawn[1]  # a run of one stage has nothing to mark
    assert [svg.count("<!-- pairs -->") for svg in drawn] == [0, 0, 3]  # in each of the three panels
    assert read_svg(draw_curves(LOG, [("words", 30), ("later", 9)])).count("<!-- later -->") == 0  # not begun yet


def test_hidden_tokens_have_a_table_with_the_best_constant_answer(make_run, masked):
    run, data = make_run([*masked("test"), *masked("unseen")])
    write_report(run, data)
    _, reader, markdown = read(run)
    assert "## Masked regions" in markdown and "3 hidden regions of 2 images in test" in markdown
    assert "| always the most frequent | 66.7 | 66.7 |" in markdown
    assert "most frequent answer 66.7 %" in "".join(reader.words)


def test_a_ranking_over_all_pairs_says_so(make_run, retrieval):
    left = ("ranked_without_rerank", "scores_without_rerank", "rank_without_rerank")
    lines = [{k: v for k, v in line.items() if k not in left} for line in retrieval("test")]
    run, data = make_run([line | {"protocol": "all pairs"} for line in lines])
    write_report(run, data)
    *_, markdown = read(run)
    assert "text → image, by matching, all pairs | 66.7" in markdown
    assert "similarity" not in markdown and "re-rank" not in markdown


def read_svg(uri):
    return base64.b64decode(uri.removeprefix("data:image/svg+xml;base64,")).decode()


def test_markup_escapes_texts_and_attributes():
    assert tag("p", "a < b", title='"x"', class_="c") == '<p title="&quot;x&quot;" class="c">a &lt; b</p>'
    table = Table(["", "R@1"], [["a|b", Cell("3", "1 to 5")]], [("test", 1)])
    assert table.to_markdown().splitlines() == ["|  | test R@1 |", "| --- | ---: |", "| a\\|b | 3 (1 to 5) |"]
