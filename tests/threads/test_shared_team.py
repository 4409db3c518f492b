"""Steps on the threads of PyTorch: found in the process, as many as PyTorch has, the same bits, no second pool."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interpreters import output
from reference import assert_same_bits

import instep
from instep import _core

torch = pytest.importorskip("torch", reason="PyTorch, whose threads are shared, is not installed")
LIBRARY = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
FOUND = _core.find_team(LIBRARY)
if FOUND is None:
    pytest.skip(
        "PyTorch computes without the entry points of GNU's OpenMP", allow_module_level=True
    )
TEAM = FOUND
GNUS = "gomp" in Path(TEAM.library).name
LLVMS = next(Path("/usr/lib").glob("*/libomp.so.5"), None)
needs_tasks = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")


@pytest.fixture(autouse=True)
def threads_of_pytorch() -> Iterator[None]:
    before, least = torch.get_num_threads(), _core.testing.least_work()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
    _core.testing.set_least_work(least)


def regions() -> int:
    return _core.testing.counters()["parallel_regions"]


# For programs of their own: a place of Adam on the threads of PyTorch.
PROGRAM = f"""
        import os, threading
        import numpy as np, torch, instep
        from instep import _core
        team = _core.find_team({str(LIBRARY)!r})

        class Host:
            def __init__(self, size, team=team):
                self.arrays = [torch.ones(size) for _ in range(2)] + [torch.zeros(size) for _ in range(2)]
                param, self.gradient, mean, square = self.arrays
                self.steps = instep.Steps()
                self.steps._share_team(team)
                self.steps.add_group("adam")
                self.steps.append(1)
                self.steps.bind(0, param, states={{"exp_avg": mean, "exp_avg_sq": square}})

            def step(self):
                numbers = dict(lr=0.01, beta1=0.9, beta2=0.99, eps=1e-8)
                self.steps.step([self.gradient], [numbers], clip_norm=1.0)

        def regions():
            return _core.testing.counters()["parallel_regions"]

        def tasks():
            return set(os.listdir("/proc/self/task"))

        def compute():
            (torch.ones(1_000_000) + 1).sum() + (torch.ones(256, 256) @ torch.ones(256, 256)).sum()
