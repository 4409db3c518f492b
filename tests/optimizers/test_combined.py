"""Combined: the bits of several optimizers with one norm, in every format, at every level and number of threads."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16, CHUNK, DTYPES, FEW, LEVELS, THREADS, labels, numbers, rng_for, use_level
from combined_reference import CombinedReference, assert_combined_follows, made
from formulas import RULES
from norms import norm
from reference import Reference, assert_same_bits

import instep

SHAPES: list[Any] = [(3, 5), (), (0, 4), (CHUNK + 7,), (171, 130)]


def params(dtype: Any, *key: object) -> dict[str, np.ndarray]:
    rng = rng_for("start", dtype, *key)
    return {f"{'.'.join(map(str, key))}{k}": numbers(rng, s, dtype) for k, s in enumerate(SHAPES)}


def gradients(reference: CombinedReference, *key: object, scale: float = 1.0) -> list[Any]:
    """For each optimizer of some gradients, some of them of another format than the parameter, or absent."""
    rng = rng_for("gradients", *key)
    return [
        {
            name: None
            if rng.random() < 0.2
            else numbers(rng, p.shape, "f8" if p.dtype == np.float64 else "f4") * scale
            for name, p in own.params.items()
        }
        for own in reference.references
    ]


def in_one(grads: list[Any]) -> dict[str, Any]:
    return {name: g for own in grads for name, g in own.items()}


PAIRS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "momentum-adamw": [("Momentum", {"lr": 0.1, "nesterov": True}), ("AdamW", {"lr": 0.02})],
    "lamb-adam": [
        ("LAMB", {"lr": 0.03, "weight_decay": 0.1, "clip_value": 0.5}),
        ("Adam", {"lr": lambda t: 0.1 / (1 + t), "amsgrad": True, "l1": 0.01}),
    ],
    "asgd-sgd-lars": [
        ("ASGD", {"lr": 0.05, "t0": 1.0}),
        ("SGD", {"lr": 0.5, "ema_decay": 0.75}),
        ("LARS", {"lr": 0.1, "maximize": True}),
    ],
}
LIMITS: list[dict[str, Any]] = [
    {},
    {"clip_norm": 0.25},
    {"clip_norm": math.inf},
    {"clip_norm": lambda t: 0.5 / (1 + t), "nonfinite": "skip"},
]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=labels)
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.usefixtures("eager_threads")
def test_bits(pair: str, dtype: Any, level: str) -> None:
    """Of steps with gradients given by name, by container, accumulated, and not finite."""
    use_level(level)
    other = np.dtype("f8") if dtype != np.float64 else BFLOAT16
    for turn, limits in enumerate(LIMITS):
        instep.set_num_threads(THREADS[turn])
        members = [
            (rule, params(other if k == 1 else dtype, pair, k), options)
            for k, (rule, options) in enumerate(PAIRS[pair])
        ]
        combined, reference = made(members, **limits)
        for step in range(5):
            what = f"limits {turn}, step {step}"
            grads = gradients(reference, pair, step)
            if step == 2:
                combined.accumulate(grads)
                reference.accumulate(grads)
                combined.accumulate(in_one(gradients(reference, pair, "more")))
                reference.accumulate(gradients(reference, pair, "more"))
                combined.step(grad_scale=0.5)
                reference.step(None, 0.5)
            else:
                if step == 4:
                    grads[1][f"{pair}.13"] = np.full(CHUNK + 7, np.inf)
                combined.step(in_one(grads) if step % 2 else grads)
                reference.step(grads)
            assert_combined_follows(combined, reference, what)


@pytest.mark.parametrize("variant", FEW, ids=repr)
def test_every_rule_beside_another(variant: Any) -> None:
    """A rule's own sums stay within its optimizer; the norm goes over both."""
    options = {**variant.options}
    shape = (8, 5) if RULES[variant.rule.__name__].matrices else 40
    start = {"a": numbers(rng_for(1), (9, 7), "f4"), "b": numbers(rng_for(2), shape, "f4")}
    beside = {"c": numbers(rng_for(3), 50, "f8")}
    combined, reference = made(
        [(variant.rule.__name__, start, options), ("Adam", beside, {"lr": 0.1})], clip_norm=0.5
    )
    for step in range(3):
        grads = gradients(reference, "every", step)
        combined.step(in_one(grads))
        reference.step(grads)
        assert_combined_follows(combined, reference, f"step {step}")


