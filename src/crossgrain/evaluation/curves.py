"""Training curves as one SVG of small panels, from the lines of log.jsonl."""

import io
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from crossgrain.data.thumbnails import data_uri

PANELS_PER_ROW = 4
_BLUE, _INK, _GREY = "#2563a8", "#333a44", "#8a93a0"


def curve_names(log: Sequence[dict[str, Any]]) -> list[str]:
    """What is worth a panel: the total loss, each objective's parts, the rate and the validation score."""
    numbers = {key for line in log for key, value in line.items() if isinstance(value, int | float)}
    inner = sorted(key for key in numbers if "/" in key and not key.startswith("validation/"))
    inner.sort(key=lambda key: (not key.endswith("/loss"), key))  # losses first
    ordered = ["loss", *inner, *sorted(key for key in numbers if key.startswith("validation/")), "lr"]
    return [name for name in ordered if name in numbers]


def draw_curves(log: Sequence[dict[str, Any]], stages: Sequence[tuple[str, int]] = ()) -> str | None:
    """The panels as an SVG data URI; None where the log holds fewer than two steps of anything.

    `stages` are the names of the run's stages, each with its number of steps: where one follows another stands a line.
    """
    series = {name: _series(log, name) for name in curve_names(log)}
    series = {name: points for name, points in series.items() if len(points[0]) > 1}
    if not series:
        return None
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rows = -(-len(series) // PANELS_PER_ROW)
    with matplotlib.rc_context({"svg.hashsalt": "crossgrain", "font.size": 8, "font.family": "sans-serif"}):
        figure = Figure(figsize=(11, 1.9 * rows), layout="constrained")
        for place, (name, (steps, values)) in enumerate(series.items(), start=1):
            axes = figure.add_subplot(rows, PANELS_PER_ROW, place)
            smooth = _smooth(values)
            axes.plot(steps, values, color=_BLUE, linewidth=0.7, alpha=0.3 if smooth is not values else 1.0)
            axes.plot(steps, smooth, color=_BLUE, linewidth=1.4)
            axes.set_title(f"{name.replace('/', ' ')}", fontsize=9, color=_INK, loc="left")
            axes.set_title(f"{smooth[-1]:.3g}", fontsize=9, color=_BLUE, loc="right")
            axes.spines[["top", "right"]].set_visible(False)
            axes.spines[["left", "bottom"]].set_color("#c8ced6")
            axes.tick_params(colors=_GREY, length=2)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.grid(axis="y", color="#eceff3", linewidth=0.6)
            _mark_stages(axes, stages, steps[-1])
        picture = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(picture, metadata={"Date": None})
    return data_uri(picture.getvalue(), "image/svg+xml")


def _mark_stages(axes: Any, stages: Sequence[tuple[str, int]], last_step: float) -> None:
    """A line where each stage but the first begins, and every stage's name at its beginning."""
    begins = [0, *accumulate(steps for _, steps in stages)]
    begun = [(name, begin) for (name, _), begin in zip(stages, begins, strict=False) if begin < last_step]
    if len(stages) < 2:
        return
    for name, begin in begun:
        if begin:
            axes.axvline(begin, color=_GREY, linewidth=0.8, linestyle=(0, (3, 2)))
        place = {"xy": (begin, 1), "xycoords": ("data", "axes fraction")}
        offset = {"xytext": (2, -1), "textcoords": "offset points", "va": "top"}
        axes.annotate(name, **place, **offset, fontsize=6, color=_GREY, annotation_clip=False)


def _series(log: Sequence[dict[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    points = [(line["step"], line[name]) for line in log if isinstance(line.get(name), int | float)]
    steps, values = np.array(points, dtype=float).reshape(-1, 2).T
    known = np.isfinite(values)
    return steps[known], values[known]


def _smooth(values: np.ndarray) -> np.ndarray:
    """A centred moving average over a twentieth of the run; short runs stay as they are."""
    half = len(values) // 40
    if half == 0:
        return values
    total = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    first, last = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    return (total[last] - total[first]) / (last - first)
