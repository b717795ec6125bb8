"""What a set cannot say: models without a distance are named, and 0 is only said of what is identical."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

from lib_toolkit.analysis.matrix.whole import measure_set
from lib_toolkit.reports.matrix_csv import matrix_csv
from lib_toolkit.reports.matrix_html import matrix_html
from lib_toolkit.reports.matrix_json import matrix_json, matrix_schema, matrix_text
from lib_toolkit.reports.matrix_sentences import merge_sentences, summary
from tests.analysis.samples import demo, part, save

LORA = {
    f"lora_unet_down_blocks_{i}_attentions_0_proj_in.lora_{side}.weight": np.ones(shape, "<f4")
    for i in range(3)
    for side, shape in (("down", (4, 320)), ("up", (320, 4)))
}


def measured(folder, **models):
    return measure_set([save(folder / name, arrays) for name, arrays in models.items()])


def vae(seed: int):
    rng = np.random.default_rng(seed)
    own = part(demo(), "first_stage_model.")
    return {key: a + (rng.standard_normal(a.shape) * 0.02).astype("<f4") for key, a in own.items()}


def holed(arrays, count: int):
    made = {key: a.copy() for key, a in arrays.items()}
    made[max(made, key=lambda key: made[key].size)].flat[:count] = np.nan
    return made


def test_two_models_without_anything_in_common_are_said_to_be_so(tmp_path):
    result = measured(tmp_path, LORA=LORA, VAE=vae(1))
    told = summary(result)
    assert told == [
        "2 models read, but no two of them can be compared.",
        "LORA cannot be compared with VAE: no part of theirs fits together.",
    ]
    assert matrix_json(result)["sentences"] == told


def test_models_of_kinds_are_told_from_those_of_others(tmp_path):
    result = measured(tmp_path, a=vae(1), lora=LORA, b=vae(2), odd={"foo": np.ones(4, "<f4")})
    told = summary(result)
    assert told[:3] == [
        "4 models compared, each with each: 6 pairs.",
        "a and b cannot be compared with lora and odd: no part of theirs fits together.",
        "lora cannot be compared with odd: no part of theirs fits together.",
    ]
    assert "VAE: a and b" in told[3] and len(told) == 4


def test_architectures_that_differ_are_named_by_component(tmp_path):
    small, large = demo(), demo("sdxl-demo")
    other = {key: a * 2 if a.dtype.kind == "f" else a for key, a in small.items()}
    told = summary(measured(tmp_path, one=small, xl=large, two=other))
    said = [sentence for sentence in told if "one and two cannot be compared with xl" in sentence]
    assert [sentence.partition(":")[0] for sentence in said] == ["UNet", "Text encoder CLIP-L"]
    assert "tensors fit, too little for a distance" in said[0] and "none of 36 tensors fits" in said[1]
    assert not [sentence for sentence in told if "cannot" in sentence and sentence not in said]


def test_files_of_no_known_architecture_are_named_with_the_reason(tmp_path):
    x, y = ({f"net.{i}.weight": np.ones((size, 3), "<f4") for i in range(4)} for size in (5, 6))
    told = summary(measured(tmp_path, x=x, y=y, same=x))
    assert "x and same cannot be compared with y: no part of theirs fits together." in told
    reason = "none of 4 tensors fits: shapes or types differ"
    assert f"Other tensors: x and same cannot be compared with y: {reason}." in told


def test_many_kinds_are_counted_not_listed(tmp_path):
    models = {f"m{place}": {f"w{place}": np.ones(3, "<f4")} for place in range(12)}
    told = summary(measured(tmp_path, **models))
    assert told[0] == "12 models read, but no two of them can be compared." and len(told) == 6
    assert "(11 models)" in told[1] and told[5].startswith("Other models cannot be compared either")


def test_zero_is_said_of_equal_models_alone(tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    a, b = vae(1), vae(2)
    result = measured(tmp_path, A=a, sick=holed(a, 7), B=b, copy=a)
    table = json.loads(matrix_text(result))
    jsonschema.validate(table, matrix_schema())
    own = table["components"]["vae"]
    for metric in ("l1", "l2", "mean", "cosine"):
        assert own[metric][0][1] is None and own[metric][1][3] is None, metric
        assert own[metric][0][3] == (1 if metric == "cosine" else 0) and own[metric][0][2], metric
    assert own["l0"][0][1] == 1 and own["changed_elements"][0][1] == 7
    assert table["identical"] == [{"component": "vae", "models": ["A", "copy"]}]
    (reason,) = own["not_comparable"]
    assert reason["pairs"] == [[0, 1], [1, 3]] and reason["reason"].startswith("7 values that differ are NaN")
    assert own["left_out"] == [{"pair": pair, "elements": 7} for pair in ([0, 1], [1, 2], [1, 3])]
    assert own["left_out_of_merges"] == [7] * 4
    zero = [edge["of"] for edge in own["families"][0]["spanning_tree"] if edge["distance"] == 0]
    assert zero == [["A", "copy"]]
    assert [one["distance"] for one in own["nearest"]][:2] == [0, None]
    for group in (table["total"], *table["blocks"].values()):
        assert group["l2"][0][1] is None and group["l2"][0][3] == 0
    rows = list(csv.reader(io.StringIO(matrix_csv(result.components[0], "l2", ["A", "sick", "B", "copy"]))))
    assert rows[1][2] == "" and rows[1][4] == "0"
    told = summary(result)
    assert "VAE: the same in A and copy." in told
    assert any(
        one.startswith("VAE: A and copy cannot be given a distance to sick: 7 values that differ") for one in told
    )
    assert not any("(0)" in one for one in told)
    page = matrix_html(result)
    assert "equal but for NaN or infinite values" in page and "2 pairs not comparable: 7 values" in page
    assert "A ↔ sick: 0" not in page and "A ↔ copy: 0" in page


def test_what_nan_hides_of_merges_is_said(tmp_path):
    a, b = vae(1), vae(2)
    mix = {key: (0.7 * a[key].astype("<f8") + 0.3 * b[key]).astype("<f4") for key in a}
    few = measured(tmp_path, A=a, B=holed(b, 40), mix=mix)
    assert "VAE: 40 values, NaN or infinite in some model, take no part in the search for merges." in summary(few)
    assert merge_sentences(few)[0].startswith("mix is a merge: 0.7 × A + 0.3 × B in the VAE")
    nothing = {key: np.full_like(value, np.nan) for key, value in a.items()}
    beside = measured(tmp_path, A=a, B=b, mix=mix, nothing=nothing, none=nothing)
    (said,) = [one for one in summary(beside) if "merges" in one]
    assert said == (
        "VAE: nothing and none take no part in the search for merges: most of their values are NaN or infinite."
    )
    assert "VAE: A, B and mix cannot be compared with nothing and none: no value is a finite number in both." in (
        summary(beside)
    )
    assert "VAE: the same in nothing and none." in summary(beside)
    assert merge_sentences(beside)[0].startswith("mix is a merge: 0.7 × A + 0.3 × B in the VAE")
    table = matrix_json(beside)["components"]["vae"]
    assert table["models_left_out_of_merges"] == ["nothing", "none"]
    assert table["left_out_of_merges"][:3] == [0, 0, 0] and table["l2"][0][3] is None and table["l2"][3][4] == 0
    assert [family["models"] for family in table["families"]] == [["A", "B", "mix"], ["nothing", "none"]]
    assert "nothing and none take no part in the search for merges" in matrix_html(beside)
    sparse = [scattered(model, 0.4, seed) for seed, model in enumerate((a, b))]
    blind = measured(tmp_path, A=sparse[0], B=sparse[1], mix=mix)
    (said,) = [one for one in summary(blind) if "merges" in one]
    assert said == (
        "VAE: which of A, B and mix are merges cannot be told: most values are NaN or infinite in one model or "
        "another; measure fewer of them at once."
    )
    assert merge_sentences(blind) == []


def scattered(arrays, share: float, seed: int):
    rng = np.random.default_rng(seed)
    return {key: np.where(rng.random(a.shape) < share, np.float32(np.nan), a) for key, a in arrays.items()}


def test_blocks_in_which_shares_cannot_be_told_are_named(tmp_path):
    unet = {key: a for key, a in demo().items() if key.startswith("model.diffusion_model.")}
    rng = np.random.default_rng(0)
    a, b = ({key: x + (rng.standard_normal(x.shape) * 0.01).astype("<f4") for key, x in unet.items()} for _ in "ab")
    mix = {key: (0.7 * a[key].astype("<f8") + 0.3 * b[key]).astype("<f4") for key in a}
    for key in mix:
        if ".middle_block." in key:
            mix[key] = np.full_like(mix[key], np.nan)
    told = summary(measured(tmp_path, A=a, B=b, mix=mix, C={key: x * 2 for key, x in unet.items()}))
    assert (
        "UNet: shares of mix in M00 cannot be told, nor of merges with it: most values there are NaN or infinite."
    ) in told
    assert any(one.endswith("NaN or infinite in some model, take no part in the search for merges.") for one in told)
