"""A header that is made to cost memory is refused, or costs what SECURITY.md says."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from interpreters import output

import instep
from instep import checkpoint

pytest.importorskip("safetensors")
pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the largest memory is Linux's to tell"
)

ROOT = next(path for path in Path(__file__).parents if (path / "pyproject.toml").is_file())
MOST = 2**21  # values
TIMES, BESIDES = 8, 512 * 2**20  # what SECURITY.md says


def test_the_promise_is_the_one_that_is_tested() -> None:
    text = " ".join((ROOT / "SECURITY.md").read_text(encoding="utf-8").split())
    assert f"{TIMES} times its header's size plus {BESIDES // 2**20} MB" in text
    assert "more than 2^21 values" in text


def document(extra: str, optimizer: str = "{}", schema: int = 1) -> bytes:
    """The header of a file whose document has these, and its checksum."""
    text = f'{{"schema":{schema},"optimizer":{optimizer},"scaler":null,"extra":{extra},"tensors":{{}}}}'
    return metadata(text, json.dumps(text))


def metadata(text: str, written: str) -> bytes:
    checksum = hashlib.sha256(text.encode()).hexdigest()
    return f'{{"__metadata__":{{"instep":{written},"instep_sha256":"{checksum}"}}}}'.encode()


def listed(item: str, signs: int) -> str:
    """As many of an item as have that many signs of structure."""
    return "[" + ",".join([item] * (signs // (1 + sum(map(item.count, ",:[{"))))) + "]"


def numbered(form: str, count: int) -> str:
    return "{" + ",".join(form % k for k in range(count)) + "}"


LEFT = 100  # values that a document of nothing else has, and a few
HEADERS: dict[str, Callable[[int], bytes]] = {
    "lists": lambda n: document(listed("[]", n)),
    "objects": lambda n: document(listed("{}", n)),
    "objects of one": lambda n: document(listed('{"a":0}', n)),
    "lists of objects of lists": lambda n: document(listed('[{"ab":[[]]}]', n)),
    "many keys": lambda n: document(numbered('"%x":0', n // 2)),
    "keys of objects": lambda n: document(numbered('"%x":{}', n // 3)),
    "in the optimizer": lambda n: document("0", numbered('"%x":{}', n // 3)),
    "lists of a later schema": lambda n: document(listed("[]", n), schema=2),
    "dicts of a later schema": lambda n: document(listed('{"dict":{"dict":0}}', n), schema=2),
    "keys of a later schema": lambda n: document(numbered('"%x":{}', n // 3), schema=2),
    "numbers of a later schema": lambda n: document(listed('{"float":"nan"}', n), schema=2),
    "integers": lambda n: document(listed("999", n)),
    "floats": lambda n: document(listed("0.5", n)),
    "words": lambda n: document(listed('"ab"', n)),
    "one long text": lambda n: document('"' + 8 * n * "a" + '"'),
    "one long text beyond Latin": lambda n: document('"\U0001f600' + 8 * n * "a" + '"'),
    "metadata of others": lambda n: (
        b'{"__metadata__":' + numbered('"%x":""', n // 2).encode() + b"}"
    ),
    "tensors": lambda n: numbered(
        '"%x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}', n // 11
    ).encode(),
}


# Reads each file in a process of its own, forked from one that has imported everything. Prints how much more memory the
# process has had at most, and what was raised.
READER = """
    import os, resource
    import numpy as np, instep
    from instep import checkpoint
    import safetensors.numpy
    checkpoint.layout._MOST_VALUES = {most}
    optimizer = instep.SGD(np.ones(1))
    for path in {paths!r}:
        if os.fork():
            assert os.wait()[1] == 0
            continue
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            checkpoint.load(path, optimizer)
        except checkpoint.CheckpointError as error:
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(1024 * (after - before), error, flush=True)
        os._exit(0)
"""


def peaks(paths: list[Path], most: int = MOST) -> list[tuple[int, str]]:
    """How much memory more `load` of each file takes at most, and what it raises."""
    code = READER.format(paths=[str(path) for path in paths], most=most)
    lines = output(code, timeout=240, OPENBLAS_NUM_THREADS="1").splitlines()
    assert len(lines) == len(paths)
    found = (line.partition(" ") for line in lines)
    return [(int(memory), error) for memory, _, error in found]


def write(path: Path, header: bytes) -> int:
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path.stat().st_size


@pytest.mark.parametrize(
    ("names", "part"),
    [(list(HEADERS), 4), (["metadata of others", "dicts of a later schema"], 1)],
    ids=["a quarter of each", "the worst in full"],
)
def test_the_most_that_is_read(names: list[str], part: int, tmp_path: Path) -> None:
    """A part of the values, where a part may be read, against this part of what is promised besides."""
    paths = [tmp_path / name for name in names]
    sizes = [write(path, HEADERS[path.name](MOST // part - LEFT)) for path in paths]
    for name, size, (memory, error) in zip(names, sizes, peaks(paths, MOST // part), strict=True):
        assert "must have at most" not in error, f"{name}: so that it is read"
        assert memory < TIMES * size + BESIDES // part, name


def test_more_is_refused_before_it_is_read(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in HEADERS if "text" not in name]
    for path in paths:
        assert write(path, HEADERS[path.name](2 * MOST)) > 6 * 2**20
    for path, (memory, error) in zip(paths, peaks(paths), strict=True):
        refusal = r": the header must have at most 2097152 values, got \d+"
        assert re.search(refusal, error), path.name
        assert memory < 4 * 2**20, f"{path.name}: a piece of the header at a time"


def test_signs_that_the_header_has_escaped_are_counted(tmp_path: Path) -> None:
    text = document(listed("[]", MOST + 1000))
    inner = json.loads(text)["__metadata__"]["instep"]
    hidden = "".join(f"\\u{ord(sign):04x}" if sign in ",:[{" else sign for sign in inner)
    header = metadata(inner, '"' + hidden.replace('"', '\\"') + '"')
    path = tmp_path / "run"
    size = write(path, header)
    ((memory, error),) = peaks([path])
    assert "the document must have at most 2097152 values, got" in error
    assert memory < TIMES * size


def test_what_can_not_be_loaded_is_not_saved(tmp_path: Path) -> None:
    optimizer = instep.SGD(np.ones(1))
    path = tmp_path / "run"
    checkpoint.save(path, optimizer, extra=[0] * (MOST // 2))
    assert len(checkpoint.load(path, optimizer)) == MOST // 2
    content = path.read_bytes()
    with pytest.raises(
        ValueError, match=r"extra, with the names .* must have at most 2097152 values, got "
    ):
        checkpoint.save(path, optimizer, extra=[0] * MOST)
    assert path.read_bytes() == content
    assert [found.name for found in tmp_path.iterdir()] == ["run"]


def test_a_model_of_very_many_arrays_has_room(tmp_path: Path) -> None:
    """48,000 arrays: of 16,000 parameters with Adam's states, and of three dimensions."""
    params = {f"layers.{k}.attention.weight": np.ones((1, 1, 1)) for k in range(16_000)}
    optimizer = instep.Adam(params)
    optimizer.step(dict.fromkeys(params))
    checkpoint.save(tmp_path / "run", optimizer)
    checkpoint.load(tmp_path / "run", optimizer)
