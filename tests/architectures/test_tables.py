"""The generated tables, pinned by count, parameters and a digest of every key with its shape.

Where a public table exists (the key dumps of arenasys' stable-diffusion-webui-model-toolkit, the configurations of
sd-mecha, the state dicts of diffusers 0.31 and transformers 4.46 classes on the meta device), the digest is that of the
public table. The rest (distilled SDXL sizes, unclip-L, some variants under diffusers names) follow from the same rules
and agree with the published counts of keys and parameters; their digests guard against change.
"""

from __future__ import annotations

import hashlib
import math

import pytest

from lib_toolkit.architectures import registry
from lib_toolkit.architectures.components import COMPONENTS

PINS = [
    ("UNET-v1-SD", "ldm", 686, 859_520_964, "b0828585f6719ebf3393cd4f537c8b83"),
    ("UNET-v1-SD", "diffusers", 686, 859_520_964, "06ab0a594a10b99fc9b3d3c034559b19"),
    ("UNET-v1-EMA", "ema", 686, 859_520_964, "93c20879e38ff4178939a2f764472055"),
    ("UNET-v1-Inpainting", "ldm", 686, 859_535_364, "8d32db57e6073b0c7af8ff10fd0dc68a"),
    ("UNET-v1-Inpainting", "diffusers", 686, 859_535_364, "2737c4bf65acefd5d94c1d93c2f2d6f9"),
    ("UNET-v1-Inpainting-EMA", "ema", 686, 859_535_364, "cef446136a9e604ea7a9e0c9a47cea08"),
    ("UNET-v1-Pix2Pix", "ldm", 686, 859_532_484, "aab3c203e038f1bcf0a6e115d23bee13"),
    ("UNET-v1-Pix2Pix", "diffusers", 686, 859_532_484, "6d95078065c2debcb5b08704722a1188"),
    ("UNET-v1-Pix2Pix-EMA", "ema", 686, 859_532_484, "0bb9240499e606049a0550e1aea4c224"),
    ("UNET-v2-SD", "ldm", 686, 865_910_724, "c8627f6484f9e606308235560f06d49f"),
    ("UNET-v2-SD", "diffusers", 686, 865_910_724, "102cedebfb24e477a06ae61809735eba"),
    ("UNET-v2-EMA", "ema", 686, 865_910_724, "4b1cef664c941f393044b8d9ffd982e9"),
    ("UNET-v2-Inpainting", "ldm", 686, 865_925_124, "99b3aa7fd349b9ff316e7167f2d3c561"),
    ("UNET-v2-Inpainting", "diffusers", 686, 865_925_124, "b86f1bcc4c37286d1c77175974316db3"),
    ("UNET-v2-Inpainting-EMA", "ema", 686, 865_925_124, "efe0537ae77e588cc7b3b1162d78cca0"),
    ("UNET-v2-Depth", "ldm", 686, 865_913_604, "cc2466cba53797c234a5c2e41dea5c86"),
    ("UNET-v2-Depth", "diffusers", 686, 865_913_604, "5847cacfe13ec89ec2b115ad80394dac"),
    ("UNET-v2-Depth-EMA", "ema", 686, 865_913_604, "f2785ee93805c445e4f9b432b414da77"),
    ("UNET-v2-Unclip-L", "ldm", 690, 869_517_764, "3a63632f5c310567604582798424469c"),
    ("UNET-v2-Unclip-L", "diffusers", 690, 869_517_764, "cc6d3b8ba3c0867b944e1507f68b378d"),
    ("UNET-v2-Unclip-L-EMA", "ema", 690, 869_517_764, "ebf138ab04b5a2df1cda902a9f2a15fb"),
    ("UNET-v2-Unclip-H", "ldm", 690, 870_173_124, "ef3a2ac3c6b4b967d56f33f46b15fb81"),
    ("UNET-v2-Unclip-H", "diffusers", 690, 870_173_124, "bf9ac476f481bdacad67676dde4ab21a"),
    ("UNET-v2-Unclip-H-EMA", "ema", 690, 870_173_124, "d37e63c2e29d514f9f2024cf4f79b88c"),
    ("UNET-XL-SD", "ldm", 1680, 2_567_463_684, "b968733410df414ef289a735d89e235e"),
    ("UNET-XL-SD", "diffusers", 1680, 2_567_463_684, "1252d970e55232bbd2526e7f7f8116e2"),
    ("UNET-XL-EMA", "ema", 1680, 2_567_463_684, "a6a86775e9c0700c3af7827c9ee50f8d"),
    ("UNET-XL-Inpainting", "ldm", 1680, 2_567_478_084, "dacb82e1e3de0cb9341a07c2a92faa55"),
    ("UNET-XL-Inpainting", "diffusers", 1680, 2_567_478_084, "032d065f3d8b478983a2e37f608a31b3"),
    ("UNET-XL-Inpainting-EMA", "ema", 1680, 2_567_478_084, "187417e253d84ebacc621182e59c3452"),
    ("UNET-XL-Pix2Pix", "ldm", 1680, 2_567_475_204, "b3c46424180620cc33b591686754fd04"),
    ("UNET-XL-Pix2Pix", "diffusers", 1680, 2_567_475_204, "9066ee44be96de8b911fd7566f55f96e"),
    ("UNET-XL-Pix2Pix-EMA", "ema", 1680, 2_567_475_204, "dc361767dfa765d353ecd3fa1ddad896"),
    ("UNET-XL-Refiner", "ldm", 1220, 2_259_526_660, "1a18064602a01a9b608fb9c5cb28de32"),
    ("UNET-XL-Refiner", "diffusers", 1220, 2_259_526_660, "620c9ea4697f337356612d08c32ff3a8"),
    ("UNET-XL-Refiner-EMA", "ema", 1220, 2_259_526_660, "1e7029f5c96f1c63fa3bbefb7d298895"),
    ("UNET-SSD-1B", "ldm", 944, 1_331_334_404, "e130daca78363898c88b7a59692dd09e"),
    ("UNET-SSD-1B", "diffusers", 944, 1_331_334_404, "a97d59fb8449103e659da24d9dd2a8cb"),
    ("UNET-SSD-1B-EMA", "ema", 944, 1_331_334_404, "cbf453c9af23ca2894973f4c4d9a8cb3"),
    ("UNET-Vega", "ldm", 564, 745_225_604, "ffa191b3ec98c1440ea5022ac9643d58"),
    ("UNET-Vega", "diffusers", 564, 745_225_604, "26a69981c2183ca6fe59164444e214fc"),
    ("UNET-Vega-EMA", "ema", 564, 745_225_604, "c5c1169f79a244fbeb290a6d0b7ea66a"),
    ("UNET-KOALA-700M", "ldm", 584, 782_822_724, "5ed78db192704b5d1700269da392b8be"),
    ("UNET-KOALA-700M", "diffusers", 584, 782_822_724, "d0924a4cc5677c817111ed2934928e03"),
    ("UNET-KOALA-700M-EMA", "ema", 584, 782_822_724, "7a7400edc1382e43c7310e7d0e3c0dbb"),
    ("UNET-KOALA-1B", "ldm", 790, 1_161_184_324, "facf791fb7c838563d693c02da94ee86"),
    ("UNET-KOALA-1B", "diffusers", 790, 1_161_184_324, "26dc863b7b97bd6376313b5bf4efd733"),
    ("UNET-KOALA-1B-EMA", "ema", 790, 1_161_184_324, "3237ce47812c39ce7c089751aaf7fe74"),
    ("CLIP-v1-SD", "hf", 197, 123_060_557, "c8c0ae0a2316e98e49fb277fad8b7c73"),
    ("CLIP-v1-NAI", "nai", 197, 123_060_557, "e9ac162255ab75b2d5e410e52ad7b47f"),
    ("CLIP-v2-SD", "openclip", 294, 354_032_641, "cc1dcd8205bd26c35514546a332054e7"),
    ("CLIP-v2-WD", "openclip", 280, 340_387_840, "ad2aa65b2f8e88180147cf83b2ac0aca"),
    ("CLIP-v2-HF", "hf", 373, 340_387_917, "f4c0040ce4416a282283cd8b955ab45b"),
    ("CLIP-v2-HF-24", "hf", 389, 352_984_141, "81967859466c34c38fa282a1c3ac2fb7"),
    ("CLIP-XL-L", "hf", 197, 123_060_557, "c8c0ae0a2316e98e49fb277fad8b7c73"),
    ("CLIP-XL-G", "openclip", 390, 694_659_841, "8b1a61a5945e67de696cd1cd3a5ce38a"),
    ("CLIP-XL-G-HF", "hf", 518, 694_659_917, "051a9728ebea81fe2884d6ebd8c7a711"),
    ("VAE-v1-SD", "ldm", 248, 83_653_863, "5c5821b036193b0effb3adf049e2c1c8"),
    ("VAE-v1-SD", "diffusers", 248, 83_653_863, "a8eb7356226250e756201865679f4127"),
    ("VAE-v1-SD", "diffusers-2022", 248, 83_653_863, "834743ec52a763c03980896fcd0648c7"),
    ("VAE-KL-f4", "ldm", 204, 55_325_927, "7145ca2b6e83c1b411817f44bc7fa3d0"),
    ("VAE-KL-f4", "diffusers", 204, 55_325_927, "70661ec45c909ba66f7e2e1ae7b9bb43"),
    ("VAE-KL-f4", "diffusers-2022", 204, 55_325_927, "123aa1f73f131d0e3ca908fdb26a1a71"),
    ("VAE-KL-16ch", "ldm", 244, 83_819_683, "02e25618403d3cfa2725f677fcbdfeb8"),
    ("VAE-KL-16ch", "diffusers", 244, 83_819_683, "0287a108a616e46a1af78dc1d89b8e86"),
    ("VAE-KL-16ch", "diffusers-2022", 244, 83_819_683, "49d8fedf386364614b49bb79eb9b1729"),
    ("Depth-v2", "midas", 368, 123_146_985, "96b8b66ccade1398e1449caceba9195d"),
    ("ControlNet-v1", "ldm", 340, 361_279_120, "1bd98820cec8f89933f43e7d2fff7ed7"),
    ("ControlNet-v1", "diffusers", 340, 361_279_120, "78789a4f9eff0f093581a40e4b710a81"),
    ("ControlNet-v2", "ldm", 340, 364_228_240, "090a4400bff837a8f16a949a0060f03d"),
    ("ControlNet-v2", "diffusers", 340, 364_228_240, "d6b4d1d4c08cf7d67debfc49ede7c5a7"),
    ("ControlNet-XL", "ldm", 844, 1_251_014_160, "b05e7e6e5e7a01b9afce926836760f09"),
    ("ControlNet-XL", "diffusers", 844, 1_251_014_160, "aa6ee955b7c08cc489ebbac942d77e7b"),
]

