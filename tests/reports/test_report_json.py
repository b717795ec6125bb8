"""The report as JSON: valid by its schema for every demo model, and its figures those of independent sums."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from lib_toolkit.analysis.results import Report, TensorHealth
from lib_toolkit.architectures.registry import architecture
from lib_toolkit.cli.main import main
from lib_toolkit.demo import make_demo
from lib_toolkit.formats import open_model
from lib_toolkit.identify import identify
from lib_toolkit.reports.identification import identification_json
from lib_toolkit.reports.report_json import report_json, report_schema
from tests.making import read_header
from tests.reports.report_cases import FINDINGS, HISTORY, HOSTILE, MERGE, B, model_of, report_of

DEMOS = (
    "Stable-diffusion/sd-demo.safetensors",
    "Stable-diffusion/sd-demo-bloated.ckpt",
    "Stable-diffusion/sd-demo-broken-ids.safetensors",
    "Stable-diffusion/sd-demo-wrong-vae.safetensors",
    "Stable-diffusion/sd-demo-no-clip.safetensors",
    "Stable-diffusion/sd-demo-nai.ckpt",
    "Stable-diffusion/xl/sdxl-demo-vpred.safetensors",
    "VAE/demo.vae.safetensors",
    "Lora/sd1-demo-lora.safetensors",
)
VALIDATOR = jsonschema.Draft202012Validator(report_schema())


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    make_demo(folder)
    return folder


def told(report: Report, whole=True) -> dict:
    """The report as a reader gets it, after a round through text, checked against the schema."""
    data = json.loads(json.dumps(report_json(report), allow_nan=False))
    VALIDATOR.validate(data if whole else {**data, "keys": data["keys"][:9]})
    return data


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(report_schema())


@pytest.mark.parametrize(
    ("name", "full"), [*((name, True) for name in DEMOS), (DEMOS[1], False), (DEMOS[4], False), (DEMOS[8], False)]
)
def test_every_demo_model_is_valid_and_documented(demo, name, full):
    with open_model(demo / name) as model:
        data = told(report_of(model, FINDINGS, full))
        assert data.keys() == report_schema()["properties"].keys()
        same = json.loads(json.dumps(identification_json(model, identify(model))))
    assert {key: value for key, value in data.items() if key in same} == same
    assert data["quick"] is not full
    assert all((entry["health"] is not None) is full for entry in data["keys"])
    assert (data["metric"] is not None) is full
    assert [finding["id"] for finding in data["findings"]] == ["nan", "position-ids", "ema"]


@pytest.mark.parametrize("name", [name for name in DEMOS if name.endswith(".safetensors")])
def test_figures_are_those_of_the_header(demo, name):
    header, start = read_header(demo / name)
    header.pop("__metadata__", None)
    with open_model(demo / name) as model:
        data = told(report_of(model, full=False), whole=False)
    assert data["file_bytes"] == (demo / name).stat().st_size
    assert {entry["key"]: (entry["dtype"], entry["shape"], entry["bytes"]) for entry in data["keys"]} == {
        key: (entry["dtype"], entry["shape"], entry["data_offsets"][1] - entry["data_offsets"][0])
        for key, entry in header.items()
    }
    shares = {share["role"]: share for share in data["pruned"]["shares"]}
    assert sum(share["bytes"] for share in shares.values()) == data["file_bytes"]
    assert shares["frame"]["bytes"] >= start
    if "first_stage_model.quant_conv.weight" in header:
        inside = [entry["data_offsets"] for key, entry in header.items() if key.startswith("first_stage_model.")]
        assert shares["vae"] == shares["vae"] | {
            "tensors": len(inside),
            "bytes": sum(stop - begin for begin, stop in inside),
        }


@pytest.mark.parametrize("name", DEMOS)
def test_the_predicted_prune_is_what_prune_writes(demo, name, tmp_path, capsys):
    with open_model(demo / name) as model:
        data = told(report_of(model), whole=False)
    target = tmp_path / "out.safetensors"
    assert main(["prune", str(demo / name), "-o", str(target)]) == 0
    assert data["pruned"]["bytes"] == target.stat().st_size
    assert sum(share["bytes_pruned"] for share in data["pruned"]["shares"]) == target.stat().st_size


def test_values_too_large_for_fp16_count_in_the_prediction(tmp_path, capsys):
    import numpy as np

    from tests.making import of_arrays, safetensors_bytes

    table = architecture("sd-v1-demo").table()
    arrays = {key: np.zeros(shape, "<i8" if "position_ids" in key else "<f4") for key, shape in table.items()}
    arrays["first_stage_model.quant_conv.weight"].flat[3] = 1e6
    source, target = tmp_path / "x.safetensors", tmp_path / "y.safetensors"
    source.write_bytes(safetensors_bytes(of_arrays(arrays)))
    assert main(["prune", str(source), "-o", str(target)]) == 0
    with open_model(source) as model:
        full, quick = told(report_of(model)), told(report_of(model, full=False))
    assert full["pruned"]["bytes"] == target.stat().st_size
    # the widest tensor keeps 4 bytes a value; the header alone cannot tell
    assert full["pruned"]["bytes"] > quick["pruned"]["bytes"]


def test_what_the_metadata_tells(tmp_path):
    metadata = {**MERGE, **HISTORY, HOSTILE: HOSTILE * 10_000, "lone": "\ud800"}
    data = told(report_of(model_of({HOSTILE: (2, 3)}, metadata=metadata), FINDINGS, full=False))
    assert data["metadata"] == metadata
    assert data["keys"][0]["key"] == HOSTILE
    assert data["provenance"][0]["parts"] == [{"name": "better.vae.pt", "size": 822_000_000, "hashes": {}}]
    assert data["merge"]["parents"][1]["hash"] == B
    assert data["merge"]["parents"][1]["parents"][1]["state"] == "cycle"
    assert data["findings"][1]["remedy"]["wish"] == "fix_clip"


def test_infinities_are_no_numbers_of_json():
    model = model_of({"a": (2,)})
    health = {"a": TensorHealth(2, 0, 1, 0, 0, float("inf"))}
    report = replace(report_of(model, full=False), health=health)
    assert told(report)["keys"][0]["health"] == {
        "count": 2, "nan": 0, "infinite": 1, "zero": 0, "beyond_fp16": 0, "largest": None,
        "below_fp16": 0,
    }  # fmt: skip


def test_full_figures(demo):
    with open_model(demo / DEMOS[0]) as model:
        data = told(report_of(model))
    assert data["metric"]["text"] == "2020/2982/----"
    assert data["metric"]["clip"] is None
    assert data["hashes"]["autov2"] == data["hashes"]["sha256"][:10]
    assert data["embedded_hashes"][0] == {"entry": "sshs_model_hash", "value": "e" * 64, "agrees": False}
    assert data["fingerprints"][1]["names"] == ["NAI VAE"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.pop("verdict"),
        lambda data: data.update(schema=2),
        lambda data: data["metric"].update(text="20/30/40"),
        lambda data: data["keys"][0].update(bytes="many"),
        lambda data: data["keys"][0].update(surprise=1),
        lambda data: data["findings"][0].update(severity="fatal"),
        lambda data: data["hashes"].update(sha256="E" * 64),
        lambda data: data["components"][0].pop("missing"),
        lambda data: data["merge"]["parents"][0].update(state="fine"),
        lambda data: data["pruned"]["shares"][0].update(role="stuff"),
    ],
    ids=range(10),
)
def test_the_schema_refuses_what_is_wrong(demo, spoil):
    with open_model(demo / DEMOS[0]) as model:
        data = report_json(report_of(replace(model, metadata=MERGE), FINDINGS))
    data["keys"] = data["keys"][:3]
    VALIDATOR.validate(data)
    wrong = copy.deepcopy(data)
    spoil(wrong)
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(wrong)


def test_every_field_is_documented():
    """Each named field has a description, or a name that is explained where it is referred to."""
    schema = report_schema()
    assert all("description" in field or "const" in field for field in schema["properties"].values())
    assert all("description" in part for part in schema["$defs"].values())
    assert Path(__file__).parents[2].joinpath("lib_toolkit/reports/report.schema.json").is_file()
