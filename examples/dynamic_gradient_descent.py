"""Dynamic gradient descent: lr = 0.1 / (1 + sqrt(t)), on x^2 from 10.

With exact gradients, the falling rate only costs time. With noisy gradients, x arrives only because
the rate falls: a constant rate keeps x shaking, the more, the larger the rate is.
"""

import numpy as np
from picture import output_path, picture

import instep
from instep import schedules

STEPS = 1000
RATES = {
    "lr = 0.1": schedules.Constant(0.1),
    "lr = 0.1 / (1 + sqrt(t))": schedules.SqrtDecay(0.1),
}


def descend(lr, noise):
    """Return the root mean square of a hundred x's before the first step and after each step."""
    rng = np.random.default_rng(0)
    x = np.full(100, 10.0)
    optimizer = instep.SGD(x, lr=lr)
    distances = [10.0]
    for _ in range(STEPS):
        optimizer.step(2 * x + noise * rng.standard_normal(100))
        distances.append(np.sqrt(np.mean(x**2)))
    return distances


output = output_path(__doc__)
exact = {name: descend(lr, noise=0.0) for name, lr in RATES.items()}
noisy = {name: descend(lr, noise=4.0) for name, lr in RATES.items()}

for name in RATES:
    print(
        f"{name}: after 100 exact steps |x| = {exact[name][100]:.2e}; "
        f"after {STEPS} noisy ones {noisy[name][-1]:.3f}"
    )

if output:
    t = np.arange(STEPS)
    with picture(output, "Dynamic gradient descent on x² from 10", 3) as (rates, first, second):
        for name, lr in RATES.items():
            rates.semilogy(t, lr(t), label=name)
            first.semilogy(exact[name][:101], label=name)
            second.semilogy(noisy[name], label=name)
        rates.set(title="Learning rate", xlabel="step", ylabel="learning rate")
        first.set(title="Exact gradients, 100 steps", xlabel="step", ylabel="|x|")
        second.set(title="Noisy gradients: 2x + 4 · N(0, 1), 1000 steps", xlabel="step")
        second.set_ylabel("root mean square of x in 100 runs")
