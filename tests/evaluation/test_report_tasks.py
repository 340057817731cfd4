import re
from html.parser import HTMLParser
from io import StringIO

import pytest
from rich.console import Console

from crossgrain.data.records import Region
from crossgrain.evaluation.report import print_tables, write_report
from crossgrain.evaluation.tables import score_tables
from crossgrain.metrics.cider import cider
from crossgrain.metrics.proportion import wilson_interval
from crossgrain.metrics.ptb import caption_words

HOSTILE = "<script>alert('&')</script>"
VOID = ("img", "meta", "br")
TITLES = {
    "vqa": "Questions and answers",
    "nlvr2": "Statements about two pictures",
    "vcr": "Questions with four choices",
    "grounding": "Phrases point at boxes",
    "captioning": "Captions",
}


class Page(HTMLParser):
    """Every tag must be closed by its own end. Collects the text, the addresses, and the elements by class."""

    def __init__(self, text):
        super().__init__()
        self.source, self.open, self.addresses, self.words, self.scripts = text, [], [], [], 0
        self.feed(text)
        assert not self.open

    def handle_starttag(self, name, attributes):
        self.scripts += name == "script"
        self.addresses += [value for key, value in attributes if key in ("src", "href")]
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.words.append(data)

    def section(self, title):
        """The HTML of one section."""
        (found,) = re.findall(rf"<section><h2>{re.escape(title)}</h2>(.*?)</section>", self.source)
        return found

    def titles(self):
        return re.findall("<section><h2>(.*?)</h2>", self.source)


def vqa(key, question, answer, answers, kind="count", score=0.5):
    told = {"task": "vqa", "split": "test", "key": key, "id": None, "question": question, "type": kind}
    return told | {"answer": answer, "score": score, "answers": answers}


def nlvr2(key, partner, statement, probability, label, name="s"):
    told = {"task": "nlvr2", "split": "test", "key": key, "partner": partner, "id": name, "statement": statement}
    return told | {"answer": probability > 0.5, "probability": probability, "label": label}


def vcr(key, kind, scores, label, choices=("a", "b", "c", "d"), question="what is star1 ?", **given):
    told = {"task": "vcr", "split": "test", "key": key, "id": f"{key}#0", "number": 0, "kind": kind, "label": label}
    answer = max(range(4), key=scores.__getitem__)
    return told | {"question": question, "choices": [*choices], "scores": scores, "answer": answer, **given}


def grounding(key, method, box=(0.1, 0.1, 0.5, 0.5), truth=(0.1, 0.1, 0.5, 0.5), overlap=1.0, **more):
    told = {"task": "grounding", "split": "test", "key": key, "text": f"the star of {key}", "box": [*box]}
    return told | {"truth": truth and [*truth], "iou": overlap, "method": method, **more}


def captioning(key, caption, *references, **more):
    told = {"task": "captioning", "split": "test", "key": key, "caption": caption}
    return told | {"references": [*references], **more}


def asked(*question, label="star", boxes=((0.2, 0.5, 0.6, 0.9), (0.1, 0.0, 0.3, 0.2))):
    """What a record says of VCR: one question about two objects."""
    choices = [[[1], "a"], ["b"], ["c"], ["d"]]
    item = {"question": [*question], "answer_choices": choices, "rationale_choices": [["because"]] * 4}
    return {"regions": tuple(Region(box=box, label=label) for box in boxes), "extra": {"choices": [item]}}


QUESTIONS = [
    vqa("k0", "how many ?", "2", ["2"] * 9 + ["3"]),
    vqa("k0", "how many dogs ?", "2", ["1"] * 10, score=0.9),
    vqa("k1", "how many cats ?", "2", ["1"] * 10, score=0.4),
    vqa("k1", "how many birds ?", "3", ["1"] * 10, score=0.3),
    vqa("k2", "how many fish ?", "1", ["1"] * 10, score=0.3),
    vqa("k2", "which colour ?", "red", ["dark blue"] * 10, "colour", 0.6),
]
PAIRS = [
    nlvr2("k0", "k1", "both are red", 0.9, True),
    nlvr2("k0", "k2", "both are red", 0.2, False),
    nlvr2("k1", "k0", "one is blue", 0.7, False),
    nlvr2("k1", "k2", "one is blue", 0.05, True),
]
CHOICES = [
    vcr("k0", "answer", [0.0, 2.0, 0.0, 0.0], 1),
    vcr("k0", "rationale", [3.0, 0.0, 0.0, 0.0], 2, given=1),
    vcr("k1", "answer", [0.0, 0.0, 0.0, 1.0], 0),
]
BOXES = [grounding("k0", "box"), grounding("k1", "box", (0.6, 0.6, 0.9, 0.9), overlap=0.0)]
CAPTIONS = [
    captioning("k0", "a red star", "a red star", "one star"),
    captioning("k1", "two fish", "a blue house stands on a hill"),
    captioning("k2", "a green tree", "a green tree", "a tree with leaves"),
]


