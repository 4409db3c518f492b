"""Names for annotations: the types of instep's arguments and results.

>>> import numpy as np, instep
>>> from instep.typing import Gradients, Group, Params, Schedule
>>> def stepped(params: Params, grads: Gradients, lr: Schedule) -> instep.Optimizer:
...     optimizer = instep.Adam(params, lr=lr)
...     optimizer.step(grads)
...     return optimizer
>>> w, b = np.ones(2), np.ones(1)
>>> groups: list[Group] = [{"params": w, "betas": (0.5, 0.9)}, {"params": b, "l1": 0.1}]
>>> stepped(groups, [w.copy(), None], lambda step: 0.25 / (1 + step)).step_count
1
>>> w
array([0.75, 0.75])

====================  ===================================================================================
`Array`               a NumPy array of any dtype
`Params`              parameters of an optimizer: an array, dicts, lists and tuples of arrays in any nesting,
                      or a list of groups; None is a place without a parameter
`Group`               an entry in a list of groups: a dict with ``params`` and hyperparameters of any rule
`Gradients`           gradients for `Optimizer.step`, in a container like that of the parameters
`Copies`              arrays for ``copy_to``, in a container like that of the parameters
`Schedule`            a callable from the number of completed steps to a number, such as the classes of
                      `instep.schedules`
`Number`              a hyperparameter that is a number: a float or a `Schedule`
`Nonfinite`           the values of ``nonfinite``: "propagate", "skip" or "raise"
`Rounding`            the values of ``rounding`` and ``param_rounding``: "stochastic" or "nearest"
`StateDtype`          the values of ``state_dtype``: a dtype, "bfloat16", "8bit", a dict of these by the name
                      of the state, or None
`Shared`              the keywords of every rule, for ``**keywords: Unpack[Shared]``
`ParamGroup`          an entry of `Optimizer.param_groups`
`StateDict`           the result of `Optimizer.state_dict`
====================  ===================================================================================

``type[instep.Optimizer]`` is a class of optimizers that may be called with the parameters, ``lr``,
``weight_decay`` and the keywords of `Shared`.
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, get_type_hints

import numpy as np
import numpy.typing as npt

from instep.optimizers import ParamGroup, containers
from instep.optimizers.containers import Array, Container, Copies, Gradients, Params
from instep.optimizers.hyperparameters import Nonfinite, Number, Schedule
from instep.optimizers.keywords import Shared
from instep.optimizers.stored_formats import Rounding, StateDtype

__all__ = [
    "Array",
    "Copies",
    "Gradients",
    "Group",
    "Nonfinite",
    "Number",
    "ParamGroup",
    "Params",
    "Rounding",
    "Schedule",
    "Shared",
    "StateDict",
    "StateDtype",
]


def __dir__() -> list[str]:
    return __all__


if not TYPE_CHECKING:
    # In the package these aliases are text, for type checkers. Here they are objects, which can be used in
    # `Params | None`, and which `get_type_hints` finds. It can't follow an alias that names itself, so everything
    # inside a container is Any here.
    _array = np.ndarray[Any, np.dtype[Any]]
    _texts = {name: getattr(containers, name) for name in ("Params", "Gradients", "Copies")}
    _texts["Container"] = containers.Container
    _inside = {"Array": _array, "Gradient": _array | float | np.floating[Any] | None}
    _known = {**vars(containers), **dict.fromkeys(_texts, Any), **_inside}
    _found = get_type_hints(SimpleNamespace(__annotations__=_texts), _known)
    Array, Container = _array, _found["Container"]
    Params, Gradients, Copies = _found["Params"], _found["Gradients"], _found["Copies"]
    StateDtype = npt.DTypeLike | Mapping[str, npt.DTypeLike | None] | None

#: Plain data, as `Optimizer.state_dict` describes; a dict of any kind can be loaded.
StateDict: TypeAlias = dict[str, Any]


class _Params(TypedDict):
    params: Container


class Group(_Params, total=False):
    """A parameter group: ``params``, and what differs from the optimizer's own arguments.

    It allows a ``state_dtype`` and the hyperparameters of all rules; an optimizer refuses
    hyperparameters that its rule doesn't have.

    Examples
    --------
    >>> import numpy as np, instep
    >>> groups: list[instep.typing.Group] = [
    ...     {"params": {"w": np.ones((2, 2))}, "weight_decay": 0.1},
    ...     {"params": {"b": np.ones(2)}, "lr": 0.01},
    ... ]
    >>> [group["lr"] for group in instep.AdamW(groups, lr=0.001).param_groups]
    [0.001, 0.01]
    """

    lr: Number
    weight_decay: Number
    l1: Number
    decoupled_l1: bool
    clip_value: Number | None
    maximize: bool
    decoupled_weight_decay: bool
    momentum: Number
    dampening: Number
    nesterov: bool
    lr_in_velocity: bool
    betas: tuple[Number, Number] | tuple[Number, Number, Number]
    eps: Number
    amsgrad: bool
    eps_hat: bool
    clip_update: Number | None
    clip_exponent: Number | None
    momentum_decay: Number | None
    alpha: Number
    rho: Number
    centered: bool
    eps_inside_sqrt: bool
    initial_square_avg: Number
    initial_accumulator_value: Number
    lr_decay: Number
    beta: Number
    etas: tuple[Number, Number]
    step_sizes: tuple[Number, Number]
    lambd: Number
    t0: Number
    r: Number
    weight_lr_power: Number
    trust_ratio: bool
    trust_clip: Number | None
    trust_coefficient: Number
    ns_steps: int
    ns_coefficients: tuple[Number, Number, Number]
    adjust_lr: Literal["match_rms_adamw", "original"]
    beta3: Number | None
    use_bias_correction: bool
    safeguard_warmup: bool
    d0: Number
    d_coef: Number
    growth_rate: Number
    state_dtype: StateDtype
