"""Counts as bars: a table with a bar in each row, and a histogram as a small drawing."""

from collections.abc import Mapping, Sequence

import numpy as np

from crossgrain.documents.markup import Html, tag

_WIDTH, _HEIGHT, _BELOW = 360, 120, 16  # of a histogram; below it stand the ends of its range
_MOST_BINS = 30


def bar_table(counts: Sequence[tuple[str, int]], total: int, share: str, kinds: Sequence[str] = ()) -> Html:
    """A row for each name with a bar, its count and its share of `total`; `kinds` gives each bar a CSS class."""
    longest = max((count for _, count in counts), default=0) or 1
    head = tag("tr", *(tag("th", title, scope="col") for title in ("", "", "count", share)))
    rows = [
        tag(
            "tr",
            tag("th", label, scope="row"),
            tag("td", tag("i", style=f"width:{100 * count / longest:.2f}%") if count else "", class_=f"bar {kind}"),
            tag("td", f"{count:,}"),
            tag("td", percent(count, total)),
        )
        for (label, count), kind in zip(counts, kinds or [""] * len(counts), strict=True)
    ]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows), class_="bars"), class_="scroll")


def percent(count: int, total: int) -> str:
    """A share in per cent, with a decimal where that tells something; empty where there is no whole."""
    if not total:
        return ""
    share = 100 * count / total
    return f"{share:.1f} %" if share >= 0.1 or not count else f"{share:.2g} %"


def top(counts: Mapping[str, int], most: int, other: str) -> list[tuple[str, int]]:
    """The most frequent names with their counts, equal counts by name, and the rest together under `other`."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = ordered[most:]
    return ordered[:most] + ([(f"{len(rest):,} {other}", sum(count for _, count in rest))] if rest else [])


def histogram(title: str, values: np.ndarray, number: str = ",.0f") -> Html:
    """How values (any number of them, real) are spread, drawn between their least and greatest.

    Integers of a small range have a bar each. `number` formats what is written: range, median, mean.
    """
    values = np.asarray(values)
    values = values[np.isfinite(values)]
    if not len(values):
        return tag("figure", tag("figcaption", tag("b", title), " no values"))
    edges = _edges(values)
    counts, _ = np.histogram(values, edges)
    scale, width = _HEIGHT / counts.max(), _WIDTH / len(counts)
    bars = [
        tag(
            "rect",
            tag("title", f"{_range(edges, index, values, number)}: {count:,}"),
            x=f"{index * width:.1f}",
            y=f"{_HEIGHT - count * scale:.1f}",
            width=f"{max(width - 1, 0.5):.1f}",
            height=f"{count * scale:.1f}",
        )
        for index, count in enumerate(counts.tolist())
        if count
    ]
    line = tag("line", x1=0, y1=_HEIGHT, x2=_WIDTH, y2=_HEIGHT)
    low, high = format(values.min(), number), format(values.max(), number)
    ends = [tag("text", low, x=0, y=_HEIGHT + 12), tag("text", high, x=_WIDTH, y=_HEIGHT + 12, text_anchor="end")]
    drawing = tag("svg", line, *bars, *ends, viewBox=f"0 0 {_WIDTH} {_HEIGHT + _BELOW}", role="img", aria_label=title)
    told = f"median {np.median(values):{number}}, mean {values.mean():{number}}"
    return tag("figure", drawing, tag("figcaption", tag("b", title), f" · {told}"))


def _edges(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if np.issubdtype(values.dtype, np.integer):
        step = max(1, -(-int(high - low + 1) // _MOST_BINS))
        return np.arange(low, high + step + 1, step) - 0.5
    return np.linspace(low, high if high > low else low + 1e-9, _MOST_BINS + 1)


def _range(edges: np.ndarray, index: int, values: np.ndarray, number: str) -> str:
    low, high = edges[index], edges[index + 1]
    if np.issubdtype(values.dtype, np.integer):
        low, high = np.ceil(low), np.floor(high)
    return format(low, number) if low == high else f"{low:{number}} to {high:{number}}"
