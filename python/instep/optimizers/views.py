"""An optimizer's arrays, by name: to read and to write into, not to replace."""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

from instep._support.wording import listed

__all__ = ["View"]

Value = TypeVar("Value")


class View(dict[str, Value]):
    """The arrays in use, by name. To replace an array here would have no effect, so it is refused.

    It is a dict, not a mappingproxy, so that it can be copied, pickled and passed on like a dict;
    copies are plain dicts. ``view["w"] *= 2`` works: it changes the array, and then sets the same
    array.
    """

    __slots__ = ()

    def __missing__(self, key: object) -> Value:
        """The entries of a list have the names "0", "1", ...; accept the ints, too."""
        name = str(key)
        if isinstance(key, int) and not isinstance(key, bool) and name in self:
            return self[name]
        if not self:
            raise KeyError(f"there are no arrays here, got the key {key!r}")
        raise KeyError(f"the key must be one of {listed(self)}, got {key!r}")

    def __setitem__(self, name: str, value: Value) -> None:
        if name not in self or self[name] is not value:
            self._refuse()

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(
            "an array of an optimizer can't be replaced or removed; write into it, as in "
            "[...] = values"
        )

    __delitem__ = clear = pop = popitem = setdefault = update = _refuse
    __ior__ = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)
