"""The comparison's JSON, page and pictures, and the published tool's files."""

from __future__ import annotations

import io
import json
import math
import os
import re
import xml.etree.ElementTree as ElementTree
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lib_toolkit.analysis.compare.pairs import compare
from lib_toolkit.analysis.compare.triples import compare_with_third
from lib_toolkit.architectures.registry import architecture
from lib_toolkit.errors import FormatError, UsageError
from lib_toolkit.formats import open_model
from lib_toolkit.identify import identify
from lib_toolkit.reports import compare_png
from lib_toolkit.reports.compare_html import compare_html
from lib_toolkit.reports.compare_json import compare_json, compare_schema
from lib_toolkit.reports.compare_published import (
    Published,
    published,
    published_json,
    published_lines,
    published_text,
    read_published,
)
from lib_toolkit.reports.compare_text import compare_text
from lib_toolkit.reports.unet_picture import Overlay, skips_fit, unet_blocks, unet_svg
from tests.analysis.samples import demo, save
from tests.making import stamped_safetensors

UNET, CLIP = "model.diffusion_model.", "cond_stage_model.transformer."
SVG = "{http://www.w3.org/2000/svg}"
_BESIDE = Path(__file__).parents[3] / "shared" / "data" / "mega_cmp"
REAL = Path(os.environ.get("MODEL_TOOLKIT_PUBLISHED", _BESIDE))
"""A folder with reports of real models, where there is one."""


def trained():
    b = demo()
    rng = np.random.default_rng(0)
    for number, key in enumerate(b):
        if key.startswith(UNET):
            b[key] = b[key] + (rng.standard_normal(b[key].shape) * 0.001 * (1 + number % 5)).astype("<f4")
    return b


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    a, b = demo(), trained()
    a["<b>&\u202e.weight"] = np.ones(2, "<f4")
    b[UNET + "out.2.bias"] = np.ones((2, 2), "<f4")
    paths = [save(folder / "a<i>.safetensors", a), save(folder / "b.safetensors", b)]
    with open_model(paths[0]) as first, open_model(paths[1]) as second:
        return compare((first, second), (identify(first), identify(second)))


def test_json_fits_its_schema(found):
    jsonschema = pytest.importorskip("jsonschema")
    table = json.loads(json.dumps(compare_json(found), allow_nan=False))
    jsonschema.validate(table, compare_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**table, "schema": 2}, compare_schema())
    assert table["third"] is None
    assert [group["name"] for group in table["components"]] == ["UNet", "text encoder", "VAE", "noise schedule"]
    assert table["only_a"] == ["<b>&\u202e.weight"]
    assert table["not_compared"][0]["reason"] == "shape [4] in A, [2, 2] in B"
    first = next(entry for entry in table["tensors"] if entry["key"] == "time_embed.0.weight")
    assert (first["component"], first["block"], first["layer"], first["merge_block"]) == ("unet", "TIME", "emb", "IN00")
    assert first["figures"]["l2"] == first["norm_difference"] > 0
    total = sum(block["norm_difference"] ** 2 for block in table["merge_blocks"])
    assert math.sqrt(total) == pytest.approx(table["components"][0]["norm_difference"], rel=1e-9)


def test_json_holds_the_figures_that_were_asked_for(found):
    table = compare_json(found, ("l1",))
    assert table["metrics"] == ["l1"]
    assert set(table["total"]["figures"]) == {"l1"}


@pytest.fixture(scope="module")
def with_third(tmp_path_factory):
    """Attention a quarter of the way to B, the rest of A."""
    folder = tmp_path_factory.mktemp("third")
    a, b = demo(), trained()
    m = {key: array + np.float32(0.25) * (b[key] - array) if ".attn" in key else array for key, array in a.items()}
    with ExitStack() as stack:
        paths = [save(folder / f"{name}.safetensors", arrays) for name, arrays in (("a", a), ("b", b), ("<m>", m))]
        models = [stack.enter_context(open_model(path)) for path in paths]
        found = compare_with_third(tuple(models), tuple(identify(model) for model in models))
    return found, (a, b, m)


