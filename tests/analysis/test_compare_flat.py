"""Flat arrays of models, and the models that are made of them again."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib_toolkit.analysis.compare.flatten import flatten
from lib_toolkit.analysis.compare.unflatten import unflatten
from lib_toolkit.dtypes import DType
from lib_toolkit.errors import CancelledError, FormatError, TargetError, UsageError
from lib_toolkit.formats import open_model
from lib_toolkit.progress import Progress
from lib_toolkit.tensors import read_all
from tests.analysis.samples import demo, part, save
from tests.making import of_arrays, safetensors_bytes

F16_ALL = np.arange(1 << 16, dtype="<u2")


def contents(path):
    with open_model(path) as model:
        return (
            [(key, tensor.dtype, tensor.shape, bytes(read_all(tensor))) for key, tensor in model.tensors.items()],
            dict(model.metadata),
        )


def there(path, folder, name="f.npy", **options):
    with open_model(path) as model:
        return flatten(model, folder / name, **options)


def there_and_back(path, folder, suffix=".safetensors"):
    there(path, folder)
    unflatten(folder / "f.npy", folder / f"again{suffix}")
    return folder / f"again{suffix}"


def raw(tensors, tmp_path, metadata=None):
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors_bytes(tensors, metadata))
    return path


def test_one_vector_and_its_slices(tmp_path):
    arrays = part(demo(), "first_stage_model.")
    done = there(save(tmp_path / "v.safetensors", arrays), tmp_path)
    flat = np.load(tmp_path / "f.npy")
    told = json.loads((tmp_path / "f.npy.json").read_text("utf-8"))
    assert (flat.dtype, flat.shape, done.count, done.exact) == (
        np.float32,
        (sum(a.size for a in arrays.values()),),
        flat.size,
        (),
    )
    assert [entry["key"] for entry in told["tensors"]] == list(arrays)
    for entry in told["tensors"]:
        array = arrays[entry["key"]]
        piece = flat[entry["offset"] : entry["offset"] + array.size].reshape(entry["shape"])
        assert np.array_equal(piece, array)


def test_a_whole_model_comes_back(tmp_path):
    arrays = demo()
    arrays["count"] = np.array(2**24 + 1, "<i8")
    path = save(tmp_path / "m.safetensors", arrays, {"hello": "wörld", "format": "pt"})
    again = there_and_back(path, tmp_path)
    assert contents(again) == contents(path)
    from safetensors import safe_open

    with safe_open(str(again), "np") as file:
        assert set(file.keys()) == set(arrays)
        assert file.metadata() == {"hello": "wörld", "format": "pt"}


def test_every_type_and_every_pattern(tmp_path):
    every = {
        "f16": ("F16", (256, 256), F16_ALL.tobytes()),
        "bf16": ("BF16", (1 << 16,), F16_ALL.tobytes()),
        "e4m3": ("F8_E4M3", (256,), bytes(range(256))),
        "e5m2": ("F8_E5M2", (4, 64), bytes(range(256))),
        "fnuz": ("F8_E4M3FNUZ", (256,), bytes(range(256))),
        "f32": ("F32", (5,), np.array([0x7FC00001, 0xFFC00000, 0x80000000, 1, 0x7F800000], "<u4").tobytes()),
        "i64": ("I64", (3,), np.array([2**53 + 1, -(2**63), 5], "<i8").tobytes()),
        "small": ("I64", (2,), np.array([-(2**24), 2**24], "<i8").tobytes()),
        "u64": ("U64", (1,), np.array([2**64 - 1], "<u8").tobytes()),
        "bool": ("BOOL", (3,), b"\x00\x01\x01"),
        "f4": ("F4", (6,), b"\x12\x34\x56"),
        "none": ("F32", (0, 3), b""),
        "scalar": ("F16", (), b"\x00\x3c"),
    }
    for wide in (False, True):
        folder = tmp_path / str(wide)
        folder.mkdir()
        tensors = {**every, "wide": ("F64", (2,), np.array([1e300, 0.1], "<f8").tobytes())} if wide else every
        path = raw(tensors, folder, {"a": "b"})
        done = there(path, folder)
        assert done.dtype is (DType.F64 if wide else DType.F32)
        assert contents_of(folder, path)
        expected = {"f16", "bf16", "e4m3", "e5m2", "fnuz", "i64", "u64", "f4"} | ({"f32"} if wide else set())
        assert set(done.exact) == expected
        told = json.loads((folder / "f.npy.json").read_text("utf-8"))
        bits = {entry["key"]: entry["bits"] for entry in told["tensors"] if "bits" in entry}
        assert base64.b64decode(bits["f16"]) == F16_ALL.tobytes()


def contents_of(folder, path):
    unflatten(folder / "f.npy", folder / "again.safetensors")
    return contents(folder / "again.safetensors") == contents(path)


def test_halves_without_odd_ones_need_no_bits(tmp_path):
    finite = F16_ALL[(F16_ALL & 0x7FFF) <= 0x7C00]
    path = raw({"x": ("F16", (finite.size,), finite.tobytes())}, tmp_path)
    assert there(path, tmp_path).exact == ()
    assert contents_of(tmp_path, path)


def test_lora(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": rng.standard_normal((4, 1280, 1, 1)).astype("<f2"),
        "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight": rng.standard_normal((1280, 4, 1, 1)).astype("<f2"),
        "lora_unet_mid_block_attentions_0_proj_in.alpha": np.array(4, "<f2"),
    }
    path = save(tmp_path / "l.safetensors", arrays, {"ss_network_dim": "4"})
    assert contents(there_and_back(path, tmp_path)) == contents(path)


def test_checkpoint_with_its_values(tmp_path):
    torch = pytest.importorskip("torch")
    arrays = part(demo(), "first_stage_model.")
    path = tmp_path / "m.ckpt"
    torch.save({"state_dict": {k: torch.from_numpy(a.copy()) for k, a in arrays.items()}, "epoch": 12}, path)
    again = torch.load(there_and_back(path, tmp_path, ".ckpt"), weights_only=True)
    assert again["epoch"] == 12
    assert list(again["state_dict"]) == list(arrays)
    assert all(np.array_equal(again["state_dict"][key].numpy(), array) for key, array in arrays.items())


names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8).filter(
    lambda name: name != "__metadata__"
)
kinds = st.sampled_from(["<f2", "<f4", "<f8", "<i8", "<i4", "|u1"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        names, st.tuples(kinds, st.lists(st.integers(0, 5), max_size=3), st.binary(min_size=8)), min_size=1, max_size=5
    )
)
def test_any_bits_come_back(tmp_path, tensors):
    arrays = {}
    for key, (kind, shape, seed) in tensors.items():
        unit = np.dtype(kind)
        size = int(np.prod(shape, dtype=int)) * unit.itemsize
        arrays[key] = np.frombuffer((seed * (size // len(seed) + 1))[:size], unit).reshape(shape)
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors_bytes(of_arrays(arrays)))
    for name in ("f.npy", "f.npy.json", "again.safetensors"):
        (tmp_path / name).unlink(missing_ok=True)
    assert contents(there_and_back(path, tmp_path)) == contents(path)


def test_targets(tmp_path):
    path = save(tmp_path / "v.safetensors", part(demo(), "first_stage_model."))
    with pytest.raises(UsageError, match=r"must end in \.npy"):
        there(path, tmp_path, "f.bin")
    there(path, tmp_path)
    with pytest.raises(TargetError, match="exists already"):
        there(path, tmp_path)
    (tmp_path / "f.npy").unlink()
    with pytest.raises(TargetError, match="exists already"):
        there(path, tmp_path)  # the description still is
    assert not (tmp_path / "f.npy").exists()
    there(path, tmp_path, force=True)
    with pytest.raises(UsageError):
        unflatten(tmp_path / "f.npy", tmp_path / "x.txt")
    with pytest.raises(TargetError, match="exists already"):
        unflatten(tmp_path / "f.npy", path)


def test_cancel_leaves_nothing(tmp_path):
    path = save(tmp_path / "v.safetensors", part(demo(), "first_stage_model."))
    with open_model(path) as model, pytest.raises(CancelledError):
        flatten(model, tmp_path / "f.npy", progress=Progress(None, lambda: True))
    assert [one.name for one in tmp_path.iterdir()] == ["v.safetensors"]


def damaged(text, **changes):
    table = json.loads(text)
    for key, value in changes.items():
        table[key] = value
    return json.dumps(table)


BROKEN = {
    "no JSON": lambda text: "{",
    "a list": lambda text: "[]",
    "another type": lambda text: damaged(text, dtype="<f8"),
    "another length": lambda text: damaged(text, count=3),
    "no tensors": lambda text: damaged(text, tensors=None),
    "a tensor too few": lambda text: damaged(text, tensors=json.loads(text)["tensors"][:-1]),
    "an unknown type": lambda text: text.replace('"F32"', '"F33"', 1),
    "a wrong shape": lambda text: text.replace('"shape": [', '"shape": [7, ', 1),
    "a negative shape": lambda text: text.replace('"shape": [', '"shape": [-1, -1, ', 1),
    "bits too short": lambda text: text.replace('"offset": 0', '"offset": 0, "bits": "AAAA"', 1),
    "bits that are none": lambda text: text.replace('"offset": 0', '"offset": 0, "bits": "%"', 1),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_description_that_does_not_fit(tmp_path, how):
    there(save(tmp_path / "v.safetensors", part(demo(), "first_stage_model.")), tmp_path)
    path = tmp_path / "f.npy.json"
    path.write_text(BROKEN[how](path.read_text("utf-8")), "utf-8")
    with pytest.raises(FormatError, match=r"f\.npy"):
        unflatten(tmp_path / "f.npy", tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_arrays_that_are_none(tmp_path):
    there(save(tmp_path / "v.safetensors", part(demo(), "first_stage_model.")), tmp_path)
    whole = (tmp_path / "f.npy").read_bytes()
    for data in (b"", b"abc", whole[:-1], whole[:40], b"\x93NUMPY\x01\x00\x05\x00{'a'}" + bytes(40)):
        (tmp_path / "f.npy").write_bytes(data)
        with pytest.raises(FormatError, match=r"f\.npy"):
            unflatten(tmp_path / "f.npy", tmp_path / "x.safetensors")
    (tmp_path / "f.npy").write_bytes(whole)
    (tmp_path / "f.npy.json").unlink()
    with pytest.raises(FormatError, match="belongs beside"):
        unflatten(tmp_path / "f.npy", tmp_path / "x.safetensors")