"""


# ---- which team ------------------------------------------------------------------------------------


def test_a_team_is_found_once() -> None:
    assert _core.find_team(str(LIBRARY)) is TEAM
    assert _core.find_team(os.fsencode(LIBRARY)) is TEAM
    with open("/proc/self/maps", encoding="utf-8") as maps:
        assert TEAM.library in maps.read()


@pytest.mark.parametrize("library", ["no/such/library.so", "libc.so.6", "libm.so.6", "\udcff"])
def test_a_library_without_a_team(library: str) -> None:
    """Not loaded, or one that calls no OpenMP runtime, though others in the process have one."""
    assert _core.find_team(library) is None


def test_a_library_that_is_not_loaded_is_not_loaded() -> None:
    code = f"""
        import instep
        assert instep._core.find_team({str(LIBRARY)!r}) is None
        with open("/proc/self/maps") as maps:
            print("torch" in maps.read())
    """
    assert output(code) == "False"


@pytest.mark.skipif(LLVMS is None, reason="there is no second OpenMP runtime")
def test_a_runtime_that_takes_the_librarys_calls_is_the_one() -> None:
    """What is loaded for everybody goes before what the library needs; another runtime works as well."""
    assert LLVMS is not None
    code = (
        PROGRAM
        + """
        host = Host(3_000_000)
        torch.set_num_threads(3)
        host.step()
        print(regions(), team.threads, team.library)
    """
    )
    count, threads, library = output(code, LD_PRELOAD=str(LLVMS)).split()
    assert (count, threads) == ("1", "3")
    assert Path(library).samefile(LLVMS)


def test_the_path_must_be_a_path() -> None:
    with pytest.raises(TypeError):
        _core.find_team(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        instep.Steps()._share_team("libtorch_cpu.so")  # type: ignore[arg-type]


# ---- the same bits ---------------------------------------------------------------------------------

NUMBERS = {"lr": 0.03, "beta1": 0.8, "beta2": 0.97, "beta3": 0.9, "eps": 1e-3, "momentum": 0.7}
NUMBERS |= {"weight_decay": 0.05, "trust_clip": 0.9, "trust_coefficient": 0.3, "dampening": 0.0}
NUMBERS |= {"d0": 0.01, "d_coef": 1.3, "growth_rate": 1.45}
# Options and states of rules with a sweep alone, with sums of their own, and with sums over all places.
RULES: dict[str, tuple[list[str], list[str]]] = {
    "adam": ([], ["exp_avg", "exp_avg_sq"]),
    "sgd": (["momentum"], ["momentum_buffer"]),
    "lion": ([], ["exp_avg"]),
    "lamb": ([], ["exp_avg", "exp_avg_sq"]),
    "prodigy": ([], ["exp_avg", "exp_avg_sq", "s", "p0"]),
}
SIZES = {"one": [1_000_003], "many": [1, 0, 63, 70_001, 5, 300_000]}


def stepped(rule: str, sizes: list[int], team: _core.Team | None) -> tuple[list[Any], float | None]:
    """All arrays of a host after three steps with a norm over all, and the norm."""
    rng, description = np.random.default_rng(7), instep.Steps.rules()[rule]
    options, names = RULES[rule]
    steps = instep.Steps()
    steps._share_team(team)
    steps.add_group(rule, options)
    steps.append(len(sizes))
    scalars = {name: np.full((), 0.5) for name in description["scalar_states"]}
    arrays, gradients = [], []
    for place, size in enumerate(sizes):
        param = rng.standard_normal(size).astype("f4")
        states: dict[str, Any] = {name: np.zeros_like(param) for name in names}
        arrays += [param, *states.values()]
        gradients.append(rng.standard_normal(size).astype("f4"))
        steps.bind(place, param, states={**states, **scalars})
    numbers = {name: NUMBERS[name] for name in description["hyperparameters"] if name in NUMBERS}
    for _ in range(3):
        steps.step(gradients, [numbers], clip_norm=1.0)
    return [*arrays, *scalars.values()], steps.grad_norm


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("rule", RULES)
def test_the_bits_are_those_of_one_thread(rule: str, sizes: list[int]) -> None:
    _core.testing.set_least_work(1)
    before = regions()
    alone, norm = stepped(rule, sizes, None)
    assert regions() == before
    for threads, allowed in ((2, None), (5, None), (5, 2), (5, 3)):
        torch.set_num_threads(threads)
        with instep.num_threads(allowed):
            before = regions()
            shared, same_norm = stepped(rule, sizes, TEAM)
            assert regions() == before + 3
        assert same_norm == norm
        for i, (one, other) in enumerate(zip(shared, alone, strict=True)):
            assert_same_bits(one, other, f"{threads} threads, {allowed} allowed, array {i}")


def test_accumulated_gradients_too() -> None:
    _core.testing.set_least_work(1)
    results = []
    for team in (None, TEAM):
        p = np.ones(700_001, "f4")
        steps = instep.Steps()
        steps._share_team(team)
        steps.add_group("sgd")
        steps.append(1)
        steps.bind(0, p)
        before = regions()
        for k in range(3):
            steps.accumulate([np.full(700_001, 0.1 * k, "f4")])
        steps.step(None, [{"lr": 1.0, "momentum": 0.0, "dampening": 0.0}])
        assert regions() - before == (0 if team is None else 4)
        results.append(p)
    assert_same_bits(*results, "")


# ---- how many threads ------------------------------------------------------------------------------


def test_as_many_threads_as_pytorch_has() -> None:
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        assert TEAM.threads == TEAM.threads_for(1 << 30) == count
    with instep.num_threads(2):
        assert TEAM.threads == 2
    with instep.num_threads(7):
        assert TEAM.threads == 3
    assert TEAM.threads_for(1000) == 1


def test_one_thread_of_pytorch_makes_no_region() -> None:
    _core.testing.set_least_work(1)
    torch.set_num_threads(1)
    before = regions()
    stepped("adam", [100_000], TEAM)
    assert regions() == before


def test_small_steps_stay_on_the_calling_thread() -> None:
    before = regions()
    stepped("adam", [3_000], TEAM)
    assert regions() == before
    stepped("adam", [3_000_000], TEAM)
    assert regions() == before + 3


@needs_tasks
@pytest.mark.parametrize("imports", ["torch, instep", "instep, torch"])
def test_there_is_no_second_pool(imports: str) -> None:
    """Nor does a step with fewer threads than PyTorch's end some of them, so that PyTorch starts new ones."""
    code = (
        f"        import {imports}"
        + PROGRAM
        + """
        torch.set_num_threads(4)
        compute()
        before = tasks()
        host = Host(3_000_000)
        for allowed in (None, 2, 3, 1, None):
            with instep.num_threads(allowed):
                host.step()
            compute()
            assert tasks() == before, (allowed, before, tasks())
        print(regions(), team.threads)
    """
    )
    assert output(code) == "4 4"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_steps_on_one_of_them() -> None:
    code = (
        PROGRAM
        + """
        torch.set_num_threads(2)
        compute()
        host = Host(3_000_000)
        host.step()
        child = os.fork()
        before = regions()
        host.step()
        said = hash(host.arrays[0].numpy().tobytes())
        if child == 0:
            print("child", team.threads, regions() - before, said, flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print("parent", team.threads, regions() - before, said)
    """
    )
    quiet = {"PYTHONHASHSEED": "0", "PYTHONWARNINGS": "ignore::DeprecationWarning"}
    child, parent = sorted(line.split() for line in output(code, **quiet).splitlines())
    assert (child[:3], parent[:3]) == (["child", "1", "0"], ["parent", "2", "1"])
    assert child[3] == parent[3], "the same bits"