# Parameters per merge block, summed independently from classes on the meta device.
SD1_BLOCKS = {
    "IN00": 11_840,
    "IN01": 4_801_280,
    "IN02": 4_801_280,
    "IN03": 921_920,
    "IN04": 15_746_560,
    "IN05": 17_384_960,
    "IN06": 3_687_040,
    "IN07": 59_345_920,
    "IN08": 65_899_520,
    "IN09": 14_746_880,
    "IN10": 31_138_560,
    "IN11": 31_138_560,
    "M00": 97_038_080,
    "OUT00": 49_164_800,
    "OUT01": 49_164_800,
    "OUT02": 63_911_680,
    "OUT03": 83_925_760,
    "OUT04": 83_925_760,
    "OUT05": 90_479_360,
    "OUT06": 25_989_760,
    "OUT07": 21_892_480,
    "OUT08": 23_530_880,
    "OUT09": 6_953_280,
    "OUT10": 5_928_640,
    "OUT11": 5_928_640,
    "TIME": 2_050_560,
    "OUTC": 12_164,
}
SDXL_BLOCKS = {
    "IN00": 11_840,
    "IN01": 2_255_040,
    "IN02": 2_255_040,
    "IN03": 921_920,
    "IN04": 27_390_080,
    "IN05": 29_028_480,
    "IN06": 3_687_040,
    "IN07": 375_425_280,
    "IN08": 381_978_880,
    "M00": 413_117_440,
    "OUT00": 400_005_120,
    "OUT01": 400_005_120,
    "OUT02": 406_558_720,
    "OUT03": 37_633_280,
    "OUT04": 33_536_000,
    "OUT05": 35_174_400,
    "OUT06": 4_407_040,
    "OUT07": 3_382_400,
    "OUT08": 3_382_400,
    "LABEL": 5_245_440,
    "TIME": 2_050_560,
    "OUTC": 12_164,
}

