"""Ways to store states and parameters that are measured: what they change in a task of float32."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from task import Task


class Stored(NamedTuple):
    title: str
    changes: dict[str, Any]  # of Task

    def of(self, task: Task) -> Task:
        return replace(task, **self.changes)


FORMATS = {
    "float32": Stored("float32", {}),
    "bfloat16-states": Stored("float32, bfloat16 states", {"state_dtype": "bfloat16"}),
    "float16-states": Stored("float32, float16 states", {"state_dtype": "float16"}),
    "8bit": Stored("float32, 8-bit states", {"state_dtype": "8bit"}),
    "bfloat16-remainder-8bit": Stored(
        "bfloat16 with a remainder of 8 bits, 8-bit states",
        {"dtype": "bfloat16", "state_dtype": "8bit", "settings": {"master_bits": 24}},
    ),
    "bfloat16-wide-remainder-8bit": Stored(
        "bfloat16 with a remainder of 16 bits, 8-bit states",
        {"dtype": "bfloat16", "state_dtype": "8bit", "settings": {"master_bits": 32}},
    ),
    "bfloat16-stochastic-8bit": Stored(
        "bfloat16 rounded stochastically, 8-bit states",
        {"dtype": "bfloat16", "state_dtype": "8bit", "settings": {"param_rounding": "stochastic"}},
    ),
}
# On GPT-2's tensors: the ways that a large model is stored in.
OF_LARGE = ("8bit", "bfloat16-remainder-8bit", "bfloat16-stochastic-8bit", "bfloat16-states")
THREADS = (2, 16)
