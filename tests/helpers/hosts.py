"""The parts that a host gives to `instep.Steps`: numbers of rules, and places with its own states."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import instep

ADAM = {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}

SGD = {"lr": 1.0, "momentum": 0.0, "dampening": 0.0}


def adam_place(steps: instep.Steps, place: int, w: Any, t: int = 0) -> dict[str, np.ndarray]:
    wide = np.float64 if w.dtype == np.float64 else np.float32
    states = {name: np.zeros(w.shape, wide) for name in ("exp_avg", "exp_avg_sq")}
    steps.bind(place, w, states=states, t=t)
    return states


class Hosted(NamedTuple):
    """What a host has of an optimizer that it has taken over."""

    steps: instep.Steps
    numbers: dict[str, Any]  # of its one group
    states: list[dict[str, np.ndarray]]
    averages: list[np.ndarray]
    copies: list[np.ndarray]


def hosted(optimizer: instep.Optimizer, average: bool = False, copy: Any = None) -> Hosted:
    """Steps over a new optimizer's own parameters, with its rule, options and numbers, and with states of their own."""
    rule = type(optimizer)
    settings = dict(optimizer.param_groups[0])
    steps = instep.Steps()
    steps.add_group(rule._rule, rule._options(settings))
    names = [*rule._core_hyperparameters, "clip_value", "weight_decay", "l1"]
    values = optimizer._hyperparameters_at(0)[0][0]
    numbers = {
        # A term of the gradient that is none, as the rule has it itself, comes later and is 0.
        name: None if np.isnan(value) else value
        for name, value in [*zip(names, values, strict=False)][::-1]
    }
    numbers["clip_value"] = settings["clip_value"] or np.inf
    numbers |= {name: settings[name] for name in ("maximize", "decoupled_l1")}
    found = Hosted(steps, numbers, [], [], [])
    steps.append(len(optimizer.params))
    for place, (name, w) in enumerate(optimizer.params.items()):
        wide = np.float64 if w.dtype == np.float64 else np.float32
        found.states.append({key: np.array(s) for key, s in optimizer.state[name].items()})
        more = {}
        if average:
            found.averages.append(w.astype(wide))
            more["average"] = found.averages[-1]
        if copy:
            found.copies.append(w.astype(copy))
            more["copy"] = found.copies[-1]
        steps.bind(place, w, states=found.states[-1], **more)
    return found
