"""The caller's extra: its form in the document of a checkpoint, and its arrays among the tensors.

If extra has only what JSON can hold, its form is that JSON. Otherwise each value that JSON can't
hold becomes an object with one key:

- ``{"float": "nan"}``, ``{"float": "inf"}`` and ``{"float": "-inf"}`` for these numbers
- ``{"tensor": NAME}`` for an array; NAME is its tensor in the file
- ``{"dict": {...}}`` for a dict whose only key is one of "float", "tensor" and "dict"

NAME is ``extra`` and the JSON pointer (RFC 6901) of the array's place, such as
``extra/rng/state/key``. No tensor of an optimizer has a name that begins like this.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from instep import _core
from instep._support.wording import difference, kind, shown
from instep.checkpoint.format import DTYPES
from instep.optimizers.containers import Array
from instep.optimizers.stored_arrays import require_unmasked

__all__ = ["Encoded", "decoded", "encoded", "is_of_extra", "require_each_once"]

_NAME = "extra"
_FLOAT, _TENSOR, _DICT = "float", "tensor", "dict"
_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_DEEPEST = 200  # levels of extra: far from the interpreter's limit, wherever load is called
_MOST_BITS = 10_000  # of an int that Python certainly writes as decimals
_LONGEST_PLACE = 200

#: What stands for a value, and for a container also its items and where their forms go.
_Form: TypeAlias = "tuple[Any, tuple[Iterable[tuple[Any, Any]], Any] | None]"


class Encoded(NamedTuple):
    """Extra, as a checkpoint holds it."""

    form: Any  # its form in the document, with objects for other values than JSON's
    plain: Any  # extra itself, if it is JSON already
    is_json: bool  # whether it is
    arrays: dict[str, Array]  # the caller's arrays in extra, by the names of their tensors


def encoded(extra: Any) -> Encoded:
    """Return extra in the form of a checkpoint; TypeError or ValueError names what it can't hold."""
    # In the default rounding mode, since numbers of NumPy's may be rounded to Python's.
    return _core.in_default_environment(lambda: _encoded(extra))


def _encoded(extra: Any) -> Encoded:
    writer = _Writer(escapes=False)
    form = plain = _rebuilt(extra, writer.form)
    is_json = writer.is_json
    if writer.is_ambiguous:
        writer = _Writer(escapes=True)
        form = _rebuilt(extra, writer.form)
    return Encoded(form, plain, is_json and writer.is_json, writer.arrays)


def is_of_extra(name: str) -> bool:
    """Tell whether a tensor of this name is an array of extra."""
    return name.partition("/")[0] == _NAME


def decoded(form: Any, tensors: Mapping[str, Array]) -> Any:
    """Return extra from its form with objects for other values, and these arrays; ValueError if they don't fit."""
    names: list[str] = []

    def value_of(value: Any, path: Sequence[Any]) -> _Form:
        if isinstance(value, list):
            values: list[Any] = [None] * len(value)
            return values, (enumerate(value), values)
        if not isinstance(value, dict):
            return value, None
        if len(value) == 1:
            ((key, inner),) = value.items()
            if key == _FLOAT and isinstance(inner, str) and inner in _FLOATS:
                return _FLOATS[inner], None
            if key == _TENSOR and isinstance(inner, str) and inner in tensors:
                names.append(inner)
                return tensors[inner], None
            if key == _DICT and isinstance(inner, dict):
                value = inner
            elif key in (_FLOAT, _TENSOR, _DICT):
                raise ValueError(
                    f"{_place(path)} must be a value of a checkpoint, got {shown(value)}"
                )
        found: dict[str, Any] = {}
        return found, (value.items(), found)

    extra = _rebuilt(form, value_of)
    require_each_once(names, tensors)
    return extra


def require_each_once(names: Iterable[str], tensors: Mapping[str, Array]) -> None:
    """Raise ValueError unless these are the names of the tensors, each of them once."""
    if sorted(names) != sorted(tensors):
        raise ValueError(
            f"extra must have each of its tensors once; {difference(sorted(names), sorted(tensors))}"
        )


def _rebuilt(whole: Any, form_of: Callable[[Any, Sequence[Any]], _Form]) -> Any:
    """Return the tree of the results of `form_of`, called with each value and the keys that lead to it.

    A loop, since a recursion may be too deep.
    """
    root: list[Any] = [None]
    levels: list[tuple[Any, Any]] = [(iter([(0, whole)]), root)]
    path: list[Any] = []  # with the place in root before it
    while levels:
        items, forms = levels[-1]
        for key, value in items:
            path[len(levels) - 1 :] = [key]
            forms[key], inner = form_of(value, path)
            if inner is not None:
                levels.append((iter(inner[0]), inner[1]))
                break
        else:
            levels.pop()
    return root[0]


