"""What instep.minimize shows with disp=True: on stderr, and never the end of a run."""

from __future__ import annotations

import importlib
import io
import re
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from interpreters import python

import instep

pytest.importorskip("scipy.optimize", reason="SciPy is not installed: instep[scipy]")
progress = importlib.import_module("instep.minimize.progress")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def bowl(x: np.ndarray) -> tuple[float, np.ndarray]:
    return float(x @ x), 2 * x


def run(**more: Any) -> Any:
    return instep.minimize.sgd(
        bowl, [1.0, 2.0], **{"jac": True, "maxiter": 5, "disp": True, **more}
    )


def test_a_line_at_the_end_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    found = run()
    out, err = capsys.readouterr()
    assert out == ""
    value, largest = f"{bowl(found.x)[0]:.6g}", f"{abs(found.jac).max():.3g}"
    assert err == (
        f"instep.minimize.sgd: 5/5 steps, fun {value}, max|gradient| {largest}: All 5 steps were taken.\n"
    )
    run(disp=False)
    assert capsys.readouterr() == ("", "")


def test_lines_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    run(maxiter=9)
    lines = capsys.readouterr().err.splitlines()
    assert [re.findall(r": (\d+)/9 steps", line) for line in lines] == [
        ["1"],
        ["3"],
        ["5"],
        ["7"],
        ["9"],
        ["9"],
    ]


def test_the_message_of_an_exception(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(x: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(callback=fail)
    assert capsys.readouterr().err.endswith(": stopped by an exception\n")
    with pytest.raises(ZeroDivisionError):
        instep.minimize.sgd(lambda x: 1 / 0, [1.0], disp=True)
    assert capsys.readouterr().err == "instep.minimize.sgd: stopped by an exception\n"


@pytest.mark.parametrize("where", ["terminal", "notebook"])
def test_a_bar_of_tqdm(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm", reason="tqdm is not installed")
    stream = Terminal() if where == "terminal" else io.StringIO()
    if where == "notebook":
        monkeypatch.setitem(sys.modules, "ipykernel", sys)
    monkeypatch.setattr(sys, "stderr", stream)
    run()
    text = stream.getvalue()
    last = text.split("\r")[-1]
    assert last.startswith("instep.minimize.sgd: All 5 steps were taken.")
    assert "5/5" in last
    assert "fun 4.9" in last
    assert last.endswith("\n")


def test_without_tqdm_a_terminal_has_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    run()
    assert stream.getvalue().startswith("instep.minimize.sgd: 5/5 steps, fun ")


def test_no_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert run().nit == 5


def test_a_stderr_of_a_program_that_has_only_write_or_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (SimpleNamespace(write=str), closed):
        monkeypatch.setattr(sys, "stderr", stream)
        assert run().nit == 5


def test_a_pipe_that_nobody_reads_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    for stream in (Broken(), io.StringIO()):
        stream.close() if not isinstance(stream, Broken) else None
        monkeypatch.setattr(progress.sys, "stderr", stream)
        assert progress._Lines("m", 3, stream).close("done") is None


def test_stdout_stays_clean_in_a_pipe() -> None:
    program = (
        "import instep; r = instep.minimize.sgd(lambda x: (float(x @ x), 2 * x), [1.0], jac=True, "
        "maxiter=3, disp=True); print(r.nit)"
    )
    done = python("-W", "error", "-c", program)
    assert done.stdout == "3\n"
    assert done.stderr.startswith("instep.minimize.sgd: 3/3 steps, fun ")
