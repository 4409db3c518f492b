"""Saves that are killed, that fail, that meet files already there: the old or the new one, whole."""

import errno
import os
import random
import re
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from checkpoint_files import small

import instep
from instep import checkpoint
from instep._support import boots
from instep.checkpoint import whole_file, writing

pytest.importorskip("safetensors")

SEED = 20_240_601
ON_LINUX = sys.platform.startswith("linux")

KILLED = """
import os, sys
import numpy as np, instep
from instep import checkpoint
path, n = sys.argv[1], int(sys.argv[2])
w = np.zeros(100_000)
optimizer = instep.SGD(w, lr=1.0, momentum=0.5)
while True:
    n += 1
    w[...] = n
    os.write(1, b"start %d\\n" % n)
    checkpoint.save(path, optimizer, extra=n)
    os.write(1, b"done %d\\n" % n)
"""


def test_killed_at_any_moment_the_old_or_the_new_file_is_there(tmp_path):
    path = tmp_path / "run.safetensors"
    draw = random.Random(SEED)
    w = np.zeros(100_000)
    optimizer = instep.SGD(w, lr=1.0, momentum=0.5)
    checkpoint.save(path, optimizer, extra=0)
    saves, present, kills, interrupted = 0, 0, 0, 0
    while saves < 200 or kills < 12:
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path), str(present)], stdout=subprocess.PIPE
        )
        lines = [child.stdout.readline() for _ in range(draw.randrange(1, 40))]
        with pytest.raises(subprocess.TimeoutExpired):  # it goes on saving until it is killed
            child.wait(draw.uniform(0.0, 0.02))
        child.kill()
        lines += child.communicate()[0].splitlines(keepends=True)
        words = [line.split() for line in lines if line.endswith(b"\n")]
        started = max(int(n) for what, n in words if what == b"start")
        done = max((int(n) for what, n in words if what == b"done"), default=present)
        found = checkpoint.load(path, optimizer)
        assert done <= found <= started
        assert np.all(w == found)
        saves, kills = saves + started - present, kills + 1
        interrupted += done < started
        present = found
    assert interrupted > 0
    litter = [name for name in os.listdir(tmp_path) if name != path.name]
    assert len(litter) <= (1 if ON_LINUX else kills)  # each save removes what the one before left
    assert all(re.fullmatch(r"\.instep-([0-9a-f]{16}-)?[0-9a-f]{16}\.tmp", n) for n in litter)
    checkpoint.save(path, optimizer)
    if ON_LINUX:
        assert os.listdir(tmp_path) == [path.name]


def _raising(error):
    def call(*arguments, **keywords):
        raise error

    return call


def _on_a_full_disk(file, name, source):
    """Write a part of a tensor, and fail as the system does."""
    file.write(bytes(10))
    file.flush()
    raise OSError(errno.ENOSPC, "No space left on device")


