"""The process of one contestant: prepares what it is told to and takes its turns; harness.py is at the other end.

    python bench/worker.py PEER

Each line of input is a request in JSON, each line of output its answer.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

import numpy as np

import programs
from package import module, turns, workloads
from peers import PEERS, Peer
from task import LAYERS, NO_STEP, Task, side_by_side


def step_call(peer: Peer, task: Task) -> Callable[[], object]:
    """The step over the workload's arrays."""
    if not peer.needs_arrays:
        return peer.start(task, []).call([])
    params, grads = (workloads.filled(task.shapes, task.numpy_dtype, seed) for seed in (0, 1))
    if task.side_by_side:
        params, grads = side_by_side(params), side_by_side(grads)
    return peer.start(task, params).call(grads)


def loop_call(peer: Peer | None, task: Task) -> Callable[[], object]:
    """An iteration of a training loop in NumPy: forward, backward, step."""
    assert task.batch is not None
    rng = np.random.default_rng(0)
    network = module("commands.demo.mlp").MLP(LAYERS, rng)
    images = rng.standard_normal((task.batch, LAYERS[0]), dtype=np.float32)
    labels = rng.integers(0, LAYERS[-1], task.batch)
    if peer is None:
        return lambda: network.loss_and_gradients(images, labels)
    contestant = peer.start(task, list(network.params.values()))
    names = list(network.params)

    def iteration() -> None:
        _, grads = network.loss_and_gradients(images, labels)
        contestant.call([grads[name] for name in names])()

    return iteration


def call_of(name: str, task: Task) -> tuple[Callable[[], object], dict[str, str]]:
    """What a contestant is measured by, and the versions to name."""
    if task.program:
        return programs.call(name, task), programs.versions(name)
    if name == NO_STEP:
        return loop_call(None, task), {}
    peer = PEERS[name]
    return (loop_call if task.batch else step_call)(peer, task), peer.versions()


def serve(name: str, requests: TextIO, answers: TextIO) -> None:
    turn: Callable[[float], float] | None = None
    for line in requests:
        request = json.loads(line)
        answer: dict[str, Any] = {}
        try:
            if request["do"] == "forget":
                turn = None
                gc.collect()
            elif request["do"] == "prepare":
                task = Task(**request["task"])
                if task.keeps_freed_memory:
                    turns.keep_freed_memory()
                call, versions = call_of(name, task)
                call()  # a first step allocates, and some compile
                turn = turns.turn_of(call)
                del call  # "forget" is to free its arrays
                answer["versions"] = versions
            elif request["do"] == "turn":
                assert turn is not None
                answer["time"] = turn(request["seconds"])
        except Exception as error:
            text = str(error).strip().splitlines()
            answer["error"] = f"{type(error).__name__}: {text[0] if text else ''}"
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    # Answers go out on a descriptor of their own: some peers print, and what they print must not be taken for one.
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.argv[1], sys.stdin, own)
