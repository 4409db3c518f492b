"""8-bit states, random rounding and remainders on ranks: the bits, the files and the words of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import (
    BFLOAT16,
    CHUNK,
    DTYPES,
    FEW,
    LEVELS,
    Variant,
    numbers,
    rng_for,
    use_level,
)
from formulas import RULES
from one_process import Model, Step, Turn, assert_alike, check, together
from storage_cases import BY_LABEL, Stored, pairs

import instep
from instep import checkpoint, schedules
from instep.mpi import CommunicationError, Distributed
from instep.storage import bytes_per_parameter, convert

#: Of a stretch at the end of some, fewer elements are left than min_8bit_size, or than a block of codes.
SHAPES: dict[str, Any] = {
    "a": (CHUNK + 9,),
    "b": (3, 5),
    "c": (),
    "d": (0, 3),
    "e": (2, CHUNK),
    "f": (4095,),
    "g": (3 * CHUNK + 65,),
}
MATRICES: dict[str, Any] = {"a": (60, 70), "b": (7, 16), "c": (0, 4), "d": (9, 1)}
CODES = {"state_dtype": "8bit"}


def gradients(shapes: Any, step: int, rank: int) -> dict[str, Any]:
    """Of all dtypes; some are absent."""
    rng = rng_for("gradients", step, rank)
    return {
        name: None if rng.random() < 0.2 else numbers(rng, shape, DTYPES[rng.integers(4)])
        for name, shape in shapes.items()
    }


def kept(variant: Variant, stored: Stored, start: int) -> tuple[Any, dict[str, Any]]:
    """Steps of three ranks with parameters of one dtype, kept as the table says."""
    options = stored.of(variant)
    matrices = RULES[variant.rule.__name__].matrices
    shapes = MATRICES if matrices else SHAPES
    extras = {} if matrices or RULES[variant.rule.__name__].average else {"ema_decay": 0.9}

    def model() -> Model:
        rng = rng_for(variant.label, stored.label)
        params = {name: numbers(rng, shape, stored.dtype) for name, shape in shapes.items()}
        return Model(lambda given: variant.make(given, **extras, **options or {}), params)

    steps = [
        Step([Turn((), gradients(shapes, start + k, rank)) for rank in range(3)], 0.5)
        for k in range(2)
    ]
    return model, {"size": 3, "steps": steps}


PAIRS = pairs(8, instep.AdamW, instep.Prodigy, instep.LAMB)


@pytest.mark.parametrize(("variant", "stored"), PAIRS, ids=str)
def test_the_bits_of_one_process(variant: Variant, stored: Stored) -> None:
    model, given = kept(variant, stored, len(stored.label))
    check(given["size"], model, given["steps"], shard=True)


@pytest.mark.parametrize("label", ["codes", "master-24-codes", "master-32-mixed"])
@pytest.mark.parametrize("shard", [True, False])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_bits_on_any_number_of_ranks(size: int, shard: bool, label: str) -> None:
    adam = next(v for v in FEW if v.rule is instep.AdamW)
    model, given = kept(adam, BY_LABEL[label], size)
    steps = [step._replace(turns=[*step.turns, *[Turn()] * size][:size]) for step in given["steps"]]
    check(size, model, steps, shard=shard)


@pytest.mark.usefixtures("eager_threads")
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "label", ["codes", "bfloat16", "float16", "bfloat16-bfloat16", "master-24-random"]
)
def test_the_bits_on_any_level(label: str, level: str) -> None:
    """A level's loops for these formats count from a stretch's own place, too."""
    use_level(level)
    for rule in (instep.Adam, instep.SGD, instep.LAMB):
        variant = Variant(rule, {"momentum": 0.9} if rule is instep.SGD else {}, rule.__name__)
        options: dict[str, Any] = BY_LABEL[label].of(variant) or {}

        def model() -> Model:
            params = large(BY_LABEL[label].dtype)
            return Model(lambda given: variant.make(given, **options), params)  # noqa: B023

        steps = [Step([Turn((), own_gradients("", k, rank)) for rank in range(3)]) for k in (1, 2)]
        check(3, model, steps, shard=True)


def large(dtype: Any = np.float32) -> dict[str, np.ndarray]:
    rng = rng_for("large")
    return {n: numbers(rng, s, dtype) for n, s in (("w", (3 * CHUNK + 70,)), ("b", (5,)))}


def test_the_least_size_of_states_in_8_bits_is_of_the_whole_parameter() -> None:
    def each(comm: Any) -> list[Any]:
        params = {"w": np.ones(CHUNK + 9, np.float32), "b": np.ones(4095, np.float32)}
        optimizer = Distributed(instep.Adam, params, comm=comm, shard=True, **CODES)
        return [(str(a.dtype), a.size) for own in optimizer.state.values() for a in own.values()]

    codes = [("int8", "float32"), ("uint8", "float32")]
    found = together(2, each)
    for rank, (elements, blocks) in enumerate([(CHUNK, CHUNK // 64), (9, 1)]):
        own = [pair for kind in codes for pair in zip(kind, (elements, blocks), strict=True)]
        assert found[rank][:4] == own
        assert {dtype for dtype, _ in found[rank][4:]} == {"float32"}


MAKERS: dict[str, Any] = {
    "codes": lambda p: instep.AdamW(p, lr=0.1, ema_decay=0.9, **CODES, seed=5),
    "mixed": lambda p: instep.NAdam(
        p,
        lr=schedules.Linear(0.1, 0.0, steps=9),
        state_dtype={"exp_avg": "8bit", "exp_avg_sq": np.float16},
        min_8bit_size=1,
    ),
    "master": lambda p: instep.LAMB(p, lr=0.1, master_bits=24, param_rounding="stochastic"),
    "all": lambda p: instep.Prodigy(p, **CODES, master_bits=32),
    "combined": lambda p: instep.Combined(
        instep.SGD({"w": p["w"]}, lr=0.1, momentum=0.9, **CODES, master_bits=24),
        instep.Adam({"b": p["b"]}, lr=0.1, state_dtype="bfloat16", seed=2**64 - 1),
        clip_norm=1.0,
    ),
}


def own_gradients(name: str, step: int, rank: int) -> Any:
    rng = rng_for("own", step, rank)
    found = {n: rng.standard_normal(p.shape).astype("f4") for n, p in large().items()}
    return [{"w": found["w"]}, {"b": found["b"]}] if name == "combined" else found


def step_alone(name: str, optimizer: Any, first: int, count: int) -> None:
    for step in range(first, first + count):
        for rank in range(2):
            optimizer.accumulate(own_gradients(name, step, rank))
        optimizer.step(grad_scale=0.5)


@pytest.mark.parametrize("name", MAKERS)
def test_a_checkpoint_fits_any_number_of_ranks(name: str, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    path = tmp_path / "run.safetensors"

    def on_ranks(size: int, first: int, count: int, **how: Any) -> None:
        def each(comm: Any) -> None:
            params = large(BFLOAT16)
            optimizer = Distributed(MAKERS[name], params, comm=comm, shard=size != 2)
            if first > 0:
                optimizer.load(path, **how)
            for step in range(first, first + count):
                own = own_gradients(name, step, comm.rank) if comm.rank < 2 else None
                optimizer.step(own, grad_scale=0.5)
            optimizer.save(path)

        together(size, each)

    on_ranks(3, 0, 2)
    on_ranks(2, 2, 1, via="root")
    plain = MAKERS[name](large(BFLOAT16))
    checkpoint.load(path, plain)
    step_alone(name, plain, 3, 1)
    checkpoint.save(path, plain)
    on_ranks(5, 4, 1, via="each")
    expected = MAKERS[name](large(BFLOAT16))
    step_alone(name, expected, 0, 5)
    checkpoint.save(tmp_path / "plain.safetensors", expected)
    assert path.read_bytes() == (tmp_path / "plain.safetensors").read_bytes()


@pytest.mark.parametrize("how", ["auto", "root", "state_dict"])
def test_remainders_that_are_not_stored_become_zero(how: Any, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    params = large(BFLOAT16)
    plain = instep.Adam(params, lr=0.1)
    plain.step(own_gradients("", 0, 0))
    checkpoint.save(tmp_path / "run", plain)
    state, loaded = plain.state_dict(), {name: array.copy() for name, array in params.items()}
    finer = instep.Adam(params, lr=0.1, master_bits=24)
    finer.load_state_dict(state)
    finer.step(own_gradients("", 1, 0))

    def each(comm: Any) -> Any:
        own = large(BFLOAT16)
        optimizer = Distributed(instep.Adam, own, comm=comm, lr=0.1, master_bits=24, shard=True)
        optimizer.step(own_gradients("", 7, 0))
        if how == "state_dict":
            optimizer.load_state_dict(state)
            for name, array in own.items():
                array[...] = loaded[name]
        else:
            optimizer.load(tmp_path / "run", via=how)
        optimizer.step(own_gradients("", 1, 0) if comm.rank == 0 else None)
        return {name: array.tobytes() for name, array in own.items()}

    assert together(3, each) == [{name: array.tobytes() for name, array in params.items()}] * 3


def test_remainders_are_reset_on_all_ranks_together() -> None:
    def each(comm: Any) -> Any:
        own = large(BFLOAT16)

        def both(p: Any) -> Any:
            more: dict[str, Any] = {"lr": 0.01, "master_bits": 32}
            return instep.Combined(
                instep.SGD({"w": p["w"]}, **more), instep.Lion({"b": p["b"]}, **more)
            )

        optimizer: Any = Distributed(both, own, comm=comm, shard=True)
        optimizer.step(own_gradients("combined", 0, comm.rank))
        assert any(state["remainder"].any() for state in optimizer.state.values())
        optimizer.reset_remainders()
        assert not any(state["remainder"].any() for state in optimizer.state.values())
        with pytest.raises(CommunicationError, match="call reset_remainders on rank 1"):
            optimizer.reset_remainders() if comm.rank == 1 else optimizer.step(None)
        return optimizer.step_count

    assert together(2, each) == [1, 1]


DIFFERENT: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"seed": 1}, {}, "optimizer (0.formats.seed), got 0 on rank 0, 1 on rank 1"),
    (
        {"rounding": "nearest"},
        CODES,
        "optimizer (0.formats.rounding), got 'stochastic' on rank 0, 'nearest' on rank 1",
    ),
    (
        {"param_rounding": "stochastic"},
        {},
        "optimizer (0.formats.param_rounding), got 'nearest' on rank 0, 'stochastic' on rank 1",
    ),
    ({"master_bits": 24}, {}, "optimizer (0.formats.master_bits), got None on rank 0, 24 on rank 1"),
    (
        {"min_8bit_size": 1},
        CODES,
        "optimizer (0.formats.min_8bit_size), got 4096 on rank 0, 1 on rank 1",
    ),
    (
        CODES,
        {},
        "optimizer (0.groups.0.state_dtype), got None on rank 0, '8bit' on rank 1",
    ),
    (
        {"state_dtype": {"exp_avg": "8bit"}},
        {"state_dtype": {"exp_avg": "bfloat16"}},
        "optimizer (0.groups.0.state_dtype.exp_avg), got 'bfloat16' on rank 0, '8bit' on rank 1",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("other", "common", "told"), DIFFERENT)
def test_ranks_must_keep_the_same(other: Any, common: Any, told: str) -> None:
    def each(comm: Any) -> str:
        more = {**common, **(other if comm.rank == 1 else {})}
        with pytest.raises(ValueError) as caught:  # noqa: PT011 (the text is compared)
            Distributed(instep.Adam, large(BFLOAT16), comm=comm, **more)
        return str(caught.value)

    assert together(2, each) == [f"all ranks must have the same {told}"] * 2


WRONG: list[tuple[dict[str, Any], str]] = [
    (
        {"master_bits": 24},
        "state 'exp_avg' of 'w' must be stored as float32, got 8bit; make the optimizer with",
    ),
    ({**CODES, "master_bits": 32}, "got int8; make the optimizer with master_bits=24"),
    (CODES, "the state of 'w' must be of a parameter without a remainder, got one with it"),
]


@pytest.mark.parametrize("via", ["each", "root", "state_dict"])
@pytest.mark.parametrize(("more", "told"), WRONG, ids=["wide", "other bits", "no bits"])
def test_a_state_in_another_format_is_refused_as_in_one_process(
    more: Any, told: str, via: Any, tmp_path: Path
) -> None:
    pytest.importorskip("safetensors")
    path = tmp_path / "run.safetensors"
    plain = instep.Adam(large(BFLOAT16), **CODES, master_bits=24)
    plain.step(own_gradients("", 0, 0))
    checkpoint.save(path, plain)

    def refused(optimizer: Any, load: Any) -> str:
        by_state = via == "state_dict"
        with pytest.raises(ValueError) as caught:  # noqa: PT011 (the text is compared)
            optimizer.load_state_dict(plain.state_dict()) if by_state else load(optimizer)
        return str(caught.value)

    def each(comm: Any) -> str:
        own = large(BFLOAT16)
        optimizer = Distributed(instep.Adam, own, comm=comm, shard=True, **more)
        said = refused(optimizer, lambda one: one.load(path, via=via))
        assert all(own[name].tobytes() == p.tobytes() for name, p in large(BFLOAT16).items())
        optimizer.step(None)
        return said

    said = refused(instep.Adam(large(BFLOAT16), **more), lambda one: checkpoint.load(path, one))
    assert told in said
    found = together(2, each)
    assert found[0] == said
    assert said in found[1]


def test_bytes_are_those_of_this_rank() -> None:
    def each(comm: Any) -> tuple[dict[str, int], float]:
        w = np.zeros(4 * CHUNK, BFLOAT16)
        one = Distributed(
            instep.Adam, w, comm=comm, shard=True, **CODES, master_bits=24, ema_decay=0.5
        )
        one.accumulate(w.copy())
        return one.memory(), bytes_per_parameter(one)

    elements, own = 4 * CHUNK, 2 * CHUNK
    expected = {
        "parameters": 2 * elements,
        "states": own * 2 + own // 64 * 4 * 2,
        "remainders": own,
        "averages": 4 * own,
        "copies": 0,
        "accumulated": 4 * elements,
    }
    total = sum(expected.values())
    wanted = {**expected, "total": total}, (total - 4 * elements) / elements
    assert together(2, each) == [wanted, wanted]


def test_bytes_decide_who_owns_what() -> None:
    """States in 8 bits of one half of the elements weigh less than wide ones of the other half."""

    def each(comm: Any) -> list[int]:
        groups = [
            {"params": [np.zeros(16 * CHUNK, np.float32)], **CODES},
            {"params": [np.zeros(16 * CHUNK, np.float32)]},
        ]
        optimizer = Distributed(instep.Adam, groups, comm=comm, shard=True)
        return [optimizer.state[name]["exp_avg"].size // CHUNK for name in ("0", "1")]

    # 12 + 2 bytes an element, and 12 + 8: half of all bytes are 16 * 17 chunks of a byte.
    assert together(2, each) == [[16, 2], [0, 14]]


def test_bytes_of_remainders_decide_too() -> None:
    def each(comm: Any) -> list[int]:
        params = [np.zeros(16 * CHUNK, dtype) for dtype in (BFLOAT16, np.float32)]
        more = {"momentum": 0.9, "master_bits": 32}
        optimizer = Distributed(instep.SGD, params, comm=comm, shard=True, **more)
        return [optimizer.state[name]["momentum_buffer"].size // CHUNK for name in ("0", "1")]

    # 12 + 2 bytes an element, and 16: half of all bytes are 16 * 15 chunks of a byte.
    assert together(2, each) == [[16, 1], [0, 15]]


def test_a_converted_state_and_its_seed_are_those_of_all_ranks() -> None:
    plain = instep.Adam(large(), seed=11)
    plain.step(own_gradients("", 0, 0))
    state = plain.state_dict()

    def each(comm: Any) -> Any:
        optimizer = Distributed(instep.Adam, large(), comm=comm, seed=3, shard=True, **CODES)
        converted = convert(state, optimizer) if comm.rank == 0 else None
        optimizer.load_state_dict(converted)
        return optimizer.seed, optimizer.state_dict()

    coded = instep.Adam(large(), **CODES)
    coded.load_state_dict(convert(state, coded))
    found = together(3, each)
    assert [seed for seed, _ in found] == [11] * 3
    assert_alike(found[0][1], coded.state_dict())
