"""The symbolic world: what objects there are, where they stand, and which relations hold between them.

Scene `index` of a split is a function of (seed, split, index) alone. Geometry is in [0, 1], free of any image size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import permutations
from typing import TypeVar

import numpy as np
from PIL import ImageChops

from crossgrain.data.records import Box
from crossgrain.data.scenes.shapes import Points, shape, silhouette

SPLITS = ("train", "val", "test", "unseen")
KINDS = (
    "circle", "square", "triangle", "star", "heart", "moon", "ring", "cross", "house", "tree",
    "fish", "car", "cup", "flower", "boat", "umbrella", "mushroom", "butterfly", "cat", "bottle",
)  # fmt: skip
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
SIZES = ("small", "medium", "large")
FILLINGS = ("plain", "striped", "dotted", "checked")
BACKGROUNDS = ("plain", "mist", "meadow", "sea", "desert", "snow", "room", "paper", "bricks")
RELATIONS = ("left of", "right of", "above", "below", "in front of", "behind")
INVERSE = {
    "left of": "right of", "right of": "left of", "above": "below", "below": "above",
    "in front of": "behind", "behind": "in front of",
}  # fmt: skip

# (colour, kind) pairs that only the split "unseen" shows: one colour of every kind, two kinds of every colour. They are
# the same for every seed, so that models trained on different draws can be compared.
HELD_OUT = frozenset((COLOURS[(3 * i + 2) % len(COLOURS)], kind) for i, kind in enumerate(KINDS))

OUTLINE = 0.035  # width of the outline, as a share of the object's side
SIDES = {"small": (0.17, 0.2), "medium": (0.26, 0.31), "large": (0.39, 0.46)}  # side of the unit box in the image
NUM_OBJECTS = (1, 2, 3, 4, 5)
NUM_OBJECTS_PROBABILITY = (0.08, 0.24, 0.3, 0.23, 0.15)
MARGIN = 0.015  # free border of the image
APART = 0.12  # centres must differ by this much for "left of" and "above" to be said
MAX_COVERED = 0.25  # share of an object's box that the boxes in front of it may cover together
TRIES = 40  # places tried for an object before the whole scene is laid out anew
NEAR = 0.4  # how often an object is put close to one behind it
GRID = 64  # pixels of the masks that tell whether two things really overlap

T = TypeVar("T")


class Dice:
    """Random choices from one NumPy generator; drawn in blocks, as single draws would cost most of a scene."""

    def __init__(self, *seeds: int):
        self.generator = np.random.default_rng(seeds)
        self._block: list[float] = []

    def random(self) -> float:
        """Uniform in [0, 1)."""
        if not self._block:
            self._block = self.generator.random(128).tolist()
        return self._block.pop()

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.random() < probability

    def uniform(self, low: float, high: float) -> float:
        """Uniform between `low` and `high`."""
        return low + (high - low) * self.random()

    def below(self, count: int) -> int:
        """An integer in [0, count)."""
        return int(self.random() * count)

    def pick(self, values: Sequence[T]) -> T:
        """One of `values`, all equally likely."""
        return values[int(self.random() * len(values))]

    def weighted(self, values: Sequence[T], weights: Sequence[float]) -> T:
        """One of `values` with the given weights (which need not sum to one)."""
        left = self.random() * sum(weights)
        for value, weight in zip(values, weights, strict=True):
            left -= weight
            if left < 0:
                return value
        return values[-1]

    def shuffled(self, values: Sequence[T]) -> list[T]:
        """`values` in random order."""
        rest = list(values)
        for i in range(len(rest) - 1, 0, -1):
            j = self.below(i + 1)
            rest[i], rest[j] = rest[j], rest[i]
        return rest


@dataclass(frozen=True, eq=False)
class Thing:
    """One object: its four attributes, and its outline in the image."""

    kind: str
    colour: str
    size: str
    filling: str
    side: float  # of the unit box that the shape is drawn in, relative to the image
    points: Points  # (P, 2) the shape's polygons in image coordinates
    box: Box  # the extent of the shape with its outline

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of the box."""
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2


@dataclass(frozen=True, eq=False)
class Scene:
    """The things of one picture from back to front, and what they stand on."""

    seed: int
    split: str
    index: int
    background: str
    things: tuple[Thing, ...]

    @property
    def key(self) -> str:
        """The record's key: "train_000012"."""
        return f"{self.split}_{self.index:06d}"

    @cached_property
    def overlapping(self) -> frozenset[frozenset[int]]:
        """The pairs of things of which one really hides a part of the other (not only their boxes meet)."""
        things, pairs = self.things, []
        for j, front in enumerate(things):
            for i, back in enumerate(things[:j]):
                smaller = min(area(front.box), area(back.box))
                if overlap(front.box, back.box) < 0.04 * smaller:
                    continue
                masks = [silhouette(thing.kind, thing.points, GRID) for thing in (back, front)]
                common = ImageChops.logical_and(*masks).histogram()[255]
                if common > 0.03 * min(mask.histogram()[255] for mask in masks):
                    pairs.append(frozenset((i, j)))
        return frozenset(pairs)

    @cached_property
    def relations(self) -> dict[tuple[int, int], frozenset[str]]:
        """For every ordered pair of things (i, j), the relations that hold: i is ... j."""
        return {pair: self._relations_of(*pair, APART, 0.7) for pair in permutations(range(len(self.things)), 2)}

    @cached_property
    def possible_relations(self) -> dict[tuple[int, int], frozenset[str]]:
        """The same, but also what is hardly so: a referring expression must not be open to such a reading."""
        return {pair: self._relations_of(*pair, 0.0, 0.0) for pair in permutations(range(len(self.things)), 2)}

    def _relations_of(self, i: int, j: int, apart: float, steep: float) -> frozenset[str]:
        (ax, ay), (bx, by) = self.things[i].centre, self.things[j].centre
        dx, dy = bx - ax, by - ay
        held = []
        if abs(dx) > apart and abs(dx) > steep * abs(dy):
            held.append("left of" if dx > 0 else "right of")
        if abs(dy) > apart and abs(dy) > steep * abs(dx):
            held.append("above" if dy > 0 else "below")
        if frozenset((i, j)) in self.overlapping or (not apart and overlap(self.things[i].box, self.things[j].box)):
            held.append("in front of" if i > j else "behind")
        return frozenset(held)


