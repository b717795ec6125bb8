"""The verb matrix: its files, what it prints, and wrong use."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lib_toolkit.analysis.matrix.state import NAME
from lib_toolkit.cli.main import main
from tests.analysis.samples import demo, half, save

UNET = "model.diffusion_model."


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A, B and their mixture, at FP16: UNets with a VAE that is the same in all."""
    folder = tmp_path_factory.mktemp("models")
    whole = demo()
    keys = [key for key in whole if key.startswith((f"{UNET}middle", f"{UNET}out", "first_stage_model."))]
    rng = np.random.default_rng(0)
    a = {key: whole[key] for key in keys}
    b = {k: v + (rng.standard_normal(v.shape) * 0.02).astype("<f4") if k.startswith(UNET) else v for k, v in a.items()}
    mix = {key: np.float32(0.6) * a[key] + np.float32(0.4) * b[key] for key in keys}
    for name, arrays in (("a", a), ("b", b), ("mix", {**mix, **{k: a[k] for k in keys if not k.startswith(UNET)}})):
        save(folder / f"{name}.safetensors", half(arrays))
    return folder


def run(capsys, *arguments) -> tuple[int, str, str]:
    status = main(["matrix", *map(str, arguments)])
    told = capsys.readouterr()
    return status, told.out, told.err


def test_a_folder_becomes_results_and_sentences(models, tmp_path, capsys):
    out, compat = tmp_path / "new" / "set", tmp_path / "dm.json"
    status, said, errors = run(capsys, models, "--out", out, "--no-pictures", "--compat-json", compat)
    assert status == 0, errors
    assert "3 models compared, each with each: 3 pairs." in said
    assert "VAE: the same in all 3 models that have one." in said
    table = json.loads((out / "matrix.json").read_text("utf-8"))
    assert [model["name"] for model in table["models"]] == ["a.safetensors", "b.safetensors", "mix.safetensors"]
    # Few tensors of a UNet make no known one, but their names say what they are.
    assert set(table["components"]) == {"unet", "vae"} and {"BASE", "M00", "OUT11"} <= table["blocks"].keys()
    assert {(one["model"], one["component"]) for one in table["merges"]} == {("mix.safetensors", "unet")}
    names = {path.name for path in out.iterdir()}
    assert {"matrix.json", "matrix.html", "total-l2.csv", "vae-cosine.csv"} <= names
    assert NAME not in names and not any(name.endswith((".png", ".part")) for name in names)
    published = json.loads(compat.read_text("utf-8"))
    assert published["ml"] == ["a.safetensors", "b.safetensors", "mix.safetensors"]
    assert published["dm"]["unet"] == pytest.approx(np.array(table["components"]["unet"]["l2"]))
    assert published["dm"]["vae"] == np.zeros((3, 3)).tolist()
    assert set(published["dm"]) <= {"te", "te0", "te1", "vae", "unet", "other"}


def test_a_merge_is_said_in_a_sentence(tmp_path, capsys):
    whole = {key: a for key, a in demo().items() if key.startswith("first_stage_model.")}
    rng = np.random.default_rng(0)
    other = {key: a + (rng.standard_normal(a.shape) * 0.02).astype("<f4") for key, a in whole.items()}
    mix = {key: np.float32(0.6) * whole[key] + np.float32(0.4) * other[key] for key in whole}
    for name, arrays in (("anime", whole), ("photo", other), ("mixed", mix)):
        save(tmp_path / f"{name}.safetensors", half(arrays))
    status, said, _ = run(capsys, tmp_path, "--out", tmp_path / "out", "--no-pictures", "--json")
    (merge,) = json.loads(said)["merges"]
    assert status == 0
    assert merge["model"] == "mixed.safetensors" and merge["of"] == ["anime.safetensors", "photo.safetensors"]
    assert merge["ratio"] == pytest.approx(0.4, abs=1e-3) and merge["component"] == "vae"
    assert 0 < merge["residual"] <= merge["bound"]
    assert merge["sentence"].startswith("mixed.safetensors is a merge: 0.6 × anime.safetensors + 0.4 × photo")


def test_models_that_cannot_be_compared_are_named(tmp_path, capsys):
    vae = {key: a for key, a in demo().items() if key.startswith("first_stage_model.")}
    paths = [save(tmp_path / "vae.safetensors", vae), save(tmp_path / "odd.safetensors", {"w": np.ones(4, "<f4")})]
    status, said, _ = run(capsys, *paths, "--out", tmp_path / "out", "--no-pictures")
    assert status == 0
    assert "vae.safetensors cannot be compared with odd.safetensors" in said and "no two of them" in said


