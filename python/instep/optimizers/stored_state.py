"""The state of an optimizer as plain data: everything for a resumed run with the same bits."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from instep._support.archives import refuse_archive
from instep._support.checks import mapping, require_keys
from instep._support.wording import described, difference, kind, shown
from instep.optimizers import stored_arrays
from instep.optimizers.stored_formats import checked_seed
from instep.schedules.loading import Loading
from instep.schedules.reading import other_callables, restored
from instep.schedules.writing import places_by_number, to_dict

if TYPE_CHECKING:
    from instep.optimizers.bound import Bound
    from instep.optimizers.current import GroupValues, Values
    from instep.schedules.loading import Choose

__all__ = [
    "SCHEMA",
    "Incoming",
    "load_state_dict",
    "state_dict",
]

#: Version of the layout of `state_dict`'s result. Version 1 had no seed, and second moments in
#: float16 were stored themselves, not their roots.
SCHEMA = 2

KEYS = (
    "schema",
    "rule",
    "step_count",
    "skipped_steps",
    "seed",
    "clip_norm",
    "ema_decay",
    "param_groups",
    "steps",
    "state",
    "averages",
    "accumulated",
)


def state_dict(optimizer: Bound) -> dict[str, Any]:
    """Return counts, hyperparameters and copies of all states."""
    return {**numbers(optimizer), **arrays(optimizer)}


def hyperparameters(now: Values) -> list[Any]:
    """Return the values at all places that may have a schedule."""
    settings = [value for group in now.groups for value in group.settings.values()]
    return [now.clip_norm, now.ema_decay, *settings]


def numbers(
    optimizer: Bound, now: Values | None = None, several: Mapping[int, int] | None = None
) -> dict[str, Any]:
    """Return the result of `state_dict`, without the arrays.

    `now` has the hyperparameters, which another thread may set meanwhile. `several` has the numbers
    of schedules at several places, also of other optimizers.
    """
    optimizer._plan.require_whole()
    if now is None:
        now = optimizer._current.now
    if several is None:
        several = places_by_number(hyperparameters(now))
    absent = optimizer._absent()
    return {
        "schema": SCHEMA,
        "rule": optimizer._rule_name,
        "step_count": optimizer.step_count,
        "skipped_steps": optimizer.skipped_steps,
        "seed": optimizer._plan.seed,
        "clip_norm": encoded(now.clip_norm, several),
        "ema_decay": encoded(now.ema_decay, several),
        "param_groups": [
            {
                "params": list(group.names),
                **{
                    name: encoded(value, several)
                    for name, value in values.settings.items()
                    if callable(value) or value != absent.get(name, NotImplemented)
                },
            }
            for group, values in zip(optimizer.param_groups, now.groups, strict=True)
        ],
        "steps": steps(optimizer),
    }


def steps(optimizer: Bound) -> dict[str, int]:
    """Return each parameter's own step count."""
    return dict(zip(optimizer.params, optimizer._plan.steps, strict=True))


def arrays(optimizer: Bound) -> dict[str, Any]:
    """Return copies of each parameter's states, averages and sums."""
    return {
        "state": {
            name: {key: array.copy() for key, array in states.items()}
            for name, states in optimizer.state.items()
        },
        "averages": {name: array.copy() for name, array in optimizer.averages.items()},
        "accumulated": {name: array.copy() for name, array in optimizer.accumulated.items()},
    }


def load_state_dict(optimizer: Bound, state: Mapping[str, Any]) -> None:
    """Check everything, then change the optimizer; raise TypeError or ValueError before that."""
    checked(optimizer, state)(4)


def checked(
    optimizer: Bound, state: Mapping[str, Any], weights: Mapping[str, Any] | None = None
) -> Callable[[int], None]:
    """Check everything, and return a function that changes the optimizer.

    Raises TypeError or ValueError. The weights, if there are any, have been checked already. The
    function's argument is the stacklevel of its warnings.
    """
    require_state(optimizer, state)
    loading = Loading()
    checked_hyperparameters(optimizer, state, loading.note)
    incoming = checked_parts(optimizer, state, weights, loading.choose)

    def change(stacklevel: int) -> None:
        warn(incoming.others, stacklevel)
        incoming.restore(optimizer)
        loading.finish()

    return change


