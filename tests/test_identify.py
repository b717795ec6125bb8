"""Identification: whole checkpoints, parts, damage, junk, hostile keys; real names at real shapes, no values."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_toolkit.architectures import prefixes, registry
from lib_toolkit.architectures.unet import sized
from lib_toolkit.dtypes import DType
from lib_toolkit.identify import identify, matching, verdict
from lib_toolkit.model import Model, Origin
from lib_toolkit.tensors import Filled, Stored

MAIN, VAE, CLIP = prefixes.MAIN, prefixes.VAE, prefixes.CLIP_V1


def model(table, dtype=DType.F16, **fields):
    tensors = {key: Filled(b"", dtype, shape) for key, shape in table.items()}
    return Model(tensors, Origin(Path("model.safetensors"), "safetensors", 0), **fields)


def table(name, **options):
    return registry.architecture(name).table(**options)


def part(component, prefix="", layout=None):
    family = registry.component(component).family
    family = family.within(layout) if layout else family
    return {prefix + key: shape for key, shape in family.table(rare=False).items()}


def without(shapes, *starts):
    return {key: shape for key, shape in shapes.items() if not key.startswith(starts)}


def only(shapes, *starts):
    return {key: shape for key, shape in shapes.items() if key.startswith(starts)}


def names(found):
    return {match.component.name for match in found.components}


def reasons(found):
    return {entry.name: entry.reason for entry in found.rejected}


CHECKPOINTS = {
    "sd1": ("SD-v1", {"UNET-v1-SD", "VAE-v1-SD", "CLIP-v1-SD"}),
    "sd1-inpaint": ("SD-v1-Inpainting", {"UNET-v1-Inpainting", "VAE-v1-SD", "CLIP-v1-SD"}),
    "sd1-pix2pix": ("SD-v1-Pix2Pix", {"UNET-v1-Pix2Pix", "VAE-v1-SD", "CLIP-v1-SD"}),
    "sd1-controlnet": ("SD-v1-ControlNet", {"UNET-v1-SD", "VAE-v1-SD", "CLIP-v1-SD", "ControlNet-v1"}),
    "sd2": ("SD-v2", {"UNET-v2-SD", "VAE-v1-SD", "CLIP-v2-SD"}),
    "sd2-inpaint": ("SD-v2-Inpainting", {"UNET-v2-Inpainting", "VAE-v1-SD", "CLIP-v2-SD"}),
    "sd2-depth": ("SD-v2-Depth", {"UNET-v2-Depth", "VAE-v1-SD", "CLIP-v2-SD", "Depth-v2"}),
    "sdxl": ("SDXL", {"UNET-XL-SD", "VAE-v1-SD", "CLIP-XL-L", "CLIP-XL-G"}),
    "sdxl-inpaint": ("SDXL-Inpainting", {"UNET-XL-Inpainting", "VAE-v1-SD", "CLIP-XL-L", "CLIP-XL-G"}),
    "sdxl-pix2pix": ("SDXL-Pix2Pix", {"UNET-XL-Pix2Pix", "VAE-v1-SD", "CLIP-XL-L", "CLIP-XL-G"}),
    "sdxl-refiner": ("SDXL-Refiner", {"UNET-XL-Refiner", "VAE-v1-SD", "CLIP-XL-G"}),
    "ssd-1b": ("SSD-1B", {"UNET-SSD-1B", "VAE-v1-SD", "CLIP-XL-L", "CLIP-XL-G"}),
    "segmind-vega": ("Segmind-Vega", {"UNET-Vega", "VAE-v1-SD", "CLIP-XL-L", "CLIP-XL-G"}),
    "koala-700m": ("KOALA-700M", {"UNET-KOALA-700M", "VAE-v1-SD", "CLIP-XL-L", "CLIP-XL-G"}),
    "koala-1b": ("KOALA-1B", {"UNET-KOALA-1B", "VAE-v1-SD", "CLIP-XL-L", "CLIP-XL-G"}),
    "sd-v1-demo": ("SD-v1-Demo", {"UNET-v1-Demo", "VAE-v1-Demo", "CLIP-v1-Demo"}),
    "sdxl-demo": ("SDXL-Demo", {"UNET-XL-Demo", "VAE-v1-Demo", "CLIP-XL-L-Demo", "CLIP-XL-G-Demo"}),
}


def test_every_checkpoint_is_tried():
    assert set(CHECKPOINTS) == {entry.id for entry in registry.CHECKPOINTS}


@pytest.mark.parametrize("identity", CHECKPOINTS)
def test_whole_checkpoints(identity):
    shapes = table(identity)
    found = identify(model(shapes))
    assert (found.name, found.id, found.kind) == (CHECKPOINTS[identity][0], identity, "checkpoint")
    assert found.intact
    assert names(found) == CHECKPOINTS[identity][1]
    assert found.missing_classes == ()
    assert sum(match.tensors for match in found.components) == len(shapes)
    assert not found.leftovers.unknown
    assert not found.leftovers.removable
    assert found.warnings == ()
    assert found.architecture is registry.architecture(identity)


def test_the_order_of_keys_means_nothing():
    shapes = table("sd2-depth")
    straight = identify(model(shapes))
    for seed in range(3):
        keys = list(shapes)
        random.Random(seed).shuffle(keys)
        mixed = identify(model({key: shapes[key] for key in keys}))
        assert mixed == straight


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_declarations_means_nothing(monkeypatch, seed):
    cases = [
        table("sd1-inpaint"),
        table("sdxl-refiner"),
        without(table("sd1"), VAE),
        part("CLIP-v1-SD"),
        part("UNET-v1-SD", MAIN, "ldm") | {MAIN + "input_blocks.0.0.weight": (320, 5, 3, 3)},
        without(part("UNET-v1-SD", MAIN), MAIN + "input_blocks.0."),
        sized(192, context=512).table(),
        part("VAE-v1-SD", VAE),
    ]
    before = [identify(model(shapes)) for shapes in cases]
    for module, name in ((matching, "COMPONENTS"), (matching, "FAMILIES"), (verdict, "CHECKPOINTS")):
        entries = list(getattr(module, name))
        random.Random(seed).shuffle(entries)
        monkeypatch.setattr(module, name, tuple(entries))
    matching._named.cache_clear()
    try:
        after = [identify(model(shapes)) for shapes in cases]
    finally:
        matching._named.cache_clear()
    for first, second in zip(before, after, strict=True):
        assert first == second


def test_what_the_type_is_means_nothing():
    for dtype in (DType.F32, DType.BF16, DType.F8_E4M3, DType.I64):
        assert identify(model(table("sd1"), dtype)).name == "SD-v1"


def test_plain_fp8_is_not_called_quantised():
    assert identify(model(table("sd1"), DType.F8_E4M3)).quantised is None


# Components in files of their own


@pytest.mark.parametrize(
    ("component", "layout", "cls", "identity", "kind"),
    [
        ("UNET-v1-SD", "ldm", "UNET-v1", "sd1", "unet"),
        ("UNET-v1-SD", "diffusers", "UNET-v1", "sd1", "unet"),
        ("UNET-v1-Inpainting", "ldm", "UNET-v1", "sd1-inpaint", "unet"),
        ("UNET-v1-Pix2Pix", "ldm", "UNET-v1-Pix2Pix", "sd1-pix2pix", "unet"),
        ("UNET-XL-SD", "diffusers", "UNET-XL", "sdxl", "unet"),
        ("UNET-v2-Unclip-H", "diffusers", "UNET-v2-Unclip-H", "sd2-unclip-h", "unet"),
        ("VAE-v1-SD", "ldm", "VAE-v1", "vae-kl-4ch", "vae"),
        ("VAE-v1-SD", "diffusers", "VAE-v1", "vae-kl-4ch", "vae"),
        ("VAE-v1-SD", "diffusers-2022", "VAE-v1", "vae-kl-4ch", "vae"),
        ("VAE-KL-16ch", "ldm", "VAE-KL-16ch", "vae-kl-16ch", "vae"),
        ("CLIP-v1-SD", "hf", "CLIP-v1", "clip-l", "text_encoder"),
        ("CLIP-v1-NAI", "nai", "CLIP-v1", "clip-l", "text_encoder"),
        ("CLIP-v2-SD", "openclip", "CLIP-v2", "openclip-h", "text_encoder"),
        ("CLIP-v2-WD", "openclip", "CLIP-v2", "openclip-h", "text_encoder"),
        ("CLIP-v2-HF", "hf", "CLIP-v2", "openclip-h", "text_encoder"),
        ("CLIP-XL-G", "openclip", "CLIP-XL-G", "clip-bigg", "text_encoder"),
        ("CLIP-XL-G-HF", "hf", "CLIP-XL-G", "clip-bigg", "text_encoder"),
        ("Depth-v2", "midas", "Depth-v2", "midas-dpt-hybrid", "depth"),
        ("ControlNet-v1", "ldm", "ControlNet-v1", "sd1", "controlnet"),
        ("ControlNet-v2", "diffusers", "ControlNet-v2", "sd2", "controlnet"),
        ("ControlNet-XL", "diffusers", "ControlNet-XL", "sdxl", "controlnet"),
    ],
)
def test_bare_components(component, layout, cls, identity, kind):
    found = identify(model(part(component, "", layout)))
    assert (found.name, found.id, found.kind, found.intact) == (cls, identity, kind, True)
    (match,) = found.components
    assert (match.component.name, match.layout, match.prefix) == (component, layout, "")
    assert found.base == (identity if kind == "controlnet" else None)


def test_controlnet_under_its_prefix_is_whole():
    found = identify(model(part("ControlNet-v1", prefixes.CONTROL)))
    assert (found.name, found.kind, found.base, found.intact) == ("ControlNet-v1", "controlnet", "sd1", True)


def test_canonical_keys_lead_to_the_keys_of_the_file():
    (match,) = identify(model(part("VAE-v1-SD", "", "diffusers"))).components
    assert match.keys["decoder.up.3.block.0.conv1.weight"] == "decoder.up_blocks.0.resnets.0.conv1.weight"
    (match,) = identify(model(part("CLIP-v1-NAI", "", "nai"))).components
    assert match.keys["text_model.final_layer_norm.bias"] == "final_layer_norm.bias"


@pytest.mark.parametrize(
    ("shapes", "name", "kind", "missing"),
    [
        (part("UNET-v1-SD", MAIN), "UNET-v1-BROKEN", "unet", ("VAE-v1", "CLIP-v1")),
        (part("UNET-v1-Pix2Pix", MAIN), "UNET-v1-Pix2Pix-BROKEN", "unet", ("VAE-v1", "CLIP-v1")),
        (part("UNET-XL-SD", MAIN), "UNET-XL-BROKEN", "unet", ("VAE-v1", "CLIP-XL-L", "CLIP-XL-G")),
        (part("CLIP-v1-SD", CLIP), "CLIP-v1-BROKEN", "text_encoder", ("UNET-v1", "VAE-v1")),
        (without(table("sd1"), VAE), "SD-v1-BROKEN", "checkpoint", ("VAE-v1",)),
        (without(table("sd1"), CLIP), "SD-v1-BROKEN", "checkpoint", ("CLIP-v1",)),
        (without(table("sd1"), MAIN), "SD-v1-BROKEN", "checkpoint", ("UNET-v1",)),
        (without(table("sd1-pix2pix"), VAE), "SD-v1-Pix2Pix-BROKEN", "checkpoint", ("VAE-v1",)),
        (without(table("sdxl"), MAIN), "SDXL-BROKEN", "checkpoint", ("UNET-XL",)),
        (without(table("sdxl-inpaint"), VAE), "SDXL-Inpainting-BROKEN", "checkpoint", ("VAE-v1",)),
        (without(table("sd2-depth"), prefixes.DEPTH), "SD-v2-Depth-BROKEN", "checkpoint", ("Depth-v2",)),
    ],
)
def test_parts_of_a_checkpoint(shapes, name, kind, missing):
    found = identify(model(shapes))
    assert (found.name, found.kind, found.intact) == (name, kind, False)
    assert found.missing_classes == missing
    assert all(match.complete for match in found.components)


def test_a_prefixed_vae_could_be_anyones():
    """SD1, SD2 and SDXL share it: none of them is chosen for it."""
    found = identify(model(part("VAE-v1-SD", VAE)))
    assert (found.name, found.id, found.missing_classes) == ("VAE-v1-BROKEN", "vae-kl-4ch", ())
    assert reasons(found)["SDXL"] == "missing classes: UNET-XL, CLIP-XL-L, CLIP-XL-G"
    assert reasons(found)["SD-v2"] == "missing classes: UNET-v2, CLIP-v2"


def test_missing_companions_are_said():
    assert any(text.startswith("no VAE inside") for text in identify(model(without(table("sd1"), VAE))).warnings)
    text = " ".join(identify(model(part("UNET-v1-SD"))).warnings)
    assert "no VAE inside" in text
    assert "no text encoder inside" in text
    assert identify(model(part("VAE-v1-SD"))).warnings == ()


# Variants of text encoders


def test_novelai_names():
    found = identify(model(table("sd1", nai=True)))
    assert (found.name, found.intact) == ("SD-v1", True)
    assert "CLIP-v1-NAI" in names(found)
    assert len(found.renames) == 197
    assert (
        found.renames["cond_stage_model.transformer.encoder.layers.0.mlp.fc1.bias"]
        == "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.bias"
    )
    assert found.position_ids == ("cond_stage_model.transformer.embeddings.position_ids",)
    assert identify(model(table("sd1"))).renames == {}
    assert identify(model(part("CLIP-v1-NAI", "", "nai"))).renames == {}


def test_waifu_diffusion_lacks_a_layer():
    shapes = without(table("sd2"), prefixes.CLIP_V2) | part("CLIP-v2-WD", prefixes.CLIP_V2)
    found = identify(model(shapes))
    assert (found.name, found.intact) == ("SD-v2", True)
    assert "CLIP-v2-WD" in names(found)


def test_sdxl_merges_may_lack_what_is_never_used():
    shapes = {
        key: shape
        for key, shape in table("sdxl").items()
        if not any(
            word in key
            for word in ("embedders.0.transformer.text_model.encoder.layers.11.", "final_layer_norm", "position_ids")
        )
        and not any(word in key for word in ("resblocks.31.", "ln_final", "text_projection", "logit_scale"))
    }
    assert len(table("sdxl")) - len(shapes) == 35
    found = identify(model(shapes))
    assert (found.name, found.intact) == ("SDXL", True)
    assert sum(len(match.missing_optional) for match in found.components) == 35


def test_sd1_needs_its_last_layer():
    shapes = {key: shape for key, shape in table("sd1").items() if ".layers.11." not in key}
    found = identify(model(shapes))
    assert (found.name, found.missing_classes) == ("SD-v1-BROKEN", ("CLIP-v1",))


def test_position_ids_may_be_absent():
    shapes = without(table("sd1"), CLIP + "text_model.embeddings.position_ids")
    found = identify(model(shapes))
    assert found.intact
    assert found.position_ids == ()
    assert identify(model(table("sdxl"))).position_ids == (
        "conditioner.embedders.0.transformer.text_model.embeddings.position_ids",
    )


# Damage


def test_truncated_files_keep_their_name():
    shapes = table("sd1")
    keys = sorted(shapes)
    for count in (100, 400):
        unet = [key for key in keys if key.startswith(MAIN)]
        lost = unet[-count:]
        found = identify(model({key: shapes[key] for key in keys if key not in lost}))
        assert (found.name, found.missing_classes) == ("SD-v1-BROKEN", ("UNET-v1",))
        (match,) = (match for match in found.components if match.component.kind == "unet")
        assert match.component.name == "UNET-v1-SD"
        assert sorted(match.missing) == lost
        assert f"lacks {count} of its 686 tensors" in " ".join(found.warnings)


def test_one_lost_tensor_breaks_the_file():
    shapes = without(table("sdxl"), VAE + "decoder.conv_out.bias")
    found = identify(model(shapes))
    assert (found.name, found.intact, found.missing_classes) == ("SDXL-BROKEN", False, ("VAE-v1",))
    (match,) = (match for match in found.components if match.component.kind == "vae")
    assert match.missing == (VAE + "decoder.conv_out.bias",)
    assert match.required == 248


def test_the_first_tensor_may_be_the_lost_one():
    found = identify(model(without(table("sd2"), MAIN + "input_blocks.0.0.weight")))
    assert found.name == "SD-v2-BROKEN"
    assert "UNET-v2-SD" in names(found)


def test_wrong_shapes_are_told():
    key = MAIN + "middle_block.0.in_layers.2.weight"
    found = identify(model(table("sd1") | {key: (1280, 1280, 1, 1)}))
    assert (found.name, found.missing_classes) == ("SD-v1-BROKEN", ("UNET-v1",))
    (wrong,) = (wrong for match in found.components for wrong in match.wrong_shape)
    assert (wrong.key, wrong.expected, wrong.found) == (key, (1280, 1280, 3, 3), (1280, 1280, 1, 1))


def test_rejected_variants_have_reasons():
    found = reasons(identify(model(table("sd1"))))
    assert found["UNET-v1-Inpainting"] == "wrong shapes (1 of 686)"
    assert found["SD-v1-Pix2Pix"] == "missing classes: UNET-v1-Pix2Pix"
    assert found["SD-v1-Inpainting"] == "missing components: UNET-v1-Inpainting"
    assert "SDXL" not in found, "a shared VAE is no likeness"
    (entry,) = (entry for entry in identify(model(table("sd1"))).rejected if entry.name == "UNET-v1-Inpainting")
    assert entry.examples == ("input_blocks.0.0.weight",)


# Sizes without a name


def test_an_unknown_size_is_described_not_named():
    found = identify(model(sized(192, context=512).table()))
    assert (found.architecture, found.id, found.kind, found.intact) == (None, None, "unet", False)
    assert found.name.startswith("UNET (channels 192")
    assert "context 512" in found.name
    assert found.components[0].complete
    assert reasons(found)["UNET-v1-SD"] == "wrong shapes (685 of 686)"


def test_a_checkpoint_of_unknown_size():
    unet = {MAIN + key: shape for key, shape in sized(192, context=768).table().items()}
    found = identify(model(without(table("sd1"), MAIN) | unet))
    assert found.architecture is None
    assert found.kind == "checkpoint"
    assert not found.intact
    assert reasons(found)["SD-v1"] == "missing classes: UNET-v1"


def test_mostly_unknown_files_are_unknown():
    """A VAE in a file of something else does not make the file a broken VAE."""
    flux = {f"{MAIN}double_blocks.{i}.img_attn.qkv.weight": (9216, 3072) for i in range(19)}
    found = identify(model(part("VAE-v1-SD", VAE) | flux))
    assert (found.name, found.architecture, found.kind) == ("unknown", None, "unknown")
    assert names(found) == {"VAE-v1-SD"}
    assert len(found.leftovers.unknown) == 19
    assert "of the bytes" in reasons(found)["VAE-v1"]


def test_an_intact_checkpoint_stays_one_whatever_is_beside_it():
    extra = {f"mystery.{i}": (100_000_000,) for i in range(100)}
    found = identify(model(table("sd1") | extra))
    assert (found.name, found.intact, len(found.leftovers.unknown)) == ("SD-v1", True, 100)


# EMA


def test_ema_is_a_component_and_removable():
    shapes = table("sd1", ema=True) | {"model_ema.decay": (), "model_ema.num_updates": ()}
    found = identify(model(shapes))
    assert (found.name, found.intact) == ("SD-v1", True)
    (ema,) = (match for match in found.components if match.layout == "ema")
    assert (ema.component.name, ema.component.cls, ema.complete) == ("UNET-v1-EMA", "UNET-v1", True)
    assert ema.keys["input_blocks.10.0.in_layers.2.bias"] == "model_ema.diffusion_modelinput_blocks100in_layers2bias"
    assert len(found.leftovers.removable) == 688
    assert all("EMA" in entry.reason for entry in found.leftovers.removable)


@pytest.mark.parametrize(
    ("identity", "name"), [("sd1-pix2pix", "UNET-v1-Pix2Pix-EMA"), ("sd1-inpaint", "UNET-v1-Inpainting-EMA")]
)
def test_ema_of_variants(identity, name):
    assert name in names(identify(model(table(identity, ema=True))))


def test_ema_of_an_unnamed_size_follows_its_unet():
    unet = sized(192, context=512)
    shapes = {MAIN + key: shape for key, shape in unet.table().items()}
    shapes |= {prefixes.EMA + key: shape for key, shape in unet.within("ema").table().items()}
    found = identify(model(shapes))
    assert [match.layout for match in found.components] == ["ldm", "ema"]
    assert all(match.complete for match in found.components)


def test_an_incomplete_ema_breaks_nothing():
    shapes = without(table("sd1", ema=True), prefixes.EMA + "output_blocks")
    found = identify(model(shapes))
    assert (found.name, found.intact) == ("SD-v1", True)
    assert {entry.reason for entry in found.leftovers.removable} == {"EMA copy, used only for training further"}


def test_the_only_unet_is_kept_although_it_is_an_ema_copy():
    shapes = without(table("sd1", ema=True), MAIN) | {"model_ema.decay": ()}
    found = identify(model(shapes))
    assert (found.name, found.missing_classes) == ("SD-v1-BROKEN", ("UNET-v1",))
    assert [entry.key for entry in found.leftovers.removable] == ["model_ema.decay"]
    assert any("EMA copy" in note for note in found.notes)


def test_the_whole_ema_copy_of_a_broken_unet_is_kept():
    shapes = without(table("sd1", ema=True), MAIN + "out.2.bias") | {"model_ema.decay": ()}
    found = identify(model(shapes))
    assert (found.name, found.missing_classes) == ("SD-v1-BROKEN", ("UNET-v1",))
    assert [entry.key for entry in found.leftovers.removable] == ["model_ema.decay"]
    assert any("its EMA copy is" in note for note in found.notes)


# What is left over


def test_markers_are_protected():
    markers = {"v_pred": (0,), "ztsnr": (0,), "edm_vpred.sigma_max": (), "edm_vpred.sigma_min": ()}
    found = identify(model(table("sdxl") | markers))
    assert {entry.key for entry in found.leftovers.protected} == set(markers)
    assert {entry.belongs_to for entry in found.leftovers.protected} == {MAIN}
    assert not found.leftovers.removable
    assert not found.leftovers.unknown
    assert any("v-prediction marker" in note for note in found.notes)
    assert not any("cannot be told" in note for note in identify(model(table("sd2") | {"v_pred": (0,)})).notes)


def test_scaled_fp8_is_protected():
    shapes = table("sdxl")
    scales = {key.removesuffix("weight") + "scale_weight": () for key in shapes if key.endswith("to_q.weight")}
    scales[MAIN + "scaled_fp8"] = (2,)
    found = identify(model(shapes | scales, DType.F8_E4M3))
    assert (found.name, found.intact, found.quantised) == ("SDXL", True, "fp8 with scales")
    assert {entry.key for entry in found.leftovers.protected} == set(scales)
    assert {entry.belongs_to for entry in found.leftovers.protected} == {MAIN}


def test_packed_weights_are_not_wrong():
    key = MAIN + "middle_block.1.transformer_blocks.0.attn1.to_q.weight"
    parts = {f"{key}.{end}": (16,) for end in ("absmax", "quant_map", "quant_state.bitsandbytes__nf4")}
    found = identify(model(table("sd1") | {key: (819200, 1)} | parts))
    assert (found.name, found.intact, found.quantised) == ("SD-v1", True, "4-bit (bitsandbytes)")
    assert {entry.key for entry in found.leftovers.protected} == set(parts)


def test_quantisation_in_the_header():
    found = identify(model(table("sd1"), metadata={"_quantization_metadata": "{}"}))
    assert "_quantization_metadata" in found.quantised


def test_schedule_buffers_are_neither_component_nor_junk():
    schedule = registry.architecture("sd1").schedule()
    found = identify(model(table("sd1") | schedule | {"denoiser.sigmas": (1000,)}))
    assert set(found.buffers) == {*schedule, "denoiser.sigmas"}
    assert found.leftovers == identify(model(table("sd1"))).leftovers


def test_training_leftovers_are_removable():
    junk = {
        "first_stage_model.loss.discriminator.main.0.weight": (64, 3, 4, 4),
        "loss.logvar": (),
        "optimizer_states.0.state.0.exp_avg": (320,),
    }
    found = identify(model(table("sd1") | junk))
    assert {entry.key for entry in found.leftovers.removable} == set(junk)


def test_unknown_tensors_are_listed_not_junk():
    strange = {MAIN + "surprise.weight": (4, 4), "top": (1,)}
    found = identify(model(table("sd1") | strange))
    assert found.intact
    assert {entry.key for entry in found.leftovers.unknown} == set(strange)
    (unet,) = (match for match in found.components if match.component.kind == "unet")
    assert unet.extra == (MAIN + "surprise.weight",)


class Nowhere:
    """Stands for a file: identification must not read."""

    def read_at(self, offset, out):
        raise AssertionError("a value was read")


def test_only_the_same_place_in_the_file_is_a_duplicate():
    source, shapes = Nowhere(), table("sd1")
    offsets, offset, tensors = {}, 0, {}
    for key, shape in shapes.items():
        offsets[key] = offset
        tensors[key] = Stored(source, offset, DType.F16, shape)
        offset += 2 * 320 * 320 * 100
    twin = CLIP + "text_model.final_layer_norm.weight"
    tensors[CLIP + "final_layer_norm.weight"] = Stored(source, offsets[twin], DType.F16, (768,))
    tensors[CLIP + "final_layer_norm.bias"] = Stored(source, offset, DType.F16, (768,))
    found = identify(Model(tensors, Origin(Path("a.ckpt"), "torch-zip", 0)))
    assert "CLIP-v1-SD" in names(found)
    assert [(entry.key, entry.reason) for entry in found.leftovers.removable] == [
        (CLIP + "final_layer_norm.weight", f"exact duplicate of {twin}")
    ]
    assert [entry.key for entry in found.leftovers.unknown] == [CLIP + "final_layer_norm.bias"]


# Other kinds


def test_adapters():
    place = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    shapes = {f"{place}.lora_down.weight": (8, 768), f"{place}.lora_up.weight": (320, 8), f"{place}.alpha": ()}
    found = identify(model(shapes))
    assert (found.name, found.id, found.base, found.kind) == ("LoRA-v1", "sd1", "sd1", "lora")
    assert found.lora.ranks == (8,)
    assert found.components[0].component.cls == "LoRA-v1"
    assert not found.leftovers.unknown


def test_an_adapter_without_all_of_its_halves_is_not_whole():
    place = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_"
    shapes = {f"{place}{name}.lora_down.weight": (8, 768) for name in "kv"}
    found = identify(model({**shapes, f"{place}k.lora_up.weight": (320, 8)}))
    assert (found.base, found.intact) == ("sd1", False)
    assert "Modules that are not whole: 1 of 2 (up halves missing)" in found.warnings[0]


def test_small_kinds_have_no_id():
    found = identify(model({"clip_l": (8, 768), "clip_g": (8, 1280)}))
    assert (found.kind, found.id, found.architecture, found.name) == ("embedding", None, None, "Embedding")
    found = identify(model({"*": (8, 768)}, container="string_to_param"))
    assert found.kind == "embedding"


@pytest.mark.parametrize("container", ["", "params", "params_ema"])
def test_upscalers_are_known_in_any_state_dict(container):
    shapes = {"conv_first.weight": (64, 3, 3, 3), "body.0.rdb1.conv1.weight": (32, 64, 3, 3)}
    found = identify(model(shapes, container=container))
    assert (found.kind, found.name) == ("upscaler", "Upscaler (ESRGAN)")
    assert not found.leftovers.unknown


def test_nothing_at_all():
    for shapes in ({}, {"": ()}, {".": (0,)}, {"a" * 100_000: (1,)}):
        found = identify(model(shapes))
        assert (found.name, found.kind, found.id, found.architecture) == ("unknown", "unknown", None, None)


# Hostile keys and speed


@pytest.mark.parametrize(
    "shapes",
    [
        {f"layer.{i}.weight": (4, 4) for i in range(100_000)},
        {f"input_blocks.{i}.0.weight": (4, 4, 3, 3) for i in range(100_000)},
        {
            "conv_in.weight": (4, 4, 3, 3),
            "up_blocks.0.x": (1,),
            **{
                f"down_blocks.{i}.attentions.{j}.transformer_blocks.{k}.x": (1,)
                for i in range(30)
                for j in range(30)
                for k in range(100)
            },
        },
    ],
    ids=["unknown", "blocks", "transformers"],
)
def test_a_hundred_thousand_strange_keys(shapes):
    start = time.process_time()
    found = identify(model(shapes))
    assert time.process_time() - start < 5, "about one second on a slow machine"
    assert found.name == "unknown"
    assert len(found.leftovers.unknown) == len(shapes)


@pytest.mark.parametrize(
    "key",
    [
        "input_blocks.999999999.0.weight",
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.1000000000.norm1.weight",
        "cond_stage_model.transformer.text_model.encoder.layers.1000000000.mlp.fc1.weight",
        "model.diffusion_model.input_blocks." + "9" * 10_000 + ".0.weight",
        "model.diffusion_model.input_blocks.².0.weight",
        "first_stage_model.encoder.down.-1.block.0.conv1.weight",
    ],
)
def test_a_key_cannot_choose_the_work(key):
    start = time.process_time()
    found = identify(model(table("sd1") | {key: (2**40, 2**40)}))
    assert time.process_time() - start < 2
    assert (found.name, found.intact) == ("SD-v1", True)
    assert [entry.key for entry in found.leftovers.unknown] == [key]


WORDS = [
    *("model", "diffusion_model", "input_blocks", "output_blocks", "down_blocks", "up_blocks", "out", "time_embed"),
    *("text_model", "embeddings", "token_embedding", "encoder", "layers", "transformer", "resblocks", "decoder"),
    *("0", "1", "weight", "down", "conv_in", "zero_convs", "pretrained", "attn2", "to_k"),
    *("lora_down", "lora_up", "alpha"),
]


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.one_of(
            st.text(max_size=30),
            st.lists(
                st.sampled_from(WORDS),
                max_size=6,
            ).map(".".join),
        ),
        st.lists(st.integers(0, 5), max_size=4).map(tuple),
        max_size=30,
    )
)
def test_odd_keys_never_raise(shapes):
    found = identify(model(shapes))
    known = {key for match in found.components for key in match.keys.values()}
    left = found.leftovers
    listed = {entry.key for entry in (*left.protected, *left.removable, *left.unknown)}
    if found.kind in ("unknown", "checkpoint", "unet", "vae", "text_encoder"):
        assert known | listed | set(found.buffers) == set(shapes)


def test_a_checkpoint_is_told_at_once():
    """From a cold start, tables included, without numpy or torch."""
    program = """
import sys, time
from pathlib import Path
from lib_toolkit.architectures import registry
from lib_toolkit.dtypes import DType
from lib_toolkit.identify import identify
from lib_toolkit.model import Model, Origin
from lib_toolkit.tensors import Filled
shapes = registry.architecture("sdxl").table()
from lib_toolkit.architectures import family
family._TABLES.clear()
origin = Origin(Path("x"), "safetensors", 0)
model = Model({key: Filled(b"", DType.F16, shape) for key, shape in shapes.items()}, origin)
start = time.process_time()
assert identify(model).name == "SDXL"
print(time.process_time() - start)
assert not {"numpy", "torch"} & sys.modules.keys()
"""
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.3, "40 ms on a slow machine; the rest is for a busy one"
