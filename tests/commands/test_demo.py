"""The demo: its network, its AdamW in NumPy, what it measures, prints and draws."""

import io
import itertools
import math
import re
import sys

import numpy as np
import pytest
from interpreters import python

import instep
from instep.commands.cli import main
from instep.commands.demo import numpy_adamw
from instep.commands.demo.digits import Digits, batches, load_digits
from instep.commands.demo.mlp import MLP
from instep.commands.demo.numpy_adamw import NumpyAdamW
from instep.commands.demo.report import setting, table
from instep.commands.demo.training import Run, first_difference, learning_rate, train

QUICK = ["demo", "--epochs", "2"]

pytestmark = pytest.mark.usefixtures("blas_on_one_thread", "in_a_folder_of_its_own")


def rng(seed=0):
    return np.random.default_rng(seed)


# --- The network.


def small_network(dtype=np.float64):
    network = MLP((5, 7, 6, 4), rng(), dtype)
    for p in network.params.values():
        p[...] += 0.1 * rng(1).standard_normal(p.shape)  # biases that are not zero
    return network, rng(2).standard_normal((9, 5)).astype(dtype), rng(3).integers(0, 4, 9)


@pytest.mark.parametrize("name", small_network()[0].params)
def test_gradient_equals_finite_differences(name):
    network, x, labels = small_network()
    gradient = network.loss_and_gradients(x, labels)[1][name]
    p, h = network.params[name], 1e-6
    numerical = np.empty_like(p)
    for index in np.ndindex(*p.shape):
        kept = p[index]
        p[index] = kept + h
        above = network.loss_and_gradients(x, labels)[0]
        p[index] = kept - h
        below = network.loss_and_gradients(x, labels)[0]
        p[index] = kept
        numerical[index] = (above - below) / (2 * h)
    assert np.abs(numerical).max() > 1e-2
    np.testing.assert_allclose(gradient, numerical, rtol=1e-6, atol=1e-9)


def test_loss_is_the_mean_cross_entropy():
    network, x, labels = small_network()
    logits = network.forward(x)[-1]
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.mean([-math.log(softmax[i, label]) for i, label in enumerate(labels)])
    assert network.loss_and_gradients(x, labels)[0] == pytest.approx(expected, rel=1e-12)


def test_loss_of_large_logits_is_finite():
    network = MLP((1, 2), rng())
    network.params["weight1"][...] = [[1e4, -1e4]]
    loss, gradients = network.loss_and_gradients(np.ones((1, 1), np.float32), np.array([1]))
    assert loss == 2e4
    assert np.array_equal(gradients["bias1"], [1, -1])


def test_network_computes_in_float32():
    network, x, labels = small_network(np.float32)
    assert {v.dtype for v in network.forward(x)} == {np.dtype(np.float32)}
    loss, gradients = network.loss_and_gradients(x, labels)
    assert isinstance(loss, float)
    assert list(gradients) != list(network.params)  # by name, whatever the order
    assert {n: (g.shape, g.dtype) for n, g in gradients.items()} == {
        n: (p.shape, p.dtype) for n, p in network.params.items()
    }


def test_accuracy():
    network = MLP((2, 2), rng())
    network.params["weight1"][...] = np.eye(2)
    x = np.array([[1, 0], [0, 1], [3, 2], [1, 2]], np.float32)
    assert network.accuracy(x, np.array([0, 1, 1, 1])) == 0.75


