"""The page of a collection: what became of everything it met, with pictures; and its datasheet.

All of it is read from the folder of the run: funnel.json, the shards, the examples, recipe.yaml, the take-downs. The
same folder gives the same bytes.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from crossgrain.collect.composition import Composition, measure
from crossgrain.collect.datasheet import GIVEN_UP_MEANS, datasheet, funnel_table, given_up_table, opt_outs, unsafe_line
from crossgrain.collect.funnel import FUNNEL, FunnelRow, read_funnel, read_given_up
from crossgrain.collect.samples import KEPT, SAMPLES, Sample, read_samples
from crossgrain.collect.takedown import data_folder
from crossgrain.collect.tombstones import Tombstones
from crossgrain.config import read_yaml
from crossgrain.data.thumbnails import data_uri
from crossgrain.documents.charts import bar_table, histogram, percent, top
from crossgrain.documents.markup import Html, Table, tag
from crossgrain.documents.page import fact_list, page, remark, section, tiles
from crossgrain.documents.writing import write_whole

REPORT, DATASHEET = "report.html", "datasheet.md"
NUM_DOMAINS = 30
NUM_LICENCES = 12
_VEILED = ("unsafe",)  # words in reasons whose pictures are shown blurred
_MAX_SHOWN = 160  # characters of a text or an address


def write_report(run: Path) -> list[Path]:
    """Write report.html and datasheet.md into the folder of a finished collection; their paths."""
    rows = read_funnel(run / FUNNEL)
    found = measure(data_folder(run))
    recipe = run / "recipe.yaml"
    text = recipe.read_text(encoding="utf-8") if recipe.is_file() else ""
    tree = read_yaml(text, str(recipe)) if text else {}
    title = str(tree.get("title") or run.resolve().name) if isinstance(tree, dict) else run.resolve().name
    tombstones, given_up = Tombstones.load(run), read_given_up(run)
    drawn = _page(title, rows, found, read_samples(run / "samples" / SAMPLES), tombstones, given_up)
    write_whole(run / REPORT, [drawn])
    write_whole(run / DATASHEET, [datasheet(title, rows, found, text, tombstones, given_up)])
    return [run / REPORT, run / DATASHEET]


def _page(
    title: str,
    rows: Sequence[FunnelRow],
    found: Composition,
    samples: Sequence[Sample],
    tombstones: Tombstones,
    given_up: Sequence[Mapping[str, str]],
) -> str:
    lost = [section("Given up", remark(GIVEN_UP_MEANS), given_up_table(given_up).to_html())] if given_up else []
    sections = [
        *lost,
        _funnel_section(rows),
        *_reason_sections(rows, samples),
        _opt_out_section(rows, found, tombstones),
    ]
    if found.num_records:
        sections += [_numbers_section(found), _origin_section(found)]
    return page(f"{title}: collected pairs", tiles(_headline(rows, found)), fact_list(_facts(found)), *sections)


def _headline(rows: Sequence[FunnelRow], found: Composition) -> Iterator[tuple[str, str, str]]:
    kept = found.num_records
    yield f"{kept:,}", "pairs", f"in {len(found.manifest['shards']):,} shards"
    firsts = {row.unit: row for row in reversed(rows)}
    if (pages := firsts.get("pages")) and pages.num_in:
        yield f"{pages.num_in:,}", "pages read", f"{kept / pages.num_in:.2g} pairs a page"
    if (images := firsts.get("images")) and images.num_in:
        yield f"{images.num_in:,}", "images met", f"{percent(kept, images.num_in)} are in the data"
    if len(found.words):
        yield f"{found.words.mean():.1f}", "words a text", f"half have {np.median(found.words):.0f} or fewer"


def _facts(found: Composition) -> dict[str, str]:
    splits = ", ".join(f"{name} {count:,}" for name, count in found.manifest["splits"].items())
    facts = {"splits": splits, "size": f"{found.num_bytes / 1e6:,.1f} MB"}
    facts |= {"sites of images": f"{len(found.image_domains):,}", "sites of pages": f"{len(found.page_domains):,}"}
    return facts


def _funnel_section(rows: Sequence[FunnelRow]) -> Html:
    told = (
        "Whatever comes into a stage comes out of it or is dropped for one reason: in = out + dropped, in every line."
    )
    return section("Funnel", remark(told), funnel_table(rows).to_html())


def _reason_sections(rows: Sequence[FunnelRow], samples: Sequence[Sample]) -> Iterator[Html]:
    """For every stage: the reasons with their counts, and examples of each and of what was kept."""
    shown = {stage: list(group) for stage, group in groupby(samples, key=lambda sample: sample.stage)}
    for stage, group in groupby(rows, key=lambda row: row.stage):
        children: list[Html] = []
        for row in group:
            if not row.dropped:  # the funnel says it all
                continue
            children.append(tag("h3", row.unit[:1].upper() + row.unit[1:], tag("small", f"{row.num_in:,} in")))
            counts, kinds = [("kept", row.num_out), *row.sorted_drops()], ["kept", *["lost"] * len(row.dropped)]
            children.append(bar_table(counts, row.num_in, f"of {row.unit}", kinds))
        for reason, examples in groupby(shown.pop(stage, []), key=lambda sample: sample.reason):
            children += _examples(reason, list(examples))
        if children:
            yield section(f"Stage: {stage}", *children)
    for stage, rest in shown.items():  # of a stage that has no line of its own
        children = [
            child for reason, some in groupby(rest, key=lambda s: s.reason) for child in _examples(reason, list(some))
        ]
        yield section(f"Stage: {stage}", *children)


def _examples(reason: str, samples: Sequence[Sample]) -> list[Html]:
    veiled = any(word in reason.lower() for word in _VEILED)
    heading = tag("h3", "Kept" if reason == KEPT else f"Dropped: {reason}", tag("small", "examples"))
    kind = "samples" if any(sample.picture for sample in samples) else "samples words"
    return [heading, tag("div", *(_figure(sample, veiled) for sample in samples), class_=kind)]


def _figure(sample: Sample, veiled: bool) -> Html:
    told = [tag("b", _short(sample.text))] if sample.text else []
    for text in (sample.detail, sample.image_url or sample.page_url):
        told += [*([tag("br")] if told else []), tag("span", _short(text), title=text)] if text else []
    if not sample.picture:
        return tag("figure", tag("figcaption", *told), class_="words")
    image = tag("img", src=data_uri(sample.picture), alt=_short(sample.text) or "example")
    return tag("figure", tag("span", image, class_="frame veiled" if veiled else "frame"), tag("figcaption", *told))


def _short(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"


def _opt_out_section(rows: Sequence[FunnelRow], found: Composition, tombstones: Tombstones) -> Html:
    lines = [[signal, stage, unit, f"{count:,}"] for signal, stage, unit, count in opt_outs(rows)]
    told = "What was left out because its site, page, headers or file ask for it, by the signal that decided."
    children = [remark(told)]
    if lines:
        children.append(Table(["signal", "stage", "unit", "dropped"], lines).to_html())
    else:
        children.append(tag("p", "No signal was met."))
    if found.checked:
        children.append(tag("h3", "Asked before a picture was kept"))
        children.append(bar_table(top(found.checked, 20, "others"), found.num_records, "of pairs"))
    told = f"Take-downs that are listed and honoured: {len(tombstones.entries):,}."
    return section("Opt-outs and take-downs", *children, tag("p", told))


def _numbers_section(found: Composition) -> Html:
    charts = [
        histogram("Words of a text", found.words),
        *([histogram("Score of a pair", found.scores, ".3f")] if np.isfinite(found.scores).any() else []),
        histogram("Width, pixels", found.widths),
        histogram("Height, pixels", found.heights),
        histogram("Kilobytes of a picture", found.image_bytes / 1000, ",.1f"),
    ]
    return section("Texts, scores and sizes", tag("div", *charts, class_="charts"), remark(unsafe_line(found)))


def _origin_section(found: Composition) -> Html:
    lists: list[tuple[str, Mapping[str, Any], int]] = [
        ("Languages", found.languages, NUM_LICENCES),
        ("Where the text stood", found.text_kinds, NUM_LICENCES),
        ("Licences, as pages state them", found.licences, NUM_LICENCES),
        ("Sites of images", found.image_domains, NUM_DOMAINS),
        ("Sites of pages", found.page_domains, NUM_DOMAINS),
    ]
    drawn = [
        tag("div", tag("h3", name), bar_table(top(counts, most, "others"), found.num_records, "of pairs"))
        for name, counts, most in lists
    ]
    return section("Origin", tag("div", *drawn, class_="lists"))
