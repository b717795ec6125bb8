"""Families: reading hyperparameters back, layouts, bounds against hostile keys."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_toolkit.architectures.clip import CLIPText, OpenCLIPText
from lib_toolkit.architectures.components import COMPONENTS, FAMILIES
from lib_toolkit.architectures.controlnet import ControlNet
from lib_toolkit.architectures.depth import DPTHybrid
from lib_toolkit.architectures.family import TableTooLargeError, indices
from lib_toolkit.architectures.unet import UNet, sized
from lib_toolkit.architectures.vae import KLVAE

EVERY = [(component, family) for component in COMPONENTS for family in component.families()]
IDS = [f"{component.name}-{family.layout}" for component, family in EVERY]


@pytest.mark.parametrize(("component", "family"), EVERY, ids=IDS)
def test_hyperparameters_are_read_back(component, family):
    if family.layout == "ema" or (isinstance(family, ControlNet) and family.layout == "diffusers"):
        assert type(family).read(family.table()) is None
        return
    assert type(family).read(family.table(rare=False)).normal() == family.normal()
    required = {key: shape for key, shape in family.table().items() if key not in family.optional()}
    if not getattr(family, "spare_last", False):
        assert type(family).read(required).normal() == family.normal()


@pytest.mark.parametrize(("component", "family"), EVERY, ids=IDS)
def test_layouts_round_trip(component, family):
    table = family.table()
    for layout in family.layouts:
        there = family.renames(layout)
        back = family.within(layout).renames(family.layout)
        assert there.keys() == table.keys()
        assert there.keys() == set(back.values())
        assert len(set(there.values())) == len(there), "two keys became one"
        assert all(back[there[key]] == key for key in table)
        other = family.within(layout).table()
        assert there.values() == other.keys() or set(there.values()) == set(other)
        assert all(math.prod(other[there[key]]) == math.prod(shape) for key, shape in table.items())


def test_no_family_takes_another_for_its_own():
    for component, family in EVERY:
        table = family.table(rare=False)
        readers = [kind for kind in FAMILIES if kind.read(table) is not None]
        assert all(isinstance(family, kind) for kind in readers), component.name


DEPTH = st.integers(0, 3)


@st.composite
def unets(draw):
    levels, blocks = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    depths = [draw(DEPTH) for _ in range(levels)]
    channels = draw(st.sampled_from([8, 24, 32]))
    middle = draw(st.sampled_from([(0, 1, 0), (0, 2, 0), (0,), ()]))
    context = draw(st.sampled_from([16, 40])) if any(depths) or any(middle) else 0
    vector = draw(st.sampled_from([None, 12]))
    return UNet(
        layout=draw(st.sampled_from(["ldm", "diffusers"])),
        widths=tuple(channels * draw(st.integers(1, 4)) if level else channels for level in range(levels)),
        down=tuple((depth,) * blocks for depth in depths),
        up=tuple((depth,) * (blocks + 1) for depth in depths),
        middle=middle,
        context=context,
        linear=draw(st.booleans()) if context else False,
        inputs=draw(st.integers(1, 9)),
        outputs=draw(st.integers(1, 8)),
        vector=vector,
    )


@settings(max_examples=60, deadline=None)
@given(unets())
def test_any_unet_is_read_back(unet):
    assert UNet.read(unet.table()) == unet


@settings(max_examples=40, deadline=None)
@given(
    st.builds(
        KLVAE,
        layout=st.sampled_from(["ldm", "diffusers", "diffusers-2022"]),
        latent=st.integers(1, 32),
        widths=st.lists(st.sampled_from([8, 16, 64]), min_size=1, max_size=5).map(tuple),
        res_blocks=st.integers(1, 3),
        quant=st.booleans(),
    )
)
def test_any_vae_is_read_back(vae):
    assert KLVAE.read(vae.table()) == vae


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.sampled_from([32, 96]), st.integers(10, 500), st.integers(2, 99))
def test_any_text_encoder_is_read_back(layers, width, vocab, positions):
    hf = CLIPText(layers=layers, width=width, ff=2 * width, vocab=vocab, positions=positions)
    assert CLIPText.read(hf.table()) == hf
    assert CLIPText.read(hf.within("nai").table()) == hf.within("nai")
    openclip = OpenCLIPText(layers=layers, width=width, vocab=vocab, positions=positions)
    assert OpenCLIPText.read(openclip.table()) == openclip


def test_a_huge_index_asks_for_nothing():
    table = sized().table()
    table["input_blocks.999999999.0.weight"] = (1,)
    table["input_blocks.1.1.transformer_blocks.999999999999.norm1.weight"] = (1,)
    read = UNet.read(table)
    # One more transformer block was seen, not a billion; the table stays in proportion to the file.
    assert read.down[0][0] == 2
    assert len(read.table()) < len(table) + 50


def test_tables_stop_at_the_limit():
    deep = replace(sized(), middle=(0, 500, 0))
    with pytest.raises(TableTooLargeError):
        deep.entries(limit=2000)
    assert len(deep.entries(limit=20_000)) > 10_000
    with pytest.raises(TableTooLargeError):
        deep.entries(limit=2000)


def test_indices_pass_over_what_is_no_layer():
    keys = ["a.3.x", "a.12.x", "a.3.y", "a.99999.x", "a.²", "a.x", "a.-1", "b.7.x", "a.", "a.007"]
    assert indices(keys, "a.") == [3, 7, 12]
    assert indices((f"a.{i}" for i in range(1000)), "a.", limit=5) == [0, 1, 2, 3, 4]


def test_unknown_layout_is_refused():
    with pytest.raises(ValueError, match="no layout 'hf'"):
        sized().within("hf")


def test_depth_estimator_of_another_size_is_read():
    small = DPTHybrid(width=64, blocks=2, stages=(1, 2), features=32, tokens=10, classes=5, stem=8)
    assert DPTHybrid.read(small.table()) == small