# Written down by hand: (component, layout, key, shape).
LITERALS = [
    ("UNET-v1-SD", "ldm", "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", (320, 768)),
    ("UNET-v1-SD", "ldm", "output_blocks.5.2.conv.weight", (1280, 1280, 3, 3)),
    ("UNET-v1-SD", "ldm", "output_blocks.2.1.conv.bias", (1280,)),
    ("UNET-v1-SD", "ema", "input_blocks100in_layers2weight", (1280, 1280, 3, 3)),
    ("UNET-v1-SD", "diffusers", "up_blocks.1.attentions.2.proj_in.weight", (1280, 1280, 1, 1)),
    ("UNET-XL-SD", "ldm", "middle_block.1.transformer_blocks.9.ff.net.0.proj.weight", (10240, 1280)),
    ("UNET-XL-SD", "diffusers", "add_embedding.linear_1.weight", (1280, 2816)),
    ("UNET-v2-Unclip-H", "diffusers", "class_embedding.linear_1.weight", (1280, 2048)),
    ("VAE-v1-SD", "ldm", "decoder.mid.attn_1.proj_out.weight", (512, 512, 1, 1)),
    ("VAE-v1-SD", "diffusers", "decoder.mid_block.attentions.0.to_out.0.weight", (512, 512)),
    ("VAE-v1-SD", "diffusers-2022", "encoder.mid_block.attentions.0.query.weight", (512, 512)),
    ("VAE-v1-SD", "ldm", "decoder.up.0.block.0.nin_shortcut.weight", (128, 256, 1, 1)),
    ("CLIP-v1-SD", "hf", "text_model.encoder.layers.11.mlp.fc1.weight", (3072, 768)),
    ("CLIP-v1-SD", "nai", "embeddings.position_ids", (1, 77)),
    ("CLIP-v2-SD", "openclip", "transformer.resblocks.23.attn.in_proj_weight", (3072, 1024)),
    ("CLIP-XL-G", "openclip", "logit_scale", ()),
    ("CLIP-XL-G-HF", "hf", "text_projection.weight", (1280, 1280)),
    ("Depth-v2", "midas", "pretrained.model.pos_embed", (1, 577, 768)),
    ("ControlNet-v1", "ldm", "input_hint_block.14.weight", (320, 256, 3, 3)),
    ("ControlNet-v1", "diffusers", "controlnet_cond_embedding.blocks.5.weight", (256, 96, 3, 3)),
]


