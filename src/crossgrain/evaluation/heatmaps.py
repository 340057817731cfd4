"""Heat maps of grounding in the report: what matching looked at, laid over its picture."""

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from crossgrain.data.thumbnails import data_uri
from crossgrain.documents.markup import Html, join, tag
from crossgrain.evaluation.pictures import Pictures
from crossgrain.metrics.grounding import pointing_game
from crossgrain.tasks.heat import from_line, spread
from crossgrain.tasks.interface import Line

NUM_SHOWN = 10
SIDE = 64  # pixels of a drawn map, which is stretched over the picture
OPACITY = 0.8  # at the peak; where there is no heat, the picture shows as it is
COLOURS = "inferno"  # of matplotlib


def heat_map_sections(lines: Sequence[Line], pictures: Pictures) -> Iterator[tuple[str, str | Html, Html]]:
    """Title, note and body: phrases at equal distances through the split, and those whose peak is furthest off.

    Lines of other methods, which have no heat map, are left out.
    """
    mapped = [line for line in lines if "heat" in line]
    if not mapped:
        return
    legend = [tag("span", tag("span", class_=f"key {kind}"), f"{kind} box") for kind in ("true", "predicted")]
    count = min(NUM_SHOWN, len(mapped))
    shown = [mapped[(2 * place + 1) * len(mapped) // (2 * count)] for place in range(count)]
    what = "What the match of a phrase with its picture rests on; the ring is where that is most."
    note = join([f"{what} Phrases at equal distances through the split.", *legend])
    yield "Heat maps", note, _figures(shown, pictures)
    if missed := _furthest_off(mapped):
        note = join(["The peaks that are furthest from the box they should be in, at most one per picture.", *legend])
        yield "Worst mistakes: heat maps", note, _figures(missed, pictures)


def drawn(heat: Mapping[str, Any]) -> UInt8[np.ndarray, "S S 4"]:
    """A heat map of a line as a picture in red, green, blue and opacity, the hotter the more opaque."""
    from matplotlib import colormaps

    smooth = np.clip(spread(from_line(heat), (SIDE, SIDE)), 0, 1)
    colour = np.asarray(colormaps[COLOURS](smooth))
    colour[..., 3] = OPACITY * smooth**0.7
    return np.rint(255 * colour).astype(np.uint8)


def _figures(lines: Sequence[Line], pictures: Pictures) -> Html:
    return tag("div", *(_figure(line, pictures) for line in lines), class_="grid")


def _figure(line: Line, pictures: Pictures) -> Html:
    boxes = [("predicted", line["box"])]
    hit = ""
    if line["truth"] is not None:
        boxes.insert(0, ("true", line["truth"]))
        hit = " · inside" if _distance(line) == 0 else " · outside"
    left, top = (f"{100 * side:.1f}%" for side in line["point"])
    point = tag("b", class_="point", style=f"left:{left};top:{top}")
    file = io.BytesIO()
    Image.fromarray(drawn(line["heat"]), "RGBA").save(file, "PNG", optimize=True)
    uri = data_uri(file.getvalue(), "image/png")
    over = [tag("img", src=uri, class_="heat", alt=""), point]
    return pictures.figure(line["key"], tag("span", tag("b", line["text"]), hit), boxes, over)


def _furthest_off(lines: Sequence[Line]) -> list[Line]:
    """The peaks outside of their boxes, the furthest first, one of each picture."""
    missed = [line for line in lines if line["truth"] is not None and _distance(line) > 0]
    furthest: dict[str, Line] = {}
    for line in sorted(missed, key=_distance, reverse=True):
        furthest.setdefault(line["key"], line)
    return list(furthest.values())[:NUM_SHOWN]


def _distance(line: Line) -> float:
    """How far the peak is from its box, along the axis on which it is further; 0 inside."""
    point, box = np.array([line["point"]]), np.array([line["truth"]])
    if pointing_game(point, box)[0]:
        return 0.0
    return float(np.maximum(box[:, :2] - point, point - box[:, 2:]).max())
