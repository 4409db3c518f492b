"""The results that the core must give on every machine, as digests in tests/cpp/digests.txt, computed by reference.py.

    python tests/helpers/digests.py            writes the file anew
    python tests/helpers/digests.py --each     prints the digest of each case, to compare with tests/cpp's --each

The compiled core takes no part in this. tests/cpp reads the file on the machine for which it was built, runs the
cases and compares. Everything that defines a case is in the file, so that it is defined once, here:

- `number`: a hyperparameter; `rates`: the learning rate at each step, in turn
- `shape SET ...`: an array's shape, () for the one without axes; a set of them is an optimizer's parameters. Rules of
  matrices have the set `matrices` in every case, and no products (ns_steps is 0), whose bits depend on the library
- `case FORMAT NAME ...`: for parameters of that format, the formats of gradients, states and copies, how these are
  rounded, and what surrounds the rule. A parameter's place in its set is its place in the random numbers. States that
  the format of the case can't hold stay in the compute type; float16 holds the root where a rule says so
- `digest RULE FORMAT ...`: of all cases of that format, in turn, for the rule with those options. Without the word
  `thorough` at its end, cases with `thorough=1` are left out: only the rules whose loops the core has in more forms run
  them

A digest must not depend on the C library. Rules take powers such as beta**t from it, and two libraries may round a
power differently if it lies close to the middle between two doubles. Such powers are refused here (check_power).
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from decimal import Context, Decimal, localcontext
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from bit_patterns import FORMATS, fold, fold_array, numbers
from digest_cases import CODED, L2, cases
from reference import RULES, Reference, compute_type, load

FILE = Path(__file__).parents[1] / "cpp" / "digests.txt"

# ---- what the file says -------------------------------------------------------------------------------------------

# The core's hyperparameters, except lr. ADOPT's limits, and the ends of Rprop's steps, are reached.
NUMBERS = {"momentum": 0.7, "dampening": 0.25, "alpha": 0.9, "rho": 0.85, "lr_decay": 0.3}
NUMBERS |= {"beta1": 0.9, "beta2": 0.93, "beta3": 0.975, "eps": 1e-3, "clip_exponent": 0.6}
NUMBERS |= {"initial_square_avg": 0.5, "initial_accumulator_value": 0.2, "beta": 0.7}
NUMBERS |= {"eta1": 0.6, "eta2": 1.3, "step_size1": 0.01, "step_size2": 0.04}
NUMBERS |= {"weight_decay": L2, "l1": 0.3}
NUMBERS |= {"clip_update": 0.7, "momentum_decay": 0.055, "lambd": 0.65, "t0": 1.0, "r": 0.7}
NUMBERS |= {"weight_lr_power": 1.2, "trust_clip": 0.9, "trust_coefficient": 0.3}
NUMBERS |= {"d0": 0.3, "d_coef": 1.3, "growth_rate": 1.5}
NUMBERS |= {"ns_steps": 0} | {f"ns_coefficient{k}": 1.0 for k in (1, 2, 3)}
# What a number of the reference is while the option of its name is off.
OFF = {"momentum": 0.0, "momentum_decay": None, "clip_update": None, "trust_ratio": False}
OFF |= {"nesterov": False}
RATES = (0.03, 0.05, 0.02)
PARAMETERS, GRADIENTS = 0, 1  # seeds; step k's gradients are 1 + k

# Around a vector, a block and a chunk, and shapes for which the layouts of tests/cpp differ.
SHAPES = {
    "few": [(), (0,), (1,), (3,), (5, 7), (11, 3, 4), (4, 9), (259,), (517,)],
    "chunks": [(16_384 + 19,), (129, 131), (33,)],
    "matrices": [(5, 7), (9, 4), (0, 3), (1, 259), (131, 129)],
}


class Family(NamedTuple):
    """A rule of the core, with the public rule that it is without options."""

    rule: str
    # Each option of the core, in its order, and its counterpart in the reference: options, or the name of another
    # public rule.
    switches: dict[str, Any] = {}  # noqa: RUF012 - never changed
    needed: dict[str, str] = {}  # noqa: RUF012 - option -> the option that it needs
    # Choices of options that run every case: the ones whose loops the core has in more forms. Other choices run the
    # cases that depend on the formula.
    thorough: tuple[str, ...] = ()


def on(option: str) -> dict[str, bool]:
    return {option: True}


def numbered(option: str) -> dict[str, float]:
    return {option: NUMBERS[option]}


MOMENTUM = numbered("momentum")
DECAY = {"decoupled_decay": on("decoupled_weight_decay")}
FAMILIES = {
    "sgd": Family(
        "SGD",
        {"momentum": MOMENTUM, "nesterov": on("nesterov"), "lr_in_velocity": on("lr_in_velocity")}
        | DECAY,
        {"nesterov": "momentum", "lr_in_velocity": "momentum"},
        ("sgd", "sgd+momentum"),
    ),
    "rmsprop": Family(
        "RMSprop",
        {"centered": on("centered"), "momentum": MOMENTUM, "eps_inside_sqrt": on("eps_inside_sqrt")}
        | {"lr_in_velocity": on("lr_in_velocity")}
        | DECAY,
        {"lr_in_velocity": "momentum"},
        ("rmsprop",),
    ),
    "adam": Family(
        "Adam",
        {"amsgrad": on("amsgrad"), "decoupled_decay": "AdamW", "eps_hat": on("eps_hat")}
        | {"clip_update": numbered("clip_update")},
        thorough=("adam", "adam+decoupled_decay", "adam+amsgrad+decoupled_decay+clip_update"),
    ),
    "adamax": Family("Adamax"),
    "radam": Family("RAdam", DECAY),
    "adabelief": Family("AdaBelief", DECAY),
    "yogi": Family("Yogi"),
    "adopt": Family("ADOPT", DECAY),
    "ademamix": Family("AdEMAMix"),
    "adan": Family("Adan"),
    "lion": Family("Lion"),
    "signum": Family("Signum", {"momentum": MOMENTUM}),
    "adagrad": Family("Adagrad", {"eps_inside_sqrt": on("eps_inside_sqrt")}),
    "adadelta": Family("Adadelta"),
    "rprop": Family("Rprop"),
    "ftrl": Family("FTRL"),
    "nadam": Family("NAdam", {"momentum_decay": numbered("momentum_decay")} | DECAY),
    "asgd": Family("ASGD"),
    "schedule_free_sgd": Family("ScheduleFreeSGD"),
    "schedule_free_adamw": Family("ScheduleFreeAdamW"),
    "lamb": Family("LAMB", {"trust_ratio": on("trust_ratio")}, thorough=("lamb+trust_ratio",)),
    "lars": Family(
        "LARS",
        {"momentum": MOMENTUM, "nesterov": on("nesterov"), "trust_ratio": on("trust_ratio")},
        {"nesterov": "momentum"},
        ("lars+momentum+trust_ratio",),
    ),
    "prodigy": Family(
        "Prodigy",
        {name: on(name) for name in ("use_bias_correction", "safeguard_warmup")},
        thorough=("prodigy",),
    ),
    "muon": Family("Muon", {"nesterov": on("nesterov"), "adjust_lr": {"adjust_lr": "original"}}),
}


class Choice(NamedTuple):
    """A rule of the core with a choice of its options."""

    name: str
    rule: str  # the reference's
    options: dict[str, Any]
    thorough: bool  # whether it runs every case


def choices() -> Iterator[Choice]:
    """Every rule of the core with each choice of options."""
    for family, (rule, switches, needed, thorough) in FAMILIES.items():
        for chosen_ones in itertools.product([False, True], repeat=len(switches)):
            chosen = dict(itertools.compress(switches.items(), chosen_ones))
            if any(needed.get(option, option) not in chosen for option in chosen):
                continue
            renamed = [value for value in chosen.values() if isinstance(value, str)]
            given = {name: value for name, value in OFF.items() if name in switches}
            for value in chosen.values():
                given |= value if isinstance(value, dict) else {}
            name = "+".join([family, *chosen])
            yield Choice(name, (renamed or [rule])[0], given, name in thorough)


# ---- the reference over a case ------------------------------------------------------------------------------------


@cache
def check_power(base: float, exponent: float) -> None:
    """Refuse powers too close to the middle between two doubles for all C libraries to agree."""
    with localcontext(Context(prec=80)):
        distance = abs(Decimal(base) ** Decimal(exponent) - Decimal(base**exponent))
        if distance > Decimal("0.4") * Decimal(float(np.spacing(base**exponent))):
            raise SystemExit(f"{base!r}**{exponent!r} is too near a tie: take another number")


def check_powers(rule: str, t: int) -> None:
    """Refuse the powers that a rule takes at a parameter's step t, or at step t of all, if they are such."""
    for k, _ in enumerate(RULES[rule].defaults.get("betas", ())):
        check_power(NUMBERS[f"beta{k + 1}"], t)
    known = RULES[rule].defaults
    if "clip_exponent" in known and t > 1:
        check_power(float(t - 1), NUMBERS["clip_exponent"])
    if "momentum_decay" in known:
        for step in (t, t + 1):
            check_power(0.96, step * NUMBERS["momentum_decay"])
    for rate in RATES:
        if "lambd" in known:
            check_power(1 + NUMBERS["lambd"] * rate * t, NUMBERS["alpha"])
        if "weight_lr_power" in known:
            check_power(float(t), NUMBERS["r"])
            check_power(rate, NUMBERS["weight_lr_power"])


