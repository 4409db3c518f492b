"""Checkpoints: weights, optimizer and loss scaler in one file that is whole or isn't there.

`save` writes a safetensors file, `load` goes on from it to the bit, and `inspect` (on the command
line ``instep inspect FILE``) says what is in it. They need ``pip install 'instep[checkpoint]'``.

>>> import numpy as np, os, tempfile
>>> import instep
>>> from instep import checkpoint
>>> w = np.ones(3)
>>> optimizer = instep.Adam({"w": w}, lr=0.1)
>>> optimizer.step({"w": w.copy()})
>>> folder = tempfile.TemporaryDirectory()
>>> path = os.path.join(folder.name, "run.safetensors")
>>> checkpoint.save(path, optimizer, extra={"epoch": 1})
>>> again = instep.Adam({"w": np.zeros(3)}, lr=0.1)
>>> checkpoint.load(path, again)
{'epoch': 1}
>>> again.step_count, bool(np.array_equal(again.params["w"], w))
(1, True)
>>> folder.cleanup()
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from instep.checkpoint_format import CheckpointError, opened, parse, write
from instep.loss_scaler import LossScaler
from instep.optimizers import Optimizer, state
from instep.optimizers.arguments import require_optimizer
from instep.optimizers.parameters import Array
from instep.whole_file import replace_file
from instep.wording import kind

__all__ = ["SCHEMA", "CheckpointError", "inspect", "load", "save"]

#: Version of the layout of a checkpoint's document.
SCHEMA = 1

_DOCUMENT = ("schema", "optimizer", "scaler", "extra", "tensors")
_ARRAYS = ("state", "averages", "accumulated")  # of state_dict, kept as tensors
_DEEPEST = 200  # levels of extra: far from the interpreter's limit, from wherever load is called


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
    path = _text(path)
    _require_scaler(scaler)
    extra = _as_json(extra)

    def write_all(place: Path) -> None:
        with optimizer._plan:
            state.refuse_averages(optimizer, "save")
            document = {
                "schema": SCHEMA,
                "optimizer": _without_infinity(state.numbers(optimizer)),
                "scaler": None if scaler is None else scaler.state_dict(),
                "extra": extra,
            }
            write(place, document, _arrays(optimizer))

    replace_file(path, write_all)


def load(
    path: str | os.PathLike[str], optimizer: Optimizer, scaler: LossScaler | None = None
) -> Any:
    """Go on from what `save` wrote, to the bit; return its extra.

    The weights are written into the optimizer's parameters, in place. Names, shapes, dtypes and
    hyperparameters are checked before the arrays are read; until all of these are verified they are
    in memory, once. Hyperparameters are loaded too; a callable that is no schedule of instep's
    can't be, and has to be there already, and a `ReduceOnPlateau` that is there takes over what was
    stored, as `Optimizer.load_state_dict` says. Nothing in the file is executed.

    Parameters
    ----------
    path : str or path
        The file.
    optimizer : Optimizer
        Of the same rule, for parameters of the same names, shapes and dtypes, with the same
        dtypes of states, and with averages if the saved one had them.
    scaler : LossScaler, optional
        To be given if, and only if, one was saved.

    Raises
    ------
    CheckpointError
        If the file is no checkpoint, is damaged, or doesn't fit; nothing has changed then.
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
    : the stored parameter '0' has shape (2,) and dtype float64; (3,) and float64 are wanted
    """
    require_optimizer(optimizer, "checkpoint.load(path, optimizer)")
    path = _text(path)
    _require_scaler(scaler)
    with opened(path) as file:
        with optimizer._plan:
            _checked(file.document, file.stand_ins, optimizer, scaler)
        arrays = {name: file.array(name) for name in file.stand_ins}
        with optimizer._plan:  # which others may have changed while the arrays were read
            change = _checked(file.document, arrays, optimizer, scaler)
            change()
            if scaler is not None:
                scaler.load_state_dict(file.document["scaler"])
    return file.document["extra"]


def inspect(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what is in a checkpoint, having verified its checksums, one array at a time.

    Parameters
    ----------
    path : str or path
        The file.

    Returns
    -------
    dict
        ``schema``, ``rule``, ``step_count``, ``skipped_steps``; ``hyperparameters``, a dict of
        ``clip_norm``, ``ema_decay`` and ``param_groups``; ``scaler`` (None without one);
        ``tensors``, name -> dict of ``dtype``, ``shape`` and ``bytes``; ``extra``. The names are
        ``weights/NAME``, ``state/KEY/NAME``, ``averages/NAME`` and ``accumulated/NAME``.

    Raises
    ------
    CheckpointError
        If the file is no checkpoint or is damaged.
    OSError
        If the file can't be read.
    ImportError
        If safetensors is missing, or ml_dtypes for a file with bfloat16.

    Examples
    --------
    >>> import numpy as np, os, tempfile
    >>> import instep
    >>> from instep import checkpoint
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "run.safetensors")
    ...     checkpoint.save(path, instep.SGD({"w": np.ones((3, 2))}, lr=0.5))
    ...     found = checkpoint.inspect(path)
    >>> found["rule"], found["hyperparameters"]["param_groups"][0]["lr"]
    ('SGD', 0.5)
    >>> found["tensors"]
    {'weights/w': {'dtype': 'float64', 'shape': (3, 2), 'bytes': 48}}
    """
    with opened(_text(path)) as file:
        document = file.document
        stored = _stored_optimizer(document)
        tensors = {name: _description(file.array(name)) for name in file.stand_ins}
    return {
        "schema": document["schema"],
        **{key: stored[key] for key in ("rule", "step_count", "skipped_steps")},
        "hyperparameters": {k: stored[k] for k in ("clip_norm", "ema_decay", "param_groups")},
        "scaler": document["scaler"],
        "tensors": dict(sorted(tensors.items())),
        "extra": document["extra"],
    }


