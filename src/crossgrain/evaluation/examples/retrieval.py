"""Retrieval: texts with the images that they find, images with the texts that they find."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from crossgrain.documents.markup import Html, plain, tag
from crossgrain.evaluation.examples.selection import NUM_WORST, Section, spread
from crossgrain.evaluation.pictures import Pictures
from crossgrain.tasks.interface import Line

SHOWN = 5  # candidates of a query
NUM_QUERIES = 8


def retrieval_sections(lines: Sequence[Line], pictures: Pictures) -> Iterator[Section]:
    """Texts with their first five images, images with their first five texts, and the worst ranked."""
    by_text, by_image = _directions(lines)
    texts = {line["query"]: line["text"] for line in by_text}
    note = (
        "Queries at equal distances through the split and their five best answers, best first; the right one is green."
    )
    yield "Texts find images", note, _queries([_text_query(line, pictures) for line in spread(by_text, NUM_QUERIES)])
    shown = [_image_query(line, texts, pictures) for line in spread(by_image, NUM_QUERIES // 2)]
    yield "Images find texts", note, _queries(shown)
    worst = _worst_ranked(by_text)
    if worst:
        note = "Texts whose image is ranked lowest; it stands apart on the right."
        yield "Worst mistakes: retrieval", note, _queries([_text_query(line, pictures) for line in worst])


def retrieval_mistakes(lines: Sequence[Line]) -> list[str]:
    """The texts whose images are ranked lowest, in Markdown."""
    by_text, _ = _directions(lines)
    return [
        f"“{plain(line['text'])}”: its image {plain(line['truth'][0])} has rank {line['rank']} of {line['gallery']}, "
        f"first is {plain(line['ranked'][0])}"
        for line in _worst_ranked(by_text)
    ]


def _directions(lines: Sequence[Line]) -> tuple[list[Line], list[Line]]:
    by_text = [line for line in lines if line["direction"] == "text_to_image"]
    return by_text, [line for line in lines if line["direction"] == "image_to_text"]


def _worst_ranked(by_text: Sequence[Line]) -> list[Line]:
    return sorted((line for line in by_text if line["rank"] > 1), key=lambda line: -line["rank"])[:NUM_WORST]


def _queries(shown: Sequence[Html]) -> Html:
    return tag("div", *shown)


def _text_query(line: Line, pictures: Pictures) -> Html:
    figures = []
    for place, (key, score) in enumerate(zip(line["ranked"][:SHOWN], line["scores"], strict=False), start=1):
        right = key in line["truth"]
        note = f"{place}{' ✓' if right else ''} · {_score(score)}"
        figures.append(pictures.figure(key, note, class_="right" if right else None))
    if line["rank"] > SHOWN:
        figures.append(pictures.figure(line["truth"][0], f"right answer, rank {line['rank']}", class_="right apart"))
    return _query(line, line["text"], "row", figures)


def _image_query(line: Line, texts: Mapping[str, str], pictures: Pictures) -> Html:
    items = [
        tag("li", texts[name], tag("small", _score(score)), class_="right" if name in line["truth"] else None)
        for name, score in zip(line["ranked"][:SHOWN], line["scores"], strict=False)
    ]
    if line["rank"] > SHOWN:
        items.append(
            tag("li", texts[line["truth"][0]], tag("small", f"right answer, rank {line['rank']}"), class_="right apart")
        )
    return _query(line, "", "pair", [pictures.figure(line["query"]), tag("ol", *items)])


def _query(line: Line, title: str, layout: str, answers: Sequence[Html]) -> Html:
    rank = f"rank {line['rank']} of {line['gallery']}"
    if "rank_without_rerank" in line:
        rank += f", by similarity alone {line['rank_without_rerank']}"
    heading = tag("p", f"“{title}” " if title else "", tag("small", rank))
    return tag("div", heading, tag("div", *answers, class_=layout), class_="query")


def _score(score: Any) -> str:
    return "not re-ranked" if score == -100 else f"{score:.2f}"
