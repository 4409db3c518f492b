"""Type-checks the README's examples as the strictest user would: `python tools/check_readme.py`.

All blocks are one program there, as a reader follows them and as the tests run them.
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
    # Padded with empty lines, so that mypy names the README's own.
    lines = [""] * (readme.count("\n") + 1)
    for block in re.finditer(r"^```python\n(.*?)^```", readme, re.M | re.S):
        first = readme.count("\n", 0, block.start(1))
        code = block[1].splitlines()
        lines[first : first + len(code)] = code
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "README.py")
        program.write_text("\n".join(lines), encoding="utf-8")
        options = ("--strict", "--python-version=3.10", "--allow-redefinition", "--config-file=")
        command = [sys.executable, "-m", "mypy", *options, str(program)]
        environment = {**os.environ, "MYPYPATH": str(ROOT / "python")}
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
