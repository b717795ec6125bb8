"""Each finding where it belongs, with its figures, and not where it does not."""

from __future__ import annotations

import numpy as np
import pytest

from lib_toolkit.analysis.health import FAR, ema_distance, merge_signs, vae_findings
from lib_toolkit.analysis.report import analyse
from lib_toolkit.analysis.results import Fingerprint, Metric
from lib_toolkit.architectures.registry import architecture
from lib_toolkit.dtypes import DType
from lib_toolkit.edits.repair import look_at_position_ids
from lib_toolkit.formats import open_model
from lib_toolkit.identify import identify
from lib_toolkit.tensors import Filled
from tests.analysis.samples import demo, half, part, save
from tests.making import stamped_safetensors

VAE, CLIP, UNET = "first_stage_model.", "cond_stage_model.transformer.", "model.diffusion_model."


def findings(path, quick=False):
    with open_model(path) as model:
        found = analyse(model, identify(model), names={}, quick=quick).findings
    assert [f.severity.value for f in found] == sorted(
        (f.severity.value for f in found), key=["error", "warning", "info"].index
    )
    for finding in found:
        first = finding.sentence.split()[0]
        assert first[0].isupper() or first in finding.keys or first.replace(",", "").isdigit()
        assert finding.sentence.endswith(".") and finding.id == finding.id.lower()
    return {finding.id: finding for finding in found}


def test_numbers_that_are_none(tmp_path):
    arrays = half(demo())
    first, second = UNET + "out.2.bias", VAE + "decoder.conv_out.bias"
    arrays[first][:2] = np.nan
    arrays[second][0] = np.inf
    found = findings(save(tmp_path / "m.safetensors", arrays))
    assert found["nan"].severity.value == found["infinity"].severity.value == "error"
    assert "(NaN): 2, in 1 of " in found["nan"].sentence
    assert found["nan"].keys == (first,) and "source" in found["nan"].remedy.sentence
    assert found["infinity"].keys == (second,) and found["infinity"].remedy.wish == "replace_vae"


def test_nan_in_the_ema_copy_goes_with_it(tmp_path):
    arrays = half(demo())
    ema = {"model_ema." + k[len("model.") :].replace(".", ""): a for k, a in arrays.items() if k.startswith(UNET)}
    ema["model_ema.diffusion_modelout2bias"] = np.full_like(ema["model_ema.diffusion_modelout2bias"], np.nan)
    found = findings(save(tmp_path / "m.safetensors", {**arrays, **ema}))
    assert found["nan"].remedy.sentence == "Prune the model."


def test_beyond_fp16(tmp_path):
    """65,519 still rounds to the largest FP16 value; buffers keep FP32 and may hold anything."""
    arrays = demo()
    arrays[UNET + "out.2.bias"][:3] = [65519.0, 65520.0, -1e30]
    arrays["betas"][0] = 1e30
    found = findings(save(tmp_path / "m.safetensors", arrays))
    assert "65,504): 2, in 1 of " in found["fp16-overflow"].sentence
    assert found["fp16-overflow"].keys == (UNET + "out.2.bias",)
    assert "infinity" not in found


def test_zero_tensors(tmp_path):
    arrays = half(demo())
    arrays["logvar"] = np.zeros(1000, "<f4")
    assert "all-zero" not in findings(save(tmp_path / "m.safetensors", arrays))
    arrays[UNET + "out.2.bias"][:] = -0.0
    found = findings(save(tmp_path / "m.safetensors", arrays))
    assert (found["all-zero"].severity.value, found["all-zero"].keys) == ("info", (UNET + "out.2.bias",))
    arrays[UNET + "out.2.weight"][:] = 0
    assert findings(save(tmp_path / "m.safetensors", arrays))["all-zero"].severity.value == "warning"
    empty = {k: np.zeros_like(a) if k.startswith(UNET) else a for k, a in arrays.items()}
    assert findings(save(tmp_path / "m.safetensors", empty))["all-zero"].severity.value == "error"


def test_equal_tensors(tmp_path):
    arrays = half(demo())
    one, other = (UNET + f"middle_block.{i}.in_layers.2.weight" for i in (0, 2))
    arrays[other] = arrays[one].copy()
    arrays[UNET + "middle_block.2.in_layers.2.bias"] = arrays[UNET + "middle_block.0.in_layers.2.bias"].copy()
    found = findings(save(tmp_path / "m.safetensors", arrays))
    assert found["equal-tensors"].keys == (one, other)
    assert f": 1, such as {other} (those of {one})." in found["equal-tensors"].sentence
    arrays[one][:] = arrays[other][:] = 1
    assert "equal-tensors" not in findings(save(tmp_path / "m.safetensors", arrays))


