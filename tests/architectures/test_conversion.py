"""Layouts both ways: every value at its place, checked against conversions written out by hand in NumPy."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

from lib_toolkit.architectures.components import COMPONENTS
from lib_toolkit.architectures.registry import component
from lib_toolkit.dtypes import DType
from lib_toolkit.errors import FormatError, UsageError
from lib_toolkit.identify import Match, identify
from lib_toolkit.layouts import Form, convert, from_canonical, rule, to_canonical
from lib_toolkit.model import Model, Origin
from lib_toolkit.tensors import Filled, Tensor, read_all

NAMES = {"<f2": DType.F16, "<f4": DType.F32, "<i8": DType.I64}


def tensor(values: np.ndarray) -> Filled:
    return Filled(np.ascontiguousarray(values).tobytes(), NAMES[values.dtype.str], values.shape)


def model_of(arrays, origin) -> Model:
    tensors = {key: value if isinstance(value, Filled) else tensor(value) for key, value in arrays.items()}
    return Model(tensors, Origin(origin, "safetensors", 0))


def arrays_of(name: str, layout: str, prefix: str = "", dtype="<f2") -> dict[str, np.ndarray]:
    """A component with values of its own."""
    family = component(name).family
    assert family is not None
    return {
        prefix + key: np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape).astype(dtype)
        for key, shape in family.within(layout).table(rare=False).items()
    }


class Shaped:
    """A tensor that is never read."""

    whole = False

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.dtype = DType.F16

    def read_into(self, start, stop, out):
        raise AssertionError("a conversion reads nothing")


def values(found: Tensor) -> np.ndarray:
    return read_all(found).view(found.dtype.storage).reshape(found.shape)


def match_in(arrays, path="m.safetensors"):
    model = model_of(arrays, Path(path))
    found = identify(model).components
    assert len(found) == 1
    return found[0], model.tensors


def assert_same(found: dict[str, Tensor], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for key, array in wanted.items():
        assert found[key].shape == array.shape, key
        assert values(found[key]).tobytes() == array.tobytes(), key


LAYOUTS = [
    (entry.name, layout)
    for entry in COMPONENTS
    if entry.family is not None and "-EMA" not in entry.name
    for layout in entry.layouts
]


@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_every_layout_there_and_back_gives_the_same_tensors(name, layout):
    """Real key names at real shapes; a conversion makes no new tensor where it undoes itself."""
    entry = component(name)
    assert entry.family is not None
    table = entry.family.within(layout).table(rare=False)
    tensors = {key: Shaped(shape) for key, shape in table.items()}
    (match,) = identify(Model(tensors, Origin(Path("m"), "safetensors", 0))).components
    canonical = to_canonical(match, tensors)
    back = from_canonical(entry, layout, canonical)
    assert list(back) == list(table)
    for key, one in tensors.items():
        assert back[key] is one, key


@pytest.mark.parametrize("name", ["VAE-v1-SD", "VAE-KL-16ch", "UNET-v1-SD", "UNET-v2-SD", "UNET-XL-SD", "UNET-Vega"])
def test_all_layouts_of_a_component_have_one_canonical_form(name):
    entry = component(name)
    assert entry.family is not None
    forms = {}
    for layout in entry.family.layouts:
        native = entry.family.within(layout).renames(entry.family.layouts[0])
        tensors = {key: Shaped(shape) for key, shape in entry.family.within(layout).table(rare=False).items()}
        canonical = to_canonical(Match(entry, "", layout, {native[key]: key for key in tensors}), tensors)
        forms[layout] = {key: one.shape for key, one in canonical.items()}
        for other in entry.family.layouts:
            found = convert(entry, other, canonical)
            assert (found.complete, found.left_over) == (True, ())
            table = entry.family.within(other).table(rare=False)
            assert {key: one.shape for key, one in found.tensors.items()} == table
    assert len({tuple(form.items()) for form in forms.values()}) == 1


def test_ldm_and_diffusers_vae_by_hand():
    """The attention's weights are 1x1 convolutions in ldm and matrices in diffusers; the rest is other names."""
    arrays = arrays_of("VAE-v1-Demo", "ldm")
    match, tensors = match_in(arrays)
    canonical = to_canonical(match, tensors)
    by_hand = {k: a[:, :, 0, 0] if ".attn_1." in k and a.ndim == 4 else a for k, a in arrays.items()}
    assert sum(a.ndim == 2 for a in by_hand.values()) == 8
    assert_same(canonical, by_hand)
    diffusers = from_canonical(component("VAE-v1-Demo"), "diffusers", canonical)
    for old, new in {
        "decoder.mid.attn_1.q.weight": "decoder.mid_block.attentions.0.to_q.weight",
        "encoder.mid.attn_1.proj_out.weight": "encoder.mid_block.attentions.0.to_out.0.weight",
        "encoder.mid.attn_1.norm.bias": "encoder.mid_block.attentions.0.group_norm.bias",
        "decoder.up.3.block.0.conv1.weight": "decoder.up_blocks.0.resnets.0.conv1.weight",
        "decoder.up.0.block.2.norm2.weight": "decoder.up_blocks.3.resnets.2.norm2.weight",
        "encoder.down.0.downsample.conv.weight": "encoder.down_blocks.0.downsamplers.0.conv.weight",
        "decoder.norm_out.bias": "decoder.conv_norm_out.bias",
    }.items():
        assert values(diffusers[new]).tobytes() == arrays[old].tobytes()
    assert diffusers["decoder.mid_block.attentions.0.to_v.weight"].shape == (64, 64)
    old_names = from_canonical(component("VAE-v1-Demo"), "diffusers-2022", canonical)
    assert values(old_names["decoder.mid_block.attentions.0.query.weight"]).tobytes() == (
        arrays["decoder.mid.attn_1.q.weight"].tobytes()
    )
    assert old_names["decoder.mid_block.attentions.0.proj_attn.weight"].shape == (64, 64)
    again, tensors = match_in({key: values(one) for key, one in diffusers.items()})
    assert again.layout == "diffusers"
    assert_same(to_canonical(again, tensors), by_hand)
    assert_same(from_canonical(component("VAE-v1-Demo"), "ldm", to_canonical(again, tensors)), arrays)


