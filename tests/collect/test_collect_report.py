"""The page and the datasheet of a collection: every number of the account, pictures inside, nothing from elsewhere."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from collected import SITES, collected_record, picture, write_collection
from PIL import Image

from crossgrain.collect.composition import measure
from crossgrain.collect.datasheet import unsafe_line
from crossgrain.collect.domains import is_public_suffix, registrable_domain
from crossgrain.collect.funnel import FunnelRow, funnel_lines, merge_rows, read_funnel, write_funnel
from crossgrain.collect.report import write_report
from crossgrain.collect.samples import Sample, Samples, read_samples, write_samples
from crossgrain.collect.takedown import remove
from crossgrain.config import UserError
from crossgrain.data.shards import Shards
from crossgrain.documents.charts import histogram, percent, top

VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """What a page holds; every element must be closed in order."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.headings: list[str] = []
        self.images: list[str] = []
        self.rows: list[list[str]] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.addresses += [values[name] for name in ("href", "src", "action") if values.get(name)]
        if tag == "img":
            self.images.append(values["src"])
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
        if tag in ("h2", "h3"):
            self.headings.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if {"td", "th"} & set(self.open[-2:]) and self.rows:
            self.rows[-1][-1] += data
        if self.open and self.open[-1] in ("h2", "h3"):
            self.headings[-1] += data


@pytest.fixture
def run(tmp_path):
    return write_collection(tmp_path / "web")


def read_page(run) -> Reader:
    return Reader((run / "report.html").read_text(encoding="utf-8"))


def test_the_page_says_what_became_of_everything(run):
    page, sheet = write_report(run)
    assert (page, sheet) == (run / "report.html", run / "datasheet.md")
    read = read_page(run)
    for row in read_funnel(run / "funnel.json"):
        kept = percent(row.num_out, row.num_in)
        assert [row.stage, row.unit, f"{row.num_in}", f"{row.num_dropped}", f"{row.num_out}", kept] in read.rows
        assert not row.dropped or ["kept", "", f"{row.num_out}", kept] in read.rows
        for reason, count in row.dropped.items():
            assert [reason, "", f"{count}", percent(count, row.num_in)] in read.rows
    assert ["icon", "", "110", "55.0 %"] in read.rows
    assert {"Funnel", "Stage: pages", "Stage: images", "Stage: aggregate", "Origin"} <= set(read.headings)
    assert {"Dropped: too small", "Kept", "Dropped: declared too small"} <= set(read.headings)
    assert ["meta noai", "pages", "pages", "5"] in read.rows
    assert ["example.org", "", "4", "33.3 %"] in read.rows
    assert ["not said", "", "9", "75.0 %"] in read.rows
    assert ["robots.txt", "", "12", "100.0 %"] in read.rows


def test_pictures_are_inside_and_nothing_is_loaded_from_elsewhere(run):
    write_report(run)
    read = read_page(run)
    assert len(read.images) == 4 + 4  # kept, and dropped with a picture; the logo has none
    for uri in read.images:
        data = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"), validate=True)
        with Image.open(io.BytesIO(data)) as image:
            assert max(image.size) <= 160
    assert [address for address in read.addresses if not address.startswith("data:image/jpeg;base64,")] == []
    text = (run / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"@import|url\(|<script|<link|<iframe", text) == []


def test_what_pages_say_is_text_and_never_markup(run):
    hostile = '<img src=x onerror="alert(1)"><script>alert(2)</script>'
    samples = [
        *read_samples(run / "samples/samples.jsonl"),
        Sample(stage=hostile, reason=hostile, text=hostile, image_url=f"javascript:{hostile}", detail=hostile),
    ]
    write_samples(run / "samples/samples.jsonl", samples)
    rows = read_funnel(run / "funnel.json")
    write_funnel(
        run / "funnel.json", [*rows, FunnelRow(stage="x", unit="y", num_in=1, num_out=0, dropped={hostile: 1})]
    )
    (run / "recipe.yaml").write_text("title: <b>bold</b> | *x*\n")
    write_report(run)
    read = read_page(run)  # every element is closed, none is a script
    assert hostile in read.text
    assert not any("onerror" in (address or "") for address in read.addresses)
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text and "<b>bold" not in text
    sheet = (run / "datasheet.md").read_text(encoding="utf-8")
    assert "<script" not in sheet.replace("\\<", "")
    assert "# Datasheet: \\<b\\>bold\\</b\\> \\| \\*x\\*" in sheet


def test_unsafe_pictures_are_veiled(run):
    samples = [
        Sample(stage="images", reason="unsafe content", picture=picture(1)),
        Sample(stage="images", reason="grey"),
    ]
    write_samples(run / "samples/samples.jsonl", samples)
    write_report(run)
    text = (run / "report.html").read_text(encoding="utf-8")
    assert text.count('class="frame veiled"') == 1


