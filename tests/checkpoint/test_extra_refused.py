"""Extra that a checkpoint can't hold, and files whose extra is hostile: refused, and nothing changes."""

import hashlib
import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoint_files import document_of, file_of, nested, parts, refused, sgd, with_document
from hypothesis import given
from hypothesis import strategies as st
from snapshots import bits

import instep
from instep import checkpoint

pytest.importorskip("safetensors")

HOLDS = "must be a dict, list, tuple, str, bool, int, float, NumPy array or None, got "
HAS = (
    "must have dtype bool, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float16, float32, "
    "float64, bfloat16 or complex64, got "
)
REFUSED = {
    "set": (
        {"best": [0, 1, {2}]},
        TypeError,
        f"extra['best'][2] {HOLDS}a set; pass a list",
    ),
    "whole": ({1, 2}, TypeError, f"extra {HOLDS}a set; pass a list"),
    "bytes": ([b"x"], TypeError, f"extra[0] {HOLDS}a bytes; pass np.frombuffer(data, np.uint8)"),
    "ellipsis": (..., TypeError, f"extra {HOLDS}an ellipsis"),
    "complex": ((1j,), TypeError, f"extra[0] {HOLDS}a complex"),
    "complex scalar": (np.complex64(1), TypeError, f"extra {HOLDS}a complex64"),
    "time": (np.datetime64("2024-01-01"), TypeError, f"extra {HOLDS}a datetime64"),
    "span of time": (np.timedelta64(3, "s"), TypeError, f"extra {HOLDS}a timedelta64"),
    "generator": (
        {"rng": np.random.default_rng(0)},
        TypeError,
        f"extra['rng'] {HOLDS}a Generator; pass its bit_generator.state",
    ),
    "bit generator": (
        np.random.MT19937(0),
        TypeError,
        f"extra {HOLDS}a MT19937; pass its state",
    ),
    "old generator": (
        np.random.RandomState(0),
        TypeError,
        f"extra {HOLDS}a RandomState; pass its get_state(legacy=False)",
    ),
    "keys": ({"a": {1: 2}}, TypeError, "the keys of extra['a'] must be str, got 1; pass str(key)"),
    "tuples": ({(1, 2): 3}, TypeError, "the keys of extra must be str, got (1, 2); pass str(key)"),
    "key twice": ({1: 1, "1": 2}, TypeError, "the keys of extra must be str, got 1; pass str(key)"),
    "objects": ([np.array([None])], TypeError, f"extra[0] {HAS}object"),
    "text": (np.array(["a"]), TypeError, f"extra {HAS}<U1"),
    "fields": (np.zeros(1, "i4,f8"), TypeError, f"extra {HAS}[('f0', '<i4'), ('f1', '<f8')]"),
    "complex128": (np.zeros(1, complex), TypeError, f"extra {HAS}complex128"),
    "masked": (
        {"m": np.ma.ones(2)},
        TypeError,
        "extra['m'] must be a plain NumPy array, got a MaskedArray",
    ),
    "byte order": (
        [np.zeros(1, np.dtype(np.int32).newbyteorder())],
        TypeError,
        f"extra[0] must have this machine's byte order, got {'>' if sys.byteorder == 'little' else '<'}i4; "
        'pass array.astype(array.dtype.newbyteorder("="))',
    ),
    "surrogate": (
        {"\ud800": np.zeros(1)},
        ValueError,
        "the keys of extra['\\ud800'] must be text that UTF-8 can hold, got a lone surrogate",
    ),
    "long key": ({"k" * 200: {2}}, TypeError, f"extra[a str] {HOLDS}a set; pass a list"),
}
if np.finfo(np.longdouble).max > np.finfo(np.float64).max:
    LARGE = np.longdouble("1e400")
    REFUSED["large"] = (
        {"x": LARGE},
        ValueError,
        f"extra['x'] must be in the range of float64, got {LARGE!r}",
    )