FAILURES = {
    "full when written": (writing, "_stream", _on_a_full_disk, OSError),
    "full when synced": (whole_file, "_sync", _raising(OSError(errno.ENOSPC, "full")), OSError),
    "disk error": (whole_file, "_sync", _raising(OSError(errno.EIO, "error")), OSError),
    "unwritable folder": (
        whole_file.Path,
        "mkdir",
        _raising(PermissionError(errno.EACCES, "Permission denied")),
        PermissionError,
    ),
    "unreadable folder": (
        os,
        "open",
        _raising(PermissionError(errno.EACCES, "Permission denied")),
        PermissionError,
    ),
    "not replaceable": (
        os,
        "replace",
        _raising(OSError(errno.EPERM, "no", "a", None, "b")),
        OSError,
    ),
    "somebody's own": (
        whole_file,
        "_sync",
        _raising(TimeoutError("late")),
        TimeoutError,
    ),
    "interrupted": (whole_file, "_sync", _raising(KeyboardInterrupt()), KeyboardInterrupt),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("there", [False, True], ids=["new", "replaced"])
def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(
    failure, there, tmp_path, monkeypatch
):
    path = tmp_path / "run"
    optimizer, _ = small()
    if there:
        checkpoint.save(path, optimizer, extra="old")
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    assert len(before) == there
    module, name, broken, error = FAILURES[failure]
    with monkeypatch.context() as patched:
        patched.setattr(module, name, broken, raising=False)
        with pytest.raises(error) as caught:
            checkpoint.save(path, optimizer, extra="new")
    if isinstance(caught.value, OSError):  # it names the file that was asked for, not one nearby
        named = str(path) if caught.value.errno else None
        assert (caught.value.filename, caught.value.filename2) == (named, None)
        assert "None" not in str(caught.value)
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before
    checkpoint.save(path, optimizer, extra="new")
    assert checkpoint.load(path, optimizer) == "new"
    assert os.listdir(tmp_path) == ["run"]


@pytest.mark.parametrize(
    "limit", [100, 2_000, 50_000, -1], ids=["header", "start", "middle", "end"]
)
def test_a_limit_of_the_system_while_writing(limit, tmp_path):
    resource = pytest.importorskip("resource")
    path, large = tmp_path / "run", instep.SGD(np.ones(10_000), lr=0.1)
    checkpoint.save(path, large)
    limit %= path.stat().st_size
    checkpoint.save(path, instep.SGD(np.ones(10), lr=0.1), extra="old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            checkpoint.save(path, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoint.load(path, instep.SGD(np.ones(10), lr=0.1)) == "old"
    assert os.listdir(tmp_path) == ["run"]


# ---- what others do meanwhile


def test_weights_that_change_meanwhile_make_no_damaged_file(tmp_path, monkeypatch):
    """The file has what was there when a piece was copied; it changes before the piece is hashed."""
    w = np.zeros(500_000)
    pieces, seen = writing.ArraySource.pieces, []

    def pieces_of_what_changes(source):
        for piece in pieces(source):
            w[...] += 1
            seen.extend(piece[:1])
            yield piece
            w[...] += 1

    monkeypatch.setattr(writing.ArraySource, "pieces", pieces_of_what_changes)
    checkpoint.save(tmp_path / "run", instep.SGD(w))
    other = np.full(len(w), -1.0)
    checkpoint.load(tmp_path / "run", instep.SGD(other))
    assert len(seen) > 9
    assert seen == list(range(0, 2 * len(seen), 2))
    assert sorted(set(other)) == seen


@pytest.fixture
def waiting(tmp_path):
    """Another process that has begun to write a file of this folder and waits."""
    code = (
        "import sys; from instep.checkpoint.whole_file import replace_file\n"
        "def write(path):\n"
        "    path.write_bytes(b'half'); print('now', flush=True); sys.stdin.readline()\n"
        "    path.write_bytes(b'whole')\n"
        "replace_file(sys.argv[1], write)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "other")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout.readline() == b"now\n"
    yield child
    child.kill()
    child.communicate()


def test_a_file_that_another_process_writes_is_let_alone(waiting, tmp_path):
    optimizer = instep.SGD(np.ones(3))
    there = set(os.listdir(tmp_path))
    assert len(there) == 1
    for name in ("run", "other"):
        checkpoint.save(tmp_path / name, optimizer)
        assert set(os.listdir(tmp_path)) == there | {"run", name}
    waiting.communicate(b"\n")
    assert waiting.returncode == 0
    assert (tmp_path / "other").read_bytes() == b"whole"
    assert sorted(os.listdir(tmp_path)) == ["other", "run"]


@pytest.mark.skipif(not ON_LINUX, reason="leftovers are removed on Linux")
def test_what_a_killed_process_left_is_removed(waiting, tmp_path):
    optimizer = instep.SGD(np.ones(3))
    waiting.kill()
    waiting.wait()
    (leftover,) = os.listdir(tmp_path)
    machine = leftover.split("-")[1]
    others = [
        leftover.replace(machine, "0" * 16),  # another machine's, or from before the last boot
        f".instep-{'0' * 16}.tmp",
        leftover.replace("instep", "else"),
        f"{leftover}.bak",
        f"x{leftover}",
    ]
    others.append(leftover.replace(".tmp", "x.tmp"))
    for name in others:
        (tmp_path / name).mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").touch()
    token = leftover.split("-")[2]
    link, file = (leftover.replace(token, k * 16 + ".tmp") for k in "ab")
    (tmp_path / link).symlink_to("elsewhere")
    (tmp_path / file).touch()
    checkpoint.save(tmp_path / "run", optimizer)
    assert set(os.listdir(tmp_path)) == {"run", "elsewhere", link, file, *others}
    assert os.listdir(tmp_path / "elsewhere") == ["file"]


@pytest.mark.skipif(not ON_LINUX, reason="leftovers are removed on Linux")
@pytest.mark.parametrize("why", ["no locks", "taken for one", "no boot"])
def test_a_folder_that_can_not_be_protected_has_a_name_that_nobody_looks_for(
    why, tmp_path, monkeypatch
):
    if why == "no locks":
        monkeypatch.setattr(whole_file, "_lock", lambda folder: None)
    elif why == "no boot":
        monkeypatch.setattr(boots, "_BOOT_ID", str(tmp_path / "nothing"))
    else:  # between its making and its lock

        def lock(folder, lock=whole_file._lock):
            locked = lock(folder)
            folder.rmdir()
            return locked

        monkeypatch.setattr(whole_file, "_lock", lock)
    names = []

    def write(path):
        names.append(path.parent.name)
        path.write_bytes(b"content")

    whole_file.replace_file(tmp_path / "run", write)
    assert re.fullmatch(r"\.instep-[0-9a-f]{16}\.tmp", *names)
    assert os.listdir(tmp_path) == ["run"]
    assert (tmp_path / "run").read_bytes() == b"content"


# ---- memory


@pytest.mark.parametrize("order", ["C", "F"])
def test_no_second_copy_of_the_arrays_is_made(order, tmp_path):
    """But by load, one, as it checks all before it changes anything."""

    def optimizer():
        params = {f"w{k}": np.zeros((50, 1000), order=order) for k in range(40)}
        return instep.Adam({**params, "b": np.zeros(1000)})

    path, one, other = tmp_path / "run", optimizer(), optimizer()
    checkpoint.save(path, one)  # imports what it needs
    size = path.stat().st_size
    for call, most in (
        (lambda: checkpoint.save(path, one), 1e6),
        (lambda: checkpoint.inspect(path), 3e6),
        (lambda: checkpoint.load(path, other), size + 3e6),
    ):
        tracemalloc.start()
        try:
            call()
            assert tracemalloc.get_traced_memory()[1] < most
        finally:
            tracemalloc.stop()
    assert size > 48e6