def test_position_ids(tmp_path):
    arrays = half(demo())
    key = CLIP + "text_model.embeddings.position_ids"
    arrays[key] = arrays[key].astype("<f4")
    arrays[key][0, 76] = 75.9975
    found = findings(save(tmp_path / "m.safetensors", arrays))["position-ids"]
    assert found.severity.value == "warning" and found.remedy.wish == "fix_clip" and "position 76" in found.sentence
    arrays[key][0, 76] = 76
    found = findings(save(tmp_path / "m.safetensors", arrays))["position-ids"]
    assert found.severity.value == "info" and found.remedy is None


@pytest.mark.parametrize(
    ("gone", "identity"), [(VAE, "no-vae"), ("cond_stage_model.", "no-text-encoder"), (UNET, "no-unet")]
)
def test_missing_companions(tmp_path, gone, identity):
    arrays = {k: a for k, a in half(demo()).items() if not k.startswith(gone)}
    found = findings(save(tmp_path / "m.safetensors", arrays), quick=True)
    assert found.keys() & {"no-vae", "no-text-encoder", "no-unet"} == {identity}
    assert found[identity].severity.value == "warning"


def test_bare_unet_is_what_it_is(tmp_path):
    found = findings(save(tmp_path / "m.safetensors", half(part(demo(), UNET))), quick=True)
    assert {k: f.severity.value for k, f in found.items()} == {"no-vae": "info", "no-text-encoder": "info"}


def test_incomplete_and_wrong_shapes(tmp_path):
    arrays = half(demo())
    del arrays[VAE + "decoder.conv_in.weight"]
    arrays[VAE + "decoder.conv_out.bias"] = np.ones(5, "<f2")
    found = findings(save(tmp_path / "m.safetensors", arrays), quick=True)
    assert found["incomplete"].keys == (VAE + "decoder.conv_in.weight",)
    assert "[5] instead of [3]" in found["wrong-shape"].sentence


@pytest.mark.parametrize(
    ("name", "markers", "metadata", "identity"),
    [
        ("m", ["v_pred"], {}, "v-pred"),
        ("m", [], {}, None),
        ("m", ["ztsnr"], {}, "v-pred-doubtful"),
        ("m", [], {"modelspec.prediction_type": "v"}, "v-pred-doubtful"),
        ("m", ["v_pred"], {"modelspec.prediction_type": "epsilon"}, "v-pred-doubtful"),
        ("m", ["v_pred", "ztsnr"], {"modelspec.prediction_type": "v"}, "v-pred"),
        ("model-VPred", [], {}, "v-pred-doubtful"),
    ],
)
def test_v_prediction(tmp_path, name, markers, metadata, identity):
    more = dict.fromkeys(markers, ("F32", (0,), b""))
    path = save(tmp_path / f"{name}.safetensors", half(demo("sdxl-demo")), metadata, more)
    assert findings(path, quick=True).keys() & {"v-pred", "v-pred-doubtful", "prediction-unknown"} == {identity} - {
        None
    }


def test_prediction_of_sd2_is_open(tmp_path):
    path = tmp_path / "m.safetensors"
    stamped_safetensors(path, {key: ("F16", shape) for key, shape in architecture("sd2").table().items()})
    assert "prediction-unknown" in findings(path, quick=True)


def ema(arrays, drift):
    """An EMA copy whose every element is off by this share, in turns up and down."""
    made = {}
    for key, array in arrays.items():
        if key.startswith(UNET):
            signs = np.where(np.arange(array.size) % 2, 1, -1).reshape(array.shape)
            made["model_ema." + key[len("model.") :].replace(".", "")] = (array * (1 + drift * signs)).astype("<f4")
    return made


def test_ema_far_from_its_unet(tmp_path):
    arrays = demo()
    near = findings(save(tmp_path / "m.safetensors", {**arrays, **ema(arrays, FAR / 2)}))
    assert "ema-far" not in near and "saving-ema" in near
    far = findings(save(tmp_path / "m.safetensors", {**arrays, **ema(arrays, 0.3)}))
    assert "30 %" in far["ema-far"].sentence and far["ema-far"].severity.value == "warning"
    told = findings(save(tmp_path / "m.safetensors", {**arrays, **ema(arrays, 0.0)}, {"sd_merge_recipe": "{}"}))
    assert "sd_merge_recipe" in told["ema-far"].sentence


def test_ema_distance_is_the_relative_one():
    class Fact:
        def __init__(self, *sample):
            self.sample = sample

    class Kind:
        kind = "unet"

    class Unet:
        component = Kind

        def __init__(self, layout, **keys):
            self.layout, self.keys = layout, keys

    class Found:
        components = (Unet("ldm", a="x", b="y"), Unet("ema", a="p", b="q"))

    facts = {"x": Fact(3.0), "y": Fact(0.0, 4.0), "p": Fact(3.0), "q": Fact(3.0, 0.0)}
    assert ema_distance(Found, facts) == 1.0
    Found.components = Found.components[:1]
    assert ema_distance(Found, facts) is None


