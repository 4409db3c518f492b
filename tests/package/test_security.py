"""Nothing that instep reads can run code: no pickle but the user's own, no evaluation, one parser of files."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from interpreters import output

import instep

ROOT = Path(__file__).parents[2]
PACKAGE = Path(instep.__file__).parent
PYTHON = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
CPP = {path.relative_to(ROOT).as_posix(): path for path in sorted((ROOT / "cpp").rglob("*.?pp"))}

# What turns bytes into objects of any class, or text into code.
MODULES = {
    *("pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"),
    *("code", "codeop", "runpy", "imp", "subprocess", "torch"),
}
CALLS = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {"system", "popen", "allow_pickle", "memmap", "fromfile", "loadtxt", "genfromtxt"}
IN_CPP = re.compile(r"PyRun_|Py_Compile|PyEval_Eval|PyMarshal|py::(eval|exec)|dlopen|(?i:pickle)")

# Files that open others, and those that import by a name that is not written out there, with whence it comes.
OPEN = {
    "_support/boots.py": "the name of the machine's boot",
    "commands/cli.py": "the null device",
    "commands/demo/picture.py": "the picture, to see whether it can be written",
    "machine/openmp.py": "/proc/self/maps",
    "machine/threads.py": "the cgroup's quota",
    "optimizers/state_storage.py": "the files of the states, and their lock",
    "checkpoint/format.py": "checkpoints",
    "checkpoint/whole_file.py": "checkpoints",
    "checkpoint/writing.py": "checkpoints",
}
IMPORT_BY_NAME = {
    "__init__.py": "its own table of what a step does without",
    "schedules/names.py": "its own table of schedules",
    "commands/cli.py": "its own table of commands",
    "commands/demo/extras.py": "the packages that the demonstration needs",
    "_support/hosts.py": "the library of a face, named by the face",
}


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def name_of(call: ast.Call) -> str:
    """The last part of what is called."""
    function = call.func
    return getattr(function, "attr", getattr(function, "id", ""))


def imported(node: ast.AST) -> set[str]:
    """Packages that an import statement, or an import by a name written out, imports."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module:
        names = [node.module]
    elif isinstance(node, ast.Call) and name_of(node) == "import_module":
        names = [str(a.value) for a in node.args if isinstance(a, ast.Constant)]
    return {name.partition(".")[0] for name in names}


def test_the_sources_are_all_there() -> None:
    assert {"checkpoint/loading.py", "optimizers/stored_state.py", "schedules/reading.py"} <= set(
        PYTHON
    )
    assert {"cpp/python/module.cpp", "cpp/python/arrays.cpp"} <= set(CPP)


@pytest.mark.parametrize("name", PYTHON)
def test_no_pickle_and_no_evaluation(name: str) -> None:
    for node in nodes(PYTHON[name]):
        assert not imported(node) & MODULES
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in CALLS
        if isinstance(node, ast.Attribute):
            assert node.attr not in ATTRIBUTES
        if isinstance(node, ast.Call):
            assert not {keyword.arg for keyword in node.keywords} & ATTRIBUTES
            numpys = isinstance(node.func, ast.Attribute) and ast.unparse(node.func) == "np.load"
            assert not numpys


@pytest.mark.parametrize("name", CPP)
def test_no_evaluation_in_the_core(name: str) -> None:
    text = CPP[name].read_text(encoding="utf-8")
    if name.endswith(
        "shared_team.cpp"
    ):  # which looks into a library that is loaded, and loads none
        assert (
            len(
                re.findall(
                    r"dlopen\((?:library|nullptr|file\.c_str\(\)), (?:only_if_loaded|RTLD_LAZY)\)",
                    text,
                )
            )
            == 3
        )
        assert "dlopen(nullptr, RTLD_LAZY)" in text
        text = text.replace("dlopen", "")
    assert not IN_CPP.findall(text)
    by_name = re.findall(r"module_::import\((?!\")", text)
    assert not by_name, "a module whose name is not written out"


def test_who_opens_files_and_imports_by_name() -> None:
    opening, importing = set(), set()
    for name, path in PYTHON.items():
        for node in nodes(path):
            if not isinstance(node, ast.Call):
                continue
            if name_of(node) in ("open", "read_bytes", "read_text"):
                opening.add(name)
            if name_of(node) == "import_module" and not isinstance(node.args[0], ast.Constant):
                importing.add(name)
    assert opening == set(OPEN)
    assert importing == set(IMPORT_BY_NAME)


def test_nothing_is_unpickled_or_run_while_state_is_read(tmp_path: Path) -> None:
    """The interpreter's own account of it, over everything that takes data from outside."""
    pytest.importorskip("safetensors")
    code = f"""
        import sys
        import numpy as np
        import instep
        from instep import checkpoint, interop, schedules
        lr = schedules.Warmup(schedules.CosineDecay(0.1, steps=9), steps=3) * 0.5
        def optimizer():
            return instep.AdamW({{"w": np.ones(3)}}, lr=lr, ema_decay=0.9)
        first, second = optimizer(), optimizer()
        first.step({{"w": np.ones(3)}})
        def everything():
            checkpoint.save({str(tmp_path / "run")!r}, first, extra={{"a": [1, "x", np.inf, np.ones(2)]}})
            checkpoint.load({str(tmp_path / "run")!r}, second)
            checkpoint.inspect({str(tmp_path / "run")!r})
            second.load_state_dict(first.state_dict())
            interop.from_torch_state_dict(optimizer(), interop.to_torch_state_dict(first))
            assert schedules.from_dict(lr.to_dict()) == lr
        everything()  # imports what it needs on first use
        seen = []
        watched = ("pickle.", "exec", "compile", "marshal.", "import", "subprocess.", "os.system",
                   "os.exec", "os.posix_spawn", "socket.", "ctypes.")
        sys.addaudithook(lambda event, _: event.startswith(watched) and seen.append(event))
        everything()
        print(sorted(set(seen) - {{"import"}}), second.step_count)
    """
    assert output(code) == "[] 1"
