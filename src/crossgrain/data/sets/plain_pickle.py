"""Read a pickle of plain values without ever doing what a pickle can ask for.

A pickle is a program for a stack machine, and some of its opcodes name and call Python functions. This machine knows
those that put together dict, list, tuple, str, int, float, bool and None, and refuses a file at the first other one
(opcodes: CPython's Lib/pickletools.py). Memory stays in proportion to the file: nothing is set aside for sizes or memo
numbers that a file merely claims. Pickles of Python 2 are read too; its byte strings are taken as UTF-8, else Latin-1.
"""

import codecs
import pickletools
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crossgrain.config import UserError

MAX_BYTES = 2**30  # of a file; RefCOCO's have tens of millions
_MAX_DIGITS = 20  # of a number in text: 64 bits and a sign
_MARK = object()
_END = object()
_ASKED = "only dict, list, tuple, str, int, float, bool and None are read, as anything else could run code"


class PickleError(ValueError):
    """A pickle that is broken, or that holds more than plain values; the message names the byte."""


def read_plain_pickle(path: Path) -> Any:
    """The plain value in a pickle file. UserError, with file and byte, where it is none.

    Parts of the value may be shared or contain themselves: read what you expect, and do not walk or print the whole.
    """
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes; at most {MAX_BYTES:,} are read")
    try:
        return plain_value(path.read_bytes())
    except PickleError as error:
        raise UserError(f"{path}, {error}") from None


def plain_value(data: bytes) -> Any:
    """The plain value that a pickle holds; `PickleError` where it is broken or holds more than plain values."""
    return _Machine(data).run()


