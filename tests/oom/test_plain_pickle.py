import os
import pickle
import struct
from typing import Any

import pytest
from oom_samples import fragmented

from vramplan.oom.pickle_refusal import HostilePickle
from vramplan.oom.plain_pickle import Limits, read_plain

PLAIN: dict[str, Any] = {
    "numbers": [0, 1, -1, 255, 65_536, -(2**31), 2**40, -(2**63), 2**64 - 1, 1.5, float("inf")],
    "words": ["", "é", "x" * 300, "\ud800", "y" * 70_000],
    "others": [None, True, False, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, "four", None)],
    "nested": {"a": {"b": [{"c": []}]}, 7: "an integer key"},
    "many": list(range(3000)),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("value", [PLAIN, fragmented(), [], {}, "text", 5])
def test_plain_data_comes_back(value: object, protocol: int) -> None:
    assert read_plain(pickle.dumps(value, protocol)) == value


def test_pythons_other_pickler_is_read_too() -> None:
    assert read_plain(pickle._dumps(PLAIN, 4)) == PLAIN  # type: ignore[attr-defined]


def test_what_is_shared_stays_shared() -> None:
    frames = [{"name": "f"}]
    found: Any = read_plain(pickle.dumps([frames, frames]))
    assert found[0] is found[1]


class Calls:
    """Leaves a file behind when it is loaded."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


class Plain:
    x = 1


class Extended:
    def __reduce_ex__(self, protocol: Any) -> Any:
        return Plain, (), {"state": 1}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_nothing_is_executed(protocol: int, tmp_path: Any) -> None:
    """The command runs when Python loads it, so the pickle is as hostile as it looks."""
    made = tmp_path / "made"
    data = pickle.dumps({"segments": Calls(os.system, f"touch {made}")}, protocol)
    with pytest.raises(HostilePickle) as caught:
        read_plain(data)
    assert "nothing in this one was executed" in caught.value.hint
    assert not made.exists()
    pickle.loads(data)
    assert made.exists()


HOSTILE = {
    "reduce": pickle.dumps(Calls(eval, "1 + 1")),
    "getattr chain": pickle.dumps([Calls(getattr, Calls(__import__, "os"), "system")]),
    "new object": pickle.dumps(Plain()),
    "object with state": pickle.dumps(Extended()),
    "a class": pickle.dumps(Plain),
    "a function": pickle.dumps(len),
    "bytes": pickle.dumps(b"x"),
    "bytearray": pickle.dumps(bytearray(b"x"), 5),
    "a set": pickle.dumps({1}),
    "a frozen set": pickle.dumps(frozenset({1})),
    "inst": b"(S'echo hi'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'echo hi'\no.",
    "persistent id": b"\x80\x02X\x01\x00\x00\x00aQ.",
    "persistent id in text": b"P1\n.",
    "extension": b"\x80\x02\x82\x01.",
    "out of band buffer": b"\x80\x05\x97.",
    "duplicate": b"\x80\x02]2.",
    "pop": b"\x80\x02]]0.",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_more_than_plain_data_is_refused(data: bytes) -> None:
    with pytest.raises(HostilePickle, match="opcode"):
        read_plain(data)


def nested_tuples(depth: int) -> bytes:
    return b"\x80\x02N" + b"\x85" * depth


BOMBS = {
    "a string of 8 EiB": b"\x80\x04\x8d" + struct.pack("<Q", 2**63) + b"x.",
    "a string of 4 GiB": b"\x80\x04X" + struct.pack("<I", 2**32 - 1) + b"x.",
    "a frame of 8 EiB": b"\x80\x04\x95" + struct.pack("<Q", 2**63),
    "an integer of 2 GiB": b"\x80\x04\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
    "an integer of less than nothing": b"\x80\x04\x8b" + struct.pack("<i", -1) + b"x.",
    "an integer of 255 bytes": b"\x80\x04\x8a\xff" + b"x" * 255 + b".",
    "a memo of 4 billion": b"\x80\x02Nr" + struct.pack("<I", 2**32 - 1) + b".",
    "a memo that is not there": b"\x80\x02h\x05.",
    "a key whose hash is deep": b"\x80\x02}" + nested_tuples(100_000)[2:] + b"Ns.",
    "a key that cannot be hashed": b"\x80\x02}]Ns.",
    "deep lists": b"\x80\x02" + b"(]" * 100,
    "values without end": b"\x80\x02" + b"N" * 200_000,
    "an item of nothing": b"\x80\x02Na.",
    "a mark as a value": b"\x80\x02](a.",
    "a mark remembered": b"\x80\x04(\x94.",
    "a container never begun": b"\x80\x02]]e.",
    "a key without a value": b"\x80\x02}(X\x01\x00\x00\x00au.",
    "values left over": b"\x80\x02NN.",
    "a mark left over": b"\x80\x02(.",
    "nothing": b"",
    "no end": b"\x80\x04}",
    "no pickle": b"\x80\xff\xff\xff",
    "broken text": b"\x80\x04\x8c\x02\xff\xff.",
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
def test_bombs_and_broken_pickles_are_refused(data: bytes) -> None:
    with pytest.raises(HostilePickle):
        read_plain(data)


@pytest.mark.parametrize("length", range(0, 700, 7))
def test_a_pickle_that_is_cut_off_is_refused(length: int) -> None:
    data = pickle.dumps(fragmented())
    assert len(data) > 700
    with pytest.raises(HostilePickle):
        read_plain(data[:length])


def test_a_million_laughs_are_one() -> None:
    """Sharing costs nothing to read; nothing walks the tree."""
    value: Any = ["ha"]
    for _ in range(60):
        value = [value] * 10
    found: Any = read_plain(pickle.dumps(value))
    assert found[0] is found[9]


def test_limits_of_file_and_memory_hold() -> None:
    data = pickle.dumps([{} for _ in range(1000)])
    with pytest.raises(HostilePickle, match="the pickle has"):
        read_plain(data, Limits(file=100))
    # 1,000 dictionaries in 3 kB: more than 200 bytes each
    with pytest.raises(HostilePickle, match="unfolds to more than"):
        read_plain(data, Limits(memory=200_000))
    assert read_plain(data, Limits(memory=1_000_000)) == [{}] * 1000
