"""What ``optimizer.state`` has for one parameter: states as torch names them, and as the core takes them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from instep import _core
from instep._support.wording import kind as kind_of
from instep.optimizers.stored_formats import REMAINDER, UNIT, StoredFormats, kinds_of
from instep.storage.conversion import stored_as
from instep.torch.formats import CODE, ROOT, code_dtype, new_remainder, new_state
from instep.torch.memory import array
from instep.torch.tensors import check, torch

__all__ = ["OWN_COUNT", "Entry", "Made", "forget", "names_of", "number"]

_COUNT = "step"
#: Of torch's rules that count no steps: random numbers go by the count, and a resumed run needs it.
OWN_COUNT = "rounding_step"

#: What a step puts in the dicts: the parameter, the name, and what was there before, if anything.
Made = list[tuple[Any, str, Any]]


@functools.cache
def names_of(rule: str, options: tuple[str, ...]) -> tuple[str, ...]:
    """Return all names under which a parameter's dict may have what a rule with these options steps."""
    kinds, found = kinds_of(rule), []
    for key in _core.states_of(rule, options):
        kind = kinds.get(key, {"eight_bits": False, "root": False})
        found.append(key)
        found += [key + CODE, key + UNIT] if kind["eight_bits"] else []
        found += [key + ROOT] if kind["root"] else []
    return (*found, REMAINDER, _COUNT, OWN_COUNT)


