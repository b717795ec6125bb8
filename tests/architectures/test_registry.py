"""Named architectures, components and their lookups; junk rules; small kinds."""

from __future__ import annotations

import math

import pytest

from lib_toolkit.architectures import junk, kinds, prefixes, registry
from lib_toolkit.architectures.components import COMPONENTS
from lib_toolkit.errors import UsageError


def test_whole_tables_have_the_keys_of_the_published_files():
    sd1 = registry.architecture("sd1").table()
    assert len(sd1) == 686 + 248 + 197
    assert sd1["cond_stage_model.transformer.text_model.embeddings.position_ids"] == (1, 77)
    assert sd1["first_stage_model.post_quant_conv.weight"] == (4, 4, 1, 1)
    sdxl = registry.architecture("SDXL").table()
    assert len(sdxl) == 1680 + 248 + 197 + 390
    assert sdxl["conditioner.embedders.1.model.text_projection"] == (1280, 1280)
    assert "conditioner.embedders.0.model.ln_final.weight" in registry.architecture("sdxl-refiner").table()


def test_variants_of_a_table():
    sd1 = registry.architecture("sd1")
    ema = sd1.table(ema=True)
    assert len(ema) == len(sd1.table()) + 686
    assert ema["model_ema.diffusion_modelout2weight"] == (4, 320, 3, 3)
    nai = sd1.table(nai=True)
    assert nai["cond_stage_model.transformer.embeddings.token_embedding.weight"] == (49408, 768)
    assert not any("text_model" in key for key in nai)
    assert sd1.schedule()["alphas_cumprod"] == (1000,)
    assert len(sd1.schedule()) == 12
    assert registry.architecture("VAE-v1").schedule() == {}


def test_names_and_ids_find_the_same():
    assert registry.architecture("sd-V1").id == "sd1"
    assert registry.architecture("sd1").kind == "checkpoint"
    assert registry.architecture("vae-kl-4ch").name == "VAE-v1"
    assert {entry.name for entry in registry.components("UNET-v1")} >= {
        "UNET-v1-SD",
        "UNET-v1-EMA",
        "UNET-v1-Inpainting",
    }
    assert {entry.cls for entry in registry.components("clip-l")} == {"CLIP-v1", "CLIP-XL-L"}
    with pytest.raises(UsageError, match="SD-v1"):
        registry.architecture("SD-v9")
    with pytest.raises(UsageError, match="VAE-v1"):
        registry.components("nothing")
    with pytest.raises(UsageError):
        registry.component("UNET-v1")


def test_names_are_unique():
    for names in (
        [c.name for c in COMPONENTS],
        [a.name for a in registry.CHECKPOINTS],
        [a.id for a in registry.CHECKPOINTS],
    ):
        assert len(names) == len(set(names))


@pytest.mark.parametrize("name", ["SD-v1-Demo", "sdxl-demo"])
def test_demonstration_models_are_small_and_alike(name):
    demo = registry.architecture(name)
    size = 4 * sum(math.prod(shape) for shape in demo.table().values())
    assert 5e6 < size < 15e6
    assert all(cls.endswith("-Demo") for cls in demo.classes)
    real = {component.family for component in COMPONENTS if "Demo" not in component.name}
    assert not real & {part.component.family for part in demo.parts}


@pytest.mark.parametrize(
    ("key", "prefix"),
    [
        ("model.diffusion_model.out.0.weight", "model.diffusion_model."),
        ("model_ema.diffusion_modelout0weight", "model_ema.diffusion_model"),
        ("model_ema.decay", ""),
        ("conditioner.embedders.0.transformer.text_model.x", "conditioner.embedders.0.transformer."),
        ("conditioner.embedders.0.model.ln_final.bias", "conditioner.embedders.0.model."),
        ("model.layers.0", "model."),
        ("text_model.encoder", ""),
        ("", ""),
    ],
)
def test_longest_prefix(key, prefix):
    assert prefixes.known_prefix(key) == prefix


