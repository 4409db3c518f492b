"""What the documentation shows runs as written."""

from __future__ import annotations

import doctest
import importlib.util
import inspect
import json
import pkgutil
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_origin

import pytest
from interpreters import python

import instep

ROOT = Path(__file__).parents[2]
# The faces, and the libraries in whose loops they step.
LIBRARIES = {"minimize": "scipy", "sklearn": "sklearn", "thinc": "thinc", "torch": "torch"}
MISSING = [face for face, name in LIBRARIES.items() if importlib.util.find_spec(name) is None]
# Importing over_mpi starts MPI in this process; tests/ranks tries its examples.
LEFT_OUT = ("_core", "__main__", "over_mpi", *MISSING, *(f"over_{face}" for face in MISSING))
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(instep.__path__, "instep.")
    if not any(part in LEFT_OUT for part in module.name.split("."))
)
PUBLIC = [
    *(instep, instep.schedules, instep.checkpoint, instep.interop, instep.storage, instep.mpi),
    *(importlib.import_module(f"instep.{face}") for face in LIBRARIES if face not in MISSING),
]


@pytest.mark.parametrize("face", MISSING)
def test_a_face_without_its_library(face: str) -> None:
    message = f"instep.{face} needs .* is missing; pip install 'instep"
    with pytest.raises(ImportError, match=message):
        importlib.import_module(f"instep.{face}")
    pytest.skip(f"{LIBRARIES[face]} is not installed: the documents of instep.{face} are not tried")


@pytest.mark.parametrize("name", ["instep", *MODULES])
def test_examples_in_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), raise_on_error=False)
    assert result.failed == 0


def test_examples_of_public_classes() -> None:
    """Which say that they are of the package's public modules, and so are passed over above."""
    finder, attempted = doctest.DocTestFinder(), 0
    for module in PUBLIC:
        for name in module.__all__:
            if not isinstance(found := getattr(module, name), type) or get_origin(found):
                continue
            for example in finder.find(found, name, module=False, globs=vars(module).copy()):
                result = doctest.DocTestRunner().run(example)
                assert result.failed == 0, example.name
                attempted += result.attempted
    assert attempted > 100


def public_callables(module: ModuleType) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every public function and class of a module, and the classes' public methods."""
    for name in module.__all__:
        found = getattr(module, name)
        if get_origin(found) is not None:
            continue  # an alias of types, which Python 3.10 takes for a class
        if isinstance(found, type) and not issubclass(found, Exception):
            yield name, found
            for attribute, method in inspect.getmembers(found, inspect.isroutine):
                own = (getattr(method, "__module__", None) or "instep").startswith("instep")
                if own and not attribute.startswith("_"):  # not what a face inherits
                    yield f"{name}.{attribute}", method
        elif inspect.isfunction(found):
            yield name, found


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_signatures_are_there_to_be_read(module: ModuleType) -> None:
    names = []
    for name, found in public_callables(module):
        signature = inspect.signature(found)
        types = [parameter.annotation for parameter in signature.parameters.values()]
        for annotation in (*types, signature.return_annotation):
            assert not inspect.formatannotation(annotation).startswith(("'", '"')), name
        assert "object at 0x" not in str(signature), name
        assert inspect.getdoc(found), f"{name} has no docstring"
        names.append(name)
    assert len(names) > 1


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_whatever_is_public_has_an_example(module: ModuleType) -> None:
    for name, found in public_callables(module):
        if "." in name or found is instep.Optimizer:
            continue  # its rules have examples
        (example, *_) = doctest.DocTestFinder(recurse=False).find(found, name)
        assert example.examples, f"{name} has no example"
        sections = inspect.getdoc(found) or ""
        is_protocol = getattr(found, "_is_protocol", False)  # of which nobody makes an object
        if set(inspect.signature(found).parameters) and not is_protocol:
            assert "Parameters\n-" in sections, name
            assert "Raises\n-" in sections or found is instep.schedules.Schedule, name


