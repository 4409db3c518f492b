"""Writing a checkpoint."""

import os
from pathlib import Path
from typing import Any

from instep.checkpoint.document import SCHEMA, as_json, path_text, require_scaler, without_infinity
from instep.checkpoint.format import write
from instep.checkpoint.whole_file import replace_file
from instep.optimizers import Optimizer, stored_state
from instep.optimizers.containers import Array
from instep.optimizers.loss_scaler import LossScaler
from instep.optimizers.require import require_optimizer

__all__ = ["save"]


def save(
    path: str | os.PathLike[str],
    optimizer: Optimizer,
    extra: Any = None,
    scaler: LossScaler | None = None,
) -> None:
    """Write everything that a resumed run needs to one file, in one step.

    The file is written beside its place, synced to the disk and then put there: whenever the
    program or the machine stops, the old file or the new one is there, whole. A program killed in
    between leaves a folder ``.instep-*.tmp`` beside it; on Linux the next save there removes it,
    if its writer is dead for certain. The arrays are written from where they lie; only of those
    that are not C-contiguous (strided, transposed) a copy is made.

    Parameters
    ----------
    path : str or path
        The file, in a folder that is there; by custom it ends in ``.safetensors``. The mode of a
        file that is replaced stays. A symbolic link is followed; a folder, a pipe or a device is
        refused before anything is written.
    optimizer : Optimizer
        Its parameters, states, averages, accumulated gradients, counts and hyperparameters are
        written; of a callable that is no schedule of instep's the name alone. Steps on other
        threads wait while the arrays are written, but not for the disk to have them; to step on
        meanwhile, save a ``copy.deepcopy`` on a thread of its own.
    extra : optional
        Anything of yours that JSON can hold, up to 200 levels deep, such as the state of a random
        number generator; it comes back as JSON has it, tuples as lists, keys as str, NumPy's
        scalars as Python's numbers. NaN and infinity are refused.
    scaler : LossScaler, optional
        Its state is written too.

    Raises
    ------
    OSError
        If the file can't be written: the disk is full, the folder isn't there or isn't yours to
        read and write, the path leads to what is no file. The error names the path. What was there
        is as it was, and nothing else is left behind. Only where the folder can't be synced, in the
        end, the new file is there, and not on the disk for certain.
    TypeError, ValueError
        If extra is nothing for JSON, or another argument of the wrong type.
    RuntimeError
        Inside ``averaged()``, where the parameters are averages.
    ImportError
        If safetensors is missing.

    Examples
    --------
    >>> import numpy as np, os, tempfile
    >>> import instep
    >>> from instep import checkpoint
    >>> rng = np.random.default_rng(0)
    >>> optimizer = instep.SGD(rng.standard_normal(4), lr=0.1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "run.safetensors")
    ...     checkpoint.save(path, optimizer, extra={"rng": rng.bit_generator.state})
    ...     rng.bit_generator.state = checkpoint.load(path, optimizer)["rng"]
    """
    require_optimizer(optimizer, "checkpoint.save(path, optimizer)")
    optimizer._warn_of_replaced()
    path = path_text(path)
    require_scaler(scaler)
    extra = as_json(extra)

    def write_all(place: Path) -> None:
        with optimizer._plan:
            stored_state.refuse_averages(optimizer, "save")
            document = {
                "schema": SCHEMA,
                "optimizer": without_infinity(stored_state.numbers(optimizer)),
                "scaler": None if scaler is None else scaler.state_dict(),
                "extra": extra,
            }
            write(place, document, _arrays(optimizer))

    replace_file(path, write_all)


def _arrays(optimizer: Optimizer) -> dict[str, Array]:
    """Return all that a file has, by the names there: the arrays in use."""
    arrays = {f"weights/{name}": param for name, param in optimizer.params.items()}
    for name, states in optimizer.state.items():
        arrays.update({f"state/{key}/{name}": array for key, array in states.items()})
    arrays.update({f"averages/{name}": array for name, array in optimizer.averages.items()})
    arrays.update({f"accumulated/{name}": array for name, array in optimizer.accumulated.items()})
    return arrays
