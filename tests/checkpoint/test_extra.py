"""Extra of a checkpoint: what comes back, what is refused, and its form in the file."""

import hashlib
import json
import math
import re
import sys
import tracemalloc
from collections import OrderedDict, namedtuple

import numpy as np
import pytest
from cases import BFLOAT16
from checkpoint_files import document_of, file_of, nested, parts, sgd

import instep
from instep import checkpoint
from instep.checkpoint import writing
from instep.commands import cli

safetensors = pytest.importorskip("safetensors")

DTYPES = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", BFLOAT16),
]


def there_and_back(extra, path):
    checkpoint.save(path, sgd(), extra)
    found = checkpoint.load(path, sgd())
    assert str(found) == str(checkpoint.inspect(path)["extra"])
    return found


def same(found, extra):
    """Compare types, and the bits of numbers and arrays; lists for tuples."""
    if isinstance(extra, dict):
        assert type(found) is dict
        assert list(found) == list(extra)
        for key, value in extra.items():
            same(found[key], value)
    elif isinstance(extra, (list, tuple)):
        assert type(found) is list
        for one, other in zip(found, extra, strict=True):
            same(one, other)
    elif isinstance(extra, np.ndarray):
        assert type(found) is np.ndarray
        assert (found.dtype, found.shape) == (extra.dtype, extra.shape)
        assert found.tobytes() == extra.tobytes()
        assert found.flags.c_contiguous
        assert found.flags.writeable
    else:
        assert type(found) is type(extra)
        assert str(found) == str(extra)


# --- what comes back


def test_numbers_that_are_not_finite(tmp_path):
    extra = {"best": math.inf, "deep": [(-math.inf, {"x": math.nan}), 0.5, True, None, "nan"]}
    same(there_and_back(extra, tmp_path / "run"), extra)
    same(there_and_back(math.nan, tmp_path / "run"), math.nan)


@pytest.mark.parametrize("make", [np.float16, np.float32, np.float64, np.longdouble, BFLOAT16.type])
@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "0.5"])
def test_scalars_of_numpy_become_numbers(make, text, tmp_path):
    same(there_and_back([make(text)], tmp_path / "run"), [float(text)])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_arrays(dtype, tmp_path):
    rng, dtype = np.random.default_rng(3), np.dtype(dtype)
    arrays = {}
    for name, shape in {"": (3, 2), "none": (0, 3), "alone": (), "~/a/b": (1, 1, 5)}.items():
        arrays[name] = rng.integers(0, 2, shape).astype(dtype)
    if dtype.kind != "b":
        arrays["bits"] = rng.integers(0, 256, 6 * dtype.itemsize, np.uint8).view(dtype)
    arrays["strided"] = np.asfortranarray(arrays[""])[::-1]
    same(there_and_back(arrays, tmp_path / "run"), arrays)
    same(there_and_back(arrays[""], tmp_path / "run"), arrays[""])


def test_any_nesting_and_any_key(tmp_path):
    w = np.arange(3)
    extra = {
        "float": "nan",
        "one": [{"float": "inf"}, {"tensor": "extra/w"}, {"dict": {"dict": 1}}, {"dict": w}],
        "two": {"tensor": w, "dict": {}},
        "same": (w, w),
        "a/b": {"c": w, "~1": w},
        "a": {"b/c": w},
        "list": [[], {}, [w, [w]]],
        "\0é空": w,
        "": {"": w},
    }
    found = there_and_back(extra, tmp_path / "run")
    same(found, extra)
    arrays = [found["same"][0], found["same"][1], found["list"][2][0]]
    assert not any(np.shares_memory(a, b) for a in arrays for b in arrays if a is not b)


def test_extra_with_scalars_of_numpy(tmp_path):
    numbers = [np.float16(0.1), np.float32(3.7), np.float64(0.1), np.longdouble(0.5)]
    extra = {"numbers": numbers, "deep": [{"n": (np.int64(-4), np.uint8(200))}, np.bool_(True)]}
    checkpoint.save(tmp_path / "run", instep.SGD(np.ones(1), lr=0.1), extra)
    found = checkpoint.load(tmp_path / "run", instep.SGD(np.ones(1), lr=0.1))
    assert found == {"numbers": [*map(float, numbers)], "deep": [{"n": [-4, 200]}, True]}
    assert found["deep"][1] is True
    assert [*map(type, found["numbers"] + found["deep"][0]["n"])] == [float] * 4 + [int] * 2


