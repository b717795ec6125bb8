"""What cannot be used goes to Failed and says why; what the disk refuses stays; nothing is lost, nothing is run."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from lib_toolkit import temporary
from lib_toolkit.autoprune import filing, moving, run_once, waiting
from lib_toolkit.autoprune.duplicates import Known
from lib_toolkit.errors import TargetError, UsageError
from tests.autoprune import samples
from tests.autoprune.samples import HAS_RIGHTS, age, arrays_of, assert_halved, library, metadata_of, outcomes, save


@pytest.fixture
def lib(tmp_path):
    return library(tmp_path / "models")


class _Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def _broken() -> dict[str, np.ndarray]:
    """A checkpoint that lost its text encoder."""
    return {key: value for key, value in samples.checkpoint().items() if not key.startswith("cond_stage_model.")}


def test_a_bad_file_among_good_ones(lib, tmp_path):
    good = {f"{letter}.safetensors": samples.lora(seed) for seed, letter in enumerate("aez")}
    for name, arrays in good.items():
        save(lib.drop / name, arrays)
    whole = (lib.drop / "a.safetensors").read_bytes()
    marker = tmp_path / "was run"
    bad = {
        "cut.safetensors": whole[:-100],
        "empty.ckpt": b"",
        "html.safetensors": b"<!DOCTYPE html><html>log in</html>",
        "hostile.ckpt": pickle.dumps({"state_dict": _Payload(str(marker))}, 2),
        "hostile.pt": pickle.dumps(_Payload(str(marker))),
        "lfs.bin": b"version https://git-lfs.github.com/spec/v1\n",
        "noise.pth": os.urandom(5000),
        "unknown.safetensors": save(tmp_path / "u", {"what.is.this": np.ones((3, 4), "<f4")}).read_bytes(),
        "zeros.safetensors": bytes(100_000),
    }
    for name, data in bad.items():
        (lib.drop / name).write_bytes(data)
        age(lib.drop / name)
    save(lib.drop / "broken.safetensors", _broken())
    (lib.drop / "cut.preview.png").write_text("picture")
    steps = {step.file: step for step in lib.run().steps}
    assert not marker.exists()
    for name, arrays in good.items():
        assert steps[name].outcome == "written"
        assert_halved(lib.folder("lora") / name, arrays)
    for name, data in bad.items():
        assert steps[name].outcome == "failed", name
        assert (lib.drop / "Failed" / name).read_bytes() == data
        text = (lib.drop / "Failed" / f"{name}.why.txt").read_text("utf-8")
        assert steps[name].reason in text
        assert text.endswith("A sound copy of it may be put into the drop folder at any time.\n")
        assert steps[name].hashes["sha256"] == hashlib.sha256(data).hexdigest()
    assert "web page" in steps["html.safetensors"].reason
    assert "CLIP-v1-Demo" in steps["broken.safetensors"].reason
    assert "mkdir" in steps["hostile.ckpt"].reason
    assert (lib.drop / "Failed" / "cut.preview.png").exists()
    assert {path.name for path in lib.drop.glob("[!.]*")} == {"Done", "Failed", "journal.jsonl"}
    assert not lib.folder("checkpoint").exists() or not list(lib.folder("checkpoint").iterdir())
    assert lib.run().steps == ()


@pytest.mark.parametrize(
    "beginning", [lambda whole: whole[:-100], lambda whole: whole[:50], lambda whole: b"", lambda whole: bytes(5000)]
)
@pytest.mark.parametrize("name", ["a.safetensors", "a.ckpt", "old.ckpt"])
def test_what_ends_too_early_fails_only_when_nothing_came_for_a_minute(lib, name, beginning):
    path = lib.drop / name
    if name == "a.safetensors":
        whole = save(path, samples.lora()).read_bytes()
    else:
        import torch

        torch.save({"a.weight": torch.ones(3000)}, path, _use_new_zipfile_serialization=name == "a.ckpt")
        whole = path.read_bytes()
    path.write_bytes(beginning(whole))
    age(path, 30)
    (dry,) = run_once(lib.policy(), pause=0.01, dry=True).steps
    (step,) = lib.run().steps
    assert dry.outcome == step.outcome == "waiting"
    assert dry.reason == step.reason
    assert "rest may still come" in step.reason
    assert path.is_file()
    age(path, 90)
    (step,) = lib.run().steps
    assert step.outcome == "failed"
    assert lib.files() == [f"Autoprune/Failed/{name}", f"Autoprune/Failed/{name}.why.txt"]


def test_a_failure_never_replaces_another_one(lib):
    for text in ("first", "second"):
        (lib.drop / "a.ckpt").write_text(text)
        assert lib.run().counts == {"failed": 1}
    assert lib.files("Autoprune") == [
        "Autoprune/Failed/a(1).ckpt", "Autoprune/Failed/a(1).ckpt.why.txt", "Autoprune/Failed/a.ckpt",
        "Autoprune/Failed/a.ckpt.why.txt",
    ]  # fmt: skip


def test_a_failed_file_that_is_put_back_with_its_text_fails_again(lib):
    (lib.drop / "a.ckpt").write_text("first")
    lib.run()
    for path in (lib.drop / "Failed").iterdir():
        path.rename(lib.drop / path.name)
    (step,) = lib.run().steps
    assert (step.outcome, step.findings) == ("failed", ())
    assert lib.files("Autoprune/Failed") == ["Autoprune/Failed/a.ckpt", "Autoprune/Failed/a.ckpt.why.txt"]


def test_a_model_that_grows_beyond_reason_is_the_files_own_fault(lib, monkeypatch):
    from lib_toolkit import writing

    monkeypatch.setattr(writing, "_GROWTH_FACTOR", 0)
    monkeypatch.setattr(writing, "_GROWTH_FLOOR", 10)
    save(lib.drop / "a.safetensors", samples.lora())
    (step,) = lib.run().steps
    assert step.outcome == "failed"
    assert "repeats the same values" in step.reason


def _full_at(monkeypatch, call: str, number: int) -> None:
    """From the call of that number on, the disk is full."""
    original, count = getattr(os, call), 0

    def failing(fd, *args, **kwargs):
        nonlocal count
        if call == "fsync" or len(args[0]) > 100:
            count += 1
            if count >= number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(fd, *args, **kwargs)

    monkeypatch.setattr(os, call, failing)


@pytest.mark.skipif(not hasattr(os, "pwrite"), reason="writes go through handles here")
@pytest.mark.parametrize(("call", "number"), [("pwrite", 1), ("pwrite", 4), ("fsync", 1)])
def test_a_full_disk_loses_nothing_and_the_next_run_goes_on(lib, monkeypatch, call, number):
    source = save(lib.drop / "a.safetensors", samples.lora())
    (lib.drop / "a.png").write_text("picture")
    before = source.read_bytes()
    _full_at(monkeypatch, call, number)
    run = lib.run()
    monkeypatch.undo()
    assert run.counts == {"postponed": 1}
    assert "could not be written" in run.steps[0].reason
    assert source.read_bytes() == before
    assert lib.files() == ["Autoprune/a.png", "Autoprune/a.safetensors"]
    assert lib.temporary() == []
    assert lib.run().counts == {"written": 1}
    assert lib.files() == ["Autoprune/Done/a.safetensors", "Lora/a.png", "Lora/a.safetensors"]


def test_a_disk_without_room_is_seen_before_work_begins(lib, monkeypatch):
    source = save(lib.drop / "a.safetensors", samples.lora())
    usage = shutil.disk_usage(lib.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    (step,) = lib.run().steps
    assert step.outcome == "postponed"
    assert "make room" in step.reason
    assert source.is_file()


def test_nothing_is_begun_without_a_journal(lib, monkeypatch):
    source = save(lib.drop / "a.safetensors", samples.lora())
    original = os.write

    def full(fd, data):
        if b'"intent"' in data:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(fd, data)

    monkeypatch.setattr(os, "write", full)
    (step,) = lib.run().steps
    assert (step.outcome, source.is_file()) == ("postponed", True)
    assert "journal" in step.reason
    monkeypatch.setattr(os, "write", lambda fd, data: full(fd, b'"intent"'))
    with pytest.raises(TargetError, match="journal"):
        lib.run()
    monkeypatch.undo()
    assert lib.files() == ["Autoprune/a.safetensors"]


@pytest.mark.skipif(HAS_RIGHTS, reason="the superuser may write everywhere")
def test_a_target_without_rights(lib):
    source = save(lib.drop / "a.safetensors", samples.lora())
    lib.folder("lora").mkdir()
    lib.folder("lora").chmod(0o500)
    assert lib.run().counts == {"postponed": 1}
    assert source.is_file()


def test_a_read_only_target_keeps_no_other_file_from_its_place(lib, monkeypatch):
    source = save(lib.drop / "a.safetensors", samples.lora())
    save(lib.drop / "clean.safetensors", samples.lora(seed=2, dtype="<f2"))
    save(lib.drop / "e.safetensors", samples.embedding())
    lib.folder("lora").mkdir()
    real_open, real_link, real_rename = os.open, getattr(os, "link", None), Path.rename

    def refuse(path):
        if lib.folder("lora") in getattr(path, "parents", ()):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def guarded_open(path, flags, *args, **kwargs):
        if flags & os.O_CREAT:
            refuse(path)
        return real_open(path, flags, *args, **kwargs)

    def guarded_link(begin, end):
        refuse(end)
        return real_link(begin, end)

    def guarded_rename(self, end):
        refuse(end)
        return real_rename(self, end)

    monkeypatch.setattr(os, "open", guarded_open)
    if real_link:
        monkeypatch.setattr(os, "link", guarded_link)
    monkeypatch.setattr(Path, "rename", guarded_rename)
    steps = {step.file: step.outcome for step in lib.run().steps}
    assert steps == {"a.safetensors": "postponed", "clean.safetensors": "postponed", "e.safetensors": "written"}
    assert source.is_file()
    monkeypatch.undo()
    assert lib.run().counts == {"written": 1, "moved": 1}


@pytest.mark.skipif(not hasattr(os, "link"), reason="makes hard links")
def test_a_target_that_lets_nothing_go_gets_one_copy(lib, monkeypatch):
    save(lib.drop / "a.safetensors", samples.lora())
    (lib.drop / "a.png").write_text("picture")
    real = {name: getattr(os, name) for name in ("unlink", "rename")}

    def guarded(name):
        def call(path, *given, **named):
            if Path(path).parent == lib.folder("lora"):
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
            return real[name](path, *given, **named)

        return call

    with monkeypatch.context() as patch:
        for name in real:
            patch.setattr(os, name, guarded(name))
        (step,) = lib.run().steps
        assert step.outcome == "postponed"
        assert "lets nothing be removed or renamed" in step.reason
        assert lib.files() == ["Autoprune/a.png", "Autoprune/a.safetensors", "Lora/a.safetensors"]
        assert_halved(lib.folder("lora") / "a.safetensors", samples.lora())
        (step,) = lib.run().steps
        assert (step.outcome, step.recovered) == ("written", True)
        assert lib.files() == ["Autoprune/Done/a.safetensors", "Lora/a.png", "Lora/a.safetensors"]
    lib.run()
    assert lib.temporary() == []


def _close(monkeypatch, folder) -> None:
    """Nothing can be asked for in the folder, as where its rights are gone or a share does not answer."""

    def guarded(usual):
        def call(path, *given, **named):
            if isinstance(path, (str, Path)) and Path(path).is_relative_to(folder) and Path(path) != folder:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return usual(path, *given, **named)

        return call

    for name in ("stat", "lstat", "open", "mkdir"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name)))


@pytest.mark.parametrize("sources", ["done", "keep"])
def test_a_folder_that_was_closed_keeps_no_other_file_from_its_place(lib, monkeypatch, sources):
    """A source that was kept waits until its result can be asked for again; what is known of that is not forgotten."""
    save(lib.drop / "a.safetensors", samples.lora())
    assert lib.run(sources=sources).counts == {"written": 1}
    known = Known(lib.drop)._entries.keys()
    assert len(known) == 1
    save(lib.drop / "e.safetensors", samples.embedding())
    with monkeypatch.context() as patch:
        _close(patch, lib.folder("lora"))
        told = {step.file: step.outcome for step in waiting(lib.policy(sources=sources))}
        assert told["e.safetensors"] == "waiting"
        steps = lib.run(sources=sources).steps
        again = {"a.safetensors": "postponed"} if sources == "keep" else {}
        assert {step.file: step.outcome for step in steps} == {**again, "e.safetensors": "written"}
    assert known < Known(lib.drop)._entries.keys()
    run = lib.run(sources=sources)
    assert (run.steps, run.kept) == ((), 2 if sources == "keep" else 0)


def test_a_result_that_does_not_read_back_leaves_the_source(lib, monkeypatch):
    source = save(lib.drop / "a.safetensors", samples.lora())
    before = source.read_bytes()
    write_at = temporary.TemporaryFile.write_at

    def lossy(self, offset, data):
        write_at(self, offset, memoryview(bytes(len(data))) if len(data) > 1000 else data)

    monkeypatch.setattr(temporary.TemporaryFile, "write_at", lossy)
    (step,) = lib.run(sources="delete").steps
    assert step.outcome == "postponed"
    assert source.read_bytes() == before
    assert lib.files() == ["Autoprune/a.safetensors"]


def test_a_source_that_cannot_be_moved_is_told_of_and_goes_when_it_can(lib, monkeypatch):
    save(lib.drop / "a.safetensors", samples.lora())
    original = moving.rename_new

    def refusing(source, final):
        if "Done" in final.parts:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        original(source, final)

    monkeypatch.setattr(moving, "rename_new", refusing)
    (step,) = lib.run().steps
    assert (step.outcome, step.source) == ("written", "a.safetensors")
    assert any("stays where it is" in finding for finding in step.findings)
    results = lib.files("Lora")
    (step,) = lib.run().steps
    assert (step.outcome, step.source) == ("postponed", "a.safetensors")
    monkeypatch.undo()
    (step,) = lib.run().steps
    assert (step.outcome, step.source) == ("duplicate", "Done/a.safetensors")
    assert lib.files("Lora") == results
    assert lib.run().steps == ()


# The faults of older tools.


def test_the_source_is_whole_until_the_result_is_verified(lib, monkeypatch):
    """They removed the source first and saved then."""
    source = save(lib.drop / "a.safetensors", samples.lora())
    before = source.read_bytes()
    seen = []
    original = filing.dispose

    def watched(found, drop, along=()):
        assert_halved(lib.folder("lora") / "a.safetensors", samples.lora())
        seen.append(found.path.read_bytes())
        return original(found, drop, along)

    monkeypatch.setattr("lib_toolkit.autoprune.processing.dispose", watched)
    lib.run()
    assert seen == [before]


def test_names_are_not_cut_at_their_first_dot_and_metadata_stays(lib):
    save(lib.drop / "model.v1.5.final.safetensors", samples.lora(), {"ss_base_model": "sd1", "license": "x"})
    lib.run()
    result = lib.folder("lora") / "model.v1.5.final.safetensors"
    assert {"ss_base_model": "sd1", "license": "x"}.items() <= metadata_of(result).items()


def test_doubles_are_halved_16_bit_types_stay_and_rights_follow_the_umask(lib):
    arrays = samples.lora()
    keys = list(arrays)
    arrays[keys[0]] = arrays[keys[0]].astype("<f8")
    arrays[keys[1]] = arrays[keys[1]].astype("<f2")
    save(lib.drop / "a.safetensors", arrays)
    lib.run()
    result = lib.folder("lora") / "a.safetensors"
    found = arrays_of(result)
    assert {array.dtype for array in found.values()} == {np.dtype("<f2")}
    assert np.array_equal(found[keys[0]], arrays[keys[0]].astype("<f2"))
    if os.name != "nt":
        mask = os.umask(0)
        os.umask(mask)
        assert result.stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_policy_that_makes_no_sense_is_refused(lib):
    for changes in ({"vae_format": "zip"}, {"sources": "burn"}, {"precision": "fp7"}, {"workers": -1}):
        with pytest.raises(UsageError):
            lib.policy(**changes)
    from lib_toolkit.autoprune import Policy

    with pytest.raises(UsageError, match="lies in the drop folder"):
        Policy(lib.drop, {"component": lib.drop / "Components"})
    with pytest.raises(UsageError, match="components"):
        Policy(lib.drop, {"vae": lib.root})
    again = Policy.from_json(lib.policy(sources="keep", workers=3).to_json())
    assert again == lib.policy(sources="keep", workers=3)
    for text in ("", "[]", "{}", '{"drop": 3}', '{"drop": "x", "folders": []}'):
        with pytest.raises(UsageError):
            Policy.from_json(text)


@pytest.mark.skipif(not hasattr(os, "preadv"), reason="replaces os.preadv")
@pytest.mark.parametrize("clean", [False, True])
def test_a_target_that_cannot_be_read_back_is_not_the_sources_fault(lib, monkeypatch, clean):
    save(lib.drop / "a.safetensors", samples.lora(1, "<f2" if clean else "<f4"))
    usual, link = os.preadv, os.link

    def preadv(fd, buffers, offset):
        if Path(f"/proc/self/fd/{fd}").readlink().suffix == ".part":
            raise OSError(errno.EIO, "Input/output error")
        return usual(fd, buffers, offset)

    def elsewhere(source, target, **how):
        if clean and not str(source).endswith(".part") and "Lora" in str(target):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        link(source, target, **how)

    def rename(source, target, **how):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(os, "link", elsewhere)
    if clean:
        monkeypatch.setattr(os, "rename", rename)
    run = lib.run()
    assert outcomes(run) == {"a.safetensors": "postponed"}
    assert lib.files("Autoprune") == ["Autoprune/a.safetensors"]


def test_a_move_that_fails_leaves_no_second_name(lib, monkeypatch):
    (lib.drop / "ro").mkdir()
    (lib.drop / "ro" / "page.ckpt").write_text("<html>")
    usual = os.unlink

    def unlink(path, **how):
        if str(path).endswith("ro/page.ckpt") and "Failed" not in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        usual(path, **how)

    monkeypatch.setattr(os, "unlink", unlink)
    for _ in range(3):
        lib.run()
    assert lib.files("Autoprune") == ["Autoprune/ro/page.ckpt"]
