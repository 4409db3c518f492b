"""The rules as methods of ``scipy.optimize.minimize``.

>>> import instep
>>> from scipy.optimize import minimize, rosen, rosen_der
>>> result = minimize(rosen, [-1.0, 2.0], jac=rosen_der, method=instep.minimize.adam,
...                   tol=1e-6, options={"lr": 0.1, "maxiter": 5000})
>>> result.success, result.x.round(4)
(True, array([1., 1.]))

There is a function for each rule that steps a vector, under the name of its class in lower case:
`adam`, `adamw`, `sgd`, `rmsprop` and so on, but no ``muon``, which is for matrices. Each function can
also be called directly, as ``instep.minimize.adam(rosen, x0, jac=rosen_der, lr=0.1)``. It takes the
hyperparameters of its rule, schedules as well, and writes and resumes checkpoints. All this needs
``pip install 'instep[scipy]'``.
"""

from typing import TYPE_CHECKING, Any

from instep.minimize.methods import METHODS


def __dir__() -> list[str]:
    return sorted(METHODS)


__all__ = list(METHODS)
globals().update(METHODS)

if TYPE_CHECKING:
    from collections.abc import Callable

    def __getattr__(
        name: str,
    ) -> Callable[..., Any]: ...  # made from the rules, which type checkers can't see
