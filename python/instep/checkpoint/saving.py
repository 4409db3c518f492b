"""Writing a checkpoint."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from instep.checkpoint.document import made, members, path_text, require_scaler
from instep.checkpoint.extra import encoded
from instep.checkpoint.format import ArraySource, write
from instep.checkpoint.whole_file import replace_file
from instep.optimizers import Combined, Optimizer
from instep.optimizers.containers import Array
from instep.optimizers.loss_scaler import LossScaler
from instep.optimizers.require import require_optimizers

__all__ = ["save"]


def save(
    path: str | os.PathLike[str],
    optimizer: Optimizer | Combined,
    extra: Any = None,
    scaler: LossScaler | None = None,
) -> None:
    """Write everything that a resumed run needs to one file, atomically.

    The file is written beside its place, synced to the disk and then moved to its place. If the
    program or the machine stops at any moment, either the old or the new file is there, complete. A
    program that is killed meanwhile leaves a folder ``.instep-*.tmp`` beside the file. On Linux the
    next save in the same folder removes it, if its writer is certainly dead. The arrays are hashed
    and written in one pass, through a buffer of 256 KiB, whatever their layout. If a program changes
    an array in its memory meanwhile, the file has some elements from before the change and some
    from after it; its checksums are right.

    Parameters
    ----------
    path : str or path
        The file, in a folder that exists; by custom the name ends in ``.safetensors``. A file that
        is replaced keeps its mode. A symbolic link is followed. A folder, a pipe or a device is
        refused before anything is written.
    optimizer : Optimizer or Combined
        Its parameters, states, averages, accumulated gradients, counts and hyperparameters are
        written. Of a callable that is not a schedule of instep, only the name is written. Steps on
        other threads wait while the arrays are written, but not while they are synced to the disk.
        To step while the file is written, save a ``copy.deepcopy`` on another thread.
    extra : optional
        Your own data: None, bool, int, float, str, NumPy scalars and arrays, and dicts (with keys
        of str), lists and tuples of these, up to 200 levels deep. The state of a random generator
        can be stored, too: ``rng.bit_generator.state``, or ``rng.get_state(legacy=False)`` of a
        ``RandomState``. `load` returns tuples as lists and NumPy scalars as Python numbers. Arrays
        may be of bool, of integers, or of float16, float32, float64, bfloat16 or complex64; in the
        file they are tensors, such as ``extra/rng/state/key``. Older versions of instep that don't
        support arrays, NaN and infinity in extra refuse a file with such a value.
    scaler : LossScaler, optional
        Its state is written, too.

    Raises
    ------
    OSError
        If the file can't be written: the disk is full, the folder doesn't exist or you may not read
        and write it, or the path leads to something other than a file. The error names the path.
        The old file is unchanged, and no other file is left behind. There is one exception: the
        last operation syncs the folder; if this fails, the new file is in place, but perhaps not
        yet on the disk.
    TypeError, ValueError
        If extra has a value that a checkpoint can't hold (the error names its place), or another
        argument has the wrong type.
    RuntimeError
        Inside ``averaged()``, where the parameters hold averages.
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
    ...     extra = {"rng": rng.bit_generator.state, "best": np.inf, "order": rng.permutation(9)}
    ...     checkpoint.save(path, optimizer, extra)
    ...     found = checkpoint.load(path, optimizer)
    >>> rng.bit_generator.state = found["rng"]  # goes on with the numbers after the save
    >>> found["best"], found["order"].dtype
    (inf, dtype('int64'))
    """
    require_optimizers(optimizer, "checkpoint.save(path, optimizer)")
    optimizer._warn_of_replaced()
    path = path_text(path)
    require_scaler(scaler)
    own = encoded(extra)

    def write_all(place: Path) -> None:
        with optimizer._plan.reading():
            optimizer._plan.refuse_averages("save")
            arrays = {**_arrays(optimizer), **own.arrays}
            sources = {name: ArraySource(array) for name, array in arrays.items()}
            write(place, made(optimizer, scaler, own, sources), sources)

    replace_file(path, write_all)


def _arrays(optimizer: Optimizer | Combined) -> dict[str, Array]:
    """Return the arrays by their names in a file: these are the arrays in use."""
    arrays: dict[str, Array] = {}
    for prefix, one in members(optimizer):
        arrays |= {f"{prefix}{name}": array for name, array in _arrays_of(one)}
    return arrays


def _arrays_of(optimizer: Optimizer) -> Iterator[tuple[str, Array]]:
    for name, param in optimizer.params.items():
        yield f"weights/{name}", param
    for name, states in optimizer.state.items():
        for key, array in states.items():
            yield f"state/{key}/{name}", array
    for name, array in optimizer.averages.items():
        yield f"averages/{name}", array
    for name, array in optimizer.accumulated.items():
        yield f"accumulated/{name}", array
