"""HTML and Markdown from plain values; whatever is not `Html` already is escaped."""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table as RichTable
from rich.text import Text

_VOID = ("img", "meta", "br")


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """`<name attributes>children</name>`; `class_` stands for class, attributes that are None are left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{written}>" if name in _VOID else f"<{name}{written}>{join(children)}</{name}>")


def join(children: Iterable[Any]) -> Html:
    """Children one after another: Html as it is, all other values as escaped text."""
    return Html("".join(child if isinstance(child, Html) else html.escape(str(child)) for child in children))


@dataclass(frozen=True)
class Cell:
    """A figure of a table and, small beside it, what qualifies it (an interval)."""

    value: str
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns; the first column names the row. `groups` spans columns: (title, how many)."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    groups: Sequence[tuple[str, int]] = ()

    def to_html(self) -> Html:
        """A table element."""
        group = [tag("th", title, colspan=width, class_="group") for title, width in self.groups]
        head = [tag("tr", tag("th"), *group)] if group else []
        head.append(tag("tr", *(tag("th", column, scope="col") for column in self.columns)))
        body = [
            tag("tr", tag("th", first, scope="row"), *(_html_cell(cell) for cell in rest)) for first, *rest in self.rows
        ]
        return tag("div", tag("table", tag("thead", *head), tag("tbody", *body)), class_="scroll")

    def to_rich(self, title: str, notes: bool = False) -> RichTable:
        """A table for the terminal; with `notes`, what qualifies the figures stands under them."""
        names = ["", *(f"{group}\n" for group, width in self.groups for _ in range(width))]
        names = names if self.groups else [""] * len(self.columns)
        drawn = RichTable(title=title, title_justify="left", title_style="bold")
        for number, (group, column) in enumerate(zip(names, self.columns, strict=True)):
            drawn.add_column(f"{group}{column}", justify="right" if number else "left", overflow="fold")
        for row in self.rows:
            drawn.add_row(*(_rich_cell(cell, notes) for cell in row))
        return drawn

    def to_markdown(self) -> str:
        """A pipe table; groups are written before their columns' names."""
        names = [title for title, width in self.groups for _ in range(width)]
        head = list(self.columns)
        if names:
            head[1:] = [" ".join(pair) for pair in zip(names, head[1:], strict=True)]
        lines = [head, ["---"] + ["---:"] * (len(head) - 1)]
        lines += [[_markdown_cell(cell) for cell in row] for row in self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _html_cell(cell: str | Cell) -> Html:
    if isinstance(cell, str):
        return tag("td", cell)
    return tag("td", cell.value, tag("small", cell.note) if cell.note else "")


def _rich_cell(cell: str | Cell, notes: bool) -> Text:
    if isinstance(cell, str):
        return Text(cell)
    return Text.assemble(cell.value, (f"\n{cell.note}", "dim")) if notes and cell.note else Text(cell.value)


def _markdown_cell(cell: str | Cell) -> str:
    text = cell if isinstance(cell, str) else f"{cell.value} ({cell.note})" if cell.note else cell.value
    return plain(text)


def plain(text: str) -> str:
    """`text` without meaning to Markdown: one line, its special characters escaped."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|" else c for c in " ".join(text.split()))
