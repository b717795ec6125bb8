"""The JSON of an identification is stable; the text says the same and cannot drive a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib_toolkit.architectures import registry
from lib_toolkit.dtypes import DType
from lib_toolkit.formats.pickle_values import Placeholder
from lib_toolkit.identify import identify
from lib_toolkit.model import Model, Origin
from lib_toolkit.reports.identification import (
    SCHEMA,
    identification_json,
    identification_text,
)
from lib_toolkit.tensors import Filled

FIELDS = {
    "schema",
    "file",
    "file_bytes",
    "format",
    "container",
    "kind",
    "architecture",
    "id",
    "base",
    "intact",
    "missing_classes",
    "components",
    "rejected",
    "leftovers",
    "buffers",
    "position_ids",
    "renames",
    "quantised",
    "rank",
    "tensors",
    "parameters",
    "bytes",
    "dtypes",
    "outside",
    "values",
    "metadata",
    "notes",
    "warnings",
}
COMPONENT_FIELDS = {
    "component",
    "id",
    "class",
    "prefix",
    "layout",
    "complete",
    "missing",
    "wrong_shape",
    "extra",
    "tensors",
    "parameters",
    "bytes",
}


def model(shapes, dtype=DType.F16, **fields):
    tensors = {key: Filled(b"", dtype, shape) for key, shape in shapes.items()}
    return Model(tensors, Origin(Path("folder/some model.safetensors"), "safetensors", 4321), **fields)


def told(source, keys=False):
    return identification_json(source, identify(source), keys)


def test_a_whole_checkpoint():
    source = model(registry.architecture("sd1").table(), metadata={"title": "a"}, values={"epoch": 3})
    result = told(source)
    assert set(result) == FIELDS
    assert result["schema"] == SCHEMA == 1
    assert (result["architecture"], result["id"], result["kind"], result["intact"]) == (
        "SD-v1",
        "sd1",
        "checkpoint",
        True,
    )
    assert (result["file"], result["file_bytes"], result["format"]) == ("some model.safetensors", 4321, "safetensors")
    # UNet, VAE and text encoder as published; two bytes each.
    parameters = 859_520_964 + 83_653_863 + 123_060_557
    assert (result["tensors"], result["parameters"], result["bytes"]) == (1131, parameters, 2 * parameters)
    assert result["dtypes"] == {"F16": 2 * parameters}
    assert result["metadata"] == {"title": "a"}
    assert result["values"] == {"epoch": "3"}
    assert result["rank"] is None
    unet = next(entry for entry in result["components"] if entry["class"] == "UNET-v1")
    assert set(unet) == COMPONENT_FIELDS
    assert unet["component"] == "UNET-v1-SD"
    assert (unet["id"], unet["tensors"], unet["parameters"], unet["bytes"]) == ("sd1", 686, 859_520_964, 1_719_041_928)
    assert json.loads(json.dumps(result)) == result


def test_what_is_wrong_is_in_it():
    shapes = registry.architecture("sd1").table()
    key, lost = "first_stage_model.encoder.conv_in.weight", "first_stage_model.encoder.conv_in.bias"
    shapes = {name: shape for name, shape in shapes.items() if name != lost} | {key: (128, 4, 3, 3)}
    source = model(
        shapes | {"v_pred": (0,), "loss.x": (2,), "odd": (3,)}, outside={"optimizer.0": Filled(b"", DType.F32, (5,))}
    )
    result = told(source)
    assert (result["architecture"], result["intact"], result["missing_classes"]) == ("SD-v1-BROKEN", False, ["VAE-v1"])
    vae = next(entry for entry in result["components"] if entry["class"] == "VAE-v1")
    assert vae["complete"] is False
    assert vae["missing"] == [lost]
    assert vae["wrong_shape"] == [{"key": key, "expected": [128, 3, 3, 3], "found": [128, 4, 3, 3]}]
    left = result["leftovers"]
    assert [(entry["key"], entry["bytes"]) for entry in left["protected"]] == [("v_pred", 0)]
    assert [(entry["key"], entry["bytes"]) for entry in left["removable"]] == [("loss.x", 4)]
    assert [(entry["key"], entry["bytes"]) for entry in left["unknown"]] == [("odd", 6)]
    assert result["outside"] == [{"path": "optimizer.0", "bytes": 20}]
    assert result["warnings"]


def test_keys_on_demand():
    shapes = registry.component("VAE-v1-SD").family.table() | {"odd": (3,)}
    rows = told(model(shapes), keys=True)["keys"]
    assert len(rows) == 249
    by_key = {row["key"]: row for row in rows}
    assert by_key["quant_conv.weight"] == {
        "key": "quant_conv.weight",
        "dtype": "F16",
        "shape": [8, 8, 1, 1],
        "bytes": 128,
        "component": "VAE-v1-SD",
    }
    assert by_key["odd"]["component"] is None


def test_unknown_and_unnamed_have_no_architecture():
    assert told(model({"a": (1,)}))["architecture"] is None
    assert told(model({"emb_params": (8, 768)}))["architecture"] is None
    assert told(model({"emb_params": (8, 768)}))["kind"] == "embedding"


def test_adapters_tell_their_rank():
    place = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    source = model({f"{place}.lora_down.weight": (8, 768), f"{place}.lora_up.weight": (320, 8)})
    result = told(source)
    assert (result["architecture"], result["id"], result["base"], result["rank"]) == ("LoRA-v1", "sd1", "sd1", [8])
    assert "rank 8" in identification_text(source, identify(source))


def test_text_says_what_it_is():
    shapes = registry.architecture("sd1").table(ema=True) | registry.architecture("sd1").schedule()
    source = model(shapes)
    text = identification_text(source, identify(source))
    first = text.splitlines()[0]
    assert first == "some model.safetensors: SD-v1 (id sd1), checkpoint; intact."
    assert "12 schedule buffers" in text
    assert "and 681 more" in text
    assert "wrong shapes (1 of 686)" in text
    full = identification_text(source, identify(source), keys=True)
    assert full.count("model_ema.diffusion_model") >= 686


def test_text_of_a_broken_file():
    shapes = registry.architecture("sd1").table()
    source = model({key: shape for key, shape in shapes.items() if not key.startswith("first_stage_model.")})
    text = identification_text(source, identify(source))
    assert "SD-v1-BROKEN" in text
    assert "parts are missing" in text
    assert "Missing or incomplete: VAE-v1." in text
    assert "no VAE inside" in text


@pytest.mark.parametrize("evil", ["\x1b[2J", "a\nb", "\r", "\x07", "\x9b31m", "\u202e", "\x00"])
def test_nothing_from_the_file_drives_the_terminal(evil):
    source = model(
        {f"key{evil}": (1,), "model.diffusion_model." + evil: (2,)},
        metadata={f"name{evil}": f"value{evil}"},
        values={f"path{evil}": evil},
        outside={f"x{evil}": Filled(b"", DType.F32, (5,))},
        notes=(evil,),
        warnings=(evil,),
    )
    text = identification_text(source, identify(source), keys=True)
    assert all(line.isprintable() for line in text.split("\n"))
    assert "key" in text
    assert "value" in text


def test_objects_of_a_pickle_are_shown_by_their_name():
    model = Model({}, Origin(Path("m.ckpt"), "zip", 0), values={"when": Placeholder("datetime.date", "info")})
    text = identification_text(model, identify(model))
    assert "<datetime.date>" in text
    assert "Placeholder" not in text


def test_long_values_are_shortened():
    source = model({"a": (1,)}, values={"long": "x" * 5000})
    assert told(source)["values"]["long"] == "x" * 200 + "… (5,000 characters)"


def test_a_broken_file_says_why_it_is_no_whole_one():
    shapes = registry.architecture("sd1").table()
    for key in ("model.diffusion_model.out.2.bias", "model.diffusion_model.out.2.weight"):
        del shapes[key]
    source = model({key: shape for key, shape in shapes.items() if not key.startswith("cond_stage_model.")})
    first = told(source)["rejected"][0]
    assert first["name"] == "SD-v1"
    assert first["reason"] == "UNET-v1: missing required keys (2 of 686); missing classes: CLIP-v1"
    assert "model.diffusion_model.out.2.weight" in first["examples"]
