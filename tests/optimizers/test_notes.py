"""What a schedule raises comes through as it is, with a note where it has room for one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import instep

NOTE = "raised by the schedule of lr at step 0"


class Slots(Exception):
    __slots__ = ("code",)


@dataclass(frozen=True)
class Frozen(Exception):
    code: int = 3


class Property(Exception):
    @property
    def __notes__(self) -> Any:
        raise RuntimeError("not to be asked")


class NoDict(Exception):
    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("not to be asked")


class ADictThatIsNone(Exception):
    __dict__ = None  # type: ignore[assignment]


class Stubborn(list[str]):
    def append(self, _: str) -> None:
        raise RuntimeError("not to be asked")


def with_notes(notes: Any) -> Exception:
    error = KeyError("no rate")
    error.__notes__ = notes  # type: ignore[attr-defined]
    return error


ERRORS: dict[str, Exception] = {
    "notes None": with_notes(None),
    "notes a str": with_notes("mine"),
    "notes a tuple": with_notes(("mine",)),
    "notes an int": with_notes(3),
    "notes a list that refuses": with_notes(Stubborn()),
    "slots": Slots(),
    "frozen": Frozen(),
    "a property": Property(),
    "no __dict__": NoDict(),
    "a __dict__ that is None": ADictThatIsNone(),
}


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("place", ["lr", "clip_norm"])
def test_the_error_itself_comes_through(name: str, place: str) -> None:
    error = ERRORS[name]

    def schedule(_: int) -> float:
        raise error

    w = np.ones(2)
    optimizer = instep.SGD(w, **{place: schedule})
    before = repr(optimizer.state_dict()), w.tolist()
    with pytest.raises(type(error)) as caught:
        optimizer.step(np.ones(2))
    assert caught.value is error
    assert (repr(optimizer.state_dict()), w.tolist()) == before
    assert error.__cause__ is None
    assert error.__context__ is None


@pytest.mark.parametrize("error", [KeyError("no rate"), Slots(), Frozen(), with_notes(["mine"])])
def test_the_note_where_there_is_room(error: Exception) -> None:
    def schedule(_: int) -> float:
        raise error

    with pytest.raises(type(error)):
        instep.SGD(np.ones(2), lr=schedule).step(np.ones(2))
    notes: Any = vars(error)["__notes__"]
    assert notes in ([NOTE], ["mine", NOTE])