def require_state(optimizer: Bound, state: Mapping[str, Any]) -> None:
    """Raise TypeError or ValueError unless this is a state of the optimizer's rule."""
    refuse_archive(state, "schema")
    if isinstance(state, dict) and set(state) - {"seed"} == {"state", "param_groups"}:
        raise ValueError(
            "the state must be one of instep's, got a state in the form of torch.optim; pass it to "
            "instep.interop.from_torch_state_dict"
        )
    if isinstance(state, dict) and "optimizers" in state:
        raise ValueError(
            "the state must be of one optimizer, got a state of a Combined; load it into a Combined"
        )
    require_keys("the state", state, keys_of(state))
    require_schema("the state", state["schema"])
    if state["rule"] not in optimizer._names():
        raise ValueError(
            f"the rule of the state must be {optimizer._rule_name!r}, got {shown(state['rule'])}"
        )


class Incoming(NamedTuple):
    """A checked state on its way into an optimizer."""

    counts: tuple[int, int]
    parameters: Callable[[], list[Any]]  # as the core takes them, made when everything is checked
    values: Values
    seed: int | None  # None: the optimizer's own stays
    others: list[str]  # warnings of callables that have other names

    def restore(self, optimizer: Bound) -> None:
        """Change the optimizer."""
        optimizer._plan.restore(*self.counts, self.parameters(), self.values, seed=self.seed)

    def of_member(self) -> tuple[int, int, list[Any], Values, int | None]:
        """Return what the core's `Combined` takes for each optimizer."""
        return (*self.counts, self.parameters(), self.values, self.seed)


def warn(messages: Iterable[str], stacklevel: int) -> None:
    """Warn of callables; before any change, since a warning may be an error."""
    for message in messages:
        warnings.warn(message, UserWarning, stacklevel=stacklevel + 1)


def checked_parts(
    optimizer: Bound,
    state: Mapping[str, Any],
    weights: Mapping[str, Any] | None,
    choose: Choose,
) -> Incoming:
    """Check everything; all schedules of all places have been noted before."""
    values = checked_hyperparameters(optimizer, state, choose)
    require_keys("steps", state["steps"], tuple(optimizer.params))
    for name, count in state["steps"].items():
        _count(f"steps[{name!r}]", count)
    stored_arrays.check(optimizer, state)
    seed = checked_seed(state["seed"]) if "seed" in state else None
    return Incoming(
        checked_counts(state),
        lambda: parameters(optimizer, state, weights),
        values,
        seed,
        list(_other_callables(optimizer, state)),
    )


def take_over(
    optimizer: Bound,
    hyperparameters: Values,
    counts: tuple[int, int],
    state: Mapping[str, Any],
) -> None:
    """Put a checked state into the optimizer, in one call; the lock is held."""
    optimizer._plan.restore(*counts, parameters(optimizer, state, None), hyperparameters)


def parameters(
    optimizer: Bound, state: Mapping[str, Any], weights: Mapping[str, Any] | None
) -> list[Any]:
    """Return what the core takes for each parameter."""
    averages, accumulated, weights = state["averages"], state["accumulated"], weights or {}
    return [
        (
            state["steps"][name],
            stored_arrays.completed(optimizer, state, name),
            averages.get(name),
            accumulated.get(name),
            weights.get(name),
        )
        for name in optimizer.params
    ]


def checked_hyperparameters(optimizer: Bound, state: Mapping[str, Any], choose: Choose) -> Values:
    """Return all hyperparameters."""
    clip_norm = decoded("clip_norm", state["clip_norm"], optimizer.clip_norm, choose)
    ema_decay = decoded("ema_decay", state["ema_decay"], optimizer.ema_decay, choose)
    if (ema_decay is None) != (optimizer.ema_decay is None):
        expected = "None, as" if optimizer.ema_decay is None else "a number, as"
        has = "no averages" if optimizer.ema_decay is None else "averages"
        raise ValueError(
            f"ema_decay of the state must be {expected} the optimizer has {has}, got {shown(ema_decay)}"
        )
    groups = _checked_groups(optimizer, state["param_groups"], choose)
    return optimizer._checked_values(groups, clip_norm, ema_decay)


