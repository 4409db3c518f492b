"""averaged(): however a block ends, the weights come back, and copies with them."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16, DTYPES, labels, numbers
from interpreters import output
from reference import assert_same_bits, store

import instep


def made(**more: Any) -> Any:
    """One whose weights are 4 and whose averages are 1."""
    optimizer = instep.SGD({"w": np.zeros(3)}, lr=1.0, ema_decay=0.75, **more)
    optimizer.step({"w": np.full(3, -4.0)})
    return optimizer


def shown(optimizer: Any) -> float:
    return float(optimizer.params["w"][0])


def evaluate(optimizer: Any) -> Iterator[float]:
    with optimizer.averaged():
        yield shown(optimizer)


def abandon_in_a_cycle(optimizer: Any) -> None:
    """Leave a generator inside a block to the garbage collector."""
    generator = evaluate(optimizer)
    assert next(generator) == 1.0
    cycle: list[Any] = [generator]
    cycle.append(cycle)


class Collecting(np.ndarray):
    """A gradient that has the garbage collected as it is looked at."""

    @property
    def mask(self) -> Any:
        gc.collect()
        raise AttributeError


class CollectingDict(dict[str, Any]):
    def __getitem__(self, name: str) -> Any:
        gc.collect()
        return super().__getitem__(name)


class CollectingSchedule:
    """As other things of the user's that are called under the optimizer's lock."""

    def __getattr__(self, name: str) -> str:
        if name != "__qualname__":
            raise AttributeError(name)
        gc.collect()
        return "rate"

    def __call__(self, step: int) -> float:
        return 1.0


def accumulate(optimizer: Any) -> None:
    optimizer.accumulate({"w": np.ones(3).view(Collecting)})


def load(optimizer: Any) -> None:
    with pytest.raises(RuntimeError, match="load must come after the block"):
        optimizer.load_state_dict(CollectingDict(STATE))


def state_dict(optimizer: Any) -> None:
    optimizer.lr = CollectingSchedule()
    optimizer.state_dict()


def hold(optimizer: Any) -> None:
    with optimizer._plan:
        gc.collect()
        assert shown(optimizer) == 1.0  # in the middle of the call they stay what they were


STATE = made().state_dict()
CALLS = [accumulate, load, state_dict, hold]


@pytest.mark.parametrize("call", CALLS, ids=lambda f: f.__name__)
def test_a_block_that_is_collected_in_the_middle_of_a_call(call: Callable[[Any], None]) -> None:
    """The lock is the call's own: the weights come back as it is let go."""
    optimizer = made()
    gc.disable()
    try:
        abandon_in_a_cycle(optimizer)
        assert shown(optimizer) == 1.0
        call(optimizer)
        assert shown(optimizer) == 4.0
    finally:
        gc.enable()
    optimizer.step({"w": np.zeros(3)})


def test_a_block_that_is_collected_while_another_thread_has_the_lock() -> None:
    """The collector does not wait for that thread, which brings the weights back."""
    optimizer = made()
    held, collected = threading.Event(), threading.Event()

    def other() -> None:
        with optimizer._plan:
            held.set()
            collected.wait(30)

    block = optimizer.averaged()
    block.__enter__()
    cycle: list[Any] = [block]
    cycle.append(cycle)
    thread = threading.Thread(target=other)
    thread.start()
    assert held.wait(30)
    del block, cycle
    gc.collect()
    assert shown(optimizer) == 1.0
    collected.set()
    thread.join()
    assert shown(optimizer) == 4.0
    optimizer.step({"w": np.zeros(3)})


def test_the_collector_by_its_own_account() -> None:
    """By allocating: thousands of blocks left behind, each of them gone before the next step at the latest."""
    optimizer = made()
    threshold = gc.get_threshold()
    gc.set_threshold(50, 2, 2)
    try:
        for _ in range(300):
            abandon_in_a_cycle(optimizer)
            tries, keep = 0, []
            while shown(optimizer) != 4.0:
                optimizer.accumulate({"w": np.zeros(3)})
                optimizer.state_dict()
                keep.append([keep])
                tries += 1
                assert tries < 10_000
            optimizer.discard_accumulated()
    finally:
        gc.set_threshold(*threshold)
    assert shown(optimizer) == 4.0


def test_a_block_that_is_dropped() -> None:
    optimizer = made()
    block = optimizer.averaged()
    block.__enter__()
    assert shown(optimizer) == 1.0
    del block
    assert shown(optimizer) == 4.0


