"""The cases of the digests (digests.py): formats, how they are rounded, and what surrounds a rule."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from bit_patterns import FORMATS
from kept import CODED

L2 = 0.05
LATE = 1000  # steps that parameters have had before, in the cases called late


def narrower(form: str) -> list[str]:
    """Formats whose elements take fewer bytes."""
    return [f for f in FORMATS if FORMATS[f].dtype.itemsize < FORMATS[form].dtype.itemsize]


FOR_EVERY_RULE = ("special", "late", "decoupled-l1", "everything", "everything-decoupled-l1")


def cases() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The parameters' format, the name and the settings of each case."""
    for form in FORMATS:
        compute = "float64" if form == "float64" else "float32"
        states = [compute, *narrower(compute)]
        for grad, state in itertools.product(FORMATS, states):
            first, last = (grad, state) == (form, compute), (grad, state) == ("float16", "bfloat16")
            rest = {} if first or last else {"thorough": 1}
            yield form, f"{grad}-{state}", {"grad": grad, "state": state, **rest}
        surroundings: dict[str, dict[str, Any]] = {
            "special": {"special": 1},
            "late": {"late": LATE},
            "scale": {"scale": 0.3},
            "clip-value": {"clip_value": 0.8},
            "maximize": {"maximize": 1},
            "l2": {"l2": L2},
            "l1": {"l1": 0.01},
            "norm": {"clip_norm": 1.5},
            "norm-above": {"clip_norm": 1e9},
            "norm-special": {"clip_norm": 1.5, "special": 1},
            "guarded": {"guarded": 1, "special": 1},
            "average": {"average": 0.9},
            "accumulate": {"accumulate": 2},
            "chunks": {"shapes": "chunks"},
            **{f"copy-{f}": {"copy": f} for f in narrower(form)},
        }
        every = {k: v for s in surroundings.values() for k, v in s.items()}
        for left_out in ("special", "guarded", "late"):
            del every[left_out]
        surroundings["everything"] = every | {"clip_norm": 1.5}
        del every["shapes"]
        surroundings["decoupled-l1"] = {"l1": 0.01, "decoupled_l1": 1}
        surroundings["everything-decoupled-l1"] = every | {"clip_norm": 1.5, "decoupled_l1": 1}
        # In the formats of a loop over the arrays themselves; the last, so that it moves no other's turn.
        replaced = {"average": 0.0, "special": 1, "grad": form, "state": compute}
        surroundings["replaced"] = replaced
        turn = itertools.cycle(itertools.product(FORMATS, states))
        for name, settings in surroundings.items():
            grad, state = next(turn)
            rest = {} if name in FOR_EVERY_RULE else {"thorough": 1}
            yield form, name, {"grad": grad, "state": state, **settings, **rest}
        # The loops of hot rules over arrays in place.
        within = {"l2": L2, "average": 0.9}
        for state, chosen in itertools.product(
            dict.fromkeys((compute, "bfloat16")), (["l2"], ["average"], ["l2", "average"])
        ):
            settings = {name: within[name] for name in chosen}
            name = "-".join(["in-place", state, *chosen])
            yield form, name, {"grad": form, "state": state, **settings, "thorough": 1}
        everything = surroundings["everything"]
        for seed, (name, storage) in enumerate(storages(form).items(), 1):
            settings = {"grad": form, "state": compute, "seed": seed, **storage}
            yield form, name, settings
            yield form, f"{name}-everything", {**settings, **everything, **storage, "thorough": 1}
            yield form, f"{name}-special", {**settings, "special": 1, "thorough": 1}


def storages(form: str) -> dict[str, dict[str, Any]]:
    """What is rounded at random, is in 8 bits, or has a remainder. Every rule runs what is not `thorough`.

    A case without `stochastic_states` and `stochastic_parameters` rounds to nearest.
    """
    states, rest = {"stochastic_states": 1}, {"thorough": 1}
    both = {**states, "stochastic_parameters": 1}
    if form == "float64":
        return {
            "random-float16": {"state": "float16", **states},
            "random-bfloat16": {"state": "bfloat16", **states, **rest},
        }
    here, other = ("float16", "bfloat16") if form == "float16" else ("bfloat16", "float16")
    found = {
        f"random-{here}": {"state": here, **both},
        f"random-{other}": {"state": other, **both, **rest},
        "codes": {"state": CODED, **states},
        "codes-nearest": {"state": CODED, **rest},
    }
    if form == "bfloat16":
        found["codes"] |= {"stochastic_parameters": 1, "master": 24}
        found["master-24"] = {"master": 24, **rest}
        found["master-24-random"] = {"state": here, "master": 24, **both, **rest}
        found["master-32"] = {"state": here, "master": 32, **states, **rest}
        found["codes-master-32"] = {"state": CODED, "master": 32, **states, **rest}
    return found
