"""Candidates that another run has found: what a model that fuses pairs need not look at all of."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from crossgrain.config import UserError
from crossgrain.tasks.gallery import Gallery
from crossgrain.tasks.interface import Line

PREDICTIONS = ("evaluation/predictions.jsonl", "predictions.jsonl")  # in a run folder


class Listed(NamedTuple):
    """The candidates of each query, best first, and where the best right one stands among all of them."""

    candidates: list[Int[np.ndarray, " _"]]
    rank: list[int]  # from 0


def read_candidates(path: Path, gallery: Gallery, k: int) -> tuple[Listed, Listed]:
    """At most k images for each text of the gallery, and k texts for each of its images that is asked.

    `path` is the predictions.jsonl of a retrieval over the same data, or the run folder that it stands in. UserError
    where it lacks a query, or names none of this gallery's candidates for one.
    """
    file = next((path / name for name in PREDICTIONS if (path / name).is_file()), path)
    if not file.is_file():
        raise UserError(f"prefilter: no predictions at {path}: evaluate that run on these data first")
    lines = _read(file)
    images, texts = gallery.names
    asked = [images[image] for image in gallery.asked]
    return (
        _listed(lines["text_to_image"], texts, images, k, file),
        _listed(lines["image_to_text"], asked, texts, k, file),
    )


def _read(file: Path) -> dict[str, dict[str, Line]]:
    """The lines of retrieval by direction and query."""
    found: dict[str, dict[str, Line]] = {"text_to_image": {}, "image_to_text": {}}
    with file.open(encoding="utf-8") as lines:
        for number, text in enumerate(lines, start=1):
            try:
                line = json.loads(text)
                if line.get("task") == "retrieval":
                    found[line["direction"]][line["query"]] = {name: line[name] for name in ("ranked", "rank")}
            except (ValueError, KeyError, TypeError, AttributeError):
                raise UserError(f"prefilter: {file}, line {number}: no answer of a retrieval") from None
    return found


def _listed(lines: dict[str, Line], queries: Sequence[str], candidates: Sequence[str], k: int, file: Path) -> Listed:
    place = {name: number for number, name in enumerate(candidates)}
    found = Listed([], [])
    for query in queries:
        line = lines.get(query)
        known = [place[name] for name in line["ranked"] if name in place][:k] if line else []
        if not line or not known:
            raise UserError(f"prefilter: {file} has no candidates for {query!r}: is it of the same data and captions?")
        found.candidates.append(np.array(known))
        found.rank.append(line["rank"] - 1)
    return found