class Entry:
    """A parameter's dict. Whatever is put there is noted in `made`."""

    def __init__(
        self,
        state: Any,
        parameter: Any,
        name: str,
        rule: tuple[str, tuple[str, ...]],
        formats: StoredFormats,
        made: Made,
    ) -> None:
        self.states = state.get(parameter, {})
        self.name = name
        self.keys = _core.states_of(*rule)
        self._state = state
        self._parameter = parameter
        self._rule = rule
        self._formats = formats
        self._made = made

    def missing(self) -> list[str]:
        """Return the names of the rule's states that aren't there in any form."""
        return [key for key in self.keys if self._form(key) is None]

    def make(self, key: str) -> None:
        """Put a state of zeros there."""
        self._put(self._new(key))

    def renew(self) -> None:
        """Make the states of a parameter before its first step anew, if they aren't in the format for new states.

        torch's Adagrad makes its state with the parameter's dtype when the optimizer is made.
        """
        if self._formats.state_dtype is None:
            return
        for key in self.keys:
            form = self._form(key)
            made = self._new(key)
            if form and (form not in made or self.states[form].dtype != made[form].dtype):
                self._put({form: None, key + UNIT: None, **made})

    def for_core(self, key: str) -> dict[str, Any]:
        """Return the tensors of a state, of the parameter's shape, by the core's names, checked."""
        form = self._form(key)
        assert form is not None
        value, who = self.states[form], self._who(form)
        kind = kinds_of(self._rule[0])[key]
        if form == key + CODE:
            check(who, value, dtypes=(code_dtype(self._rule[0], key),))
            units = self.states.get(key + UNIT)
            if units is None:
                raise KeyError(
                    f"the state of '{self.name}' must have '{key + UNIT}' beside '{form}', got "
                    f"{', '.join(self.states)}"
                )
            check(self._who(key + UNIT), units, dtypes=(torch.float32,))
            return {key: value, key + UNIT: units}
        if form == key + ROOT:
            check(who, value, dtypes=(torch.float16,))
        else:
            check(who, value)
            if kind["root"] and value.dtype == torch.float16:
                self._convert(key)
                return self.for_core(key)
        return {key: value}

    def remainder(self) -> dict[str, Any]:
        """Return the parameter's remainder, made if it shall have one."""
        rest = self.states.get(REMAINDER)
        if rest is None:
            rest = new_remainder(self._formats, self._parameter)
            if rest is None:
                return {}
            self._put({REMAINDER: rest})
        check(self._who(REMAINDER), rest, dtypes=(torch.int8, torch.int16))
        return {REMAINDER: rest}

    def count(self) -> Any:
        """Return the tensor that has the parameter's number of steps, in the dtype that torch gives it."""
        return self._count(_COUNT, 0.0)

    def own_count(self, missing: Sequence[str], own: Sequence[Any]) -> Any:
        """Return the number of steps for a rule that counts none in torch.

        What matters is whether the states are those of a step before; and, if something is rounded at
        random, which random numbers come next. `own` are the states' tensors.
        """
        is_first = not self.keys or bool(missing)
        formats, dtype = self._formats, self._parameter.dtype
        at_random = formats.param_rounding == "stochastic" and dtype.itemsize == 2
        if formats.rounding == "stochastic":
            at_random = at_random or any(tensor.element_size() <= 2 for tensor in own)
        if not at_random:
            return int(not is_first)
        if missing and OWN_COUNT in self.states:
            self._put({OWN_COUNT: None})
        return self._count(OWN_COUNT, float(not is_first))

    def _count(self, key: str, start: float) -> Any:
        found = self.states.get(key)
        if found is None:
            self._put({key: number(f"the step count of '{self.name}'", start, _count_dtype())})
        elif not (
            isinstance(found, torch.Tensor)
            and found.dtype in (torch.float32, torch.float64)
            and found.device.type == "cpu"
            and found.dim() == 0
        ):
            self.states[key] = number(f"the step count of '{self.name}'", found, _count_dtype())
        return self.states[key]

    def check_begun(self, missing: Sequence[str]) -> None:
        """Raise KeyError if a parameter in the middle of its training lacks a state.

        A state of another variant, to which the group has changed, begins with zeros.
        """
        always = _core.states_of(self._rule[0], ())
        for key in missing:
            if key in always:
                raise KeyError(
                    f"the state of '{self.name}' must have '{key}', got {', '.join(self.states)}; "
                    "without any entry in `state`, the parameter starts anew"
                )

    def _form(self, key: str) -> str | None:
        """Return the name of a state's tensor: of its numbers, codes or roots."""
        known = names_of(*self._rule)
        there = [
            name
            for name in (key, key + CODE, key + ROOT)
            if name in known and self.states.get(name) is not None
        ]
        if len(there) > 1:
            raise ValueError(
                f"the state of '{self.name}' must have one of {' and '.join(there)}, got both; "
                "remove what is stale"
            )
        return there[0] if there else None

    def _convert(self, key: str) -> None:
        """Replace a second moment in float16 by what the optimizer makes: float16 is for its root alone."""
        value, shape = self.states[key], tuple(self._parameter.shape)
        if tuple(value.shape) != shape:
            raise ValueError(f"{self._who(key)} must have shape {shape}, got {tuple(value.shape)}")
        made = self._new(key)
        if key in made:
            made[key].copy_(value.detach())
        else:
            arrays = {
                name.removesuffix(CODE).removesuffix(ROOT): array(t) for name, t in made.items()
            }
            kind = kinds_of(self._rule[0])[key]
            wide = self._parameter.dtype == torch.float64
            found = stored_as(self._who(key), array(value), arrays, key, kind, wide=wide)
            for name, numbers in found.items():
                arrays[name][...] = numbers
        self._put({key: None, **made})

    def _new(self, key: str) -> dict[str, Any]:
        return new_state(self._formats, self._rule, key, self._parameter, self.name)

    def _put(self, tensors: dict[str, Any]) -> None:
        """Put tensors in the dict; None removes one."""
        self._state.setdefault(self._parameter, self.states)
        for key, value in tensors.items():
            self._made.append((self._parameter, key, self.states.pop(key, None)))
            if value is not None:
                self.states[key] = value

    def _who(self, key: str) -> str:
        return f"state '{key}' of '{self.name}'"


def forget(state: Any, made: Made) -> None:
    """Take back what was put in the dicts."""
    for parameter, key, before in reversed(made):
        states = state.get(parameter, {})
        states.pop(key, None)
        if before is not None:
            states[key] = before
        if not states:
            state.pop(parameter, None)


def number(who: str, value: Any, dtype: Any) -> Any:
    """Return a tensor of one number."""
    try:
        return torch.tensor(float(value), dtype=dtype, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{who} must be a number, got {kind_of(value)}") from None


def _count_dtype() -> Any:
    """Return the dtype of torch's numbers of steps."""
    return torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32
