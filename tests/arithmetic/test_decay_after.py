"""Weight decay after the rule (`decay_after` in `Steps`): the bits of NumPy for every rule that takes it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cases import (
    BFLOAT16,
    DTYPES,
    LARGE_SIZES,
    LEVELS,
    OPTIMIZERS,
    SMALL_SIZES,
    THREADS,
    VARIANTS,
    Guarded,
    Variant,
    labels,
    numbers,
    use_level,
)
from formulas import RULES
from hosts import hosted
from reference import Reference, assert_same_bits

import instep
from instep import _core

STEPS = 4
DECAY = {"weight_decay": 0.05}


def takes_it(variant: Variant) -> bool:
    of_rule = RULES[variant.rule.__name__]
    return variant.rule is not instep.Rprop and of_rule.has_l2(SimpleNamespace(**variant.options))


# Of each rule the plain one and the one with the most on.
TAKEN = [
    v for v in VARIANTS if takes_it(v) and v.label.endswith((v.rule.__name__, "terms", "decoupled"))
]
SIZED = [
    (variant, dtype, LEVELS[(k + n) % len(LEVELS)])
    for k, variant in enumerate(TAKEN)
    for n, dtype in enumerate(DTYPES)
] + [(v, d, level) for v in TAKEN if v.label == "Adam" for d in DTYPES for level in LEVELS]
THREADED = [
    (variant, DTYPES[k % len(DTYPES)], threads)
    for k, variant in enumerate(TAKEN)
    for threads in THREADS[k % 2 :: 2]
]


def decayed_after(variant: Variant, params: dict[str, np.ndarray], **more: Any) -> Reference:
    """The reference, with the line of weight decay after the rule's in place of the term of the gradient."""
    options = {**variant.options, **DECAY}
    reference = Reference(variant.rule.__name__, params, **options, **more)
    rule = reference.rule

    def update(p: Any, g: Any, s: Any, h: Any, t: int, T: Any) -> Any:
        p = rule.update(p, g, s, h, t, T)
        return p if h.rate is None else p * T(1 - h.rate * h.weight_decay)

    reference.rule = rule._replace(update=update, decoupled=True)
    return reference


def assert_bits(
    variant: Variant, sizes: list[int], dtype: Any, *, average: bool, copy: Any
) -> None:
    rng = np.random.default_rng(3)
    start = {f"size {n}": numbers(rng, n, dtype) for n in sizes}
    more: dict[str, Any] = {"ema_decay": 0.9} if average else {}
    guarded = Guarded()
    params = {name: guarded.put(p, offset=i % 5) for i, (name, p) in enumerate(start.items())}
    optimizer = variant.make(params, **DECAY)
    reference = decayed_after(variant, start, copy_dtype=copy, **more)
    host = hosted(optimizer, average=average, copy=copy)
    host.numbers["decay_after"] = True
    for _ in range(STEPS):
        grads = {name: numbers(rng, p.size, dtype) for name, p in start.items()}
        reference.step(grads)
        host.steps.step(list(grads.values()), [host.numbers], clip_norm=None, **more)
    for i, (name, p) in enumerate(params.items()):
        assert_same_bits(p, reference.params[name], name)
        for key, state in host.states[i].items():
            assert_same_bits(state, reference.state[name][key], f"{key} of {name}")
        if average:
            assert_same_bits(host.averages[i], reference.averages[name], f"average of {name}")
        if copy:
            assert_same_bits(host.copies[i], reference.copies[name], f"copy of {name}")
    guarded.check()


@pytest.mark.parametrize(("variant", "dtype", "level"), SIZED, ids=labels)
def test_every_size_at_every_level(variant: Variant, dtype: Any, level: str) -> None:
    use_level(level)
    assert_bits(variant, SMALL_SIZES, dtype, average=False, copy=None)
    assert _core.level() == level


