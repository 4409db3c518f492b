"""Checkpoints: to the bit, whatever is in them, and what there is to see inside."""

import json
import os
import re
import sys
import threading

import numpy as np
import pytest
from cases import DTYPES, VARIANTS, fitting, labels, numbers
from checkpoint_files import parts, refused
from interpreters import output
from snapshots import bits

import instep
from instep import checkpoint, schedules
from instep.commands import cli

safetensors = pytest.importorskip("safetensors")

SEED = 20_240_601


@pytest.mark.parametrize("variant", VARIANTS, ids=labels)
def test_every_rule_in_every_dtype_comes_back(variant, tmp_path):
    rng = np.random.default_rng(SEED)

    def params():
        arrays = {}
        for dtype in DTYPES:
            arrays[f"{dtype}/strided"] = np.zeros((5, 14), dtype)[::-2, 1::3]
            arrays[f"{dtype} scalar"] = np.zeros((), dtype)
            arrays[f"{dtype}\n空"] = np.zeros((0, 3), dtype)
        return arrays

    groups = [{"params": params(), "lr": schedules.CosineDecay(0.1, steps=9)}]
    optimizer = variant.make(groups, **fitting(variant, {"ema_decay": 0.9}))
    assert optimizer.param_groups[0]["lr"] is groups[0]["lr"]
    for param in optimizer.params.values():
        param[...] = numbers(rng, param.shape, param.dtype)
    for call in (optimizer.step, optimizer.step, optimizer.step, optimizer.accumulate):
        call([{n: numbers(rng, p.shape, np.float64) for n, p in optimizer.params.items()}])

    path = tmp_path / "a file"
    checkpoint.save(path, optimizer, extra=[1, "two", None, {"x": 0.1}])
    other = variant.make([{"params": params()}], **fitting(variant, {"ema_decay": 0.1}))
    arrays = other.params
    assert checkpoint.load(path, other) == [1, "two", None, {"x": 0.1}]
    assert bits(other) == bits(optimizer)
    assert all(other.params[name] is array for name, array in arrays.items())
    assert other.step_count == 3


def test_the_arrays_are_there_for_any_reader(saved):
    path, optimizer, scaler = saved
    checkpoint.load(path, optimizer, scaler)
    tensors = dict(safetensors.deserialize(path.read_bytes()))
    assert bytes(tensors["weights/w"]["data"]) == optimizer.params["w"].tobytes()
    assert bytes(tensors["state/exp_avg/b"]["data"]) == optimizer.state["b"]["exp_avg"].tobytes()
    assert tensors["weights/b"]["dtype"] == "BF16"


def test_any_layout_and_name_is_there_for_any_reader(tmp_path):
    rng, params = np.random.default_rng(SEED), {}
    for dtype in DTYPES:
        params[f"{dtype}"] = numbers(rng, (7, 5), dtype)
        params[f"{dtype}/F"] = np.asfortranarray(numbers(rng, (3, 4, 2), dtype))
        params[f'{dtype} "strided"\\'] = np.zeros((5, 14), dtype)[::-2, 1::3]
        params[f"{dtype}\n空\x00"] = np.zeros((0, 3), dtype)
        params[f"{dtype} scalar"] = numbers(rng, (), dtype)
    params["a"] = numbers(rng, 3, "f2")  # the first by name, and six bytes
    optimizer = instep.SGD(params, lr=0.5)
    checkpoint.save(tmp_path / "run", optimizer, extra="空")
    content = (tmp_path / "run").read_bytes()
    tensors = dict(safetensors.deserialize(content))
    assert tensors.keys() == {f"weights/{name}" for name in params}
    for name, param in params.items():
        tensor = tensors[f"weights/{name}"]
        assert tensor["shape"] == list(param.shape)
        assert bytes(tensor["data"]) == np.ascontiguousarray(param).tobytes()
    header = 8 + int.from_bytes(content[:8], "little")
    assert header % 8 == 0
    places = [entry for name, entry in parts(content)[0].items() if name != "__metadata__"]
    assert all(p["data_offsets"][0] * 8 % int(p["dtype"][-2:]) == 0 for p in places)


def test_parameters_without_states_or_elements(tmp_path):
    path = tmp_path / "run"
    optimizer = instep.SGD([np.zeros((0, 2)), np.array(3.0)], lr=0.5)
    checkpoint.save(path, optimizer)
    other = instep.SGD([np.zeros((0, 2)), np.array(0.0)], lr=0.5)
    assert checkpoint.load(path, other) is None
    assert bits(other) == bits(optimizer)


def test_functions_that_can_not_be_stored_have_to_be_there(tmp_path):
    def rate(step):
        return 0.5 / (step + 1)

    path = tmp_path / "run"
    checkpoint.save(path, instep.SGD(np.ones(2), lr=rate))
    same = instep.SGD(np.zeros(2), lr=rate)
    checkpoint.load(path, same)
    assert same.lr is rate
    refused(
        path, instep.SGD(np.zeros(2), lr=0.1), match="must be of instep.schedules, got the callable"
    )


def test_extra_that_is_too_long(tmp_path):
    with pytest.raises(ValueError, match="extra and the names of the parameters must fit a header"):
        checkpoint.save(
            tmp_path / "run",
            instep.SGD(np.ones(1), lr=0.1),
            "x" * 100_000_000,  # more than readers take
        )
    assert os.listdir(tmp_path) == []