@pytest.mark.skipif(not GNUS, reason="calls GNU's runtime")
def test_a_step_inside_a_parallel_region_of_pytorchs_runtime() -> None:
    code = (
        PROGRAM
        + """
        import ctypes
        _core.testing.set_least_work(1)
        torch.set_num_threads(2)
        said = []
        @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        def region(_):
            Host(100_000).step()
            said.append(team.threads)
        gomp = ctypes.CDLL(team.library)
        gomp.omp_set_max_active_levels(3)
        gomp.GOMP_parallel(region, None, 2, 0)
        print(said, team.threads, regions())
    """
    )
    assert output(code) == "[1, 1] 2 0"


@pytest.mark.parametrize("variables", [{"OMP_THREAD_LIMIT": "2"}, {"OMP_DYNAMIC": "true"}], ids=str)
def test_fewer_threads_come_than_were_asked_for(variables: dict[str, str]) -> None:
    code = (
        PROGRAM
        + """
        _core.testing.set_least_work(1)
        torch.set_num_threads(4)
        shared, alone = Host(300_000), Host(300_000, None)
        for host in (shared, alone) * 3:
            host.step()
        assert torch.equal(shared.arrays[0], alone.arrays[0])
        print(regions())
    """
    )
    assert output(code, **variables) == "3"


def test_steps_from_several_threads() -> None:
    """Each has threads of PyTorch of its own, as PyTorch's own computations have."""
    code = (
        PROGRAM
        + """
        torch.set_num_threads(2)
        hosts = [Host(400_000) for _ in range(3)]
        def work(host):
            torch.get_num_threads()
            for _ in range(20):
                host.step()
        threads = [threading.Thread(target=work, args=[host]) for host in hosts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        alone = Host(400_000, None)
        work(alone)
        print([torch.equal(host.arrays[0], alone.arrays[0]) for host in hosts])
    """
    )
    assert output(code) == "[True, True, True]"


def test_the_interpreter_ends_while_a_daemon_thread_steps() -> None:
    code = (
        PROGRAM
        + """
        import time
        host = Host(3_000_000)
        def work():
            while True:
                host.step()
        threading.Thread(target=work, daemon=True).start()
        time.sleep(0.05)
        print("ends")
    """
    )
    assert output(code) == "ends"
