"""Read annotation files that may be huge, broken or hostile: text lines, tables, and JSON one element at a time.

What is wrong with one line or element is yielded as a `Dropped`; only a file that cannot be read on is a UserError,
which names file and line.
"""

import codecs
import csv
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossgrain.config import UserError
from crossgrain.data.records import Dropped

MAX_TEXT = 4096  # characters of one caption or phrase
_MAX_LINE = 32 * 2**20  # characters: an image in base64 may stand in it
_MAX_ELEMENT = 16 * 2**20  # characters of one JSON element
_MAX_ROW_LINES = 64  # that a row of a table may take, where a text in quotes has line breaks
_CHUNK = 2**20
_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACE = re.compile(r"[ \t\r\n]*")


def clean_text(value: Any) -> tuple[str, str]:
    """A caption or phrase with single spaces and no control characters, and the rule that it breaks ("" if none)."""
    if not isinstance(value, str):
        return "", "malformed caption"
    if _SURROGATE.search(value):
        return "", "caption is not UTF-8"
    text = " ".join("".join(c if c.isprintable() else " " for c in value).split())
    if not text:
        return "", "empty caption"
    return (text, "") if len(text) <= MAX_TEXT else ("", "caption too long")


def clean_texts(value: Any) -> tuple[list[str], str]:
    """The usable ones of a text or a list of texts; the rule that the first unusable one broke if there is none."""
    cleaned = [clean_text(one) for one in (value if isinstance(value, list) else [value])]
    texts = [text for text, rule in cleaned if not rule]
    return texts, "" if texts else next((rule for _, rule in cleaned), "empty caption")


def first_file(root: Path, names: Iterable[str | Path], what: str) -> Path:
    """The first of `names` that is a file under `root`; UserError names the paths looked for."""
    paths = [root / name for name in names]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        raise UserError(f"no {what}: looked for {', '.join(str(path) for path in paths)}")
    return found


def given_file(path: Path | str, root: Path, what: str) -> Path:
    """A file that the user named, as it stands or under `root`; UserError if there is none."""
    given = Path(path)
    return given if given.is_file() else first_file(Path(), (given, root / given), what)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The numbered lines of a text file, without their ends; bytes that are not UTF-8 become surrogates.

    Of an overlong line the beginning is yielded alone.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
        number = 0
        while line := file.readline(_MAX_LINE):
            number += 1
            rest = line
            while len(rest) == _MAX_LINE and not rest.endswith("\n"):
                rest = file.readline(_MAX_LINE)
            yield number, line.rstrip("\r\n")


def read_table(path: Path, delimiter: str) -> Iterator[tuple[int, list[str] | None]]:
    """The numbered rows of a CSV file (number of the last line of each); None for one that cannot be parsed.

    A quote that nothing closes within 64 lines costs its own line alone. One that closes before its text ends is part
    of the text where tabs divide the columns, and is left out where commas do, which it may have held together.
    """
    loose = {"quoting": csv.QUOTE_NONE} if delimiter == "\t" else {}
    lines, again = read_lines(path), deque[tuple[int, str]]()
    taken: list[tuple[int, str]] = []

    def take() -> Iterator[str]:
        while len(taken) < _MAX_ROW_LINES and (line := again.popleft() if again else next(lines, None)):
            taken.append(line)
            yield f"{line[1]}\n"

    while True:
        taken.clear()
        row, is_open = _parse_row(take(), delimiter=delimiter, strict=True)
        if not taken:
            return
        if row is None:
            first, *others = taken
            again.extendleft(reversed(others))
            taken[:] = [first]
            if not is_open and not others:
                row, _ = _parse_row([first[1]], delimiter=delimiter, **loose)
        if row != []:
            yield taken[-1][0], row