@pytest.mark.parametrize(
    ("figure", "merged", "names", "told"),
    [
        (1234, "it was merged", (), True),
        (1234, None, (), False),
        (1234, "it was merged", ("My VAE",), False),
        (2983, "it was merged", (), False),
        (None, "it was merged", (), False),
    ],
)
def test_vae_of_a_merge(tmp_path, figure, merged, names, told):
    """Real shapes of SD1; what the pass would find is given."""
    path = tmp_path / "m.safetensors"
    stamped_safetensors(path, {key: ("F16", shape) for key, shape in architecture("sd1").table().items()})
    with open_model(path) as model:
        found = identify(model)
    vae = Fingerprint("VAE-v1-SD", "VAE-v1", VAE, "mtk1:0", None, names)
    findings = vae_findings(found, Metric(None, figure, None), [vae], merged)
    assert [(f.id, f.remedy.wish) for f in findings] == ([("vae-merged", "replace_vae")] if told else [])
    assert not told or ("(1234)" in findings[0].sentence and merged in findings[0].sentence)


@pytest.mark.parametrize(
    ("metadata", "ids", "told"),
    [
        ({}, np.arange(77), None),
        ({}, np.arange(77) * 0.999, "position ids"),
        ({"sd_merge_models": "{}"}, np.arange(77), "sd_merge_models"),
        ({"modelspec.merged_from": "a, b"}, np.arange(77), "modelspec.merged_from"),
    ],
)
def test_signs_of_a_merge(tmp_path, metadata, ids, told):
    path = save(tmp_path / "m.safetensors", {"x": np.ones(1, "<f4")}, metadata)
    state = look_at_position_ids("ids", Filled(ids.astype("<f4").tobytes(), DType.F32, (1, 77)))
    with open_model(path) as model:
        sign = merge_signs(model, [state])
    assert sign is None if told is None else told in sign


def test_unknown_tensors_that_go_are_not_called_training_leftovers(tmp_path):
    found = findings(save(tmp_path / "m.safetensors", {**half(demo()), "mine": np.ones(8, "<f2")}), quick=True)
    assert "saving-junk" not in found
    one = found["saving-unknown"]
    assert one.keys == ("mine",) and "does not know" in one.sentence and "1 (16 bytes)" in one.sentence


def test_savings_are_exact(tmp_path):
    arrays = demo()
    copies = ema(arrays, 0.001)
    junk = {"optimizer.state.0.exp_avg": np.ones(1000, "<f4")}
    found = findings(save(tmp_path / "m.safetensors", {**arrays, **copies, **junk}), quick=True)
    size = sum(a.nbytes for a in copies.values())
    narrower = sum(a.nbytes // 2 for k, a in arrays.items() if "." in k and a.dtype.kind == "f")
    assert found["saving-ema"].sentence.startswith(f"{size:,} bytes")
    assert found["saving-junk"].sentence.startswith("4,000 bytes")
    assert found["saving-precision"].sentence.startswith(f"{narrower:,} bytes")


def test_unknown_tensors_that_stay(tmp_path):
    arrays = half({k: a for k, a in demo().items() if not k.startswith(VAE)})
    found = findings(save(tmp_path / "m.safetensors", {**arrays, "strange": np.ones(7, "<f4")}), quick=True)
    assert found["unknown-tensors"].keys == ("strange",) and found["unknown-tensors"].remedy.wish == "drop_unknown"


@pytest.mark.parametrize(
    ("folder", "wrong"),
    [
        ("Stable-diffusion", True),
        ("models/Lora/mine", True),
        ("VAE", False),
        ("vae/anime", False),
        ("downloads", False),
        ("Stable-diffusion/VAE", False),
    ],
)
def test_wrong_folder(tmp_path, folder, wrong):
    path = tmp_path / folder / "m.safetensors"
    path.parent.mkdir(parents=True)
    found = findings(save(path, half(part(demo(), VAE))), quick=True)
    assert ("wrong-folder" in found) is wrong
    if wrong:
        assert "folder VAE" in found["wrong-folder"].remedy.sentence


def test_wrong_extension_is_said_once(tmp_path):
    found = findings(save(tmp_path / "m.ckpt", half(part(demo(), VAE))), quick=True)
    assert found.keys() == {"wrong-extension"}


def test_oddities_of_the_header(tmp_path):
    import json

    path = save(tmp_path / "m.safetensors", half(part(demo(), VAE)))
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["decoder.conv_in.bias"]["note"] = 1
    raw = json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data[8 + length :])
    assert "unknown fields" in findings(path, quick=True)["file-oddity"].sentence