def test_a_third_model_in_json(with_third):
    jsonschema = pytest.importorskip("jsonschema")
    found, sets = with_third
    table = json.loads(json.dumps(compare_json(found), allow_nan=False))
    jsonschema.validate(table, compare_schema())
    assert table["third"]["name"] == "<m>.safetensors"
    assert [place["component"] for place in table["third"]["components"]] == ["unet", "text_encoder", "vae"]
    blocks = table["third"]["merge_blocks"]
    assert [place["name"] for place in blocks][:2] == ["BASE", "IN00"]
    unet = table["third"]["components"][0]
    keys = [key for key in sets[0] if key.startswith(UNET)]
    a, b, m = (np.concatenate([arrays[key].astype("f8").reshape(-1) for key in keys]) for arrays in sets)
    ratio = (m - a) @ (b - a) / ((b - a) @ (b - a))
    assert unet["ratio"] == pytest.approx(ratio, abs=1e-6)
    assert unet["residual"] == pytest.approx(np.linalg.norm(m - a - ratio * (b - a)), rel=1e-5)
    assert 0 < unet["bound"] < unet["residual"] / 10
    cosine = (m - a) @ (b - a) / np.linalg.norm(m - a) / np.linalg.norm(b - a)
    assert unet["angle"] == pytest.approx(math.degrees(math.acos(cosine)), abs=0.01)
    middle = next(place for place in blocks if place["name"] == "M00")
    assert middle["ratio"] > ratio / 10 and middle["angle"] is not None
    base = blocks[0]
    assert (base["ratio"], base["residual"], base["angle"]) == (None, 0, None)


def test_a_third_model_in_words_and_on_the_page(with_third):
    found, _ = with_third
    (placed,) = (place for place in found.third.components if place.component == "unet")
    angle = f"{placed.position.angle:.1f}°"
    text, page = compare_text(found, ("l2",)), compare_html(found)
    (line,) = (line for line in text.splitlines() if line.startswith("UNet") and "°" in line)
    assert line.split()[2] == f"{placed.position.ratio:.4f}" and angle in line
    assert "M: <m>.safetensors (SD-v1-Demo" in text
    assert angle in page and "&lt;m&gt;.safetensors" in page and 'id="third"' in page


def test_page_is_inert_and_complete(found):
    text = compare_html(found)
    assert "<script" not in text
    assert "a&lt;i&gt;.safetensors" in text
    assert "&lt;b&gt;&amp;\\u202e.weight" in text
    assert re.search(r'content="default-src \'none\'|content="default-src &#x27;none', text)
    assert not re.search(r"(src|href)=\"(?!#)", text.replace('href="#', ""))
    assert text.count('class="u-block"') == 25
    assert all(sentence.replace("&", "&amp;") in text for sentence in found.verdicts)
    for title in (
        "Components",
        "Merge blocks",
        "Kinds of layers",
        "How the changes spread",
        "Tensors that changed most",
    ):
        assert title in text


