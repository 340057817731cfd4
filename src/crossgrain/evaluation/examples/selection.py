"""Which answers are shown, and the marks that all of them share.

Examples stand at equal distances in the data, so that they are neither picked nor drawn by chance.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from crossgrain.documents.markup import Html, tag
from crossgrain.tasks.interface import Line

T = TypeVar("T")

NUM_WORST = 6

Section = tuple[str, str | Html, Html]  # title, note, body


def spread(items: Sequence[T], count: int) -> list[T]:
    """`count` items at equal distances."""
    count = min(count, len(items))
    return [items[(2 * place + 1) * len(items) // (2 * count)] for place in range(count)]


def grouped(lines: Iterable[Line], name: Callable[[Line], Hashable]) -> list[list[Line]]:
    """The lines of each name together, in the order of first mention."""
    groups: dict[Hashable, list[Line]] = {}
    for line in lines:
        groups.setdefault(name(line), []).append(line)
    return list(groups.values())


def first_of_each(lines: Iterable[Line], name: Callable[[Line], Hashable], count: int = NUM_WORST) -> list[Line]:
    """The first `count` lines, of those with the same name the first one only."""
    return [group[0] for group in grouped(lines, name)[:count]]


def one_per_picture(lines: Iterable[Line], count: int = NUM_WORST) -> list[Line]:
    """The first `count` lines, of each picture the first one only."""
    return first_of_each(lines, lambda line: line["key"], count)


def percent(share: float) -> str:
    """A probability for people."""
    return f"{100 * share:.0f} %"


def verdict(answer: str, right: bool | None) -> Html:
    """An answer with its mark: green where it is right, red where it is wrong, bare where nobody knows."""
    if right is None:
        return tag("b", answer)
    return tag("b", f"{answer} {'✓' if right else '✗'}", class_="yes" if right else "no")


def cards(figures: Iterable[Html]) -> Html:
    """Pictures with their captions, as many beside each other as there is room for."""
    return tag("div", *figures, class_="grid")