def _parse_row(lines: Iterable[str], **dialect: Any) -> tuple[list[str] | None, bool]:
    """The first row of some lines, None where it cannot be parsed; and whether that is as a quote stays open."""
    try:
        return next(csv.reader(lines, **dialect), []), False
    except csv.Error as error:
        return None, str(error) == "unexpected end of data"


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]] | Dropped]:
    """The objects of a JSON lines file, each with its place "file:line"."""
    for number, line in read_lines(path):
        where = f"{path.name}:{number}"
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Dropped(reason="malformed line", where=where, detail=str(error))
            continue
        if isinstance(value, dict):
            yield where, value
        else:
            yield Dropped(reason="malformed line", where=where, detail=f"a {type(value).__name__}, not an object")


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a list in a JSON file: `name` is the list's key ("" for a file that is a list itself)."""

    name: str
    where: str  # file:line where it begins, and its place in its list
    value: Any
    start: int  # characters of the file before it, and behind it
    end: int


class JsonElements:
    """The elements of a JSON file that is a list, or an object of lists, in constant memory.

    With `members`, what an object holds beside lists is an element too, by its key: an object of questions by their id.
    UserError, with file and line, where the file is no JSON. With `encoding="latin-1"` places count bytes.
    """

    def __init__(self, path: Path, encoding: str = "utf-8", members: bool = False):
        self.path = path
        self.encoding = encoding
        self.members = members
        self._decoder = json.JSONDecoder()
        self._text = ""
        self._at = 0  # where reading stands in `_text`
        self._before = 0  # characters of the file before `_text`
        self._line, self._counted = 1, 0  # number of the line at `_text[_counted]`

    def __iter__(self) -> Iterator[Element]:
        with self.path.open("rb") as probe:
            marked = probe.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
        with self.path.open(encoding=self.encoding, errors="replace", newline="") as self._file:
            if marked:
                self._before = len(self._file.read(1 if self.encoding == "utf-8" else len(codecs.BOM_UTF8)))
            first = self._peek()
            if first not in ("[", "{"):
                self._fail("expected a list or an object")
            if first == "[":
                yield from self._elements("")
            else:
                for _ in self._items("}"):
                    yield from self._member()
            if self._peek():
                self._fail("text after the end")

    def _member(self) -> Iterator[Element]:
        name, _, _ = self._value()
        if not isinstance(name, str) or self._peek() != ":":
            self._fail("expected a key and ':'")
        self._at += 1
        if self._peek() == "[":
            yield from self._elements(name)
        else:
            line = self._line_number()
            value, start, end = self._value()
            if self.members:
                yield Element(name, f"{self.path.name}:{line} {name}", value, start, end)

    def _elements(self, name: str) -> Iterator[Element]:
        for index in self._items("]"):
            self._peek()
            line = self._line_number()
            value, start, end = self._value()
            yield Element(name, f"{self.path.name}:{line} {name}[{index}]", value, start, end)

    def _items(self, closing: str) -> Iterator[int]:
        """Step over brackets and commas; the caller reads what stands between them."""
        self._at += 1
        index = 0
        while self._peek() != closing or index:
            yield index
            index += 1
            if self._peek() == closing:
                break
            if self._peek() != ",":
                self._fail(f"expected ',' or '{closing}'")
            self._at += 1
        self._at += 1

    def _peek(self) -> str:
        """The next character that is no space, "" at the end of the file."""
        while True:
            found = _SPACE.match(self._text, self._at)
            assert found
            self._at = found.end()
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def _value(self) -> tuple[Any, int, int]:
        self._peek()
        while True:
            problem = "value ends with the file"
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except RecursionError:
                self._fail("nested too deep")
            except ValueError as error:
                problem = getattr(error, "msg", str(error))
            else:
                # A number may go on behind what was read: 1 as 1.5 or 1e+5.
                if len(self._text) - end > len("e+"):
                    start, self._at = self._at, end
                    return value, self._before + start, self._before + end
                start = self._at
                if not self._more():
                    self._at = end - start
                    return value, self._before, self._before + self._at
                continue
            if len(self._text) - self._at > _MAX_ELEMENT or not self._more():
                self._fail(problem)

    def _more(self) -> bool:
        """Read on, forgetting what was consumed; what is read doubles with what is kept. False at the end."""
        self._line_number()
        kept = len(self._text) - self._at
        chunk = self._file.read(max(_CHUNK, kept))
        self._text = self._text[self._at :] + chunk
        self._before += self._at
        self._at = self._counted = 0
        return bool(chunk)

    def _line_number(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def _fail(self, problem: str) -> None:
        raise UserError(f"{self.path}, line {self._line_number()}: not valid JSON: {problem}")