def test_ldm_and_diffusers_unet_by_hand():
    arrays = arrays_of("UNET-v1-Demo", "ldm", "model.diffusion_model.")
    match, tensors = match_in(arrays)
    diffusers = from_canonical(component("UNET-v1-Demo"), "diffusers", to_canonical(match, tensors))
    for old, new in {
        "input_blocks.1.1.proj_in.weight": "down_blocks.0.attentions.0.proj_in.weight",
        "input_blocks.3.0.op.bias": "down_blocks.0.downsamplers.0.conv.bias",
        "middle_block.1.transformer_blocks.0.attn2.to_k.weight": (
            "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
        ),
        "output_blocks.2.1.conv.weight": "up_blocks.0.upsamplers.0.conv.weight",
        "output_blocks.11.0.skip_connection.weight": "up_blocks.3.resnets.2.conv_shortcut.weight",
        "time_embed.2.weight": "time_embedding.linear_2.weight",
        "out.2.bias": "conv_out.bias",
    }.items():
        wanted = arrays["model.diffusion_model." + old]
        assert diffusers[new].shape == wanted.shape
        assert values(diffusers[new]).tobytes() == wanted.tobytes()
    again, tensors = match_in({key: values(one) for key, one in diffusers.items()})
    assert again.layout == "diffusers"
    back = from_canonical(component("UNET-v1-Demo"), "ldm", to_canonical(again, tensors))
    assert_same({"model.diffusion_model." + key: one for key, one in back.items()}, arrays)


def test_projections_of_a_unet_are_one_thing_as_convolution_and_as_linear_layer():
    arrays = arrays_of("UNET-v1-Demo", "ldm")
    linear = {k: a[:, :, 0, 0] if ".proj_" in k and a.ndim == 4 else a for k, a in arrays.items()}
    assert len([k for k in linear if linear[k].shape != arrays[k].shape]) == 32
    one, two = match_in(arrays), match_in(linear)
    assert_same(to_canonical(*one), linear)
    assert_same(to_canonical(*two), linear)
    assert_same(from_canonical(component("UNET-v1-Demo"), "ldm", to_canonical(*two)), arrays)


