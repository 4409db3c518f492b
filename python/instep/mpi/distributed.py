"""`Distributed`: an optimizer whose step several ranks take together."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from instep._support import documentation
from instep.mpi import making, status, storing
from instep.mpi.averages import ShownAverages
from instep.mpi.choosing import communicator
from instep.mpi.job import Job
from instep.mpi.protocol import CommunicationError
from instep.mpi.storing import NO_DEFAULT
from instep.optimizers import Combined, Optimizer
from instep.optimizers.containers import GRADIENTS
from instep.optimizers.plans import made_by

if TYPE_CHECKING:
    from typing_extensions import Self

    from instep.mpi.protocol import Communicator
    from instep.optimizers.containers import Accumulated, Gradients, Params
    from instep.optimizers.loss_scaler import LossScaler

__all__ = ["Distributed"]


@documentation.without_quotes
class Distributed:
    """An optimizer whose step several ranks take together, each with a part of the states.

    Every rank has all parameters, with the same elements, and gradients of its own. A step takes
    the gradient

        G = grad_scale * (((g_0 + g_1) + g_2) + ...)

    where g_r is the gradient of rank r; they are added in the arithmetic's type. It has the bits of
    one process that calls `Optimizer.accumulate` with g_0, g_1, ... and then
    ``step(grad_scale=...)``. Each rank owns a run of chunks of 16,384 elements, their states and
    their part of the step (stage 1 of ZeRO [1]_). Gradients go to the owners, and parameters come
    back, in buckets of at most 64 MiB. With P parameters in float32 and N ranks, Adam takes on each
    rank 8 P bytes for parameters and gradients, 12 P / N for states and sums, and two buckets.

    The object is also an instance of the optimizer's own class: it has the hyperparameters, groups,
    schedules and counts of that class. `state` and `averages` have this rank's stretches of the
    parameters, as arrays with one axis, and `memory` tells this rank's bytes.

    All ranks make it together and make the same calls of `step`, `averaged`, `state_dict`,
    `load_state_dict`, `reset_remainders`, `save`, `load` and `close` in the same order. Before
    anything is changed, all ranks compare what they are about to do. If one of them has an error,
    or another number, all of them raise: that rank its own error, the others the same built-in
    class with the number of the rank. The same holds if a rank leaves, also by ``sys.exit``, while
    the others go on.

    Parameters
    ----------
    make : class or function
        A class of optimizers, which is called with `params` and `keywords`; or a function that makes
        the optimizer, such as a `Combined`, of `params`.
    params
        As for the optimizer, all of them C-contiguous. All ranks must have the same elements.
    comm
        An intracommunicator of mpi4py, a process group of ``torch.distributed`` (gloo), or a
        `Communicator`: see `communicator`. A `Communicator` is the optimizer's own from now on, and
        is closed with it, also if the optimizer can't be made.
    shard : {"auto", True, False}
        Whether states and step are shared out. If not, every rank gets all gradients and steps
        everything; the bits are the same. With "auto", they are shared out unless the bytes of all
        parameters times the number of ranks are less than 4 MiB: one exchange of everything is
        quicker then.
    sync : bool
        Put rank 0's parameters in the place of the other ranks', instead of comparing them.
    timeout : float or None
        Seconds that a call waits for the other ranks; None: as long as it takes. A `Communicator`
        has its own timeout, and this one is not used.
    **keywords
        Passed on to `make`: the hyperparameters, also `lr`, go by name.

    Raises
    ------
    TypeError, ValueError
        On all ranks: if an argument can't be used, or if ranks have other parameters, rules or
        releases of instep.
    OSError
        On all ranks, if the folder of `state_storage` can't be used on one of them.
    CommunicationError
        On all ranks, if one of them makes another call.
    MissingRanksError
        If not all ranks make it within `timeout`.

    See Also
    --------
    Optimizer : the calls that are the same in one process.

    Notes
    -----
    Numbers that differ by no more than 1e-12 of their size, as another C library computes them, are
    those of rank 0 on all ranks. `grad_norm`, the guard of `nonfinite` and sums that rules need are
    over all ranks, with the bits of one process. A rule for matrices (`Muon`) has whole matrices on
    one rank. If an error comes in the middle of a step, parameters may have changed on some ranks
    only: every later call raises CommunicationError, and the run goes on from its last checkpoint.

    References
    ----------
    .. [1] S. Rajbhandari, J. Rasley, O. Ruwase, Y. He, "ZeRO: Memory Optimizations Toward Training
       Trillion Parameter Models", 2020, https://arxiv.org/abs/1910.02054

    Examples
    --------
    Ranks that are threads, to try it without MPI. Under ``mpiexec``, `comm` is ``MPI.COMM_WORLD``.

    >>> import numpy as np, instep, instep.mpi
    >>> from instep.mpi import over_threads
    >>> def train(comm):
    ...     w = np.zeros(3)
    ...     optimizer = instep.mpi.Distributed(instep.SGD, w, comm=comm, lr=0.5)
    ...     optimizer.step(np.full(3, 1.0 + comm.rank), grad_scale=1 / comm.size)
    ...     return w, isinstance(optimizer, instep.SGD)
    >>> [rank.result() for rank in over_threads.run(2, train)]
    [(array([-0.75, -0.75, -0.75]), True), (array([-0.75, -0.75, -0.75]), True)]
    """

    __slots__ = ()

    def __new__(
        cls,
        make: type[Optimizer] | Callable[..., Optimizer | Combined],
        params: Params,
        *,
        comm: Any,
        shard: bool | Literal["auto"] = "auto",
        sync: bool = False,
        timeout: float | None = 600.0,
        **keywords: Any,
    ) -> Self:
        """Make the optimizer; its class is a subclass of both `Distributed` and its own."""
        job = Job(communicator(comm, timeout=timeout))
        job.shown = ShownAverages(job)
        made, error = None, None
        try:
            making.check_arguments(make, shard, sync)
            with made_by(job):
                made = make(params, **keywords)
            making.adopt(job, made)
        except BaseException as caught:
            error = caught
        try:
            with job.moving("the constructor"):
                job.meet(status.Kind.MAKE, error)
                making.agree(job, sync, shard)
                making.share_out(job, shard)
        except BaseException as refusal:
            if status.is_agreed(refusal):
                job.seat.give_up()
            for plan in job.plans:
                plan.remove_files()
            raise
        made.__class__ = _class_of(type(made))
        return made  # type: ignore[return-value]

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        pass  # __new__ has made it

    @property
    def _job(self) -> Job:
        job: Job = self._plan.job  # type: ignore[attr-defined]
        return job

    @property
    def comm(self) -> Communicator:
        """The communicator of the ranks."""
        return self._job.comm

    def step(
        self, grads: Gradients | Accumulated | None = GRADIENTS, *, grad_scale: float | None = None
    ) -> None:
        """Take one step together with the other ranks: change the parameters in place.

        Parameters
        ----------
        grads : array, list, tuple or dict, or None
            This rank's gradients, as for the optimizer's own step; None if this rank has no batch.
            Without `grads`, the step uses what this rank has accumulated. If only some ranks have a
            gradient of a parameter, it is the sum of theirs.
        grad_scale : float, optional
            The sums are multiplied by it, as by 1 / the number of ranks.

        Raises
        ------
        TypeError, ValueError, FloatingPointError
            On all ranks, as for the optimizer's own step, or if their numbers differ; nothing has
            changed then.
        RuntimeError
            Inside `averaged`, or inside another call of this optimizer.
        CommunicationError
            If a rank has left, makes another call or is at another step, nothing has changed. After
            a fault in the middle of a step, on every later call.
        MissingRanksError
            If a rank doesn't come within the timeout.
        """
        self._job.step(self, grads, grad_scale)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averages in place of the parameters on all ranks, for a ``with`` block.

        All ranks enter the block together; each leaves it by itself. Inside, this rank has all
        parameters twice.

        Raises
        ------
        ValueError, RuntimeError
            On all ranks, as the optimizer's own.
        """
        self._job.shown.show(self)
        try:
            yield
        finally:
            self._job.shown.hide()

    def state_dict(self) -> dict[str, Any] | None:
        """Return the state as one process would have it on rank 0, and None on the other ranks.

        All ranks call it. It can be loaded into an optimizer in one process, or on any number of
        ranks.

        Raises
        ------
        ValueError
            On all ranks, if any of them has accumulated gradients that no step has used.
        RuntimeError
            On all ranks, if any of them is inside `averaged`.
        """
        return storing.gathered(self._job, self)

    def load_state_dict(self, state_dict: Mapping[str, Any] | None) -> None:
        """Load rank 0's state on all ranks, which all call this.

        Parameters
        ----------
        state_dict : dict or None
            On rank 0 a state of an optimizer in one process or on any number of ranks. What the
            other ranks pass doesn't matter.

        Raises
        ------
        TypeError, ValueError
            On all ranks, as the optimizer's own; nothing has changed then.
        RuntimeError
            On all ranks, if any of them is inside `averaged`.
        """
        storing.load(self._job, self, state_dict)

    def save(
        self, path: str | os.PathLike[str], extra: Any = None, scaler: LossScaler | None = None
    ) -> None:
        """Write a checkpoint, as `instep.checkpoint.save` does; all ranks call this.

        Rank 0 writes the file, and the other ranks send it what they own, at most a bucket at a
        time. The file fits an optimizer in one process and any number of ranks.

        Parameters
        ----------
        path, extra, scaler
            As for `instep.checkpoint.save`. `extra` and `scaler` are rank 0's.

        Raises
        ------
        OSError
            On all ranks, if the file can't be written; the old file is still there.
        TypeError, ValueError
            On all ranks: as for `instep.checkpoint.save`; also if any rank has accumulated gradients
            that no step has used.
        RuntimeError
            On all ranks, if any of them is inside `averaged`.
        """
        saving = importlib.import_module("instep.mpi.saving")
        saving.save(self._job, self, path, extra, scaler)

    def load(
        self,
        path: str | os.PathLike[str],
        scaler: LossScaler | None = None,
        *,
        default: Any = NO_DEFAULT,
        via: Literal["auto", "root", "each"] = "auto",
    ) -> Any:
        """Load a checkpoint of any number of ranks, or of one process; all ranks call this.

        Parameters
        ----------
        path, scaler
            As for `instep.checkpoint.load`.
        default : optional
            What is returned if rank 0 finds no file there. Without it, this is an error.
        via : {"auto", "root", "each"}
            "each": every rank reads and verifies what it owns, and the weights. "root": rank 0 reads
            everything, and shares it out; it has all of it in memory. "auto": "root" if not all ranks
            see the same file, or if it was written by a release that had no checksums of parts.

        Returns
        -------
        object
            The `extra` that was saved, or `default`.

        Raises
        ------
        ValueError
            On all ranks, if the file isn't a checkpoint, is damaged, or doesn't fit; nothing has
            changed then. On the rank that has found it, it is an `instep.checkpoint.CheckpointError`.
        OSError
            On all ranks, if the file can't be read, or isn't there and there is no `default`.
        RuntimeError
            On all ranks, if any of them is inside `averaged`.
        """
        loading = importlib.import_module("instep.mpi.loading")
        return loading.load(self._job, self, path, scaler, default, via)

    def close(self) -> None:
        """Leave, together with the other ranks, and close the communicator; a second call does nothing.

        Raises
        ------
        CommunicationError
            If other ranks go on.
        """
        self._job.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # The block's own error must not be covered by one that says that this rank leaves alone.
        with suppress(CommunicationError) if kind is not None else nullcontext():
            self.close()

    def add_param_group(self, *arguments: Any, **keywords: Any) -> NoReturn:
        """Refuse another group: who owns what is decided when all parameters are there."""
        self._job.refuse_group()

    def __reduce__(self) -> NoReturn:
        """Refuse copies and pickles: the parts of the ranks belong together."""
        raise TypeError(
            "a Distributed can't be copied or pickled, since each rank has a part of its states; save "
            "it to a checkpoint, or make another one and load its state_dict()"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        """Refuse copies and pickles: the parts of the ranks belong together."""
        self.__reduce__()

    def __repr__(self) -> str:
        comm = self._job.comm
        return f"Distributed({super().__repr__()}, rank={comm.rank}, size={comm.size})"


_CLASSES: dict[type, type] = {}


def _class_of(made: type) -> type:
    """Return the class of a Distributed that has made an optimizer of this class."""
    if made not in _CLASSES:
        namespace = {"__slots__": (), "__module__": made.__module__, "__doc__": made.__doc__}
        _CLASSES[made] = type(made.__name__, (Distributed, made), namespace)
    return _CLASSES[made]
