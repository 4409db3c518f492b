"""Exponential decay and cosine annealing, epoch by epoch, against a constant learning rate.

The problem is linear regression on mini-batches of 5; the results are means of 20 runs. A schedule
is called with the number of completed steps. If this number is divided by the steps of an epoch and
rounded down, the schedule counts epochs.
"""

import numpy as np
from picture import output_path, picture
from straight_line import StraightLine

import instep
from instep import schedules

EPOCHS, BATCH, RUNS = 60, 5, 20

line = StraightLine()
steps_per_epoch = len(line.y) // BATCH
cosine = schedules.CosineDecay(0.1, steps=EPOCHS)
RATES = {
    "constant": schedules.Constant(0.1),
    "exponential": schedules.ExponentialDecay(0.1, 0.93, steps=steps_per_epoch, staircase=True),
    "cosine": lambda step: cosine(step // steps_per_epoch),
}


def train(lr, seed):
    """Return, after each epoch, how much the loss exceeds the least loss."""
    rng = np.random.default_rng(seed)
    theta = np.zeros(2)
    optimizer = instep.SGD(theta, lr=lr)
    excess = []
    for _ in range(EPOCHS):
        for rows in line.batches(BATCH, rng):
            optimizer.step(line.gradient(theta, rows))
        excess.append(line.excess(theta))
    return excess


output = output_path(__doc__)
runs = {
    name: np.mean([train(lr, seed) for seed in range(RUNS)], axis=0) for name, lr in RATES.items()
}

for name, excess in runs.items():
    last_rate = RATES[name](EPOCHS * steps_per_epoch - 1)
    print(f"{name}: lr 0.1 -> {last_rate:.2e}, {excess[-1]:.2e} above the least loss")

if output:
    with picture(output, f"Annealing on linear regression, mini-batches of {BATCH}") as (
        rates,
        losses,
    ):
        steps = np.arange(EPOCHS * steps_per_epoch)
        for name, lr in RATES.items():
            rates.plot(steps / steps_per_epoch, [lr(int(step)) for step in steps], label=name)
            losses.semilogy(np.arange(1, EPOCHS + 1), runs[name], label=name)
        rates.set(title="Learning rate of each epoch", xlabel="epoch", ylabel="learning rate")
        losses.set(title=f"How far from the best, mean of {RUNS} runs", xlabel="epoch")
        losses.set_ylabel("mean squared error above the least")