@pytest.mark.parametrize(("name", "layout", "count", "parameters", "digest"), PINS)
def test_table_is_that_of_the_published_files(name, layout, count, parameters, digest):
    family = registry.component(name).family.within(layout)
    table = family.table(rare=False)
    lines = "\n".join(f"{key} {list(shape)}" for key, shape in sorted(table.items()))
    assert len(table) == count
    assert sum(math.prod(shape) for shape in table.values()) == parameters
    assert hashlib.sha256(lines.encode()).hexdigest()[:32] == digest


def test_every_full_size_is_pinned():
    pinned = {(name, layout) for name, layout, *_ in PINS}
    declared = {
        (c.name, layout) for c in COMPONENTS for layout in c.layouts if not c.name.endswith(("Demo", "Demo-EMA"))
    }
    assert declared == pinned


@pytest.mark.parametrize(("name", "layout", "key", "shape"), LITERALS)
def test_literal_key(name, layout, key, shape):
    assert registry.component(name).family.within(layout).table()[key] == shape


@pytest.mark.parametrize(("name", "blocks"), [("UNET-v1-SD", SD1_BLOCKS), ("UNET-XL-SD", SDXL_BLOCKS)])
@pytest.mark.parametrize("layout", ["ldm", "diffusers", "ema"])
def test_parameters_per_merge_block(name, blocks, layout):
    family = registry.component(name).family.within(layout)
    sums = {}
    for key, shape in family.table().items():
        block = family.block(key)
        sums[block] = sums.get(block, 0) + math.prod(shape)
    assert sums == blocks


