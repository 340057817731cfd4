"""Grounding: the boxes that phrases point at, beside the true ones. Heat maps stand in evaluation/heatmaps.py."""

from collections.abc import Iterator, Sequence

from crossgrain.documents.markup import Html, join, plain, tag
from crossgrain.evaluation.examples.selection import (
    NUM_WORST,
    Section,
    cards,
    grouped,
    one_per_picture,
    percent,
    spread,
)
from crossgrain.evaluation.pictures import Pictures
from crossgrain.tasks.interface import Line

NUM_BOXES = 10
TITLES = {"box": "Phrases point at boxes", "proposals": "Phrases choose regions", "gradcam": "Phrases light up boxes"}


def grounding_sections(lines: Sequence[Line], pictures: Pictures) -> Iterator[Section]:
    """Boxes predicted and true, and those that miss by most, of each method."""
    kinds = [*(["true"] if any(line["truth"] for line in lines) else []), "predicted"]
    legend = [tag("span", tag("span", class_=f"key {kind}"), f"{kind} box") for kind in kinds]
    methods = grouped(lines, _method)
    for some in methods:
        method = _method(some[0])
        note = join(["Phrases at equal distances through the split.", *legend])
        yield TITLES[method], note, cards(_figure(line, pictures) for line in spread(some, NUM_BOXES))
        if worst := _worst_boxes(some, NUM_BOXES):
            note = join(["The boxes with the lowest IoU, at most one per picture.", *legend])
            title = f"Worst mistakes: {TITLES[method].lower() if len(methods) > 1 else 'grounding'}"
            yield title, note, cards(_figure(line, pictures) for line in worst)


def grounding_mistakes(lines: Sequence[Line]) -> list[str]:
    """The boxes that miss by most, in Markdown; of several methods, those of the first."""
    return [
        f"“{plain(line['text'])}” in {plain(line['key'])}: IoU {line['iou']:.2f}"
        for line in _worst_boxes(grouped(lines, _method)[0], NUM_WORST)
    ]


def _method(line: Line) -> str:
    return line.get("method", "box")


def _worst_boxes(lines: Sequence[Line], count: int) -> list[Line]:
    """The lowest IoU below 0.5, one of each picture."""
    missed = (line for line in lines if line["truth"] and line["iou"] < 0.5)
    return one_per_picture(sorted(missed, key=lambda line: line["iou"]), count)


def _figure(line: Line, pictures: Pictures) -> Html:
    boxes = [("predicted", line["box"])]
    told = [tag("b", line["text"])]
    if line["truth"]:
        boxes.insert(0, ("true", line["truth"]))
        told.append(Html(f" · IoU {line['iou']:.2f}"))
    if "score" in line:
        told.append(Html(f" · {percent(line['score'])}"))
    return pictures.figure(line["key"], tag("span", *told), boxes)
