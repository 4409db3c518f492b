"""Checkpoints: weights, optimizer and loss scaler in one file. A save is atomic.

`save` writes a safetensors file. `load` reads it, and the run continues with the same bits.
`inspect` (on the command line ``instep inspect FILE``) shows the content of the file. All three
need ``pip install 'instep[checkpoint]'``.

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

from instep._support.public import publish
from instep.checkpoint.document import SCHEMA
from instep.checkpoint.format import CheckpointError
from instep.checkpoint.inspection import inspect
from instep.checkpoint.loading import load
from instep.checkpoint.saving import save


def __dir__() -> list[str]:
    return __all__


__all__ = ["SCHEMA", "CheckpointError", "inspect", "load", "save"]

publish(__name__, __all__, globals())