def number(name: str, default: Any) -> Any:
    """A hyperparameter of the reference, from the core's numbers: betas are beta1 and beta2."""
    if isinstance(default, tuple):
        return tuple(NUMBERS[f"{name[:-1]}{k + 1}"] for k in range(len(default)))
    return NUMBERS.get(name, default)


def shapes_of(rule: str, case: dict[str, Any]) -> list[tuple[int, ...]]:
    """The shapes of a case's parameters."""
    return SHAPES["matrices" if RULES[rule].matrices else case.get("shapes", "few")]


def make(rule: str, options: dict[str, Any], form: str, case: dict[str, Any]) -> Reference:
    """The rule with these options, over the case's parameters and with the terms of the case."""
    described = RULES[rule]
    settings = {name: number(name, default) for name, default in described.defaults.items()}
    settings |= {"weight_decay": case.get("l2", 0.0), "l1": case.get("l1", 0.0)} | options
    settings |= {name: case[name] for name in ("clip_value", "maximize") if name in case}
    settings["decoupled_l1"] = bool(case.get("decoupled_l1"))
    # Numbers of the rule itself are there in every case.
    if not described.has_l2(SimpleNamespace(**settings)):
        settings["weight_decay"] = NUMBERS["weight_decay"]
    if described.own_l1:
        settings["l1"] = NUMBERS["l1"]
    special = bool(case.get("special"))
    shapes = shapes_of(rule, case)
    reference = Reference(
        rule,
        {str(i): numbers(form, shape, special, PARAMETERS, i) for i, shape in enumerate(shapes)},
        **storage_of(case),
        clip_norm=case.get("clip_norm"),
        ema_decay=case.get("average"),
        copy_dtype=FORMATS[case["copy"]].dtype if "copy" in case else None,
        **settings | {"lr": lambda step: RATES[step]},
    )
    reference.steps = dict.fromkeys(reference.steps, case.get("late", 0))
    return reference


