"""Components out of models and into plans: what changes, what stays, and what is refused."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from lib_toolkit.architectures.registry import architecture, component
from lib_toolkit.dtypes import DType
from lib_toolkit.edits.components import (
    choose,
    export_component,
    import_component,
    missing_classes,
    new_names,
    new_plan,
)
from lib_toolkit.edits.precision import set_precision
from lib_toolkit.edits.recipes import Wishes, prune_plan
from lib_toolkit.errors import UsageError
from lib_toolkit.identify import identify
from lib_toolkit.model import Model, Origin
from lib_toolkit.plan import PROVENANCE, Plan, plan_of
from lib_toolkit.tensors import Filled, Tensor, numel, read_all

UNET, EMA, VAE = "model.diffusion_model.", "model_ema.diffusion_model", "first_stage_model."
CLIP = "cond_stage_model.transformer."
TYPES = {DType.F16: "<f2", DType.F32: "<f4", DType.I64: "<i8"}


def filled(values: np.ndarray, dtype: DType = DType.F32) -> Filled:
    """``values`` (FP32) as a tensor; BF16 takes values that it can hold."""
    if dtype is DType.BF16:
        return Filled((values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes(), dtype, values.shape)
    return Filled(np.ascontiguousarray(values.astype(TYPES[dtype])).tobytes(), dtype, values.shape)


@lru_cache(maxsize=8192)
def values_for(key: str, shape, seed: int = 0) -> np.ndarray:
    """Multiples of 1/8 below 16, which every type here holds."""
    rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
    return (rng.integers(-127, 127, shape) / 8).astype("<f4")


def tensors_for(table, dtype=DType.F32, seed=0) -> dict[str, Tensor]:
    return {
        key: filled(np.arange(77).reshape(shape), DType.I64)
        if key.endswith("position_ids")
        else filled(values_for(key, shape, seed), dtype)
        for key, shape in table.items()
    }


def model(tensors, name="target.safetensors", metadata=None) -> Model:
    return Model(dict(tensors), Origin(Path(name), "safetensors", 1), metadata or {})


def demo(dtype=DType.F32, seed=0, name="target.safetensors", arch="sd-v1-demo", more=None, **options) -> Model:
    return model({**tensors_for(architecture(arch).table(**options), dtype, seed), **(more or {})}, name)


def part(name: str, dtype=DType.F32, seed=1, prefix="", file="source.safetensors", layout=None) -> Model:
    """One component in a file of its own."""
    family = component(name).family
    assert family is not None
    table = family.within(layout or component(name).layouts[0]).table(rare=False)
    return model({prefix + key: one for key, one in tensors_for(table, dtype, seed).items()}, file)


def bring(target: Model | Plan, cls: str, source: Model, **options):
    plan = target if isinstance(target, Plan) else plan_of(target)
    return import_component(plan, identify(plan.as_model()), cls, source, identify(source), **options)


def data(tensor: Tensor) -> bytes:
    return read_all(tensor).tobytes()


def assert_only(plan: Plan, before: Model, prefix: str) -> None:
    """Everything outside ``prefix`` is the very same, in the same order."""
    kept = [(key, id(one)) for key, one in before.tensors.items() if not key.startswith(prefix)]
    assert [(key, id(one)) for key, one in plan.tensors.items() if not key.startswith(prefix)] == kept


def test_an_import_changes_its_component_only():
    target, source = demo(DType.F16), part("VAE-v1-Demo")
    plan, chosen = bring(target, "VAE-v1-Demo", source)
    assert_only(plan, target, VAE)
    assert list(plan.tensors) == list(target.tensors)
    for key, one in source.tensors.items():
        new = plan.tensors[VAE + key]
        assert new.dtype is DType.F16
        assert data(new) == read_all(one).view("<f4").astype("<f2").tobytes()
    assert plan.metadata == target.metadata
    assert plan.others == (source,)
    assert {change.key for change in plan.changed} == {VAE + key for key in source.tensors}
    assert plan.dropped == ()
    assert chosen.match.component.name == "VAE-v1-Demo"
    assert chosen.why == "the only VAE-v1-Demo in it"
    assert "import VAE-v1-Demo from source.safetensors (VAE-v1-Demo)" in plan.operations
    assert identify(plan.as_model()).intact


@pytest.mark.parametrize(
    ("target", "source", "precision", "expected"),
    [
        (DType.F16, DType.F32, "auto", DType.F16),
        (DType.BF16, DType.F32, "auto", DType.BF16),
        (DType.F32, DType.F16, "auto", DType.F32),
        (DType.F32, DType.BF16, "auto", DType.F32),
        (DType.F16, DType.F32, "keep", DType.F32),
        (DType.F32, DType.BF16, "keep", DType.BF16),
        (DType.F32, DType.F32, "bf16", DType.BF16),
        (DType.F16, DType.BF16, "fp32", DType.F32),
        (DType.F32, DType.BF16, "fp16", DType.F16),
    ],
)
def test_precision_of_an_import(target, source, precision, expected):
    into, given = demo(target), part("CLIP-v1-Demo", source)
    plan, _ = bring(into, "CLIP-v1-Demo", given, precision=precision)
    assert_only(plan, into, CLIP)
    for key, one in given.tensors.items():
        new = plan.tensors[CLIP + key]
        # The values are exact in all types, so that every cast keeps them.
        fixed = key.endswith("position_ids")
        assert new.dtype is (DType.I64 if fixed else expected)
        assert data(new) == (data(one) if fixed else data(filled(values_for(key, one.shape, 1), expected)))


def test_precision_is_that_of_most_values_or_of_the_rest():
    into = demo(DType.F16)
    small = VAE + "encoder.conv_in.weight"
    mixed = model({**into.tensors, small: filled(np.zeros(into.tensors[small].shape))})
    assert bring(mixed, "VAE-v1-Demo", part("VAE-v1-Demo"))[0].tensors[small].dtype is DType.F16
    without = model({key: one for key, one in demo(DType.BF16).tensors.items() if not key.startswith(VAE)})
    plan, _ = bring(without, "VAE-v1-Demo", part("VAE-v1-Demo"))
    assert {plan.tensors[key].dtype for key in plan.tensors if key.startswith(VAE)} == {DType.BF16}
    fp8 = {key: Filled(bytes(numel(one)), DType.F8_E4M3, one.shape) for key, one in into.tensors.items()}
    plan, _ = bring(model(fp8), "VAE-v1-Demo", part("VAE-v1-Demo"))
    assert plan.tensors[small].dtype is DType.F32
    assert any("F8_E4M3" in warning for warning in plan.warnings)


def test_floating_position_ids_are_never_cast():
    source = part("CLIP-v1-Demo")
    ids = filled(np.full((1, 77), 75.9975))
    broken = model({**source.tensors, "text_model.embeddings.position_ids": ids}, "broken.safetensors")
    plan, _ = bring(demo(DType.F16), "CLIP-v1-Demo", broken)
    assert plan.tensors[CLIP + "text_model.embeddings.position_ids"] is ids


def test_nothing_is_rounded_twice():
    """A large value that F16 cannot hold is there again when the plan goes back to FP32."""
    source = part("VAE-v1-Demo")
    key = "decoder.conv_out.bias"
    large = model({**source.tensors, key: filled(np.array([1e6, 1e-9, 3.0]))}, "large.safetensors")
    plan, _ = bring(demo(DType.F16), "VAE-v1-Demo", large)
    assert plan.tensors[VAE + key].dtype is DType.F16
    wide = set_precision(plan, identify(plan.as_model()), "fp32")
    assert wide.tensors[VAE + key] is large.tensors[key]


@pytest.mark.parametrize("doubled", [False, True])
def test_a_nai_named_text_encoder_goes_entirely(doubled):
    target = demo(DType.F16, nai=True)
    if doubled:
        target = model({**target.tensors, **tensors_for(architecture("sd-v1-demo").table(), DType.F16, 7)})
    source = part("CLIP-v1-Demo", DType.F16)
    plan, _ = bring(target, "CLIP-v1-Demo", source)
    assert_only(plan, target, CLIP)
    there = {key: data(one) for key, one in plan.tensors.items() if key.startswith(CLIP)}
    assert there == {CLIP + key: data(one) for key, one in source.tensors.items()}
    gone = {key for key in target.tensors if key.startswith(CLIP) and not key.startswith(CLIP + "text_model.")}
    assert {left.key for left in plan.dropped} == gone
    assert len(gone) == 37
    assert identify(plan.as_model()).intact


def test_a_nai_named_source_gets_standard_names():
    target = demo(DType.F16)
    source = part("CLIP-v1-Demo", DType.F16, prefix=CLIP, layout="nai")
    plan, _ = bring(target, "CLIP-v1-Demo", source)
    for key, one in source.tensors.items():
        assert data(plan.tensors[key.replace("transformer.", "transformer.text_model.")]) == data(one)
    exported = export_component(source, identify(source), "CLIP-v1-Demo")
    assert set(exported.tensors) == {"text_model." + key.removeprefix(CLIP) for key in source.tensors}


def test_an_export_is_the_component_alone():
    source = demo(DType.F16)
    extra = {"betas": filled(np.zeros(1000)), "mystery": filled(np.ones(3))}
    plan = export_component(model({**source.tensors, **extra}), identify(source), "VAE-v1-Demo")
    assert {VAE + key: one for key, one in plan.tensors.items()} == {
        key: one for key, one in source.tensors.items() if key.startswith(VAE)
    }
    groups = [(left.what, left.bytes) for left in plan.dropped]
    assert len(groups) == 3
    kept = sum(len(read_all(one)) for one in plan.tensors.values())
    total = sum(len(read_all(one)) for one in [*source.tensors.values(), *extra.values()])
    assert sum(size for _, size in groups) == total - kept


def test_the_ema_copy_leaves_under_the_names_of_the_unet():
    table = architecture("sd-v1-demo").table(ema=True)
    tensors = tensors_for(table)
    source = model(tensors)
    unet, ema = (export_component(source, identify(source), "UNET-v1-Demo", name)
                 for name in (None, "UNET-v1-Demo-EMA"))  # fmt: skip
    assert (
        unet.tensors.keys() == ema.tensors.keys() == {key.removeprefix(UNET) for key in table if key.startswith(UNET)}
    )
    for key in ema.tensors:
        assert ema.tensors[key] is tensors[EMA + key.replace(".", "")]
        assert unet.tensors[key] is tensors[UNET + key]
    by_name = export_component(source, identify(source), "UNET-v1-Demo-EMA")
    assert by_name.tensors == ema.tensors
    found = identify(ema.as_model())
    assert (found.kind, found.intact) == ("unet", True)


def test_the_ema_copy_becomes_the_unet_of_its_own_file():
    source = model(tensors_for(architecture("sd-v1-demo").table(ema=True)))
    plan, chosen = bring(source, "UNET-v1-Demo", source, component="UNET-v1-Demo-EMA")
    assert chosen.match.layout == "ema"
    assert plan.others == ()
    for key in source.tensors:
        if key.startswith(UNET):
            assert plan.tensors[key] is source.tensors[EMA + key.removeprefix(UNET).replace(".", "")]
        else:
            assert plan.tensors[key] is source.tensors[key]
    auto, chosen = bring(demo(), "UNET-v1-Demo", source)
    assert chosen.match.component.name == "UNET-v1-Demo"
    assert "UNET-v1-Demo-EMA" in chosen.why
    assert auto.tensors[UNET + "out.2.bias"] is source.tensors[UNET + "out.2.bias"]


def test_a_broken_model_gives_its_whole_parts_and_refuses_the_others():
    whole = demo()
    broken = model({key: one for key, one in whole.tensors.items() if ".middle_block.0.out_layers." not in key})
    found = identify(broken)
    assert not found.intact
    assert len(export_component(broken, found, "VAE-v1-Demo").tensors) == 244
    with pytest.raises(
        UsageError, match=r"UNET-v1-Demo is incomplete.*4 tensors.*middle_block\.0\.out_layers\.0\.weight, "
    ):
        export_component(broken, found, "UNET-v1-Demo")
    with pytest.raises(UsageError, match=r"UNET-v1-Demo is incomplete.*middle_block"):
        bring(demo(), "UNET-v1-Demo", broken)
    with pytest.raises(UsageError, match=r"no component class called 'UNET-v9'; known ones are .*VAE-v1"):
        export_component(whole, found, "UNET-v9")
    # Without a whole block it looks like a UNet of another size, which is told.
    headless = model({key: one for key, one in whole.tensors.items() if ".middle_block." not in key})
    for ask in (lambda: export_component(headless, identify(headless), "UNET-v1-Demo"),
                lambda: bring(demo(), "UNET-v1-Demo", headless)):  # fmt: skip
        with pytest.raises(
            UsageError, match=r"incomplete: it lacks 46 tensors \(middle_block\.0\.in_layers\.0\.weight"
        ):
            ask()
    with pytest.raises(UsageError, match=r"has no CLIP-v2; what it has is UNET-v1-Demo, VAE-v1-Demo, CLIP-v1-Demo"):
        export_component(whole, identify(whole), "CLIP-v2")
    with pytest.raises(UsageError, match=r"no component 'UNET-v1-Demo-EMA'.*it has UNET-v1-Demo"):
        export_component(whole, identify(whole), "UNET-v1-Demo", "UNET-v1-Demo-EMA")


def test_a_broken_target_gets_what_it_lacks():
    whole = demo(DType.F16)
    for lost in (CLIP, VAE, UNET):
        cls = {CLIP: "CLIP-v1-Demo", VAE: "VAE-v1-Demo", UNET: "UNET-v1-Demo"}[lost]
        less = model({key: one for key, one in whole.tensors.items() if not key.startswith(lost)})
        plan, _ = bring(less, cls, part(cls))
        assert identify(plan.as_model()).name == "SD-v1-Demo"
        assert plan.tensors.keys() == whole.tensors.keys()
    # Of one component under its prefix the whole is still known.
    alone = model({key: one for key, one in whole.tensors.items() if key.startswith(UNET)})
    plan, _ = bring(alone, "VAE-v1-Demo", part("VAE-v1-Demo"))
    assert {key for key in plan.tensors if not key.startswith(UNET)} == {k for k in whole.tensors if k.startswith(VAE)}
    torn = model({key: one for key, one in whole.tensors.items() if not key.startswith(VAE + "encoder.")})
    assert identify(bring(torn, "VAE-v1-Demo", part("VAE-v1-Demo"))[0].as_model()).intact


def test_a_diffusers_vae_goes_into_an_ldm_checkpoint():
    target, source = demo(DType.F16), part("VAE-v1-Demo", DType.F16, layout="diffusers")
    plan, chosen = bring(target, "VAE-v1-Demo", source)
    assert (chosen.match.layout, chosen.layout) == ("diffusers", "ldm")
    assert plan.tensors.keys() == target.tensors.keys()
    q = "encoder.mid_block.attentions.0.to_q.weight"
    assert plan.tensors[VAE + "encoder.mid.attn_1.q.weight"].shape == (64, 64, 1, 1)
    assert data(plan.tensors[VAE + "encoder.mid.attn_1.q.weight"]) == data(source.tensors[q])
    assert identify(plan.as_model()).intact
    back, _ = bring(source, "VAE-v1-Demo", model(plan.tensors))
    assert {key: (one.shape, data(one)) for key, one in back.tensors.items()} == {
        key: (one.shape, data(one)) for key, one in source.tensors.items()
    }


def test_a_hugging_face_encoder_of_a_size_without_a_name_goes_into_an_openclip_place():
    target = demo(DType.F16, arch="sdxl-demo")
    source = part("CLIP-XL-G-Demo", DType.F16)
    hf = {}
    for key, one in source.tensors.items():
        layer = key.replace("transformer.resblocks.", "text_model.encoder.layers.")
        if ".attn.in_proj_" in key:
            for i, name in enumerate("qkv"):
                rows = read_all(one).view("<f2").reshape(3, 64, -1)[i].reshape(one.shape[0] // 3, *one.shape[1:])
                hf[layer.replace("attn.in_proj_", f"self_attn.{name}_proj.")] = filled(rows, DType.F16)
        elif ".resblocks." in key:
            for old, new in {"attn.out_proj": "self_attn.out_proj", "ln_": "layer_norm", "c_fc": "fc1",
                             "c_proj": "fc2"}.items():  # fmt: skip
                layer = layer.replace(old, new)
            hf[layer] = one
    names = {"positional_embedding": "embeddings.position_embedding.weight", "ln_final.bias": "final_layer_norm.bias",
             "token_embedding.weight": "embeddings.token_embedding.weight",
             "ln_final.weight": "final_layer_norm.weight"}  # fmt: skip
    hf |= {"text_model." + new: source.tensors[old] for old, new in names.items()}
    turned = read_all(source.tensors["text_projection"]).view("<f2").reshape(64, 64).T
    hf["text_projection.weight"] = filled(turned, DType.F16)
    plan, chosen = bring(target, "CLIP-XL-G-Demo", model(hf, "hf.safetensors"))
    prefix = "conditioner.embedders.1.model."
    assert chosen.match.layout == "hf"
    assert_only(plan, target, prefix)
    wanted = {prefix + key: data(one) for key, one in source.tensors.items() if key != "logit_scale"}
    assert {key: data(one) for key, one in plan.tensors.items() if key.startswith(prefix)} == wanted
    assert identify(plan.as_model()).intact


class Shaped:
    """A tensor of a full-size model, which no plan reads."""

    whole = False
    dtype = DType.F16

    def __init__(self, shape) -> None:
        self.shape = shape

    def read_into(self, start, stop, out):
        raise AssertionError("a plan reads nothing")


def full(table, name="target.safetensors", prefix="") -> Model:
    return model({prefix + key: Shaped(shape) for key, shape in table.items()}, name)


def full_part(name: str, layout=None) -> Model:
    family = component(name).family
    assert family is not None
    return full(family.within(layout or family.layout).table(rare=False), f"{name}.safetensors")


@pytest.mark.parametrize(
    ("target", "cls", "source", "layout", "result"),
    [
        ("SD-v1", "UNET-v1", "UNET-v1-SD", "diffusers", "SD-v1"),
        ("SD-v1", "UNET-v1", "UNET-v1-Inpainting", "ldm", "SD-v1-Inpainting"),
        ("SD-v1", "CLIP-v1", "CLIP-XL-L", "hf", "SD-v1"),
        ("SD-v2", "CLIP-v2", "CLIP-v2-HF", "hf", "SD-v2"),
        ("SD-v2", "CLIP-v2", "CLIP-v2-HF-24", "hf", "SD-v2"),
        ("SD-v2-Depth", "Depth-v2", "Depth-v2", "midas", "SD-v2-Depth"),
        ("SDXL", "CLIP-XL-G", "CLIP-XL-G-HF", "hf", "SDXL"),
        ("SDXL", "CLIP-XL-L", "CLIP-v1-SD", "nai", "SDXL"),
        ("SDXL", "VAE-v1", "VAE-v1-SD", "diffusers-2022", "SDXL"),
        ("SDXL-Refiner", "CLIP-XL-G", "CLIP-XL-G", "openclip", "SDXL-Refiner"),
        ("SD-v1-ControlNet", "ControlNet-v1", "ControlNet-v1", "ldm", "SD-v1-ControlNet"),
    ],
)
def test_full_size_imports_end_in_whole_models(target, cls, source, layout, result):
    into = full(architecture(target).table())
    plan, chosen = bring(into, cls, full_part(source, layout))
    found = identify(plan.as_model())
    assert (found.name, found.intact) == (result, True)
    assert chosen.component.cls == cls
    lost = set(into.tensors) - set(plan.tensors)
    if source == "CLIP-v2-HF":
        # The 24th layer, which nothing uses, is not in the source; nor are the two tensors of the contrastive head.
        assert len(lost) == 14
        assert next(match for match in found.components if match.component.cls == "CLIP-v2").component.name == (
            "CLIP-v2-WD"
        )
    else:
        assert all(key.endswith(("logit_scale", "text_projection", "position_ids")) for key in lost)


def test_what_a_conversion_leaves_over_is_said():
    plan, chosen = bring(full(architecture("SD-v2").table()), "CLIP-v2", full_part("CLIP-v2-SD"))
    assert not any("left out" in warning for warning in plan.warnings)
    hf = full({**component("CLIP-v2-HF").family.table(rare=False)}, "hf.safetensors")
    plan, chosen = bring(hf, "CLIP-v2", full_part("CLIP-v2-SD"))
    assert (chosen.layout, chosen.component.name) == ("hf", "CLIP-v2-HF-24")
    assert any("logit_scale" in warning for warning in plan.warnings)


@pytest.mark.parametrize("name", ["UNET-v2-SD", "UNET-XL-SD"])
def test_wrong_shapes_are_named_with_both(name):
    source = full_part(name)
    with pytest.raises(UsageError) as caught:
        bring(full(architecture("SD-v1").table()), "UNET-v1", source)
    sentence = str(caught.value)
    width = {"UNET-v2-SD": 1024, "UNET-XL-SD": 2048}[name]
    assert f"{name}.safetensors has no UNET-v1" in sentence
    assert f"{width}] where [" in sentence
    assert ", 768] is needed" in sentence
    assert "attn2.to_k.weight" in sentence


def test_what_has_no_place_is_refused():
    sd1 = demo()
    with pytest.raises(
        UsageError,
        match=r"is SD-v1-Demo, which has no class CLIP-XL-G \(it has UNET-v1-Demo, VAE-v1-Demo, CLIP-v1-Demo\)",
    ):
        bring(sd1, "CLIP-XL-G", full_part("CLIP-XL-G"))
    with pytest.raises(UsageError, match="no component class called 'CLIP'"):
        bring(sd1, "CLIP", part("CLIP-v1-Demo"))
    strange = model({"a.weight": filled(np.ones((3, 3)))}, "strange.safetensors")
    with pytest.raises(UsageError, match=r"strange\.safetensors is unknown, an architecture that is not known"):
        bring(strange, "VAE-v1", full_part("VAE-v1-SD"))
    with pytest.raises(UsageError, match=r"strange\.safetensors has no VAE-v1-Demo; no component"):
        bring(sd1, "VAE-v1-Demo", strange)
    with pytest.raises(UsageError, match=r"'half' is not a precision; choose auto"):
        bring(sd1, "VAE-v1-Demo", part("VAE-v1-Demo"), precision="half")
    control = full(architecture("SD-v1-ControlNet").table())
    with pytest.raises(UsageError, match=r"'sd1' is the id of several classes \(UNET-v1, ControlNet-v1\)"):
        bring(control, "sd1", full_part("UNET-v1-SD"))
    plan, _ = bring(full(architecture("SD-v1").table()), "clip-l", full_part("CLIP-v1-SD"))
    assert identify(plan.as_model()).intact


def scaled(source: Model, prefix: str) -> Model:
    """Its UNet as scaled fp8, as ComfyUI writes it: weights, a scale for each layer, and a marker."""
    tensors = {}
    for key, one in source.tensors.items():
        if key.startswith(prefix) and key.endswith(".attn1.to_q.weight"):
            raw = np.frombuffer(key.encode() * 4096, np.uint8)[: numel(one)] & 0x77
            tensors[key] = Filled(raw.tobytes(), DType.F8_E4M3, one.shape)
            tensors[key.removesuffix("weight") + "scale_weight"] = filled(
                np.full((), 0.5 + zlib.crc32(key.encode()) % 8)
            )
        else:
            tensors[key] = one
    tensors[prefix + "scaled_fp8"] = Filled(bytes(2), DType.F8_E4M3, (2,))
    return model(tensors, "scaled.safetensors")


def test_a_scaled_component_takes_its_scales_along():
    source = scaled(demo(DType.BF16), UNET)
    own = {key.removeprefix(UNET): one for key, one in source.tensors.items() if key.startswith(UNET)}
    assert len(own) == 684 + 16 + 1
    exported = export_component(source, identify(source), "UNET-v1-Demo")
    assert exported.tensors == own
    bare = model(exported.tensors, "unet.safetensors")
    target = demo(DType.F16, seed=3)
    for given in (source, bare):
        plan, _ = bring(target, "UNET-v1-Demo", given)
        assert_only(plan, target, UNET)
        assert {key.removeprefix(UNET): one for key, one in plan.tensors.items() if key.startswith(UNET)} == own
        assert any("quantised" in warning for warning in plan.warnings)
        assert identify(plan.as_model()).intact
    # Back to plain weights: every scale and the marker go.
    plain, _ = bring(source, "UNET-v1-Demo", target)
    assert plain.tensors.keys() == target.tensors.keys()
    # Of a quantised file the plain VAE may be cast as any other.
    vae, _ = bring(demo(DType.F16), "VAE-v1-Demo", source)
    assert {vae.tensors[key].dtype for key in vae.tensors if key.startswith(VAE)} == {DType.F16}
    turned = part("UNET-v1-Demo", layout="diffusers")
    with pytest.raises(UsageError, match="quantised layers and cannot be changed from ldm to diffusers"):
        bring(turned, "UNET-v1-Demo", bare)


def test_entries_of_the_header_go_with_their_component():
    layer = "input_blocks.1.1.transformer_blocks.0.attn1.to_q"
    table = {"format_version": "1.0", "layers": {UNET + layer: {"format": "float8_e4m3fn"}, VAE + "x": {"format": "y"}}}
    source = replace(demo(DType.F16), metadata={"_quantization_metadata": json.dumps(table), "author": "me"})
    plan = export_component(source, identify(source), "UNET-v1-Demo")
    assert plan.metadata["author"] == "me"
    assert json.loads(plan.metadata["_quantization_metadata"]) == {
        "format_version": "1.0", "layers": {layer: {"format": "float8_e4m3fn"}}
    }  # fmt: skip
    clip = export_component(source, identify(source), "CLIP-v1-Demo")
    assert clip.metadata == {"author": "me"}
    into, _ = bring(demo(DType.F32), "UNET-v1-Demo", source)
    assert json.loads(into.metadata["_quantization_metadata"])["layers"] == {UNET + layer: {"format": "float8_e4m3fn"}}
    assert into.tensors[UNET + layer + ".weight"].dtype is DType.F16
    out, _ = bring(source, "UNET-v1-Demo", demo())
    assert json.loads(out.metadata["_quantization_metadata"])["layers"] == {VAE + "x": {"format": "y"}}
    untouched = replace(demo(), metadata={"_quantization_metadata": "no JSON"})
    assert bring(untouched, "VAE-v1-Demo", part("VAE-v1-Demo"))[0].metadata == untouched.metadata


MARKERS = {"v_pred": Filled(b"", DType.F32, (0,)), "ztsnr": Filled(b"", DType.F32, (0,)),
           "edm_vpred.sigma_max": filled(np.array(120.0))}  # fmt: skip


@pytest.mark.parametrize("ema", [False, True])
def test_markers_of_the_prediction_go_with_the_unet(ema):
    marked = demo(DType.F16, arch="sdxl-demo", more=MARKERS, ema=ema)
    if ema:
        # A larger EMA copy must not make the markers its own.
        wide = tensors_for({k: t.shape for k, t in marked.tensors.items() if k.startswith(EMA)}, DType.F32)
        marked = model({**marked.tensors, **wide})
    exported = export_component(marked, identify(marked), "UNET-XL-Demo")
    assert {key: exported.tensors[key] for key in MARKERS} == MARKERS
    plain = demo(DType.F16, seed=2, arch="sdxl-demo", name="plain.safetensors")
    for source in (marked, model(exported.tensors, "unet.safetensors")):
        plan, _ = bring(plain, "UNET-XL-Demo", source)
        assert plan.tensors.keys() == plain.tensors.keys() | MARKERS.keys()
    without, _ = bring(marked, "UNET-XL-Demo", plain)
    assert not MARKERS.keys() & without.tensors.keys()
    assert {left.key for left in without.dropped} == MARKERS.keys()
    vae, _ = bring(marked, "VAE-v1-Demo", plain)
    assert vae.tensors.keys() == marked.tensors.keys()


def test_an_ema_copy_of_another_unet_is_warned_of():
    target = model(tensors_for(architecture("sd-v1-demo").table(ema=True)))
    plan, _ = bring(target, "UNET-v1-Demo", part("UNET-v1-Demo"))
    assert_only(plan, target, UNET)
    assert any("EMA copy" in warning for warning in plan.warnings)


def test_a_new_model_is_filled_part_by_part():
    plan = new_plan("NEW sd-v1-demo")
    assert (plan.source.name, plan.sources, dict(plan.tensors)) == ("NEW SD-v1-Demo", (), {})
    assert missing_classes(plan) == ("UNET-v1-Demo", "VAE-v1-Demo", "CLIP-v1-Demo")
    whole, vae = demo(DType.F32, name="whole.ckpt"), part("VAE-v1-Demo", DType.BF16)
    plan, _ = bring(plan, "VAE-v1-Demo", vae)
    assert missing_classes(plan) == ("UNET-v1-Demo", "CLIP-v1-Demo")
    plan, _ = bring(plan, "UNET-v1-Demo", whole)
    plan, _ = bring(plan, "clip-demo", whole)
    assert missing_classes(plan) == ()
    assert plan.tensors.keys() == architecture("sd-v1-demo").table().keys()
    assert {one.dtype for one in plan.tensors.values()} == {DType.F16, DType.I64}
    assert plan.others == (vae, whole)
    (entry,) = json.loads(plan.final_metadata("safetensors")[PROVENANCE])
    assert "source" not in entry
    assert [one["name"] for one in entry["parts"]] == ["source.safetensors", "whole.ckpt"]
    assert entry["operations"][0] == "new SD-v1-Demo"
    assert "NEW" not in json.dumps(entry)
    with pytest.raises(UsageError, match="no architecture called 'SD-v7'"):
        new_plan("SD-v7")
    with pytest.raises(UsageError, match="is SD-v1, which has no class CLIP-XL-L"):
        bring(new_plan("sd1"), "CLIP-XL-L", full_part("CLIP-XL-L"))
    assert {"NEW SD-v1", "NEW SD-v2", "NEW SDXL", "NEW SD-v1-Inpainting"} <= set(new_names())


def test_several_edits_are_one_plan():
    bloated = model(tensors_for(architecture("sd-v1-demo").table(ema=True, nai=True)))
    vae, clip = part("VAE-v1-Demo", seed=4, file="v.pt"), part("CLIP-v1-Demo", seed=5, file="c.pt")
    plan, _ = bring(bloated, "VAE-v1-Demo", part("VAE-v1-Demo", seed=9, file="first.pt"))
    plan, _ = bring(plan, "VAE-v1-Demo", vae)
    plan, _ = bring(plan, "CLIP-v1-Demo", clip)
    plan = prune_plan(plan, identify(plan.as_model()), Wishes("auto"))
    wanted = {VAE: (vae, 4), CLIP: (clip, 5)}
    for key, one in plan.tensors.items():
        prefix, (_, seed) = next(((p, w) for p, w in wanted.items() if key.startswith(p)), ("", (None, 0)))
        if not key.endswith("position_ids"):
            assert data(one) == data(filled(values_for(key.removeprefix(prefix), one.shape, seed), DType.F16)), key
    assert plan.tensors.keys() == architecture("sd-v1-demo").table().keys()
    assert [model.name for model in plan.others] == ["first.pt", "v.pt", "c.pt"]
    assert len({change.key for change in plan.changed if "first.pt" in change.what}) == 0


def test_the_best_of_several_is_taken_and_said():
    """Complete before incomplete, the same id before another, no EMA copy before the UNet, then the largest."""
    torn = {VAE + key: one for key, one in part("VAE-v1-Demo").tensors.items() if "conv_in" not in key}
    both = model({**torn, **part("VAE-v1-Demo", seed=8, prefix="vae.").tensors}, "two.safetensors")
    plan, chosen = bring(demo(), "VAE-v1-Demo", both)
    assert chosen.match.prefix == "vae."
    assert plan.tensors[VAE + "quant_conv.bias"] is both.tensors["vae.quant_conv.bias"]
    assert choose(both, identify(both), "VAE-v1-Demo").match.prefix == "vae."
    encoders = full(
        {**{"text_encoders.clip_l.transformer." + k: s for k, s in component("CLIP-XL-L").family.table().items()}},
        "all.safetensors",
    )
    assert bring(full(architecture("SD-v1").table()), "CLIP-v1", encoders)[1].match.component.id == "clip-l"