def test_text_and_numbers_of_other_classes(tmp_path):
    class Text(str):
        __slots__ = ()

    Pair = namedtuple("Pair", "first second")
    extra = OrderedDict({Text("a"): Text("b"), "pair": Pair(1, True), "big": [2**127, -(2**200)]})
    same(
        there_and_back(extra, tmp_path / "run"),
        {"a": "b", "pair": [1, True], "big": [2**127, -(2**200)]},
    )


def test_the_first_numbers_after_a_resume(tmp_path):
    """Every generator of NumPy's and Python's: its state comes back as it was."""
    for cls in (
        np.random.PCG64,
        np.random.PCG64DXSM,
        np.random.MT19937,
        np.random.Philox,
        np.random.SFC64,
    ):
        rng, other = np.random.Generator(cls(5)), np.random.Generator(cls(6))
        rng.random(7)
        rng.integers(0, 9, 3, np.int32)  # leaves half a number in the generator
        extra = {"rng": rng.bit_generator.state}
        wanted = rng.random(5).tolist(), rng.integers(0, 9, 5, np.int32).tolist()
        other.bit_generator.state = there_and_back(extra, tmp_path / "run")["rng"]
        assert (other.random(5).tolist(), other.integers(0, 9, 5, np.int32).tolist()) == wanted


@pytest.mark.parametrize("legacy", [False, True])
def test_the_state_of_an_old_generator(legacy, tmp_path):
    rng, other = np.random.RandomState(5), np.random.RandomState(6)
    rng.standard_normal(3)  # leaves one number in the generator
    extra = {"rng": rng.get_state(legacy=legacy)}
    wanted = rng.standard_normal(5).tolist()
    found = there_and_back(extra, tmp_path / "run")["rng"]
    other.set_state(tuple(found) if legacy else found)
    assert other.standard_normal(5).tolist() == wanted


def test_subclasses_and_arrays_that_are_read_only(tmp_path):
    mapped = np.memmap(tmp_path / "mapped", np.int16, "w+", shape=(3, 1))
    mapped[:] = 7
    fixed = np.ones(2)
    fixed.flags.writeable = False
    same(there_and_back([mapped, fixed], tmp_path / "run"), [np.array(mapped), np.ones(2)])


def test_extra_is_a_copy_of_the_moment_but_for_arrays_that_change_meanwhile(tmp_path, monkeypatch):
    array, extra = np.zeros(3), {"list": [1]}
    extra["array"] = array
    stream = writing._stream

    def changing(*arguments):
        array[:] = 5
        extra["list"].append(2)
        found = stream(*arguments)
        array[:] = 7
        return found

    monkeypatch.setattr(writing, "_stream", changing)
    optimizer = instep.SGD(np.ones(0))
    checkpoint.save(tmp_path / "run", optimizer, extra)
    same(checkpoint.load(tmp_path / "run", optimizer), {"list": [1], "array": np.full(3, 5.0)})


