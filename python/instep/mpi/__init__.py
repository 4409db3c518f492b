"""Ranks: processes, on one machine or several, that take a step together.

`Distributed` makes an optimizer whose step the ranks take together, with the bits of one process.
`communicator` makes the one form that everything here relies on, `Communicator`, of a communicator of
mpi4py or of a process group of ``torch.distributed``. `instep.mpi.over_threads` has ranks that are
threads, for tests.

>>> from instep.mpi import over_threads
>>> ranks = over_threads.run(3, lambda comm: comm.allgather(b"%d" % comm.rank))
>>> [rank.result() for rank in ranks]
[[b'0', b'1', b'2'], [b'0', b'1', b'2'], [b'0', b'1', b'2']]
"""

from instep._support.public import publish
from instep.mpi.choosing import communicator
from instep.mpi.distributed import Distributed
from instep.mpi.protocol import CommunicationError, Communicator, MissingRanksError


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "CommunicationError",
    "Communicator",
    "Distributed",
    "MissingRanksError",
    "communicator",
]

publish(__name__, __all__, globals())
