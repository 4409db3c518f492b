"""The report: a table of the results, with words that explain it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from instep.commands.demo.digits import Digits
from instep.commands.demo.training import Run

__all__ = ["setting", "table"]

_LABELS, _COLUMN = 28, 17


def setting(digits: Digits, sizes: Sequence[int], batch_size: int, steps: int, run: Run) -> str:
    """Return a description of network, data and number of steps."""
    parameters = sum(p.size for p in run.network.params.values())
    return (
        f"{len(digits.train[1]):,} images of handwritten digits to train on, "
        f"{len(digits.test[1]):,} held out\n"
        f"network {'-'.join(map(str, sizes))}, {parameters:,} float32 parameters; "
        f"batch size {batch_size}, epochs {len(run.losses)}, steps {steps:,}"
    )


def table(instep_run: Run, numpy_run: Run, steps_per_epoch: int) -> str:
    """Return the table; its last column says how many times as long NumPy takes."""
    runs = (instep_run, numpy_run)
    epochs = [median(run.epoch_seconds) for run in runs]
    steps = [median(run.step_seconds) / steps_per_epoch for run in runs]
    shares = [
        median(s / e for s, e in zip(run.step_seconds, run.epoch_seconds, strict=True))
        for run in runs
    ]
    rows = [
        ("", *(run.name for run in runs), "NumPy/instep"),
        ("accuracy on held-out images", *(f"{run.accuracies[-1]:.2%}" for run in runs), ""),
        ("time per epoch", *(f"{1e3 * time:.2f} ms" for time in epochs), _ratio(*epochs)),
        ("time per step", *(f"{1e3 * time:.3f} ms" for time in steps), _ratio(*steps)),
        ("share of the epoch in steps", *(f"{share:.1%}" for share in shares), ""),
    ]
    lines = [
        f"{label:<{_LABELS}}{ours:>{_COLUMN}}{numpys:>{_COLUMN}}{ratio:>15}".rstrip()
        for label, ours, numpys, ratio in rows
    ]
    lines.append(
        f"Times are medians over the epochs ({len(instep_run.epoch_seconds)}); an epoch is "
        "forward, backward and step on prepared batches."
    )
    return "\n".join(lines)


def _ratio(ours: float, numpys: float) -> str:
    return f"{numpys / ours:.1f}"
