"""Which record an image id of a feature file means: formats and data sets write the same image in different ways."""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from crossgrain.data.records import safe_key

_DIGITS = re.compile(r"(\d{1,18})$")
_AMBIGUOUS = -1
NO_RECORD, SEVERAL_RECORDS = "image in no record", "image id fits several records"


class Keys:
    """Finds a key among those of a data set by an image id: by the first of the rules `RULES` that gives one.

    "key": the id is the key. "name": the id, or the stem of the file that it names, is the key when written as one.
    "number": both end in digits of the same value ("COCO_val2014_000000000042" and "42"), and no other key does.
    """

    RULES = ("key", "name", "number")

    def __init__(self, keys: Iterable[str]):
        self._places = {key: place for place, key in enumerate(keys)}
        self._numbers: dict[int, int] = {}
        for key, place in self._places.items():
            number = _number(key)
            if number is not None:
                self._numbers[number] = _AMBIGUOUS if number in self._numbers else place

    def find(self, image_id: str) -> tuple[int, str] | str:
        """(place of the key, rule that found it), or why there is none."""
        if image_id in self._places:
            return self._places[image_id], "key"
        path = PurePosixPath(image_id)
        for name in (image_id, image_id.removesuffix(path.suffix), path.name, path.stem):
            if safe_key(name) in self._places:
                return self._places[safe_key(name)], "name"
        number = _number(path.stem)
        place = None if number is None else self._numbers.get(number)
        if place == _AMBIGUOUS:
            return SEVERAL_RECORDS
        return NO_RECORD if place is None else (place, "number")


def _number(text: str) -> int | None:
    found = _DIGITS.search(text)
    return int(found[1]) if found else None
