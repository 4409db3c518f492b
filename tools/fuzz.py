"""Draw examples for every property of the tests, with new seeds, until the time is over.

    python tools/fuzz.py [MINUTES] [arguments of pytest]

Stops at the first failure, and prints the example and how to draw it again.
"""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
import time


def drawn(seed: int, arguments: list[str]) -> int:
    """Run every property once; return the number of examples."""
    options = ["-q", "-p", "no:cacheprovider", "-m", "hypothesis", "--hypothesis-profile=fuzz"]
    options += [f"--hypothesis-seed={seed}", "--hypothesis-show-statistics", *arguments]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options], capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(done.stdout, done.stderr)
        raise SystemExit(f"fuzz: failed with --hypothesis-seed={seed}")
    return sum(map(int, re.findall(r"- (\d+) passing", done.stdout)))


def main() -> None:
    minutes, *arguments = sys.argv[1:] or ["10"]
    start, examples, rounds = time.monotonic(), 0, 0
    spent = 0.0
    while spent < float(minutes):
        examples += drawn(secrets.randbelow(2**32), arguments)
        rounds += 1
        spent = (time.monotonic() - start) / 60
        print(f"{spent:5.1f} min  {rounds:3} rounds  {examples:7,} examples", flush=True)
    print(f"fuzz: {examples:,} examples in {rounds} rounds, no failure")


if __name__ == "__main__":
    main()
