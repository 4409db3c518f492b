"""L1, L2 and no regularisation: 20 inputs, of which only 5 matter, and 30 noisy points.

L2 pulls in proportion to the weight: it takes the same share off each weight, and leaves no weight
at zero. L1 pulls equally hard at every weight: it takes the same amount off each weight, and takes
weights that are smaller than this amount to zero. Its pull changes sign at zero, so a weight near
zero shivers by lr * l1. The weight reaches zero only if the learning rate falls to zero.
"""

import numpy as np
from picture import BLUE, GREY, ORANGE, output_path, picture

import instep
from instep import schedules

STEPS, POINTS = 500, 30

rng = np.random.default_rng(0)
truth = np.zeros(20)
truth[[1, 4, 9, 12, 17]] = [3.0, -2.0, 1.5, -1.0, 2.5]
# The inputs are not correlated, so that only the regularisation changes a weight.
x = np.sqrt(POINTS) * np.linalg.qr(rng.standard_normal((POINTS, 20)))[0]
y = x @ truth + rng.standard_normal(POINTS)


def train(**regularisation):
    """Return the weights before the first step and after each step."""
    w = np.zeros(20)
    lr = schedules.CosineDecay(0.05, steps=STEPS)
    optimizer = instep.SGD(w, lr=lr, **regularisation)
    path = [w.copy()]
    for _ in range(STEPS):
        optimizer.step(2 * x.T @ (x @ w - y) / POINTS)
        path.append(w.copy())
    return np.array(path)


output = output_path(__doc__)
runs = {"neither": train(), "L2": train(weight_decay=0.5), "L1": train(l1=0.5)}

for name, path in runs.items():
    zeros = np.sum(np.abs(path[-1]) < 1e-3)
    length, error = np.linalg.norm(path[-1]), np.linalg.norm(path[-1] - truth)
    print(
        f"{name}: {zeros} of 20 weights below 0.001, length {length:.3f}, "
        f"{error:.3f} from the truth"
    )

if output:
    colours = {"neither": GREY, "L2": ORANGE, "L1": BLUE}
    title = "L1 against L2: 15 of 20 weights should be zero"
    with picture(output, title, 3) as (bars, pulled, small):
        k = np.arange(20)
        bars.plot(k, truth, "_", color="black", markersize=13, markeredgewidth=2, label="truth")
        for place, (name, path) in zip((-0.27, 0, 0.27), runs.items(), strict=True):
            bars.bar(k + place, path[-1], 0.27, color=colours[name], label=name)
        bars.set(title="Weights in the end", xlabel="input", ylabel="weight", xticks=k[::2])

        plain = runs["neither"][-1]
        pulled.axline((0, 0), slope=1, color=GREY, linewidth=3, label="neither")
        for name, marker in (("L2", "o"), ("L1", "s")):
            pulled.plot(
                plain, runs[name][-1], marker, color=colours[name], markersize=5, label=name
            )
        pulled.set(title="What each takes off a weight")
        pulled.set(xlabel="weight with neither", ylabel="weight with L2 or L1")

        for name, path in runs.items():
            size = np.median(np.abs(path[1:, truth == 0]), axis=1)
            small.semilogy(np.arange(1, STEPS + 1), size, color=colours[name], label=name)
        small.set(title="The 15 that should be zero", xlabel="step", ylabel="median of |weight|")
