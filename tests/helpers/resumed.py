"""All ways by which a run goes on in another optimizer."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

from instep import checkpoint

WAYS = ("state_dict", "checkpoint", "pickle", "deepcopy")


def resumed(way: str, optimizer: Any, fresh: Any, folder: Path) -> Any:
    """Return the optimizer with which the run goes on: `fresh`, which is made as the other was, or a copy."""
    if way == "pickle":
        return pickle.loads(pickle.dumps(optimizer))
    if way == "deepcopy":
        return copy.deepcopy(optimizer)
    if way == "state_dict":
        fresh.load_state_dict(optimizer.state_dict())
    else:
        checkpoint.save(folder / "run", optimizer)
        checkpoint.load(folder / "run", fresh)
    return fresh
