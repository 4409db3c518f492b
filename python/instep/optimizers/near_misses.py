"""Other libraries' names of attributes: if one is read or set, the error tells instep's name."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["add_near_misses", "add_near_misses_of_each", "bind", "hint", "without_near_misses"]

_MEANT = {
    "learning_rate": "lr",
    "step_size": "lr",
    "momentum": "betas",
    "beta1": "betas",
    "beta2": "betas",
    "beta3": "betas",
    "b1": "betas",
    "b2": "betas",
    "b3": "betas",
    "epsilon": "eps",
    "l2": "weight_decay",
    "l1_regularization_strength": "l1",
    "l2_regularization_strength": "weight_decay",
    "parameters": "params",
    "groups": "param_groups",
    "iterations": "step_count",
    "zero_grad": "discard_accumulated",
}

# Arguments that are no attributes, since arrays were made by them.
_FIXED = (
    "copy_to",
    "master_bits",
    "min_8bit_size",
    "param_rounding",
    "rounding",
    "state_dtype",
    "state_storage",
)

# Of the faces, whose libraries have other names; an empty text: nothing there is meant.
_MEANT_ELSEWHERE = {
    "lr": "learn_rate",
    "clip_norm": "grad_clip",
    "weight_decay": "L2",
    "ema_decay": "",
    "copy_to": "",
}


class _NearMiss:
    """An attribute that doesn't exist, also for `hasattr`.

    There is a descriptor for each name, and no ``__getattr__``, which would slow down every other
    attribute, such as `step`. An object of a user's class has a ``__dict__``, and may use the name.
    """

    def __init__(self, name: str, meant: str) -> None:
        self._name, self._meant = name, meant
        self.__doc__ = f"Not there; see {meant}."

    def __get__(self, optimizer: object, owner: type) -> Any:
        try:
            return vars(optimizer)[self._name]
        except (TypeError, KeyError):
            raise self._refusal(owner) from None

    def __set__(self, optimizer: object, value: object) -> None:
        try:
            vars(optimizer)[self._name] = value
        except TypeError:  # no __dict__
            raise self._refusal(type(optimizer)) from None

    def __delete__(self, optimizer: object) -> None:
        self.__get__(optimizer, type(optimizer))
        del vars(optimizer)[self._name]

    def _refusal(self, owner: type) -> AttributeError:
        there = [self._meant] if hasattr(owner, self._meant) else []
        text = hint(self._name, there)
        return AttributeError(f"{owner.__name__} has no attribute {self._name!r}{text}")


class _Fixed(_NearMiss):
    """An argument of the optimizer that can't be changed later."""

    def __init__(self, name: str) -> None:
        super().__init__(name, name)
        self.__doc__ = "Not there; fixed when the optimizer is made."

    def _refusal(self, owner: type) -> AttributeError:
        return AttributeError(
            f"{owner.__name__} has no attribute {self._name!r}, which is fixed when the optimizer is "
            "made; to change it, make a new optimizer and load the state"
        )


class _OfEach(_NearMiss):
    """An attribute that each of several optimizers has, and all together don't."""

    def _refusal(self, owner: type) -> AttributeError:
        return AttributeError(
            f"{owner.__name__} has no attribute {self._name!r}; each optimizer has its own, as in "
            f".optimizers[0].{self._meant}"
        )


def hint(name: str, there: Iterable[str]) -> str:
    """Return the end of an error about a name that isn't there: what was meant, if that is there."""
    from difflib import get_close_matches  # noqa: PLC0415 (for errors alone)

    there = list(there)
    if name == "zero_grad" and _MEANT[name] in there:
        return "; a step takes its gradients as an argument, so there is nothing to set to zero"
    if _MEANT_ELSEWHERE.get(name) == "":
        return ""
    known = [table[name] for table in (_MEANT, _MEANT_ELSEWHERE) if table.get(name) in there]
    meant = known or get_close_matches(name, there, 1)
    return f"; did you mean {meant[0]!r}?" if meant else ""


def bind(
    who: str, signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> inspect.BoundArguments:
    """Bind arguments to a signature, with its defaults; TypeError names `who`, and what may be meant."""
    try:
        found = signature.bind(*args, **kwargs)
    except TypeError as error:
        there = [name for name in signature.parameters if name != "self"]
        meant = next((hint(name, there) for name in kwargs if name not in there), "")
        raise TypeError(f"{who}: {error}{meant}") from None
    found.apply_defaults()
    return found


def add_near_misses(cls: type) -> None:
    """Add them to a class after its body, so that type checkers see no such attribute."""
    for name, meant in _MEANT.items():
        setattr(cls, name, _NearMiss(name, meant))
    for name in _FIXED:
        setattr(cls, name, _Fixed(name))


def add_near_misses_of_each(cls: type, names: Iterable[str]) -> None:
    """Add attributes of the single optimizers, and other names of these, to a class for several."""
    for name, meant in {**dict(zip(names, names, strict=True)), **_MEANT}.items():
        if not hasattr(cls, name) and not hasattr(cls, meant):
            setattr(cls, name, _OfEach(name, meant))


def without_near_misses(cls: type, names: Iterable[str]) -> list[str]:
    """Return the names without near misses, for ``dir``."""
    return [n for n in names if not isinstance(inspect.getattr_static(cls, n, None), _NearMiss)]