def test_page_in_chromium(found, chromium, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(compare_html(found), "utf-8")
    for scheme in ("light", "dark"):
        page = chromium.new_page(viewport={"width": 420, "height": 900}, color_scheme=scheme)
        problems = []
        page.on("console", lambda message, problems=problems: problems.append(message.text))
        page.on(
            "request",
            lambda request, problems=problems: request.url.startswith("file:") or problems.append(request.url),
        )
        page.goto(path.as_uri())
        assert problems == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 420
        assert page.locator("g.u-block").count() == 25
        box = page.locator("g.u-block[data-block=IN04]")
        assert "IN04: Res + Attn" in box.locator("title").text_content()
        page.close()


def test_page_of_a_third_model_in_chromium(with_third, chromium, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(compare_html(with_third[0]), "utf-8")
    page = chromium.new_page(viewport={"width": 420, "height": 900})
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    assert page.locator("#third tbody tr").first.locator("td").first.text_content() == "UNet"
    page.close()


SKELETONS = {
    "sd1": (25, 12, 859_520_964, {"IN00": 11_840, "IN08": 65_899_520, "M00": 97_038_080, "OUT05": 90_479_360}),
    "sd2": (25, 12, 865_910_724, {"IN01": 4_965_120, "IN04": 16_074_240, "M00": 97_693_440, "OUT11": 6_092_480}),
    "sdxl": (19, 9, 2_567_463_684, {"IN07": 375_425_280, "M00": 413_117_440, "OUT02": 406_558_720, "OUT08": 3_382_400}),
}


@pytest.mark.parametrize("name", SKELETONS)
def test_the_u_of_real_models(name, tmp_path):
    boxes, skips, parameters, some = SKELETONS[name]
    path = tmp_path / "m.safetensors"
    stamped_safetensors(path, {key: ("F16", shape) for key, shape in architecture(name).table().items()})
    with open_model(path) as model:
        match = next(one for one in identify(model).components if one.component.kind == "unet")
        blocks = unet_blocks(match, model)
        svg = unet_svg(blocks, Overlay("change", {block.name: 0.5 for block in blocks}))
    by_name = {block.name: block for block in blocks}
    assert sum(block.parameters for block in blocks) == parameters
    assert sum(block.tensors for block in blocks) == len(match.keys)
    assert {key: by_name[key].parameters for key in some} == some
    assert by_name["TIME"].parameters == 2_050_560
    assert by_name["OUTC"].parameters == 12_164
    assert sum(block.bytes for block in blocks) == 2 * parameters
    assert skips_fit(blocks)
    assert by_name["OUT00"].skip == 1280
    levels = {block.name: block.level for block in blocks}
    if name != "sdxl":
        assert [levels[key] for key in ("IN00", "IN03", "IN06", "IN09", "M00", "OUT11")] == [0, 1, 2, 3, 3, 0]
        assert by_name["IN01"].kind == "Res + Attn"
        assert by_name["OUT05"].kind == "Res + Attn + Up"
    else:
        assert by_name["M00"].kind == "2×Res + Attn×10"
    root = ElementTree.fromstring(svg)
    drawn = [node.get("data-block") for node in root.iter(f"{SVG}g") if node.get("class") == "u-block"]
    assert sorted(drawn) == sorted(set(levels) - {"TIME", "LABEL", "OUTC"})
    assert len(drawn) == boxes
    assert sum(node.get("class") == "u-skip" for node in root.iter(f"{SVG}path")) == skips


@pytest.mark.parametrize("name", SKELETONS)
def test_the_u_of_real_models_in_diffusers_names(name, tmp_path):
    """Boxes, skips and sizes do not depend on how a file calls its tensors."""
    boxes, skips, parameters, some = SKELETONS[name]
    path = tmp_path / "m.safetensors"
    unet = next(part.component for part in architecture(name).parts if part.component.kind == "unet")
    stamped_safetensors(path, {key: ("F16", shape) for key, shape in unet.family.within("diffusers").table().items()})
    with open_model(path) as model:
        match = next(one for one in identify(model).components if one.component.kind == "unet")
        blocks = unet_blocks(match, model)
    assert match.layout == "diffusers"
    by_name = {block.name: block for block in blocks}
    assert {key: by_name[key].parameters for key in some} == some
    assert sum(block.parameters for block in blocks) == parameters
    assert skips_fit(blocks)
    root = ElementTree.fromstring(unet_svg(blocks))
    assert sum(node.get("class") == "u-block" for node in root.iter(f"{SVG}g")) == boxes
    assert sum(node.get("class") == "u-skip" for node in root.iter(f"{SVG}path")) == skips


def test_a_wrong_skip_is_noticed(tmp_path):
    path = save(tmp_path / "m.safetensors", demo())
    with open_model(path) as model:
        match = next(one for one in identify(model).components if one.component.kind == "unet")
        blocks = unet_blocks(match, model)
    assert skips_fit(blocks)
    assert not skips_fit([replace(b, inputs=b.inputs + 1) if b.name == "OUT03" else b for b in blocks])


def test_tints_follow_the_figures():
    overlay = Overlay("x", {"IN00": 1.0, "IN01": 4.0, "M00": 0.0})
    assert [overlay.share(name) for name in ("IN00", "IN01", "M00", "OUT00")] == [0.25, 1.0, 0.0, 0.0]


def test_published_form(found):
    report = published(found, "l2")
    text = published_text(report)
    assert text.startswith('{\n    "da": [\n        "<b>&')
    table = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert list(table) == ["da", "db", "err", "kv"]
    assert table["err"] == [UNET + "out.2.bias"]
    assert table["kv"][CLIP + "text_model.final_layer_norm.weight"] == 0
    assert len(table["kv"]) == 976
    panels = report.panels()
    assert {name: len(values) for name, values in panels.items()} == {"attn1": 80, "attn2": 80, "other": 523}
    attention = [one for one in found.compared if ".attn1." in one.row.key]
    expected = math.sqrt(sum(one.measures.l2_squared for one in attention))
    assert f"attn1: L2={expected:.4f} (80 tensors)" in published_lines(report, "l2")


def test_published_form_of_novelai_names(tmp_path):
    paths = [save(tmp_path / "a.safetensors", demo()), save(tmp_path / "b.safetensors", demo(nai=True))]
    with open_model(paths[0]) as first, open_model(paths[1]) as second:
        report = published(compare((first, second), (identify(first), identify(second))), "l2")
    renamed = [key for key in report.values if key.startswith("nai.")]
    assert len(renamed) == len(report.only_a) == len(report.only_b) == 37
    assert "nai." + CLIP + "final_layer_norm.bias" in renamed
    assert CLIP + "text_model.final_layer_norm.bias" in report.only_a
    assert CLIP + "final_layer_norm.bias" in report.only_b
    assert set(report.values.values()) == {0.0}


def test_published_form_of_two_architectures(tmp_path):
    """The counts of the published report of SD 1.4 and 2.1, without its schedule buffers."""
    models = []
    with ExitStack() as stack:
        for name in ("sd1", "sd2"):
            path = tmp_path / f"{name}.safetensors"
            table = {key: shape for key, shape in architecture(name).table().items() if wanted(key)}
            stamped_safetensors(path, {key: ("F16", shape) for key, shape in table.items()})
            models.append(stack.enter_context(open_model(path)))
        report = published(compare(tuple(models), tuple(identify(model) for model in models)), "l2")
    assert (len(report.only_a), len(report.only_b), len(report.failed)) == (197, 294, 64)


def wanted(key):
    """Everything but the largest tensors that are alike in both: reading zeros takes time."""
    return ".in_layers." not in key and ".out_layers." not in key and ".ff." not in key


def test_published_file_there_and_back(found, tmp_path):
    path = tmp_path / "r.json"
    path.write_text(published_text(published(found, "l1")), "utf-8")
    again = read_published(path)
    assert published_text(again) == path.read_text("utf-8")
    groups = {group["name"]: group for group in published_json(again, "l1")["groups"]}
    assert groups["unet"]["figure"] == pytest.approx(sum(v for k, v in again.values.items() if k.startswith(UNET)))


def test_values_that_are_no_numbers_are_counted(tmp_path):
    path = tmp_path / "r.json"
    path.write_text('{"da": [], "db": [], "err": [], "kv": {"model.diffusion_model.a": NaN, "b": 3.0, "c": Infinity}}')
    report = read_published(path)
    assert report.not_numbers == 2
    assert published_lines(report, "l2") == [
        "rest: L2=3.0000 (1 tensor)",
        "only in A: 0, only in B: 0, failed: 0",
        "not numbers: 2",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"kv": {}}',
        '{"da": [], "db": [], "err": [], "kv": {"a": "b"}}',
        '{"da": 1, "db": [], "err": [], "kv": {}}',
        '{"da": [], "db": [], "err": [], "kv": {"a": true}}',
        "[" * 100_000,
    ],
    ids=len,
)
def test_other_files_are_no_reports(tmp_path, text):
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(FormatError, match=r"r\.json"):
        read_published(path)


