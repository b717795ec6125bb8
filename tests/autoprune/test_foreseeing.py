"""A preview says what a run then does, also of what a folder would refuse; and changes nothing."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from lib_toolkit.autoprune import run_once, telling
from lib_toolkit.autoprune.refusals import stands_in_the_way
from tests.autoprune import samples
from tests.autoprune.samples import HAS_RIGHTS, library, save


@pytest.fixture
def lib(tmp_path):
    return library(tmp_path / "models")


def _both(lib, **changes):
    """The steps of a preview and those of the run that follows it, by file."""
    before = sorted((path, path.lstat().st_mtime_ns) for path in lib.root.rglob("*"))
    dry = run_once(lib.policy(**changes), pause=0.01, dry=True)
    assert sorted((path, path.lstat().st_mtime_ns) for path in lib.root.rglob("*")) == before
    assert "looked at" not in telling.summary(dry), "there are words for all that is foreseen"
    real = lib.run(**changes)
    return {step.file: step for step in dry.steps}, {step.file: step for step in real.steps}


def _assert_agree(dry, real):
    assert {name: step.foreseen for name, step in dry.items()} == {name: step.outcome for name, step in real.items()}
    for name, step in dry.items():
        wanted = real[name]
        assert (step.target, step.target_size, step.saved) == (wanted.target, wanted.target_size, wanted.saved), name


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="they are one file there")
def test_names_that_differ_in_case_alone_get_numbers(lib):
    save(lib.drop / "Big.safetensors", samples.lora(1))
    save(lib.drop / "big.safetensors", samples.lora(2))
    save(lib.drop / "sub" / "BIG.ckpt", samples.lora(3))
    dry, real = _both(lib)
    _assert_agree(dry, real)
    assert {step.target.removeprefix(str(lib.root)) for step in dry.values()} == {
        "/Lora/Big.safetensors", "/Lora/big(1).safetensors", "/Lora/sub/BIG.safetensors",
    }  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_in_the_target_folder_to_the_file_itself(lib):
    source = save(lib.drop / "a.safetensors", samples.lora(dtype="<f2"))
    lib.folder("lora").mkdir()
    (lib.folder("lora") / "x.safetensors").symlink_to(source)
    dry, real = _both(lib)
    _assert_agree(dry, real)
    assert dry["a.safetensors"].foreseen == "left"
    assert real["a.safetensors"].reason in dry["a.safetensors"].reason


@pytest.mark.skipif(HAS_RIGHTS, reason="the superuser may write everywhere")
@pytest.mark.parametrize("dtype", ["<f4", "<f2"])
@pytest.mark.parametrize("sub", ["", "sub/"])
def test_a_folder_that_takes_no_files(lib, dtype, sub):
    save(lib.drop / f"{sub}a.safetensors", samples.lora(dtype=dtype))
    lib.folder("lora").mkdir()
    lib.folder("lora").chmod(0o500)
    dry, real = _both(lib)
    _assert_agree(dry, real)
    assert dry[f"{sub}a.safetensors"].foreseen == "postponed"
    assert "give the folder the rights" in dry[f"{sub}a.safetensors"].reason


def _refuse(monkeypatch, folder):
    """``folder`` takes no files, whoever asks."""
    usual = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder and usual(path, mode))


@pytest.mark.parametrize("made", [False, True])
def test_a_folder_without_rights_is_seen(lib, monkeypatch, made):
    save(lib.drop / "sub" / "a.safetensors", samples.lora())
    save(lib.drop / "e.safetensors", samples.embedding())
    if made:
        lib.folder("lora").mkdir()
    _refuse(monkeypatch, lib.folder("lora") if made else lib.root)
    dry = {step.file: step for step in run_once(lib.policy(), pause=0.01, dry=True).steps}
    step = dry["sub/a.safetensors"]
    assert (step.outcome, step.foreseen, step.target, step.saved) == ("planned", "postponed", "", 0)
    assert "takes no files" in step.reason and "give the folder the rights" in step.reason
    assert dry["e.safetensors"].foreseen == ("written" if made else "postponed")


@pytest.mark.parametrize("sources", ["done", "keep", "delete"])
def test_room_is_counted_for_all_files_together(lib, monkeypatch, sources):
    """A file that is moved takes none, and a source that is deleted gives some back."""
    for seed in range(6):
        save(lib.drop / f"{seed}.safetensors", samples.lora(seed, "<f2" if seed % 3 == 0 else "<f4"))
    usual = shutil.disk_usage
    whole = 16 << 20
    total = sum(path.stat().st_size for path in lib.drop.iterdir()) + whole + 90_000

    def usage(path):
        used = sum(file.stat().st_size for file in lib.root.rglob("*.safetensors"))
        return usual(path)._replace(free=total - used)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    dry, real = _both(lib, sources=sources, workers=1)  # several at a time have their sources beside them
    foreseen = [step.foreseen for step in dry.values()]
    if sources == "keep":  # a copy looks at no room before it is made
        assert foreseen == ["moved", "written", "postponed", "postponed", "postponed", "postponed"]
        return
    _assert_agree(dry, real)
    assert foreseen.count("postponed") == {"done": 2, "delete": 0}[sources]
    assert foreseen.count("moved") == 2


@pytest.mark.parametrize("how", ["file", "link"])
def test_what_stands_in_the_way_of_a_folder(lib, how):
    save(lib.drop / "a.safetensors", samples.lora())
    if how == "file":
        lib.folder("lora").write_text("x")
    else:
        lib.folder("lora").symlink_to("nowhere")
    dry, real = _both(lib)
    _assert_agree(dry, real)
    assert real["a.safetensors"].reason in dry["a.safetensors"].reason


def test_a_disk_that_is_away_is_not_called_a_file(monkeypatch):
    """On Windows a drive may lack all of a path."""
    monkeypatch.setattr(os.path, "lexists", lambda path: False)
    assert stands_in_the_way(Path("Z:/models/Lora")) == ""


def test_a_tensor_that_keeps_its_type_is_all_that_makes_a_size_differ(lib):
    arrays = samples.lora()
    key = next(key for key in arrays if "lora_up" in key)
    arrays[key] = np.full_like(arrays[key], 1e6)
    save(lib.drop / "a.safetensors", arrays)
    dry, real = (steps["a.safetensors"] for steps in _both(lib))
    assert (dry.foreseen, dry.target) == (real.outcome, real.target)
    assert 0 < real.target_size - dry.target_size <= arrays[key].nbytes
