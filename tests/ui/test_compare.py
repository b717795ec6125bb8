"""The Compare panel without a browser: two models, a third, what is in memory, sets and folders, what is refused."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

pytest.importorskip("gradio")

from lib_toolkit.analysis.compare.measures import METRICS as OF_PAIRS
from lib_toolkit.analysis.matrix.results import METRICS as OF_SETS
from lib_toolkit.cli.main import main
from lib_toolkit.files import SourceFile
from lib_toolkit.hosts import StandaloneHost
from lib_toolkit.jobs import Jobs
from lib_toolkit.ui import compare_work
from lib_toolkit.ui.actions import Actions
from lib_toolkit.ui.compare_actions import LOADED, NO_THIRD, PAIR_METRICS, SET_METRICS
from lib_toolkit.ui.editing import Pointed
from lib_toolkit.ui.handouts import Handouts
from lib_toolkit.ui.workspace import Controls
from tests.making import safetensors_bytes
from tests.ui.clicking import files, loaded, said, settled

PLAIN = "Stable-diffusion/sd-demo.safetensors"
WRONG = "Stable-diffusion/sd-demo-wrong-vae.safetensors"
BLOATED = "Stable-diffusion/sd-demo-bloated.ckpt"
MIX = "Stable-diffusion/mix.safetensors"
XL = "Stable-diffusion/xl/sdxl-demo-vpred.safetensors"
VAE = "VAE/demo.vae.safetensors"
ALL = list(PAIR_METRICS)
ACTS = '</ul><img src=x onerror="window.acted=1">.${window.acted=2}'
PREFIX = "first_stage_model."


@pytest.fixture
def actions(models, demo):
    for name in (PLAIN, WRONG):
        shutil.copyfile(demo / name, models / name)
    jobs = Jobs()
    yield Actions(StandaloneHost(models), jobs)
    jobs.close()


@pytest.fixture
def mix(actions, models):
    """A third model: the VAE three quarters of the way from one to the other, a block of the UNet of its own."""
    a, b = load_file(models / PLAIN), load_file(models / WRONG)
    own = np.random.default_rng(1)
    made = {}
    for name, array in a.items():
        if name.startswith(PREFIX):
            array = (0.25 * array.astype("<f8") + 0.75 * b[name].astype("<f8")).astype(array.dtype)
        elif ".middle_block." in name:
            array = (array + own.standard_normal(array.shape)).astype(array.dtype)
        made[name] = array
    save_file(made, models / MIX)
    return made


def pair(actions, a, b, metrics=ALL, at_lower=False, key=None, third=NO_THIRD):
    return settled(actions, actions.comparing.pair(key, a, b, metrics, at_lower, third))[1]


def several(actions, chosen, metrics=ALL):
    return settled(actions, actions.comparing.several(None, chosen, metrics))[1]


def data_of(updates):
    return json.loads(Path(updates["compare_json"]["value"]).read_text("utf-8"))


def test_the_metrics_are_those_of_the_analysis():
    assert (PAIR_METRICS, SET_METRICS) == (OF_PAIRS, OF_SETS)


def test_two_models_in_words_figures_and_files(actions, models):
    before = files(models)
    updates = pair(actions, PLAIN, WRONG)
    assert said(updates) == "Compared sd-demo.safetensors with sd-demo-wrong-vae.safetensors; no model was changed."
    a, b = load_file(models / PLAIN), load_file(models / WRONG)
    differ = [name for name in a if a[name].tobytes() != b[name].tobytes()]
    assert differ and all(name.startswith(PREFIX) for name in differ)
    view = said(updates, "compare_view")
    assert f"{len(differ)} of {len(a)} tensors that both have differ" in view
    assert "Same UNet: all 684 tensors are equal." in view
    assert updates["compare_view"]["value"].count('data-block="IN0') == 10
    distance = np.sqrt(sum(np.sum((a[name].astype("<f8") - b[name].astype("<f8")) ** 2) for name in differ))
    by_component = {group["name"]: group for group in data_of(updates)["components"]}
    assert by_component["VAE"]["norm_difference"] == pytest.approx(distance, rel=1e-6)
    assert Path(updates["compare_html"]["value"]).name == "sd-demo and sd-demo-wrong-vae.html"
    assert updates["compare_html"]["visible"] is updates["compare_json"]["visible"] is True
    assert Path(updates["compare_more"]["value"]).read_bytes().startswith(b"\x89PNG")
    assert "data-model-toolkit-open" in updates["compare_open"]["value"]
    assert files(models) == before


def test_a_third_model_is_placed_as_the_command_line_places_it(actions, models, mix, tmp_path):
    updates = pair(actions, PLAIN, WRONG, third=MIX)
    names = "sd-demo.safetensors with sd-demo-wrong-vae.safetensors, and mix.safetensors with both"
    assert said(updates) == f"Compared {names}; no model was changed."
    page, data = tmp_path / "page.html", tmp_path / "data.json"
    files_ = [str(models / name) for name in (PLAIN, WRONG, MIX)]
    given = [*files_[:2], "--third", files_[2], "--html", str(page), "--json", str(data)]
    assert main(["compare", *given]) == 0
    assert data_of(updates) == json.loads(data.read_text("utf-8"))
    assert Path(updates["compare_html"]["value"]).read_text("utf-8") == page.read_text("utf-8")
    assert Path(updates["compare_html"]["value"]).name == "sd-demo and sd-demo-wrong-vae with mix.html"
    a, b = (load_file(models / name) for name in (PLAIN, WRONG))
    x, y, z = (
        np.concatenate([one[name].astype("<f8").reshape(-1) for name in a if name.startswith(PREFIX)])
        for one in (a, b, mix)
    )
    places = {place["component"]: place for place in data_of(updates)["third"]["components"]}
    assert places["vae"]["ratio"] == pytest.approx((z - x) @ (y - x) / ((y - x) @ (y - x)), abs=1e-6)
    assert places["vae"]["mixed"] and not places["unet"]["mixed"]
    view = said(updates, "compare_view")
    assert "M mix.safetensors: SD-v1-Demo" in view and "M between A and B" in view
    assert "The VAE of mix.safetensors is mixed of A's and B's: 75.0 % of B" in view
    assert "The UNet of mix.safetensors differs, though A and B have the same UNet." in view
    for place in data_of(updates)["third"]["merge_blocks"]:
        assert f'<td data-label="Part">{place["name"]}</td>' in updates["compare_view"]["value"]
    assert str(models) not in updates["compare_view"]["value"]


@pytest.mark.parametrize("empty", [NO_THIRD, None, ""])
def test_without_a_third_model_there_is_none_anywhere(actions, mix, empty):
    updates = pair(actions, PLAIN, WRONG, third=empty)
    assert said(updates) == "Compared sd-demo.safetensors with sd-demo-wrong-vae.safetensors; no model was changed."
    assert data_of(updates)["third"] is None
    assert "M between A and B" not in said(updates, "compare_view")


def test_a_third_model_is_chosen_of_the_same_list(actions):
    updates = actions.refresh(None)[1]
    assert updates["compare_third"]["choices"] == [NO_THIRD, *updates["compare_a"]["choices"]]


def test_the_third_model_can_be_what_is_loaded_with_its_changes(actions):
    key, _ = loaded(actions, WRONG)
    assert "B and M are both sd-demo-wrong-vae.safetensors" in said(pair(actions, PLAIN, WRONG, key=key, third=LOADED))
    pointed = Pointed("SD-v1-Demo", "VAE-v1-Demo", "auto", PLAIN, "auto", "", "safetensors")
    settled(actions, actions.editing.bring_in(key, pointed, Controls()))
    view = said(pair(actions, PLAIN, WRONG, key=key, third=LOADED), "compare_view")
    assert "The VAE of sd-demo-wrong-vae.safetensors, as changed in memory is that of A." in view


@pytest.mark.parametrize(
    ("third", "at_lower", "sentence"),
    [
        (PLAIN, False, "A and M are both sd-demo.safetensors; choose another model as M, or none."),
        (WRONG, False, "B and M are both sd-demo-wrong-vae.safetensors; choose another model as M, or none."),
        (LOADED, False, "Nothing is loaded above; choose a model as M, or load one first."),
        (["x"], False, "M is not chosen yet; choose a model as M."),
        ("../../etc/passwd", False, "refresh the list"),
        (MIX, True, "untick the lower precision of the two, or choose no third model."),
    ],
)
def test_what_cannot_be_a_third_model_is_refused_in_a_sentence(actions, mix, third, at_lower, sentence):
    updates = pair(actions, PLAIN, WRONG, ALL, at_lower, third=third)
    assert sentence in said(updates)
    assert "compare_view" not in updates


def test_without_matplotlib_there_is_no_picture_and_no_error(actions, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    updates = pair(actions, PLAIN, WRONG)
    assert "no model was changed" in said(updates)
    assert updates["compare_more"] == {"value": None, "visible": False}


def test_only_ticked_figures_are_told_and_the_lower_precision_is_taken(actions):
    updates = pair(actions, PLAIN, BLOATED, ["l0"], True)
    head = updates["compare_view"]["value"]
    assert ">L0</th>" in head and ">L1</th>" not in head
    assert "all 977 are equal" in said(updates, "compare_view")
    data = data_of(updates)
    assert [group["figures"] for group in data["components"][:3]] == [{"l0": 0.0}] * 3
    assert data["at_lower_precision"] is True
    assert "identical under half precision" in said(pair(actions, PLAIN, BLOATED, ["l0"]), "compare_view")


def test_what_is_loaded_counts_with_its_changes(actions):
    key, _ = loaded(actions, WRONG)
    assert "Same UNet" in said(pair(actions, LOADED, PLAIN, key=key), "compare_view")
    pointed = Pointed("SD-v1-Demo", "VAE-v1-Demo", "auto", PLAIN, "auto", "", "safetensors")
    settled(actions, actions.editing.bring_in(key, pointed, Controls()))
    updates = pair(actions, LOADED, PLAIN, key=key)
    view = said(updates, "compare_view")
    assert "sd-demo-wrong-vae.safetensors, as changed in memory" in view
    assert "A and B hold the same values: all 977 tensors are equal." in view
    assert "A and B are both" not in said(pair(actions, LOADED, WRONG, key=key)), "the file is not what is in memory"


def test_a_set_with_a_folder_finds_the_merge(actions, models):
    a, b = load_file(models / PLAIN), load_file(models / WRONG)
    mixed = {
        name: (0.25 * a[name].astype("<f8") + 0.75 * b[name].astype("<f8")).astype("<f4")
        for name in a
        if name.startswith(PREFIX)
    }
    folder = models / "VAE" / "set"
    folder.mkdir()
    for name, vae in (("one", a), ("two", b)):
        save_file({key: vae[key] for key in mixed}, folder / f"{name}.safetensors")
    save_file(mixed, folder / "mix.safetensors")
    choices = actions.refresh(None)[1]["compare_set"]["choices"]
    assert "VAE/set/ (3 models)" in choices and "VAE/ (4 models)" in choices
    updates = several(actions, ["VAE/set/ (3 models)"], ["l2", "cossim"])
    assert said(updates) == "Compared 3 models, each with each; no model was changed."
    view = said(updates, "compare_view")
    assert "mix.safetensors is a merge: 0.25 × one.safetensors + 0.75 × two.safetensors in the VAE" in view
    assert "<svg" in updates["compare_view"]["value"]
    archive = zipfile.ZipFile(io.BytesIO(Path(updates["compare_more"]["value"]).read_bytes()))
    assert {"total-l2.csv", "vae-l2.csv"} <= set(archive.namelist())
    assert not any("l1" in name or "cossim" in name for name in archive.namelist())
    rows = [line.split(",") for line in archive.read("vae-l2.csv").decode().splitlines()]
    distance = np.sqrt(sum(np.sum((a[name].astype("<f8") - b[name].astype("<f8")) ** 2) for name in mixed))
    places = {row[0].strip('"'): index for index, row in enumerate(rows)}
    assert float(rows[places["one.safetensors"]][places["two.safetensors"]]) == pytest.approx(distance, rel=1e-6)


def test_a_broken_file_of_a_set_is_told_and_the_rest_goes_on(actions, models):
    (models / "VAE" / "broken.safetensors").write_bytes(b"\xff" * 64)
    updates = several(actions, [PLAIN, WRONG, "VAE/broken.safetensors"])
    assert "Compared 2 models" in said(updates)
    assert "broken.safetensors was left out" in said(updates, "compare_view")


@pytest.mark.parametrize(
    ("a", "b", "metrics", "sentence"),
    [
        (None, PLAIN, ALL, "A is not chosen yet; choose a model as A."),
        (PLAIN, ["x"], ALL, "B is not chosen yet; choose a model as B."),
        (LOADED, PLAIN, ALL, "Nothing is loaded above; choose a model as A, or load one first."),
        (PLAIN, PLAIN, ALL, "A and B are both sd-demo.safetensors; choose two models."),
        (PLAIN, "../../etc/passwd", ALL, "refresh"),
        (PLAIN, WRONG, [], "No figure is ticked"),
        (PLAIN, WRONG, None, "No figure is ticked"),
        (PLAIN, WRONG, ["l3", 7, {}], "tick one of l0, l1, l2, cossim, cosine"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(actions, a, b, metrics, sentence):
    updates = pair(actions, a, b, metrics)
    assert sentence.lower() in said(updates).lower()
    assert "compare_view" not in updates


@pytest.mark.parametrize(
    ("chosen", "metrics", "sentence"),
    [
        ([], ALL, "A set needs two models or more"),
        (None, ALL, "A set needs two models or more"),
        ("VAE/ (9 models)", ALL, "A set needs two models or more"),
        ([PLAIN, PLAIN, 5], ALL, "A set needs two models or more"),
        (["gone/ (3 models)"], ALL, "There are no models in gone any more; refresh the list."),
        ([PLAIN, WRONG], ["cossim"], "tick one of l0, l1, l2, cosine"),
        ([PLAIN, "nowhere.safetensors"], ALL, "nowhere.safetensors"),
    ],
)
def test_what_is_no_set_is_refused_in_a_sentence(actions, chosen, metrics, sentence):
    updates = several(actions, chosen, metrics)
    assert sentence in said(updates)
    assert "compare_view" not in updates


def test_a_new_model_without_tensors_and_a_file_that_went(actions, models):
    key, _ = loaded(actions, "NEW SD-v1-Demo")
    assert "holds no tensors that could be compared" in said(pair(actions, LOADED, PLAIN, key=key))
    key, _ = loaded(actions, WRONG)
    os.utime(models / WRONG, ns=(1, 1))
    assert "was changed since it was loaded" in said(pair(actions, LOADED, PLAIN, key=key))


@pytest.mark.parametrize(("compared", "size"), [("pair", "15.0 MB"), ("third", "22.5 MB"), ("set", "15.0 MB")])
def test_cancel_leaves_nothing_behind(actions, models, mix, monkeypatch, compared, size):
    kept, usual = Handouts(), SourceFile.read_at
    monkeypatch.setattr(compare_work, "HANDED_OUT", kept)
    reads = []

    def read_at(self, offset, out):
        reads.append(offset)
        usual(self, offset, out)

    def reading(self, offset, out):
        read_at(self, offset, out)
        if len(reads) > 200:
            time.sleep(0.05)

    monkeypatch.setattr(SourceFile, "read_at", reading)
    before = files(models)
    if compared == "set":
        key, updates = actions.comparing.several(None, [PLAIN, WRONG], ALL)
    else:
        third = MIX if compared == "third" else NO_THIRD
        key, updates = actions.comparing.pair(None, PLAIN, WRONG, ALL, False, third)
    assert "data-model-toolkit-step" in updates["progress"]["value"]
    deadline = time.monotonic() + 20
    while f" of {size}" not in said(updates, "progress") and time.monotonic() < deadline:
        time.sleep(0.05)
        _, updates = actions.poll(key)
    assert f" of {size}" in said(updates, "progress")
    _, other = actions.comparing.pair(key, PLAIN, WRONG, ALL)
    assert "still being compared; wait until it is done, or cancel it" in said(other)
    _, updates = settled(actions, actions.cancel(key))
    assert said(updates) == "Cancelled; nothing was left behind."
    assert kept._folder is None
    assert files(models) == before


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_names_of_files_and_tensors_are_only_text(actions, models):
    for number in range(3):
        path = models / "VAE" / f"{ACTS.replace('/', '')}{number}.safetensors"
        table = {ACTS: ("F16", (2, 2), bytes([number, 60] * 4)), "x.y": ("F16", (2, 2), bytes(8))}
        path.write_bytes(safetensors_bytes(table, {ACTS: ACTS}))
    labels = [label for label in actions.refresh(None)[1]["compare_set"]["choices"] if "onerror" in label]
    assert len(labels) == 3
    shown = [pair(actions, *labels[:2]), pair(actions, *labels[:2], third=labels[2]), several(actions, labels)]
    for updates in shown:
        assert "no model was changed" in said(updates)
        page = Path(updates["compare_html"]["value"]).read_text("utf-8")
        for html in (updates["compare_view"]["value"], updates["status"]["value"], page):
            assert "<img" not in html
        assert "onerror" in updates["compare_view"]["value"] and "onerror" in page
    assert Path(shown[0]["compare_html"]["value"]).name == "comparison.html"
