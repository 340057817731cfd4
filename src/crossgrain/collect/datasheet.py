"""The datasheet of a collection: what it is, where it comes from, what was done to it, and how to have it changed.

It answers the questions of "Datasheets for Datasets" (Gebru et al., 2021) as far as the run knows; what only people
know is left for the operator to fill in, and marked.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from crossgrain.collect.composition import Composition
from crossgrain.collect.funnel import FunnelRow
from crossgrain.collect.tombstones import Tombstones
from crossgrain.documents.charts import percent, top
from crossgrain.documents.markup import Table, plain

OPTED_OUT = "opted out"  # opens the reasons of drops that somebody asked for
FILL_IN = "*To be filled in by the operator:*"
GIVEN_UP_MEANS = (
    "This collection is partial. These parts of the work were given up, and what they held is in no later stage; the "
    "same command tries them again."
)


def datasheet(
    title: str,
    rows: Sequence[FunnelRow],
    found: Composition,
    recipe: str,
    tombstones: Tombstones,
    given_up: Sequence[Mapping[str, str]] = (),
) -> str:
    """The sheet as Markdown; `recipe` is the text of recipe.yaml, `given_up` tells stage, part and reason."""
    parts = [
        f"# Datasheet: {plain(title)}",
        "Written by `crossgrain collect` from the run itself. The lines that only people can answer are marked.",
        *_motivation(),
        *_composition(found),
        *_process(rows, recipe, given_up),
        *_preprocessing(rows),
        *_opt_outs(rows, found, tombstones),
        *_uses(),
        *_maintenance(),
    ]
    return "\n\n".join(parts) + "\n"


def funnel_table(rows: Sequence[FunnelRow]) -> Table:
    """A line for every stage and unit: what came in, what was dropped, what came out, and how much of it that is."""
    lines = [
        [row.stage, row.unit, *(f"{number:,}" for number in (row.num_in, row.num_dropped, row.num_out)), _kept(row)]
        for row in rows
    ]
    return Table(["stage", "unit", "in", "dropped", "out", "kept"], lines)


def given_up_table(given_up: Sequence[Mapping[str, str]]) -> Table:
    """A line for every part of the work that was given up."""
    names = ["stage", "part", "reason"]
    return Table(names, [[one[name] for name in names] for one in given_up])


def opt_outs(rows: Sequence[FunnelRow]) -> list[tuple[str, str, str, int]]:
    """Signal, stage, unit and count of everything that was left out because somebody asked for it."""
    return [
        (reason.removeprefix(OPTED_OUT).lstrip(": ") or reason, row.stage, row.unit, count)
        for row in rows
        for reason, count in row.sorted_drops()
        if reason.startswith(OPTED_OUT)
    ]


def unsafe_line(found: Composition) -> str:
    """Whether a classifier of unsafe content has looked at the pictures."""
    if not found.num_judged_unsafe:
        return "No classifier of unsafe content was named: no picture was judged by one."
    return f"A classifier of unsafe content has judged {found.num_judged_unsafe:,} of the pictures."


def _motivation() -> Iterator[str]:
    yield "## Motivation"
    questions = (
        "For what purpose was this collection made, and by whom?",
        "Who paid for it, and on what legal ground may these texts and pictures be mined?",
    )
    yield "\n".join(f"- {FILL_IN} {question}" for question in questions)


def _composition(found: Composition) -> Iterator[str]:
    yield "## Composition"
    yield (
        "One record is one picture with a text that stood by it on a web page, and where both come from: addresses of "
        "page and picture, hashes of the file, the licence that the page states, the language, the score of the pair, "
        "and what was asked for opt-outs."
    )
    facts = [
        ("pairs", f"{found.num_records:,}"),
        ("splits", ", ".join(f"{name} {count:,}" for name, count in found.manifest["splits"].items()) or "none"),
        ("shards", f"{len(found.manifest['shards']):,}, {found.num_bytes / 1e6:,.1f} MB"),
        ("sites of pictures, of pages", f"{len(found.image_domains):,}, {len(found.page_domains):,}"),
    ]
    if found.num_records:
        facts += [
            ("words of a text", _spread(found.words)),
            ("width of a picture, pixels", _spread(found.widths)),
            ("height of a picture, pixels", _spread(found.heights)),
        ]
        if (scored := found.scores[np.isfinite(found.scores)]).size:
            facts.append(("score of a pair", _spread(scored, ".3f")))
    yield Table(["what", "how much"], [[name, value] for name, value in facts]).to_markdown()
    for name, counts, most in (
        ("Language", found.languages, 12),
        ("Where the text stood", found.text_kinds, 12),
        ("Licence, as the page states it", found.licences, 12),
        ("Site of the picture", found.image_domains, 30),
    ):
        if counts:
            yield _counts(name, counts, found.num_records, most)
    yield unsafe_line(found)
    yield (
        "The pictures and texts are those of other people. Nobody has looked at them one by one: errors, offensive "
        "content and pictures of persons are to be expected."
    )


def _process(rows: Sequence[FunnelRow], recipe: str, given_up: Sequence[Mapping[str, str]]) -> Iterator[str]:
    yield "## Collection process"
    yield (
        "In five stages: pages are read and the pictures on them that look like their subject are listed with their "
        "texts; pictures are taken from the archive or fetched, checked and hashed; texts are cleaned; pairs scored; "
        "pictures and texts that come again are brought together. Fetching is slow on purpose, names itself and asks "
        "first (see below). What came into each stage and out of it:"
    )
    yield funnel_table(rows).to_markdown()
    if given_up:
        yield GIVEN_UP_MEANS
        yield given_up_table(given_up).to_markdown()
    if recipe:
        yield "Every value that was used:"
        yield f"```yaml\n{recipe.replace('```', '` ` `').rstrip()}\n```"
    yield f"- {FILL_IN} When were the pages archived or fetched, and how were they chosen?"


def _preprocessing(rows: Sequence[FunnelRow]) -> Iterator[str]:
    yield "## Preprocessing, cleaning, filtering"
    for row in rows:
        if row.dropped:
            yield f"**{plain(row.stage)}**, of {row.num_in:,} {row.unit} dropped:"
            drops = [[reason, f"{count:,}", percent(count, row.num_in)] for reason, count in row.sorted_drops()]
            yield Table(["reason", row.unit, "share"], drops).to_markdown()
    yield "Pictures are kept as they were served or made smaller; places that a camera wrote into them are taken out."


def _opt_outs(rows: Sequence[FunnelRow], found: Composition, tombstones: Tombstones) -> Iterator[str]:
    yield "## Opt-outs"
    yield (
        "Before a picture is kept, its site's robots.txt and reservations, the headers and meta elements of its page, "
        "its own headers and the fields inside the file are asked whether it may be mined. Left out for that:"
    )
    lines = [[signal, stage, f"{count:,} {unit}"] for signal, stage, unit, count in opt_outs(rows)]
    yield Table(["signal", "stage", "dropped"], lines).to_markdown() if lines else "nothing: no signal was met."
    if found.checked:
        yield _counts("Asked", found.checked, found.num_records, 20)
    yield f"Take-downs that this collection honours: {len(tombstones.entries):,}."


def _uses() -> Iterator[str]:
    yield "## Uses"
    yield (
        "Recommended: pre-training of models that relate pictures and texts, and research on such data. The texts "
        "are noisy; measure on clean data. Not recommended: anything about single persons, such as recognising faces "
        "or guessing what people are; publishing pictures against their licences; decisions about people."
    )
    yield f"- {FILL_IN} Is the collection passed on, to whom, and under what terms?"


def _maintenance() -> Iterator[str]:
    yield "## Maintenance and take-down"
    yield "Whoever holds rights in a picture, or is shown in one, can have it taken out. The shards are rewritten:"
    yield (
        "```bash\n"
        "crossgrain collect remove THIS_FOLDER --url https://example.org/picture.jpg  # a picture, or a page\n"
        "crossgrain collect remove THIS_FOLDER --hash HASH                            # of the file, or perceptual\n"
        "crossgrain collect remove THIS_FOLDER --domain example.org                   # a site and its subdomains\n"
        "```"
    )
    yield "What was removed is listed in `tombstones.jsonl`, and no later run of this collection takes it in again."
    yield f"- {FILL_IN} Where do such requests go, and who answers them?"


def _spread(values: np.ndarray, number: str = ",.0f") -> str:
    median, mean = float(np.median(values)), float(values.mean())
    return f"{values.min():{number}} to {values.max():{number}}, median {median:{number}}, mean {mean:,.4g}"


def _counts(name: str, counts: Mapping[str, int], total: int, most: int) -> str:
    rows = [[label, f"{count:,}", percent(count, total)] for label, count in top(counts, most, "others")]
    return Table([name, "pairs", "share"], rows).to_markdown()


def _kept(row: FunnelRow) -> str:
    return percent(row.num_out, row.num_in)