def test_the_datasheet_tells_the_run_and_leaves_the_rest_to_people(run):
    write_report(run)
    sheet = (run / "datasheet.md").read_text(encoding="utf-8")
    for heading in ("Motivation", "Composition", "Collection process", "Opt-outs", "Uses", "Maintenance and take-down"):
        assert f"## {heading}" in sheet
    assert "| pairs | 12 |" in sheet
    assert "```yaml\ntitle: a test\nseed: 3\nfetch:\n  agent: crossgrain\n```" in sheet
    assert "| meta noai | pages | 5 pages |" in sheet
    assert "| icon | 110 | 55.0 % |" in sheet
    assert "crossgrain collect remove THIS_FOLDER --url" in sheet
    assert sheet.count("*To be filled in by the operator:*") >= 5


def test_whether_a_classifier_of_unsafe_content_was_asked_is_said(run):
    write_report(run)
    for file in ("report.html", "datasheet.md"):
        assert "A classifier of unsafe content has judged 12 of the pictures." in (run / file).read_text()
    found = measure(run / "shards")
    found.num_judged_unsafe = 0
    assert unsafe_line(found) == "No classifier of unsafe content was named: no picture was judged by one."


def test_a_recipe_cannot_end_its_block_in_the_datasheet(run):
    (run / "recipe.yaml").write_text("title: a\nnote: |\n  ```\n  # Forged\n")
    write_report(run)
    sheet = (run / "datasheet.md").read_text(encoding="utf-8")
    assert sheet.count("```yaml") == 1 and sheet.count("\n```\n") == 2


def test_the_same_folder_gives_the_same_bytes(run):
    first = [file.read_bytes() for file in write_report(run)]
    assert [file.read_bytes() for file in write_report(run)] == first


def test_after_a_take_down_the_page_says_so_and_shows_it_no_more(run):
    write_report(run)
    before = read_page(run)
    url = collected_record(0)[0].extra["provenance"]["image_url"]
    assert url in before.text
    remove(run, urls=[url])
    write_report(run)
    after = read_page(run)
    assert url not in after.text
    assert ["takedown", "pairs", "12", "1", "11", "91.7 %"] in after.rows
    assert "| pairs | 11 |" in (run / "datasheet.md").read_text(encoding="utf-8")


def test_a_collection_that_kept_nothing_has_a_page(tmp_path):
    run = write_collection(tmp_path / "web", 1)
    remove(run, domains=["example.org"])
    write_report(run)
    read = read_page(run)
    assert "Origin" not in read.headings
    assert ["takedown", "pairs", "1", "1", "0", "0.0 %"] in read.rows


def test_composition_counts_every_record(run):
    found = measure(run / "shards")
    assert found.num_records == 12
    assert found.words.tolist() == [len(record.captions[0].split()) for record in Shards(run / "shards")]
    assert sum(found.image_domains.values()) == sum(found.licences.values()) == 12
    assert set(found.image_domains) == {registrable_domain(f"https://{site}/") for site in SITES}
    assert np.allclose(sorted(found.scores), [0.2 + 0.05 * number for number in range(12)])
    assert found.text_kinds == {"alt": 4, "title": 4, "figcaption": 4}
    assert found.num_bytes == sum(file.stat().st_size for file in (run / "shards").glob("*.tar"))


def test_missing_files_are_named(run, tmp_path):
    (run / "funnel.json").write_text('[{"stage": "a", "unit": "b", "in": 3, "out": 1, "dropped": {"c": 1}}]')
    with pytest.raises(UserError, match="is not a funnel: the funnel does not add up at a, b: 3 in, 1 out, 1 dropped"):
        write_report(run)
    with pytest.raises(UserError, match="does not exist"):
        write_report(tmp_path / "nowhere")


# The account.


@pytest.mark.parametrize(
    "numbers",
    [
        {"num_in": 3, "num_out": 1, "dropped": {"a": 1}},
        {"num_in": 3, "num_out": 4, "dropped": {"a": -1}},
        {"num_in": -1, "num_out": -1},
    ],
)
def test_an_account_that_does_not_add_up_is_refused(numbers):
    with pytest.raises(ValueError, match="does not add up at images, pairs"):
        FunnelRow(stage="images", unit="pairs", **numbers)


