"""The same short runs one after another, in threads, in processes and by joblib: the results agree to the bit."""

from __future__ import annotations

import hashlib
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np

import instep

Run = Callable[[float], str]


def digest(opt: instep.Optimizer) -> str:
    return hashlib.sha256(b"".join(w.tobytes() for w in opt.params.values())).hexdigest()


def trained(lr: float) -> str:
    """Fit a plane with that learning rate, and return a digest of the weights."""
    rng = np.random.default_rng(9)
    x, w = rng.standard_normal((1000, 50)), np.zeros(50)
    y = x @ np.arange(50.0)
    opt = instep.SGD(w, lr=lr, momentum=0.9)
    for _ in range(100):
        opt.step(x.T @ (x @ w - y) / len(x))
    return digest(opt)


def step_once(opt: instep.Adam) -> instep.Adam:
    """Take a step in another process, on the copy that came there, and send this back."""
    opt.step({name: np.ones_like(w) for name, w in opt.params.items()})
    return opt


def main() -> None:
    rates = [0.001, 0.003, 0.01, 0.03]
    expected = [trained(lr) for lr in rates]
    with ThreadPoolExecutor(2) as pool:
        print("threads:", list(pool.map(trained, rates)) == expected)
    opt = instep.Adam({"w": np.arange(5.0), "b": np.zeros(2)}, lr=0.1)
    for _ in range(3):
        step_once(opt)
    with multiprocessing.get_context("spawn").Pool(2) as processes:
        print("processes:", processes.map(trained, rates) == expected)
        gone_on = processes.apply(step_once, (opt,))
    again = pickle.loads(pickle.dumps(opt))
    print("one process's copy:", opt.step_count, gone_on.step_count)
    print("goes on alike:", digest(step_once(again)) == digest(gone_on) != digest(opt))
    by_joblib = joblib.Parallel(n_jobs=2)(joblib.delayed(trained)(lr) for lr in rates)
    print("joblib:", by_joblib == expected)


if __name__ == "__main__":
    main()
