"""Captioning: what was written about a picture beside what people wrote."""

from collections.abc import Iterator, Sequence

from crossgrain.documents.markup import Html, join, plain, tag
from crossgrain.evaluation.examples.selection import NUM_WORST, Section, spread
from crossgrain.evaluation.pictures import Pictures
from crossgrain.metrics.cider import cider
from crossgrain.metrics.ptb import caption_words
from crossgrain.tasks.interface import Line

NUM_CAPTIONS = 8
NUM_REFERENCES = 5


def captioning_sections(lines: Sequence[Line], pictures: Pictures) -> Iterator[Section]:
    """Captions beside their references, and those that are least like them."""
    scored = _scored(lines)
    note = "Pictures at equal distances through the split: the caption, and what people wrote about the picture."
    if any("cider" in line for line in scored):
        note += " CIDEr is that of the single caption, times 100."
    shown = [_caption(line, pictures) for line in spread(scored, NUM_CAPTIONS)]
    yield "Captions", note, join(shown)
    if worst := _worst(scored):
        note = "The captions with the lowest CIDEr."
        yield "Worst mistakes: captioning", note, join(_caption(line, pictures) for line in worst)


def captioning_mistakes(lines: Sequence[Line]) -> list[str]:
    """The captions with the lowest CIDEr, in Markdown."""
    return [
        f"{plain(line['key'])}: “{plain(line['caption'])}” (CIDEr {100 * line['cider']:.0f}), "
        f"people wrote “{plain(line['references'][0])}”"
        for line in _worst(_scored(lines))
    ]


def _scored(lines: Sequence[Line]) -> list[Line]:
    """The lines with their "cider"; without it where there are no references, or those of one picture alone."""
    told = [line for line in lines if line["references"]]
    if len(told) < 2:  # CIDEr weighs words by how many pictures' references have them
        return list(lines)
    captions = [caption_words(line["caption"]) for line in told]
    scores = cider(captions, [[caption_words(text) for text in line["references"]] for line in told])
    found = {id(line): float(score) for line, score in zip(told, scores, strict=True)}
    return [{**line, "cider": found[id(line)]} if id(line) in found else line for line in lines]


def _worst(scored: Sequence[Line]) -> list[Line]:
    """The lowest scores, of those below the mean: where captions are few, the good ones are no mistakes."""
    told = sorted((line for line in scored if "cider" in line), key=lambda line: line["cider"])
    mean = sum(line["cider"] for line in told) / max(len(told), 1)
    return [line for line in told[:NUM_WORST] if line["cider"] < mean]


def _caption(line: Line, pictures: Pictures) -> Html:
    told = [f"CIDEr {100 * line['cider']:.0f}"] if "cider" in line else []
    told += [f"prompt “{line['prompt']}”"] if line.get("prompt") else []
    heading = tag("p", f"“{line['caption']}” ", tag("small", ", ".join(told)))
    references = [tag("li", text) for text in line["references"][:NUM_REFERENCES]]
    people = tag("ul", *references) if references else tag("small", "no references")
    return tag(
        "div", tag("div", pictures.figure(line["key"]), tag("div", heading, people), class_="pair"), class_="query"
    )
