"""The vocabulary: how the attributes of the world are called, and how nouns are inflected."""

from crossgrain.data.scenes.world import Dice

# The first word is the world's own name and is used most; the others mean the same.
KIND_WORDS = {
    "circle": ("circle", "disc"), "square": ("square", "box"), "triangle": ("triangle",), "star": ("star",),
    "heart": ("heart",), "moon": ("moon", "crescent"), "ring": ("ring", "hoop"), "cross": ("cross", "plus sign"),
    "house": ("house", "cottage", "hut"), "tree": ("tree", "fir", "pine"), "fish": ("fish",),
    "car": ("car", "automobile"), "cup": ("cup", "mug"), "flower": ("flower", "blossom"),
    "boat": ("boat", "sailboat", "ship"), "umbrella": ("umbrella", "parasol"), "mushroom": ("mushroom", "toadstool"),
    "butterfly": ("butterfly",), "cat": ("cat", "kitten"), "bottle": ("bottle", "flask"),
}  # fmt: skip
COLOUR_WORDS = {
    "red": ("red", "scarlet", "crimson"), "orange": ("orange", "tangerine"), "yellow": ("yellow", "golden"),
    "green": ("green", "emerald"), "blue": ("blue", "azure"), "purple": ("purple", "violet"),
    "pink": ("pink", "rosy"), "brown": ("brown", "chestnut"), "black": ("black",), "white": ("white", "ivory"),
}  # fmt: skip
SIZE_WORDS = {
    "small": ("small", "little", "tiny"), "medium": ("medium", "medium-sized"), "large": ("large", "big", "huge"),
}  # fmt: skip
FILLING_WORDS = {
    "plain": ("plain", "solid"), "striped": ("striped", "stripy"), "dotted": ("dotted", "spotted"),
    "checked": ("checked", "checkered"),
}  # fmt: skip
FILLING_CLAUSES = {
    "striped": ("with stripes", "with a striped pattern"), "dotted": ("with dots", "covered with spots"),
    "checked": ("with a checked pattern", "with a checkerboard pattern"),
}  # fmt: skip
BACKGROUND_PHRASES = {
    "plain": ("on a plain background", "on an empty background"), "mist": ("in colourful mist", "in a hazy fog"),
    "meadow": ("on a green meadow", "on the grass", "in a grassy field"), "sea": ("by the sea", "above the ocean"),
    "desert": ("in the desert", "on yellow sand"), "snow": ("in the snow", "in a wintry landscape"),
    "room": ("in a room", "inside a room with a wooden floor"), "paper": ("on squared paper", "on grid paper"),
    "bricks": ("in front of a brick wall", "on a wall of bricks"),
}  # fmt: skip
RELATION_PHRASES = {
    "left of": ("left of", "to the left of", "on the left side of"),
    "right of": ("right of", "to the right of", "on the right side of"),
    "above": ("above", "over", "higher than"), "below": ("below", "under", "lower than", "beneath"),
    "in front of": ("in front of", "partly covering", "overlapping"), "behind": ("behind", "partly hidden by"),
}  # fmt: skip
EXTREME_WORDS = {
    "left": ("leftmost",), "right": ("rightmost",), "top": ("highest", "topmost"), "bottom": ("lowest", "bottommost"),
}  # fmt: skip
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
THING_WORDS = ("thing", "object", "item")
_IRREGULAR = {"fish": "fish", "box": "boxes", "cross": "crosses", "butterfly": "butterflies"}


def plural(noun: str) -> str:
    """The plural of a noun of this vocabulary ("plus sign" -> "plus signs")."""
    return _IRREGULAR.get(noun, noun + "s")


def with_article(phrase: str) -> str:
    """ "a" or "an" before a phrase; all words of this vocabulary that begin with a vowel letter also sound so."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def one_of(dice: Dice, words: tuple[str, ...], first: float = 0.78) -> str:
    """The first of `words` with probability `first`, otherwise one of its synonyms."""
    return words[0] if len(words) == 1 or dice.chance(first) else words[1 + dice.below(len(words) - 1)]


def joined(phrases: list[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def sentence(text: str) -> str:
    """`text` with a capital letter and a full stop."""
    return f"{text[0].upper()}{text[1:]}."
