"""An optimizer taken apart and put together again, for pickles and copies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from instep.optimizers.containers import packed, unpacked
from instep.optimizers.settings import Settings

if TYPE_CHECKING:
    from instep.optimizers.bound import Bound

__all__ = ["ARRAYS", "put_together", "taken_apart"]

#: What of the parts are arrays of the optimizer's own, which the core copies.
ARRAYS = ("state", "averages", "accumulated")


def taken_apart(optimizer: Bound) -> dict[str, Any]:
    """Return what `put_together` makes an equal optimizer from; the lock is held.

    The arrays are those in use. The caller's containers go along as they are: whether they hold these
    arrays is looked at by the optimizer that is made of the parts.
    """
    optimizer._plan.refuse_averages("copy")
    held = optimizer._held
    return {
        "defaults": optimizer._defaults,
        "groups": [
            packed(named, group._settings)
            for named, group in zip(held.named, held.groups, strict=True)
        ],
        "grouped": held.grouped,
        "clip_norm": optimizer.clip_norm,
        "nonfinite": optimizer.nonfinite,
        "ema_decay": optimizer.ema_decay,
        "copies": list(held.copies),
        "state_dtype": optimizer._state_dtype,
        "counts": (optimizer.step_count, optimizer.skipped_steps),
        "steps": optimizer._plan.steps,
        "attributes": _attributes(optimizer),
        "state": optimizer._plan.states,
        "averages": optimizer._plan.averages,
        "accumulated": optimizer._plan.accumulated,
    }


def put_together(optimizer: Bound, parts: dict[str, Any]) -> None:
    """Make an optimizer of a class that was never called: `__init__` may want other arguments.

    Arrays of the caller's that are read-only are held as they came (those of a memory map, or of a
    process that shares them), and refused by the first step.
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
        parts["state_dtype"],
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


def _attributes(optimizer: Bound) -> dict[str, Any]:
    """Return what a subclass of the caller's, or whoever has it, has set on the optimizer."""
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
