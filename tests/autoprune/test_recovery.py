"""What a killed run left is ended, by whichever path the folders are reached, and on whichever disk they lie."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from lib_toolkit.autoprune import journal, moving, run_once
from lib_toolkit.errors import CancelledError
from lib_toolkit.progress import Progress
from tests.autoprune import samples
from tests.autoprune.samples import Killed, Library, kill_at, library, save

needs_links = pytest.mark.skipif(os.name == "nt", reason="links need rights there")


@pytest.fixture
def lib(tmp_path):
    return library(tmp_path / "models")


def _overflowing() -> dict[str, np.ndarray]:
    """One tensor keeps its type, which is seen only when it is written."""
    arrays = samples.lora()
    key = next(key for key in arrays if "lora_up" in key)
    return {**arrays, key: np.full_like(arrays[key], 1e6)}


@needs_links
@pytest.mark.parametrize("sources", ["done", "delete"])
@pytest.mark.parametrize("linked", ["Lora", "Lora/sub"])
def test_a_result_in_a_linked_folder_is_not_taken_for_another_model(lib, tmp_path, linked, sources):
    (tmp_path / "big").mkdir()
    (lib.root / linked).parent.mkdir(exist_ok=True)
    (lib.root / linked).symlink_to(tmp_path / "big")
    save(lib.drop / "sub" / "a.safetensors", _overflowing())
    (lib.drop / "sub" / "a.png").write_text("picture")
    kill_at("follow", lib, sources=sources)
    (step,) = lib.run(sources=sources).steps
    assert (step.outcome, step.recovered) == ("written", True)
    assert sorted(path.name for path in (lib.folder("lora") / "sub").iterdir()) == ["a.png", "a.safetensors"]
    assert lib.files("Autoprune") == (["Autoprune/Done/sub/a.safetensors"] if sources == "done" else [])
    result = (lib.folder("lora") / "sub" / "a.safetensors").read_bytes()
    assert step.target_hashes["sha256"] == hashlib.sha256(result).hexdigest()


def test_a_result_that_went_after_the_kill_is_written_under_its_name_again(lib):
    """What is written now is not taken for what an earlier run had put in place."""
    save(lib.drop / "a.safetensors", _overflowing())
    kill_at("follow", lib)
    (lib.folder("lora") / "a.safetensors").unlink()
    (step,) = lib.run(sources="delete").steps
    assert (step.outcome, step.recovered) == ("written", False)
    assert lib.files() == ["Lora/a.safetensors"]


@needs_links
@pytest.mark.parametrize("dtype", ["<f2", "<f4"])
@pytest.mark.parametrize("direct", [False, True])
def test_a_run_by_another_path_to_the_same_folders_ends_what_was_begun(tmp_path, dtype, direct):
    """The WebUI goes through a link to the models, the command line does not, or the other way round."""
    real = library(tmp_path / "disk" / "models")
    (tmp_path / "models").symlink_to(real.root)
    linked = Library(tmp_path / "models")
    first, second = (real, linked) if direct else (linked, real)
    save(real.drop / "sub" / "a.safetensors", samples.lora(dtype=dtype))
    (real.drop / "sub" / "a.png").write_text("picture")
    kill_at("follow", first)
    stray = real.folder("lora") / "sub" / ".model-toolkit-00c0ffee-123-0123abcd.part"
    stray.write_bytes(b"x")
    os.utime(stray, (1e9, 1e9))
    (step,) = second.run().steps
    assert (step.outcome, step.recovered) == ("moved" if dtype == "<f2" else "written", True)
    assert step.target == str(second.folder("lora") / "sub" / "a.safetensors")
    done = ["Autoprune/Done/sub/a.safetensors"] if dtype == "<f4" else []
    assert real.files() == [*done, "Lora/sub/a.png", "Lora/sub/a.safetensors"]
    assert real.temporary() == []
    assert journal.unfinished(real.drop) == {}


@needs_links
def test_a_source_behind_a_link_is_no_source(lib, tmp_path):
    """What the journal says is done only in the drop folder itself."""
    outside = save(tmp_path / "outside" / "a.safetensors", samples.lora(dtype="<f2"))
    (lib.drop / "sub").symlink_to(outside.parent)
    save(lib.folder("lora") / "a.safetensors", samples.lora(dtype="<f2"))
    step = {"file": "sub/a.safetensors", "size": outside.stat().st_size}
    line = {"line": "intent", "file": "sub/a.safetensors", "action": "moved", "sidecars": [], "step": step}
    line |= {"target": str(lib.folder("lora") / "a.safetensors"), "modified": outside.stat().st_mtime_ns}
    (lib.drop / "journal.jsonl").write_text(json.dumps(line) + "\n")
    save(lib.drop / "b.safetensors", samples.lora(seed=2))
    assert lib.run().counts["written"] == 1
    assert outside.is_file()


@pytest.fixture
def other_disk(lib, monkeypatch):
    """Done and Failed lie on another disk than the drop folder: neither a link nor a rename leads there."""
    (lib.drop / "Done").mkdir()
    (lib.drop / "Failed").mkdir()
    usual = moving.rename_new

    def elsewhere(source, final):
        if {"Done", "Failed"}.isdisjoint(source.parts) != {"Done", "Failed"}.isdisjoint(final.parts):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        usual(source, final)

    monkeypatch.setattr(moving, "rename_new", elsewhere)


def _fill(lib, kind: str) -> None:
    path = save(lib.drop / "sub" / "a.safetensors", samples.lora())
    if kind == "failing":
        path.write_bytes(b"<html>")
    if kind == "duplicate":
        save(lib.folder("lora") / "there.safetensors", samples.lora(dtype="<f2"))
    (lib.drop / "sub" / "a.png").write_text("picture")


WANTED = {
    "pruned": ["Autoprune/Done/sub/a.safetensors", "Lora/sub/a.png", "Lora/sub/a.safetensors"],
    "failing": [
        "Autoprune/Failed/sub/a.png",
        "Autoprune/Failed/sub/a.safetensors",
        "Autoprune/Failed/sub/a.safetensors.why.txt",
    ],
    "duplicate": ["Autoprune/Done/sub/a.png", "Autoprune/Done/sub/a.safetensors", "Lora/there.safetensors"],
}


def _kill_between_copy_and_removal(lib, **changes) -> None:
    usual = moving.copy_new

    def copied(*given):
        usual(*given)
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moving, "copy_new", copied)
        with pytest.raises(Killed):
            lib.run(**changes)
    assert (lib.drop / "sub" / "a.safetensors").is_file()


@pytest.mark.usefixtures("other_disk")
@pytest.mark.parametrize("kind", WANTED)
def test_a_source_that_was_copied_to_another_disk_is_not_copied_again(lib, kind):
    _fill(lib, kind)
    _kill_between_copy_and_removal(lib)
    if kind == "failing":
        assert not (lib.drop / "Failed" / "sub" / "a.safetensors.why.txt").exists()
    (step,) = lib.run().steps
    outcome = {"pruned": "written", "failing": "failed"}.get(kind, kind)
    assert (step.outcome, step.recovered) == (outcome, True)
    assert lib.files() == WANTED[kind]
    moved = lib.drop / ("Failed" if kind == "failing" else "Done") / "sub" / "a.safetensors"
    assert step.hashes["sha256"] == hashlib.sha256(moved.read_bytes()).hexdigest()
    assert journal.unfinished(lib.drop) == {}


def _once(step):
    """Does the step the first time that something has been read whole."""
    left = [step]

    def told(status):
        if status.total and status.done == status.total and left:
            left.pop()()

    return Progress(told)


def _replace(path: Path, data: bytes) -> None:
    new = path.with_name("new.tmp")
    new.write_bytes(data)
    new.replace(path)


@pytest.mark.usefixtures("other_disk")
@pytest.mark.parametrize("kind", WANTED)
def test_a_source_that_is_replaced_while_it_is_compared_with_its_copy_stays(lib, kind):
    _fill(lib, kind)
    source, new = lib.drop / "sub" / "a.safetensors", b"another download"
    _kill_between_copy_and_removal(lib)
    run_once(lib.policy(), _once(lambda: _replace(source, new)), pause=0.01)
    assert new in [path.read_bytes() for path in lib.drop.rglob("a*.safetensors")]


def test_a_file_that_is_replaced_while_it_moves_to_another_disk_stays(tmp_path, monkeypatch):
    source, final, new = tmp_path / "a", tmp_path / "elsewhere", b"another download"
    source.write_bytes(b"download")

    def elsewhere(source, final):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(moving, "rename_new", elsewhere)
    with pytest.raises(moving.ReplacedError):
        moving.move_new(source, final, _once(lambda: _replace(source, new)))
    assert (source.read_bytes(), final.read_bytes()) == (new, b"download")


def test_a_place_that_cannot_be_asked_for_is_not_taken_for_empty(lib, monkeypatch):
    save(lib.drop / "a.safetensors", samples.lora(dtype="<f2"))
    (lib.drop / "a.png").write_text("picture")
    kill_at("follow", lib)
    usual = os.stat

    def away(path, *given, **named):
        if str(path).endswith("Lora/a.safetensors"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return usual(path, *given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "stat", away)
        step = next(step for step in lib.run().steps if step.file == "a.safetensors")
    assert (step.outcome, lib.files("Lora")) == ("postponed", ["Lora/a.safetensors"])
    step = next(step for step in lib.run().steps if step.file == "a.safetensors")
    assert (step.outcome, step.recovered) == ("moved", True)
    assert lib.files() == ["Lora/a.png", "Lora/a.safetensors"]


@pytest.mark.usefixtures("other_disk")
@pytest.mark.parametrize("kind", ["pruned", "duplicate"])
def test_a_source_that_is_to_be_kept_now_stays_beside_its_copy(lib, kind):
    _fill(lib, kind)
    _kill_between_copy_and_removal(lib)
    lib.run(sources="keep")
    assert (lib.drop / "sub" / "a.safetensors").is_file()


@pytest.mark.usefixtures("other_disk")
def test_a_source_without_its_whole_copy_or_its_result_stays(lib):
    """Half a copy, or a result that went meanwhile: the work is done again from the beginning."""
    _fill(lib, "pruned")
    _kill_between_copy_and_removal(lib)
    copy = lib.drop / "Done" / "sub" / "a.safetensors"
    copy.write_bytes(copy.read_bytes()[:-1] + b"\xff")
    lib.run()
    assert lib.files("Autoprune") == ["Autoprune/Done/sub/a(1).safetensors", "Autoprune/Done/sub/a.safetensors"]
    copy.unlink()
    _fill(lib, "pruned")
    (lib.folder("lora") / "sub" / "a.safetensors").unlink()
    (lib.folder("lora") / "sub" / "a.png").unlink()
    _kill_between_copy_and_removal(lib)
    (lib.folder("lora") / "sub" / "a.safetensors").unlink()
    lib.run()
    assert "Lora/sub/a.safetensors" in lib.files()


@pytest.mark.usefixtures("other_disk")
def test_comparing_a_source_with_its_copy_can_be_stopped(lib):
    _fill(lib, "pruned")
    _kill_between_copy_and_removal(lib)
    stop: list[str] = []

    def told(status):
        if status.phase.startswith("comparing"):
            stop.append(status.phase)

    with pytest.raises(CancelledError):
        run_once(lib.policy(), Progress(told, lambda: bool(stop)), pause=0.01)
    assert stop == ["comparing a.safetensors with its copy"]
    assert (lib.drop / "sub" / "a.safetensors").is_file()
    assert lib.run().counts == {"written": 1}
