"""Files of random bytes, with random changes, with anything in their document."""

import pytest
from checkpoint_files import document_of, file_of, refused, small, with_document
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from snapshots import bits

from instep import checkpoint, cli
from instep.checkpoint import CheckpointError

pytest.importorskip("safetensors")

FUZZ = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@FUZZ
@given(content=st.binary(max_size=200), framed=st.booleans())
def test_random_bytes(content, framed, tmp_path):
    path = tmp_path / "run"
    path.write_bytes(file_of(b"{" + content) if framed else content)
    refused(path, small()[0])


@FUZZ
@given(data=st.data())
def test_mutated_files(data, saved):
    path, optimizer, scaler = saved
    good = path.read_bytes()
    mutated = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(mutated)))
        end = min(len(mutated), start + data.draw(st.integers(0, 8)))
        mutated[start:end] = data.draw(st.binary(max_size=8))
    assume(mutated != good)
    path.write_bytes(mutated)
    try:
        refused(path, optimizer, scaler)
    finally:
        path.write_bytes(good)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["schedule", "callable", "float", "init", "state", "of", "steps"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


@FUZZ
@given(data=st.data())
def test_documents_with_anything_in_them(data, saved, capsys):
    """Their checksums are right: they load, or are refused; never another error, never a part."""
    path, optimizer, scaler = saved
    good = path.read_bytes()
    whole = tree = {"": document_of(good)}
    key = ""
    while isinstance(tree[key], (dict, list)) and tree[key] and data.draw(st.booleans()):
        tree = tree[key]
        key = data.draw(
            st.sampled_from(sorted(tree) if isinstance(tree, dict) else range(len(tree)))
        )
    tree[key] = data.draw(JSON)
    path.write_bytes(with_document(good, whole[""]))
    before = bits(optimizer, scaler)
    try:
        checkpoint.load(path, optimizer, scaler)
    except CheckpointError:
        assert bits(optimizer, scaler) == before
    assert cli.main(["inspect", str(path)]) in (0, 1)
    path.write_bytes(good)
    capsys.readouterr()