def openclip_by_hand(hf: dict[str, np.ndarray], layers: int) -> dict[str, np.ndarray]:
    """The other way round than the package: from Hugging Face names, as transformers documents them."""
    out = {
        "positional_embedding": hf["text_model.embeddings.position_embedding.weight"],
        "token_embedding.weight": hf["text_model.embeddings.token_embedding.weight"],
        "ln_final.weight": hf["text_model.final_layer_norm.weight"],
        "ln_final.bias": hf["text_model.final_layer_norm.bias"],
    }
    if "text_projection.weight" in hf:
        out["text_projection"] = hf["text_projection.weight"].T
    for i in range(layers):
        old, new = f"text_model.encoder.layers.{i}.", f"transformer.resblocks.{i}."
        for kind in ("weight", "bias"):
            qkv = [hf[f"{old}self_attn.{part}_proj.{kind}"] for part in ("q", "k", "v")]
            out[f"{new}attn.in_proj_{kind}"] = np.concatenate(qkv)
            out[f"{new}attn.out_proj.{kind}"] = hf[f"{old}self_attn.out_proj.{kind}"]
            out[f"{new}ln_1.{kind}"] = hf[f"{old}layer_norm1.{kind}"]
            out[f"{new}ln_2.{kind}"] = hf[f"{old}layer_norm2.{kind}"]
            out[f"{new}mlp.c_fc.{kind}"] = hf[f"{old}mlp.fc1.{kind}"]
            out[f"{new}mlp.c_proj.{kind}"] = hf[f"{old}mlp.fc2.{kind}"]
    return out


def hf_arrays(layers: int, width: int, vocab: int, projected: bool) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)

    def some(*shape):
        return rng.standard_normal(shape).astype("<f2")

    arrays = {
        "text_model.embeddings.token_embedding.weight": some(vocab, width),
        "text_model.embeddings.position_embedding.weight": some(77, width),
        "text_model.final_layer_norm.weight": some(width),
        "text_model.final_layer_norm.bias": some(width),
    }
    for i in range(layers):
        place = f"text_model.encoder.layers.{i}."
        for name, shape in {"self_attn.q_proj": (width, width), "self_attn.k_proj": (width, width),
                            "self_attn.v_proj": (width, width), "self_attn.out_proj": (width, width),
                            "layer_norm1": (width,), "layer_norm2": (width,), "mlp.fc1": (4 * width, width),
                            "mlp.fc2": (width, 4 * width)}.items():  # fmt: skip
            arrays[f"{place}{name}.weight"] = some(*shape)
            arrays[f"{place}{name}.bias"] = some(shape[0])
    if projected:
        arrays["text_projection.weight"] = some(width, width)
    return arrays


def test_openclip_and_hugging_face_by_hand():
    """q, k and v are rows 0…63, 64…127, 128…191 of the fused weight; the projection is turned."""
    hf = hf_arrays(3, 64, 1000, projected=True)
    openclip = openclip_by_hand(hf, 3)
    match, tensors = match_in(openclip)
    assert (match.component.name, match.layout) == ("CLIP-XL-G-Demo", "openclip")
    canonical = to_canonical(match, tensors)
    assert_same(canonical, hf | {})
    assert values(canonical["text_projection.weight"])[3, 5] == openclip["text_projection"][5, 3]
    split = {key: tensor(array) for key, array in hf.items()}
    assert_same(from_canonical(component("CLIP-XL-G-Demo"), "openclip", split), openclip)


@pytest.mark.parametrize(
    ("hf_name", "openclip_name", "layers", "width"),
    [("CLIP-v2-HF", "CLIP-v2-WD", 23, 1024), ("CLIP-XL-G-HF", "CLIP-XL-G", 32, 1280)],
)
def test_full_size_names_and_shapes(hf_name, openclip_name, layers, width):
    """The published tables of both sides agree through the conversion, key for key."""
    hf, openclip = component(hf_name), component(openclip_name)
    assert hf.family is not None
    assert openclip.family is not None
    tensors = {key: Shaped(shape) for key, shape in hf.family.table(rare=False).items()}
    found = convert(openclip, "openclip", tensors)
    assert found.complete
    assert {key: one.shape for key, one in found.tensors.items() if key != "logit_scale"} == {
        key: shape for key, shape in openclip.family.table(rare=False).items() if key != "logit_scale"
    }
    assert found.left_over == ("text_model.embeddings.position_ids",)
    assert found.tensors[f"transformer.resblocks.{layers - 1}.attn.in_proj_weight"].shape == (3 * width, width)


def test_what_another_number_of_layers_leaves():
    """H as Stability publishes it has a 24th layer that Hugging Face files of it lack."""
    with_24 = component("CLIP-v2-SD")
    assert with_24.family is not None
    tensors = {key: Shaped(shape) for key, shape in with_24.family.table().items()}
    (match,) = identify(Model(tensors, Origin(Path("m"), "safetensors", 0))).components
    found = convert(component("CLIP-v2-HF"), "hf", to_canonical(match, tensors))
    assert found.complete
    assert {key.split(".layers.")[-1].split(".")[0] for key in found.left_over} == {"23", "logit_scale"}
    less = {key: one for key, one in to_canonical(match, tensors).items() if ".layers.23." not in key}
    lacking = convert(with_24, "openclip", less)
    assert len(lacking.missing) == 12
    assert all(key.startswith("transformer.resblocks.23.") for key in lacking.missing)
    assert not lacking.complete