def share(hits, total):
    """As Markdown has it, with its interval."""
    low, high = (round(100 * end, 2) for end in wilson_interval(hits, total))
    return f"{100 * hits / total:.1f} ({low:.1f} to {high:.1f})"


EVERYTHING = {"vqa": QUESTIONS, "nlvr2": PAIRS, "vcr": CHOICES, "grounding": BOXES, "captioning": CAPTIONS}
RECORDS = {"k0": asked("what", "is", [0], "?"), "k1": asked("what", "is", [0], "?")}


@pytest.fixture
def report(make_run):
    """report(lines) -> (page, markdown)."""

    def make(lines, pictures=True, told=RECORDS, **values):
        run, data = make_run(lines, told=told, **values)
        write_report(run, data if pictures else None)
        text = (run / "evaluation/report.html").read_text()
        return Page(text), (run / "evaluation/report.md").read_text()

    return make


def test_every_task_has_its_tables_its_examples_and_its_mistakes(report):
    page, markdown = report([line for lines in EVERYTHING.values() for line in lines])
    titles = page.titles()
    for task, title in TITLES.items():
        assert title in titles
        assert "data:image/jpeg;base64," in page.section(title), task
    for name in ("VQA", "VQA by type of question", "VQA: what is confused", "NLVR2", "VCR", "Grounding", "Captioning"):
        assert name in titles and f"## {name}\n" in markdown
    for name in ("VQA", "NLVR2", "VCR", "grounding", "captioning"):
        assert f"Worst mistakes: {name}" in titles
    assert page.addresses and all(address.startswith("data:image/") for address in page.addresses)


def test_a_report_of_one_task_speaks_of_no_other(report):
    page, markdown = report(PAIRS)
    assert page.titles() == ["NLVR2", "Statements about two pictures", "Worst mistakes: NLVR2"]
    assert "VQA" not in markdown and "Caption" not in markdown


def test_no_text_becomes_markup(report):
    lines = [
        vqa("k0", HOSTILE, HOSTILE, ["1"] * 9 + [HOSTILE], HOSTILE),
        vqa("k1", HOSTILE, "1", [HOSTILE], HOSTILE),
        nlvr2("k0", "k1", HOSTILE, 0.9, False, HOSTILE),
        vcr("k0", "answer", [0.0, 2.0, 0.0, 0.0], 0, [HOSTILE] * 4, HOSTILE),
        grounding("k0", "box", overlap=0.1) | {"text": HOSTILE},
        captioning("k0", HOSTILE, HOSTILE, prompt=HOSTILE),
        captioning("k1", "two fish", HOSTILE),
    ]
    page, markdown = report(lines, told={"k0": asked([0], label=HOSTILE)})
    assert page.scripts == 0 and "<script" not in page.source
    assert "".join(page.words).count(HOSTILE) > 20  # they are there all the same, as they were written
    assert "<script" not in markdown.replace("\\<", "") and "script" in markdown


def test_questions_stand_with_their_answers_and_those_of_people(report):
    page, markdown = report(QUESTIONS)
    cards = re.findall("<figcaption>(.*?)</figcaption>", page.section("Questions and answers"))
    assert len(cards) == len(QUESTIONS)
    assert '<b class="yes">2 ✓</b> · 50 %' in cards[0] and "people: 2 (9), 3 (1)" in cards[0]
    assert '<b class="no">2 ✗</b> · 90 %' in cards[1] and "people: 1 (10)" in cards[1]
    worst = re.findall("<figcaption><b>(.*?)</b>", page.section("Worst mistakes: VQA"))
    assert worst == ["how many dogs ?", "which colour ?", "how many cats ?"]  # most certain first, one of each picture
    assert "- “how many dogs ?” of k0: 2 (90 %), people said 1 (10)" in markdown
    assert "| colour | 0.0 | 100.0 | 1 |" in markdown and "| count | 40.0 | 80.0 | 5 |" in markdown


