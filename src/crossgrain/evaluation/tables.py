"""The tables of the report: scores with their intervals and what chance would score, one group of columns per split."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from crossgrain.documents.markup import Cell, Table

Block = Mapping[str, Any]  # the scores of one task on one split
Noted = tuple[Table, str]  # a table, and the note under it

DIRECTION_TITLES = {"text_to_image": "text → image", "image_to_text": "image → text"}
METHOD_TITLES = {"box": "predicted box", "proposals": "chosen region", "gradcam": "heat map (Grad-CAM)"}
WILSON = "Per cent, with 95 % Wilson intervals"


def score_tables(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, Noted]:
    """For each task with scores: its table, one group of columns per split, and a note under it.

    A task whose answers could not be scored has a table that says how many they are.
    """
    tables = {}
    for title, (task, make) in _MAKERS.items():
        blocks = {split: tasks[task] for split, tasks in scores.items() if task in tasks}
        if known := {split: block for split, block in blocks.items() if "confidence_95" in block}:
            table, note = make(known)
            left = [f"{count} more in {split}" for split, block in blocks.items() if (count := block.get("unscored"))]
            tables[title] = (table, f"{note} Without a known answer: {', '.join(left)}." if left else note)
        elif blocks:
            counts = [str(block.get("unscored", 0)) for block in blocks.values()]
            tables[title] = (Table(["", *blocks], [["answers", *counts]]), "Not scored: the right ones are not known.")
        if types := _types_table(known) if task == "vqa" else None:
            tables[f"{title} by type of question"] = types
    return tables


def _retrieval_table(blocks: Mapping[str, Block]) -> Noted:
    cutoffs = list(next(iter(blocks.values()))["text_to_image"])
    reranked = any("without_rerank" in block for block in blocks.values())
    protocol = next((block["protocol"] for block in blocks.values() if "protocol" in block), None)
    by = next((block["reranked_by"] for block in blocks.values() if "reranked_by" in block), "matching")
    how = f"re-ranked by {by}" if reranked else f"by matching, {protocol}" if protocol else "by similarity"
    rows = []
    for direction, title in DIRECTION_TITLES.items():
        kinds = {how: (lambda b: b, lambda b: b["confidence_95"])}
        if reranked:
            kinds["by similarity alone"] = (
                lambda b: b["without_rerank"],
                lambda b: b["confidence_95"]["without_rerank"],
            )
        for kind, (value, interval) in kinds.items():
            cells = [
                _cell(value(block)[direction][name], interval(block)[direction][name])
                for block in blocks.values()
                for name in cutoffs
            ]
            rows.append([f"{title}, {kind}", *cells])
        chance = [f"{block['chance'][direction][name]:.1f}" for block in blocks.values() for name in cutoffs]
        rows.append([f"{title}, chance", *chance])
    galleries = [f"{b['gallery']['images']} images and {b['gallery']['texts']} texts in {s}" for s, b in blocks.items()]
    table = Table(["", *cutoffs * len(blocks)], rows, [(split, len(cutoffs)) for split in blocks])
    return table, f"{WILSON}; {', '.join(galleries)}."


def _shares_table(
    blocks: Mapping[str, Block], columns: Mapping[str, str], answered: str, chance: str, sizes: str, note: str = WILSON
) -> Noted:
    """Scores under the titles of `columns` where a split has them, and what chance scores.

    `sizes` tells of a block how much it is about.
    """
    shown = {name: title for name, title in columns.items() if any(name in block for block in blocks.values())}
    rows: list[list[str | Cell]] = [
        [answered, *(_scored(block, name) for block in blocks.values() for name in shown)],
    ]
    if any("chance" in block for block in blocks.values()):
        guessed = (_number(block.get("chance", {}).get(name)) for block in blocks.values() for name in shown)
        rows.append([chance, *guessed])
    table = Table(["", *[*shown.values()] * len(blocks)], rows, [(split, len(shown)) for split in blocks])
    return table, f"{note}; {', '.join(f'{sizes.format_map(block)} in {s}' for s, block in blocks.items())}."


def _types_table(blocks: Mapping[str, Block]) -> Noted | None:
    """VQA by type of question; None where questions have none."""
    kinds = sorted({kind for block in blocks.values() for kind in block.get("by_type", ())})
    if not kinds:
        return None
    parts = {split: block.get("by_type", {}) for split, block in blocks.items()}
    rows = [[kind, *(cell for part in parts.values() for cell in _type_cells(part.get(kind, {})))] for kind in kinds]
    table = Table(["", *["accuracy", "chance", "questions"] * len(blocks)], rows, [(split, 3) for split in blocks])
    return table, "Per cent; chance is the best that one answer to all questions of the type would score."


def _type_cells(part: Block) -> list[str]:
    return [_number(part.get("accuracy")), _number(part.get("chance")), str(part.get("questions", ""))]


def _grounding_table(blocks: Mapping[str, Block]) -> Noted:
    """One row for each method, and what the box or point of another object's phrase would score."""
    parts = [
        {part["method"]: part for part in (block, *block.values()) if isinstance(part, Mapping) and "method" in part}
        for block in blocks.values()
    ]
    shown = {"accuracy@0.5": "accuracy at IoU 0.5", "mean_iou": "mean IoU", "pointing": "pointing game"}
    shown = {name: title for name, title in shown.items() if any(name in p for part in parts for p in part.values())}

    def row(title: str, method: str, value: Callable[[Block, str], str | Cell]) -> list[str | Cell]:
        cells = [value(part.get(method, {}), name) for part in parts for name in shown]
        return [title, *cells]

    rows = []
    for method in dict.fromkeys(name for part in parts for name in part):
        rows.append(row(METHOD_TITLES[method], method, _scored))
        rows.append(
            row("chance (box of another object)", method, lambda b, name: _number(b.get("chance", {}).get(name)))
        )
    sizes = [f"{block['phrases']} phrases about {block['images']} images in {s}" for s, block in blocks.items()]
    table = Table(["", *[*shown.values()] * len(blocks)], rows, [(split, len(shown)) for split in blocks])
    return table, f"{WILSON}; {', '.join(sizes)}."


