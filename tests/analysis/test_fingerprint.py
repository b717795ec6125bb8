"""Fingerprints re-implemented from the words of their definition, and the equalities that they promise."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib_toolkit.analysis import fingerprint as fingerprints
from lib_toolkit.analysis.report import analyse, fingerprint_of
from lib_toolkit.analysis.values import Part, Record
from lib_toolkit.architectures.clip import CLIPText, OpenCLIPText
from lib_toolkit.architectures.registry import component
from lib_toolkit.formats import open_model
from lib_toolkit.identify import identify
from tests.analysis.samples import demo, half, part, save, values

VAE, CLIP, UNET = "first_stage_model.", "cond_stage_model.transformer.", "model.diffusion_model."
ONCE = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def at_fp16(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        bits = np.ascontiguousarray(array).astype("<f2")
    return np.where(np.isnan(bits), np.array(0x7E00, "<u2").view("<f2"), bits)


def line(key: str, array: np.ndarray) -> str:
    """One tensor, plain floats and integers only."""
    if array.dtype.kind != "f":
        names = {"<i8": "I64"}
        digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        return json.dumps([key, list(array.shape), names[array.dtype.str], digest], separators=(",", ":"))
    rounded = at_fp16(array)
    items = [key, list(array.shape), "F16", hashlib.sha256(rounded.tobytes()).hexdigest()]
    beyond = np.isfinite(array.ravel()) & np.isinf(rounded.ravel())
    if beyond.any():
        entries = b"".join(
            int(i).to_bytes(8, "little") + array.ravel()[i].tobytes() for i in np.flatnonzero(beyond).tolist()
        )
        items += [{4: "F32", 8: "F64"}[array.itemsize], hashlib.sha256(entries).hexdigest()]
    return json.dumps(items, separators=(",", ":"))


def hashed(what: str, lines: list[str]) -> str:
    text = f"mtk1 {what}\n" + "".join(one + "\n" for one in lines)
    return "mtk1:" + hashlib.sha256(text.encode()).hexdigest()[:32]


def reimplemented(canonical: dict[str, np.ndarray], rest: tuple[str, ...] = ()) -> tuple[str, str | None]:
    main = [line(key, canonical[key]) for key in sorted(canonical) if not key.startswith(rest or ("\0",))]
    other = [line(key, canonical[key]) for key in sorted(canonical) if key.startswith(rest or ("\0",))]
    return hashed("component", main), hashed("rest", other) if other else None


def vae_canonical(arrays):
    """ldm names; the attention's 1x1 convolutions are matrices."""
    attention = tuple(f".mid.attn_1.{name}.weight" for name in ("q", "k", "v", "proj_out"))
    return {k: a[:, :, 0, 0] if k.endswith(attention) and a.ndim == 4 else a for k, a in arrays.items()}


def unet_canonical(arrays):
    return {
        k: a[:, :, 0, 0] if k.endswith((".proj_in.weight", ".proj_out.weight")) and a.shape[2:] == (1, 1) else a
        for k, a in arrays.items()
    }


def openclip_canonical(arrays):
    """Hugging Face names, q, k and v apart, the projection turned."""
    names = {
        "ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
        "attn.out_proj": "self_attn.out_proj",
    }  # fmt: skip
    found = {}
    for key, array in arrays.items():
        if key.startswith("transformer.resblocks."):
            number, rest = key.removeprefix("transformer.resblocks.").split(".", 1)
            place = f"text_model.encoder.layers.{number}."
            if rest.startswith("attn.in_proj_"):
                for letter, piece in zip("qkv", np.split(array, 3), strict=True):
                    found[f"{place}self_attn.{letter}_proj.{rest[len('attn.in_proj_') :]}"] = piece
            else:
                stem, kind = rest.rsplit(".", 1)
                found[f"{place}{names[stem]}.{kind}"] = array
        elif key == "text_projection":
            found["text_projection.weight"] = np.ascontiguousarray(array.T)
        else:
            found[
                {
                    "positional_embedding": "text_model.embeddings.position_embedding.weight",
                    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
                    "ln_final.weight": "text_model.final_layer_norm.weight",
                    "ln_final.bias": "text_model.final_layer_norm.bias",
                }.get(key, key)
            ] = array
    return found


def report(path: Path):
    with open_model(path) as model:
        return analyse(model, identify(model), names={})


def prints(path: Path) -> dict[str, tuple[str, str | None]]:
    return {one.component: (one.value, one.rest) for one in report(path).fingerprints}


def test_components_as_defined(tmp_path):
    arrays = demo()
    found = prints(save(tmp_path / "m.safetensors", arrays))
    ids = ("text_model.embeddings.position_ids",)
    assert found == {
        "UNET-v1-Demo": reimplemented(unet_canonical(part(arrays, UNET))),
        "VAE-v1-Demo": reimplemented(vae_canonical(part(arrays, VAE))),
        "CLIP-v1-Demo": reimplemented(part(arrays, CLIP), ids),
    }


