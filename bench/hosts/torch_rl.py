"""Reinforcement learning by stable-baselines3, end to end: PPO on CartPole and SAC on Pendulum.

The optimizers take turns: torch.optim.Adam as it is and with fused=True, and instep.torch.Adam, each a whole training
in a process of its own with the same seeds. Beside the wall time of `learn` stands the share that its optimizers' steps
take, and the CPU time of the process, which other programs on the machine disturb less. (SAC makes its third optimizer
itself, one of torch.optim, of a single number.)

    python bench/hosts/torch_rl.py [--algorithm PPO SAC] [--steps N] [--seeds 0 1 2] [--threads 1] [--json FILE]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # for the modules of bench/

from package import options as allowed
from package import turns
from programs import DEFAULT, FORMS, FUSED
from tables import duration, plain_table
from task import OURS

NEEDED = {"stable_baselines3": "stable-baselines3", "gymnasium": "gymnasium"}
ENVIRONMENTS = {"PPO": "CartPole-v1", "SAC": "Pendulum-v1"}
STEPS = {"PPO": 20_000, "SAC": 3_000}  # of the environment
WHO = (DEFAULT, FUSED, OURS)


def timed(step: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    def timed_step(*args: Any) -> Any:
        start = time.perf_counter()
        found = step(*args)
        spent.append(time.perf_counter() - start)
        return found

    return timed_step


def learn(algorithm: str, who: str, steps: int, seed: int, threads: int) -> dict[str, float]:
    """Train once, in this process."""
    import stable_baselines3  # noqa: PLC0415 - in the process of a training alone
    import torch  # noqa: PLC0415

    optimizer: Any = torch.optim.Adam
    if who == OURS:
        import instep.torch  # noqa: PLC0415

        optimizer = instep.torch.Adam
        instep.set_num_threads(threads)
    torch.set_num_threads(threads)
    model = getattr(stable_baselines3, algorithm)(
        "MlpPolicy",
        ENVIRONMENTS[algorithm],
        seed=seed,
        device="cpu",
        # eps is what it passes to torch.optim.Adam itself.
        policy_kwargs={
            "optimizer_class": optimizer,
            "optimizer_kwargs": {"eps": 1e-5, **FORMS.get(who, {})},
        },
    )
    policy = model.policy
    owners = [policy] if algorithm == "PPO" else [policy.actor, policy.critic]
    optimizers = [owner.optimizer for owner in owners]
    optimizers += [model.ent_coef_optimizer] if algorithm == "SAC" else []
    spent: list[float] = []
    for one in optimizers:
        one.step = timed(one.step, spent)
    start, busy = time.perf_counter(), time.process_time()
    model.learn(steps)
    took, busy = time.perf_counter() - start, time.process_time() - busy
    rewards = [episode["r"] for episode in model.ep_info_buffer]
    return {
        "seconds": took,
        "CPU seconds": busy,
        "in steps": sum(spent),
        "steps": float(len(spent)),
        "reward": statistics.fmean(rewards) if rewards else float("nan"),
    }


def in_a_process(*arguments: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(algorithm: str, steps: int, seeds: list[int], threads: int) -> dict[str, Any]:
    runs: dict[str, list[dict[str, float]]] = {who: [] for who in WHO}
    for seed in seeds:
        for who in WHO:
            arguments = map(str, (algorithm, who, steps, seed, threads))
            runs[who].append(in_a_process(*arguments))

    def by_instep(found: list[dict[str, float]], key: str) -> float:
        return turns.ratio([run[key] for run in found], [run[key] for run in runs[OURS]])

    return {
        who: {
            **{key: statistics.median(run[key] for run in found) for key in found[0]},
            "by instep": by_instep(found, "seconds"),
            "CPU by instep": by_instep(found, "CPU seconds"),
        }
        for who, found in runs.items()
    }


def as_text(found: dict[str, dict[str, Any]]) -> str:
    header = (
        "",
        "learn",
        "of it in steps",
        "steps",
        "a step",
        "mean reward",
        "x instep",
        "CPU",
        "x",
    )
    lines = [header]
    for row, contestants in found.items():
        for who, one in contestants.items():
            share = f"{100 * one['in steps'] / one['seconds']:.1f} %"
            each = duration(one["in steps"] / one["steps"])
            figures = (f"{one['steps']:,.0f}", each, f"{one['reward']:.1f}")
            ratio, busy = f"{one['by instep']:.2f}", duration(one["CPU seconds"])
            cells = (duration(one["seconds"]), share, *figures, ratio, busy)
            lines.append((f"{row}, {who}", *cells, f"{one['CPU by instep']:.2f}"))
    return plain_table(lines)


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        algorithm, who, *numbers = sys.argv[2:]
        print(json.dumps(learn(algorithm, who, *map(int, numbers))))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--algorithm", choices=STEPS, nargs="+", default=list(STEPS))
    parser.add_argument(
        "--steps", type=allowed.count, help=f"of the environment ({STEPS} by default)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=allowed.count, default=1)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    asked = parser.parse_args()
    missing = [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        parser.error(f"{' and '.join(missing)} must be installed: pip install {' '.join(missing)}")
    from machine import describe  # noqa: PLC0415 - not in the process of a training

    report: dict[str, Any] = {"machine": describe(), "load average": [os.getloadavg()[0]]}
    rows = report["rows"] = {
        f"{algorithm} on {ENVIRONMENTS[algorithm]}": measure(
            algorithm, asked.steps or STEPS[algorithm], asked.seeds, asked.threads
        )
        for algorithm in asked.algorithm
    }
    report["load average"].append(os.getloadavg()[0])
    for name, value in report["machine"].items():
        print(f"{name}: {value}")
    before, after = report["load average"]
    print(f"load average: {before:.1f} before, {after:.1f} after\n\n{as_text(rows)}")
    if asked.json:
        asked.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
