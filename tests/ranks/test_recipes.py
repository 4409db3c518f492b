"""The programs of docs/ranks.md and docs/recipes-ranks.md, each started by its launcher."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from interpreters import python
from rank_launchers import program_over_mpi

DOCS = Path(__file__).parents[2] / "docs"
LIMIT = 120.0


def program(page: str, heading: str, folder: Path) -> Path:
    """The block under a heading, as a file."""
    _, _, rest = (DOCS / page).read_text(encoding="utf-8").partition(f"## {heading}\n")
    (block, *_) = re.findall(r"^```python\n(.*?)^```", rest, re.M | re.S)
    path = folder / "train.py"
    path.write_text(block, encoding="utf-8")
    return path


@pytest.mark.parametrize("ranks", [1, 2])
def test_mpiexec(ranks: int, tmp_path: Path) -> None:
    """And once more: the run is over, then, by its checkpoint."""
    train = program("ranks.md", "A job on one host", tmp_path)
    text = train.read_text(encoding="utf-8")
    train.write_text(
        text.replace("run.safetensors", str(tmp_path / "run.safetensors"))
        + 'if comm.rank == 0:\n    print("it began at step", extra["step"])\n',
        encoding="utf-8",
    )
    for began in (0, 300):
        done = program_over_mpi(train, ranks, tmp_path)
        assert done.status == 0, done.output
        assert f"it began at step {began}\n" in done.output


def test_torchrun(tmp_path: Path) -> None:
    pytest.importorskip("torch.distributed", reason="PyTorch is not installed")
    train = program("recipes-ranks.md", "torchrun", tmp_path)
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = python(*launch, train, timeout=LIMIT, folder=tmp_path, INSTEP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("heading", "needed"), [("Ray Train", "ray.train.torch"), ("Dask", "distributed")]
)
def test_clusters(heading: str, needed: str, tmp_path: Path) -> None:
    pytest.importorskip(needed, reason=f"{needed} is not installed")
    train = program("recipes-ranks.md", heading, tmp_path)
    done = python(train, timeout=LIMIT, folder=tmp_path, INSTEP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
