"""L1 against L2 regularisation: 20 inputs of which only 5 matter, 30 noisy points.

L2 pulls in proportion to the weight and leaves all of them small; L1 pulls equally hard at every
size and takes those that don't matter to zero. Its pull turns round at zero, so a weight there
shivers by lr * l1: the learning rate has to fall to zero for the weight to get there.
"""

import numpy as np
from picture import BLUE, GREY, ORANGE, output_path, picture

import instep
from instep import schedules

STEPS = 500

rng = np.random.default_rng(0)
truth = np.zeros(20)
truth[[1, 4, 9, 12, 17]] = [3.0, -2.0, 1.5, -1.0, 2.5]
x = rng.standard_normal((30, 20))
y = x @ truth + rng.standard_normal(30)


def train(**regularisation):
    """Return the weights before the first step and after each."""
    w = np.zeros(20)
    lr = schedules.CosineDecay(0.05, steps=STEPS)
    optimizer = instep.SGD(w, lr=lr, **regularisation)
    path = [w.copy()]
    for _ in range(STEPS):
        optimizer.step(2 * x.T @ (x @ w - y) / len(x))
        path.append(w.copy())
    return np.array(path)


output = output_path(__doc__)
runs = {"neither": train(), "L2": train(weight_decay=0.5), "L1": train(l1=0.5)}

for name, path in runs.items():
    zeros = np.sum(np.abs(path[-1]) < 1e-3)
    error = np.linalg.norm(path[-1] - truth)
    print(f"{name}: {zeros} of 20 weights below 0.001, {error:.2f} from the truth")

if output:
    with picture(output, "L1 against L2: 15 of 20 weights should be zero", 3) as (bars, *paths):
        k = np.arange(20)
        bars.plot(k, truth, "_", color="black", markersize=13, markeredgewidth=2, label="truth")
        bars.bar(k - 0.2, runs["L2"][-1], 0.4, color=ORANGE, label="L2")
        bars.bar(k + 0.2, runs["L1"][-1], 0.4, color=BLUE, label="L1")
        bars.set(title="Weights in the end", xlabel="input", ylabel="weight", xticks=k[::2])
        for axes, name, colour in zip(paths, ("L2", "L1"), (ORANGE, BLUE), strict=True):
            axes.axhline(0, color=GREY, linewidth=3)
            axes.plot(runs[name][:, truth == 0], color=colour, linewidth=0.8)
            axes.set(title=f"{name}: the 15 that should be zero", xlabel="step", ylabel="weight")
            axes.set(ylim=(-0.65, 0.65))
