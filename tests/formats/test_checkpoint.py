"""Zip checkpoints: every tensor bit for bit as torch reads it, the right state dict, and nothing half-read."""

from __future__ import annotations

import io
import random
import struct
import threading
import time
import zipfile
import zlib
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_toolkit.dtypes import DType
from lib_toolkit.errors import FormatError, ToolkitError
from lib_toolkit.formats.opening import open_model
from lib_toolkit.formats.pickle_values import Placeholder
from lib_toolkit.tensors import Strided, nbytes, numel, read_all
from tests.formats.pickle_cases import (
    LITTLE_LEGACY,
    LITTLE_ZIP,
    PAIR,
    archive,
    array,
    call,
    integer,
    legacy,
    mapping,
    name,
    ordered,
    pickled,
    storage,
    tensor,
    text,
    tup,
)

TORCH_TYPES = {
    torch.float64: DType.F64,
    torch.float32: DType.F32,
    torch.float16: DType.F16,
    torch.bfloat16: DType.BF16,
    torch.int64: DType.I64,
    torch.int32: DType.I32,
    torch.int16: DType.I16,
    torch.int8: DType.I8,
    torch.uint8: DType.U8,
    torch.bool: DType.BOOL,
    torch.complex64: DType.C64,
    torch.float8_e4m3fn: DType.F8_E4M3,
    torch.float8_e5m2: DType.F8_E5M2,
    torch.uint16: DType.U16,
}


def bits(value):
    """The dense bytes of a torch tensor."""
    # A fresh tensor, since torch calls any strides dense where a dimension has one element.
    dense = torch.empty(value.numel(), dtype=value.dtype).copy_(value.detach().reshape(-1))
    return dense.view(torch.uint8).numpy().tobytes()


def agree(ours, theirs):
    assert ours.dtype is TORCH_TYPES[theirs.dtype]
    assert ours.shape == tuple(theirs.shape)
    assert read_all(ours).tobytes() == bits(theirs)


def base(count=24):
    return torch.arange(count, dtype=torch.float32) * 1.25 - 3


SHARED = base()
TENSORS = {
    **{f"type {dtype}": torch.randint(0, 2, (3, 5)).to(dtype) for dtype in TORCH_TYPES},
    "nan and inf": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45]),
    "tied a": SHARED,
    "tied b": SHARED,
    "tied part": SHARED[4:12],
    "tied rows": SHARED.view(4, 6)[1:3],
    "transposed": base().view(4, 6).t(),
    "permuted": base().view(2, 3, 4).permute(2, 0, 1),
    "columns": base().view(4, 6)[:, 2:5],
    "steps": base()[1::3],
    "expanded": base(3).view(3, 1).expand(3, 4),
    "expanded in front": base(3).expand(5, 3),
    "scalar": torch.tensor(7.5),
    "scalar inside": base()[5],
    "empty": torch.zeros(0),
    "empty rows": torch.zeros(3, 0, 2),
    "empty slice": base()[24:],
    "channels last": torch.arange(120.0).view(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
    "one by one": base(1).view(1, 1).t(),
    "parameter": torch.nn.Parameter(base(6).view(2, 3)),
    "parameter with state": torch.nn.Parameter(base(2), requires_grad=False),
    "reinterpreted": base(4).view(torch.int32),
    "half of": torch.arange(8, dtype=torch.float16)[3:6],
}
TENSORS["parameter with state"].remark = "kept"


@pytest.mark.parametrize("zipped", [True, False])
def test_every_kind_of_tensor_agrees_with_torch(tmp_path, zipped):
    path = tmp_path / "a.pt"
    # torch writes its newest types into old-format files too but cannot read them back.
    new = ("float8", "uint16")
    state = {key: value for key, value in TENSORS.items() if zipped or not any(word in key for word in new)}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    theirs = torch.load(path, weights_only=True)
    with open_model(path) as model:
        assert model.origin.format == ("torch-zip" if zipped else "torch-legacy")
        assert list(model.tensors) == list(theirs)
        for key, ours in model.tensors.items():
            agree(ours, theirs[key])
        assert model.warnings == ()


