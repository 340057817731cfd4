"""The few numbers of a report that are looked for first."""

from collections.abc import Iterator, Mapping
from typing import Any

from crossgrain.documents.markup import Html
from crossgrain.documents.page import tiles
from crossgrain.evaluation.tables import DIRECTION_TITLES

Tile = tuple[str, str, str]  # number, what it is, what it compares to


def headline(scores: Mapping[str, Any], split: str) -> Html:
    """A tile for each of them; `scores` are those of one split."""
    return tiles(_tiles(scores), title=f"split {split}")


def _tiles(scores: Mapping[str, Any]) -> Iterator[Tile]:
    known = {task: block for task, block in scores.items() if "confidence_95" in block}
    if block := known.get("retrieval"):
        for direction, title in DIRECTION_TITLES.items():
            note = f"chance {block['chance'][direction]['R@1']:.1f} %"
            if "without_rerank" in block:
                note = f"{block['without_rerank'][direction]['R@1']:.1f} % without re-ranking, {note}"
            yield f"{block[direction]['R@1']:.1f} %", f"R@1 {title}", note
    if block := known.get("vqa"):
        yield _share(block, "accuracy", "VQA accuracy", "one answer to all questions")
    if block := known.get("nlvr2"):
        yield _share(block, "accuracy", "statements judged rightly")
        yield _share(block, "consistency", "statements judged consistently")
    if block := known.get("vcr"):
        for name, title in (("Q->A", "answers"), ("QA->R", "reasons"), ("Q->AR", "both")):
            if name in block:
                yield _share(block, name, f"{title} chosen rightly, {name.replace('->', ' → ')}")
    if block := known.get("grounding"):
        note = f"mean IoU {block['mean_iou']:.1f} %"
        note += f", chance {block['chance']['accuracy@0.5']:.1f} %" if "chance" in block else ""
        yield f"{block['accuracy@0.5']:.1f} %", "box accuracy at IoU 0.5", note
        pointing = next(
            (part for part in (block, *block.values()) if isinstance(part, Mapping) and "pointing" in part), None
        )
        if pointing:
            yield _share(pointing, "pointing", "heat maps that peak in the box")
    if block := known.get("captioning"):
        for name in ("CIDEr", "BLEU-4"):
            note = f"caption of another image {block['chance'][name]:.1f}" if "chance" in block else ""
            yield f"{block[name]:.1f}", f"{name} of captions", note
    for unit in ("regions", "words"):
        if block := known.get(f"masked_{unit}"):
            note = f"most frequent answer {block['majority']:.1f} %"
            yield f"{block['accuracy']:.1f} %", f"hidden {unit} named", note


def _share(block: Mapping[str, Any], name: str, title: str, chance: str = "chance") -> Tile:
    note = f"{chance} {block['chance'][name]:.1f} %" if "chance" in block else ""
    return f"{block[name]:.1f} %", title, note