def test_blocks_as_merge_tools_count_them():
    family = registry.component("UNET-v1-SD").family
    assert family.compatible_block("time_embed.0.weight") == "IN00"
    assert family.compatible_block("out.2.bias") == "OUT11"
    assert family.compatible_block("input_blocks.10.0.in_layers.0.weight") == "IN10"
    assert family.compatible_block("no such key") is None
    compatible = {family.compatible_block(key) for key in family.table()}
    assert len(compatible) == 25
    xl = registry.component("UNET-XL-SD").family
    assert xl.compatible_block("label_emb.0.2.weight") == "IN00"
    assert len({xl.compatible_block(key) for key in xl.table()}) == 19


@pytest.mark.parametrize(
    ("name", "layout", "key", "layer"),
    [
        ("UNET-v1-SD", "ldm", "input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight", "attn1"),
        ("UNET-v1-SD", "diffusers", "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0.bias", "attn2"),
        ("UNET-v1-SD", "ldm", "middle_block.1.transformer_blocks.0.ff.net.2.weight", "ff"),
        ("UNET-v1-SD", "ldm", "middle_block.1.transformer_blocks.0.norm3.weight", "norm"),
        ("UNET-v1-SD", "diffusers", "mid_block.resnets.0.norm2.weight", "norm"),
        ("UNET-v1-SD", "ldm", "middle_block.1.proj_in.weight", "proj"),
        ("UNET-v1-SD", "ldm", "middle_block.0.emb_layers.1.weight", "emb"),
        ("UNET-v1-SD", "ldm", "time_embed.0.weight", "emb"),
        ("UNET-v1-SD", "ldm", "input_blocks.3.0.op.weight", "conv"),
        ("UNET-v1-SD", "ldm", "input_blocks.4.0.skip_connection.weight", "skip"),
        ("VAE-v1-SD", "diffusers", "decoder.mid_block.attentions.0.to_q.weight", "attn"),
        ("CLIP-v1-SD", "nai", "encoder.layers.3.mlp.fc2.weight", "ff"),
        ("CLIP-v2-SD", "openclip", "transformer.resblocks.3.attn.in_proj_bias", "attn"),
    ],
)
def test_layer_kind(name, layout, key, layer):
    assert registry.component(name).family.within(layout).layer(key) == layer


def test_every_key_has_a_block_and_a_layer():
    for component in COMPONENTS:
        for family in component.families():
            for key in family.table():
                assert family.block(key), (component.name, key)
                assert family.layer(key), (component.name, key)
