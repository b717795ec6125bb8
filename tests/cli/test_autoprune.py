"""The command line of Autoprune."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lib_toolkit.autoprune import run as runs
from lib_toolkit.cli import autoprune as verb
from lib_toolkit.cli.main import main
from tests.autoprune import samples
from tests.autoprune.samples import assert_halved, library, save

ROOT = Path(__file__).parents[2]


@pytest.fixture
def lib(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "PAUSE", 0.01)
    return library(tmp_path / "models")


def _autoprune(lib, *options: str) -> int:
    return main(["autoprune", "--models-dir", str(lib.root), *options])


def test_text_of_a_run(lib, capsys):
    arrays = samples.lora()
    save(lib.drop / "sub" / "a.safetensors", arrays)
    (lib.drop / "sub" / "a.preview.png").write_text("picture")
    (lib.drop / "bad.ckpt").write_text("<html>")
    (lib.drop / "x.ckpt.part").write_text("")
    assert _autoprune(lib) == 0
    out, err = capsys.readouterr()
    assert "sub/a.safetensors → " in out
    assert "changed:  9 × F32 → F16" in out
    assert "along:    a.preview.png" in out
    assert "web page" in out
    assert out.splitlines()[-1].startswith("Files: 1 waiting, 1 moved to Failed, 1 pruned; ")
    assert err == ""
    assert_halved(lib.folder("lora") / "sub" / "a.safetensors", arrays)


def test_json_is_a_line_a_step_and_one_for_the_run(lib, capsys):
    save(lib.drop / "a.safetensors", samples.lora())
    assert _autoprune(lib, "--json", "--once") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("step", "run") for line in lines] == ["begun", "written", "run"]
    assert lines[1]["target"] == str(lib.folder("lora") / "a.safetensors")
    assert lines[1]["saved"] == lines[1]["size"] - lines[1]["target_size"] == lines[2]["saved"]
    assert lines[2]["counts"] == {"written": 1}


def test_a_dry_run_changes_nothing(lib, capsys):
    source = save(lib.drop / "a.safetensors", samples.lora())
    assert _autoprune(lib, "--dry-run") == 0
    out = capsys.readouterr().out
    assert str(lib.folder("lora") / "a.safetensors") in out
    assert "Files: 1 to prune; " in out and " would be saved." in out
    assert source.is_file()
    assert lib.files() == ["Autoprune/a.safetensors"]


def test_an_empty_folder(lib, capsys):
    assert _autoprune(lib) == 0
    assert capsys.readouterr().out == "Nothing lies in the drop folder.\n"


def test_settings_of_the_models_folder_and_options_that_replace_them(lib):
    (lib.root / ".model-toolkit.json").write_text(json.dumps({"sources": "keep", "vae_format": "safetensors"}))
    save(lib.drop / "kl.safetensors", samples.part("vae"))
    save(lib.drop / "a.safetensors", samples.lora())
    assert _autoprune(lib) == 0
    assert lib.files("VAE", "Lora") == ["Lora/a.safetensors", "VAE/kl.safetensors"]
    assert lib.files("Autoprune") == ["Autoprune/a.safetensors", "Autoprune/kl.safetensors"]
    save(lib.drop / "b.safetensors", samples.lora(seed=1))
    assert _autoprune(lib, "--sources", "delete", "--precision", "keep") == 0
    assert "Autoprune/b.safetensors" not in lib.files()
    assert (lib.folder("lora") / "b.safetensors").stat().st_size > 30_000


def test_what_the_disk_refuses_is_no_success(lib, monkeypatch, capsys):
    import shutil

    save(lib.drop / "a.safetensors", samples.lora())
    usage = shutil.disk_usage(lib.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    assert _autoprune(lib) == 2
    assert "make room" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "--models-dir"),
        (["--models-dir", "/nowhere/at/all"], "does not exist"),
        (["--models-dir", ".", "--watch", "-1"], "seconds"),
        (["--models-dir", ".", "--watch", "1.9"], "choose 2 to"),
        (["--models-dir", ".", "--watch", "5", "--dry-run"], "--watch"),
        (["--models-dir", ".", "--watch", "5", "--once"], "not allowed"),
        (["--models-dir", ".", "--sources", "burn"], "burn"),
    ],
)
def test_wrong_use_is_one_sentence(options, words, capsys):
    assert main(["autoprune", *options]) == 2
    out, err = capsys.readouterr()
    assert (out, words in err, err.count("\n")) == ("", True, 1)


def test_a_child_without_a_policy_says_so(lib):
    for text in ("", "\n", "{}\n"):
        command = [sys.executable, "-m", "lib_toolkit", "autoprune", "--child"]
        done = subprocess.run(command, input=text, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_another_run_on_the_folder(lib, capsys):
    from lib_toolkit.autoprune.lock import FolderLock

    with FolderLock(lib.drop):
        assert _autoprune(lib) == 0
    assert "Another run works" in capsys.readouterr().out


def test_what_was_set_aside_is_told_once_while_watching(lib, capsys, monkeypatch):
    """Ctrl+C ends it with 130."""
    from lib_toolkit.autoprune import looking

    looks = 0
    original = looking.look

    def counted(drop):
        nonlocal looks
        looks += 1
        if looks > 8:
            raise KeyboardInterrupt
        return original(drop)

    monkeypatch.setattr(runs, "look", counted)
    monkeypatch.setattr(verb, "SHORTEST", 0)
    (lib.drop / "x.ckpt.part").write_text("")
    assert _autoprune(lib, "--watch", "0.01") == 130
    assert capsys.readouterr().out.count("x.ckpt.part") == 1