class _Machine:
    """The stack, the memo, and where reading stands."""

    def __init__(self, data: bytes):
        self.data = data
        self.at = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        data, size, opcodes = self.data, len(self.data), _OPCODES
        while self.at < size:
            start = self.at
            code = data[start]
            self.at += 1
            act = opcodes.get(code)
            if act is None:
                raise PickleError(f"byte {start}: {self._refusal(code)}")
            try:
                if act(self) is _END:
                    return self._result()
            except PickleError as error:
                raise PickleError(f"byte {start}: {error}") from None
            except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
                raise PickleError(f"byte {start}: broken pickle: {type(error).__name__} {error}") from None
        raise PickleError(f"byte {size}: broken pickle: it ends without STOP")

    def _result(self) -> Any:
        if len(self.stack) != 1 or self.stack[0] is _MARK:
            raise PickleError(f"broken pickle: {len(self.stack)} values instead of one")
        return self.stack[0]

    def _refusal(self, code: int) -> str:
        """What an opcode asks for that is not granted."""
        known = _NAMES.get(chr(code))
        if known is None:
            return f"broken pickle: no opcode {code:#04x}"
        names: list[str] = []
        if known in ("GLOBAL", "INST"):
            names = [line.decode("latin-1") for line in self.data[self.at : self.at + 200].split(b"\n")[:2]]
        elif known == "STACK_GLOBAL":
            names = [name for name in self.stack[-2:] if isinstance(name, str)]
        named = "".join(c if c.isprintable() else "?" for c in " ".join((known, *(name[:80] for name in names))))
        return f"the pickle asks for {named}; {_ASKED}. Save it anew with plain values."

    # What the opcodes read: numbers, lines, and as many bytes as they say.

    def take(self, number: int) -> bytes:
        end = self.at + number
        if end > len(self.data):
            raise PickleError(f"broken pickle: {number} bytes are promised, {len(self.data) - self.at} are left")
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise PickleError("broken pickle: a line does not end")
        taken = self.data[self.at : end]
        self.at = end + 1
        return taken

    def whole(self) -> int:
        """A whole number written in decimal digits."""
        return _whole(self.line())

    # What they do.

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def since_mark(self) -> list[Any]:
        """What stands above the last mark; both leave the stack."""
        stack = self.stack
        place = len(stack) - 1
        while stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise PickleError("broken pickle: no mark")
        values = stack[place + 1 :]
        del stack[place:]
        return values

    def last(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise PickleError(f"broken pickle: something is put into what is no {kind.__name__}")
        return self.stack[-1]

    def value(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise PickleError("broken pickle: a mark in place of a value")
        return value

    def append(self) -> None:
        value = self.value()
        self.last(list).append(value)

    def append_all(self) -> None:
        values = self.since_mark()
        self.last(list).extend(values)

    def set_item(self) -> None:
        value, key = self.value(), self.value()
        self.last(dict).update(_pairs([key, value]))

    def set_items(self) -> None:
        values = self.since_mark()
        self.last(dict).update(_pairs(values))

    def make_tuple(self, size: int) -> None:
        self.push(tuple(reversed([self.value() for _ in range(size)])))

    def keep(self, number: int) -> None:
        if self.stack[-1] is _MARK:
            raise PickleError("broken pickle: a mark in place of a value")
        self.memo[number] = self.stack[-1]

    def recall(self, number: int) -> None:
        self.push(self.memo[number])


def _pairs(values: list[Any]) -> dict[Any, Any]:
    keys = values[::2]
    if len(values) % 2 or not all(isinstance(key, str | int) for key in keys):
        raise PickleError("a dict is read with keys of text or whole numbers only")
    return dict(zip(keys, values[1::2], strict=True))


def _whole(digits: bytes) -> int:
    digits = digits.removesuffix(b"L")
    if len(digits) > _MAX_DIGITS:
        raise PickleError(f"a number of {len(digits)} digits; {_MAX_DIGITS} are read")
    return int(digits)


def _int_line(machine: _Machine) -> None:
    digits = machine.line()
    is_bool = digits in (b"00", b"01")  # as protocol 0 writes False and True
    machine.push(digits == b"01" if is_bool else _whole(digits))


def _long(machine: _Machine, size: int) -> None:
    if size > 8:
        raise PickleError(f"a number of {size} bytes; 8 are read")
    machine.push(int.from_bytes(machine.take(size), "little", signed=True))


def _quoted(machine: _Machine) -> None:
    text = machine.line().strip()
    if len(text) < 2 or text[0] != text[-1] or text[0] not in b"'\"":
        raise PickleError("broken pickle: a text without quotes")
    text = text[1:-1]
    if b"\\" in text:
        with warnings.catch_warnings(action="ignore"):  # of escapes that Python does not know
            text = codecs.escape_decode(text)[0]
    machine.push(_text(text))


def _text(data: bytes) -> str:
    """A byte string of Python 2, or text; lone surrogates stay, for the reader to refuse."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _protocol(machine: _Machine) -> None:
    if machine.number(1) > 5:
        raise PickleError("broken pickle: a protocol above 5")


def _frame(machine: _Machine) -> None:
    size = machine.number(8)
    if size > len(machine.data) - machine.at:
        raise PickleError(f"broken pickle: {size} bytes are promised, {len(machine.data) - machine.at} are left")


_NAMES = {opcode.code: opcode.name for opcode in pickletools.opcodes}
_ACTS: dict[str, Callable[[_Machine], Any]] = {
    "PROTO": _protocol, "FRAME": _frame, "STOP": lambda m: _END,
    "NONE": lambda m: m.push(None), "NEWTRUE": lambda m: m.push(True), "NEWFALSE": lambda m: m.push(False),
    "INT": _int_line, "LONG": lambda m: m.push(m.whole()), "FLOAT": lambda m: m.push(float(m.line())),
    "BININT": lambda m: _long(m, 4), "BININT1": lambda m: m.push(m.number(1)), "BININT2": lambda m: m.push(m.number(2)),
    "LONG1": lambda m: _long(m, m.number(1)), "LONG4": lambda m: _long(m, m.number(4)),
    "BINFLOAT": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    "STRING": _quoted, "UNICODE": lambda m: m.push(m.line().decode("raw-unicode-escape")),
    "BINSTRING": lambda m: m.push(_text(m.take(m.number(4)))),
    "SHORT_BINSTRING": lambda m: m.push(_text(m.take(m.number(1)))),
    "SHORT_BINUNICODE": lambda m: m.push(_text(m.take(m.number(1)))),
    "BINUNICODE": lambda m: m.push(_text(m.take(m.number(4)))),
    "BINUNICODE8": lambda m: m.push(_text(m.take(m.number(8)))),
    "MARK": lambda m: m.push(_MARK),
    "EMPTY_LIST": lambda m: m.push([]), "LIST": lambda m: m.push(m.since_mark()),
    "APPEND": _Machine.append, "APPENDS": _Machine.append_all,
    "EMPTY_DICT": lambda m: m.push({}), "DICT": lambda m: m.push(_pairs(m.since_mark())),
    "SETITEM": _Machine.set_item, "SETITEMS": _Machine.set_items,
    "EMPTY_TUPLE": lambda m: m.push(()), "TUPLE": lambda m: m.push(tuple(m.since_mark())),
    "TUPLE1": lambda m: m.make_tuple(1), "TUPLE2": lambda m: m.make_tuple(2), "TUPLE3": lambda m: m.make_tuple(3),
    "PUT": lambda m: m.keep(m.whole()), "BINPUT": lambda m: m.keep(m.number(1)),
    "LONG_BINPUT": lambda m: m.keep(m.number(4)), "MEMOIZE": lambda m: m.keep(len(m.memo)),
    "GET": lambda m: m.recall(m.whole()), "BINGET": lambda m: m.recall(m.number(1)),
    "LONG_BINGET": lambda m: m.recall(m.number(4)),
}  # fmt: skip
_OPCODES = {ord(opcode.code): _ACTS[opcode.name] for opcode in pickletools.opcodes if opcode.name in _ACTS}
