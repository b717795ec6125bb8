"""Adapters: base, rank and algorithm from names and shapes."""

from __future__ import annotations

import re

import pytest

from lib_toolkit.architectures import registry
from lib_toolkit.architectures.lora import read_lora

ATTENTION = r"\.(to_[qkv]|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2)$"
TEXT = r"(_proj|\.fc[12])$"


def modules(name, layout, pattern):
    """Module names with the shapes of their weights."""
    table = registry.component(name).family.within(layout).table()
    weights = {key[: -len(".weight")]: shape for key, shape in table.items() if key.endswith(".weight")}
    return {module: shape for module, shape in weights.items() if re.search(pattern, module)}


def adapter(found, prefix, rank=8, flat=True, down="lora_down.weight", up="lora_up.weight", alpha=True):
    shapes = {}
    for module, shape in found.items():
        name = prefix + (module.replace(".", "_") if flat else module)
        tail = (1,) * (len(shape) - 2)
        shapes[f"{name}.{down}"] = (rank, shape[1], *tail)
        shapes[f"{name}.{up}"] = (shape[0], rank, *tail)
        if alpha:
            shapes[f"{name}.alpha"] = ()
    return shapes


CASES = [
    ("UNET-v1-SD", "diffusers", "sd1", "LoRA-v1", 192),
    ("UNET-v2-SD", "diffusers", "sd2", "LoRA-v2", 192),
    ("UNET-XL-SD", "ldm", "sdxl", "LoRA-SDXL", 722),
    ("UNET-XL-SD", "diffusers", "sdxl", "LoRA-SDXL", 722),
    ("UNET-XL-Refiner", "ldm", "sdxl-refiner", "LoRA-SDXL-Refiner", 462),
]


@pytest.mark.parametrize(("unet", "layout", "base", "name", "count"), CASES)
def test_kohya_names(unet, layout, base, name, count):
    info = read_lora(adapter(modules(unet, layout, ATTENTION), "lora_unet_", rank=16))
    assert (info.base, info.name, info.modules, info.resolved) == (base, name, count, count)
    assert info.ranks == (16,)
    assert info.alpha
    assert info.algorithms == ("LoRA",)
    assert info.naming == "kohya"


@pytest.mark.parametrize(("unet", "layout", "base", "name", "count"), CASES)
@pytest.mark.parametrize(
    ("prefix", "down", "up"),
    [
        ("unet.", "lora_A.weight", "lora_B.weight"),
        ("unet.", "lora.down.weight", "lora.up.weight"),
        ("base_model.model.", "lora_A.weight", "lora_B.weight"),
        ("diffusion_model.", "lora_A.weight", "lora_B.weight"),
    ],
)
def test_dotted_names(unet, layout, base, name, count, prefix, down, up):
    info = read_lora(adapter(modules(unet, layout, ATTENTION), prefix, 4, flat=False, down=down, up=up, alpha=False))
    assert (info.base, info.name, info.resolved) == (base, name, count)
    assert info.ranks == (4,)
    assert not info.alpha


def test_attention_processors_of_2023():
    shapes = {}
    for module, shape in modules("UNET-v1-SD", "diffusers", r"attn2\.to_[qkv]$").items():
        place, _, leaf = module.rpartition(".")
        shapes[f"unet.{place}.processor.{leaf}_lora.down.weight"] = (4, shape[1])
        shapes[f"unet.{place}.processor.{leaf}_lora.up.weight"] = (shape[0], 4)
    info = read_lora(shapes)
    assert (info.base, info.modules, info.resolved) == ("sd1", 48, 48)


@pytest.mark.parametrize(
    ("encoder", "prefix", "base"),
    [
        ("CLIP-v1-SD", "lora_te_", "sd1"),
        ("CLIP-v2-HF", "lora_te_", "sd2"),
        ("CLIP-XL-L", "lora_te1_", "sdxl"),
        ("CLIP-XL-G-HF", "lora_te2_", "sdxl"),
    ],
)
def test_text_encoder_alone(encoder, prefix, base):
    assert read_lora(adapter(modules(encoder, "hf", TEXT), prefix)).base == base


def test_what_fits_two_bases_is_not_guessed():
    info = read_lora(adapter(modules("UNET-v1-SD", "diffusers", r"attn1\.to_q$"), "lora_unet_"))
    assert info.base is None
    assert info.candidates == ("sd1", "sd2")
    assert info.name == "LoRA"