def storage_of(case: dict[str, Any]) -> dict[str, Any]:
    """The formats of a case, and how they are rounded."""
    state = case["state"]
    rounding = {True: "stochastic", False: "nearest"}
    return {
        "state_dtype": state if state == CODED else FORMATS[state].dtype,
        "rounding": rounding["stochastic_states" in case],
        "param_rounding": rounding["stochastic_parameters" in case],
        "seed": case.get("seed", 0),
        "master_bits": case.get("master"),
        "min_8bit_size": 0,
    }


def gradients(
    rule: str, case: dict[str, Any], turn: int, special: bool
) -> dict[str, np.ndarray | None]:
    """All gradients but one, another at each step: the counts of steps differ, and the norm's order has a gap."""
    shapes = shapes_of(rule, case)
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
            reference.accumulate(gradients(rule, case, step * batches + batch, special))
        grads = gradients(rule, case, step * batches + batches - 1, special)
        if case.get("guarded"):
            with np.errstate(all="ignore"):
                given = [load(g, T) for g in grads.values() if g is not None]
                if not all(np.isfinite(g).all() for g in given):
                    continue
        reference.step(grads, case.get("scale", 1.0))
        for t in filter(None, {*reference.steps.values(), reference.step_count}):
            check_powers(rule, t)
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
    for (name, rule, options, thorough), form in itertools.product(choices(), FORMATS):
        digest = 0
        for case_form, case_name, case in cases():
            if case_form != form or (case.get("thorough") and not thorough):
                continue
            found = run(rule, options, form, case)
            digest = fold(digest, found)
            if each:
                yield f"{name} {form} {case_name} {found:016x}"
        if not each:
            yield f"digest {name} {form} {digest:016x}" + (" thorough" if thorough else "")


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