if hasattr(sys, "get_int_max_str_digits"):
    REFUSED["digits"] = (
        {"n": [2**20_000]},
        ValueError,
        "extra['n'][0] must have no more digits than Python writes (sys.get_int_max_str_digits()), "
        "got an int of 20001 bits",
    )


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_checkpoint_can_not_hold(case, tmp_path):
    extra, error, message = REFUSED[case]
    with pytest.raises(error) as caught:
        checkpoint.save(tmp_path / "run", sgd(), extra)
    assert str(caught.value) == message
    assert os.listdir(tmp_path) == []


def test_tensors_of_torch_get_a_hint(tmp_path):
    torch = pytest.importorskip("torch")
    with pytest.raises(
        TypeError, match=r"extra\['x'\] must be .*; pass tensor.detach\(\).numpy\(\)"
    ):
        checkpoint.save(tmp_path / "run", sgd(), {"x": torch.ones(1)})


def test_what_becomes_an_array_gets_a_hint(tmp_path):
    class Wrapped:
        def __array__(self):
            raise AssertionError

    with pytest.raises(TypeError, match=r"extra\[0\] .*, got a Wrapped; pass np.asarray\(value\)"):
        checkpoint.save(tmp_path / "run", sgd(), [Wrapped()])


def test_a_place_far_inside_is_shortened(tmp_path):
    deep = {2}
    for _ in range(150):
        deep = {"a key": deep}
    with pytest.raises(
        TypeError, match=r"^extra\['a key'\].*\.\.\..*\['a key'\] must be"
    ) as caught:
        checkpoint.save(tmp_path / "run", sgd(), deep)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("levels", [201, 990, 100_000])  # by far, and just about what Python likes
def test_extra_that_is_too_deep(levels, tmp_path):
    deep = nested(levels)
    match = "extra must have at most 200 levels, got more"
    with pytest.raises(ValueError, match=match):
        checkpoint.save(tmp_path / "run", instep.SGD(np.ones(1), lr=0.1), deep)
    while not isinstance(deep, str):  # so that freeing it recurses no deeper than Python likes
        deep = deep[0] if isinstance(deep, list) else deep["inner"]
    assert os.listdir(tmp_path) == []


def test_lists_in_themselves(tmp_path):
    circle = []
    circle += [circle, circle]
    with pytest.raises(ValueError, match="extra must have at most 200 levels, got more"):
        checkpoint.save(tmp_path / "run", sgd(), circle)


# --- hostile files


def with_changes(change):
    def changed(path):
        content = path.read_bytes()
        document = document_of(content)
        change(document)
        path.write_bytes(with_document(content, document))

    return changed


def _extra(value):
    return with_changes(lambda document: document.update(extra=value))


