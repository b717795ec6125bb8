"""Checkpoints that are written by hand: torch, Python's zipfile, our own reader and the WebUI's checker agree."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import zipfile
import zlib

import numpy as np
import pytest
import torch

from lib_toolkit.dtypes import DType
from lib_toolkit.errors import TargetError
from lib_toolkit.files import SourceFile
from lib_toolkit.formats.checkpoint_out import checkpoint_layout
from lib_toolkit.formats.opening import open_model
from lib_toolkit.formats.zip_reader import read_directory
from lib_toolkit.tensors import Filled, Stored, read_all

RANDOM = np.random.default_rng(7)


def filled(dtype, shape):
    count = int(np.prod(shape, dtype=int)) * dtype.itemsize
    return Filled(RANDOM.integers(0, 120, count, dtype=np.uint8).tobytes(), dtype, shape)


TENSORS = {
    "model.diffusion_model.input_blocks.0.0.weight": filled(DType.F32, (4, 3, 3, 3)),
    "half": filled(DType.F16, (5,)),
    "bf16": filled(DType.BF16, (2, 7)),
    "double": filled(DType.F64, (3,)),
    "position_ids": filled(DType.I64, (1, 77)),
    "int": filled(DType.I32, (300,)),
    "scalar": filled(DType.F32, ()),
    "empty": filled(DType.F32, (0,)),
    "empty rows": filled(DType.F16, (3, 0, 2)),
    "five": filled(DType.F32, (1, 2, 1, 2, 3)),
    "schlüssel": filled(DType.F32, (1,)),
}
TORCH_TYPES = {
    DType.F64: torch.float64,
    DType.F32: torch.float32,
    DType.F16: torch.float16,
    DType.BF16: torch.bfloat16,
    DType.I64: torch.int64,
    DType.I32: torch.int32,
}
VALUES = {
    "epoch": 5,
    "global_step": 470000,
    "big": 2**70,
    "negative": -3,
    "lr": 1e-4,
    "name": "é",
    "flag": True,
    "no": None,
}
METADATA = {"modelspec.title": "x", "hash": " " * 64}


def build(layout, metadata, fill=0xEE):
    """The file that a layout describes, and a check that its pieces cover it without touching each other."""
    out = bytearray([fill]) * layout.size
    crcs, covered = {}, []
    for slot in layout.slots:
        data = read_all(slot.tensor).tobytes()
        out[slot.offset : slot.offset + len(data)] = data
        covered.append((slot.offset, slot.offset + len(data)))
        if data:
            crcs[slot.key] = zlib.crc32(data)
    for offset, data in layout.frame(metadata, crcs):
        out[offset : offset + len(data)] = data
        covered.append((offset, offset + len(data)))
    position = 0
    for start, stop in sorted(covered):
        assert start == position
        position = stop
    assert position == layout.size
    return bytes(out)


@pytest.fixture(scope="module")
def whole():
    return build(checkpoint_layout(TENSORS, METADATA, VALUES), METADATA)


def test_torch_reads_the_same_bits(whole):
    found = torch.load(io.BytesIO(whole), weights_only=True)
    assert list(found) == ["state_dict", *VALUES, "__metadata__"]
    assert {key: found[key] for key in VALUES} == VALUES
    assert found["__metadata__"] == METADATA
    assert list(found["state_dict"]) == list(TENSORS)
    for key, ours in TENSORS.items():
        theirs = found["state_dict"][key]
        assert theirs.dtype is TORCH_TYPES[ours.dtype]
        assert tuple(theirs.shape) == ours.shape
        assert theirs.is_contiguous()
        assert not theirs.requires_grad
        if theirs.numel():
            assert theirs.reshape(-1).view(torch.uint8).numpy().tobytes() == ours.data


def test_torch_maps_it(whole, tmp_path):
    (tmp_path / "a.pt").write_bytes(whole)
    found = torch.load(tmp_path / "a.pt", weights_only=True, mmap=True)["state_dict"]
    assert found["half"].view(torch.uint8).numpy().tobytes() == TENSORS["half"].data


def test_our_reader_gives_everything_back(whole, tmp_path):
    (tmp_path / "a.ckpt").write_bytes(whole)
    with open_model(tmp_path / "a.ckpt") as model:
        assert model.container == "state_dict"
        assert model.metadata == METADATA
        assert model.values == VALUES
        assert (model.notes, model.warnings) == ((), ())
        assert list(model.tensors) == list(TENSORS)
        for key, ours in TENSORS.items():
            again = model.tensors[key]
            assert (again.dtype, again.shape) == (ours.dtype, ours.shape)
            assert read_all(again).tobytes() == ours.data
        raw = (tmp_path / "a.ckpt").read_bytes()
        for check in model.checksums:
            assert zlib.crc32(raw[check.offset : check.offset + check.length]) == check.crc


WEBUI_ENTRIES = re.compile(r"([^/]+)/((data/\d+)|version|byteorder|(\.data/serialization_id)|(data\.pkl))")
WEBUI_GLOBALS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_device_tensor_from_numpy",
    *(f"torch {kind}Storage" for kind in ("Float", "Half", "Int", "Long", "Double", "Byte", "BFloat16")),
    "torch float32",
}


def test_the_webui_accepts_it(whole):
    """The two rules of its checker: names of entries by pattern, names in the pickle from a list."""
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        assert file.testzip() is None
        assert all(WEBUI_ENTRIES.fullmatch(name) for name in file.namelist())
        assert all(info.compress_type == zipfile.ZIP_STORED for info in file.infolist())
        assert file.read("archive/version") == b"3\n"
        data = file.read("archive/data.pkl")
    named = {argument for opcode, argument, _ in pickletools.genops(data) if opcode.name == "GLOBAL"}
    assert named <= WEBUI_GLOBALS
    assert not any(opcode.name == "STACK_GLOBAL" for opcode, _, _ in pickletools.genops(data))
    assert max(opcode.proto for opcode, _, _ in pickletools.genops(data)) == 2


def test_pythons_unpickler_agrees(whole):
    class Unpickler(pickle.Unpickler):
        def persistent_load(self, identity):
            return identity

        def find_class(self, module, name):
            return dict if name == "OrderedDict" else (lambda *args: args) if name[0] == "_" else name

    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        found = Unpickler(io.BytesIO(file.read("archive/data.pkl"))).load()
    storage, offset, shape, stride, grad, hooks = found["state_dict"]["five"]
    assert storage == ("storage", "FloatStorage", "9", "cpu", 12)
    assert (offset, shape, stride, grad, hooks) == (0, (1, 2, 1, 2, 3), (12, 6, 6, 3, 1), False, {})


def test_data_are_aligned_and_the_result_is_always_the_same(whole, tmp_path):
    layout = checkpoint_layout(TENSORS, METADATA, VALUES)
    assert all(slot.offset % 64 == 0 for slot in layout.slots)
    assert [slot.key for slot in layout.slots] == list(TENSORS)
    assert build(layout, METADATA, fill=0x11) == whole


def test_metadata_may_change_their_letters(whole):
    layout = checkpoint_layout(TENSORS, METADATA, VALUES)
    changed = {**METADATA, "hash": "0123456789abcdef" * 4}
    data = build(layout, changed)
    assert len(data) == len(whole)
    assert torch.load(io.BytesIO(data), weights_only=True)["__metadata__"] == changed
    with pytest.raises(AssertionError):
        layout.frame({"modelspec.title": "longer", "hash": ""}, dict.fromkeys(TENSORS, 0))


def test_no_metadata_no_values_no_tensors():
    found = torch.load(io.BytesIO(build(checkpoint_layout({"w": TENSORS["half"]}, {}, {}), {})), weights_only=True)
    assert list(found) == ["state_dict"]
    assert torch.load(io.BytesIO(build(checkpoint_layout({}, {}, {}), {})), weights_only=True) == {"state_dict": {}}


@pytest.mark.parametrize(
    "dtype", [DType.F8_E4M3, DType.F8_E5M2, DType.I16, DType.I8, DType.U8, DType.BOOL, DType.U16, DType.C64, DType.F4]
)
def test_types_that_not_all_readers_know_are_refused(dtype):
    tensors = {"good": TENSORS["half"], **{f"key{n}": filled(dtype, (8,)) for n in range(7)}}
    with pytest.raises(TargetError, match="save as safetensors instead") as caught:
        checkpoint_layout(tensors, {}, {})
    assert f"{dtype.name} (key0, key1, key2, key3, key4 and 2 more)" in str(caught.value)


@pytest.mark.parametrize("name", ["state_dict", "__metadata__"])
def test_reserved_names_are_refused(name):
    with pytest.raises(TargetError, match=name):
        checkpoint_layout({}, {}, {name: 1})


def test_more_entries_than_old_zip_counts(tmp_path):
    """66,000 tensors: the number of entries needs a zip64 record."""
    tensors = {f"k{n}": Filled(bytes([n % 251]), DType.F32, (0,)) for n in range(66_000)}
    data = build(checkpoint_layout(tensors, {}, {}), {})
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        assert len(file.namelist()) == 66_002
    (tmp_path / "a.pt").write_bytes(data)
    with SourceFile(tmp_path / "a.pt") as file:
        assert len(read_directory(file)) == 66_002
    assert len(torch.load(tmp_path / "a.pt", weights_only=True)["state_dict"]) == 66_000


def test_sizes_beyond_4_gib(tmp_path):
    """A tensor of 5 GiB and one behind it, on a sparse file: torch, zipfile and our reader find both."""
    (tmp_path / "zeros").write_bytes(b"")
    with SourceFile(tmp_path / "zeros") as nothing:
        big = Stored(nothing, 0, DType.F16, (5 << 29,))
        tensors = {"first": TENSORS["half"], "big": big, "last": TENSORS["bf16"]}
        layout = checkpoint_layout(tensors, METADATA, VALUES)
    path = tmp_path / "a.pt"
    crcs = {key: zlib.crc32(tensors[key].data) for key in ("first", "last")} | {"big": 0x12345678}
    with path.open("wb") as out:
        out.truncate(layout.size)
        for slot in layout.slots:
            if slot.key != "big":
                out.seek(slot.offset)
                out.write(slot.tensor.data)
        for offset, data in layout.frame(METADATA, crcs):
            out.seek(offset)
            out.write(data)
        assert out.tell() == layout.size
    with zipfile.ZipFile(path) as file:
        assert file.getinfo("archive/data/1").file_size == 5 << 30
        assert file.read("archive/data/2") == TENSORS["bf16"].data
    with open_model(path) as model:
        assert model.tensors["big"].shape == (5 << 29,)
        assert read_all(model.tensors["last"]).tobytes() == TENSORS["bf16"].data
    found = torch.load(path, weights_only=True, mmap=True)["state_dict"]
    assert found["last"].view(torch.uint8).numpy().tobytes() == TENSORS["bf16"].data
    assert found["big"].shape == (5 << 29,)
