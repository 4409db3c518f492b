"""The results that the core must give on every machine, as digests in tests/cpp/digests.txt, computed by reference.py.

    python tests/helpers/digests.py            writes the file anew
    python tests/helpers/digests.py --each     prints the digest of each case, to compare with tests/cpp's --each

The compiled core takes no part in this. tests/cpp reads the file on the machine for which it was built, runs the
cases and compares. Everything that defines a case is in the file, so that it is defined once, here:

- `number`: a hyperparameter; `rates`: the learning rate at each step, in turn
- `shape SET ...`: an array's shape, () for the one without axes; a set of them is an optimizer's parameters
- `case FORMAT NAME ...`: for parameters of that format, the formats of gradients, states and copies and what
  surrounds the rule
- `digest RULE FORMAT ...`: of all cases of that format, in turn, for the rule with those options

Inputs are bit patterns from splitmix64 (Steele, Lea, Flood 2014), made by integer operations alone, and a digest is a
sum of mixed 64-bit words, each of an element's bits and its place in C order. Neither depends on the byte order. All
NaNs count as the same NaN.

A digest must not depend on the C library either. Adam takes beta**t from it, and two libraries may round a power
differently if it lies close to the middle between two doubles. Such powers are refused here (check_power).
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from reference import RULES, Reference, compute_type, load

FILE = Path(__file__).parents[1] / "cpp" / "digests.txt"
MASK = 2**64 - 1

# ---- inputs and digests -------------------------------------------------------------------------------------------


def mix(z: Any) -> Any:
    """The finaliser of splitmix64, on an array of uint64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def words(seed: int, count: int) -> np.ndarray:
    """The first numbers of splitmix64 with this seed."""
    counter = np.arange(1, count + 1, dtype=np.uint64)
    return mix(counter * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed))


def fold(state: int, value: int) -> int:
    """Add a number to a running digest."""
    return int(mix(words(state, 1) ^ np.uint64(value))[0])


def fold_array(state: int, array: np.ndarray) -> int:
    """Add an array to a running digest: every element's bits and its place, with the same bits for every NaN."""
    bits = array.ravel().view(f"u{array.itemsize}").astype(np.uint64)
    bits[np.isnan(array.ravel())] = MASK
    total = np.add.reduce(mix(words(0, bits.size) ^ bits), dtype=np.uint64)
    return fold(fold(state, bits.size), int(total))


class Format(NamedTuple):
    dtype: Any
    exponent_bits: int
    fraction_bits: int


FORMATS = {
    "float64": Format(np.dtype("float64"), 11, 52),
    "float32": Format(np.dtype("float32"), 8, 23),
    "float16": Format(np.dtype("float16"), 5, 10),
    "bfloat16": Format(np.dtype(ml_dtypes.bfloat16), 8, 7),
}
PARAMETERS, GRADIENTS = 0, 1  # step k's gradients are 1 + k


@cache
def numbers(form: str, shape: tuple[int, ...], special: bool, *place: int) -> np.ndarray:
    """Numbers of both signs, from 2**-6 to 4; with `special`, also zeros, subnormals, huge numbers, infinities, NaN.

    Each of these kinds is a sixteenth of the elements, with infinities and NaN as one kind.
    """
    seed = 0
    for part in place:
        seed = fold(seed, part)
    _, exponent_bits, fraction_bits = FORMATS[form]
    count = int(np.prod(shape, dtype=int))
    r = words(seed, count)
    fraction = r & np.uint64(2**fraction_bits - 1)
    low = np.uint64(2 ** (exponent_bits - 1) - 1 - 6)
    exponent = (r >> np.uint64(52) & np.uint64(7)) + low
    if special:
        largest = np.uint64(2**exponent_bits - 1)
        kind = r >> np.uint64(55) & np.uint64(15)
        exponent[kind == 0] = fraction[kind == 0] = 0
        exponent[kind == 1] = 0
        exponent[kind == 2] = largest - np.uint64(1)
        exponent[kind == 3] = largest
        fraction[(kind == 3) & (r >> np.uint64(59) & np.uint64(1) == 0)] = 0
    sign = r >> np.uint64(63)
    bits = ((sign << np.uint64(exponent_bits)) | exponent) << np.uint64(fraction_bits) | fraction
    dtype = FORMATS[form].dtype
    return bits.astype(f"u{dtype.itemsize}").view(dtype).reshape(shape)


