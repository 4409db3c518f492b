"""optax on JAX's arrays, compiled as one function that may overwrite parameters and state."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import numpy as np
import optax

from peers import Arrays
from peers.rules_of_optax import OPTAX
from task import Task

# Where there is a GPU, it would step there, and the others here.
jax.config.update("jax_platforms", "cpu")


def versions() -> dict[str, str]:
    return {"JAX": jax.__version__, "optax": optax.__version__}


class Optax:
    def __init__(self, task: Task, params: Arrays) -> None:
        if task.dtype == "float64":
            jax.config.update("jax_enable_x64", True)
        transform = OPTAX[task.rule](optax, **task.hyperparameters)

        @partial(jax.jit, donate_argnums=(0, 1))
        def update(params, state, grads):  # type: ignore[no-untyped-def]
            changes, state = transform.update(grads, state, params)
            return optax.apply_updates(params, changes), state

        self._update = update
        self._values = [jax.numpy.array(p) for p in params]
        # Copies: a state that is the parameters themselves (Prodigy's) would be donated twice.
        self._state = jax.tree.map(jax.numpy.array, transform.init(self._values))

    def call(self, grads: Arrays) -> Callable[[], object]:
        return partial(self._step, [jax.numpy.asarray(g) for g in grads])

    def _step(self, grads: list[jax.Array]) -> None:
        self._values, self._state = self._update(self._values, self._state, grads)
        jax.block_until_ready(self._values)

    def params(self) -> list[np.ndarray]:
        return [np.asarray(value) for value in self._values]
