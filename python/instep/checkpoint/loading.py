"""Going on from a checkpoint."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from instep._support.checks import mapping, require_keys
from instep.checkpoint.document import (
    arrays_by_optimizer,
    members,
    path_text,
    require_scaler,
    stored_extra,
    stored_for,
)
from instep.checkpoint.extra import is_of_extra
from instep.checkpoint.format import opened
from instep.optimizers import Combined, Optimizer, combined_state, stored_state
from instep.optimizers.containers import Array
from instep.optimizers.loss_scaler import LossScaler
from instep.optimizers.require import require_optimizers
from instep.optimizers.state_storage import on_disk
from instep.optimizers.stored_arrays import require_like

__all__ = ["check_scaler", "check_weights", "load", "take_arrays"]


def load(
    path: str | os.PathLike[str],
    optimizer: Optimizer | Combined,
    scaler: LossScaler | None = None,
) -> Any:
    """Load a checkpoint that `save` wrote, so that the run goes on to the bit; return its extra.

    The weights are written into the optimizer's parameters, in place. Names, shapes, dtypes and
    hyperparameters are checked before the arrays are read. All arrays are kept in memory, once,
    until all are verified; arrays of an optimizer with ``state_storage`` are kept in its folder.
    Hyperparameters are loaded as by `Optimizer.load_state_dict`. A callable that is not a schedule
    of instep can't be loaded: the optimizer must have it already; if its name differs, there is a
    warning. A `ReduceOnPlateau` of the optimizer takes over the stored arguments and state. Nothing
    in the file is executed.

    Parameters
    ----------
    path : str or path
        The file.
    optimizer : Optimizer or Combined
        An optimizer of the same rule, for parameters of the same names, shapes and dtypes, with the
        same dtypes of states, and with averages if the saved optimizer had averages. If a Combined
        was saved, a Combined of such optimizers, in the same order.
    scaler : LossScaler, optional
        Give a scaler if, and only if, a scaler was saved.

    Returns
    -------
    object
        The `extra` that was saved, or None. Tuples become lists, and NumPy scalars become Python
        numbers. Arrays have their dtypes and shapes, C order, and their own memory.

    Raises
    ------
    CheckpointError
        If the file is not a checkpoint, is damaged, or doesn't fit; nothing has changed then.
    TypeError
        If an argument is of the wrong type.
    OSError
        If the file can't be read.
    RuntimeError
        Inside ``averaged()``.
    ImportError
        If safetensors is missing, or ml_dtypes for a file with bfloat16.

    Examples
    --------
    >>> import numpy as np, os, tempfile
    >>> import instep
    >>> from instep import checkpoint
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "run.safetensors")
    ...     checkpoint.save(path, instep.Adam(np.ones(2)))
    ...     try:
    ...         checkpoint.load(path, instep.Adam(np.ones(3)))
    ...     except checkpoint.CheckpointError as error:
    ...         print(str(error).removeprefix(path))
    : the stored parameter '0' must have shape (3,) and dtype float64, got (2,) and float64
    """
    require_optimizers(optimizer, "checkpoint.load(path, optimizer)")
    optimizer._warn_of_replaced()
    path = path_text(path)
    require_scaler(scaler)
    with opened(path) as file:
        stored_extra(file.document, file.stand_ins)
        with optimizer._plan:
            _checked(file.document, file.stand_ins, optimizer, scaler)
        arrays = {name: _kept(name, file.array(name), optimizer) for name in file.stand_ins}
        extra = stored_extra(file.document, arrays)
        with optimizer._plan:  # other threads may have changed it while the arrays were read
            change = _checked(file.document, arrays, optimizer, scaler)
            change(3)
            if scaler is not None:
                scaler.load_state_dict(file.document["scaler"])
    return extra


def _kept(name: str, array: Array, optimizer: Optimizer | Combined) -> Array:
    """Return an array to be kept until all are verified: on disk if it is of an optimizer with states in files."""
    if is_of_extra(name):
        return array
    for prefix, one in members(optimizer):
        if name.startswith(prefix) and one._state_storage is not None:
            return on_disk(array, one._state_storage)
    return array


def take_arrays(
    stored: dict[str, Any], arrays: Mapping[str, Array], optimizer: Optimizer
) -> dict[str, Array]:
    """Put the arrays into the stored state, in the layout of state_dict; return the weights, checked."""
    by_kind: dict[str, dict[str, Any]] = {"weights": {}, "averages": {}, "accumulated": {}}
    states: dict[str, dict[str, Array]] = {name: {} for name in optimizer.params}
    for full_name, array in arrays.items():
        what, _, name = full_name.partition("/")
        if what == "state":
            key, _, name = name.partition("/")
            states.setdefault(name, {})[key] = array
        elif what in by_kind:
            by_kind[what][name] = array
        else:
            raise ValueError(
                "a tensor must be of the weights, states, averages or accumulated gradients, got "
                f"{full_name!r}"
            )
    weights = by_kind.pop("weights")
    stored.update(state=states, **by_kind)
    check_weights(weights, optimizer)
    return weights


def _checked(
    document: Mapping[str, Any],
    arrays: Mapping[str, Array],
    optimizer: Optimizer | Combined,
    scaler: LossScaler | None,
) -> Callable[[int], None]:
    """Check that everything fits, and return a function that changes the optimizer; the lock is held."""
    optimizer._plan.refuse_averages("load")
    check_scaler(document["scaler"], scaler)
    stored = stored_for(optimizer, document)
    if not isinstance(optimizer, Combined):
        (own,) = arrays_by_optimizer(arrays, optimizer)
        return stored_state.checked(optimizer, stored, take_arrays(stored, own, optimizer))
    weights = []
    for k, own in enumerate(arrays_by_optimizer(arrays, optimizer)):
        with combined_state.about(k):
            weights.append(take_arrays(stored["optimizers"][k], own, optimizer.optimizers[k]))
    return combined_state.checked(optimizer, stored, weights)


def check_weights(weights: Mapping[str, Array], optimizer: Optimizer) -> None:
    """Raise TypeError or ValueError unless these fit the optimizer's parameters, which can be written to."""
    params = optimizer.params
    require_keys("weights", weights, tuple(params))
    for name, param in params.items():
        require_like(f"the stored parameter {name!r}", weights[name], param)
        if not np.asarray(param).flags.writeable:
            raise ValueError(
                f"parameter {name!r} must be writeable to be loaded, got an array that is read-only"
            )


def check_scaler(stored: Any, scaler: LossScaler | None) -> None:
    """Raise TypeError or ValueError unless a scaler is there if one was saved, and can load its state."""
    if stored is None and scaler is not None:
        raise ValueError(
            "scaler must be None, got a LossScaler: the checkpoint has none; save with scaler=..., or "
            "load without it"
        )
    if stored is not None and scaler is None:
        raise ValueError(
            "scaler must be a LossScaler, got None: the checkpoint has the state of one; pass "
            "scaler=instep.LossScaler()"
        )
    if scaler is not None:
        LossScaler().load_state_dict(
            mapping("the loss scaler", stored)
        )  # a trial, on another scaler
