"""One file by two paths, two names of one file, two files: no source goes unless what it holds stays elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from lib_toolkit.autoprune import filing, journal, processing, run_once
from lib_toolkit.autoprune.identity import are_apart, have_two_names, is_link_to
from lib_toolkit.autoprune.looking import sight
from lib_toolkit.autoprune.moving import ReplacedError, is_copy, move_new, remove_source
from lib_toolkit.autoprune.sidecars import Sidecar
from lib_toolkit.errors import TargetError
from tests.autoprune import samples
from tests.autoprune.samples import arrays_of, kill_at, library, outcomes, save

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need rights there")


@pytest.fixture
def lib(tmp_path):
    return library(tmp_path / "models")


@pytest.fixture
def unnumbered(monkeypatch):
    """Every file has the number 0, as on some network shares and FUSE disks."""

    def without(original):
        def call(*given, **named):
            status = original(*given, **named)
            kind, (fields, more) = status.__reduce__()
            return kind((*fields[:1], 0, *fields[2:]), more)

        return call

    monkeypatch.setattr(Path, "stat", without(Path.stat))
    for name in ("stat", "lstat", "fstat"):
        monkeypatch.setattr(os, name, without(getattr(os, name)))


def _postponed(lib, monkeypatch) -> None:
    """A run that finds no room: what it was about to do stays in the journal."""

    def full(*given, **named):
        raise TargetError("There is no room.")

    with monkeypatch.context() as patch:
        patch.setattr(filing, "move_new", full)
        patch.setattr(processing, "write", full)
        assert set(lib.run().counts) == {"postponed"}
    assert journal.unfinished(lib.drop)


def test_a_link_to_a_source_is_not_its_copy(lib, monkeypatch):
    """A user cannot wait for the file, and links it from where it should have gone."""
    source = save(lib.drop / "a.safetensors", samples.lora(dtype="<f2"))
    (lib.drop / "a.png").write_text("picture")
    _postponed(lib, monkeypatch)
    (lib.folder("lora") / "a.safetensors").symlink_to(source)
    (lib.folder("lora") / "a.png").symlink_to(lib.drop / "a.png")
    for _ in range(2):
        (step,) = lib.run().steps
        assert step.outcome == "left"
        assert "is a link to it" in step.reason
    assert source.is_file()
    assert (lib.drop / "a.png").read_text() == "picture"


@pytest.mark.parametrize("sources", ["done", "delete"])
def test_a_link_to_a_source_is_not_its_result(lib, sources):
    """All of its tensors keep their type, so that the file itself holds what the result would."""
    arrays = {key: np.full_like(array, 1e6) for key, array in samples.lora().items()}
    source = save(lib.drop / "a.safetensors", arrays)
    kill_at("write", lib, sources=sources)
    (lib.folder("lora") / "a.safetensors").symlink_to(source)
    (step,) = lib.run(sources=sources).steps
    assert (step.outcome, source.is_file()) == ("left", True)
    assert lib.temporary() == []


@pytest.mark.parametrize("sources", ["done", "delete"])
def test_a_link_to_a_source_of_another_format_is_not_its_result(lib, sources):
    """It holds each tensor of the result, as no file of its own."""
    torch = pytest.importorskip("torch")
    source = lib.drop / "a.ckpt"
    torch.save({key: torch.from_numpy(array) for key, array in samples.lora(dtype="<f2").items()}, source)
    samples.age(source)
    kill_at("write", lib, sources=sources)
    (lib.folder("lora") / "a.safetensors").symlink_to(source)
    (step,) = lib.run(sources=sources).steps
    assert (step.outcome, source.is_file()) == ("left", True)


def test_a_copy_that_becomes_a_link_while_it_is_looked_at_takes_no_source_along(lib, monkeypatch):
    source = save(lib.drop / "a.safetensors", samples.lora(dtype="<f2"))
    _postponed(lib, monkeypatch)
    copy = lib.folder("lora") / "a.safetensors"
    usual = processing.is_copy

    def replaced(*given):
        copy.write_bytes(source.read_bytes())
        same = usual(*given)
        copy.unlink()
        copy.symlink_to(source)
        return same

    monkeypatch.setattr(processing, "is_copy", replaced)
    (step,) = lib.run().steps
    assert step.outcome == "postponed"
    assert "was not removed" in step.reason
    assert source.is_file()


@pytest.mark.parametrize("dtype", ["<f2", "<f4"])
@pytest.mark.parametrize("sources", ["done", "delete"])
def test_a_folder_that_is_linked_back_into_the_drop_folder_takes_nothing(lib, monkeypatch, dtype, sources):
    source = save(lib.drop / "sub" / "a.safetensors", samples.lora(dtype=dtype))
    (lib.drop / "sub" / "a.png").write_text("picture")
    before = source.read_bytes()
    _postponed(lib, monkeypatch)
    place = lib.folder("lora") / "sub"
    place.rmdir()
    place.symlink_to(lib.drop / "sub")
    (dry,) = run_once(lib.policy(sources=sources), pause=0.01, dry=True).steps
    assert dry.foreseen == "postponed"
    for _ in range(2):
        (step,) = lib.run(sources=sources).steps
        assert step.outcome == "postponed"
        assert "leads into the drop folder through a link" in step.reason
        assert dry.reason.endswith(step.reason)
    assert source.read_bytes() == before
    assert lib.files("Autoprune") == ["Autoprune/sub/a.png", "Autoprune/sub/a.safetensors"]
    place.unlink()
    assert set(lib.run(sources=sources).counts) <= {"written", "moved"}


def test_done_and_failed_that_are_linked_to_the_drop_folder_lose_nothing(lib):
    (lib.drop / "Done").symlink_to(lib.drop)
    (lib.drop / "Failed").symlink_to(lib.drop)
    save(lib.drop / "a.safetensors", samples.lora())
    (lib.drop / "bad.ckpt").write_text("<html>")
    steps = {step.file: step for step in lib.run().steps}
    assert steps["a.safetensors"].outcome == "written"
    assert any("stays where it is" in finding for finding in steps["a.safetensors"].findings)
    assert steps["bad.ckpt"].outcome == "postponed"
    assert lib.files("Lora") == ["Lora/a.safetensors"]
    assert {path.name for path in lib.drop.iterdir() if path.is_file()} >= {"a.safetensors", "bad.ckpt"}


@pytest.mark.usefixtures("unnumbered")
def test_a_killed_run_is_ended_on_a_disk_that_numbers_no_file(lib):
    save(lib.drop / "a.safetensors", samples.lora())
    kill_at("follow", lib)
    (step,) = lib.run().steps
    assert (step.outcome, step.source, step.recovered) == ("written", "Done/a.safetensors", True)
    assert lib.files() == ["Autoprune/Done/a.safetensors", "Lora/a.safetensors"]


@pytest.mark.usefixtures("unnumbered")
@pytest.mark.parametrize("dtype", ["<f2", "<f4"])
def test_another_model_under_the_wanted_name_takes_no_source_along(lib, monkeypatch, dtype):
    save(lib.drop / "a.safetensors", samples.lora(dtype=dtype))
    _postponed(lib, monkeypatch)
    save(lib.folder("lora") / "a.safetensors", samples.lora(seed=9, dtype="<f2"))
    assert set(outcomes(lib.run()).values()) <= {"written", "moved"}
    result = arrays_of(lib.folder("lora") / "a(1).safetensors")
    assert all(np.array_equal(result[key], array.astype("<f2")) for key, array in samples.lora(dtype=dtype).items())


@pytest.mark.usefixtures("unnumbered")
def test_a_shared_sidecar_stays_on_a_disk_that_numbers_no_file(tmp_path):
    for name in ("a.ckpt", "a.safetensors", "a.png"):
        (tmp_path / name).write_text(name)
    assert filing.is_shared(Sidecar(tmp_path / "a.png", ".png"), tmp_path / "a.ckpt")
    (tmp_path / "a.safetensors").unlink()
    assert not filing.is_shared(Sidecar(tmp_path / "a.png", ".png"), tmp_path / "a.ckpt")


def test_a_source_by_its_name_in_other_letters_shares_no_sidecar(tmp_path, monkeypatch):
    """Disks that do not tell case apart find it by both names, and list it by one."""
    for name in ("a.safetensors", "a.png"):
        (tmp_path / name).write_text(name)
    usual = Path.lstat
    monkeypatch.setattr(Path, "lstat", lambda self: usual(self.with_name(self.name.lower())))
    assert (tmp_path / "a.SAFETENSORS").lstat()
    assert not filing.is_shared(Sidecar(tmp_path / "a.png", ".png"), tmp_path / "a.safetensors")


def test_what_is_one_file_and_what_is_not(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "one")
    file = tmp_path / "one" / "a"
    file.write_text("x")
    same, link = tmp_path / "linked" / "a", tmp_path / "link"
    link.symlink_to(file)
    twin, copy, other = tmp_path / "twin", tmp_path / "copy", tmp_path / "other"
    os.link(file, twin)
    copy.write_text("x")
    other.write_text("y")
    linked_twin = tmp_path / "linked" / "twin"
    os.link(file, linked_twin)
    for path in (twin, linked_twin):
        assert (have_two_names(file, path), are_apart(file, path), is_copy(path, file)) == (True, False, True)
    for path in (file, same, link, tmp_path / "gone", tmp_path):
        assert (have_two_names(file, path), are_apart(file, path), is_copy(path, file)) == (False, False, False)
    assert (have_two_names(file, copy), are_apart(file, copy), is_copy(copy, file)) == (False, True, True)
    assert (have_two_names(file, other), are_apart(file, other), is_copy(other, file)) == (False, True, False)
    assert is_link_to(link, same)
    assert not is_link_to(link, copy)
    assert not is_link_to(file, file)


@pytest.mark.usefixtures("unnumbered")
def test_files_without_a_number_are_told_apart_by_their_real_paths(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "one")
    file, copy, same = tmp_path / "one" / "a", tmp_path / "a", tmp_path / "linked" / "a"
    file.write_text("x")
    copy.write_text("x")
    assert (are_apart(file, copy), have_two_names(file, copy)) == (True, False)
    assert (are_apart(file, same), have_two_names(file, same)) == (False, False)


def test_a_source_goes_only_beside_a_file_of_its_own(tmp_path):
    source, link = tmp_path / "a", tmp_path / "link"
    source.write_text("x")
    link.symlink_to(source)
    for path in (link, source, tmp_path / "gone"):
        with pytest.raises(TargetError, match="was not removed"):
            remove_source(source, path, sight(source))
    copy = tmp_path / "copy"
    copy.write_text("x")
    for mark in (None, sight(copy)):
        with pytest.raises(ReplacedError, match="left as it is now"):
            remove_source(source, copy, mark)
    remove_source(source, copy, sight(source))
    assert (source.exists(), copy.read_text()) == (False, "x")


def test_a_move_to_where_a_file_lies_already_removes_nothing(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "one")
    file = tmp_path / "one" / "a"
    file.write_text("x")
    for other in (file, tmp_path / "linked" / "a"):
        with pytest.raises(FileExistsError):
            move_new(file, other)
    twin = tmp_path / "twin"
    os.link(file, twin)
    move_new(file, twin)
    assert (file.exists(), twin.read_text()) == (False, "x")


@pytest.mark.usefixtures("unnumbered")
def test_a_half_ended_move_of_a_sidecar_between_disks_is_ended_without_numbers(lib):
    save(lib.drop / "a.safetensors", samples.lora())
    (lib.drop / "a.png").write_text("picture")
    kill_at("follow", lib)
    (lib.folder("lora") / "a.png").write_text("picture")
    lib.run()
    assert lib.files() == ["Autoprune/Done/a.safetensors", "Lora/a.png", "Lora/a.safetensors"]