REAL_FIGURES = {
    "bp_ac_mk0": ("23.2504", "26.0299", "96.0301"),
    "bp_mk0_mk3": ("16.5754", "13.6055", "51.6394"),
    "bp_mk3_mk5": ("8.0633", "4.6885", "20.2971"),
    "nai_nai7g_nai4g": ("0.5543", "0.5640", "2.1545"),
    "sd2_sd14_sd21": ("594.4420", "272.2561", "1477.9245"),
}


@pytest.mark.parametrize("name", REAL_FIGURES)
def test_reports_of_real_models(name):
    path = REAL / f"{name}.json"
    if not path.is_file():
        pytest.skip("no published reports here; name their folder in MODEL_TOOLKIT_PUBLISHED")
    report = read_published(path)
    lines = published_lines(report, "l2")
    counts = (80, 48, 494) if name.startswith("sd2") else (80, 80, 526)
    for panel, figure, count in zip(("attn1", "attn2", "other"), REAL_FIGURES[name], counts, strict=True):
        assert f"{panel}: L2={figure} ({count} tensors)" in lines


class TestPictures:
    @pytest.fixture(autouse=True)
    def matplotlib(self):
        return pytest.importorskip("matplotlib")

    @staticmethod
    def size(data: bytes) -> tuple[int, int]:
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")

    def test_published_picture(self, found, monkeypatch):
        drawn = []
        keep = compare_png._png
        monkeypatch.setattr(compare_png, "_png", lambda picture: drawn.append(picture) or keep(picture))
        report = published(found, "l2")
        width, height = self.size(compare_png.published_png(report, "l2"))
        assert (width, height) == (pytest.approx(892, abs=15), pytest.approx(939, abs=70))
        (picture,) = drawn
        assert len(picture.axes) == 3
        for axis, (name, values) in zip(picture.axes, report.panels().items(), strict=True):
            total = math.sqrt(sum(value * value for value in values))
            assert axis.get_title() == f"{name}: $L2={total:.4f}$"
            assert (len(axis.patches), axis.get_yscale(), axis.get_ylabel()) == (len(values), "log", "a.u.")

    def test_an_absent_panel_stays_empty(self, monkeypatch):
        drawn = []
        monkeypatch.setattr(compare_png, "_png", lambda picture: drawn.append(picture) or b"")
        compare_png.published_png(Published((), (), (), {UNET + "x.attn1.y": 2.0}), "l1")
        assert [len(axis.patches) for axis in drawn[0].axes] == [1, 0, 0]

    def test_nothing_of_a_unet(self):
        with pytest.raises(UsageError, match="UNet"):
            compare_png.published_png(Published((), (), (), {"first_stage_model.x": 1.0}), "l2")

    def test_own_pictures(self, found):
        self.size(compare_png.comparison_png(found, "l2"))
        self.size(compare_png.panels_png(published(found, "cossim"), "cossim"))

    def test_names_of_files_are_no_mathematics(self, tmp_path):
        paths = [save(tmp_path / f"{name}$x^$.safetensors", demo()) for name in "ab"]
        with open_model(paths[0]) as first, open_model(paths[1]) as second:
            result = compare((first, second), (identify(first), identify(second)))
        assert self.size(io.BytesIO(compare_png.comparison_png(result, "l2")).getvalue())


def test_without_matplotlib(found, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(UsageError, match="pip install matplotlib"):
        compare_png.comparison_png(found, "l2")
