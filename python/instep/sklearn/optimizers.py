"""The two optimizers of scikit-learn's perceptrons, on `Steps`."""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from instep._support import documentation
from instep._support.wording import described, kind, shown
from instep.optimizers.steps import Steps
from instep.sklearn.host import AdamOptimizer, Perceptron, SGDOptimizer, sklearn

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["SGD", "Adam"]


def _state(name: str, sign: int = 1) -> Any:
    """Make the property for a state of the rule, an array a parameter; `sign` -1 if scikit-learn has its negative."""

    def get(self: _OnSteps) -> list[np.ndarray[Any, Any]]:
        return self._states[name] if sign == 1 else [-array for array in self._states[name]]

    def set_(self: _OnSteps, arrays: Sequence[Any]) -> None:
        # Copies: they change in place, unlike scikit-learn's, and what was unpickled may be read-only.
        own = [np.array(array) if sign == 1 else -np.asarray(array) for array in arrays]
        self._release()
        self._states = {**self._states, name: own}

    return property(get, set_)


@documentation.without_quotes
class _OnSteps:
    """A step of `Steps` over the arrays that scikit-learn passes, in place of the step of its own class."""

    _rule: ClassVar[str]
    _options: ClassVar[tuple[str, ...]]
    _solver: ClassVar[str]
    _of_sklearn: ClassVar[Any]
    _kept: ClassVar[tuple[str, ...]]  # scikit-learn's attributes that are properties here

    _states: dict[str, list[np.ndarray[Any, Any]]] = {}  # noqa: RUF012 - replaced, never changed
    _t = 0  # steps until the parameters were bound
    _steps: Steps
    _bound: Sequence[Any] = ()  # the parameters that its places are bound to

    @classmethod
    @documentation.without_quotes
    def for_(cls, estimator: Any) -> Self:
        """Replace the optimizer that an estimator has after its first ``partial_fit`` or ``fit``.

        Moments, number of steps and learning rate are carried over. The next ``partial_fit`` goes
        on from there; ``fit`` makes a new optimizer, as always.

        Parameters
        ----------
        estimator : MLPClassifier or MLPRegressor
            With the solver of this class.

        Returns
        -------
        Adam or SGD
            The estimator's new optimizer.

        Raises
        ------
        TypeError, ValueError
            If this is another object, or has another solver or another optimizer.
        sklearn.exceptions.NotFittedError
            If the estimator has no optimizer yet.
        """
        if not isinstance(estimator, Perceptron):
            mend = "; pass its last step, pipeline[-1]" if hasattr(estimator, "steps") else ""
            raise TypeError(
                "estimator must be an MLPClassifier or MLPRegressor of scikit-learn, got "
                f"{kind(estimator)}{mend}"
            )
        if estimator.solver != cls._solver:
            others = {"adam": "use Adam.for_", "sgd": "use SGD.for_"}
            mend = others.get(estimator.solver, "other solvers take no steps of an optimizer")
            raise ValueError(
                f"the estimator's solver must be {cls._solver!r}, got {shown(estimator.solver)}; {mend}"
            )
        found = getattr(estimator, "_optimizer", None)
        if isinstance(found, cls):
            return found
        if found is None:
            raise sklearn.exceptions.NotFittedError(
                f"estimator must be fitted, got {kind(estimator)} that is not; call partial_fit first"
            )
        if type(found) is not cls._of_sklearn:
            raise TypeError(
                f"the estimator's optimizer must be scikit-learn's {cls._of_sklearn.__name__}, got "
                f"{kind(found)}; call fit, which makes a new optimizer"
            )
        new = cls.__new__(cls)
        new.__setstate__(vars(found))
        estimator._optimizer = new
        return new

    def update_params(self, params: Sequence[Any], grads: Sequence[Any]) -> None:
        """Take a step, in place.

        Parameters
        ----------
        params : list of array
            The parameters: the arrays of the step before, or others of the same shapes.
        grads : list of array
            Their gradients.

        Raises
        ------
        TypeError, ValueError
            If an array can't be used; nothing has changed then.
        """
        bound = self._bound
        if not bound or len(params) != len(bound) or not all(map(operator.is_, params, bound)):
            self._bind(params)
        self._steps.step(grads, [self._numbers()])

    def _numbers(self) -> dict[str, Any]:
        raise NotImplementedError

    def _bind(self, params: Sequence[Any]) -> None:
        """Bind places to these parameters and to the states, in the parameters' precision."""
        self._release()
        for arrays in self._states.values():
            if len(arrays) != len(params):
                raise ValueError(
                    f"params must be a list of {len(arrays)} arrays, as when the optimizer was "
                    f"made, got {described(params)}"
                )
        dtypes = [getattr(param, "dtype", None) for param in params]
        wide = [np.float64 if dtype == np.float64 else np.float32 for dtype in dtypes]
        states = {
            name: [
                array.astype(dtype, copy=False) for array, dtype in zip(arrays, wide, strict=True)
            ]
            for name, arrays in self._states.items()
        }
        steps = Steps()
        group = steps.add_group(self._rule, self._options)
        steps.append(len(params))
        layers = len(params) // 2
        for k, param in enumerate(params):
            name = f"coefs_[{k}]" if k < layers else f"intercepts_[{k - layers}]"
            of_place = {state: arrays[k] for state, arrays in states.items()}
            steps.bind(k, param, group=group, states=of_place, t=self._t, name=name)
        self._states, self._steps, self._bound = states, steps, list(params)

    def _release(self) -> None:
        """Let go of the parameters; the next step binds those that it gets."""
        self._t = self._steps_taken()
        self._bound = ()

    def _steps_taken(self) -> int:
        return self._steps.t(0) if self._bound else self._t

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes of scikit-learn's own class: no parameters."""
        own = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return own | {name: getattr(self, name) for name in self._kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    def __copy__(self) -> Self:
        return copy.deepcopy(self)  # or both would step the same moments


@documentation.without_quotes
class Adam(_OnSteps, AdamOptimizer):  # type: ignore[misc]
    """The optimizer of ``solver="adam"``: scikit-learn's arithmetic, taken by `Steps`.

    `patched` has perceptrons make it, and `for_` gives it to one that is fitted. It has the
    attributes of scikit-learn's class, but the arrays in ``ms`` and ``vs`` change in place. A
    pickle has these attributes and no parameters. For the arithmetic see `instep.Adam` with
    ``eps_hat=True``.

    Parameters
    ----------
    params : list of array
        For the shapes and dtypes of the moments; `update_params` gets the parameters.
    learning_rate_init, beta_1, beta_2, epsilon : float
        As in scikit-learn.

    Raises
    ------
    TypeError, ValueError
        By the first step, if a number can't be used.

    Examples
    --------
    >>> import instep.sklearn
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.neural_network import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> mlp = MLPClassifier(random_state=0).partial_fit(X, y, classes=[0, 1, 2])
    >>> optimizer = instep.sklearn.Adam.for_(mlp)
    >>> for _ in range(100):
    ...     mlp = mlp.partial_fit(X, y)
    >>> optimizer is mlp._optimizer, optimizer.t
    (True, 101)

    """

    _rule = "adam"
    _options = ("eps_hat",)
    _solver = "adam"
    _of_sklearn = AdamOptimizer
    _kept = ("learning_rate", "t", "ms", "vs")

    ms = _state("exp_avg")
    vs = _state("exp_avg_sq")

    @property
    def t(self) -> int:
        """Number of steps."""
        return self._steps_taken()

    @t.setter
    def t(self, steps: int) -> None:
        self._release()
        self._t = steps

    @property
    def learning_rate(self) -> float:
        """The last step's ``learning_rate_init * sqrt(1 - beta_2**t) / (1 - beta_1**t)``."""
        start = float(self.learning_rate_init)
        t = self.t
        return start * math.sqrt(1 - self.beta_2**t) / (1 - self.beta_1**t) if t else start

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        """Pass over what scikit-learn's constructor sets: it follows from the other attributes."""

    def _numbers(self) -> dict[str, Any]:
        return {
            "lr": self.learning_rate_init,
            "beta1": self.beta_1,
            "beta2": self.beta_2,
            "eps": self.epsilon,
        }


@documentation.without_quotes
class SGD(_OnSteps, SGDOptimizer):  # type: ignore[misc]
    """The optimizer of ``solver="sgd"``: scikit-learn's arithmetic, taken by `Steps`.

    As `Adam` in all else. For the arithmetic see `instep.SGD` with ``lr_in_velocity=True``, whose
    momentum_buffer is the negative of ``velocities``.

    Parameters
    ----------
    params : list of array
        For the shapes and dtypes of the velocities; `update_params` gets the parameters.
    learning_rate_init, lr_schedule, momentum, nesterov, power_t
        As in scikit-learn.

    Raises
    ------
    TypeError, ValueError
        By the first step, if a number can't be used.

    Examples
    --------
    >>> import instep.sklearn
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.neural_network import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> mlp = MLPClassifier(solver="sgd", learning_rate="invscaling", random_state=0)
    >>> mlp = mlp.partial_fit(X, y, classes=[0, 1, 2])
    >>> instep.sklearn.SGD.for_(mlp).learning_rate == 0.001 / 151**0.5
    True

    """

    _rule = "sgd"
    _solver = "sgd"
    _of_sklearn = SGDOptimizer
    _kept = ("velocities",)

    velocities = _state("momentum_buffer", -1)

    @property
    def _options(self) -> tuple[str, ...]:  # type: ignore[override]
        # Also with momentum 0, since scikit-learn has velocities then, too.
        return ("momentum", "lr_in_velocity", *(("nesterov",) if self.nesterov else ()))

    def _numbers(self) -> dict[str, Any]:
        return {"lr": self.learning_rate, "momentum": self.momentum, "dampening": 0.0}
