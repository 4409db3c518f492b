"""Ctrl-C in blocks of averages so short that it comes at every point of them: docs/faults.md."""

from __future__ import annotations

import signal

import pytest
from interpreters import UNMEASURED, output

HEAD = """
    import _thread, random, signal, sys, threading, time
    import numpy as np
    import instep
    w, half = np.zeros(3, "f4"), np.zeros(3, "f2")
    optimizer = instep.SGD(w, lr=1.0, ema_decay=0.5, copy_to=half)
    optimizer.step(np.array([-1.0, -2.0, -3.0]))
    rng = random.Random(0)

    def evaluate():
        with optimizer.averaged():
            yield

    def blocks():
        while True:
            with optimizer.averaged():
                pass
            with optimizer.averaged():
                [k for k in range(3)]
            for _ in evaluate():
                pass
            with optimizer.averaged() as nothing:
                optimizer.params

    def check():
        assert not optimizer._plan.shows_averages
        assert w.tolist() == half.tolist() == [1.0, 2.0, 3.0], (w, half)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers on this system")
def test_thousands_of_signals_leave_no_averages() -> None:
    code = (
        HEAD
        + """
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    for k in range(4000):
        try:
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 1e-4))
            blocks()
        except KeyboardInterrupt:
            check()  # while the traceback still holds the block's frames
        check()
    optimizer.step(np.zeros(3))
    """
    )
    output(code, timeout=120, **UNMEASURED)


def test_thousands_of_interrupts_by_another_thread_leave_no_averages() -> None:
    code = (
        HEAD
        + """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupted, done = threading.Semaphore(0), threading.Event()
    def interrupt():
        while not done.is_set():
            if interrupted.acquire(timeout=1):
                time.sleep(rng.uniform(0, 1e-4))
                _thread.interrupt_main()
    sys.setswitchinterval(1e-4)
    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    for k in range(1000):
        try:
            interrupted.release()
            blocks()
        except KeyboardInterrupt:
            check()  # while the traceback still holds the block's frames
        check()
    done.set()
    thread.join()
    optimizer.step(np.zeros(3))
    """
    )
    output(code, timeout=120, **UNMEASURED)