class _Writer:
    """Makes the forms of values, and notes whether all values are JSON already."""

    def __init__(self, *, escapes: bool) -> None:
        self.is_json = True
        self.is_ambiguous = False  # whether a dict looks like an object for another value
        self._escapes = escapes
        self.arrays: dict[str, Array] = {}

    def form(self, value: Any, path: Sequence[Any]) -> _Form:
        if value is None or isinstance(value, (str, bool)):
            return value, None
        if isinstance(value, (int, float, np.generic)):
            return self._number(value, path), None
        if isinstance(value, np.ndarray):
            return self._array(value, path), None
        if isinstance(value, (dict, list, tuple)):
            if len(path) > _DEEPEST:
                raise ValueError(f"{_NAME} must have at most {_DEEPEST} levels, got more")
            return self._dict(value, path) if isinstance(value, dict) else _list(value)
        raise _unknown(value, path)

    def _dict(self, value: dict[Any, Any], path: Sequence[Any]) -> _Form:
        for key in value:
            if not isinstance(key, str):
                raise TypeError(
                    f"the keys of {_place(path)} must be str, got {shown(key)}; pass str(key)"
                )
        # The text of a key, whatever a subclass of str says of itself.
        items = [(str.__str__(key), inner) for key, inner in value.items()]
        if len(dict(items)) < len(items):
            raise ValueError(f"the keys of {_place(path)} must be different texts, got one twice")
        forms: dict[str, Any] = {}
        ambiguous = len(items) == 1 and items[0][0] in (_FLOAT, _TENSOR, _DICT)
        self.is_ambiguous |= ambiguous
        return {_DICT: forms} if ambiguous and self._escapes else forms, (items, forms)

    def _number(self, value: Any, path: Sequence[Any]) -> Any:
        number = _python_number(value)
        if number is None:
            raise _unknown(value, path)
        if isinstance(number, int):
            _require_short(number, path)
            return number
        if math.isfinite(number):
            return number
        if np.isfinite(value):
            raise ValueError(f"{_place(path)} must be in the range of float64, got {shown(value)}")
        self.is_json = False
        return {_FLOAT: str(float(number))}

    def _array(self, value: Array, path: Sequence[Any]) -> dict[str, str]:
        require_unmasked(_place(path), value)
        array = np.asarray(value)
        if array.dtype.name not in DTYPES:
            *names, last = DTYPES
            raise TypeError(
                f"{_place(path)} must have dtype {', '.join(names)} or {last}, got {array.dtype}"
            )
        if not array.dtype.isnative:
            raise TypeError(
                f"{_place(path)} must have this machine's byte order, got {array.dtype.str}; "
                'pass array.astype(array.dtype.newbyteorder("="))'
            )
        if array.dtype == np.bool_ and np.any(array.view(np.uint8) > 1):
            array = array.view(np.uint8) != 0  # as NumPy takes such bytes; a file has 0 and 1 alone
        self.is_json = False
        keys = (str(key).replace("~", "~0").replace("/", "~1") for key in path[1:])
        name = "/".join([_NAME, *keys])
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"the keys of {_place(path)} must be text that UTF-8 can hold, got a lone surrogate"
            ) from None
        self.arrays[name] = array
        return {_TENSOR: name}


def _list(value: Any) -> _Form:
    values = list(value)
    forms: list[Any] = [None] * len(values)
    return forms, (enumerate(values), forms)


def _python_number(value: Any) -> bool | int | float | None:
    """Return the Python number of an int, a float or a NumPy scalar; None if there is none."""
    if isinstance(value, (int, float)):
        return value
    make = {"b": bool, "i": int, "u": int, "f": float}.get(value.dtype.kind)
    if value.dtype.name == "bfloat16":
        make = float
    number: bool | int | float | None = None if make is None else make(value)
    return number


def _require_short(number: int, path: Sequence[Any]) -> None:
    """Raise ValueError for an int of more digits than Python writes."""
    if number.bit_length() > _MOST_BITS:
        try:
            int.__repr__(number)
        except ValueError:
            raise ValueError(
                f"{_place(path)} must have no more digits than Python writes "
                f"(sys.get_int_max_str_digits()), got an int of {number.bit_length()} bits"
            ) from None


def _place(path: Sequence[Any]) -> str:
    """Return the place in extra as Python writes it, without its middle if it is long."""
    place = _NAME + "".join(f"[{shown(key)}]" for key in path[1:])
    half = _LONGEST_PLACE // 2
    return place if len(place) <= _LONGEST_PLACE else f"{place[:half]}...{place[-half:]}"


def _unknown(value: Any, path: Sequence[Any]) -> TypeError:
    return TypeError(
        f"{_place(path)} must be a dict, list, tuple, str, bool, int, float, NumPy array or None, "
        f"got {kind(value)}{_hint(value)}"
    )


def _hint(value: Any) -> str:
    """Say what to pass in the place of some values that a checkpoint can't hold."""
    hints: list[tuple[type | tuple[type, ...], str]] = [
        ((set, frozenset), "a list"),
        ((bytes, bytearray), "np.frombuffer(data, np.uint8)"),
        (np.random.Generator, "its bit_generator.state"),
        (np.random.BitGenerator, "its state"),
        (np.random.RandomState, "its get_state(legacy=False)"),
    ]
    found = next((hint for types, hint in hints if isinstance(value, types)), None)
    if found is None and hasattr(value, "detach"):
        found = "tensor.detach().numpy()"
    elif found is None and hasattr(value, "__array__") and not isinstance(value, np.generic):
        found = "np.asarray(value)"
    return "" if found is None else f"; pass {found}"
