"""The header reader: literal files, every check, and never more lenient than the reference library."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize

from lib_toolkit.dtypes import DType
from lib_toolkit.errors import FormatError, ToolkitError
from lib_toolkit.formats import open_model
from lib_toolkit.tensors import read_all
from tests.making import of_arrays, safetensors_bytes

LITERAL = (
    b"\x59\x00\x00\x00\x00\x00\x00\x00"
    b'{"__metadata__":{"format":"pt"},"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}    '
    b"\x00\x3c\x00\xc0"
)


def write(path, data: bytes):
    path.write_bytes(data)
    return path


def with_header(table: object, data: bytes = b"") -> bytes:
    raw = table if isinstance(table, bytes) else json.dumps(table).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def test_literal_file(tmp_path):
    with open_model(write(tmp_path / "a.safetensors", LITERAL)) as model:
        assert model.origin.format == "safetensors"
        assert dict(model.metadata) == {"format": "pt"}
        tensor = model.tensors["a"]
        assert (tensor.dtype, tensor.shape) == (DType.F16, (2,))
        assert read_all(tensor).view("<f2").tolist() == [1.0, -2.0]


def test_every_cut_point_is_one_sentence(tmp_path):
    for cut in range(len(LITERAL)):
        with pytest.raises(FormatError) as error:
            open_model(write(tmp_path / "a.safetensors", LITERAL[:cut]))
        assert str(tmp_path) in str(error.value)
        assert "\n" not in str(error.value)


ENTRY = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}

HOSTILE = {
    "header longer than the file": (5000).to_bytes(8, "little") + b"{}",
    "header beyond the limit": (10**12).to_bytes(8, "little") + b"{" + b" " * 100,
    "no object": with_header(b"[1, 2]          "),
    "leading blank": with_header(b' {"a": 1}'),
    "not UTF-8": with_header(b'{"\xff\xfe": {}}'),
    "not JSON": with_header(b'{"a": }'),
    "nul padding": with_header(b"{}\0\0\0\0\0\0"),
    "deep nesting": with_header(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "huge integer": with_header(b'{"a":{"dtype":"U8","shape":[' + b"9" * 100_000 + b'],"data_offsets":[0,2]}}'),
    "key twice": with_header(b'{"a":%s,"a":%s}' % ((json.dumps(ENTRY).encode(),) * 2), b"ab"),
    "field twice": with_header(b'{"a":{"dtype":"U8","dtype":"I8","shape":[2],"data_offsets":[0,2]}}', b"ab"),
    "entry is a list": with_header({"a": ["U8", [2], [0, 2]]}, b"ab"),
    "unknown type": with_header({"a": {**ENTRY, "dtype": "Q9"}}, b"ab"),
    "type is no text": with_header({"a": {**ENTRY, "dtype": ["U8"]}}, b"ab"),
    "negative size": with_header({"a": {**ENTRY, "shape": [-2]}}, b"ab"),
    "boolean size": with_header(b'{"a":{"dtype":"U8","shape":[true],"data_offsets":[0,1]}}', b"a"),
    "fractional size": with_header(b'{"a":{"dtype":"U8","shape":[2.0],"data_offsets":[0,2]}}', b"ab"),
    "overflowing product": with_header({"a": {**ENTRY, "shape": [2**62, 4, 2**62]}}, b"ab"),
    "boolean offset": with_header(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[false,true]}}', b"a"),
    "NaN": with_header(b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,2]}}', b"ab"),
    "offsets backwards": with_header({"a": {**ENTRY, "data_offsets": [2, 0]}}, b"ab"),
    "size and offsets disagree": with_header({"a": {**ENTRY, "shape": [3]}}, b"ab"),
    "overlap": with_header({"a": ENTRY, "b": {**ENTRY, "data_offsets": [1, 3]}}, b"abc"),
    "the same bytes twice": with_header({"a": ENTRY, "b": ENTRY}, b"ab"),
    "hole": with_header({"a": ENTRY, "b": {**ENTRY, "data_offsets": [3, 5]}}, b"abcde"),
    "hole at the start": with_header({"a": {**ENTRY, "data_offsets": [1, 3]}}, b"abc"),
    "trailing bytes": with_header({"a": ENTRY}, b"abc"),
    "missing bytes": with_header({"a": ENTRY}, b"a"),
    "metadata of numbers": with_header({"__metadata__": {"a": 1}, "a": ENTRY}, b"ab"),
    "metadata a list": with_header({"__metadata__": [], "a": ENTRY}, b"ab"),
    "half a byte": with_header({"a": {"dtype": "F4", "shape": [3], "data_offsets": [0, 1]}}, b"a"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_header_is_refused_with_a_sentence(tmp_path, kind):
    path = write(tmp_path / "model.safetensors", HOSTILE[kind])
    with pytest.raises(FormatError) as error:
        open_model(path)
    assert "model.safetensors" in str(error.value)
    assert len(str(error.value)) < 600


def test_zero_size_scalar_and_every_type(tmp_path):
    tensors = {"v_pred": ("F32", (0,), b""), "scalar": ("F32", (), b"\0\0\x80?")}
    for dtype in DType:
        tensors[dtype.name] = (dtype.name, (8,), bytes(range(dtype.bits)))
    with open_model(write(tmp_path / "a.safetensors", safetensors_bytes(tensors))) as model:
        assert {k: (t.dtype.name, t.shape) for k, t in model.tensors.items()} == {
            key: (dtype, shape) for key, (dtype, shape, _) in tensors.items()
        }
        for key, (_, _, data) in tensors.items():
            assert read_all(model.tensors[key]).tobytes() == data


def test_surplus_fields_are_told(tmp_path):
    data = with_header({"a": {**ENTRY, "note": "x"}}, b"ab")
    with open_model(write(tmp_path / "a.safetensors", data)) as model:
        assert any("note" in warning for warning in model.warnings)


def test_a_closed_file_can_be_deleted_and_says_so(tmp_path):
    path = write(tmp_path / "a.safetensors", LITERAL)
    with open_model(path) as model:
        tensor = model.tensors["a"]
    path.unlink()
    with pytest.raises(FormatError, match="closed"):
        read_all(tensor)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_never_accepts_what_the_library_refuses(tmp_path_factory, data):
    """Mutated headers: whatever opens here opens in the reference library too, with the same tensors."""
    arrays = {"b": np.arange(6, dtype="<f4").reshape(2, 3), "a": np.zeros(3, "<i8"), "c": np.ones((), "<f2")}
    raw = bytearray(safetensors_bytes(of_arrays(arrays), {"format": "pt"}))
    end = 8 + int.from_bytes(raw[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, end - 1))
        raw[position] = data.draw(st.sampled_from([*list(b'0123456789[]{}",: \x00aFU-.e'), 255, 128]))
    path = tmp_path_factory.mktemp("fuzz") / "m.safetensors"
    path.write_bytes(raw)
    try:
        with open_model(path) as model:
            ours = {k: (list(t.shape), read_all(t).tobytes()) for k, t in model.tensors.items()}
    except ToolkitError:
        return
    try:
        theirs = {k: (entry["shape"], bytes(entry["data"])) for k, entry in deserialize(bytes(raw))}
    except SafetensorError as error:
        raise AssertionError(f"accepted what the library refuses: {error}") from error
    assert ours == theirs


def test_a_hundred_thousand_keys(tmp_path):
    tensors = {f"block.{i}.weight": ("U8", (1,), b"x") for i in range(100_000)}
    with open_model(write(tmp_path / "a.safetensors", safetensors_bytes(tensors))) as model:
        assert len(model.tensors) == 100_000