def _other_callables(optimizer: Bound, state: Mapping[str, Any]) -> Iterator[str]:
    """Name the places where the optimizer's callable has another name than the stored callable; all is checked."""
    places = [(name, state[name], getattr(optimizer, name)) for name in ("clip_norm", "ema_decay")]
    for k, (group, stored) in enumerate(
        zip(optimizer.param_groups, state["param_groups"], strict=True)
    ):
        for name, mine in group._settings.items():
            if name in stored:
                places.append((f"param_groups[{k}][{name!r}]", stored[name], mine))
    for place in places:
        yield from other_callables_at(*place)


def other_callables_at(who: str, stored: Any, mine: Any) -> Iterator[str]:
    """Say for a place which callables had another name when they were stored."""
    for name, own in other_callables(stored, mine):
        yield (
            f"{who} was saved with the callable {shown(name)}, and is {shown(own)} now; "
            f"the run goes on with {shown(own)}"
        )


def _checked_groups(optimizer: Bound, groups: Any, choose: Choose) -> list[GroupValues]:
    if not isinstance(groups, list) or len(groups) != len(optimizer.param_groups):
        raise ValueError(
            f"param_groups must be a list of {len(optimizer.param_groups)}, got {described(groups)}"
        )
    checked = []
    for k, (group, stored) in enumerate(zip(optimizer.param_groups, groups, strict=True)):
        who = f"param_groups[{k}]"
        theirs = {**optimizer._absent(), **mapping(who, stored)}
        require_keys(who, theirs, ("params", *group._settings))
        names = theirs["params"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"the params of {who} must be a list of names, got {kind(names)}")
        if names != list(group.names):
            raise ValueError(
                f"the params of {who} must be the optimizer's; {difference(names, group.names)}"
            )
        settings = {
            name: decoded(f"{who}[{name!r}]", theirs[name], mine, choose)
            for name, mine in group._settings.items()
        }
        checked.append(group._checked_values(settings))
    return checked


def keys_of(state: Any) -> tuple[str, ...]:
    """Return the keys of a state of this one's version."""
    schema = state.get("schema") if isinstance(state, Mapping) else None
    is_first = type(schema) is int and schema == 1
    return tuple(key for key in KEYS if key != "seed" or not is_first)


def require_schema(who: str, found: Any) -> None:
    """Raise ValueError unless found is a version, and an int: True and 1.0 equal 1, too."""
    if type(found) is not int or not 1 <= found <= SCHEMA:
        raise ValueError(f"the schema of {who} must be 1 to {SCHEMA}, got {shown(found)}")


def checked_counts(state: Mapping[str, Any]) -> tuple[int, int]:
    """Return step_count and skipped_steps of a state."""
    return (
        _count("step_count", state["step_count"]),
        _count("skipped_steps", state["skipped_steps"]),
    )


def _count(who: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 2**53:
        raise ValueError(
            f"{who} must be a count of steps, an int from 0 to 2**53, got {shown(value)}"
        )
    return value


def encoded(value: Any, numbers: Mapping[int, int]) -> Any:
    """A hyperparameter as JSON could hold it."""
    if callable(value):
        return to_dict(value, numbers=numbers, by_name=True)
    return [encoded(part, numbers) for part in value] if isinstance(value, tuple) else value


def decoded(who: str, value: Any, mine: Any, choose: Choose) -> Any:
    """A hyperparameter from its `encoded` form, with the caller's callables of the present value."""
    if isinstance(value, list):
        parts = mine if isinstance(mine, tuple) and len(mine) == len(value) else [None] * len(value)
        return tuple(
            part if isinstance(part, list) else decoded(f"{who}[{k}]", part, own, choose)
            for k, (part, own) in enumerate(zip(value, parts, strict=True))
        )
    if not isinstance(value, Mapping):
        return value
    try:
        return restored(dict(value), mine, choose)
    except ValueError as error:
        raise ValueError(f"{who}: {error}") from None