def test_parts_add_up_in_the_order_of_their_stages(tmp_path):
    parts = [
        FunnelRow(stage="pages", unit="pages", num_in=5, num_out=3, dropped={"a": 1, "b": 1}),
        FunnelRow(stage="images", unit="images", num_in=3, num_out=3, dropped={"never": 0}),
        FunnelRow(stage="pages", unit="pages", num_in=10, num_out=4, dropped={"b": 5, "c": 1}),
    ]
    merged = merge_rows(parts)
    assert [row.to_json() for row in merged] == [
        {"stage": "pages", "unit": "pages", "in": 15, "out": 7, "dropped": {"b": 6, "a": 1, "c": 1}},
        {"stage": "images", "unit": "images", "in": 3, "out": 3, "dropped": {}},
    ]
    write_funnel(tmp_path / "funnel.json", merged)
    assert read_funnel(tmp_path / "funnel.json") == merged
    assert json.loads((tmp_path / "funnel.json").read_text())[0]["dropped"] == {"b": 6, "a": 1, "c": 1}
    assert funnel_lines(merged, most=1) == [
        "pages: 15 pages in, 7 out (46.7%)",
        "  6 x b",
        "  2 x 2 other reasons",
        "images: 3 images in, 3 out (100.0%)",
    ]
    assert funnel_lines(merged, most=2)[1:4] == ["  6 x b", "  1 x a", "  1 x c"]


# The examples.


def test_the_same_examples_are_chosen_in_whatever_order_and_parts_they_come(tmp_path):
    given = [
        Sample(stage=f"s{n % 2}", reason=("", "small")[n % 3 == 0], image_url=f"https://a.org/{n}") for n in range(90)
    ]
    forward, backward, first, second = Samples(5), Samples(5), Samples(5), Samples(5)
    for sample in given:
        forward.add(sample)
        (first if hash(sample.image_url) % 2 else second).add(sample)
    for sample in reversed(given):
        backward.add(sample)
    second.update(first)
    assert list(forward) == list(backward) == list(second)
    assert len(forward) == 4 * 5
    write_samples(tmp_path / "samples.jsonl", forward)
    assert read_samples(tmp_path / "samples.jsonl") == list(forward)
    assert read_samples(tmp_path / "gone.jsonl") == []


def test_only_chosen_pictures_are_decoded_and_broken_ones_are_left_out():
    asked = []

    def image(number):
        return lambda: asked.append(number) or picture(number, (400, 300))

    samples = Samples(2)
    for number in range(200):
        samples.add(Sample(stage="a", image_url=f"https://a.org/{number}"), image(number))
    assert len(asked) < 40  # the first, and each that goes before those that are there
    for sample in samples:
        with Image.open(io.BytesIO(sample.picture)) as small:
            assert small.size == (160, 120)
    samples.add(Sample(stage="b", reason="not an image"), b"no picture")
    assert [(sample.stage, sample.picture, len(sample.sha256)) for sample in samples][-1] == ("b", b"", 64)


def test_a_file_of_samples_that_is_none_is_named(tmp_path):
    (tmp_path / "samples.jsonl").write_text('{"stage": "a", "colour": 1}\n')
    with pytest.raises(UserError, match=r"samples\.jsonl holds no samples"):
        read_samples(tmp_path / "samples.jsonl")


# The parts of a page.


@pytest.mark.parametrize(
    ("url", "domain"),
    [
        ("https://img.shop.example.co.uk/a.jpg", "example.co.uk"),
        ("https://Example.ORG:8080/", "example.org"),
        ("http://127.0.0.1:9000/x", "127.0.0.1"),
        ("http://[2001:db8::1]/x", "2001:db8::1"),
        ("http://localhost/x", "localhost"),
        ("https://bücher.example/x", "xn--bcher-kva.example"),
        ("no url", ""),
    ],
)
def test_a_site_is_what_somebody_registered(url, domain):
    assert registrable_domain(url) == domain


def test_names_that_many_share_are_known():
    assert is_public_suffix("co.uk") and is_public_suffix("com")
    assert not is_public_suffix("example.com") and not is_public_suffix("10.0.0.1")


def test_shares_and_rests_are_told_honestly():
    assert (percent(1, 3), percent(0, 3), percent(1, 30000), percent(0, 0)) == ("33.3 %", "0.0 %", "0.0033 %", "")
    assert top({"b": 2, "a": 2, "c": 1, "d": 4}, 2, "others") == [("d", 4), ("a", 2), ("2 others", 3)]


@pytest.mark.parametrize(
    "values",
    [
        np.array([3]),
        np.array([3, 3, 9]),
        np.arange(100000),
        np.array([0.5]),
        np.linspace(0, 1, 50),
        np.array([1.0, np.nan]),
    ],
)
def test_a_histogram_counts_every_value(values):
    drawn = histogram("sizes", values, ".3f" if values.dtype.kind == "f" else ",.0f")
    counts = [int(count.replace(",", "")) for count in re.findall(r": ([\d,]+)</title>", drawn)]
    assert sum(counts) == np.isfinite(values).sum()
    Reader(drawn)


def test_a_histogram_of_nothing_says_so():
    assert "no values" in histogram("scores", np.array([np.nan]))
