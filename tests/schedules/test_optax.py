"""The schedules against optax's, in float64."""

import numpy as np
import pytest

from instep.schedules import CosineDecay, PiecewiseLinear

optax = pytest.importorskip("optax")

COUNTERPARTS = {
    "cosine_decay_schedule": (
        CosineDecay(0.5, 800, end=0.05),
        optax.cosine_decay_schedule(0.5, 800, alpha=0.1),
    ),
    **{
        f"cosine_decay_schedule with exponent {exponent}": (
            CosineDecay(0.5, 800, end=0.05, exponent=exponent),
            optax.cosine_decay_schedule(0.5, 800, alpha=0.1, exponent=exponent),
        )
        for exponent in (0.5, 1.7, 3)
    },
    "piecewise_interpolate_schedule": (
        PiecewiseLinear([0.5, 1.0, 1.0, 0.1, 0.0], [100, 250, 600, 601]),
        optax.piecewise_interpolate_schedule(
            "linear", 0.5, {100: 2.0, 250: 1.0, 600: 0.1, 601: 0.0}
        ),
    ),
}


@pytest.mark.usefixtures("jax_in_double")
@pytest.mark.parametrize("name", COUNTERPARTS)
def test_equals_its_counterpart(name):
    schedule, counterpart = COUNTERPARTS[name]
    steps = [*range(0, 1000, 7), 100, 250, 600, 601, 800]
    expected = [float(counterpart(t)) for t in steps]
    assert len(set(expected)) > 50
    np.testing.assert_allclose(schedule(steps), expected, rtol=1e-12, atol=1e-16)