def test_no_copy_of_an_array_is_made(tmp_path):
    extra = {"large": np.ones((1000, 1000)), "small": np.ones((100, 1000)).T}
    checkpoint.save(tmp_path / "run", sgd(), extra)
    tracemalloc.start()
    try:
        checkpoint.save(tmp_path / "run", sgd(), extra)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_the_deepest_extra_comes_back_also_where_calls_are_deep(tmp_path):
    optimizer, deep = instep.SGD(np.ones(1), lr=0.1), nested(200)
    checkpoint.save(tmp_path / "run", optimizer, deep)

    def called_deeply(calls):
        return called_deeply(calls - 1) if calls else checkpoint.load(tmp_path / "run", optimizer)

    assert called_deeply(sys.getrecursionlimit() // 2) == deep


# --- the form in the file


@pytest.mark.parametrize("state", ["of the first version", "of now"])
def test_a_file_without_new_values_has_the_layout_of_the_first_version(tmp_path, state):
    """To the byte, but for the optimizer's state; older versions wrote the metadata in a random order."""
    numbers = '"schema":1,"rule":"SGD","step_count":0,"skipped_steps":0,'
    if state == "of now":
        numbers = '"schema":2,"rule":"SGD","step_count":0,"skipped_steps":0,"seed":0,'
    extra = {
        "epoch": 3,
        "float": [1.5, None, True, "é"],
        "one": {"float": "inf"},
        "t": (1, 2**100),
    }
    text = (
        '{"schema":1,"optimizer":{' + numbers + '"clip_norm":null,"ema_decay":null,'
        '"param_groups":[{"params":["w"],"lr":0.5,"momentum":0.0,"dampening":0.0,"nesterov":false,"lr_in_velocity":false,'
        '"weight_decay":0.0,"l1":0.0,"clip_value":null,"maximize":false}],"steps":{"w":0}},'
        '"scaler":null,"extra":{"epoch":3,"float":[1.5,null,true,"\\u00e9"],'
        '"one":{"float":"inf"},"t":[1,1267650600228229401496703205376]},'
        '"tensors":{"weights/w":{"dtype":"float32","shape":[2],'
        '"sha256":"3c00f95169b7aefd7745a2b1a531e150bb2d1657a77de92dbe5fd8c303fd9066"}}}'
    )
    entries = [
        f'"instep":{json.dumps(text)}',
        f'"instep_sha256":"{hashlib.sha256(text.encode()).hexdigest()}"',
    ]
    first, other = (
        '{"__metadata__":{' + ",".join(some) + "},"
        '"weights/w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
        for some in (entries, entries[::-1])
    )
    first += " " * (-len(first.encode()) % 8)  # as safetensors does
    path = tmp_path / "run"
    checkpoint.save(path, sgd(), extra)
    is_same = path.read_bytes() == file_of(first.encode(), sgd().params["w"].tobytes())
    assert is_same == (state == "of now")
    path.write_bytes(file_of(other.encode(), sgd().params["w"].tobytes()))
    same(checkpoint.load(path, sgd()), {**extra, "t": [1, 2**100]})


def test_the_same_run_makes_the_same_bytes(tmp_path):
    """In any process: safetensors writes metadata in an order that differs from call to call."""
    extra = {"a": np.arange(3), "b": [math.nan, np.ones(2, np.float16)]}
    contents = set()
    for k in range(20):
        checkpoint.save(tmp_path / str(k), sgd(), extra)
        contents.add((tmp_path / str(k)).read_bytes())
    assert len(contents) == 1
    assert list(parts(contents.pop())[0]["__metadata__"]) == ["instep", "instep_sha256"]


def test_the_form_of_what_json_lacks(tmp_path):
    path = tmp_path / "run"
    extra = {"rng": [{"a/b~": np.arange(2, dtype=np.int16)}], "best": -math.inf, "x": {"dict": 1}}
    checkpoint.save(path, sgd(), extra)
    document = document_of(path.read_bytes())
    assert document["schema"] == 2
    assert document["extra"] == {
        "rng": [{"a/b~": {"tensor": "extra/rng/0/a~1b~0"}}],
        "best": {"float": "-inf"},
        "x": {"dict": {"dict": 1}},
    }
    assert document["tensors"]["extra/rng/0/a~1b~0"]["dtype"] == "int16"
    tensors = dict(safetensors.deserialize(path.read_bytes()))
    assert bytes(tensors["extra/rng/0/a~1b~0"]["data"]) == extra["rng"][0]["a/b~"].tobytes()


def test_no_parameter_takes_the_name_of_an_array(tmp_path):
    names = ["extra", "extra/a", "/extra/a", "weights/a"]
    params = {name: np.full(2, k, np.float64) for k, name in enumerate(names)}
    optimizer = instep.Adam(params, ema_decay=0.5)
    extra = {"a": np.arange(3), "weights": {"a": np.arange(4)}}
    checkpoint.save(tmp_path / "run", optimizer, extra)
    other = instep.Adam({name: np.zeros(2) for name in names}, ema_decay=0.5)
    same(checkpoint.load(tmp_path / "run", other), extra)
    assert [param[0] for param in other.params.values()] == [0, 1, 2, 3]


def test_inspect_lists_arrays(tmp_path, capsys):
    path = tmp_path / "run"
    extra = {"rng": {"key": np.zeros((3, 2), np.uint32)}, "best": math.inf, "alone": np.array(True)}
    checkpoint.save(path, sgd(), extra)
    found = checkpoint.inspect(path)
    assert found["schema"] == 2
    same(found["extra"], extra)
    assert found["tensors"]["extra/rng/key"] == {"dtype": "uint32", "shape": (3, 2), "bytes": 24}
    assert cli.main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^  extra/rng/key +uint32 \(3, 2\), 24 bytes$", out, re.M)
    assert '{"rng": {"key": "uint32 (3, 2)"}, "best": Infinity, "alone": "bool ()"}' in out