# ---- what the file says -------------------------------------------------------------------------------------------

NUMBERS = {"momentum": 0.7, "dampening": 0.25, "alpha": 0.9, "beta1": 0.9, "beta2": 0.93}
NUMBERS |= {"eps": 1e-3, "weight_decay": 0.05}
BETAS = (NUMBERS["beta1"], NUMBERS["beta2"])
RATES = (0.03, 0.05, 0.02)
LATE = 1000  # steps that parameters have had before, in the cases called late

# Around a vector, a block and a chunk, and shapes for which the layouts of tests/cpp differ.
SHAPES = {
    "few": [(), (0,), (1,), (3,), (5, 7), (11, 3, 4), (4, 9), (259,), (517,)],
    "chunks": [(16_384 + 19,), (129, 131), (33,)],
}

MOMENTUM = NUMBERS["momentum"]


class Family(NamedTuple):
    """A rule of the core, with the public rule that it is without options."""

    rule: str
    # Each option of the core, in its order, and its counterpart in the reference: a number or True for an option of
    # that name, or the name of another public rule.
    switches: dict[str, Any] = {}  # noqa: RUF012 - never changed
    needed: str | None = None  # the option that every other option needs


FAMILIES = {
    "sgd": Family(
        "SGD", {"momentum": MOMENTUM, "nesterov": True, "lr_in_velocity": True}, "momentum"
    ),
    "rmsprop": Family("RMSprop", {"centered": True, "momentum": MOMENTUM, "eps_inside_sqrt": True}),
    "adam": Family("Adam", {"amsgrad": True, "decoupled_decay": "AdamW"}),
}
# Numbers that turn something on, or concern the gradient: a rule has them only in their turn.
SWITCHES = {name for family in FAMILIES.values() for name in family.switches} | {"weight_decay"}


def variants() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every rule of the core with each choice of options: its name, the reference's rule and options."""
    for family, (rule, switches, needed) in FAMILIES.items():
        for on in itertools.product([False, True], repeat=len(switches)):
            chosen = {name: switches[name] for name in itertools.compress(switches, on)}
            if needed and chosen and needed not in chosen:
                continue
            options = {name: value for name, value in chosen.items() if value not in RULES}
            renamed = [value for value in chosen.values() if value in RULES]
            yield "+".join([family, *chosen]), (renamed or [rule])[0], options


def narrower(form: str) -> list[str]:
    """Formats whose elements take fewer bytes."""
    return [f for f in FORMATS if FORMATS[f].dtype.itemsize < FORMATS[form].dtype.itemsize]


