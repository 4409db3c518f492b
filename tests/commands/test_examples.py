"""The examples: each runs, saves its picture, and finds what it is there to show."""

from __future__ import annotations

import importlib.util
import re
import struct
from collections.abc import Callable
from math import cos, pi, prod, sqrt
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from interpreters import python
from rank_launchers import program_over_mpi

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SHARED = {"picture", "straight_line"}

autograd_needed = pytest.mark.skipif(
    importlib.util.find_spec("autograd") is None, reason="autograd is not installed"
)


def run(folder: Path, *command: str) -> CompletedProcess[str]:
    # Elsewhere than with Agg a figure would want a screen.
    more = {"MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": "1"}
    return python("-W", "error", *command, folder=folder, **more)


def numbers(output: str, label: str) -> list[float]:
    """Return the numbers in the one line that begins with the label, after the label."""
    (line,) = (line for line in output.splitlines() if line.startswith(label))
    return [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?(?:e[+-]\d+)?", line[len(label) :])]


def gradient_descent(output: str) -> None:
    x, expected = numbers(output, "lr 0.1, 100 steps: x = ")[0], 10 * 0.8**100
    assert x == pytest.approx(expected, rel=1e-4)
    assert numbers(output, "a hundred tens: ") == pytest.approx([1e4, 100 * expected**2], rel=1e-4)


def mini_batch(output: str) -> None:
    *best, least, above = numbers(output, "least squares: ")
    assert best == pytest.approx([4, 3], abs=0.3)  # the truth, noise apart
    assert 0.5 < least < 1.5  # the noise's variance is 1
    assert above == 0
    for name in ("batch of all 100: ", "mini-batches of 10: ", "Adam, mini-batches of 10: "):
        *theta, loss, above = numbers(output, name)
        assert theta == pytest.approx(best, abs=0.2)
        assert 0 < above < 0.01
        assert loss == pytest.approx(least + above, abs=2e-4)


def momentum(output: str) -> None:
    *best, _, _ = numbers(output, "least squares: ")
    excess = []
    for name in ("plain: ", "momentum 0.9: ", "Nesterov 0.9: "):
        *theta, _, above = numbers(output, name)
        assert theta == pytest.approx(best, abs=0.5)
        excess.append(above)
    assert 1e-2 < excess[0] < 1e-1
    assert excess[1] < 1e-4
    assert excess[2] < 1e-8


def dynamic_gradient_descent(output: str) -> None:
    _, constant, _, constant_noisy = numbers(output, "lr = 0.1: ")
    _, dynamic, _, dynamic_noisy = numbers(output, "lr = 0.1 / (1 + sqrt(t)): ")
    closed_form = 10 * prod(1 - 0.2 / (1 + sqrt(t)) for t in range(100))
    assert constant == pytest.approx(10 * 0.8**100, rel=1e-2)
    assert dynamic == pytest.approx(closed_form, rel=1e-2)
    assert dynamic_noisy < 0.2
    assert constant_noisy > 0.5


def adam_rmsprop(output: str) -> None:
    adam, rmsprop = (numbers(output, name) for name in ("Adam: y = ", "RMSprop: y = "))
    for weight, bias, *_ in (adam, rmsprop):
        assert (weight, bias) == pytest.approx((2, -1), abs=0.1)
    for last_epoch in (adam[2], rmsprop[2]):
        assert 0.009 < last_epoch < 0.05  # the noise's variance is 0.01
    assert adam[-1] < 0.012 < rmsprop[-1]


def annealing(output: str) -> None:
    rates, excess = zip(
        *(numbers(output, f"{name}: ")[1:] for name in ("constant", "exponential", "cosine")),
        strict=True,
    )
    assert rates == pytest.approx((0.1, 0.1 * 0.93**59, 0.05 * (1 + cos(pi * 59 / 60))), rel=1e-2)
    assert excess[0] > 1e-2
    assert max(excess[1:]) < 1e-4


def l1_l2(output: str) -> None:
    zeros, lengths, errors = {}, {}, {}
    for name in ("neither", "L2", "L1"):
        zeros[name], _, _, lengths[name], errors[name] = numbers(output, f"{name}: ")
    assert zeros["L1"] >= 10
    assert zeros["neither"] == zeros["L2"] == 0
    # For inputs without correlation least squares has the gradient 2 (w - w0), so that L2 leaves:
    assert lengths["L2"] == pytest.approx(lengths["neither"] * 2 / (2 + 0.5), abs=2e-3)
    assert errors["L1"] < errors["L2"]
    assert errors["L1"] < errors["neither"]


def autograd_logistic(output: str) -> None:
    descent, adam = (numbers(output, name) for name in ("gradient descent: ", "Adam: "))
    assert adam[0] < 0.13 < descent[0] < 0.3
    assert adam[1] >= 96
    assert descent[1] >= 90


def digits_mpi(output: str) -> None:
    first, *_, last = (line for line in output.splitlines() if line.startswith("epoch "))
    assert numbers(first, "epoch 4: loss ")[0] > 1.5 * numbers(last, "epoch 12: loss ")[0]
    assert numbers(last, "epoch 12: loss ")[1] > 95
    assert "2 parts, 1 process: parameters " in output


FINDINGS: dict[str, Callable[[str], None]] = {
    finding.__name__: finding
    for finding in (
        gradient_descent,
        mini_batch,
        momentum,
        dynamic_gradient_descent,
        adam_rmsprop,
        annealing,
        l1_l2,
        autograd_logistic,
        digits_mpi,
    )
}


def test_every_example_is_tested_and_listed() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} - SHARED == set(FINDINGS)
    recipes = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `python examples/(\w+)\.py` \|", recipes, re.M) == list(FINDINGS)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=autograd_needed if name.startswith("autograd") else ())
        for name in FINDINGS
    ],
)
def test_example(name: str, tmp_path: Path) -> None:
    from matplotlib import image  # noqa: PLC0415 - slow to import

    done = run(tmp_path, str(EXAMPLES / f"{name}.py"))
    assert (done.returncode, done.stderr) == (0, "")
    FINDINGS[name](done.stdout)
    assert done.stdout.endswith(f"Picture: {name}.png\n")
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.png"]
    content = (tmp_path / f"{name}.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert 1000 < width < 2000
    assert 400 < height < 700
    pixels = image.imread(tmp_path / f"{name}.png")[..., :3]
    blue, orange = (  # of the two methods that every picture compares
        np.abs(pixels - np.array(list(bytes.fromhex(colour))) / 255).max(axis=2) < 0.01
        for colour in ("1d3557", "f4a259")
    )
    assert blue.sum() > 300
    assert orange.sum() > 300
    for panel in np.array_split(blue | orange, round(width / 560), axis=1):
        assert panel.sum() > 300


@pytest.mark.parametrize("ranks", [2, 3])
def test_digits_by_several_ranks(ranks: int, tmp_path: Path) -> None:
    """Their bits are those of one process; only one of them speaks and draws."""
    script, file = EXAMPLES / "digits_mpi.py", tmp_path / "own.png"
    done = program_over_mpi(script, ranks, tmp_path, "--output", str(file))
    assert done.status == 0, done.output
    assert done.output.count("epoch 12: ") == done.output.count("Picture: ") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["own.png"]
    alone = run(tmp_path, str(script), "--no-picture", "--parts", str(ranks))
    said = (
        f"{ranks} parts, {ranks} processes: parameters ",
        f"{ranks} parts, 1 process: parameters ",
    )
    together, single = (
        text.partition(start)[2].split()[0]
        for text, start in zip((done.output, alone.stdout), said, strict=True)
    )
    assert together == single
    assert len(single) == 32


def test_digits_from_a_checkpoint(tmp_path: Path) -> None:
    """Ranks go on where one process has stopped, with the bits of a run without a stop."""
    script = EXAMPLES / "digits_mpi.py"
    file = str(tmp_path / "run.safetensors")
    ends = run(tmp_path, str(script), "--no-picture", "--epochs", "2", "--checkpoint", file)
    assert (ends.returncode, ends.stderr) == (0, "")
    arguments = "--no-picture", "--epochs", "4"
    done = program_over_mpi(script, 2, tmp_path, *arguments, "--checkpoint", file)
    assert done.status == 0, done.output
    straight = run(tmp_path, str(script), *arguments)
    digest = straight.stdout.partition("parameters ")[2].split()[0]
    assert f"2 processes: parameters {digest}" in done.output
    assert digest not in ends.stdout


def test_output_says_where(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "own.png"
    path.parent.mkdir()
    done = run(tmp_path, str(EXAMPLES / "gradient_descent.py"), "--output", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.rglob("*.png")) == [path]


def test_a_picture_that_can_not_be_saved(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    done = run(tmp_path, str(EXAMPLES / "gradient_descent.py"), "--output", "a.png")
    assert done.returncode == 1
    assert done.stderr.startswith("the picture was not saved: ")
    assert done.stderr.count("\n") == 1


def without(module: str, name: str, *arguments: str) -> tuple[str, ...]:
    """Return a command that runs an example as if the module were not installed."""
    script = str(EXAMPLES / f"{name}.py")
    code = (
        f"import runpy, sys; sys.modules[{module!r}] = None; sys.path.insert(0, {str(EXAMPLES)!r}); "
        f"sys.argv = {[script, *arguments]!r}; runpy.run_path({script!r}, run_name='__main__')"
    )
    return "-c", code


def test_without_matplotlib(tmp_path: Path) -> None:
    done = run(tmp_path, *without("matplotlib", "gradient_descent"))
    assert done.returncode == 1
    assert not done.stdout  # said before the training
    message = "the picture needs Matplotlib: pip install matplotlib, or --no-picture\n"
    assert done.stderr == message
    done = run(tmp_path, *without("matplotlib", "gradient_descent", "--no-picture"))
    assert (done.returncode, done.stderr) == (0, "")
    gradient_descent(done.stdout)
    assert "Picture" not in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_without_autograd(tmp_path: Path) -> None:
    done = run(tmp_path, *without("autograd", "autograd_logistic", "--no-picture"))
    assert done.returncode == 1
    assert done.stderr == "this example needs autograd: pip install autograd\n"