def test_ranges_of_views_agree(tmp_path):
    """Any range, as the writer asks for them, not only whole tensors."""
    path = tmp_path / "a.pt"
    torch.save(TENSORS, path)
    with open_model(path) as model:
        for key, ours in model.tensors.items():
            whole, count = read_all(ours).tobytes(), numel(ours)
            for start in range(0, count, 5):
                stop = min(count, start + 7)
                out = np.empty(ours.dtype.nbytes(stop - start), dtype=np.uint8)
                ours.read_into(start, stop, out)
                assert out.tobytes() == whole[ours.dtype.nbytes(start) : ours.dtype.nbytes(stop)], key


SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@st.composite
def random_tensors(draw):
    dtype = draw(st.sampled_from(list(TORCH_TYPES)))
    value = torch.randint(-100, 100, draw(SHAPES), dtype=torch.int32).to(dtype)
    if value.ndim and draw(st.booleans()):
        value = value.permute(*draw(st.permutations(range(value.ndim))))
    if value.ndim and value.shape[0] and draw(st.booleans()):
        value = value[draw(st.integers(0, value.shape[0] - 1)) :]
    return value


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=9), random_tensors(), min_size=1, max_size=5), st.booleans())
def test_random_state_dicts_agree(tmp_path_factory, state, zipped):
    path = tmp_path_factory.mktemp("random") / "a.pt"
    try:
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
    except UnicodeEncodeError:
        return
    with open_model(path) as model:
        assert list(model.tensors) == list(state)
        for key, ours in model.tensors.items():
            agree(ours, state[key])


def test_literal_archive_of_old_torch(tmp_path):
    path = tmp_path / "a.ckpt"
    path.write_bytes(LITTLE_ZIP)
    with open_model(path) as model:
        (ours,) = model.tensors.values()
        assert (ours.offset, ours.dtype, ours.shape) == (320, DType.F32, (2,))
        assert read_all(ours).view("<f4").tolist() == [1.5, -2.0]
        assert [(c.name, c.offset, c.length, c.crc) for c in model.checksums] == [
            ("archive/data/0", 320, 8, zlib.crc32(PAIR))
        ]


def written(tmp_path, data, file_name="a.ckpt"):
    path = tmp_path / file_name
    path.write_bytes(data)
    return path


def test_big_endian_storages_are_swapped(tmp_path):
    """The same numbers as torch.load gives for an archive that says it is big-endian."""
    raw = struct.pack(">2f", 1.5, -2.0)
    path = written(tmp_path, archive(pickled(mapping(("w", tensor()))), {"0": raw}, byteorder=b"big"))
    with open_model(path) as model:
        assert read_all(model.tensors["w"]).view("<f4").tolist() == [1.5, -2.0]
    assert torch.load(path)["w"].tolist() == [1.5, -2.0]
    with pytest.raises(FormatError, match="byte order"):
        open_model(written(tmp_path, archive(pickled(mapping(("w", tensor()))), byteorder=b"middle")))


def test_deflated_archives_agree_from_many_threads(tmp_path):
    """Storages packed by a zip program: all ranges are right, while several threads read several entries."""
    state = {f"w{n}": torch.arange(1000.0) * (n + 1) for n in range(6)}
    torch.save(state, tmp_path / "plain.pt")
    path = tmp_path / "packed.pt"
    with zipfile.ZipFile(tmp_path / "plain.pt") as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    with open_model(path) as model:
        assert model.checksums == ()
        failures = []

        def work(seed):
            chosen = random.Random(seed)
            for _ in range(40):
                key = chosen.choice(list(state))
                start = chosen.randrange(1000)
                out = np.empty(4 * (1000 - start), dtype=np.uint8)
                model.tensors[key].read_into(start, 1000, out)
                if out.tobytes() != bits(state[key])[4 * start :]:
                    failures.append(key)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []


def test_damage_in_a_deflated_storage_is_noticed_when_read(tmp_path):
    good = archive(pickled(mapping(("w", tensor()))), method=zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(io.BytesIO(good)) as file:
        crc = file.getinfo("archive/data/0").CRC
    data = good.replace(struct.pack("<L", crc), struct.pack("<L", crc ^ 1))
    with open_model(written(tmp_path, data)) as model, pytest.raises(FormatError, match="checksum"):
        read_all(model.tensors["w"])


def test_damage_in_the_pickle_is_noticed_at_once(tmp_path):
    data = archive(pickled(mapping(("weight", tensor()))))
    with pytest.raises(FormatError, match="checksum"):
        open_model(written(tmp_path, data.replace(b"weight", b"wEight")))


def test_checksums_name_what_is_used(tmp_path):
    """One for each stored entry in use, also by tensors outside of the state dict; right over the file's bytes."""
    pickle = mapping(
        ("state_dict", mapping(("w", tensor("0")), ("v", tensor("0")))), ("optimizer", mapping(("m", tensor("1"))))
    )
    path = written(tmp_path, archive(pickled(pickle), {"0": PAIR, "1": b"\1" * 8, "2": b"unused"}))
    with open_model(path) as model:
        assert [check.name for check in model.checksums] == ["archive/data/0", "archive/data/1"]
        raw = path.read_bytes()
        for check in model.checksums:
            assert zlib.crc32(raw[check.offset : check.offset + check.length]) == check.crc
        assert any("1 stored part" in note for note in model.notes)


@pytest.mark.parametrize(
    ("code", "storages", "words"),
    [
        (tensor(shape=(3,)), None, "beyond the end"),
        (tensor(offset=1), None, "beyond the end"),
        (tensor(offset=2**63), None, "no usable number"),
        (tensor(shape=(2**62, 2**62), stride=(1, 1)), None, "beyond the end"),
        (tensor(stride=(2,)), None, "beyond the end"),
        (tensor(stride=(-1,)), None, "no usable number"),
        (tensor(shape=(-2,)), None, "no usable number"),
        (tensor(shape=(1, 2)), None, "dimensions"),
        (tensor(shape=(1,) * 40, stride=(1,) * 40), None, "40 dimensions"),
        (tensor(numel=3), None, "12 are due"),
        (tensor(numel=1, shape=(1,)), None, "4 are due"),
        (tensor(kind="HalfStorage"), None, "4 are due"),
        (tensor(), {"0": PAIR + b"x"}, "8 are due"),
        (tensor("9"), None, "'archive/data/9' is missing"),
        (tensor("../0"), None, "is missing"),
        (tensor(numel=-2), None, "no usable number"),
        (tensor(numel=2**70), None, "no usable number"),
        (tensor(shape=(2**40,), stride=(0,)), None, "would expand"),
        (call(name("torch._utils", "_rebuild_tensor_v2"), storage()), None, "unknown way"),
        (call(name("torch._utils", "_rebuild_tensor_v2"), *[b"N"] * 6), None, "unknown way"),
        (call(name("torch._utils", "_rebuild_tensor_v2"), text("x") + b"Q", *[b"N"] * 5), None, "no storage"),
        (
            call(name("torch._utils", "_rebuild_tensor_v2"), storage(), b"\x88", tup(b"K\2"), tup(b"K\1"), b"N", b"N"),
            None,
            "no usable number",
        ),
    ],
)
def test_tensors_that_contradict_themselves_are_refused(tmp_path, code, storages, words):
    path = written(tmp_path, archive(pickled(mapping(("w", code))), storages))
    with pytest.raises(FormatError, match=words):
        open_model(path)


def test_deflate_bomb_is_refused_unopened(tmp_path):
    size = 100 << 20
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/data.pkl", pickled(mapping(("w", tensor(numel=size // 4, shape=(size // 4,))))))
        file.writestr("a/data/0", bytes(size))
    with pytest.raises(FormatError, match="unpack"):
        open_model(written(tmp_path, out.getvalue()))


def test_integer_storage_keys_are_accepted(tmp_path):
    with open_model(written(tmp_path, archive(pickled(mapping(("w", tensor(0))))))) as model:
        assert read_all(model.tensors["w"]).tobytes() == PAIR


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (archive(b"x", root="a/b"), "exactly one"),
        (archive(pickled(mapping(("w", tensor()))) + b"tail"), "follows its list"),
        (archive(pickled(b"}")), "no tensors"),
        (archive(pickled(mapping(("epoch", integer(3))))), "no tensors"),
        (archive(pickled(mapping(("w", tensor()))), **{"sub/data.pkl": b"N."}), "exactly one"),
        (archive(pickled(mapping(("w", tensor()))), **{"constants.pkl": b"N."}), "TorchScript"),
        (archive(pickled(mapping(("w", tensor()))), **{"code/model.py": b""}), "TorchScript"),
        (archive(pickled(b"}(" + integer(1) + tensor() + text("1") + tensor() + b"u")), "called '1'"),
        (archive(pickled(mapping(("a.b", tensor()), ("a", mapping(("b", tensor())))))), r"called 'a\.b'"),
    ],
)
def test_other_archives_get_their_sentence(tmp_path, data, words):
    path = written(tmp_path, data)
    with pytest.raises(FormatError, match=words) as caught:
        open_model(path)
    assert "a.ckpt" in str(caught.value)