def test_confusions_are_counted_by_type_of_question(report):
    _, markdown = report(QUESTIONS, pictures=False)
    block = markdown.split("## VQA: what is confused")[1].split("The most")[0].strip().splitlines()
    assert block[2:] == [
        "| count: “2” for “1” | 2 | 4 |",
        "| count: “3” for “1” | 1 | 4 |",
        "| colour: “red” for “dark blue” | 1 | 1 |",
    ]


def test_questions_without_types_are_confused_all_the_same(report):
    single = [vqa("k0", "?", "a", ["b"], None), vqa("k0", "?", "b", ["b"], None)]
    _, markdown = report(single, pictures=False)
    assert "| “a” for “b” | 1 | 2 |" in markdown and "by type" not in markdown


def test_a_statement_stands_with_all_its_pairs_and_says_whether_it_is_consistent(report):
    page, markdown = report(PAIRS)
    shown = page.section("Statements about two pictures")
    first, second = re.findall(r'<div class="query">(.*?)(?=<div class="query">|$)', shown)
    assert "both are red" in first and "2 of 2 right: consistent" in first
    assert re.findall(r'title="(k\d)"', first) == ["k0", "k1", "k0", "k2"]
    assert '<b class="yes">true ✓</b> · 90 %' in first and '<b class="yes">false ✓</b> · 80 %' in first
    assert "0 of 2 right: not consistent" in second and "true ✗</b> · 70 %, it is false" in second
    assert "- “one is blue” of k1 and k2: false (95 %), it is true" in markdown  # the most certain one of k1
    assert f"| judged | {share(2, 4)} | {share(1, 2)} |" in markdown
    assert "| chance (a coin for each pair) | 50.0 | 25.0 |" in markdown


def test_choices_stand_beside_the_objects_that_they_speak_of(report):
    page, markdown = report(CHOICES)
    first, second = page.section("Questions with four choices").split('<div class="query">')[1:]
    star1 = '<i class="object hue0" style="left:20.0%;top:50.0%;width:40.0%;height:40.0%"><b>star1</b></i>'
    star2 = '<i class="object hue1 high" style="left:10.0%;top:0.0%;width:20.0%;height:20.0%"><b>star2</b></i>'
    assert star1 in first and star2 in first  # the second is named by a choice alone
    answers, reasons = re.findall("<ol>(.*?)</ol>", first)
    assert '<li class="right">b ✓<small>71 %, chosen</small></li>' in answers and "wrong" not in answers
    assert '<li class="wrong">a ✗<small>87 %, chosen</small></li>' in reasons
    assert '<li class="right">c ✓<small>4 %</small></li>' in reasons
    assert second.count("<ol>") == 1
    assert "- QA → R “what is star1 ?” of k0: “a” (87 %), right is “c” (4 %)" in markdown
    assert f"| chosen | {share(1, 2)} | {share(0, 1)} | {share(0, 1)} |" in markdown


def test_without_the_right_answer_the_reason_for_the_chosen_one_is_shown(report):
    scores = [0.0, 0.0, 5.0, 0.0]
    reasons = [vcr("k0", "rationale", scores, None, [f"for {n}"] * 4, given=n) for n in range(4)]
    page, _ = report([vcr("k0", "answer", scores, None), *reasons])
    shown = page.section("Questions with four choices")
    assert shown.count("<ol>") == 2 and "for 2" in shown and "for 1" not in shown
    assert '<li class="chosen">c<small>98 %, chosen</small></li>' in shown


