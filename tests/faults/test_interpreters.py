"""Subinterpreters, which neither NumPy nor the core can live in: docs/faults.md."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import cast

import pytest
from interpreters import output

from instep.machine import interpreter

PROGRAM = """
    import faulthandler
    faulthandler.dump_traceback_later(30, exit=True)  # a hang would hold the GIL
    {first}
    try:
        import _interpreters as interpreters
        make, run = lambda: interpreters.create({config!r}), interpreters.exec
    except ImportError:
        import _xxsubinterpreters as interpreters
        make, run = lambda: interpreters.create(isolated={isolated}), interpreters.run_string
    inside = '''if True:
        import sys
        for _ in range(2):
            try:
                import instep
            except ImportError as error:
                with open({name!r}, "a") as file:
                    print(error, "instep._core" in sys.modules, "numpy" in sys.modules, file=file)
    '''
    run(make(), inside)
    import numpy, instep
    p = numpy.ones(3)
    instep.SGD(p, lr=1.0).step(numpy.ones(3))
    print(*p)
"""


@pytest.mark.parametrize("first", ["", "import instep"], ids=["nowhere else", "in the main one"])
@pytest.mark.parametrize("config", ["isolated", "legacy"])
def test_a_subinterpreter_is_refused(
    first: str, config: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """At once, before NumPy is imported; afterwards the main interpreter can import and step."""
    name = str(tmp_path_factory.mktemp("interpreters") / "said")
    program = PROGRAM.format(first=first, config=config, isolated=config == "isolated", name=name)
    assert output(program) == "0.0 0.0 0.0"
    with open(name, encoding="utf-8") as file:
        lines = file.read().splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("instep can't be imported in a subinterpreter")
        assert line.endswith("or in a process of its own False False")


def test_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_interpreters", "_xxsubinterpreters"):
        fake = SimpleNamespace(get_current=lambda: 1, get_main=lambda: 0)
        monkeypatch.setitem(sys.modules, name, cast(ModuleType, fake))
    with pytest.raises(ImportError, match="in a subinterpreter, which NumPy doesn't support"):
        interpreter.check()


def test_a_python_without_interpreters() -> None:
    """It can have no other than the main one."""
    code = """
        import sys
        sys.modules["_interpreters"] = sys.modules["_xxsubinterpreters"] = None
        import instep
        print(instep.__name__)
    """
    assert output(code) == "instep"
