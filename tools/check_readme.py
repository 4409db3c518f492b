"""Type-checks the README's examples as the strictest user would: `python tools/check_readme.py`.

Each block is a program of its own, as a reader copies it and as the tests run it.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> int:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        programs = []
        for block in re.finditer(r"^```python\n(.*?)^```", readme, re.M | re.S):
            before = readme.count("\n", 0, block.start(1))
            programs.append(Path(folder, f"README_{before + 1}.py"))
            # After empty lines, so that mypy names the README's own.
            programs[-1].write_text("\n" * before + block[1], encoding="utf-8")
        options = ("--strict", "--python-version=3.10", "--allow-redefinition", "--config-file=")
        command = [sys.executable, "-m", "mypy", *options, *map(str, programs)]
        environment = {**os.environ, "MYPYPATH": str(ROOT / "python")}
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