def test_captions_stand_beside_their_references_with_their_own_cider(report):
    page, markdown = report(CAPTIONS)
    shown = page.section("Captions").split('<div class="query">')[1:]
    words = [caption_words(line["caption"]) for line in CAPTIONS]
    scores = cider(words, [[caption_words(text) for text in line["references"]] for line in CAPTIONS])
    for text, line, score in zip(shown, CAPTIONS, scores, strict=True):
        assert f"“{line['caption']}” <small>CIDEr {100 * score:.0f}</small>" in text
        assert re.findall("<li>(.*?)</li>", text) == line["references"]
    assert scores[1] == 0 and "- k1: “two fish” (CIDEr 0), people wrote “a blue house stands on a hill”" in markdown
    worst = [line for line, score in zip(CAPTIONS, scores, strict=True) if score < scores.mean()]
    assert page.section("Worst mistakes: captioning").count("<figure") == len(worst) < len(CAPTIONS)
    assert "| chance (caption of another image) |" in markdown


def test_a_single_caption_has_no_cider_of_its_own(report):
    page, markdown = report([*CAPTIONS[:1], captioning("k1", "who knows", prompt="a picture of")])
    assert "chance" not in markdown
    assert "CIDEr" not in page.section("Captions") and "Worst mistakes" not in markdown
    assert "no references" in page.section("Captions") and "prompt “a picture of”" in page.section("Captions")


def test_every_method_of_grounding_shows_its_boxes(report):
    chosen = [grounding("k0", "proposals", score=0.25), grounding("k1", "proposals", overlap=0.2, score=0.5)]
    page, markdown = report([*chosen, *(grounding(key, "gradcam", point=[0.2, 0.2]) for key in ("k0", "k1"))])
    assert " · IoU 1.00 · 25 %" in page.section("Phrases choose regions")
    assert page.section("Phrases light up boxes").count('class="predicted"') == 2
    assert "Worst mistakes: phrases choose regions" in page.titles()
    assert markdown.count("IoU 0.20") == 1
    assert "heat maps that peak in the box" in page.source  # the tile


def unknown(line):
    truth = {"vqa": "answers", "nlvr2": "label", "vcr": "label", "grounding": "truth", "captioning": "references"}
    field = truth[line["task"]]
    return line | {field: [] if field == "references" else None} | ({"iou": None} if field == "truth" else {})


@pytest.mark.parametrize("task", EVERYTHING)
def test_answers_without_a_truth_are_shown_and_not_judged(report, task):
    page, markdown = report([unknown(line) for line in EVERYTHING[task]])
    shown = page.section(TITLES[task])
    assert "<figure" in shown and not re.search("[✓✗]|true box|IoU|people:|right:", shown)
    assert "Worst mistakes" not in markdown and "Worst mistakes" not in page.source
    assert f"| answers | {len(EVERYTHING[task])} |" in markdown and "right ones are not known" in markdown
    assert "0.0" not in markdown


def test_answers_that_nobody_can_judge_are_counted_beside_the_scores():
    known = {"accuracy": 50.0, "questions": 2, "images": 1, "confidence_95": {"accuracy": [1.0, 99.0]}}
    scores = {"test": {"vqa": known | {"chance": {"accuracy": 25.0}}}, "hidden": {"vqa": {"unscored": 7}}}
    table, note = score_tables(scores)["VQA"]
    assert table.groups == [("test", 1)] and "2 questions about 1 images in test" in note
    assert note.endswith("Without a known answer: 7 more in hidden.")


def test_the_terminal_shows_intervals_where_it_has_room(make_run):
    lines = [line for lines in EVERYTHING.values() for line in lines]
    run, _ = make_run(lines, told=RECORDS)
    console = Console(width=120, file=StringIO())
    print_tables(run / "evaluation", console)
    printed = console.file.getvalue()
    for title in ("VQA", "VQA by type of question", "NLVR2", "VCR", "Grounding", "Captioning"):
        assert re.search(rf"^{title} *$", printed, re.MULTILINE)
    assert share(1, 2).split("(")[1].rstrip(")") in printed  # one of two statements: a table of two columns
    captions = printed.split("Captioning")[1]
    assert "CIDEr" in captions and " to " not in captions


def test_the_page_says_that_a_baseline_saw_nothing(make_run):
    recipe = "title: blind\ninitial_weights: runs/first\nblind: true\n"
    run, _ = make_run(PAIRS, recipe=recipe)
    write_report(run, None)
    markdown = (run / "evaluation/report.md").read_text()
    assert "- initial weights: runs/first" in markdown and "- blind: the images show nothing" in markdown
