"""A recommender: a row of numbers for each user and for each item; a step changes the rows of its batch alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import instep
from instep.typing import Array

Floats = npt.NDArray[np.float32]

USERS, ITEMS, WIDTH = 60, 40, 4


def ratings(rng: np.random.Generator) -> tuple[npt.NDArray[np.intp], Floats]:
    """Return pairs of a user and an item, in no order, and what the user thinks of the item."""
    taste = rng.standard_normal((USERS, 2), np.float32)
    kind = rng.standard_normal((ITEMS, 2), np.float32)
    pairs = np.argwhere(rng.random((USERS, ITEMS)) < 0.5)
    rng.shuffle(pairs)
    noise = 0.1 * rng.standard_normal(len(pairs), np.float32)
    return pairs, (taste[pairs[:, 0]] * kind[pairs[:, 1]]).sum(axis=1) + noise


def rows_or_none(table: Floats, used: npt.NDArray[np.intp], grads: Floats) -> list[Array | None]:
    """Return a gradient for each row of the table that is used, and None for the others."""
    total = np.zeros_like(table)
    np.add.at(total, used, grads)
    wanted = set(used.tolist())
    return [row if k in wanted else None for k, row in enumerate(total)]


def main() -> None:
    rng = np.random.default_rng(5)
    pairs, known = ratings(rng)
    seen, rest = slice(len(pairs) // 4, None), slice(len(pairs) // 4)
    users = 0.3 * rng.standard_normal((USERS, WIDTH), np.float32)
    items = 0.3 * rng.standard_normal((ITEMS, WIDTH), np.float32)

    def error(which: slice) -> float:
        told = (users[pairs[which, 0]] * items[pairs[which, 1]]).sum(axis=1)
        return float(np.sqrt(np.mean((told - known[which]) ** 2)))

    # A parameter for each row: a row without a gradient keeps its values, its moments and its own count of steps.
    opt = instep.Adam({"users": list(users), "items": list(items)}, lr=0.02, weight_decay=0.01)
    print("error before:", error(rest))
    untouched = users.copy()
    for _ in range(12):
        for batch in np.array_split(np.arange(len(pairs))[seen], 60):
            user, item = pairs[batch].T
            off = (users[user] * items[item]).sum(axis=1, keepdims=True) - known[batch, None]
            grads = {
                "users": rows_or_none(users, user, off * items[item]),
                "items": rows_or_none(items, item, off * users[user]),
            }
            opt.step(grads)
            if opt.step_count == 1:
                print(
                    "rows of the first batch:", np.count_nonzero((users != untouched).any(axis=1))
                )
                print("users in it:", len(set(user.tolist())))
    print("error after:", error(rest))
    steps = opt.state_dict()["steps"]
    print("steps of the rows:", min(steps.values()), max(steps.values()), opt.step_count)


if __name__ == "__main__":
    main()
