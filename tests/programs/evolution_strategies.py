"""Evolution strategies: the gradient of a reward is estimated from perturbations in pairs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import instep
from instep import schedules

Floats = npt.NDArray[np.float64]

PAIRS, SIGMA, SECONDS = 20, 0.1, 40


def reward(policy: Floats, start: Floats) -> float:
    """Return minus the mean distance of a cart that is pushed left or right with full force, by a linear policy."""
    position, speed = start
    distance = 0.0
    for _ in range(SECONDS):
        push = np.sign(policy @ [position, speed, 1.0])
        speed += 0.1 * push
        position += 0.1 * speed
        distance += abs(position)
    return -distance / SECONDS


def estimated_gradient(rng: np.random.Generator, policy: Floats) -> Floats:
    start = rng.uniform(-1.0, 1.0, 2)
    noise = rng.standard_normal((PAIRS, len(policy)))
    differences = [
        reward(policy + SIGMA * e, start) - reward(policy - SIGMA * e, start) for e in noise
    ]
    gradient: Floats = np.array(differences) @ noise / (2 * SIGMA * PAIRS)
    return gradient


def mean_reward(policy: Floats) -> float:
    starts = np.random.default_rng(4).uniform(-1.0, 1.0, (50, 2))
    return float(np.mean([reward(policy, start) for start in starts]))


def main() -> None:
    rng = np.random.default_rng(3)
    policy = 0.1 * rng.standard_normal(3)
    print("reward before:", mean_reward(policy))
    lr = schedules.Linear(0.1, 0.01, steps=60)
    opt = instep.Momentum(policy, lr=lr, momentum=0.8, maximize=True, clip_norm=1.0)
    for _ in range(60):
        opt.step(estimated_gradient(rng, policy))
    print("reward after:", mean_reward(policy))
    print("steps:", opt.step_count)


if __name__ == "__main__":
    main()
