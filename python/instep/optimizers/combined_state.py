"""The state of several optimizers that are stepped as one, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from instep._support.archives import refuse_archive
from instep._support.checks import require_keys
from instep._support.wording import described, shown
from instep.optimizers import stored_state
from instep.optimizers.hyperparameters import check_number_or_none
from instep.optimizers.settings import CLIP_NORM, NONFINITE
from instep.schedules.loading import Loading
from instep.schedules.writing import places_by_number

if TYPE_CHECKING:
    from instep.optimizers.hyperparameters import Number
    from instep.optimizers.several import Several

__all__ = [
    "KEYS",
    "about",
    "checked",
    "numbers",
    "require_no_limits",
    "require_state",
    "state_dict",
]

KEYS = ("schema", "step_count", "skipped_steps", "clip_norm", "optimizers")


@contextmanager
def about(k: int) -> Iterator[None]:
    """Say in the errors of a block which of the optimizers they are about."""
    try:
        yield
    except Exception as error:
        notes = getattr(error, "__notes__", None)
        if isinstance(notes, list):  # an error in a schedule, raised unchanged
            notes.append(f"in optimizers[{k}]")
            raise
        if type(error) not in (TypeError, ValueError):
            raise
        raise type(error)(f"optimizers[{k}]: {error}") from error.__cause__


def require_no_limits(k: int, clip_norm: Number | None, nonfinite: str = NONFINITE[0]) -> None:
    """Raise ValueError if one of several optimizers has limits of its own."""
    for name, found, needed in (
        ("clip_norm", clip_norm, None),
        ("nonfinite", nonfinite, NONFINITE[0]),
    ):
        if found != needed:
            raise ValueError(
                f"{name} of optimizers[{k}] must be {shown(needed)} in a Combined, got "
                f"{shown(found)}; give {name} to the Combined"
            )


def state_dict(combined: Several) -> dict[str, Any]:
    """Return counts, clip_norm and the state of each optimizer."""
    state = numbers(combined)
    for optimizer, its_state in zip(combined.optimizers, state["optimizers"], strict=True):
        its_state.update(stored_state.arrays(optimizer))
    return state


def numbers(combined: Several) -> dict[str, Any]:
    """Return the result of `state_dict`, without the arrays."""
    optimizers, limit = combined.optimizers, combined.clip_norm
    nows = [optimizer._current.now for optimizer in optimizers]
    several = places_by_number(
        [limit, *(value for now in nows for value in stored_state.hyperparameters(now))]
    )
    return {
        "schema": stored_state.SCHEMA,
        "step_count": combined.step_count,
        "skipped_steps": combined.skipped_steps,
        "clip_norm": stored_state.encoded(limit, several),
        "optimizers": [
            stored_state.numbers(optimizer, now, several)
            for optimizer, now in zip(optimizers, nows, strict=True)
        ],
    }


def checked(
    combined: Several,
    state: Mapping[str, Any],
    weights: Sequence[Mapping[str, Any]] | None = None,
) -> Callable[[int], None]:
    """Check everything of all, and return a function that changes all; as `stored_state.checked`."""
    require_state(combined, state)
    pairs = list(zip(combined.optimizers, state["optimizers"], strict=True))
    loading = Loading()
    _decoded_limit(combined, state, loading.note)
    for k, (optimizer, its_state) in enumerate(pairs):
        with about(k):
            stored_state.require_state(optimizer, its_state)
            stored_state.checked_hyperparameters(optimizer, its_state, loading.note)
    clip_norm = _decoded_limit(combined, state, loading.choose)
    counts = stored_state.checked_counts(state)
    stored = state["clip_norm"], combined.clip_norm
    others = list(stored_state.other_callables_at("clip_norm", *stored))
    incoming = []
    for k, (optimizer, its_state) in enumerate(pairs):
        its_weights = None if weights is None else weights[k]
        with about(k):
            parts = stored_state.checked_parts(optimizer, its_state, its_weights, loading.choose)
        require_no_limits(k, parts.values.clip_norm)
        incoming.append(parts)
        others.extend(f"optimizers[{k}]: {message}" for message in parts.others)

    def change(stacklevel: int) -> None:
        stored_state.warn(others, stacklevel)
        now = combined._current.now._replace(clip_norm=clip_norm)
        combined._plan.restore(*counts, [parts.of_member() for parts in incoming], now)
        loading.finish()

    return change


def require_state(combined: Several, state: Mapping[str, Any]) -> None:
    """Raise TypeError or ValueError unless this is a state of as many optimizers."""
    refuse_archive(state, "schema")
    if isinstance(state, dict) and "rule" in state:
        raise ValueError(
            f"the state must be of a Combined, got a state of one optimizer ({shown(state['rule'])}); "
            "load it into an optimizer of this rule"
        )
    require_keys("the state", state, KEYS)
    stored_state.require_schema("the state", state["schema"])
    found, count = state["optimizers"], len(combined.optimizers)
    if not isinstance(found, list) or len(found) != count:
        raise ValueError(
            f"optimizers of the state must be a list of {count}, got {described(found)}"
        )


def _decoded_limit(combined: Several, state: Mapping[str, Any], choose: Any) -> Number | None:
    limit = stored_state.decoded("clip_norm", state["clip_norm"], combined.clip_norm, choose)
    return check_number_or_none("clip_norm", limit, CLIP_NORM)