# --- AdamW in NumPy.


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_numpy_adamw_equals_instep_in_bits(clip_norm):
    ours, numpys = (MLP((64, 33, 17, 10), rng()).params for _ in range(2))
    lr = learning_rate(0.05, steps=40)
    settings = {"betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.3, "clip_norm": clip_norm}
    optimizer, reference = instep.AdamW(ours, lr, **settings), NumpyAdamW(numpys, lr, **settings)
    noise, norms = rng(1), []
    for size in itertools.islice(itertools.cycle([3.0, 1e-3]), 40):
        grads = {n: (size * noise.standard_normal(p.shape)).astype("f4") for n, p in ours.items()}
        optimizer.step(grads)
        reference.step(grads)
        norms.append(optimizer.grad_norm)
        for name, p in ours.items():
            assert p.tobytes() == numpys[name].tobytes(), f"{name} after step {len(norms)}"
            for state in ("exp_avg", "exp_avg_sq"):
                numpy_state = getattr(reference, state)[name]
                assert optimizer.state[name][state].tobytes() == numpy_state.tobytes()
    if clip_norm is not None:
        assert min(norms) < clip_norm < max(norms)


def test_numpy_adamw_leaves_the_gradients_alone():
    p = {"p": np.ones(3, np.float32)}
    grads = {"p": np.full(3, 5, np.float32)}
    NumpyAdamW(p, lambda step: 0.1, clip_norm=1.0).step(grads)
    assert np.array_equal(grads["p"], [5, 5, 5])
    assert (p["p"] < 1).all()


# --- Data and training.


def test_a_quarter_of_each_class_is_held_out():
    digits = load_digits(rng())
    (train_images, train_labels), (test_images, test_labels) = digits.train, digits.test
    assert train_images.shape == (1347, 64)
    assert test_images.shape == (450, 64)
    for images in (train_images, test_images):
        assert images.dtype == np.float32
        assert (images.min(), images.max()) == (0, 1)
    counts = np.bincount(test_labels)
    np.testing.assert_array_less(np.abs(counts - (np.bincount(train_labels) + counts) / 4), 0.75)
    seen = {image.tobytes() for image in train_images}
    assert not seen & {image.tobytes() for image in test_images}
    assert not np.array_equal(load_digits(rng(1)).test[0], test_images)
    assert np.array_equal(load_digits(rng()).test[0], test_images)


def test_batches_have_every_image_once():
    images, labels = np.arange(10, dtype=np.float32).repeat(64).reshape(10, 64), np.arange(10)
    generator = rng()
    orders = []
    for _ in range(2):
        epoch = batches((images, labels), 4, 0.0, generator)
        assert [len(x) for x, _ in epoch] == [4, 4, 2]
        orders.append([label for _, y in epoch for label in y])
        for x, y in epoch:
            assert x.dtype == np.float32
            assert np.array_equal(x, images[y])
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(10))
    assert orders[0] != orders[1]


def test_noise_on_the_pixels():
    images = np.zeros((500, 64), np.float32)
    ((x, _),) = batches((images, np.zeros(500, int)), 500, 0.2, rng())
    assert x.dtype == np.float32
    assert x.std() == pytest.approx(0.2, rel=0.05)
    assert not images.any()


def test_learning_rate():
    lr = learning_rate(0.5, steps=100)
    assert (lr(0), lr(5), lr(10), lr(55), lr(100)) == (0.0, 0.25, 0.5, 0.25, 0.0)
    assert learning_rate(0.5, steps=1)(0) == 0.5


class Still:
    """An optimizer that changes nothing."""

    def __init__(self):
        self.gradients = []

    def step(self, grads):
        self.gradients.append(grads["weight1"].tobytes())


def test_training_gives_all_runs_the_same_batches():
    data = (rng().random((10, 64), np.float32), np.arange(10))
    runs = [Run(name, MLP((64, 10), rng()), Still()) for name in "ab"]
    train(runs, Digits(data, data), 4, range(2), rng())
    first, second = (run.optimizer.gradients for run in runs)
    assert first == second
    assert len(set(first)) == 6
    for run in runs:
        assert len(run.losses) == len(run.accuracies) == 2
        assert run.accuracies[0] == run.network.accuracy(*data)
        for whole, steps in zip(run.epoch_seconds, run.step_seconds, strict=True):
            assert 0 < steps < whole
    assert runs[0].losses == runs[1].losses


def test_first_difference_compares_bits():
    a, b = MLP((3, 2, 2), rng()), MLP((3, 2, 2), rng())
    assert first_difference(a, b) is None
    b.params["bias2"][1] = -0.0
    assert first_difference(a, b) == "bias2"


# --- The report.


def measured(name, epoch_seconds, step_seconds, accuracies):
    run = Run(name, MLP((64, 3, 10), rng()), Still())
    run.epoch_seconds, run.step_seconds = epoch_seconds, step_seconds
    run.accuracies, run.losses = accuracies, [1.0] * len(accuracies)
    return run


