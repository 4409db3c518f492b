"""What the core keeps and reads of a host's objects: snapshots of its dicts and lists, an attribute of many objects."""

from __future__ import annotations

from typing import Any

import pytest

from instep import _core


def groups() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    return [{"lr": 0.1, "betas": (0.9, 0.99), "params": [object()]}, {"lr": 0.2}], {"state": {}}


def test_a_snapshot_follows_floats_under_one_key() -> None:
    those, state = groups()
    snapshot = _core.make_snapshot(those, state)
    those[0]["lr"], those[1]["lr"] = 0.3, 0.4
    assert not snapshot.matches(those, state)
    assert snapshot.follow("lr", those, state)
    assert snapshot.matches(those, state)
    those[1]["lr"] = 0.5
    assert not snapshot.matches(those, state)
    assert snapshot.follow("lr", those, state)


def test_a_snapshot_follows_a_key_from_a_file() -> None:
    """Such a key is equal to the program's, and another object."""
    key = "".join(["l", "r"])
    assert key is not "lr"  # noqa: F632
    those = [{key: 0.1}, {"of": 0.2}]
    snapshot = _core.make_snapshot(those)
    those[0][key] = 0.3
    assert snapshot.follow("lr", those)
    those[1]["of"] = 0.4
    assert not snapshot.follow("lr", those)


@pytest.mark.parametrize(
    ("key", "value"), [("lr", 1), ("lr", None), ("lr", "0.1"), ("betas", [0.9, 0.99]), ("eps", 0.5)]
)
def test_a_snapshot_follows_nothing_else(key: str, value: object) -> None:
    """And takes over nothing, not even a float that it may follow alone."""
    those, state = groups()
    snapshot = _core.make_snapshot(those, state)
    before = dict(those[0]), dict(those[1])
    those[1]["lr"] = 0.4
    those[0][key] = value
    assert not snapshot.follow("lr", those, state)
    for group, its in zip(those, before, strict=True):
        group.clear()
        group.update(its)
    assert snapshot.matches(those, state)


def test_a_snapshot_follows_no_subclass_of_float() -> None:
    class Float(float):
        pass

    those, state = groups()
    snapshot = _core.make_snapshot(those, state)
    those[0]["lr"] = Float(0.3)
    assert not snapshot.follow("lr", those, state)


class Held:
    def __init__(self, value: Any) -> None:
        self._value = value

    @property
    def value(self) -> Any:
        if isinstance(self._value, Exception):
            raise self._value
        return self._value


def read(*values: Any, special: Any = lambda _: False) -> Any:
    objects = [Held(value) for value in values]
    found = _core.read_all(Held.value, objects, list, special)
    if found is None:
        return None
    return found[0], [objects.index(one) for one in found[1]]


def test_an_attribute_of_many_objects() -> None:
    a, b = [1], [2]
    values, there = read(a, b)
    assert values[0] is a
    assert values[1] is b
    assert there == [0, 1]
    assert read(None, a, None) == ([None, a, None], [1])
    assert read() == ([], [])
    assert read(None) == ([None], [])
    assert read(a, (1,)) is None
    assert read(a, type("List", (list,), {})()) is None
    assert read(a, b, special=lambda value: value is b) is None


def test_errors_of_an_attribute() -> None:
    def fail(_: object) -> bool:
        raise RuntimeError("asked")

    with pytest.raises(ValueError, match=r"^read$"):
        read([], ValueError("read"))
    with pytest.raises(RuntimeError, match=r"^asked$"):
        read([], special=fail)
    with pytest.raises(TypeError, match=r"^descriptor must be a descriptor, got an int$"):
        _core.read_all(1, [], list, len)
