"""Checkpoints of PyTorch before 1.6, and plain pickles."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile

import numpy as np
import pytest
import torch

from lib_toolkit.dtypes import DType
from lib_toolkit.errors import FormatError
from lib_toolkit.formats.legacy import MAGIC, looks_legacy, looks_pickled
from lib_toolkit.formats.opening import open_model
from lib_toolkit.formats.pickle_machine import MAX_PICKLE
from lib_toolkit.tensors import read_all
from tests.formats.pickle_cases import (
    LITTLE_LEGACY,
    PAIR,
    array,
    call,
    integer,
    legacy,
    mapping,
    name,
    pickled,
    tensor,
    text,
    tup,
)

ONE = pickled(mapping(("w", tensor())))


def written(tmp_path, data):
    path = tmp_path / "a.pt"
    path.write_bytes(data)
    return path


def test_literal_file(tmp_path):
    """The offset follows from the lengths of the five pickles and the count in front of the data."""
    path = written(tmp_path, LITTLE_LEGACY)
    with open_model(path) as model:
        assert model.origin.format == "torch-legacy"
        ours = model.tensors["w"]
        assert (ours.offset, ours.dtype, ours.shape) == (len(LITTLE_LEGACY) - 8, DType.F32, (2,))
        assert read_all(ours).view("<f4").tolist() == [1.5, -2.0]
    assert torch.load(path)["w"].tolist() == [1.5, -2.0]


def test_magic():
    assert looks_legacy(MAGIC + b".")
    assert not looks_legacy(MAGIC[:-1])
    assert not looks_legacy(b"PK\3\4")


def test_parts_of_storages(tmp_path):
    """Before PyTorch 0.4, a view had a storage of its own: a part of the root storage."""
    part = tup(text("part"), integer(1), integer(2))
    data = pickled(mapping(("w", tensor(numel=4, extra=part)), ("all", tensor(numel=4, shape=(4,), extra=b"N"))))
    path = written(tmp_path, legacy(data, [("0", 4, struct.pack("<4f", 9, 1.5, -2, 7))]))
    with open_model(path) as model:
        assert read_all(model.tensors["w"]).tobytes() == PAIR
        assert read_all(model.tensors["all"]).view("<f4").tolist() == [9, 1.5, -2, 7]
    for first, count in ((3, 2), (0, 1)):
        bad = tup(text("part"), integer(first), integer(count))
        data = pickled(mapping(("w", tensor(numel=4, extra=bad))))
        with pytest.raises(FormatError, match="beyond"):
            open_model(written(tmp_path, legacy(data, [("0", 4, bytes(16))])))


def test_newest_types_in_the_old_format(tmp_path):
    value = torch.tensor([1.0, -2.0, 0.5]).to(torch.float8_e4m3fn)
    torch.save({"w": value, "v": torch.ones(2)}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    with open_model(tmp_path / "a.pt") as model:
        assert model.tensors["w"].dtype is DType.F8_E4M3
        assert read_all(model.tensors["w"]).tobytes() == value.view(torch.uint8).numpy().tobytes()
        assert read_all(model.tensors["v"]).view("<f4").tolist() == [1, 1]


def test_a_list_of_contents_longer_than_the_first_window(tmp_path):
    """More than a megabyte of pickle: it is read again in a larger piece."""
    state = {f"{'long name ' * 30}{number}": torch.full((1,), float(number)) for number in range(6000)}
    torch.save(state, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    with open_model(tmp_path / "a.pt") as model:
        assert list(model.tensors) == list(state)
        for number, ours in enumerate(model.tensors.values()):
            assert read_all(ours).view("<f4").tolist() == [number]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (legacy(ONE) + b"x", "1 bytes follow its end"),
        (legacy(ONE, [("0", 3, PAIR + bytes(4))]), "another size"),
        (legacy(ONE, [("0", 2**62, PAIR)]), "another size"),
        (legacy(ONE, [("0", -1, PAIR)]), "another size"),
        (legacy(ONE, [("0", 2, PAIR)], keys=[]), "does not fit"),
        (legacy(ONE, [("1", 2, PAIR)]), "does not fit"),
        (legacy(ONE, [("0", 2, PAIR), ("1", 2, PAIR)]), "does not fit"),
        (legacy(ONE, [("0", 2, PAIR), ("0", 2, PAIR)]), "does not fit"),
        (legacy(ONE, [("0", 2, PAIR[:4])]), "incomplete"),
        (legacy(pickled(mapping(("w", tensor(numel=2**61, shape=(1,)))))), "incomplete|ends before"),
        (legacy(pickled(mapping(("w", tensor()), ("v", tensor(numel=3))))), "two sizes"),
        (legacy(pickled(mapping(("w", tensor()), ("v", tensor(kind="IntStorage"))))), "two sizes"),
        (legacy(pickled(mapping(("w", tensor(kind="QInt8Storage"))))), "QInt8Storage"),
        (legacy(pickled(b"}"), []), "no tensors"),
        (legacy(ONE, system=b"\x80\x02}" + text("little_endian") + b"\x89s."), "big-endian"),
        (MAGIC + b".\x80\x02K\x07.", "unknown version"),
        (MAGIC + b"0N.", "unknown version|incomplete"),
    ],
)
def test_contradictions_are_refused(tmp_path, data, words):
    with pytest.raises(FormatError, match=words) as caught:
        open_model(written(tmp_path, data))
    assert "a.pt" in str(caught.value)


def test_key_order_is_that_of_the_list(tmp_path):
    """Storages lie in the order of the list of keys, not in that of the contents."""
    data = pickled(mapping(("w", tensor("b")), ("v", tensor("a"))))
    path = written(tmp_path, legacy(data, [("a", 2, bytes(8)), ("b", 2, PAIR)]))
    with open_model(path) as model:
        assert read_all(model.tensors["w"]).tobytes() == PAIR
        assert read_all(model.tensors["v"]).tobytes() == bytes(8)


ARRAYS = {
    "f4": np.arange(6, dtype="<f4").reshape(2, 3),
    "big": np.arange(6, dtype=">f4").reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6, dtype="<f8").reshape(2, 3)),
    "big fortran": np.asfortranarray(np.arange(24, dtype=">i2").reshape(2, 3, 4)),
    "half": np.ones(3, dtype=np.float16),
    "bool": np.array([True, False]),
    "u1": np.arange(3, dtype=np.uint8),
    "scalar": np.array(2.5),
    "empty": np.zeros((0, 4), dtype=np.float32),
    "complex": np.array([1 + 2j], dtype=np.complex64),
}


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_in_a_plain_pickle(tmp_path, protocol):
    """Every protocol, byte order and memory order: values in C order, little-endian."""
    with open_model(written(tmp_path, pickle.dumps({**ARRAYS, "epoch": 7}, protocol))) as model:
        assert model.origin.format == "pickle"
        assert list(model.tensors) == list(ARRAYS)
        assert model.values == {"epoch": 7}
        for key, theirs in ARRAYS.items():
            ours = model.tensors[key]
            assert ours.shape == theirs.shape
            assert read_all(ours).tobytes() == np.ascontiguousarray(theirs, theirs.dtype.newbyteorder("<")).tobytes()
            assert np.dtype(ours.dtype.storage).kind == theirs.dtype.kind


def test_arrays_of_objects_and_text_are_values(tmp_path):
    state = {"w": np.ones(2), "objects": np.array([None, 1]), "words": np.array(["a", "bc"])}
    with open_model(written(tmp_path, pickle.dumps(state, 2))) as model:
        assert list(model.tensors) == ["w"]
        assert "objects" in model.values
        assert "words" in model.values


def test_arrays_must_have_as_many_bytes_as_their_shape_needs(tmp_path):
    data = pickle.dumps({"w": np.ones(3, dtype=np.float32)}, 3)
    at = data.index(np.ones(3, dtype=np.float32).tobytes())
    short = data[: at - 1] + b"\x08" + data[at : at + 8] + data[at + 12 :]
    with pytest.raises(FormatError, match="more or fewer bytes"):
        open_model(written(tmp_path, short))


def test_bf16_that_travels_as_f32(tmp_path):
    """torch writes tensors of some devices as arrays; BF16 values become F32 there and come back exactly."""
    values = np.array([1.5, -2.0, 3.140625], dtype=np.float32)
    inner = pickle.dumps(values, 2)[2:-1]
    code = call(
        name("torch._utils", "_rebuild_device_tensor_from_numpy"),
        inner,
        name("torch", "bfloat16"),
        text("xla:0"),
        b"\x89",
    )
    with open_model(written(tmp_path, pickled(mapping(("w", code))))) as model:
        ours = model.tensors["w"]
        assert ours.dtype is DType.BF16
        theirs = torch.from_numpy(values).to(torch.bfloat16)
        assert read_all(ours).tobytes() == theirs.view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (pickled(mapping(("epoch", integer(3)))), "no tensors"),
        (pickled(array(integer(1))), "no tensors"),
        (ONE, "one part of an unpacked checkpoint"),
        (pickle.dumps({"w": np.ones(2)}, 2) + b"more", "follows its only pickle"),
        (pickle.dumps({"w": np.ones(2)}, 2)[:-5], "incomplete|damaged"),
    ],
)
def test_plain_pickles_that_are_no_models(tmp_path, data, words):
    with pytest.raises(FormatError, match=words):
        open_model(written(tmp_path, data))


def test_a_plain_pickle_is_not_read_when_too_large(tmp_path):
    path = tmp_path / "a.pt"
    with path.open("wb") as out:
        out.write(b"\x80\x04}")
        out.truncate(MAX_PICKLE + 1)
    with pytest.raises(FormatError, match="plain pickle of"):
        open_model(path)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", [{}, [], {"a": 1}, [1], np.ones(1), np.float32(1)], ids=repr)
def test_plain_pickles_look_like_it(protocol, value):
    assert looks_pickled(pickle.dumps(value, protocol))


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"{",
        b'{"a": 1}',
        b"[1, 2]",
        b"(see below)\n",
        b"class A:\n",
        b"cat\ndog\nmouse\n",
        b"\x80",
        b"\x80\x09",
        b"(X is",
    ],
)
def test_other_files_do_not_look_like_pickles(head):
    assert not looks_pickled(head)


def test_tar_file(tmp_path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("storages")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"\0" * 4))
    with pytest.raises(FormatError, match="tar"):
        open_model(written(tmp_path, out.getvalue()))