def test_not_inside_averaged(saved):
    path, optimizer, scaler = saved
    content = path.read_bytes()
    with optimizer.averaged():
        with pytest.raises(RuntimeError, match="save must come after the block"):
            checkpoint.save(path, optimizer)
        with pytest.raises(RuntimeError, match="load must come after the block"):
            checkpoint.load(path, optimizer, scaler)
    assert path.read_bytes() == content


def test_a_save_beside_steps_of_another_thread(tmp_path):
    path = tmp_path / "run"
    w = np.zeros(300_000)
    optimizer = instep.SGD(w, lr=1.0, momentum=1.0, dampening=1.0)
    gradient = np.full(len(w), -1.0)
    optimizer.step(gradient)  # from now on every step adds 1
    stop = threading.Event()

    def go():
        while not stop.is_set():
            optimizer.step(gradient)

    thread = threading.Thread(target=go)
    thread.start()
    try:
        other = instep.SGD(np.zeros(len(w)), lr=1.0, momentum=1.0, dampening=1.0)
        for _ in range(10):
            checkpoint.save(path, optimizer)
            checkpoint.load(path, other)
            assert np.all(other.params["0"] == other.step_count)
    finally:
        stop.set()
        thread.join()
    assert optimizer.step_count > 10


def test_inspect(saved):
    path, optimizer, scaler = saved
    content = path.read_bytes()
    found = checkpoint.inspect(path)
    extra = checkpoint.load(path, optimizer, scaler)
    state = optimizer.state_dict()
    assert path.read_bytes() == content
    assert found.pop("hyperparameters") == {
        key: json.loads(json.dumps(state[key]))
        for key in ("clip_norm", "ema_decay", "param_groups")
    }
    tensors = found.pop("tensors")
    assert found == {
        "schema": 1,  # the oldest version that can hold it
        "rule": "Adam",
        "step_count": 1,
        "skipped_steps": 0,
        "seed": 0,
        "scaler": scaler.state_dict(),
        "extra": extra,
    }
    assert tensors["weights/w"] == {"dtype": "float32", "shape": (4,), "bytes": 16}
    assert tensors["weights/b"] == {"dtype": "bfloat16", "shape": (2, 1), "bytes": 4}
    kinds = ("weights", "state/exp_avg", "state/exp_avg_sq", "averages", "accumulated")
    assert sorted(tensors) == sorted(f"{kind}/{name}" for kind in kinds for name in "wb")


def test_the_command(saved, capsys):
    path, _, _ = saved
    assert cli.main(["inspect", str(path)]) == 0
    out, err = capsys.readouterr()
    assert not err
    rows = [re.split(r"  +", line.strip(), maxsplit=1) for line in out.splitlines()]
    rows = dict(row if len(row) == 2 else (row[0], "") for row in rows)
    assert rows["rule"] == "Adam"
    assert rows["clip_norm"] == "inf"
    assert rows["weights/b"] == "bfloat16 (2, 1), 4 bytes"
    assert rows["lr"] == "0.25"
    assert rows["extra"] == r'{"epoch": 3, "name": "\u00e9\n"}'


def test_the_command_shows_nothing_a_terminal_would_obey(tmp_path, capsys):
    path = tmp_path / "run"
    checkpoint.save(path, instep.SGD({"w\x1b[2J\n": np.ones(1)}, lr=0.1), extra="\x1b[2J")
    assert cli.main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.splitlines())
    assert r"weights/w\x1b[2J\n" in out


@pytest.mark.parametrize(
    ("content", "match"),
    [(None, "No such file"), (b"", "must be a whole checkpoint"), (b"{" * 99, "header")],
)
def test_the_command_on_what_is_no_checkpoint(content, match, tmp_path, capsys):
    path = tmp_path / "run"
    if content is not None:
        path.write_bytes(content)
    assert cli.main(["inspect", str(path)]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("instep inspect: ")
    assert err.count("\n") == 1
    assert match in err
    assert str(path) in err


def test_without_safetensors(saved, monkeypatch, capsys):
    path, optimizer, scaler = saved
    before, content = bits(optimizer, scaler), path.read_bytes()
    for name in ("safetensors", "safetensors.numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    wanted = re.escape("pip install 'instep[checkpoint]'")
    for call in (
        lambda: checkpoint.save(path, optimizer),
        lambda: checkpoint.load(path, optimizer, scaler),
        lambda: checkpoint.inspect(path),
    ):
        with pytest.raises(ImportError, match=wanted):
            call()
    assert cli.main(["inspect", str(path)]) == 1
    assert re.fullmatch(f"instep inspect: .*{wanted}\n", capsys.readouterr().err)
    assert (bits(optimizer, scaler), path.read_bytes()) == (before, content)
    assert os.listdir(path.parent) == [path.name]


def test_without_ml_dtypes(saved, monkeypatch):
    path, optimizer, scaler = saved
    before = bits(optimizer, scaler)
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'instep[bfloat16]'")):
        checkpoint.load(path, optimizer, scaler)
    assert bits(optimizer, scaler) == before
    with pytest.raises(ImportError, match=re.escape("pip install 'instep[bfloat16]'")):
        checkpoint.inspect(path)


def test_nothing_is_imported_before_it_is_needed():
    loaded = output("""
        import sys, os, tempfile, numpy as np, instep
        from instep import checkpoint
        from instep.commands import inspect as inspection
        assert "safetensors" not in sys.modules
        path = os.path.join(tempfile.mkdtemp(), "run")
        optimizer = instep.Adam(np.ones(2))
        checkpoint.save(path, optimizer)
        checkpoint.load(path, optimizer)
        os.remove(path)
        print(sorted({"ml_dtypes", "torch"} & set(sys.modules)))
    """)
    assert loaded == "[]"