def test_the_way_out_without_the_block() -> None:
    optimizer = made()
    optimizer.end_averaged()  # where there is none it does nothing
    block = optimizer.averaged()
    block.__enter__()
    optimizer.end_averaged()
    assert shown(optimizer) == 4.0
    optimizer.step({"w": np.full(3, -4.0)})
    assert shown(optimizer) == 8.0
    block.__exit__(None, None, None)
    assert shown(optimizer) == 8.0


def test_the_end_of_an_old_block_does_nothing() -> None:
    optimizer = made()
    old, new = optimizer.averaged(), optimizer.averaged()
    with old:
        pass
    with new:
        old.__exit__(None, None, None)
        assert shown(optimizer) == 1.0
        del old
        assert shown(optimizer) == 1.0
        with (
            pytest.raises(
                RuntimeError, match="must end before the next begins, got a block in a block"
            ),
            optimizer.averaged(),
        ):
            pass
        assert shown(optimizer) == 1.0
    assert shown(optimizer) == 4.0


def test_a_block_that_ends_on_another_thread() -> None:
    optimizer = made()
    generator = evaluate(optimizer)
    next(generator)
    thread = threading.Thread(target=generator.close)
    thread.start()
    thread.join()
    assert shown(optimizer) == 4.0
    block = optimizer.averaged()
    for call in (block.__enter__, lambda: block.__exit__(None, None, None)):
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
    assert shown(optimizer) == 4.0


@pytest.mark.parametrize("ending", ["", "raise SystemExit(0)", "del optimizer", "sys.exit()"])
def test_the_interpreter_may_end_inside_a_block(ending: str) -> None:
    code = f"""
        import atexit, sys, threading, numpy as np, instep
        w = np.zeros(3)
        atexit.register(lambda: print(w[0], flush=True))
        optimizer = instep.SGD(w, lr=1.0, ema_decay=0.75)
        optimizer.step(np.full(3, -4.0))
        def evaluate():
            with optimizer.averaged():
                yield
        kept = evaluate()
        next(kept)
        block = optimizer.averaged()
        cycle = [optimizer, evaluate()]
        cycle.append(cycle)
        {ending}
    """
    assert output(code) in ("1.0", "4.0")


# ---- copies --------------------------------------------------------------------------------------------


def narrower(dtype: Any) -> list[Any]:
    return [d for d in DTYPES if d.itemsize < np.dtype(dtype).itemsize]


@pytest.mark.parametrize("copied", [np.dtype("f4"), np.dtype("f2"), BFLOAT16], ids=labels)
@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_copies_show_the_averages_and_are_as_before_afterwards(dtype: Any, copied: Any) -> None:
    """To the bit, whatever the copies held: a NaN's payload, what was written by hand."""
    if copied not in narrower(dtype):
        pytest.skip("no narrower format")
    rng = np.random.default_rng(3)
    params = {"w": numbers(rng, (5, 7), dtype), "b": numbers(rng, 300, dtype)}
    copies = {"w": np.zeros((7, 10), copied).T[::2], "b": np.zeros(600, copied)[::-2]}
    optimizer = instep.Adam(params, lr=0.1, ema_decay=0.5, copy_to=copies)
    optimizer.step({name: numbers(rng, p.shape, "f4") for name, p in params.items()})
    word = f"u{copied.itemsize}"
    copies["b"].view(word)[:20] = rng.integers(0, 1 << 8 * copied.itemsize, 20, word)
    before = {name: (p.tobytes(), copies[name].tobytes()) for name, p in params.items()}
    for _ in range(2):
        with optimizer.averaged():
            for name, average in optimizer.averages.items():
                assert_same_bits(params[name], store(average, params[name].dtype), name)
                assert_same_bits(copies[name], store(average, copied), f"the copy of {name}")
        assert {name: (p.tobytes(), copies[name].tobytes()) for name, p in params.items()} == before


def test_refreshed_copies_are_rounded_once() -> None:
    """float64 to bfloat16 by way of float32 would go to even at a tie that is none."""
    tie = 1 + 2.0**-8
    w, half = np.zeros(2), np.zeros(2, BFLOAT16)
    optimizer = instep.SGD(w, copy_to=half)
    w[...] = [tie + 2.0**-40, 3 * 2.0**-7 + 1 + 2.0**-8 - 2.0**-40]
    optimizer.refresh_copies()
    assert_same_bits(half, store(w, BFLOAT16))
    assert half.astype("f8").tolist() == [1 + 2.0**-7, 1 + 3 * 2.0**-7]