def test_table_has_medians_and_ratios():
    ours = measured("instep.AdamW", [9.0, 0.01, 0.02], [4.5, 0.001, 0.004], [0.1, 0.2, 0.98])
    numpys = measured("AdamW in NumPy", [0.03, 9.0, 0.01], [0.024, 0.1, 0.008], [0.1, 0.2, 0.97])
    rows = [re.split(r"  +", line.strip()) for line in table(ours, numpys, 10).splitlines()]
    assert rows == [
        ["instep.AdamW", "AdamW in NumPy", "NumPy/instep"],
        ["accuracy on held-out images", "98.00%", "97.00%"],
        ["time per epoch", "20.00 ms", "30.00 ms", "1.5"],
        ["time per step", "0.400 ms", "2.400 ms", "6.0"],
        ["share of the epoch in steps", "20.0%", "80.0%"],
        [
            "Times are medians over the epochs (3); an epoch is forward, backward and step"
            " on prepared batches."
        ],
    ]


def test_setting():
    run = measured("instep.AdamW", [], [], [0.5, 0.5])
    digits = Digits((np.empty((1200, 64)), np.empty(1200)), (np.empty((7, 64)), np.empty(7)))
    text = setting(digits, (64, 3, 10), 64, 2000, run)
    assert "1,200 images of handwritten digits to train on, 7 held out" in text
    assert "network 64-3-10, 235 float32 parameters; batch size 64, epochs 2, steps 2,000" in text


# --- The command.


def test_the_whole_demo(tmp_path):
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = python("-W", "error", "-m", "instep", "demo", **one_thread)
    assert (done.returncode, done.stderr) == (0, "")
    accuracies = re.search(r"^accuracy on held-out images +(\S+)% +(\S+)%$", done.stdout, re.M)
    assert accuracies is not None, done.stdout
    assert float(accuracies[1]) >= 97
    assert accuracies[1] == accuracies[2]
    assert "Both runs ended in the same bits" in done.stdout
    assert f"Picture: {tmp_path / 'instep-demo.png'}\n" in done.stdout


def test_report_of_a_quick_demo(capsys):
    assert main([*QUICK, "--no-picture", "--batch-size", "100"]) == 0
    out, err = capsys.readouterr()
    assert not err
    assert "batch size 100, epochs 2, steps 28" in out
    percent, ms = r"\d+\.\d+%", r"\d+\.\d+ ms"
    for row in (
        rf"accuracy on held-out images +({percent}) +\1",
        rf"time per epoch +{ms} +{ms} +\d+\.\d",
        rf"time per step +{ms} +{ms} +\d+\.\d",
        rf"share of the epoch in steps +{percent} +{percent}",
    ):
        assert re.search(rf"^{row}$", out, re.M), f"{row} in\n{out}"
    assert "Both runs ended in the same bits" in out


def test_the_seed_decides_the_result(monkeypatch):
    losses = []
    monkeypatch.setattr(
        "instep.commands.demo.command.table", lambda ours, *others: losses.append(ours.losses)
    )
    for seed in ("0", "0", "1"):
        assert main(["demo", "--epochs", "1", "--no-picture", "--seed", seed]) == 0
    assert losses[0] == losses[1] != losses[2]


def test_different_bits_are_said_and_fail(capsys, monkeypatch, tmp_path):
    class OneBitOff(NumpyAdamW):
        def step(self, grads):
            super().step(grads)
            if self.step_count == 44:
                self.params["weight3"].view(np.int32)[5, 5] ^= 1

    monkeypatch.setattr("instep.commands.demo.command.NumpyAdamW", OneBitOff)
    assert main(QUICK) == 1
    out = capsys.readouterr().out
    assert "RUNS ENDED IN DIFFERENT BITS; the first parameter that differs: weight3" in out
    assert "same bits" not in out
    assert (tmp_path / "instep-demo.png").exists()


@pytest.mark.parametrize(
    ("module", "package"),
    [("sklearn.datasets", "scikit-learn"), ("tqdm", "tqdm"), ("matplotlib.figure", "matplotlib")],
)
def test_a_missing_package_is_named(module, package, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(numpy_adamw.NumpyAdamW, "step", None)  # said before any training
    assert main(QUICK) == 1
    out, err = capsys.readouterr()
    assert not out
    message = f"the demo needs {package}, which is missing; pip install 'instep[demo]'"
    assert err == f"instep demo: {message}\n"


@pytest.mark.parametrize(
    ("module", "option"), [("tqdm", "--quiet"), ("matplotlib.figure", "--no-picture")]
)
def test_what_is_not_used_need_not_be_there(module, option, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    assert main([*QUICK, option]) == 0


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("options", "shown"), [([], True), (["--quiet"], False)])
def test_progress_bar_on_a_terminal(options, shown, monkeypatch):
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    assert main([*QUICK, "--no-picture", *options]) == 0
    assert ("training" in stderr.getvalue()) is shown