@pytest.mark.parametrize(
    ("key", "base"),
    [
        ("lora_unet_double_blocks_3_img_attn_proj", "flux1"),
        ("transformer.single_transformer_blocks.3.attn.to_q", "flux1"),
        ("diffusion_model.joint_blocks.3.x_block.attn.qkv", "sd3"),
        ("transformer.transformer_blocks.3.attn.add_q_proj", "sd3"),
        ("lora_unet_blocks_3_nothing_known", None),
    ],
)
def test_bases_by_module_name(key, base):
    info = read_lora({f"{key}.lora_down.weight": (4, 3072), f"{key}.lora_up.weight": (3072, 4)})
    assert info.base == base


def test_names_alone_do_not_make_a_base():
    """The right names with the widths of another model fit nothing."""
    found = dict.fromkeys(modules("UNET-v1-SD", "diffusers", ATTENTION), (7, 7))
    assert read_lora(adapter(found, "lora_unet_")).base is None


@pytest.mark.parametrize(
    ("roles", "algorithm", "rank"),
    [
        ({"hada_w1_a": (320, 5), "hada_w1_b": (5, 768), "hada_w2_a": (320, 5), "hada_w2_b": (5, 768)}, "LoHa", 5),
        ({"lokr_w1": (16, 16), "lokr_w2_a": (20, 3), "lokr_w2_b": (3, 48)}, "LoKr", 3),
        ({"lokr_w1": (16, 16), "lokr_w2": (20, 48)}, "LoKr", None),
        ({"diff": (320, 768)}, "full difference", None),
        ({"lora_down.weight": (2, 768), "lora_up.weight": (320, 2), "dora_scale": (1, 768)}, "DoRA", 2),
        ({"oft_blocks": (4, 80, 80)}, "OFT", None),
        ({"a1.weight": (768, 6), "a2.weight": (6, 768), "b1.weight": (320, 6), "b2.weight": (6, 768)}, "GLoRA", 6),
        ({"a1.weight": (6, 768), "a2.weight": (768, 6), "b1.weight": (6, 768), "b2.weight": (320, 6)}, "GLoRA", 6),
    ],
)
def test_algorithms(roles, algorithm, rank):
    place = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    info = read_lora({f"{place}.{role}": shape for role, shape in roles.items()})
    assert algorithm in info.algorithms
    assert info.ranks == (() if rank is None else (rank,))
    if algorithm != "OFT":
        assert info.base == "sd1", "the context width of 768 tells"
    assert (info.lame, info.lacking) == (0, "")


@pytest.mark.parametrize(
    ("roles", "lacking"),
    [
        (("lora_down.weight", "alpha"), "up halves"),
        (("lora_up.weight", "lora_mid.weight", "dora_scale"), "down halves"),
        (("lora_A.weight",), "up halves"),
        (("hada_w1_a", "hada_w2_a"), "down halves and w2_b"),
        (("lokr_w1",), "w2"),
        (("lokr_w1_a", "lokr_w2"), "w1_b"),
        (("lokr_w2_a", "lokr_w2_b", "lokr_t2"), "w1"),
    ],
)
def test_halves_that_are_missing(roles, lacking):
    """Of each module, so that nothing can be made of it, and of one among others."""
    alone = read_lora({f"lora_unet_x.{role}": (4, 4) for role in roles})
    assert (alone.lame, alone.modules, alone.lacking) == (1, 1, lacking)
    whole = adapter(modules("UNET-v1-SD", "diffusers", ATTENTION), "lora_unet_")
    among = read_lora({**whole, **{f"lora_unet_x.{role}": (4, 4) for role in roles}})
    assert (among.lame, among.modules, among.lacking) == (1, 193, lacking)
    assert among.base == "sd1"


def test_one_whole_glora_module_marks_the_others():
    names = ("a1", "a2", "b1", "b2")
    whole = {f"lora_unet_x.{name}.weight": (4, 4) for name in names}
    info = read_lora({**whole, **{f"lora_unet_y.{name}.weight": (4, 4) for name in names[:3]}})
    assert (info.modules, info.lame, info.lacking) == (2, 1, "b2")
    assert read_lora({f"layer.{name}.weight": (4, 4) for name in names[:3]}) is None


def test_several_ranks():
    small = adapter(modules("UNET-v1-SD", "diffusers", r"attn2\.to_k$"), "lora_unet_", rank=4)
    large = adapter(modules("UNET-v1-SD", "diffusers", r"attn2\.to_v$"), "lora_unet_", rank=32)
    assert read_lora({**small, **large}).ranks == (4, 32)


def test_a_checkpoint_is_no_adapter():
    table = registry.architecture("sd1").table()
    assert read_lora(table) is None
    one = adapter(modules("UNET-v1-SD", "diffusers", r"attn2\.to_k$"), "lora_unet_")
    assert read_lora({**table, **one}) is None
    assert read_lora({}) is None
    assert read_lora({"a.alpha": ()}) is None
