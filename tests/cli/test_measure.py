"""The verbs metric and name as a user runs them."""

from __future__ import annotations

import json

import pytest

from lib_toolkit.cli.main import main
from tests.analysis.samples import demo, half, part, save
from tests.analysis.test_metric import demo_metric

VAE = "first_stage_model."


@pytest.fixture(autouse=True)
def own_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("MODEL_TOOLKIT_CONFIG", str(tmp_path / "settings"))


def run(capsys, *arguments) -> tuple[int, str, str]:
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_metric(tmp_path, capsys):
    arrays = demo()
    unet, vae, clip = demo_metric()
    path = save(tmp_path / "m.safetensors", arrays)
    status, out, err = run(capsys, "metric", path, "--json")
    assert (status, err) == (0, "")
    text = f"{unet:04d}/{vae:04d}/{clip:04d}"
    assert json.loads(out) == {"schema": 1, "metric": text, "unet": unet, "vae": vae, "clip": clip, "known": []}
    assert run(capsys, "metric", path)[1] == f"({text})\n"


def test_metric_of_a_part(tmp_path, capsys):
    path = save(tmp_path / "v.safetensors", part(demo(), VAE))
    found = json.loads(run(capsys, "metric", path, "--json")[1])
    assert (found["unet"], found["clip"]) == (None, None)
    assert found["metric"] == f"----/{found['vae']:04d}/----"


def test_metric_does_not_import_torch(tmp_path):
    import subprocess
    import sys

    path = save(tmp_path / "v.safetensors", part(demo(), VAE))
    code = f"import sys; from lib_toolkit.cli.main import main; main(['metric', {str(path)!r}])"
    code += "; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_name_is_kept_for_every_copy(tmp_path, capsys):
    arrays = demo()
    path = save(tmp_path / "m.safetensors", arrays)
    status, out, err = run(capsys, "name", path, "vae-v1-demo", "My VAE", "--json")
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert (told["class"], told["name"]) == ("VAE-v1-Demo", "My VAE")
    kept = json.loads((tmp_path / "settings" / "fingerprints.json").read_text("utf-8"))
    assert kept["names"] == {told["fingerprint"]: "My VAE"}
    other = save(tmp_path / "v.safetensors", half(part(arrays, VAE)))
    _, out, _ = run(capsys, "name", other, "VAE-v1-Demo", "Renamed")
    assert out == f"{told['fingerprint']}, the VAE-v1-Demo of v.safetensors, is now called Renamed.\n"


@pytest.mark.parametrize(
    ("cls", "name", "words"),
    [
        ("VAE-v9", "x", ["VAE-v9", "VAE-v1-Demo", "UNET-XL"]),
        ("CLIP-v1-Demo", "x", ["m.safetensors", "no CLIP-v1-Demo", "VAE-v1-Demo"]),
        ("UNET-v1-Demo", "x", ["UNET-v1-Demo", "incomplete", "misshapen: 1"]),
        ("VAE-v1-Demo", " ", ["printable"]),
    ],
)
def test_what_cannot_be_named(tmp_path, capsys, cls, name, words):
    arrays = {k: a for k, a in demo().items() if not k.startswith("cond_stage")}
    del arrays["model.diffusion_model.out.2.bias"]
    status, out, err = run(capsys, "name", save(tmp_path / "m.safetensors", arrays), cls, name)
    assert (status, out) == (2, "") and len(err.splitlines()) == 1
    assert all(word in err for word in words), err
    assert not (tmp_path / "settings").exists()


def test_bad_file(tmp_path, capsys):
    (tmp_path / "m.safetensors").write_bytes(b"hello")
    status, out, err = run(capsys, "metric", tmp_path / "m.safetensors")
    assert (status, out) == (2, "") and len(err.splitlines()) == 1
