"""The command line: what it prints, its exit statuses, and what it does not import."""

import json
import os
import re
import subprocess
import sys
from types import ModuleType

import pytest
from interpreters import environment, python

import instep
from instep.commands import cli, info


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_without_a_command_prints_the_help(capsys):
    assert cli.main([]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: instep")
    assert not err
    for name, command in cli.COMMANDS.items():
        assert name in out
        assert " ".join(command.summary.split()) in " ".join(out.split())


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"instep {instep.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nonsense"], "'nonsense'"),
        (["--nonsense"], "--nonsense"),
        (["info", "--nonsense"], "--nonsense"),
        (["demo", "extra"], "extra"),
        (["demo", "--epochs", "0"], "--epochs: the number must be at least 1, got 0"),
        (["demo", "--epochs", "two"], "--epochs: the number must be a whole number, got 'two'"),
        (["demo", "--batch-size", "-1"], "--batch-size: the number must be at least 0, got -1"),
        (["demo", "--seed", "-1"], "--seed: the number must be at least 0, got -1"),
    ],
    ids=" ".join,
)
def test_wrong_usage(arguments, complaint, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    out, err = capsys.readouterr()
    assert exit_.value.code == 2
    assert not out
    assert complaint in err


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_a_command(name, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main([name, "--help"])
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: instep {name}")
    assert " ".join(cli.COMMANDS[name].summary.split()) in " ".join(out.split())


@pytest.fixture
def command(monkeypatch):
    """A command of the test's own; its run is the test's to set."""
    module = ModuleType("command_of_the_test")
    module.add_arguments = lambda parser: parser.add_argument("--status", type=int)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(cli.COMMANDS, "own", cli.Command(module.__name__, "Of the test"))
    return module


def test_a_command_is_one_line_in_the_table(command):
    command.run = lambda arguments: arguments.status
    assert cli.main(["own", "--status", "7"]) == 7


def test_the_arguments_are_those_of_the_process(command, monkeypatch):
    command.run = lambda arguments: arguments.status
    monkeypatch.setattr(sys, "argv", ["instep", "own", "--status", "5"])
    assert cli.main() == 5


def test_ctrl_c_ends_without_a_traceback(command):
    def interrupted(arguments):
        raise KeyboardInterrupt

    command.run = interrupted
    assert cli.main(["own"]) == 130


def test_a_command_imports_only_what_it_needs():
    extras = ("matplotlib", "sklearn", "tqdm")
    code = (
        "import sys; from instep.commands.cli import main; main([]);"
        f"names = {(*extras, 'instep.commands.demo', 'instep.commands.info')!r};"
        "print('loaded:', *(n for n in names if n in sys.modules));"
        "main(['info']);"
        "print('loaded:', *(n for n in names if n in sys.modules))"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    loaded = [line for line in done.stdout.splitlines() if line.startswith("loaded:")]
    assert loaded == ["loaded:", "loaded: instep.commands.info"]


# --- python -m instep


def test_module_prints_the_version():
    done = python("-W", "error", "-m", "instep", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"instep {instep.__version__}\n", "")


def test_module_passes_the_status_on():
    assert python("-m", "instep", "nonsense").returncode == 2
    code = (
        "import runpy, sys; sys.modules['sklearn'] = None; sys.argv = ['instep', 'demo', '--quiet'];"
        "runpy.run_module('instep', run_name='__main__')"
    )
    done = python("-c", code)
    assert done.returncode == 1
    message = "the demo needs scikit-learn, which is missing; pip install 'instep[demo]'"
    assert done.stderr == f"instep demo: {message}\n"


@pytest.mark.skipif(sys.platform == "win32", reason="a closed pipe is another error on Windows")
@pytest.mark.parametrize(
    "arguments",
    [[], ["--help"], ["info"], ["info", "--json"], ["bench", "10", "--seconds", "0.01"]],
    ids=" ".join,
)
def test_whoever_reads_may_stop(arguments):
    """As ``instep info | head -1``, where head has ended before anything is written."""
    reader, writer = os.pipe()
    os.close(reader)
    # Unbuffered, argparse itself would pass over what it can't write of its help.
    buffered = environment(PYTHONUNBUFFERED="")
    try:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "instep", *arguments],
            stdout=writer,
            env=buffered,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_nobody_reads(monkeypatch):
    """Without standard output, as under pythonw."""
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.main(["info"]) == 0


# --- instep info


def as_json(value):
    """What JSON makes of it: tuples become lists."""
    return json.loads(json.dumps(value))


def test_info_as_json(capsys):
    assert cli.main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == as_json(instep.config())


def test_info(capsys):
    assert cli.main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    config = instep.config()
    keys = []
    for key, value in config.items():
        keys += [key, *(f"  {inner}" for inner in value)] if isinstance(value, dict) else [key]
    assert [line[: len(key)] for line, key in zip(lines, keys, strict=True)] == keys
    column = max(map(len, keys)) + 2
    values = {line[:column].rstrip(): line[column:] for line in lines}
    assert all(line[column - 2 : column].strip() == "" for line in lines)
    assert values["version"] == instep.__version__
    assert values["isa"] == ""
    assert values["  used"] == str(config["threads"]["used"])
    assert values["  supported"] == ", ".join(config["isa"]["supported"])
    assert values["  forked"] == "no"


def test_info_says_which_formats_there_are(monkeypatch, capsys):
    """bfloat16 is a dtype of ml_dtypes, which may be missing."""
    pytest.importorskip("ml_dtypes")
    assert cli.main(["info"]) == 0
    line = r"^formats +float64, float32, float16, bfloat16, 8bit$"
    assert re.search(line, capsys.readouterr().out, re.M)
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    assert instep.config()["formats"] == ("float64", "float32", "float16", "8bit")


def test_info_indents_each_level():
    tree = {"a": 1, "b": {"long name": (1, 2), "c": {"d": True, "e": []}}, "f": None}
    assert info.as_text(tree).splitlines() == [
        "a            1",
        "b",
        "  long name  1, 2",
        "  c",
        "    d        yes",
        "    e",
        "f            None",
    ]