def test_one_optimizer_alone_has_the_bits_of_its_own() -> None:
    start = params("f4", "alone")
    combined, reference = made([("Adam", start, {})], clip_norm=0.5)
    own = Reference("Adam", start, clip_norm=0.5)
    for step in range(3):
        (grads,) = gradients(reference, step)
        combined.step(grads)
        own.step(grads)
        for name, p in combined.params.items():
            assert_same_bits(p, own.params[name], name)
        assert combined.grad_norm == own.grad_norm


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.usefixtures("eager_threads")
def test_the_norm_is_that_of_all_gradients_in_order(level: str) -> None:
    """Chunks of one optimizer after those of the other; an absent gradient leaves no gap."""
    use_level(level)
    sizes = [[CHUNK * 3 + 5, 7], [CHUNK, 2 * CHUNK + 1, 100]]
    rng = np.random.default_rng(5)
    for threads in THREADS:
        instep.set_num_threads(threads)
        optimizers = [instep.SGD([np.zeros(n, "f4") for n in own]) for own in sizes]
        combined = instep.Combined(*optimizers, clip_norm=math.inf)
        backwards = instep.Combined(*optimizers[::-1], clip_norm=math.inf)
        for absent in (None, (0, 1), (1, 0)):
            grads = [
                [
                    None if (k, i) == absent else rng.standard_normal(n, "f4")
                    for i, n in enumerate(own)
                ]
                for k, own in enumerate(sizes)
            ]
            flat = [g for own in grads for g in own if g is not None]
            combined.step(grads)
            assert combined.grad_norm == norm(flat)
            backwards.step(grads[::-1])
            flat = [g for own in grads[::-1] for g in own if g is not None]
            assert backwards.grad_norm == norm(flat)


@pytest.mark.parametrize("exponent", [1020, 514, 505, -485, -530, -1030])
@pytest.mark.parametrize("limit", [None, 0.5, math.inf])
def test_squares_that_overflow_or_vanish(exponent: int, limit: float | None) -> None:
    """In the gradients of one optimizer, beside ordinary ones or nearly none of the other."""
    start = [{"a": np.ones(CHUNK + 3), "b": np.ones(3, "f4")}, {"c": np.ones(5)}]
    nonfinite = "propagate" if limit else "skip"
    for far in (0, 1):
        combined, reference = made(
            [("Adam", start[0], {}), ("SGD", start[1], {"lr": 0.1})],
            clip_norm=limit and math.ldexp(limit, max(exponent, -1070)),
            nonfinite=nonfinite,
        )
        for step in range(3):
            grads = gradients(reference, exponent, step)
            for name, g in grads[far].items():
                if g is not None and g.dtype == np.float64:
                    grads[far][name] = np.ldexp(g, exponent)
            if exponent < 0:
                for name, g in grads[1 - far].items():
                    grads[1 - far][name] = g if g is None else g * 0
                grads[0]["b"] = None
            combined.step(grads, grad_scale=0.5)
            reference.step(grads, 0.5)
            assert_combined_follows(combined, reference, f"{far}, step {step}")


@pytest.mark.parametrize("bad", [np.inf, np.nan])
@pytest.mark.parametrize("where", [0, 1])
def test_guards(where: int, bad: float) -> None:
    """A gradient that isn't finite in one optimizer leaves all as they are."""
    start = [{"a": np.ones(4, "f4")}, {"b": np.ones(3)}]
    combined, reference = made([("Adam", start[0], {}), ("Momentum", start[1], {})])
    for nonfinite in ("propagate", "skip", "raise"):
        combined.nonfinite = reference.nonfinite = nonfinite  # type: ignore[assignment]
        grads: list[Any] = [{"a": np.ones(4)}, {"b": np.ones(3)}]
        combined.accumulate(grads)
        reference.accumulate(grads)
        if nonfinite != "propagate":
            grads[where] = {
                name: np.where(np.arange(g.size) == 1, bad, g) for name, g in grads[where].items()
            }
        if nonfinite == "raise":
            (name,) = grads[where]
            message = rf"^optimizers\[{where}\]: the gradient of '{name}' must be finite in its parameter's"
            with pytest.raises(FloatingPointError, match=message):
                combined.step(grads)
            with pytest.raises(FloatingPointError):
                reference.step(grads)
        else:
            combined.step(grads)
            reference.step(grads)
        assert_combined_follows(combined, reference, nonfinite)
    assert (combined.step_count, combined.skipped_steps) == (1, 1)
    assert [o.step_count for o in combined.optimizers] == [1, 1]
    assert [o.skipped_steps for o in combined.optimizers] == [0, 0]
    assert combined.accumulated.keys() == {"a", "b"}  # as before the refused step
    combined.discard_accumulated()
    assert not combined.accumulated