def _arrays(optimizer: Optimizer) -> dict[str, Array]:
    """Return all that a file has, by the names there: the arrays in use."""
    arrays = {f"weights/{name}": param for name, param in optimizer.params.items()}
    for name, states in optimizer.state.items():
        arrays.update({f"state/{key}/{name}": array for key, array in states.items()})
    arrays.update({f"averages/{name}": array for name, array in optimizer.averages.items()})
    arrays.update({f"accumulated/{name}": array for name, array in optimizer.accumulated.items()})
    return arrays


def _description(array: Array) -> dict[str, Any]:
    return {"dtype": array.dtype.name, "shape": array.shape, "bytes": array.nbytes}


def _text(path: object) -> str:
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    if not isinstance(text, str):  # a descriptor, say, which opening and closing would close
        raise TypeError(f"path is {kind(path)}; a str or a path of str is wanted")
    return text


def _require_scaler(scaler: object) -> None:
    if scaler is not None and not isinstance(scaler, LossScaler):
        raise TypeError(f"scaler is {kind(scaler)}; a LossScaler is wanted")


def _as_json(extra: Any) -> Any:
    """Return extra as it will come back."""
    too_deep = f"it is nested too deeply; at most {_DEEPEST} levels are wanted"
    try:
        found = parse(json.dumps(extra, allow_nan=False, default=_python_number))
    except TypeError as error:
        raise TypeError(f"extra can't be written as JSON: {error}") from None
    except (ValueError, RecursionError) as error:
        why = too_deep if isinstance(error, RecursionError) else error
        raise ValueError(f"extra can't be written as JSON: {why}") from None
    if _depth(found) > _DEEPEST:
        raise ValueError(f"extra can't be written as JSON: {too_deep}")
    return found


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    # a loop, as there may be no room for a recursion
    while outers := [inner for inner in level if isinstance(inner, (dict, list))]:
        depth += 1
        level = [
            inner
            for outer in outers
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return depth


def _python_number(value: Any) -> Any:
    """Return the number that a scalar of NumPy's is."""
    for kinds, make in ((np.bool_, bool), (np.integer, int), (np.floating, float)):
        if isinstance(value, kinds):
            return make(value)
    raise TypeError(f"{kind(value)} is nothing for JSON")


def _stored_optimizer(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the optimizer's state without its arrays; raise unless the document is of this schema."""
    if document.get("schema") != SCHEMA:
        raise ValueError(
            f"the checkpoint has schema {document.get('schema')!r}; {SCHEMA} is wanted"
        )
    state._require_keys("the checkpoint", document, _DOCUMENT)
    stored = _with_infinity(document["optimizer"])
    wanted = tuple(key for key in state._TOP if key not in _ARRAYS)
    state._require_keys("the optimizer's state", stored, wanted)
    return dict(stored)


def _take_arrays(
    stored: dict[str, Any], arrays: Mapping[str, Array], optimizer: Optimizer
) -> dict[str, Array]:
    """Put the arrays into the optimizer's state, as state_dict has them; return the weights."""
    kinds: dict[str, dict[str, Any]] = {"weights": {}, "averages": {}, "accumulated": {}}
    states: dict[str, dict[str, Array]] = {name: {} for name in optimizer.params}
    for full_name, array in arrays.items():
        kind, _, name = full_name.partition("/")
        if kind == "state":
            key, _, name = name.partition("/")
            states.setdefault(name, {})[key] = array
        elif kind in kinds:
            kinds[kind][name] = array
        else:
            raise ValueError(
                f"the tensor {full_name!r} is unknown; weights, states, averages and accumulated "
                "gradients are wanted"
            )
    weights = kinds.pop("weights")
    stored.update(state=states, **kinds)
    return weights


def _checked(
    document: Mapping[str, Any],
    arrays: Mapping[str, Array],
    optimizer: Optimizer,
    scaler: LossScaler | None,
) -> Callable[[], None]:
    """Check that all fits, and return what then changes the optimizer; the lock is held."""
    state.refuse_averages(optimizer, "load")
    stored = _stored_optimizer(document)
    weights = _take_arrays(stored, arrays, optimizer)
    _check_weights(weights, optimizer)
    _check_scaler(document["scaler"], scaler)
    return state.checked(optimizer, stored, weights)


def _check_weights(weights: Mapping[str, Array], optimizer: Optimizer) -> None:
    params = optimizer.params
    state._require_keys("weights", weights, tuple(params))
    for name, param in params.items():
        state._require_like(f"the stored parameter {name!r}", weights[name], param)
        if not param.flags.writeable:
            raise ValueError(f"{name!r} is read-only; a parameter that can be written is wanted")


def _check_scaler(stored: Any, scaler: LossScaler | None) -> None:
    if (stored is None) != (scaler is None):
        raise ValueError(
            "a loss scaler is there in only one of the file and the call; "
            "in both or neither is wanted"
        )
    if scaler is not None:
        if not isinstance(stored, Mapping):
            raise TypeError(f"the loss scaler is {stored!r}; a dict is wanted")
        LossScaler().load_state_dict(stored)  # one to try it on


def _without_infinity(value: Any) -> Any:
    """Hyperparameters as strict JSON holds them: a limit may be infinite."""
    if isinstance(value, dict):
        return {key: _without_infinity(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_infinity(inner) for inner in value]
    return {"float": str(value)} if isinstance(value, float) and math.isinf(value) else value


def _with_infinity(value: Any) -> Any:
    if isinstance(value, dict):
        if value in ({"float": "inf"}, {"float": "-inf"}):
            return float(value["float"])
        return {key: _with_infinity(inner) for key, inner in value.items()}
    return [_with_infinity(inner) for inner in value] if isinstance(value, list) else value
