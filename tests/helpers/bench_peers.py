"""Steps of the benchmarks' contestants, in a process of their own, beside instep's."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from bench_folder import BENCH

from instep.commands.bench import workloads

STEP = """
import json, sys
sys.path.insert(0, {bench!r})
from package import workloads
from peers import PEERS
from task import Task
results = {{}}
for name, (peer, settings) in json.loads(sys.stdin.read()).items():
    task = Task(**settings)
    params, grads = (workloads.filled(task.shapes, task.numpy_dtype, seed) for seed in (0, 1))
    try:
        contestant = PEERS[peer].start(task, params)
    except ImportError as reason:
        results[name] = str(reason)
        continue
    step = contestant.call(grads)
    for _ in range(3):
        step()
    results[name] = [p.astype("float64").ravel().tolist() for p in contestant.params()]
print("RESULTS", json.dumps(results))
"""


def after_three_steps(asked: dict[str, tuple[str, Any]]) -> dict[str, Any]:
    """Parameters after three steps by each peer, or why it has none, from a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", STEP.format(bench=str(BENCH))],
        input=json.dumps({name: (peer, t.as_dict()) for name, (peer, t) in asked.items()}),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULTS "))
    results: dict[str, Any] = json.loads(line.removeprefix("RESULTS "))
    return results


def check_peers(package: str, asked: dict[str, tuple[str, Any, Any, float]]) -> None:
    """Each name's peer moves the parameters by its task as instep does by its own, within a tolerance."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    theirs = after_three_steps({name: (peer, t) for name, (peer, t, *_) in asked.items()})
    ours = after_three_steps({name: ("instep", own or t) for name, (_, t, own, _) in asked.items()})
    for name, (*_, tolerance) in asked.items():
        if isinstance(theirs[name], str):
            pytest.skip(f"{name} can't be imported: {theirs[name]}")
        for mine, its in zip(ours[name], theirs[name], strict=True):
            np.testing.assert_allclose(its, mine, rtol=0, atol=tolerance, err_msg=name)
            start = workloads.filled([(len(mine),)], "float32", 0)[0]
            assert not np.allclose(its, start, rtol=0, atol=1e-4), f"{name} has not moved"