A = {"tensor": "extra/a"}
HOSTILE = {
    "a float": (_extra([A, {"float": "1e5"}]), "extra[1] must be a value of a checkpoint, got {"),
    "a float that is none": (_extra([A, {"float": []}]), "extra[1] must be a value of"),
    "a dict that is none": (_extra({"x": {"dict": [A]}}), "extra['x'] must be a value of"),
    "a tensor that is none": (_extra([A, {"tensor": [1]}]), "extra[1] must be a value of"),
    "of the weights": (_extra([A, {"tensor": "weights/w"}]), "extra[1] must be a value of"),
    "missing": (_extra([A, {"tensor": "extra/b"}]), "extra[1] must be a value of"),
    "one more": (_extra([]), "extra must have each of its tensors once; missing: 'extra/a'"),
    "twice": (
        _extra([A, A]),
        "extra must have each of its tensors once; there must be 1, got 2, some of",
    ),
    "of the first version": (
        with_changes(lambda document: document.update(schema=1)),
        "extra must have each of its tensors once; missing: 'extra/a'",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_forms(case, tmp_path):
    path = tmp_path / "run"
    checkpoint.save(path, sgd(), {"a": np.arange(3), "x": math.nan})
    change, message = HOSTILE[case]
    change(path)
    line = refused(path, instep.SGD({"w": np.zeros(2, np.float32)}, lr=0.1))
    assert line.startswith(f"{path}: {message}")
    with pytest.raises(checkpoint.CheckpointError):
        checkpoint.inspect(path)


def test_an_array_of_bool_with_other_bytes(tmp_path):
    """NumPy's own loops go wrong on one."""
    path = tmp_path / "run"
    checkpoint.save(path, sgd(), {"a": np.ones(3, bool)})
    content = path.read_bytes()
    header, data = parts(content)
    document = document_of(content)
    start = header["extra/a"]["data_offsets"][0]
    data = data[:start] + b"\1\2\1" + data[start + 3 :]
    document["tensors"]["extra/a"]["sha256"] = hashlib.sha256(b"\1\2\1").hexdigest()
    path.write_bytes(with_document(file_of(header, data), document))
    refused(path, sgd(), match="'extra/a' must have the bytes 0 and 1")


def test_a_damaged_array_changes_nothing(tmp_path):
    path = tmp_path / "run"
    checkpoint.save(path, sgd(), {"a": np.arange(3)})
    header, data = parts(path.read_bytes())
    start = header["extra/a"]["data_offsets"][0]
    path.write_bytes(file_of(header, data[:start] + b"\7" + data[start + 1 :]))
    other = instep.SGD({"w": np.zeros(2, np.float32)}, lr=0.1)
    refused(path, other, match="the tensor 'extra/a' must agree with its checksum, got another")


TENSORS = ["extra/a", "extra/0", "weights/w", "nan", "-inf", "x"]
FORMS = st.recursive(
    st.none() | st.integers(-9, 2**70) | st.sampled_from(TENSORS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["float", "tensor", "dict", "x"]), inner, max_size=2)
    ),
    max_leaves=8,
)


@given(form=FORMS, is_first=st.booleans())
def test_any_form_is_loaded_or_refused(form, is_first, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any form"
    checkpoint.save(path, sgd(), {"a": np.arange(3)})
    with_changes(lambda d: d.update(extra=[{"tensor": "extra/a"}, form]))(path)
    if is_first:
        checkpoint.save(path, sgd(), form)
        assert checkpoint.load(path, sgd()) == form
        return
    optimizer = instep.SGD({"w": np.zeros(2, np.float32)}, lr=0.1)
    before = bits(optimizer)
    try:
        found = checkpoint.load(path, optimizer)
    except checkpoint.CheckpointError:
        assert bits(optimizer) == before
    else:
        assert bits(optimizer) == bits(sgd())
        assert str(checkpoint.inspect(path)["extra"]) == str(found)
        checkpoint.save(path, sgd(), found)
        assert str(checkpoint.load(path, sgd())) == str(found)


class Loud(str):
    """A key whose text is not what str() says."""

    __slots__ = ()

    def __str__(self) -> str:
        return "same"


class Apart(str):
    """Keys that a dict holds apart although their texts are equal."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def test_keys_are_their_texts(tmp_path: Path) -> None:
    opt = instep.SGD(np.zeros(1))
    extra = {Loud("a"): np.zeros(1), Loud("b"): np.ones(1)}
    checkpoint.save(tmp_path / "run", opt, extra)
    found = checkpoint.load(tmp_path / "run", opt)
    assert {key: array.tolist() for key, array in found.items()} == {"a": [0.0], "b": [1.0]}
    with pytest.raises(ValueError, match=r"the keys of extra\['k'\] must be different texts"):
        checkpoint.save(tmp_path / "run", opt, {"k": {Apart("x"): 1, Apart("x"): 2}})


def test_bytes_of_a_mask_that_are_neither_0_nor_1(tmp_path: Path) -> None:
    opt = instep.SGD(np.zeros(1))
    mask = np.array([0, 255, 1, 2], np.uint8).view(bool)[::-1]
    checkpoint.save(tmp_path / "run", opt, {"mask": mask})
    assert checkpoint.load(tmp_path / "run", opt)["mask"].tolist() == [True, True, True, False]