@pytest.mark.parametrize(
    "key",
    [
        "v_pred",
        "ztsnr",
        "edm_vpred.sigma_max",
        "edm_mean",
        "model.diffusion_model.scaled_fp8",
        "model.diffusion_model.out.2.scale_weight",
        "a.input_scale",
        "a.weight.absmax",
        "a.weight.nested_quant_map",
        "a.weight.quant_state.bitsandbytes__nf4",
        "a.SCB",
        "a.qweight",
        "a.wscales",
        "conditioner.embedders.1.model.logit_scale",
        "a.comfy_quant",
    ],
)
def test_markers_and_scales_are_protected(key):
    assert junk.protected_reason(key)
    assert junk.removable_reason(key) is None


@pytest.mark.parametrize("key", ["v_predicted", "my_ztsnr", "scale_weights", "a.absmaximum.x", "edm_meaning", "x.SCBA"])
def test_likenesses_are_not(key):
    assert junk.protected_reason(key) is None


@pytest.mark.parametrize(
    ("key", "word"),
    [
        ("model_ema.decay", "EMA"),
        ("loss.logvar", "loss"),
        ("first_stage_model.loss.perceptual_loss.lin0.model.1.weight", "loss"),
        ("a.lpips.net.slice1.weight", "loss"),
        ("optimizer_states.0.state.1.exp_avg", "optimizer"),
        ("state.17.exp_avg_sq", "optimizer"),
        ("callbacks.ModelCheckpoint.best", "trainer"),
    ],
)
def test_what_training_leaves_behind(key, word):
    assert word in junk.removable_reason(key)


@pytest.mark.parametrize("key", ["model.lossless.weight", "lossy", "exp_averages", "model.decoder.weight", "emapper.x"])
def test_ordinary_names_are_not_junk(key):
    assert junk.removable_reason(key) is None


def test_buffers_are_small():
    assert junk.is_buffer("betas", (1000,))
    assert junk.is_buffer("scale_factor", ())
    assert not junk.is_buffer("betas", (1000, 1000))
    assert not junk.is_buffer("model.betas", (1000,))


@pytest.mark.parametrize(
    ("shapes", "kind"),
    [
        ({"emb_params": (8, 768)}, "embedding"),
        ({"clip_l": (8, 768), "clip_g": (8, 1280)}, "embedding"),
        ({"string_to_param.*": (4, 1024)}, "embedding"),
        ({"320.0.linear.0.weight": (640, 320), "320.1.linear.0.weight": (640, 320)}, "hypernetwork"),
        ({"model.0.weight": (64, 3, 3, 3), "model.1.sub.0.RDB1.conv1.0.weight": (32, 64, 3, 3)}, "upscaler"),
        ({"conv_first.weight": (64, 3, 3, 3), "body.0.rdb1.conv1.weight": (32, 64, 3, 3)}, "upscaler"),
        ({"down_blocks.0.motion_modules.0.temporal_transformer.norm.weight": (320,)}, "motion_module"),
        ({"image_proj.proj.weight": (1,), "ip_adapter.1.to_k_ip.weight": (320, 768)}, "ip_adapter"),
        ({"adapter.body.0.resnets.0.block1.weight": (320, 320, 3, 3)}, "t2i_adapter"),
        ({"body.0.block1.weight": (320, 320, 3, 3)}, "t2i_adapter"),
        ({"emb_params": (8, 5)}, None),
        ({"<cat-toy>": (1, 768)}, "embedding"),
        ({"<cat-toy>": (1024,)}, "embedding"),
        ({"something": (75, 1280)}, "embedding"),
        ({"something": (76, 768)}, None),
        ({"something": (8, 512)}, None),
        ({"something": (1, 8, 768)}, None),
        ({"something": ()}, None),
        ({"norm.weight": (768,)}, None),
        ({"norm.bias": (1, 768)}, None),
        ({"<cat-toy>": (1, 768), "<dog-toy>": (1, 768)}, None),
    ],
)
def test_small_kinds(shapes, kind):
    found = kinds.recognise(shapes)
    assert (found.kind if found else None) == kind
