"""An optimizer taken apart and put together again, for pickles and copies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from instep.optimizers.containers import packed, unpacked
from instep.optimizers.settings import Settings
from instep.optimizers.stored_formats import StoredFormats

if TYPE_CHECKING:
    from instep.optimizers.bound import Bound
    from instep.optimizers.current import Values

__all__ = ["ARRAYS", "attributes", "put_together", "taken_apart"]

#: The parts that are the optimizer's own arrays, which the core copies.
ARRAYS = ("state", "averages", "accumulated")


def taken_apart(optimizer: Bound) -> dict[str, Any]:
    """Return the parts from which `put_together` makes an equal optimizer; the lock is held.

    The arrays are the arrays in use. The caller's containers are parts, too, as they are; the optimizer that is made of
    the parts checks whether they hold these arrays.
    """
    optimizer._plan.refuse_averages("copy")
    held, now = optimizer._held, optimizer._current.now  # once: another thread may set them
    return {
        "defaults": _defaults(now),
        "groups": [
            packed(named, group.settings)
            for named, group in zip(held.named, now.groups, strict=True)
        ],
        "grouped": held.grouped,
        "clip_norm": now.clip_norm,
        "nonfinite": now.nonfinite,
        "ema_decay": now.ema_decay,
        "copies": list(held.copies),
        "formats": optimizer._formats._replace(seed=optimizer._plan.seed)._asdict(),
        "counts": (optimizer.step_count, optimizer.skipped_steps),
        "steps": optimizer._plan.steps,
        "attributes": attributes(optimizer),
        "state": optimizer._plan.states,
        "averages": optimizer._plan.averages,
        "accumulated": optimizer._plan.accumulated,
    }


def put_together(optimizer: Bound, parts: dict[str, Any]) -> None:
    """Make an optimizer without a call of its class, since `__init__` may have other arguments.

    The caller's arrays may be read-only (from a memory map, or shared by processes). They are kept
    as they are, and the first step refuses them.
    """
    groups = [unpacked(group) for group in parts["groups"]]
    Settings.__init__(
        optimizer,
        parts["defaults"],
        parts["clip_norm"],
        parts["nonfinite"],
        parts["ema_decay"],
    )
    optimizer._bind(
        groups,
        parts["copies"],
        StoredFormats(**parts["formats"]),
        grouped=parts["grouped"],
        take_read_only=True,
    )
    averages, accumulated = parts["averages"], parts["accumulated"]
    entries = [
        (steps, parts["state"][name], averages.get(name), accumulated.get(name), None)
        for name, steps in zip(optimizer.params, parts["steps"], strict=True)
    ]
    step_count, skipped_steps = parts["counts"]
    with optimizer._plan:
        optimizer._plan.restore(step_count, skipped_steps, entries, is_new=True)
    for name, value in parts["attributes"].items():
        setattr(optimizer, name, value)


def _defaults(now: Values) -> dict[str, Any]:
    """Return the values for groups to come. A schedule that no group has any more is left out.

    It may be a function that can't be pickled, and the program that replaced it everywhere counts on
    its being gone.
    """
    first = now.groups[0].settings
    in_use = [value for group in now.groups for value in group.settings.values()]

    def gone(value: Any) -> bool:
        parts = value if isinstance(value, tuple) else (value,)
        return any(map(callable, parts)) and not any(value is used for used in in_use)

    defaults = now.defaults
    return {name: first[name] if gone(value) else value for name, value in defaults.items()}


def attributes(optimizer: object) -> dict[str, Any]:
    """Return the attributes that a subclass or the caller has set on the optimizer."""
    found = dict(getattr(optimizer, "__dict__", {}))
    for cls in type(optimizer).__mro__:
        if cls.__module__.partition(".")[0] == "instep":
            continue
        slots = vars(cls).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            name = f"_{cls.__name__.lstrip('_')}{slot}" if _is_mangled(slot) else slot
            if slot not in ("__dict__", "__weakref__") and hasattr(optimizer, name):
                found[name] = getattr(optimizer, name)
    return found


def _is_mangled(name: str) -> bool:
    return name.startswith("__") and not name.endswith("__")
