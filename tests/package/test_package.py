"""The package as installed: what importing it costs and brings along."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest
from interpreters import UNMEASURED, output

import instep
from instep import _core

ROOT = Path(__file__).parents[2]


def test_numpy_is_all_that_is_imported() -> None:
    code = """
        import sys, numpy
        before = set(sys.modules)
        import instep
        new = {name.split('.')[0] for name in set(sys.modules) - before} - {'numpy'}
        new -= {"_xxsubinterpreters"}  # Python's own, which its list lacks
        print(sorted(new - set(sys.stdlib_module_names)))
    """
    assert output(code) == "['instep']"


def test_what_a_step_does_without_is_imported_on_first_use() -> None:
    """But not while a state is taken: nothing that is saved then depends on an import in between."""
    code = """
        import sys, numpy
        given = set(sys.modules)
        import instep
        late = ["checkpoint", "interop", "storage", "typing"]
        late += ["schedules.composition", "schedules.constants", "schedules.cycles"]
        late += ["schedules.decays", "schedules.plateau", "schedules.ramps"]
        late = {f"instep.{name}" for name in late}
        others = {"hashlib", "json", "numpy.typing", "safetensors"} - given
        w = numpy.ones(3)
        optimizer = instep.Adam(w, lr=lambda step: 0.1)
        optimizer.step(w.copy())
        before = (late | others) & set(sys.modules)
        first = instep.schedules.Warmup(instep.schedules.Constant(0.1), steps=3)
        scheduled = instep.Adam({"v": w.copy()}, lr=first)
        modules = set(sys.modules)
        optimizer.state_dict(), scheduled.state_dict()
        meanwhile = set(sys.modules) - modules
        instep.interop, instep.checkpoint, instep.storage, instep.typing
        for name in instep.schedules.__all__:
            getattr(instep.schedules, name)
        print(sorted(before), sorted(meanwhile), sorted(late - set(sys.modules)))
    """
    assert output(code, **UNMEASURED) == "[] [] []"


def test_names_are_those_promised() -> None:
    promised = {"SGD", "Momentum", "RMSprop", "Adam", "AdamW", "schedules", "config"}
    promised |= {"set_num_threads", "get_num_threads", "num_threads", "set_isa", "isa_levels"}
    assert promised <= set(instep.__all__)
    assert all(hasattr(instep, name) for name in instep.__all__)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match=r"^module 'instep' has no attribute 'Nadam'$"):
        _ = instep.Nadam
    hint = "; use ml_dtypes.bfloat16, or state_dtype='bfloat16'$"
    with pytest.raises(AttributeError, match=f"^module 'instep' has no attribute 'bfloat16'{hint}"):
        _ = instep.bfloat16
    assert not hasattr(instep, "bfloat16")


def test_typed() -> None:
    folder = Path(instep.__file__).parent
    assert (folder / "py.typed").exists()
    assert (folder / "_core" / "__init__.pyi").exists()
    assert (folder / "_core" / "testing.pyi").exists()


@pytest.mark.parametrize("module", [_core, _core.testing])
def test_the_stub_names_what_the_core_has(module: ModuleType) -> None:
    name = "testing" if module is _core.testing else "__init__"
    stub = Path(instep.__file__).with_name("_core") / f"{name}.pyi"
    text = stub.read_text(encoding="utf-8")
    names = {name for name in dir(module) if not name.startswith("__")} - {"testing"}
    classes = {name for name in names if isinstance(getattr(module, name), type)}
    assert set(re.findall(r"^def (\w+)", text, re.M)) == names - classes
    assert set(re.findall(r"^class ((?!_)\w+)", text, re.M)) == classes


def test_the_stub_has_the_methods_of_a_plan() -> None:
    stub = Path(instep.__file__).with_name("_core") / "__init__.pyi"
    text = stub.read_text(encoding="utf-8")
    methods = {name for name in dir(_core.Plan) if not name.startswith(("__", "_pybind11_"))}
    inside = text[text.index("class Plan") :]
    assert set(re.findall(r"^    def ((?!__)\w+)", inside, re.M)) == methods
