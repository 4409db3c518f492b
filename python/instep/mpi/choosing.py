"""Which transport a communicator of another library is for."""

from __future__ import annotations

import importlib
from typing import Any

from instep._support import documentation
from instep._support.wording import kind
from instep.mpi.protocol import Communicator

__all__ = ["communicator"]


@documentation.without_quotes
def communicator(comm: Any, *, timeout: float | None = 600.0) -> Communicator:
    """Make a `Communicator` of what another library has; all ranks call this together.

    Parameters
    ----------
    comm
        An intracommunicator of mpi4py, a process group of ``torch.distributed`` with the backend gloo
        (``torch.distributed.group.WORLD`` is the default one), or a `Communicator`, which is returned
        as it is.
    timeout
        Seconds that a call waits for the other ranks before it raises `MissingRanksError`; None: as long
        as it takes. Ranks may come to a call as much later than others as this.

    Raises
    ------
    TypeError
        If `comm` is nothing of these.
    ValueError
        If `timeout` is not above 0, or the process group has another backend.
    ImportError
        If mpi4py or PyTorch is too old or broken.
    MissingRanksError
        If not all ranks call this.

    Examples
    --------
    >>> import instep.mpi
    >>> from instep.mpi import over_threads
    >>> ranks = over_threads.run(2, lambda comm: instep.mpi.communicator(comm) is comm)
    >>> [rank.result() for rank in ranks]
    [True, True]
    """
    # A backend is imported with its library, which the caller has by now.
    libraries = {base.__module__.partition(".")[0] for base in type(comm).__mro__}
    made: Communicator
    if "mpi4py" in libraries:
        made = importlib.import_module("instep.mpi.over_mpi").MPIRanks(comm, timeout=timeout)
        return made
    if "torch" in libraries:
        made = importlib.import_module("instep.mpi.over_torch").TorchRanks(comm, timeout=timeout)
        return made
    if not isinstance(comm, Communicator):
        raise TypeError(
            "comm must be an intracommunicator of mpi4py, a process group of torch.distributed or an "
            f"instep.mpi.Communicator, got {kind(comm)}; pass MPI.COMM_WORLD, or "
            "torch.distributed.group.WORLD after init_process_group"
        )
    return comm
