"""How each state of each rule may be stored: the contract's table, independent of the core's."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    signed: bool = True  # else it is never negative
    eight_bits: bool = True  # else "8bit" leaves it in T
    # "any" dtype, "bfloat16" alone, "none"; or "iterate": state_dtype leaves it in T, and it can't be named there
    narrow: str = "any"
    root: bool = False  # float16 stores the square root
    in_16_bits: str = "chosen"  # how it is rounded there; or always "nearest" or "stochastic"


SIGNED = Kind()
MAGNITUDE = Kind(signed=False)
SQUARE = Kind(signed=False, root=True)
LARGEST = Kind(signed=False, eight_bits=False, root=True, in_16_bits="nearest")
ITERATE = Kind(eight_bits=False, narrow="iterate")
WIDE = Kind(eight_bits=False)

_BUFFER = {"momentum_buffer": SIGNED}
_MEANS = {"exp_avg": SIGNED, "exp_avg_sq": SQUARE}

#: By rule, the states in the order of their numbers, whether a choice of options has them or not.
KINDS: dict[str, dict[str, Kind]] = {
    **dict.fromkeys(("SGD", "Momentum", "Signum", "LARS", "Muon"), _BUFFER),
    "RMSprop": {
        "square_avg": SQUARE,
        "grad_avg": Kind(eight_bits=False, narrow="none"),  # of centered, which narrows no state
        "momentum_buffer": SIGNED,
    },
    **dict.fromkeys(("Adam", "AdamW"), _MEANS | {"max_exp_avg_sq": LARGEST}),
    **dict.fromkeys(("NAdam", "RAdam", "Yogi", "ADOPT", "LAMB"), _MEANS),
    "AdaBelief": {"exp_avg": SIGNED, "exp_avg_var": SQUARE},
    "Adamax": {"exp_avg": SIGNED, "exp_inf": MAGNITUDE},
    "AdEMAMix": {"exp_avg_fast": SIGNED, "exp_avg_slow": WIDE, "exp_avg_sq": SQUARE},
    "Adan": {
        "exp_avg": SIGNED,
        "exp_avg_diff": SIGNED,
        "exp_avg_sq": SQUARE,
        "previous_grad": SIGNED,
    },
    "Lion": {"exp_avg": SIGNED},
    "Adagrad": {"sum": Kind(signed=False, eight_bits=False, root=True, in_16_bits="stochastic")},
    "Adadelta": {"square_avg": SQUARE, "acc_delta": SQUARE},
    "Rprop": {
        "prev": Kind(eight_bits=False, narrow="bfloat16"),
        "step_size": Kind(signed=False, eight_bits=False, narrow="bfloat16"),
    },
    "ASGD": {"ax": ITERATE},
    "FTRL": {"accumulator": ITERATE._replace(signed=False), "linear": ITERATE},
    "ScheduleFreeSGD": {"z": ITERATE},
    "ScheduleFreeAdamW": {"z": ITERATE, "exp_avg_sq": SQUARE},
    "Prodigy": {
        "exp_avg": Kind(narrow="bfloat16"),
        "exp_avg_sq": Kind(signed=False, narrow="bfloat16"),
        "s": Kind(eight_bits=False, narrow="bfloat16"),
        "p0": ITERATE,
    },
}
