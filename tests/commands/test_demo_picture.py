"""The picture of the demo: where it is saved, in which formats, and what is refused before the training."""

import errno
import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from instep.commands.cli import main
from instep.commands.demo.picture import require_writable
from instep.commands.demo.training import train

QUICK = ["demo", "--epochs", "2"]

pytestmark = pytest.mark.usefixtures("blas_on_one_thread", "in_a_folder_of_its_own")


@pytest.mark.parametrize("option", ["--save", "--output"])
def test_picture(option, capsys, tmp_path):
    from matplotlib import image  # noqa: PLC0415 - slow to import

    path = tmp_path / "own.png"
    assert main([*QUICK, option, str(path)]) == 0
    assert capsys.readouterr().out.endswith(f"Picture: {path}\n")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert 1200 <= width <= 2400
    assert 400 <= height <= 1200
    pixels = image.imread(path)[..., :3].reshape(-1, 3)
    for colour in ("f4a259", "1d3557", "2a9d8f"):  # both curves and the learning rate
        rgb = np.array(list(bytes.fromhex(colour))) / 255
        assert (np.abs(pixels - rgb).max(axis=1) < 0.01).sum() > 100, colour
    assert not (tmp_path / "instep-demo.png").exists()


def test_no_picture(tmp_path):
    assert main([*QUICK, "--no-picture"]) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "start"),
    [("a.pdf", b"%PDF"), ("a.SVG", b"<?xml"), ("a.jpg", b"\xff\xd8\xff"), ("a b.png", b"\x89PNG")],
)
def test_picture_in_other_formats(name, start, capsys, tmp_path):
    assert main([*QUICK, "--save", name]) == 0
    out, err = capsys.readouterr()
    assert out.endswith(f"Picture: {tmp_path / name}\n")
    assert not err
    assert (tmp_path / name).read_bytes().startswith(start)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr("instep.commands.demo.command.train", None)


def refused(capsys, *arguments):
    """The line of error of a demo that ends before the training."""
    assert main([*QUICK, *arguments]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("instep demo: ")
    assert err.count("\n") == 1
    return err.removeprefix("instep demo: ").removesuffix("\n")


@pytest.mark.parametrize("name", ["picture", "picture.txt", "folder.d/", ".png"])
def test_a_format_that_is_none(name, capsys, no_training, tmp_path):
    line = refused(capsys, "--save", name)
    assert re.fullmatch(r"--save must end in one of .*\.pdf, .*\.png, .*, got '(.*)'", line)
    assert line.endswith(f", got {str(Path(name))!r}")
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_can_not_be_written(capsys, no_training, tmp_path):
    (tmp_path / "a.png").mkdir()
    (tmp_path / "file").touch()
    for name, why in {
        "a.png": os.strerror(errno.EISDIR),
        "no/such/a.png": os.strerror(errno.ENOENT),
        "file/a.png": os.strerror(errno.ENOTDIR),
        "a" * 300 + ".png": os.strerror(errno.ENAMETOOLONG),
    }.items():
        line = refused(capsys, "--save", name)
        assert line == f"--save must be a file that can be written, got {name!r}: {why}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "file"]


def test_a_format_that_needs_what_is_missing(capsys, no_training, monkeypatch, tmp_path):
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import

    def fails(*_, **__):
        raise RuntimeError("xelatex\nnot found")

    monkeypatch.setattr(Figure, "savefig", fails)
    line = refused(capsys, "--save", "a.pgf")
    assert line == "the picture was not saved: xelatex not found"
    assert list(tmp_path.iterdir()) == []


def test_the_look_before_the_training_leaves_files_and_links_alone(tmp_path):
    (tmp_path / "old.png").write_bytes(b"old")
    (tmp_path / "link.png").symlink_to(tmp_path / "target.png")
    for name in ("old.png", "link.png", "new.png"):
        require_writable(Path(name))
    assert (tmp_path / "old.png").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.png", "old.png"]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        require_writable(Path("pipe.png"))  # and does not wait


def test_a_picture_that_can_no_longer_be_written(capsys, monkeypatch, tmp_path):
    def trained(*arguments):
        (tmp_path / "a.png").mkdir()
        train(*arguments)

    monkeypatch.setattr("instep.commands.demo.command.train", trained)
    assert main([*QUICK, "--save", "a.png"]) == 1
    out, err = capsys.readouterr()
    assert "Both runs ended in the same bits" in out
    assert err.startswith("instep demo: the picture was not saved: ")
    assert "a.png" in err
    assert err.count("\n") == 1
