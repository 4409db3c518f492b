"""The content of a checkpoint."""

import os
from collections.abc import Mapping
from typing import Any

from instep.checkpoint.document import (
    is_combined,
    path_text,
    stored_combined,
    stored_extra,
    stored_optimizer,
)
from instep.checkpoint.extra import is_of_extra
from instep.checkpoint.format import opened
from instep.optimizers.containers import Array

__all__ = ["inspect"]


def inspect(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Verify a checkpoint's checksums, one array at a time, and return its content.

    Of the arrays, only those in `extra` are in memory at the same time.

    Parameters
    ----------
    path : str or path
        The file.

    Returns
    -------
    dict
        ``schema``, ``rule``, ``step_count``, ``skipped_steps``, ``seed`` (not in files of earlier
        versions); ``hyperparameters``, a dict of
        ``clip_norm``, ``ema_decay`` and ``param_groups``; ``scaler`` (None without one);
        ``tensors``, name -> dict of ``dtype``, ``shape`` and ``bytes``; ``extra``, as `load`
        returns it. The names are ``weights/NAME``, ``state/KEY/NAME``, ``averages/NAME``,
        ``accumulated/NAME`` and, for arrays in extra, ``extra/KEY/KEY...``. For a `Combined`,
        ``rule`` is "Combined", ``hyperparameters`` has ``clip_norm`` alone, ``optimizers`` is a list
        with rule, counts and hyperparameters of each optimizer, and the names of its tensors have
        its number in front, such as ``0/weights/NAME``.

    Raises
    ------
    CheckpointError
        If the file is not a checkpoint or is damaged.
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
    with opened(path_text(path)) as file:
        document = file.document
        several = is_combined(document)
        stored = stored_combined(document) if several else stored_optimizer(document)
        stored_extra(document, file.stand_ins)
        tensors, of_extra = {}, {}
        for name in file.stand_ins:
            array = file.array(name)
            tensors[name] = _description(array)
            if is_of_extra(name):
                of_extra[name] = array
        extra = stored_extra(document, of_extra)
    return {
        "schema": document["schema"],
        **(_several(stored) if several else _one(stored)),
        "scaler": document["scaler"],
        "tensors": dict(sorted(tensors.items())),
        "extra": extra,
    }


def _several(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "rule": "Combined",
        **{key: stored[key] for key in ("step_count", "skipped_steps")},
        "hyperparameters": {"clip_norm": stored["clip_norm"]},
        "optimizers": [_one(one) for one in stored["optimizers"]],
    }


def _one(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{key: stored[key] for key in ("rule", "step_count", "skipped_steps")},
        **({"seed": stored["seed"]} if "seed" in stored else {}),
        "hyperparameters": {k: stored[k] for k in ("clip_norm", "ema_decay", "param_groups")},
    }


def _description(array: Array) -> dict[str, Any]:
    return {"dtype": array.dtype.name, "shape": array.shape, "bytes": array.nbytes}
