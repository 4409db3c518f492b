"""Optimizers whose schedules step each other: a call that could wait for ever is refused instead."""

from __future__ import annotations

import pytest
from interpreters import output

RING = """
    import faulthandler, threading, numpy as np, instep
    faulthandler.dump_traceback_later(40, exit=True)
    count = {count}
    optimizers, raised, taken = [], [], []
    together = threading.Barrier(count, timeout=20)
    inside = threading.local()

    def schedule(k):
        def rate(step):
            if getattr(inside, "first", False):
                inside.first = False
                together.wait()  # all threads hold a lock now
                optimizers[(k + 1) % count].{call}
            return 1.0
        return rate

    for k in range(count):
        optimizers.append(instep.SGD(np.zeros(3), lr=schedule(k)))

    def run(k):
        inside.first = True
        try:
            optimizers[k].step(np.ones(3))
            taken.append(k)
        except RuntimeError as error:
            assert "schedules must not step each other" in str(error), error
            raised.append(k)

    for turn in range(5):
        raised.clear(), taken.clear()
        threads = [threading.Thread(target=run, args=(k,)) for k in range(count)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert len(raised) == 1, raised   # the others go on once it has let go
        assert len(taken) == count - 1
        assert sorted(raised + taken) == list(range(count))
        for k, optimizer in enumerate(optimizers):
            before = optimizer.step_count
            optimizer.step(np.ones(3))
            assert optimizer.step_count == before + 1
            assert (optimizer.params["0"] == -float(optimizer.step_count)).all()
"""


@pytest.mark.parametrize("call", ["step(np.ones(3))", "state_dict()", "accumulate(np.zeros(3))"])
@pytest.mark.parametrize("count", [2, 3])
def test_schedules_that_step_each_other(count: int, call: str) -> None:
    """Two on two threads, three in a ring: one of the calls raises RuntimeError, and nothing hangs."""
    code = RING.format(count=count, call=call)
    if "step(" in call:
        code = code.replace('(optimizer.params["0"] == -float(optimizer.step_count)).all()', "True")
    output(code)