def test_openclip_as_defined(tmp_path):
    arrays = demo("sdxl-demo")
    found = prints(save(tmp_path / "m.safetensors", arrays))
    last = ("text_model.encoder.layers.2.", "text_model.final_layer_norm.", "text_projection", "logit_scale")
    openclip = openclip_canonical(part(arrays, "conditioner.embedders.1.model."))
    hf = part(arrays, "conditioner.embedders.0.transformer.")
    assert found["CLIP-XL-G-Demo"] == reimplemented(openclip, last)
    assert found["CLIP-XL-L-Demo"] == reimplemented(hf, (*last, "text_model.embeddings.position_ids"))


def test_file_as_defined(tmp_path):
    arrays = part(demo(), VAE)
    value, _ = reimplemented(vae_canonical(arrays))
    extra = {"zebra": values("zebra", (3,)), "aardvark": np.arange(4, dtype="<i8")}
    lines = [json.dumps(["VAE-v1-Demo", "", value, ""], separators=(",", ":"))]
    lines += [line(key, extra[key]) for key in ("aardvark", "zebra")]
    found = report(save(tmp_path / "m.safetensors", {**extra, **arrays}))
    assert found.file_fingerprint == hashed("file", lines)


def test_special_values_as_defined(tmp_path):
    """NaNs of any payload are one, -0 stays, what is beyond FP16 counts with its place and its stored value."""
    arrays = part(demo(), VAE)
    special = arrays["decoder.conv_out.bias"]
    special[:3] = [-0.0, 70000.0, np.inf]
    arrays["decoder.conv_in.bias"].view("<u4")[:2] = [0x7FC00001, 0xFF800001]
    expected = reimplemented(vae_canonical(arrays))
    found = prints(save(tmp_path / "a.safetensors", arrays))["VAE-v1-Demo"]
    assert found == expected
    special[1] = 70001.0
    assert prints(save(tmp_path / "b.safetensors", arrays))["VAE-v1-Demo"] != found
    special[1] = 70000.0
    special[0] = 0.0
    assert prints(save(tmp_path / "c.safetensors", arrays))["VAE-v1-Demo"] != found


def test_fp16_nans_are_made_one(tmp_path):
    arrays = half(part(demo(), VAE))
    arrays["decoder.conv_in.bias"].view("<u2")[:2] = [0x7C01, 0xFFFF]
    same = {k: a.copy() for k, a in arrays.items()}
    same["decoder.conv_in.bias"].view("<u2")[:2] = 0x7E00
    assert prints(save(tmp_path / "a.safetensors", arrays)) == prints(save(tmp_path / "b.safetensors", same))


def diffusers(arrays, name: str):
    """Another layout of the same values, by the names that diffusers gives them."""
    family = component(name).family
    renames, shapes = family.renames("diffusers"), family.within("diffusers").table()
    return {renames[key]: a.reshape(shapes[renames[key]]) for key, a in arrays.items()}


def test_same_values_in_other_files(tmp_path):
    """Precision, file format, order of keys, NovelAI's names, diffusers' layout and prefixes do not matter."""
    arrays = demo()
    expected = prints(save(tmp_path / "m.safetensors", arrays))
    assert prints(save(tmp_path / "half.safetensors", half(arrays))) == expected
    torch.save({"state_dict": {k: torch.from_numpy(a) for k, a in arrays.items()}}, tmp_path / "m.ckpt")
    assert prints(tmp_path / "m.ckpt") == expected
    torch.save(
        {k: torch.from_numpy(a) for k, a in half(arrays).items()},
        tmp_path / "old.ckpt",
        _use_new_zipfile_serialization=False,
    )
    assert prints(tmp_path / "old.ckpt") == expected
    nai = prints(save(tmp_path / "nai.safetensors", demo(nai=True)))
    assert nai == expected
    for prefix, name in ((VAE, "VAE-v1-Demo"), (UNET, "UNET-v1-Demo")):
        other = save(tmp_path / "d.safetensors", diffusers(part(arrays, prefix), name))
        assert prints(other) == {name: expected[name]}


def test_ema_copy_of_equal_values_equals_its_unet(tmp_path):
    arrays = demo()
    ema = {"model_ema." + k[len("model.") :].replace(".", ""): a for k, a in arrays.items() if k.startswith(UNET)}
    found = prints(save(tmp_path / "m.safetensors", {**arrays, **ema}))
    assert found["UNET-v1-Demo-EMA"] == found["UNET-v1-Demo"]


