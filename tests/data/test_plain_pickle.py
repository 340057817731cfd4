"""Plain values come back as `pickle` reads them; everything else is refused before it does anything."""

import collections
import contextlib
import datetime
import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossgrain.config import UserError
from crossgrain.data.sets.plain_pickle import PickleError, plain_value, read_plain_pickle

TEXTS = st.text(st.characters(exclude_categories=()), max_size=20)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(TEXTS | st.integers(0, 9), inner),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None)
@given(VALUES, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_values_of_every_protocol_come_back(value, protocol):
    assert repr(plain_value(pickle.dumps([value, value], protocol))) == repr([value, value])


def python_2(value) -> bytes:
    """What Python 2's pickle writes for a value with byte strings, in its protocol 0."""
    if isinstance(value, bytes):
        return b"S%s\n" % repr(value)[1:].encode()
    if isinstance(value, bool):
        return b"I0%d\n" % value
    if isinstance(value, int):
        return b"I%d\n" % value if abs(value) < 2**31 else b"L%dL\n" % value
    if isinstance(value, str):
        return b"V%s\n" % value.encode("raw-unicode-escape")
    if isinstance(value, dict):
        return b"(d" + b"".join(python_2(key) + python_2(one) + b"s" for key, one in value.items())
    assert isinstance(value, list)
    return b"(l" + b"".join(python_2(one) + b"a" for one in value)


def test_what_python_2_wrote_is_read_with_its_byte_strings_as_text():
    value = {b"raw": [b'it\'s "a\\b"\n', "\u2603 snow", "é".encode(), "é".encode("latin-1")], b"n": [True, -7, 2**40]}
    read = {"raw": ['it\'s "a\\b"\n', "\u2603 snow", "é", "é"], "n": [True, -7, 2**40]}
    assert plain_value(python_2(value) + b".") == read
    short, long = (b"\x80\x02U\x02\xc3\xa9q\x01.", b"\x80\x02T\x02\x00\x00\x00\xe9!q\x01.")
    assert (plain_value(short), plain_value(long)) == ("é", "é!")


def test_shared_parts_stay_shared_and_may_contain_themselves():
    part = ["x"]
    first, second = plain_value(pickle.dumps([part, part]))
    assert first is second
    endless = []
    endless.append(endless)
    read = plain_value(pickle.dumps(endless))
    assert read[0] is read


class Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_command_is_not_run_and_its_name_is_shown(tmp_path, protocol):
    file = tmp_path / "refs(unc).p"
    file.write_bytes(pickle.dumps([{"ref_id": Runs(tmp_path / "ran")}], protocol))
    with pytest.raises(UserError, match=r"refs\(unc\)\.p, byte \d+: .*GLOBAL (posix|nt) system; only dict") as error:
        read_plain_pickle(file)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


HOSTILE = {
    "GLOBAL": b"cos\nsystem\n.",
    "GLOBAL without an end": b"cos",
    "INST": b"(S'true'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'true'\no.",
    "REDUCE": b"(lI1\nR.",
    "BUILD": b"}}b.",
    "NEWOBJ": b"\x80\x02})\x81.",
    "EXT1": b"\x80\x02\x82\x01.",
    "PERSID": b"Pfile\n.",
    "BINPERSID": b"I1\nQ.",
    "BINBYTES": b"\x80\x03C\x01a.",
    "BYTEARRAY8": b"\x80\x05\x96" + struct.pack("<Q", 1) + b"a.",
    "NEXT_BUFFER": b"\x80\x05\x97.",
    "EMPTY_SET": b"\x80\x04\x8f.",
    "FROZENSET": b"\x80\x04(\x91.",
    "POP": b"I1\nI2\n0.",
    "DUP": b"I1\n2.",
    "unknown opcode": b"\xff.",
    "protocol": b"\x80\x09N.",
    "promised text": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"abc.",
    "promised frame": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",
    "promised number": b"\x80\x02\x8b" + struct.pack("<i", 2**30) + b"\x01.",
    "negative size": b"\x80\x02\x8b" + struct.pack("<i", -1) + b"\x01.",
    "digits": b"L" + b"9" * 100_000 + b"L\n.",
    "memo": b"N\x80\x02j\xff\xff\xff\x7f.",
    "no end": pickle.dumps([1, 2, 3])[:-1],
    "a line without an end": b"V" + b"a" * 100,
    "no mark": b"I1\nt.",
    "nothing": b"",
    "no value": b".",
    "two values": b"I1\nI2\n.",
    "a mark as a value": b"(.",
    "a kept mark": b"(p1\n.",
    "append to a number": b"I1\nI2\na.",
    "a list as a key": b"}]I1\ns.",
    "an odd dict": b"(I1\nd.",
    "quotes": b"Sabc\n.",
    "number": b"Iabc\n.",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_plain_pickle_is_refused_with_its_byte(case):
    with pytest.raises(PickleError, match=r"^(byte \d+: |broken pickle)"):
        plain_value(HOSTILE[case])


@pytest.mark.parametrize(
    "value",
    [
        np.int64(3),
        np.float32(0.5),
        np.zeros(2),
        b"bytes",
        {1, 2},
        collections.OrderedDict(a=1),
        datetime.date(2020, 1, 1),
        1j,
        len,
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_values_that_are_not_plain_are_refused(value, protocol):
    with pytest.raises(PickleError, match="only dict, list, tuple, str, int, float, bool and None"):
        plain_value(pickle.dumps({"ref_id": value}, protocol))


def test_numpys_scalars_are_named():
    with pytest.raises(PickleError, match=r"GLOBAL numpy\S* scalar; only .*Save it anew with plain values"):
        plain_value(pickle.dumps([np.int64(3)], 2))


def test_claims_cost_no_memory():
    """A memo number, a size or a doubling that only a trusting reader would believe."""
    memo = b"\x80\x02K\x01r\xff\xff\xff\x7f" + b"p99999999999999\n."
    doubled = []
    for _ in range(60):
        doubled = [doubled, doubled]
    doubled, nested = pickle.dumps(doubled), b"]" * 10_000 + b"a" * 9_999 + b"."
    tracemalloc.start()
    assert plain_value(memo) == 1
    assert len(plain_value(doubled)) == 2
    assert len(plain_value(nested)) == 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50 * 2**20


@settings(max_examples=80, deadline=None)
@given(VALUES, st.integers(0, 5), st.integers(0, 10**6), st.binary(min_size=1, max_size=4))
def test_a_damaged_pickle_is_read_or_refused_and_nothing_else(value, protocol, place, damage):
    data = bytearray(pickle.dumps(value, protocol))
    data[place % len(data) : place % len(data) + len(damage)] = damage
    with contextlib.suppress(PickleError):
        plain_value(bytes(data))