def test_a_limit_is_scheduled_by_the_combined_and_the_rest_by_each() -> None:
    seen: list[tuple[str, int]] = []

    def noting(name: str, value: float) -> Any:
        return lambda step: (seen.append((name, step)), value)[1]

    first = instep.SGD([np.ones(2)], lr=noting("first", 0.5))
    second = instep.SGD([np.ones(2)], lr=noting("second", 0.25))
    first.step([np.ones(2)])
    seen.clear()
    combined = instep.Combined(first, second, clip_norm=noting("limit", 1.0))
    grads = [[np.ones(2)], [np.ones(2)]]
    combined.step(grads)
    second.step([np.ones(2)])
    combined.step(grads)
    assert seen == [
        *[("limit", 0), ("first", 1), ("second", 0), ("second", 1)],
        *[("limit", 1), ("first", 2), ("second", 2)],
    ]
    combined.clip_norm = 3.0
    assert combined.clip_norm == 3.0
    combined.step(grads)
    assert combined.grad_norm == 2.0
    combined.clip_norm = None
    combined.step(grads)
    assert combined.grad_norm is None


def test_long_steps_release_the_interpreter() -> None:
    """With everything pinned, on several threads: the same bits."""
    rng = np.random.default_rng(3)
    start = [{"a": numbers(rng, 3_000_001, "f4")}, {"b": numbers(rng, (999, 1001), "f8")}]
    combined, reference = made([("Momentum", start[0], {}), ("Adam", start[1], {})], clip_norm=1.0)
    for _ in range(2):
        grads = [{"a": numbers(rng, 3_000_001, "f4")}, {"b": numbers(rng, (999, 1001), "f8")}]
        combined.step(in_one(grads))
        reference.step(grads)
        assert_combined_follows(combined, reference)


def test_none_for_an_optimizer_and_steps_of_its_own() -> None:
    """None: none of its parameters has a gradient; the step counts."""
    start = [{"a": np.ones(4, "f4")}, {"b": np.ones(3)}]
    combined, reference = made([("Adam", start[0], {}), ("Momentum", start[1], {})])
    combined.step(({"a": np.ones(4)}, None))
    reference.step([{"a": np.ones(4)}, {"b": None}])
    assert_combined_follows(combined, reference)
    own, its_reference = combined.optimizers[1], reference.references[1]
    own.step({"b": np.ones(3)})
    its_reference.step({"b": np.ones(3)})
    combined.step({"a": None, "b": np.ones(3)})
    reference.step([{"a": None}, {"b": np.ones(3)}])
    assert_combined_follows(combined, reference)
    assert [o.step_count for o in combined.optimizers] == [2, 3]


def test_members_may_have_groups_and_get_more() -> None:
    a, b, c = np.ones(2), np.ones(3), np.ones(4)
    first = instep.SGD({"a": a}, lr=0.5)
    combined = instep.Combined(first, instep.SGD([{"params": {"b": b}}], lr=0.5))
    combined.step({"a": np.ones(2), "b": np.ones(3)})
    first.add_param_group({"params": {"c": c}, "lr": 0.25})
    assert list(combined.params) == ["a", "c", "b"]
    combined.step({"a": np.ones(2), "b": np.ones(3), "c": np.ones(4)})
    combined.step([[None, {"c": np.ones(4)}], [None]])
    assert (a[0], b[0], c[0]) == (0.0, 0.0, 0.5)


def test_the_references_differ_from_steps_apart() -> None:
    """Or these tests would show nothing: with one norm for each, other bits."""
    start = [{"a": np.full(4, 2.0)}, {"b": np.full(3, 2.0)}]
    _, reference = made([("SGD", s, {"lr": 0.1}) for s in start], clip_norm=1.0)
    apart = [Reference("SGD", s, lr=0.1, clip_norm=1.0) for s in start]
    grads: list[Any] = [{"a": np.full(4, 3.0)}, {"b": np.full(3, 4.0)}]
    reference.step(grads)
    for own, one, g in zip(reference.references, apart, grads, strict=True):
        one.step(g)
        (name,) = g
        assert not np.array_equal(own.params[name], one.params[name])
