"""Stored formats of states: 8-bit codes, conversions, and how many bytes an optimizer keeps.

An optimizer made with ``state_dtype="8bit"`` has for each state an array of codes and an array of
units, one for each 64 elements. `decode` turns both into numbers, and `encode` numbers into both.
`convert` changes a `Optimizer.state_dict` into the formats of another optimizer.

>>> import numpy as np, instep
>>> optimizer = instep.Adam(np.zeros(4096, np.float32), state_dtype="8bit")
>>> optimizer.step(np.ones(4096, np.float32))
>>> state = optimizer.state["0"]
>>> state["exp_avg"].dtype, state["exp_avg"].shape, state["exp_avg_unit"].shape
(dtype('int8'), (4096,), (64,))
>>> means = instep.storage.decode(state["exp_avg"], state["exp_avg_unit"])
>>> bool(np.allclose(means, 0.1))
True
"""

from instep.storage.codes import decode, encode
from instep.storage.conversion import convert
from instep.storage.sizes import bytes_per_parameter


def __dir__() -> list[str]:
    return __all__


__all__ = ["bytes_per_parameter", "convert", "decode", "encode"]