def test_a_step_without_gradients_in_its_signature() -> None:
    (default,) = re.findall("grads: .* = (.*), \\*", str(inspect.signature(instep.Adam.step)))
    assert default == "<accumulated gradients>"


@pytest.mark.parametrize("module", [*PUBLIC, instep.typing], ids=lambda module: module.__name__)
def test_dir_has_what_is_public(module: ModuleType) -> None:
    assert dir(module) == sorted(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)


def python_blocks(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Whose blocks are programs of their own, to be copied.
APART = ("README.md", "recipes.md", "recipes-rules.md", "recipes-signatures.md")
# Whose blocks are programs of several processes, which tests/ranks/test_recipes.py starts by their launchers.
OF_RANKS = ("ranks.md", "recipes-ranks.md")


def programs() -> Iterator[Any]:
    """Each block of some pages, and all blocks of any other page, one after another."""
    for path in PAGES:
        blocks = [] if path.name in OF_RANKS else python_blocks(path)
        if path.name in APART:
            assert len(blocks) > 3, path
            for k, block in enumerate(blocks):
                yield pytest.param(block, id=f"{path.name}-{k}")
        elif blocks:
            missing = path.stem in MISSING
            marks = pytest.mark.skipif(missing, reason=f"{path.stem} is not installed")
            yield pytest.param("\n".join(blocks), id=path.name, marks=marks)


@pytest.mark.parametrize("program", list(programs()))
def test_python_blocks_run(program: str, tmp_path: Path) -> None:
    """As a file in an empty folder."""
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    done = python("-W", "error", "program.py", folder=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr


def anchors(path: Path) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), ROOT / "bench" / "README.md", *(ROOT / "docs").rglob("*.md")]
    links = [
        (page, link)
        for page in pages
        for link in re.findall(r"\]\(([^)\s]+)", page.read_text(encoding="utf-8"))
        if "://" not in link
    ]
    assert len(links) > 20
    for page, link in links:
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), f"{page.relative_to(ROOT)}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.relative_to(ROOT)}: {link}"


def test_scripts_that_are_named_are_there() -> None:
    pages = [*ROOT.glob("*.md"), ROOT / "bench" / "README.md", *(ROOT / "docs").glob("*.md")]
    scripts = [
        (page.name, script)
        for page in pages
        for script in re.findall(
            r"python ((?:bench|tools|tests|examples)/[\w/]+\.py)", page.read_text("utf-8")
        )
    ]
    assert len(scripts) > 10
    assert [(page, script) for page, script in scripts if not (ROOT / script).exists()] == []


def test_the_index_of_benchmarks_names_every_folder_and_its_build() -> None:
    folder = ROOT / "docs" / "benchmarks"
    index = (folder / "README.md").read_text(encoding="utf-8")
    machines = {path.parent.name: json.loads(path.read_bytes()) for path in folder.glob("*/*.json")}
    assert machines
    for name, results in machines.items():
        (row,) = re.findall(rf"^\| \[{name}\].*$", index, re.M)
        assert f"| {results['machine']['build']} |" in row, name


def test_readme_opens_with_a_short_example() -> None:
    first = python_blocks(ROOT / "README.md")[0]
    lines = [line for line in first.splitlines() if line.strip()]
    assert 5 <= len(lines) <= 14


def test_the_version_has_one_source() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{instep.__version__}"' in pyproject
    assert f"## {instep.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_fault_names_a_test_that_is_there() -> None:
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    names = re.findall(r"^def test_(\w+)", tests, re.M)
    rows = re.findall(r"^\|.*\| (`.*`) \|$", (ROOT / "docs/faults.md").read_text("utf-8"), re.M)
    assert len(rows) > 30
    for name in re.findall(r"`([^`]+)`", " ".join(rows)):
        assert name.startswith("pytest -m") or any(name in test for test in names), name