def cases() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The parameters' format, the name and the settings of each case."""
    for form in FORMATS:
        compute = "float64" if form == "float64" else "float32"
        states = [compute, *narrower(compute)]
        for grad, state in itertools.product(FORMATS, states):
            yield form, f"{grad}-{state}", {"grad": grad, "state": state}
        surroundings: dict[str, dict[str, Any]] = {
            "special": {"special": 1},
            "late": {"late": LATE},
            "scale": {"scale": 0.3},
            "clip-value": {"clip_value": 0.8},
            "maximize": {"maximize": 1},
            "l2": {"l2": NUMBERS["weight_decay"]},
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
        # In the formats of a loop over the arrays themselves; the last, so that it moves no other's turn.
        replaced = {"average": 0.0, "special": 1, "grad": form, "state": compute}
        surroundings["replaced"] = replaced
        turn = itertools.cycle(itertools.product(FORMATS, states))
        for name, settings in surroundings.items():
            grad, state = next(turn)
            yield form, name, {"grad": grad, "state": state, **settings}


# ---- the reference over a case ------------------------------------------------------------------------------------


@cache
def check_power(t: int) -> None:
    """Refuse powers too close to the middle between two doubles for all C libraries to agree."""
    for beta in BETAS:
        distance = abs(Fraction(beta) ** t - Fraction(beta**t))
        if distance > Fraction(4, 10) * Fraction(float(np.spacing(beta**t))):
            raise SystemExit(f"{beta!r}**{t} is too near a tie: take another beta")


def make(rule: str, options: dict[str, Any], form: str, case: dict[str, Any]) -> Reference:
    """The rule with these options, over the case's parameters and with the terms of the case."""
    known = RULES[rule].defaults
    settings = {n: x for n, x in NUMBERS.items() if n in known and n not in SWITCHES}
    settings |= {name: case[name] for name in ("clip_value", "maximize", "l1") if name in case}
    if "betas" in known:
        settings["betas"] = BETAS
    if RULES[rule].decoupled:
        settings["weight_decay"] = NUMBERS["weight_decay"]
    elif "l2" in case:
        settings["weight_decay"] = case["l2"]
    special = bool(case.get("special"))
    shapes = SHAPES[case.get("shapes", "few")]
    reference = Reference(
        rule,
        {str(i): numbers(form, shape, special, PARAMETERS, i) for i, shape in enumerate(shapes)},
        lr=lambda step: RATES[step],
        state_dtype=FORMATS[case["state"]].dtype,
        clip_norm=case.get("clip_norm"),
        ema_decay=case.get("average"),
        copy_dtype=FORMATS[case["copy"]].dtype if "copy" in case else None,
        **settings,
        **options,
    )
    reference.steps = dict.fromkeys(reference.steps, case.get("late", 0))
    return reference


def gradients(case: dict[str, Any], turn: int, special: bool) -> dict[str, np.ndarray | None]:
    """All gradients but one, another at each step: the counts of steps differ, and the norm's order has a gap."""
    shapes = SHAPES[case.get("shapes", "few")]
    return {
        str(i): None
        if (i + turn) % len(shapes) == 1
        else numbers(case["grad"], shape, special, GRADIENTS + turn, i)
        for i, shape in enumerate(shapes)
    }


def run(rule: str, options: dict[str, Any], form: str, case: dict[str, Any]) -> int:
    """Return the digest of the case: of the norm of each step, and of all arrays after the last step."""
    reference = make(rule, options, form, case)
    T = compute_type(FORMATS[form].dtype)
    batches = case.get("accumulate", 0) + 1
    digest = 0
    for step in range(len(RATES)):
        special = bool(case.get("special")) and step != 1
        for batch in range(batches - 1):
            reference.accumulate(gradients(case, step * batches + batch, special))
        grads = gradients(case, step * batches + batches - 1, special)
        if case.get("guarded"):
            with np.errstate(all="ignore"):
                given = [load(g, T) for g in grads.values() if g is not None]
                if not all(np.isfinite(g).all() for g in given):
                    continue
        reference.step(grads, case.get("scale", 1.0))
        if "betas" in RULES[rule].defaults:
            for t in filter(None, reference.steps.values()):
                check_power(t)
        if reference.grad_norm is not None:
            digest = fold_array(digest, np.array([reference.grad_norm]))
    for name, param in reference.params.items():
        digest = fold_array(digest, param)
        for values in reference.state[name].values():
            digest = fold_array(digest, values)
        for others in (reference.averages, reference.copies):
            if others:
                digest = fold_array(digest, others[name])
    return digest


# ---- the file -----------------------------------------------------------------------------------------------------


def digests(each: bool = False) -> Iterator[str]:
    """The lines of the file or, with `each`, the digest of each case."""
    for (name, rule, options), form in itertools.product(variants(), FORMATS):
        digest = 0
        for case_form, case_name, case in cases():
            if case_form != form:
                continue
            found = run(rule, options, form, case)
            digest = fold(digest, found)
            if each:
                yield f"{name} {form} {case_name} {found:016x}"
        if not each:
            yield f"digest {name} {form} {digest:016x}"


def lines() -> Iterator[str]:
    """Return the whole file, line by line."""
    yield "# Made by tests/helpers/digests.py, which says what this is, from reference.py beside it."
    for name, value in NUMBERS.items():
        yield f"number {name} {value!r}"
    yield "rates " + " ".join(map(repr, RATES))
    for name, shapes in SHAPES.items():
        for shape in shapes:
            yield " ".join(["shape", name, *map(str, shape)])
    for form, name, case in cases():
        yield " ".join(["case", form, name, *(f"{k}={v}" for k, v in case.items())])
    yield from digests()


def main() -> int:
    """Write the file, or print the digests of the cases."""
    parser = argparse.ArgumentParser(
        description="Digests of what the core must compute, from the reference."
    )
    parser.add_argument(
        "--each", action="store_true", help="print each case's digest and write nothing"
    )
    if parser.parse_args().each:
        print("\n".join(digests(each=True)))
    else:
        FILE.write_text("\n".join(lines()) + "\n", encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