def _masked_table(blocks: Mapping[str, Block], unit: str) -> Noted:
    rows: list[list[str | Cell]] = [
        ["predicted", *(_scored(block, "accuracy") for block in blocks.values())],
        ["always the most frequent", *(f"{block['majority']:.1f}" for block in blocks.values())],
    ]
    sizes = [f"{block[unit]} hidden {unit} of {block['images']} images in {split}" for split, block in blocks.items()]
    table = Table(["", *["accuracy"] * len(blocks)], rows, [(split, 1) for split in blocks])
    return table, f"{WILSON}; {', '.join(sizes)}."


def _scored(block: Block, name: str) -> str | Cell:
    """A score with its interval where it has one; empty where it was not computed."""
    interval = block.get("confidence_95", {}).get(name)
    return _cell(block[name], interval) if interval else _number(block.get(name))


def _cell(value: float, interval: Sequence[float]) -> Cell:
    return Cell(f"{value:.1f}", f"{interval[0]:.1f} to {interval[1]:.1f}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


_vqa_table = partial(
    _shares_table,
    columns={"accuracy": "VQA accuracy"},
    answered="answered",
    chance="chance (one answer to all questions)",
    sizes="{questions} questions about {images} images",
    note="Per cent, with 95 % intervals",
)
_nlvr2_table = partial(
    _shares_table,
    columns={"accuracy": "accuracy", "consistency": "consistency"},
    answered="judged",
    chance="chance (a coin for each pair)",
    sizes="{statements} statements about {pairs} pairs of images",
)
_vcr_table = partial(
    _shares_table,
    columns={"Q->A": "Q → A", "QA->R": "QA → R", "Q->AR": "Q → AR"},
    answered="chosen",
    chance="chance (one of four)",
    sizes="{questions} questions about {images} images",
)
_captioning_table = partial(
    _shares_table,
    columns={
        **{f"BLEU-{n}": f"BLEU-{n}" for n in range(1, 5)},
        **{name: name for name in ("METEOR", "ROUGE-L", "CIDEr", "SPICE")},
    },
    answered="written",
    chance="chance (caption of another image)",
    sizes="{images} images with {references} captions by people",
    note="Times 100, with 95 % intervals",
)

_MAKERS: dict[str, tuple[str, Callable[[Mapping[str, Block]], Noted]]] = {
    "Retrieval": ("retrieval", _retrieval_table),
    "VQA": ("vqa", _vqa_table),
    "NLVR2": ("nlvr2", _nlvr2_table),
    "VCR": ("vcr", _vcr_table),
    "Grounding": ("grounding", _grounding_table),
    "Captioning": ("captioning", _captioning_table),
    "Masked regions": ("masked_regions", partial(_masked_table, unit="regions")),
    "Masked words": ("masked_words", partial(_masked_table, unit="words")),
}