def test_results_are_not_replaced_unless_it_is_asked_for(models, tmp_path, capsys):
    (tmp_path / "matrix.json").write_text("mine")
    status, _, errors = run(capsys, models, "--out", tmp_path, "--no-pictures")
    assert status == 2 and "exists already" in errors and (tmp_path / "matrix.json").read_text() == "mine"
    assert run(capsys, models, "--out", tmp_path, "--no-pictures", "--force", "--metrics", "l2")[0] == 0
    table = json.loads((tmp_path / "matrix.json").read_text("utf-8"))
    assert table["metrics"] == ["l2"] and not (tmp_path / "vae-l1.csv").exists()


def test_pictures_are_drawn_with_matplotlib_and_missed_without(models, tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    assert run(capsys, models, "--out", tmp_path / "a", "--compat-png")[0] == 0
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert {"vae-heatmap.png", "vae-map.png", "vae-dendrogram.png", "vae-graph.png", "a_vae_xy.png"} <= names
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, _, errors = run(capsys, models, "--out", tmp_path / "b")
    assert status == 0 and "No PNG is drawn" in errors
    status, _, errors = run(capsys, models, "--out", tmp_path / "c", "--compat-png")
    assert status == 2 and "matplotlib" in errors


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--metrics", "cossim"], "cossim is a figure of compare"),
        (["--metrics", "l3"], "'l3' is not a metric"),
        (["--workers", "0"], "1 at the least"),
        (["--metrics", "cosine", "--compat-json", "x.json"], "name one in --metrics"),
    ],
)
def test_wrong_use_is_one_sentence(models, tmp_path, capsys, arguments, sentence):
    status, said, errors = run(capsys, models, "--out", tmp_path / "out", *arguments)
    assert status == 2 and sentence in errors and errors.count("\n") == 1 and not said


def test_too_few_models_and_a_folder_that_cannot_be(models, tmp_path, capsys):
    status, _, errors = run(capsys, models / "a.safetensors", "--out", tmp_path / "out")
    assert status == 2 and "two models or more" in errors and not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    status, _, errors = run(capsys, models, "--out", tmp_path / "file")
    assert status == 2 and "is a file" in errors


def test_nothing_of_an_earlier_result_stays_beside_a_new_one(models, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    out = tmp_path / "out"
    assert run(capsys, models, "--out", out, "--compat-png", "--metrics", "l1,l2")[0] == 0
    mine = {
        name: f"mine {name}" for name in ("vae-notes.csv", "vae-cosine.csv", "other-l2.csv", "x_vae_xy.png", "a.txt")
    }
    for name, text in mine.items():
        (out / name).write_text(text)
    target = tmp_path / "elsewhere.png"
    target.write_text("not ours")
    (out / "vae-line.png").unlink()
    (out / "vae-line.png").symlink_to(target)
    unets = tmp_path / "unets"
    unets.mkdir()
    for number in range(2):
        whole = {key: a + np.float32(number) for key, a in demo().items() if key.startswith(f"{UNET}out")}
        save(unets / f"{number}.safetensors", whole)
    # A run that fails leaves everything as it was.
    before = {path.name for path in out.iterdir()}
    assert run(capsys, unets / "0.safetensors", "--out", out, "--force")[0] == 2
    assert {path.name for path in out.iterdir()} == before
    assert run(capsys, unets, "--out", out, "--no-pictures", "--metrics", "l2", "--force")[0] == 0
    written = {"matrix.json", "matrix.html", "total-l2.csv", "unet-l2.csv"}
    assert {path.name for path in out.iterdir()} == {*written, *mine, "vae-line.png"}
    assert all((out / name).read_text() == text for name, text in mine.items())
    assert target.read_text() == "not ours"


def test_files_beside_a_matrix_json_that_is_not_ours_stay(models, tmp_path, capsys):
    (tmp_path / "matrix.json").write_text(
        json.dumps({"components": {"te": {}}, "metrics": ["l2"], "tool": {"name": "x"}})
    )
    (tmp_path / "te-l2.csv").write_text("mine")
    assert run(capsys, models, "--out", tmp_path, "--no-pictures", "--force")[0] == 0
    assert (tmp_path / "te-l2.csv").read_text() == "mine"
