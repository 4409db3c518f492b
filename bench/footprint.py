"""What instep costs before it does anything: the time to import it, beyond NumPy's, and the size of its wheel.

python bench/footprint.py [--seconds 5] [--wheel FILE]
"""

from __future__ import annotations

import argparse
import io
import statistics
import subprocess
import sys
import zipfile
from functools import partial
from importlib.metadata import files
from pathlib import Path

from package import options as allowed
from package import turns
from tables import duration

CODE = """
import time
{before}
start = time.perf_counter()
import {module}
print(time.perf_counter() - start)
"""


def import_time(module: str, before: str = "") -> float:
    code = CODE.format(module=module, before=before and f"import {before}")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def wheel_size() -> int:
    """The installed files, packed as a wheel packs them."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files("instep") or []:
            path = Path(str(file.locate()))
            if (
                path.suffix != ".pyc" and ".." not in file.parts
            ):  # bytecode and scripts are made on the spot
                archive.write(path, file.as_posix())
    return len(packed.getvalue())


def measure(seconds: float, wheel: Path | None = None) -> dict[str, float]:
    times = turns.take_turns(
        {
            "numpy": partial(import_time, "numpy"),
            "instep": partial(import_time, "instep", before="numpy"),
        },
        seconds,
    )
    return {
        "import numpy": statistics.median(times["numpy"]),
        "import instep": statistics.median(times["instep"]),
        "wheel": wheel_size() if wheel is None else wheel.stat().st_size,
    }


def as_text(found: dict[str, float]) -> str:
    return (
        f"import numpy {duration(found['import numpy'])}; "
        f"import instep, beyond that, {duration(found['import instep'])}; "
        f"wheel {found['wheel'] / 1e6:.2f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=allowed.seconds, default=5.0, help="of turns")
    parser.add_argument(
        "--wheel", type=Path, help="a built wheel; else the installed files are packed"
    )
    arguments = parser.parse_args()
    print(as_text(measure(arguments.seconds, arguments.wheel)))


if __name__ == "__main__":
    main()
