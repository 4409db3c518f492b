"""The names in scikit-learn that stand for its optimizers, and for a while for instep's."""

from __future__ import annotations

import threading
from contextlib import ContextDecorator
from typing import Any, ClassVar

from instep.sklearn.host import perceptrons
from instep.sklearn.optimizers import SGD, Adam

__all__ = ["patched"]

_OURS = {"AdamOptimizer": Adam, "SGDOptimizer": SGD}


class patched(ContextDecorator):
    """Have perceptrons of scikit-learn make instep's optimizers, inside a `with` block or a function.

    It replaces the two names ``AdamOptimizer`` and ``SGDOptimizer`` in
    ``sklearn.neural_network._multilayer_perceptron``, for all threads of the process, and puts back
    what was there at the end of the outermost block. An estimator keeps the optimizer that its
    ``fit`` or first ``partial_fit`` has made, also outside the block.

    In float64, ``coefs_``, ``intercepts_``, ``loss_curve_`` and all that follows from them are equal
    to those of scikit-learn's optimizers.

    Examples
    --------
    >>> import instep.sklearn
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.neural_network import MLPRegressor
    >>> @instep.sklearn.patched()
    ... def fitted(X, y):
    ...     return MLPRegressor(solver="sgd", max_iter=1000, random_state=0).fit(X, y)
    >>> mlp = fitted(*load_diabetes(return_X_y=True))
    >>> isinstance(mlp._optimizer, instep.sklearn.SGD)
    True

    """

    _lock = threading.Lock()
    _blocks = 0
    _found: ClassVar[dict[str, Any]] = {}

    # Python looks for signals after each call, and so Ctrl-C can come there: not between a change of `_blocks`
    # and the next assignment.

    def __enter__(self) -> None:
        entered = False
        try:
            with patched._lock:
                if not patched._blocks:
                    patched._found = {name: vars(perceptrons)[name] for name in _OURS}
                patched._blocks += 1
                entered = True
                vars(perceptrons).update(_OURS)
        except BaseException:
            if entered:  # as no block begins, none ends
                self.__exit__()
            raise

    def __exit__(self, *exception: object) -> None:
        left = False
        try:
            with patched._lock:
                if patched._blocks == 1:
                    vars(perceptrons).update(patched._found)
                patched._blocks -= 1
                left = True
        except BaseException:
            if not left:
                self.__exit__()
            raise