def area(box: Box) -> float:
    """Area of a box."""
    return (box[2] - box[0]) * (box[3] - box[1])


def overlap(a: Box, b: Box) -> float:
    """Area that two boxes have in common."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def _extremes(points: Points) -> list[tuple[float, float]]:
    """The four points that touch the box of `points`: leftmost, topmost, rightmost, lowest."""
    rows = (*points.argmin(axis=0), *points.argmax(axis=0))
    return [tuple(points[row]) for row in rows]


def _hides_extreme(front: Box, points: Points) -> bool:
    x1, y1, x2, y2 = front
    return any(x1 <= x <= x2 and y1 <= y <= y2 for x, y in _extremes(points))


def _place(dice: Dice, kind: str, colour: str, size: str, filling: str, behind: Sequence[Thing]) -> Thing | None:
    """A thing at a free place in front of those of `behind`, or None when there is none.

    Overlap is welcome, but the points where an object touches its box stay in sight: so the box of the whole shape is
    also the box of what one sees.
    """
    side = dice.uniform(*SIDES[size])
    tilt, stretch = math.radians(dice.uniform(-10.0, 10.0)), dice.uniform(0.92, 1.08)
    mirror = -1.0 if dice.chance(0.5) else 1.0
    cos, sin = side * math.cos(tilt), side * math.sin(tilt)
    points = shape(kind).points @ np.array([[mirror * stretch * cos, mirror * stretch * sin], [-sin, cos]])
    edge = side * OUTLINE / 2
    (left, top), (right, bottom) = (points.min(axis=0) - edge).tolist(), (points.max(axis=0) + edge).tolist()
    lowest, highest = (MARGIN - left, MARGIN - top), (1 - MARGIN - right, 1 - MARGIN - bottom)
    near = dice.pick(behind) if behind and dice.chance(NEAR) else None
    for tries in range(TRIES):
        x, y = dice.uniform(lowest[0], highest[0]), dice.uniform(lowest[1], highest[1])
        if near is not None and tries < TRIES // 2:
            turn, distance = dice.uniform(0.0, 2 * math.pi), 0.44 * (side + near.side)
            x = min(highest[0], max(lowest[0], near.centre[0] + distance * math.cos(turn)))
            y = min(highest[1], max(lowest[1], near.centre[1] + distance * math.sin(turn)))
        box = (x + left, y + top, x + right, y + bottom)
        touched = [other for other in behind if overlap(box, other.box) > 0]
        if any(overlap(box, other.box) > 0.3 * area(box) for other in touched):
            continue
        if any(_hides_extreme(box, other.points) or _covered(other, box, behind) > MAX_COVERED for other in touched):
            continue
        return Thing(kind, colour, size, filling, side, points + np.array((x, y)), box)
    return None


def _covered(thing: Thing, front: Box, behind: Sequence[Thing]) -> float:
    """The share of a thing's box under the boxes of what stands in front of it, at most."""
    later = behind[next(i for i, other in enumerate(behind) if other is thing) + 1 :]
    return sum(overlap(thing.box, box) for box in (front, *(other.box for other in later))) / area(thing.box)


def _attributes(dice: Dice, split: str, plan: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """A colour and a kind; sometimes those of an earlier object, so that counting and comparing have a point."""
    colour, kind = dice.pick(COLOURS), dice.pick(KINDS)
    if plan and dice.chance(0.22):
        kind = dice.pick(plan)[1]
    if plan and dice.chance(0.12):
        colour = dice.pick(plan)[0]
    while (colour, kind) in HELD_OUT and split != "unseen":
        colour = dice.pick(COLOURS)
    return colour, kind


@lru_cache(maxsize=256)  # pairs ask for the scenes just before
def make_scene(seed: int, split: str, index: int) -> Scene:
    """Scene `index` of a split. No two things of a scene agree in all attributes, so words can name each of them.

    Raises ValueError for a split that does not exist.
    """
    dice = Dice(seed, SPLITS.index(split), index)
    num_objects = dice.weighted(NUM_OBJECTS, NUM_OBJECTS_PROBABILITY)
    background = dice.pick(BACKGROUNDS)
    plan: list[tuple[str, str]] = []
    for _ in range(num_objects):
        plan.append(_attributes(dice, split, plan))
    if split == "unseen" and not HELD_OUT.intersection(plan):
        plan[dice.below(num_objects)] = dice.pick(sorted(HELD_OUT))
    while True:
        things: list[Thing] = []
        for colour, kind in plan:
            size = dice.weighted(SIZES, (0.35, 0.4, 0.25) if num_objects < 4 else (0.45, 0.45, 0.1))
            thing = _place(dice, kind, colour, size, dice.weighted(FILLINGS, (0.4, 0.2, 0.2, 0.2)), things)
            if thing is not None:
                things.append(thing)
        if len({(thing.colour, thing.kind, thing.size, thing.filling) for thing in things}) == len(plan):
            return Scene(seed, split, index, background, tuple(things))
