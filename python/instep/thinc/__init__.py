"""The optimizers of thinc, with which spaCy trains, on instep's steps.

In a config, ``@optimizers = "instep.Adam.v1"`` stands where ``@optimizers = "Adam.v1"`` stood; so do
``"instep.RAdam.v1"`` and ``"instep.SGD.v1"``. In a program, `Adam`, `RAdam`, `SGD` and `Optimizer`
stand where those of ``thinc.api`` stood. docs/thinc.md says what differs.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from instep._support import documentation
from instep._support.public import publish
from instep.optimizers.near_misses import bind
from instep.thinc.host import of_api
from instep.thinc.optimizer import Optimizer

__all__ = ["SGD", "Adam", "Optimizer", "RAdam"]


def _made(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], **fixed: Any) -> Optimizer:
    """Make an optimizer of the arguments that thinc's function takes."""
    given = bind(name, _signature(name), args, kwargs)
    return Optimizer(*given.args, **given.kwargs, **fixed)


def _signature(name: str) -> inspect.Signature:
    return inspect.signature(of_api(name))


@documentation.without_quotes
def Adam(*args: Any, **kwargs: Any) -> Optimizer:
    """Make the optimizer of ``@optimizers = "instep.Adam.v1"``.

    The arguments and their defaults are those of ``thinc.api.Adam``, and so is the rule:
    `instep.Adam` with ``eps_hat=True``; the gradient of each parameter is clipped by itself.

    Parameters
    ----------
    *args, **kwargs
        As for ``thinc.api.Adam``; ``inspect.signature`` shows them.

    Returns
    -------
    Optimizer
        Of thinc's protocol, for a model's ``finish_update`` or for spaCy.

    Raises
    ------
    TypeError, ValueError
        If there is no such argument, or if a value is neither a number nor a schedule.

    Examples
    --------
    >>> import numpy as np, instep.thinc
    >>> optimizer = instep.thinc.Adam(0.5, grad_clip=0.0, use_averages=False)
    >>> weights, gradient = np.ones(2, "float32"), np.ones(2, "float32")
    >>> weights, gradient = optimizer((0, "W"), weights, gradient)
    >>> weights.round(3), gradient
    (array([0.5, 0.5], dtype=float32), array([0., 0.], dtype=float32))
    """
    return _made("Adam", args, kwargs)


@documentation.without_quotes
def RAdam(*args: Any, **kwargs: Any) -> Optimizer:
    """Make the optimizer of ``@optimizers = "instep.RAdam.v1"``.

    The arguments and their defaults are those of ``thinc.api.RAdam``. The rule is `instep.RAdam`:
    the first step has t = 1, as in the paper. In thinc it has t = 2.

    Parameters
    ----------
    *args, **kwargs
        As for ``thinc.api.RAdam``; ``inspect.signature`` shows them.

    Raises
    ------
    TypeError, ValueError
        As `Adam`.

    Examples
    --------
    >>> import numpy as np, instep.thinc
    >>> optimizer = instep.thinc.RAdam(0.5)
    >>> weights, _ = optimizer((0, "W"), np.ones(2, "float32"), np.ones(2, "float32"))
    >>> bool((weights < 1).all())
    True
    """
    return _made("RAdam", args, kwargs, use_radam=True)


@documentation.without_quotes
def SGD(*args: Any, **kwargs: Any) -> Optimizer:
    """Make the optimizer of ``@optimizers = "instep.SGD.v1"``.

    The arguments and their defaults are those of ``thinc.api.SGD``, and so is the rule: `instep.SGD`
    without momentum.

    Parameters
    ----------
    *args, **kwargs
        As for ``thinc.api.SGD``; ``inspect.signature`` shows them.

    Raises
    ------
    TypeError, ValueError
        As `Adam`.

    Examples
    --------
    >>> import numpy as np, instep.thinc
    >>> optimizer = instep.thinc.SGD(0.5, L2=0.0, grad_clip=0.0, use_averages=False)
    >>> optimizer((0, "W"), np.ones(2, "float32"), np.ones(2, "float32"))[0]
    array([0.5, 0.5], dtype=float32)
    """
    return _made("SGD", args, kwargs, beta1=0.0, beta2=0.0)


for _function in (Adam, RAdam, SGD):  # thinc reads the types of a config's values there
    _function.__signature__ = _signature(_function.__name__)  # type: ignore[attr-defined]


def __dir__() -> list[str]:
    return __all__


publish(__name__, ["Optimizer"], globals())