def test_nai_names_and_ema_names_are_those_of_the_standard():
    arrays = arrays_of("CLIP-v1-Demo", "nai", "cond_stage_model.transformer.")
    match, tensors = match_in(arrays)
    assert match.layout == "nai"
    wanted = {"text_model." + key.removeprefix("cond_stage_model.transformer."): a for key, a in arrays.items()}
    assert_same(to_canonical(match, tensors), wanted)
    unet = arrays_of("UNET-v1-Demo", "ldm")
    ema = {"model_ema.diffusion_model" + key.replace(".", ""): a for key, a in unet.items()}
    both = model_of(ema | {"model.diffusion_model." + k: a for k, a in unet.items()}, Path("m"))
    copy = next(match for match in identify(both).components if match.layout == "ema")
    assert_same(to_canonical(copy, both.tensors), {
        key: a[:, :, 0, 0] if ".proj_" in key and a.ndim == 4 else a for key, a in unet.items()
    })  # fmt: skip


def test_broken_and_packed_tensors_are_passed_on():
    """A fused weight that is not what the table asks for cannot be split; it is not lost either."""
    openclip = openclip_by_hand(hf_arrays(3, 64, 1000, projected=True), 3)
    openclip["transformer.resblocks.1.attn.in_proj_weight"] = np.ones((64, 64), "<f2")
    openclip["text_projection"] = np.ones((64, 5), "<f2")
    del openclip["ln_final.bias"]
    match, tensors = match_in(openclip)
    canonical = to_canonical(match, tensors)
    place = "text_model.encoder.layers.1.self_attn."
    assert canonical[place + "in_proj_weight"].shape == (64, 64)
    assert place + "q_proj.weight" not in canonical
    assert canonical["text_projection"].shape == (64, 5)
    back = convert(component("CLIP-XL-G-Demo"), "openclip", canonical)
    assert {wrong.key for wrong in back.wrong_shape} == {
        "transformer.resblocks.1.attn.in_proj_weight",
        "text_projection",
    }
    assert not back.left_over
    assert not back.complete


def test_parts_of_different_types_are_joined_without_loss_or_refused():
    hf = {key: tensor(array) for key, array in hf_arrays(3, 64, 1000, projected=False).items()}
    key = "text_model.encoder.layers.0.self_attn.k_proj.weight"
    exact = values(hf[key]).astype("<f4") + np.float32(2**-20)
    joined = from_canonical(component("CLIP-XL-G-Demo"), "openclip", hf | {key: tensor(exact)})
    fused = joined["transformer.resblocks.0.attn.in_proj_weight"]
    assert fused.dtype is DType.F32
    assert values(fused)[64:128].tobytes() == exact.tobytes()
    quantised = Filled(bytes(64 * 64), DType.F8_E4M3, (64, 64))
    with pytest.raises(FormatError, match="in_proj_weight"):
        from_canonical(component("CLIP-XL-G-Demo"), "openclip", hf | {key: quantised})
    with pytest.raises(UsageError, match="no layout 'ldm'"):
        from_canonical(component("CLIP-XL-G-Demo"), "ldm", hf)


def test_only_what_the_docstring_says_changes_its_form():
    counts = {}
    for name in ("UNET-v1-SD", "UNET-XL-SD", "VAE-v1-SD", "CLIP-v1-SD", "CLIP-v2-SD", "ControlNet-v1", "Depth-v2"):
        family = component(name).family
        assert family is not None
        forms = [rule(family, entry.names[0]).form for entry in family.entries()]
        counts[name] = {form: forms.count(form) for form in set(forms) - {Form.SAME}}
    assert counts == {
        "UNET-v1-SD": {Form.SQUEEZED: 32},
        "UNET-XL-SD": {Form.SQUEEZED: 22},
        "VAE-v1-SD": {Form.SQUEEZED: 8},
        "CLIP-v1-SD": {},
        "CLIP-v2-SD": {Form.FUSED: 48, Form.TURNED: 1},
        "ControlNet-v1": {Form.SQUEEZED: 14},
        "Depth-v2": {},
    }