def test_strided_tensors_count_as_their_values(tmp_path):
    """A transposed view in a .ckpt is read by its own means."""
    arrays = part(demo(), VAE)
    state = {k: torch.from_numpy(a) for k, a in arrays.items()}
    state["decoder.conv_in.weight"] = state["decoder.conv_in.weight"].transpose(0, 1).contiguous().transpose(0, 1)
    assert not state["decoder.conv_in.weight"].is_contiguous()
    torch.save(state, tmp_path / "m.ckpt")
    assert prints(tmp_path / "m.ckpt") == {"VAE-v1-Demo": reimplemented(vae_canonical(arrays))}


def test_openclip_equals_hugging_face(tmp_path):
    """The same text encoder as OpenCLIP and as Hugging Face write it, of a size that has no name."""
    openclip = OpenCLIPText(layers=2, width=48, vocab=500)
    arrays = {key: values(key, shape) for key, shape in openclip.table().items()}
    hf = openclip_canonical(arrays)
    hf.pop("logit_scale")
    table = CLIPText(layers=2, width=48, ff=192, vocab=500).table()
    assert {k: a.shape for k, a in hf.items()} == {k: s for k, s in table.items() if "position_ids" not in k}
    first = report(save(tmp_path / "a.safetensors", arrays)).fingerprints[0]
    second = report(save(tmp_path / "b.safetensors", hf)).fingerprints[0]
    assert first.value == second.value
    assert first.rest != second.rest


def test_last_layer_of_sd2_does_not_matter():
    """SD2's text encoder has 24 layers in its own files and 23 in others; the final norm is always in use."""

    class Of:
        component = component("CLIP-v2-SD")
        prefix = ""

    def records(layers, norm="n"):
        keys = [f"text_model.encoder.layers.{i}.mlp.fc1.weight" for i in range(layers)]
        made = [Record(Part(key, (2,), 0, 2), "F16", key) for key in keys]
        return [*made, Record(Part("text_model.final_layer_norm.weight", (2,), 0, 2), "F16", norm)]

    long, short = (fingerprints.component(Of, records(n), {}) for n in (24, 23))
    assert long.value == short.value and long.rest and not short.rest
    assert fingerprints.component(Of, records(22), {}).value != short.value
    assert fingerprints.component(Of, records(23, "other"), {}).value != short.value


@given(st.data())
@ONCE
def test_one_element_makes_the_difference(tmp_path, data):
    """Any element: less than half a step of FP16 is no difference, a step is one, whatever the order and precision."""
    arrays = part(demo(), VAE)
    keys = sorted(arrays)
    key = data.draw(st.sampled_from(keys))
    index = data.draw(st.integers(0, arrays[key].size - 1))
    order = data.draw(st.permutations(keys))
    wide = data.draw(st.booleans())
    expected = prints(save(tmp_path / "a.safetensors", arrays))
    rounded = half(arrays)
    near = {k: a.astype("<f4") for k, a in rounded.items()}
    flat = near[key].reshape(-1)
    flat[index] += np.spacing(rounded[key].reshape(-1)[index]).astype("<f4") * np.float32(0.25)
    near = near if wide else half(near)
    assert prints(save(tmp_path / "b.safetensors", {k: near[k] for k in order})) == expected
    bits = rounded[key].reshape(-1).view("<u2")
    bits[index] ^= 1
    other = {k: a.astype("<f4" if wide else "<f2") for k, a in rounded.items()}
    assert prints(save(tmp_path / "c.safetensors", {k: other[k] for k in order})) != expected


def test_types_that_are_no_floats_count_as_stored(tmp_path):
    """fp8 weights are not what they were made of: their bytes and their type count."""
    shapes = {k: a.shape for k, a in part(demo(), VAE).items()}

    def stored(dtype):
        return {k: (dtype, s, np.resize(np.arange(251, dtype=np.uint8), s).tobytes()) for k, s in shapes.items()}

    one = prints(save(tmp_path / "a.safetensors", {}, more=stored("F8_E4M3")))
    other = prints(save(tmp_path / "b.safetensors", {}, more=stored("F8_E5M2")))
    assert one != other
    attention = tuple(f".mid.attn_1.{name}.weight" for name in ("q", "k", "v", "proj_out"))
    stored_as_e4m3, lines = stored("F8_E4M3"), []
    for key in sorted(shapes):
        shape = shapes[key][:2] if key.endswith(attention) else shapes[key]
        digest = hashlib.sha256(stored_as_e4m3[key][2]).hexdigest()
        lines.append(json.dumps([key, list(shape), "F8_E4M3", digest], separators=(",", ":")))
    assert one["VAE-v1-Demo"] == (hashed("component", lines), None)


@pytest.mark.parametrize("name", ["UNET-v1-Demo", "CLIP-v1-Demo"])
def test_one_component_alone_has_the_same_fingerprint(tmp_path, name):
    path = save(tmp_path / "m.safetensors", demo())
    with open_model(path) as model:
        found = identify(model)
        match = next(match for match in found.components if match.component.name == name)
        alone = fingerprint_of(model, found, match)
    assert (alone.value, alone.rest) == prints(path)[name]
