"""How many bytes an optimizer keeps for each element of its parameters."""

from __future__ import annotations

import numpy as np

from instep._support import documentation
from instep.optimizers import Combined, Optimizer
from instep.optimizers.require import require_optimizers

__all__ = ["bytes_per_parameter"]


@documentation.without_quotes
def bytes_per_parameter(optimizer: Optimizer | Combined) -> float:
    """Return the bytes of parameters, states, remainders, averages and copies, for each element.

    It is a mean over all elements of all parameters; units of 8-bit states are counted, and so are
    the wide states of parameters below ``min_8bit_size``. Gradients are not, nor are accumulated
    sums. A step out of the caches takes about as long as these bytes take to be read and written.

    Parameters
    ----------
    optimizer : Optimizer or Combined
        Made for the parameters.

    Returns
    -------
    float
        0.0 if there are no elements.

    Raises
    ------
    TypeError
        If the argument is no optimizer.

    Examples
    --------
    >>> import numpy as np, instep
    >>> w = np.zeros(1_000_000, np.float32)
    >>> instep.storage.bytes_per_parameter(instep.Adam(w))
    12.0
    >>> instep.storage.bytes_per_parameter(instep.Adam(w, state_dtype="8bit"))
    6.125
    """
    require_optimizers(optimizer, "bytes_per_parameter(optimizer)")
    found = optimizer.memory()
    elements = sum(np.asarray(parameter).size for parameter in optimizer.params.values())
    return (found["total"] - found["accumulated"]) / elements if elements else 0.0
