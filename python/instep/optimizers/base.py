"""The base class of all optimizers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from instep._support import documentation
from instep.optimizers.averaged import Averaged
from instep.optimizers.containers import (
    GRADIENTS,
    Accumulated,
    Copies,
    Gradients,
    Params,
    match_copies,
    name_parameters,
)
from instep.optimizers.hyperparameters import Nonfinite, Number, as_float
from instep.optimizers.keywords import Shared
from instep.optimizers.near_misses import hint
from instep.optimizers.plans import folder_of
from instep.optimizers.settings import GRAD_SCALE
from instep.optimizers.state_storage import in_folder
from instep.optimizers.stored_formats import (
    MasterBits,
    Rounding,
    StateDtype,
    StoredFormats,
    checked_groups,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Optimizer"]


@documentation.without_quotes
class Optimizer(Averaged):
    """Base of the optimizers; use a class that has a rule, such as `SGD` or `Adam`.

    A subclass names its rule in the core, and its hyperparameters as attributes. This page
    describes the arguments that every rule has.

    Parameters
    ----------
    params : array, or dicts, lists and tuples of arrays in any nesting, or list of group dicts
        Writeable arrays of float64, float32, float16 or bfloat16 (ml_dtypes), of any shape and
        strides, changed in place. Keys are str or int; a parameter's name is the path to it, such
        as "encoder.0.w". None and empty containers are places without a parameter. A group dict has
        such a container under "params", and may have any of the hyperparameters below, and a
        state_dtype of its own. The arguments from clip_norm on are, but for state_dtype, of the
        whole optimizer.
    lr : float or callable
        Learning rate, at least 0. Like every number here, it may be a callable from the number of
        completed steps (0 at the first step) to a float, such as those of `instep.schedules`.
    weight_decay : float or callable
        L2 regularisation, at least 0; its gradient is added to the gradient.
    l1 : float or callable
        L1 regularisation, at least 0; its gradient is added to the gradient.
    decoupled_l1 : bool
        Apply L1 after the rule instead: each element moves towards 0 by lr * l1 and stops there, so
        that elements become exactly 0.
    clip_value : float, callable or None
        Each element of the gradient is limited to [-clip_value, clip_value]; greater than 0.
    maximize : bool
        Go up the gradient, not down.
    clip_norm : float, callable or None
        Greater than 0. If the Euclidean norm of all gradients together exceeds this limit, the
        gradients are scaled down to the limit. `grad_norm` holds the norm before scaling.
    nonfinite : {"propagate", "skip", "raise"}
        What to do if a gradient, rounded to its parameter's arithmetic, is infinite or NaN (1e39 is
        infinite in float32): go on computing ("propagate"); change nothing and count the step in
        `skipped_steps` ("skip"; accumulated gradients are dropped); or change nothing and raise
        FloatingPointError ("raise"). "skip" and "raise" read the gradients once more.
    ema_decay : float, callable or None
        In [0, 1]. Keep an exponential moving average e of each parameter p, which starts from the
        parameter's first value: e = e + (1 - ema_decay) * (p - e). With 0, e is p, whatever it was.
        `instep.schedules.UniformAverage` makes e the plain mean of the weights. It is computed in
        the same sweep and in the arithmetic's type (float64 for float64 parameters, float32 for the
        others); see `averaged`.
    copy_to : container like params, or None
        Arrays of the parameters' shapes and of a narrower dtype (float16 or bfloat16; float32 for
        float64 parameters) that hold the parameters, rounded. They are written when the optimizer is
        made, by each step in the same sweep, and by loading. After you change a parameter by hand,
        its copy has the old values until the next step or `refresh_copies`.
    state_dtype : dtype, "bfloat16", "8bit", dict or None
        How states are stored. With None, they are float64 for float64 parameters, float32 for the
        others. A narrower dtype takes fewer bytes, and each step rounds the states. "bfloat16"
        imports ml_dtypes. In float16, second moments are stored as their square roots. With "8bit",
        which is for parameters computed in float32, ``state["w"]["exp_avg"]`` has codes of 8 bits,
        and ``state["w"]["exp_avg_unit"]`` a float32 for each block of 64 codes; `instep.storage`
        decodes them. A dict has a format for each state by name, such as ``{"exp_avg": "8bit"}``;
        a state that is not named stays wide. States that a format can't hold stay wide, or the
        format is refused: docs/semantics-storage.md has the table. A group may have its own; it is
        fixed when the group is made.
    rounding : {"stochastic", "nearest"}
        How states of 8 and 16 bits are rounded. "stochastic" rounds up or down at random, so that
        the mean is exact. To nearest, a mean of squares in bfloat16 can rise and never fall.
    seed : int
        An int from 0 to 2^64 - 1, of the random numbers that round. They depend on the seed, the
        place of the parameter and its step count alone. The seed is saved, and a loaded seed
        replaces it.
    param_rounding : {"stochastic", "nearest"}
        How float16 and bfloat16 parameters are rounded. Copies are rounded to nearest.
    master_bits : 24, 32 or None
        An array beside the states of each bfloat16 parameter, ``state["w"]["remainder"]``, holds
        the next 8 or 16 bits of the parameter. Steps then see a parameter of 24 or 32 bits; 32 bits
        train as a float32 parameter does, to the bit. Other parameters are stepped as without it.
        After you change a parameter by hand, call `reset_remainders`.
    min_8bit_size : int
        Parameters of fewer elements keep wide states where state_dtype is "8bit".
    state_storage : str, path or None
        A folder, made if it is absent, in whose files the states and averages lie, for models whose
        states are larger than memory. A step reads and writes them in windows and gives the same
        bits; it needs about 100 MB of memory besides the parameters and gradients. The files are
        scratch of this one optimizer: they begin at zero and are removed with it, and to resume, a
        run loads a checkpoint. `state` and `averages` show them as read-only arrays. Such an
        optimizer can't be copied or pickled. With None, states lie in memory. See
        docs/state-storage.md for what it costs.

    Raises
    ------
    TypeError, ValueError
        If a parameter can't be updated in place (read-only, misaligned, byte-swapped, of another
        dtype, overlapping itself or another), or a hyperparameter is out of its range.
    ImportError
        If state_dtype has "bfloat16" and ml_dtypes is missing.
    OSError
        If state_storage can't be made or written, has too little space for the states, or is in use
        by another optimizer; nothing is left behind then. NotImplementedError on Windows.

    """

    __slots__ = ("__weakref__",)

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        *,
        weight_decay: Number = 0.0,
        **shared: Unpack[Shared],
    ) -> None:
        self._set_up(params, {"lr": lr}, weight_decay=weight_decay, **shared)

    def _set_up(
        self,
        params: Params,
        own: dict[str, Any],
        *,
        weight_decay: Number,
        l1: Number = 0.0,
        decoupled_l1: bool = False,
        clip_value: Number | None = None,
        maximize: bool = False,
        clip_norm: Number | None = None,
        nonfinite: Nonfinite = "propagate",
        ema_decay: Number | None = None,
        copy_to: Copies | None = None,
        state_dtype: StateDtype = None,
        rounding: Rounding = "stochastic",
        seed: int = 0,
        param_rounding: Rounding = "nearest",
        master_bits: MasterBits | None = None,
        min_8bit_size: int = 4096,
        state_storage: str | os.PathLike[str] | None = None,
        **unknown: Any,
    ) -> None:
        """Make the optimizer from a rule's own hyperparameters and the shared arguments: a constructor's last call."""
        if not self._rule:
            self._refuse_without_rule()
        if unknown:
            known = documentation.keywords(type(self))
            name = next(iter(unknown))
            raise TypeError(
                f"an argument of {type(self).__name__} must be one of {', '.join(known)}, "
                f"got {name!r}{hint(name, known)}"
            )
        settings = {
            **own,
            "weight_decay": weight_decay,
            "l1": l1,
            "clip_value": clip_value,
            "maximize": maximize,
            "decoupled_l1": decoupled_l1,
        }
        grouped, groups = name_parameters(params)
        copies = match_copies(copy_to, groups, grouped)
        super().__init__(settings, clip_norm, nonfinite, ema_decay)
        formats = StoredFormats.checked(
            state_dtype, rounding, seed, param_rounding, master_bits, min_8bit_size
        )
        groups = checked_groups(groups)
        with in_folder(folder_of(state_storage)) as storage:
            self._bind(groups, copies, formats, storage, grouped=grouped)

    # ---- stepping ------------------------------------------------------------------------------

    def step(
        self,
        grads: Gradients | Accumulated = GRADIENTS,
        *,
        grad_scale: float | None = None,
    ) -> None:
        """Take one step: change the parameters in place.

        Parameters
        ----------
        grads : array, list, tuple or dict
            The gradients, in a container like that of the parameters (for groups: a list with an
            entry for each group). Each gradient has its parameter's shape, any strides, and one of
            the dtypes float64, float32, float16 and bfloat16, whatever the parameter's dtype. If a
            gradient is None, the parameter, its state and its own step count stay as they are. A
            step in which every gradient is None still counts in `step_count`. The gradients that
            `accumulate` has added up are added to `grads`; without `grads` the step uses the
            accumulated gradients alone. A gradient of a 0-d parameter may be a number, and other
            objects become arrays if NumPy can make one of them, such as arrays of JAX.
        grad_scale : float, optional
            The gradients are multiplied by this finite number greater than 0 inside the sweep.
            Examples: 1 / the scale of the loss, or 1 / the number of accumulated micro-batches.

        Raises
        ------
        TypeError, ValueError
            If a gradient can't be used: wrong container, count, keys, shape or dtype, misaligned or
            byte-swapped, or sharing memory with a parameter or a state; if a schedule returns a
            number that its hyperparameter doesn't allow; if a parameter has been reshaped, moved or
            made read-only. Nothing has changed then.
        FloatingPointError
            With ``nonfinite="raise"``, if a gradient has an infinity or NaN. Nothing has changed.
        RuntimeError
            Inside ``averaged()``; from a schedule or a signal handler, in the middle of a step of
            this optimizer; in a process that was forked while another thread stepped this
            optimizer. With ``state_storage``: in any forked process, or if half a step is in the
            folder.
        OSError
            With ``state_storage``, if a file of the states can't be read or written. If parameters
            have changed already, the error says "half a step is in FOLDER", and further steps and
            saves are refused until a state is loaded.

        Notes
        -----
        Threads that step the same optimizer take turns. Long steps release the GIL. An error in a
        schedule is raised unchanged, with a note that names the hyperparameter; nothing has changed
        then.

        Examples
        --------
        >>> import numpy as np, instep
        >>> params = {"w": np.ones(2), "b": np.ones(1)}
        >>> optimizer = instep.SGD(params, lr=0.5)
        >>> optimizer.step({"w": np.array([1.0, 2.0]), "b": None})
        >>> params
        {'w': array([0.5, 0. ]), 'b': array([1.])}
        """
        scale = 1.0 if grad_scale is None else as_float(grad_scale, GRAD_SCALE, "grad_scale")
        if grads is GRADIENTS:
            self._plan.step_accumulated(self, scale)
        else:
            self._plan.step(grads, self, scale)

    def accumulate(self, grads: Gradients) -> None:
        """Add the gradients of a micro-batch to the gradients of the next `step`.

        The sum is defined to the bit: the first gradient is rounded to the arithmetic's type
        (float64 for float64 parameters, float32 for the others); each later gradient is rounded and
        added in this type. The next step adds its own gradients, if it has any, in the same sweep;
        the sum is then empty again. If a gradient is None, the parameter's sum stays as it is.

        Parameters
        ----------
        grads : array, list, tuple or dict
            As for `step`.

        Raises
        ------
        TypeError, ValueError
            As `step`; nothing has been added then.

        Examples
        --------
        >>> import numpy as np, instep
        >>> w = np.zeros(2)
        >>> optimizer = instep.SGD(w, lr=1.0)
        >>> for batch in ([1.0, 2.0], [3.0, 4.0]):
        ...     optimizer.accumulate(np.array(batch))
        >>> optimizer.step(grad_scale=1 / 2)
        >>> w
        array([-2., -3.])
        """
        self._plan.accumulate(grads)

    def discard_accumulated(self) -> None:
        """Drop the gradients that `accumulate` has added up since the last step."""
        self._plan.discard_accumulated()

    def refresh_copies(self) -> None:
        """Round the parameters into the arrays of ``copy_to``, as each step does.

        Call it after you have changed parameters by hand. With ``copy[...] = parameter``, NumPy
        would round, and NumPy rounds float64 twice on the way to bfloat16.

        Raises
        ------
        ValueError
            If a parameter or a copy has been reshaped, moved or made read-only.

        Examples
        --------
        >>> import numpy as np, instep
        >>> w, half = np.zeros(2, np.float32), np.empty(2, np.float16)
        >>> optimizer = instep.SGD(w, copy_to=half)
        >>> w[...] = [1.0, 2.0]
        >>> optimizer.refresh_copies()
        >>> half
        array([1., 2.], dtype=float16)
        """
        self._plan.refresh_copies()

    def _repr_html_(self) -> str | None:
        from instep.optimizers import notebook  # noqa: PLC0415 (for notebooks alone)

        return notebook.tables(self)


documentation.complete_signature(Optimizer.__init__, Optimizer._set_up)
