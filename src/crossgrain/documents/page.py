"""One HTML page in one file: its style inside it, nothing loaded from elsewhere."""

from collections.abc import Iterable, Mapping

from crossgrain.documents.markup import Html, join, tag
from crossgrain.documents.style import STYLE


def page(title: str, *children: Html) -> str:
    """A whole document with its heading."""
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Html(STYLE)),
    ]
    body = tag("main", tag("h1", title), *children)
    return f"<!doctype html>\n{tag('html', tag('head', *head), tag('body', body), lang='en')}\n"


def section(title: str, *children: Html) -> Html:
    """A part of a page under its own heading."""
    return tag("section", tag("h2", title), *children)


def remark(text: str | Html) -> Html:
    """A paragraph that explains what stands beside it."""
    return tag("p", text, class_="note")


def fact_list(facts: Mapping[str, str]) -> Html:
    """Names with their values, two to a row."""
    return tag("dl", join(join([tag("dt", key), tag("dd", value)]) for key, value in facts.items()))


def tiles(numbers: Iterable[tuple[str, str, str]], **attributes: str) -> Html:
    """The few numbers that are looked for first: each with what it is, and what it compares to."""
    made = [tag("div", tag("b", number), tag("span", name), tag("small", told)) for number, name, told in numbers]
    return tag("div", *made, class_="tiles", **attributes)