@pytest.mark.parametrize(("variant", "dtype", "threads"), THREADED, ids=labels)
@pytest.mark.usefixtures("eager_threads")
def test_every_thread_count(variant: Variant, dtype: Any, threads: int) -> None:
    """With an average and a copy, which come after the decay."""
    instep.set_num_threads(threads)
    copy = BFLOAT16 if dtype.itemsize > 2 else None
    averaged = RULES[variant.rule.__name__].average is None
    assert_bits(variant, LARGE_SIZES, dtype, average=averaged, copy=copy)


def host_of(rule: str, dtype: Any = np.float64) -> tuple[instep.Steps, np.ndarray, dict[str, Any]]:
    optimizer = getattr(instep, rule)(np.ones(3, dtype))
    host = hosted(optimizer)
    return host.steps, optimizer.params["0"], host.numbers


def test_the_lines_by_hand() -> None:
    """The decay is after the rule and before decoupled L1; a decay of 0 leaves its line out."""
    steps, w, sgd = host_of("SGD")
    g = np.array([1.0, -1.0, 0.0])
    sgd |= {"lr": 0.5, "weight_decay": 0.5, "decay_after": True}
    steps.step([g], [sgd])
    assert w.tolist() == [0.5 * 0.75, 1.5 * 0.75, 0.75]
    w[:] = 1
    steps.step([g], [{**sgd, "l1": 0.25, "decoupled_l1": True}])
    assert w.tolist() == [0.5 * 0.75 - 0.125, 1.5 * 0.75 - 0.125, 0.75 - 0.125]
    w[:] = 1
    steps.step([g], [{**sgd, "l1": 0.25}])
    assert w.tolist() == [(0.5 - 0.125) * 0.75, (1.5 - 0.125) * 0.75, (1 - 0.125) * 0.75]
    w[:] = np.nan
    w[2] = 1
    steps.step([g], [{**sgd, "weight_decay": 0.0}])
    assert w[2] == 1
    w[:] = 1
    steps.step([g], [{**sgd, "decay_after": False}])
    assert w.tolist() == [1 - 0.5 * 1.5, 1 - 0.5 * -0.5, 1 - 0.5 * 0.5], "a term of the gradient"


def test_the_factor_is_rounded_once() -> None:
    once, twice = np.float32(1 - 0.3 * 0.7), np.float32(1) - np.float32(0.3) * np.float32(0.7)
    assert once != twice
    steps, w, sgd = host_of("SGD", np.float32)
    steps.step([np.zeros(3)], [{**sgd, "lr": 0.3, "weight_decay": 0.7, "decay_after": True}])
    assert w.tolist() == [once] * 3


REFUSED = {
    rule.__name__: "no step of Rprop has the length lr"
    if rule is instep.Rprop
    else "weight_decay is part of the rule"
    for rule in OPTIMIZERS
    if rule is instep.Rprop or RULES[rule.__name__].decoupled
}


@pytest.mark.parametrize("rule", REFUSED)
def test_rules_that_refuse_it(rule: str) -> None:
    steps, w, numbers_of_rule = host_of(rule)
    message = f"decay_after of group 0 must be False, got True, since {REFUSED[rule]}"
    with pytest.raises(ValueError, match=message):
        steps.step([np.ones(3)], [{**numbers_of_rule, "decay_after": True}])
    with pytest.raises(TypeError, match="decay_after of group 0 must be True or False, got 1"):
        steps.step([np.ones(3)], [{**numbers_of_rule, "decay_after": 1}])
    assert w.tolist() == [1.0] * 3
    steps.step([np.ones(3)], [{**numbers_of_rule, "decay_after": False}])


def test_a_decoupled_decay_of_the_rule_is_one_of_its_own() -> None:
    host = hosted(instep.SGD(np.ones(3), decoupled_weight_decay=True))
    with pytest.raises(ValueError, match="since weight_decay is part of the rule"):
        host.steps.step([np.ones(3)], [{**host.numbers, "decay_after": True}])


def test_an_optimizer_has_no_such_option() -> None:
    with pytest.raises(TypeError, match="decay_after"):
        instep.SGD(np.ones(2), decay_after=True)  # type: ignore[call-arg]
