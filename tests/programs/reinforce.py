"""REINFORCE in a corridor, saved as it goes: killed at any moment and started again, it ends in the same bits.

`python reinforce.py FILE [EPISODE]` goes on from the file, if there is one, and kills itself in that episode.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

import instep
from instep import checkpoint, schedules

Floats = npt.NDArray[np.float64]

CELLS, EPISODES = 6, 300


def chances(logits: Floats) -> Floats:
    odds = np.exp(logits - logits.max())
    shares: Floats = odds / odds.sum()
    return shares


def episode(rng: np.random.Generator, policy: Floats) -> tuple[list[tuple[int, int]], float]:
    """Walk left (0) or right (1) from the first cell to the last; return the moves and the reward."""
    cell = 0
    moves: list[tuple[int, int]] = []
    while cell < CELLS - 1 and len(moves) < 40:
        move = int(rng.random() < chances(policy[cell])[1])
        moves.append((cell, move))
        cell = max(cell + 2 * move - 1, 0)
    return moves, -float(len(moves))


def main(path: Path, killed_in: int | None) -> None:
    rng = np.random.default_rng(6)
    policy, mean = np.zeros((CELLS, 2)), np.full(1, -40.0)
    opt = instep.Adam({"policy": policy, "mean": mean}, lr=schedules.Linear(0.1, 0.0, EPISODES))
    first = 0
    if path.exists():
        extra = checkpoint.load(path, opt)
        first, rng.bit_generator.state = extra["episode"], extra["rng"]
        print("goes on with episode:", first)
    for k in range(first, EPISODES):
        if k % 25 == 0:
            checkpoint.save(path, opt, extra={"episode": k, "rng": rng.bit_generator.state})
        moves, reward = episode(rng, policy)
        gradient = np.zeros_like(policy)
        for cell, move in moves:
            gradient[cell] += (np.eye(2)[move] - chances(policy[cell])) * (mean[0] - reward)
        if k == killed_in:
            os.kill(os.getpid(), signal.SIGKILL)
        opt.step({"policy": gradient, "mean": 2 * (mean - reward)})
    lengths = [len(episode(rng, policy)[0]) for _ in range(100)]
    print("mean length:", np.mean(lengths), "of at least", CELLS - 1)
    print("bits:", hashlib.sha256(policy.tobytes() + mean.tobytes()).hexdigest())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else None)
