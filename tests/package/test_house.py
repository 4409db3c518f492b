"""The house: no import in a circle, and no file that can't be read at one sitting."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = next(path for path in Path(__file__).parents if (path / "pyproject.toml").is_file())
PACKAGE = ROOT / "python" / "instep"

LONGEST = 400  # lines of a file


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# The compiled core stands by its description.
MODULES = {module_of(p): p for p in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyi")])}


def imported(path: Path) -> Iterator[str]:
    """Modules of the package that a file imports: the one that has a name, not those above it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: imports are written in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            package, _, inside = name.partition(".")
            if package == "instep":
                yield inside if inside in MODULES else inside.rpartition(".")[0]


# Every import counts: one inside a function, which hides a circle, and one under ``if TYPE_CHECKING``, for a module
# whose types another one has can't be understood, or moved, without it either.
IMPORTS = {name: set(imported(path)) - {name} for name, path in MODULES.items()}


def circles(imports: dict[str, set[str]]) -> list[set[str]]:
    """Sets of modules that all import one another, by whatever way."""

    def reached(name: str) -> set[str]:
        seen: set[str] = set()
        rest = [name]
        while rest:
            new = imports[rest.pop()] - seen
            seen |= new
            rest.extend(new)
        return seen

    reach = {name: reached(name) for name in imports}
    found = {frozenset(b for b in reach[a] if a in reach[b]) for a in imports if a in reach[a]}
    return sorted(map(set, found), key=sorted)


def test_circles_are_found() -> None:
    a, b, c, d = ({"b"}, {"c"}, {"b", "d"}, set[str]())
    assert circles({"a": a, "b": b, "c": c, "d": d}) == [{"b", "c"}]
    assert circles({"a": a, "b": set(), "c": {"a"}}) == []


def test_what_is_imported_is_a_module_that_is_there() -> None:
    assert {"", "_core", "schedules.base", "checkpoint"} <= set(MODULES)
    assert set().union(*IMPORTS.values()) <= set(MODULES)
    assert "schedules.writing" in IMPORTS["schedules.base"]


def test_no_import_in_a_circle() -> None:
    ways = [{one: sorted(IMPORTS[one] & circle) for one in circle} for circle in circles(IMPORTS)]
    assert not ways, "modules that import one another"


def sources() -> list[Path]:
    folders = [ROOT / name for name in ("python", "cpp", "tests", "bench", "tools")]
    kinds = (".py", ".pyi", ".cpp", ".hpp")
    code = (p for folder in folders for p in folder.rglob("*") if p.suffix in kinds)
    return sorted([*code, *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_no_file_is_too_long_to_read() -> None:
    lines = {}
    for path in sources():
        with path.open(encoding="utf-8") as file:
            lines[path.relative_to(ROOT).as_posix()] = sum(1 for _ in file)
    assert not {path: count for path, count in lines.items() if count > LONGEST}


def parts() -> list[str]:
    """Folders, and what each header of the core is about."""
    folders = [ROOT, PACKAGE, ROOT / "cpp", ROOT / "tests", ROOT / "docs", ROOT / "bench"]
    found = {f"{p.name}/" for folder in folders for p in folder.iterdir() if any(p.glob("*.*"))}
    found -= {f"{name}/" for name in ("licenses", "__pycache__", "build", "dist")}
    headers = (
        p for name in ("kernels", "runtime", "python") for p in ROOT.glob(f"cpp/{name}/*.hpp")
    )
    return sorted({p for p in found if not p.startswith(".")} | {p.stem for p in headers})


def test_the_drawing_of_the_house_names_every_part() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawing = text.partition("## The house")[2].split("```")[1]
    lacking = [
        part for part in parts() if not re.search(rf"(?<!\w){re.escape(part)}(?!\w)", drawing)
    ]
    assert not lacking, "CONTRIBUTING.md doesn't say what these are for"
