"""What a sentence says, in a form that a program can hold against a scene.

A `Noun` describes things by some of their attributes; a claim says something about the things that nouns describe.
Captions, phrases and statements carry their claims along, so whether they are true is computed, never trusted.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from crossgrain.data.scenes.world import SIZES, Scene, Thing

COLUMNS = {"left": (0.0, 0.36), "middle": (0.38, 0.62), "right": (0.64, 1.0)}
SLACK = 0.14  # how much further a place reaches for a generous reader: up to the middle of the image
CLEARLY = 0.08  # by how much the outermost thing must lead
ROWS = {"top": (0.0, 0.36), "middle": (0.38, 0.62), "bottom": (0.64, 1.0)}


@dataclass(frozen=True)
class Noun:
    """A description of things; None leaves an attribute open, so `Noun()` is "thing"."""

    kind: str | None = None
    colour: str | None = None
    size: str | None = None
    filling: str | None = None

    def matches(self, thing: Thing) -> bool:
        """Whether every attribute that is named is the thing's."""
        return (
            self.kind in (None, thing.kind)
            and self.colour in (None, thing.colour)
            and self.size in (None, thing.size)
            and self.filling in (None, thing.filling)
        )

    def among(self, scene: Scene) -> list[int]:
        """The indices of the things it describes."""
        return [i for i, thing in enumerate(scene.things) if self.matches(thing)]


@dataclass(frozen=True)
class Related:
    """A description by relation: the `noun` that is `relation` the (one) `other`."""

    noun: Noun
    relation: str
    other: Noun

    def among(self, scene: Scene) -> list[int]:
        """The indices of the things it describes."""
        return self._found(scene, scene.relations)

    def possible(self, scene: Scene) -> list[int]:
        """The same for a reader who lets a relation hold that is not clear."""
        return self._found(scene, scene.possible_relations)

    def _found(self, scene: Scene, held: Mapping[tuple[int, int], frozenset[str]]) -> list[int]:
        others = self.other.among(scene)
        return [i for i in self.noun.among(scene) if any(self.relation in held.get((i, j), ()) for j in others)]


@dataclass(frozen=True)
class Placed:
    """A description by place: the `noun` in this column and row of the image (None: any)."""

    noun: Noun
    column: str | None
    row: str | None

    def among(self, scene: Scene) -> list[int]:
        """The indices of the things it describes."""
        return [i for i in self.noun.among(scene) if self._there(scene.things[i], 0.0)]

    def possible(self, scene: Scene) -> list[int]:
        """The same for a reader who draws the borders of the place generously."""
        return [i for i in self.noun.among(scene) if self._there(scene.things[i], SLACK)]

    def _there(self, thing: Thing, slack: float) -> bool:
        x, y = thing.centre
        low, high = COLUMNS[self.column] if self.column else (0.0, 1.0)
        top, bottom = ROWS[self.row] if self.row else (0.0, 1.0)
        return low - slack <= x <= high + slack and top - slack <= y <= bottom + slack


@dataclass(frozen=True)
class Extreme:
    """A description by the outermost place: the `noun` furthest to the "left", "right", "top" or "bottom"."""

    noun: Noun
    direction: str

    def among(self, scene: Scene) -> list[int]:
        """The index of the thing it describes, if one stands clearly further out than the others."""
        axis, sign = int(self.direction in ("top", "bottom")), 1 if self.direction in ("left", "top") else -1
        ranked = sorted((sign * scene.things[i].centre[axis], i) for i in self.noun.among(scene))
        clear = len(ranked) > 1 and ranked[1][0] - ranked[0][0] > CLEARLY
        return [ranked[0][1]] if clear else []


Description = Noun | Related | Placed | Extreme


def singles_out(what: Description, scene: Scene, index: int) -> bool:
    """Whether a description fits thing `index`, and no other thing even for a generous reader."""
    if what.among(scene) != [index]:
        return False
    return what.possible(scene) == [index] if isinstance(what, Related | Placed) else True


@dataclass(frozen=True)
class Count:
    """At least (or exactly) `number` things fit the description."""

    what: Description
    number: int = 1
    exact: bool = False

    def holds(self, scene: Scene) -> bool:
        """Whether the scene is so."""
        found = len(self.what.among(scene))
        return found == self.number if self.exact else found >= self.number


@dataclass(frozen=True)
class Ground:
    """The scene stands on this background."""

    background: str

    def holds(self, scene: Scene) -> bool:
        """Whether the scene is so."""
        return scene.background == self.background


@dataclass(frozen=True)
class Bigger:
    """Something that fits the first noun is of a larger size than something that fits the second."""

    first: Noun
    second: Noun

    def holds(self, scene: Scene) -> bool:
        """Whether the scene is so."""
        first, second = ([SIZES.index(scene.things[i].size) for i in n.among(scene)] for n in (self.first, self.second))
        return max(first) > min(second)


@dataclass(frozen=True)
class MoreOf:
    """There are more things that fit the first noun than the second."""

    first: Noun
    second: Noun

    def holds(self, scene: Scene) -> bool:
        """Whether the scene is so."""
        return len(self.first.among(scene)) > len(self.second.among(scene))


@dataclass(frozen=True)
class Alike:
    """The two things share the value of an attribute."""

    attribute: str
    first: Noun
    second: Noun

    def holds(self, scene: Scene) -> bool:
        """Whether the scene is so."""
        values = {getattr(scene.things[i], self.attribute) for n in (self.first, self.second) for i in n.among(scene)}
        return len(values) == 1


Claim = Count | Ground | Bigger | MoreOf | Alike


@dataclass(frozen=True)
class Caption:
    """A sentence and all that it claims."""

    text: str
    claims: tuple[Claim, ...]

    def holds(self, scene: Scene) -> bool:
        """Whether every claim is true of the scene."""
        return all(claim.holds(scene) for claim in self.claims)


@dataclass(frozen=True)
class Phrase:
    """A noun phrase and what it describes."""

    text: str
    what: Description