def test_zip_of_something_else(tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("model.safetensors", b"x")
    with pytest.raises(FormatError, match="not a PyTorch checkpoint"):
        open_model(written(tmp_path, out.getvalue()))


@pytest.mark.parametrize("data", [LITTLE_ZIP, LITTLE_LEGACY, archive(pickled(mapping(("w", tensor()))))])
def test_every_cut_point(tmp_path, data):
    path = tmp_path / "a.ckpt"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(FormatError):
            open_model(path)


def lightning(tmp_path):
    """What Lightning 1.x saves: callbacks by class, AttributeDict, optimizer states, loops."""
    checkpoint = call(name("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"))
    attributes = (
        name("pytorch_lightning.utilities.parsing", "AttributeDict")
        + b")\x81("
        + text("lr")
        + b"G"
        + struct.pack(">d", 1e-4)
        + b"u"
    )
    state = mapping(("state", b"}" + integer(12) + mapping(("exp_avg", tensor("1")), ("step", integer(9))) + b"s"))
    callbacks = (
        b"}" + name("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint") + mapping(("best", b"N")) + b"s"
    )
    data = mapping(
        ("epoch", integer(5)),
        ("global_step", integer(470000)),
        ("pytorch-lightning_version", text("1.4.2")),
        ("state_dict", ordered(("model.diffusion_model.out.2.bias", tensor("0")), ("note", text("inside")))),
        ("optimizer_states", array(state)),
        ("callbacks", callbacks),
        ("more", array(checkpoint)),
        ("hyper_parameters", attributes),
    )
    return written(tmp_path, archive(pickled(data), {"0": PAIR, "1": b"\2" * 8}))


def test_lightning_checkpoint(tmp_path):
    with open_model(lightning(tmp_path)) as model:
        assert list(model.tensors) == ["model.diffusion_model.out.2.bias"]
        assert model.container == "state_dict"
        assert list(model.outside) == ["optimizer_states.0.state.12.exp_avg"]
        assert read_all(model.outside["optimizer_states.0.state.12.exp_avg"]).tobytes() == b"\2" * 8
        assert model.values["epoch"] == 5
        assert model.values["global_step"] == 470000
        assert model.values["state_dict.note"] == "inside"
        assert model.values["optimizer_states.0.state.12.step"] == 9
        assert model.values["hyper_parameters.lr"] == 1e-4
        assert str(model.values["hyper_parameters"]) == "<pytorch_lightning.utilities.parsing.AttributeDict>"
        assert any("ModelCheckpoint" in note for note in model.notes)
        assert model.warnings == ()


def test_unknown_names_are_a_warning(tmp_path):
    data = mapping(("w", tensor()), ("x", call(name("somebody.models", "Thing"), integer(3))))
    with open_model(written(tmp_path, archive(pickled(data)))) as model:
        assert model.values["x"] == Placeholder("somebody.models.Thing", "warning")
        assert any("somebody.models.Thing" in warning for warning in model.warnings)
        assert model.values["x.args"] == (3,)


class Tracker:
    """An object of the test's own class, such as a training script leaves in its checkpoints."""

    def __init__(self, owner):
        self.owner = owner
        self.best = torch.ones(2)


def test_cycles_inside_of_objects_are_usual(tmp_path):
    """Config objects point to their parents; that is no attack."""
    tracker = Tracker(None)
    tracker.owner = {"child": tracker}
    torch.save({"state_dict": {"w": torch.zeros(2)}, "tracker": tracker}, tmp_path / "a.pt")
    with open_model(tmp_path / "a.pt") as model:
        assert list(model.tensors) == ["w"]
        assert list(model.outside) == ["tracker.best"]


def test_optimizer_of_torch(tmp_path):
    """A real training state: model, Adam, scheduler, random state."""
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    network(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    state = {
        "model": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": torch.get_rng_state(),
        "epoch": 3,
    }
    torch.save(state, tmp_path / "a.pt")
    with open_model(tmp_path / "a.pt") as model:
        assert model.container == "model"
        assert list(model.tensors) == list(network.state_dict())
        for key, value in network.state_dict().items():
            agree(model.tensors[key], value)
        agree(model.outside["optimizer.state.0.exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
        agree(model.outside["rng"], torch.get_rng_state())
        assert model.values["optimizer.param_groups.0.betas"] == (0.9, 0.999)
        assert model.values["epoch"] == 3


def two_dicts(first, second):
    return {first: OrderedDict(a=torch.zeros(2), b=torch.ones(3)), second: OrderedDict(a=torch.full((2,), 2.0))}


@pytest.mark.parametrize(
    ("first", "second", "chosen", "note"),
    [
        ("params", "params_ema", "params_ema", "uses params_ema; params also holds 2 tensors"),
        ("params_ema", "params", "params_ema", "uses params_ema; params also holds 1 tensor"),
        ("model", "state_dict", "state_dict", "uses state_dict; model also holds 2 tensors"),
        ("net", "module", "module", "uses module; net also holds 2 tensors"),
        ("model", "optimizer", "model", None),
        ("state_dict", "other", "state_dict", None),
    ],
)
def test_which_state_dict_is_used(tmp_path, first, second, chosen, note):
    state = two_dicts(first, second)
    torch.save(state, tmp_path / "a.pt")
    with open_model(tmp_path / "a.pt") as model:
        assert model.container == chosen
        assert set(model.tensors) == set(state[chosen])
        other = second if chosen == first else first
        assert set(model.outside) == {f"{other}.{key}" for key in state[other]}
        assert model.notes == ((note,) if note else ())


def test_nested_and_top_level_state_dicts(tmp_path):
    torch.save(
        {"model": {"state_dict": {"w": torch.ones(1)}}, "optimizer": {"state_dict": {"m": torch.ones(1)}}},
        tmp_path / "a",
    )
    with open_model(tmp_path / "a") as model:
        assert (model.container, list(model.tensors)) == ("model.state_dict", ["w"])
        assert list(model.outside) == ["optimizer.state_dict.m"]
    torch.save({"w": torch.ones(1), "extra": {"m": torch.ones(1)}, "v_pred": True}, tmp_path / "a")
    with open_model(tmp_path / "a") as model:
        assert (model.container, list(model.tensors)) == ("", ["w"])
        assert list(model.outside) == ["extra.m"]
        assert model.values == {"v_pred": True}


def test_a_usual_name_below_an_unusual_one_comes_last(tmp_path):
    torch.save({"optimizer": {"state_dict": {"m": torch.ones(1)}}, "net": {"w": torch.ones(1)}}, tmp_path / "a.pt")
    with open_model(tmp_path / "a.pt") as model:
        assert (model.container, list(model.tensors)) == ("net", ["w"])
        assert list(model.outside) == ["optimizer.state_dict.m"]


def test_ema_keys_are_ordinary_keys(tmp_path):
    state = {"model.diffusion_model.out.2.bias": torch.ones(4), "model_ema.diffusion_modelout2bias": torch.zeros(4)}
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    with open_model(tmp_path / "a.ckpt") as model:
        assert list(model.tensors) == list(state)


def test_hypernetwork_keeps_its_levels(tmp_path):
    """AUTOMATIC1111's hypernetworks: integer sizes, each with a pair of state dicts."""
    pair = ({"linear.0.weight": torch.ones(2, 2)}, {"linear.0.weight": torch.zeros(2, 2)})
    state = {320: pair, 768: pair, "step": 1000, "name": "hyper", "layer_structure": [1, 2, 1]}
    torch.save(state, tmp_path / "a.pt")
    with open_model(tmp_path / "a.pt") as model:
        assert set(model.tensors) == {f"{size}.{side}.linear.0.weight" for size in (320, 768) for side in (0, 1)}
        agree(model.tensors["768.1.linear.0.weight"], pair[1]["linear.0.weight"])
        assert model.container == ""
        assert model.values == {"step": 1000, "name": "hyper", "layer_structure": (1, 2, 1)}
        assert any("in groups; each is called by its group" in note for note in model.notes)


def test_embedding(tmp_path):
    """A textual inversion; old ones hold a ParameterDict."""
    vector = torch.ones(2, 768)
    rest = {"string_to_token": {"*": 265}, "name": "style", "step": 500, "sd_checkpoint": None}
    torch.save({**rest, "string_to_param": {"*": vector}}, tmp_path / "new.pt")
    old = torch.nn.ParameterDict({"x": torch.nn.Parameter(vector)})
    torch.save({**rest, "string_to_param": old}, tmp_path / "old.pt")
    with open_model(tmp_path / "new.pt") as model:
        agree(model.tensors["string_to_param.*"], vector)
        assert model.values["string_to_token.*"] == 265
        assert model.values["sd_checkpoint"] is None
    with open_model(tmp_path / "old.pt") as model:
        agree(model.tensors["string_to_param.x"], vector)


def test_tensors_attached_to_dicts_are_not_lost(tmp_path):
    """Attributes of a dict or of a module that seems to hold parameters only."""
    odd = OrderedDict(w=torch.ones(1))
    odd.extra = torch.zeros(2)
    torch.save({"state_dict": {"w": torch.ones(1)}, "odd": odd}, tmp_path / "a.pt")
    with open_model(tmp_path / "a.pt") as model:
        assert sorted(model.outside) == ["odd.extra", "odd.w"]
    module = torch.nn.ParameterDict({"x": torch.nn.Parameter(torch.ones(1))})
    module.register_buffer("extra", torch.zeros(2))
    torch.save({"state_dict": {"w": torch.ones(1)}, "odd": module}, tmp_path / "a.pt")
    with open_model(tmp_path / "a.pt") as model:
        assert sorted(model.outside) == ["odd._buffers.extra", "odd._parameters.x"]


def test_integer_keys_become_text(tmp_path):
    torch.save({0: torch.ones(1), 1: torch.zeros(1)}, tmp_path / "a.pt")
    with open_model(tmp_path / "a.pt") as model:
        assert list(model.tensors) == ["0", "1"]


def test_a_single_tensor_and_a_list(tmp_path):
    torch.save(torch.ones(3), tmp_path / "a.pt")
    with open_model(tmp_path / "a.pt") as model:
        assert list(model.tensors) == ["tensor"]
    torch.save([torch.ones(3), {"b": torch.ones(1)}], tmp_path / "a.pt")
    with open_model(tmp_path / "a.pt") as model:
        assert list(model.tensors) == ["0", "1.b"]


def test_whole_pickled_module(tmp_path):
    """torch.save(model): the class is not needed to get at the weights."""
    network = torch.nn.Sequential(torch.nn.Linear(3, 4))
    torch.save(network, tmp_path / "a.pt")
    with open_model(tmp_path / "a.pt") as model:
        agree(model.tensors["_modules.0._parameters.weight"], network[0].weight)
        assert any("program objects" in note for note in model.notes)


def test_metadata_beside_the_state_dict(tmp_path):
    texts = {"modelspec.title": "x", "format": "pt"}
    torch.save({"state_dict": {"w": torch.ones(1)}, "__metadata__": texts, "epoch": 1}, tmp_path / "a.ckpt")
    with open_model(tmp_path / "a.ckpt") as model:
        assert model.metadata == texts
        assert model.values == {"epoch": 1}
    torch.save({"state_dict": {"w": torch.ones(1)}, "__metadata__": {"n": 1}}, tmp_path / "a.ckpt")
    with open_model(tmp_path / "a.ckpt") as model:
        assert model.metadata == {}
        assert model.values == {"__metadata__.n": 1}


def test_plain_values_are_understood(tmp_path):
    """NumPy numbers, sizes, devices, types, bytes, sets, complex numbers: as Python's own."""
    values = {
        "f64": np.float64(2.5),
        "f32": np.float32(0.1),
        "i64": np.int64(-7),
        "bool": np.bool_(True),
        "size": torch.Size([1, 2]),
        "device": torch.device("cuda:0"),
        "dtype": torch.float16,
        "bytes": b"\x00\xff",
        "none": b"",
        "array": bytearray(b"ab"),
        "complex": 1 + 2j,
        "set": {5},
        "nested": ((1, 2), (3,)),
        "empty": {},
        "ordered": OrderedDict(a=1),
    }
    torch.save({"w": torch.ones(1), "values": values}, tmp_path / "a.pt")
    with open_model(tmp_path / "a.pt") as model:
        found = {key.removeprefix("values."): value for key, value in model.values.items()}
    assert found.pop("nested.0") == (1, 2)
    assert found.pop("nested.1") == (3,)
    assert found == {
        "f64": 2.5, "f32": float(np.float32(0.1)), "i64": -7, "bool": True, "size": (1, 2), "device": "cuda:0",
        "dtype": "torch.float16", "bytes": b"\x00\xff", "none": b"", "array": b"ab", "complex": 1 + 2j, "set": (5,),
        "empty": {}, "ordered.a": 1,
    }  # fmt: skip


def test_tensors_that_are_more_than_views_are_refused_by_name(tmp_path):
    sparse = torch.eye(3).to_sparse()
    quantised = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    lazy = torch.tensor([1 + 1j]).conj()
    wide = torch.zeros(1, dtype=torch.complex128)
    state = {"w": torch.ones(1), "s": sparse, "q": quantised, "c": lazy, "z": wide}
    torch.save(state, tmp_path / "a.pt")
    with open_model(tmp_path / "a.pt") as model:
        assert list(model.tensors) == ["w"]
        assert [warning.split(" ")[0] for warning in model.warnings] == ["s", "q", "c", "z"]
        assert all("left out" in warning for warning in model.warnings)


def test_foreign_entries_are_reported(tmp_path):
    data = archive(pickled(mapping(("w", tensor()))), **{"readme.txt": b"hello"})
    with open_model(written(tmp_path, data)) as model:
        assert any("archive/readme.txt" in warning for warning in model.warnings)


def test_many_tensors_open_fast(tmp_path):
    """2,000 tensors in a tenth of a second of work on a desktop; the limit here leaves room for slow machines."""
    torch.save({f"model.diffusion_model.block.{n}.weight": torch.zeros(4) for n in range(2000)}, tmp_path / "a.ckpt")
    open_model(tmp_path / "a.ckpt").close()
    start = time.process_time()
    with open_model(tmp_path / "a.ckpt") as model:
        assert len(model.tensors) == 2000
    assert time.process_time() - start < 1.0


def test_mutations_only_raise_our_errors(tmp_path):
    """Thousands of damaged files: read whole, or refused with our own error, and never with another one."""
    chosen = random.Random(20240229)
    torch.save(
        {"state_dict": {"a": base(6).view(2, 3).t(), "b": torch.zeros(2).half()}, "n": np.float64(1)}, tmp_path / "s.pt"
    )
    rich = mapping(
        ("state_dict", ordered(("w", tensor()))),
        ("p", call(name("torch._utils", "_rebuild_parameter"), tensor(), b"\x88", b"N")),
        ("x", call(name("a.b", "C"), array(integer(5), text("t")))),
    )
    pickles = [pickled(rich), pickled(mapping(("w", tensor(shape=(1, 2), stride=(0, 1)))))]
    wholes = [(tmp_path / "s.pt").read_bytes(), LITTLE_ZIP, LITTLE_LEGACY, legacy(pickles[0])]
    path, stop, done = tmp_path / "m.ckpt", time.monotonic() + 8, 0
    while done < 6000 and time.monotonic() < stop:
        inside = done % 2
        raw = bytearray(chosen.choice(pickles if inside else wholes))
        for _ in range(chosen.choice((1, 1, 2, 4))):
            at = chosen.randrange(len(raw))
            action = chosen.random()
            if action < 0.6:
                raw[at] = chosen.choice((chosen.randrange(256), raw[at] ^ 1 << chosen.randrange(8), 0, 255))
            elif action < 0.8:
                del raw[at : at + chosen.randrange(1, 9)]
            else:
                raw[at:at] = raw[chosen.randrange(len(raw)) :][: chosen.randrange(1, 20)]
            raw = raw or bytearray(b"x")
        path.write_bytes(archive(bytes(raw)) if inside else bytes(raw))
        done += 1
        try:
            with open_model(path) as model:
                for ours in [*model.tensors.values(), *model.outside.values()]:
                    if nbytes(ours) < 1 << 20:
                        read_all(ours)
        except ToolkitError as error:
            assert "\n" not in str(error)
    assert done > 500


def test_expanded_tensors_stay_small_on_disk(tmp_path):
    torch.save({"w": torch.ones(1).expand(1000, 1000)}, tmp_path / "a.pt")
    with open_model(tmp_path / "a.pt") as model:
        assert isinstance(model.tensors["w"], Strided)
        assert model.origin.size < 5000
        assert read_all(model.tensors["w"]).view("<f4").sum() == 1_000_000
