"""The journal: lines, rotation, what a crash leaves of it."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from lib_toolkit.autoprune import journal, last_run, moving, sentence, telling, waiting, watch
from lib_toolkit.autoprune import run as runs
from lib_toolkit.autoprune.journal import Journal
from lib_toolkit.autoprune.lock import FolderLock
from lib_toolkit.autoprune.steps import WRITTEN, Removed, Run, Step, step_of
from lib_toolkit.errors import CancelledError, TargetError, VerificationError
from lib_toolkit.progress import Progress
from tests.autoprune import samples
from tests.autoprune.samples import library, outcomes, save


@pytest.fixture
def lib(tmp_path):
    return library(tmp_path / "models")


def test_a_step_survives_json():
    step = Step(
        "sub/ü.ckpt", "written", 10, "now", "why", "SD-v1", "checkpoint", "/t/ü(1).safetensors", 4, "Done/ü.ckpt",
        (Removed("EMA", 3, 5),), (), ("one", "two"), ("/t/ü(1).png",), {"sha256": "a", "autov3": None}, {"sha256": "b"},
        True,
    )  # fmt: skip
    assert step_of(json.loads(json.dumps(step.as_json()))) == step
    assert step.as_json()["saved"] == 6


JUNK = {"file": 3, "size": "x", "removed": [1, {"count": []}], "hashes": [], "findings": "a"}


@pytest.mark.parametrize("junk", [{}, JUNK])
def test_a_step_of_junk_is_empty(junk):
    step = step_of(junk)
    assert (step.file, step.size, step.findings, step.hashes) == ("", 0, (), {})


def test_a_line_cut_off_by_a_crash_swallows_no_other(lib):
    save(lib.drop / "a.safetensors", samples.lora())
    (lib.drop / "journal.jsonl").write_bytes(b'{"line": "step", "file": "cut')
    lib.run()
    assert last_run(lib.policy()).counts == {"written": 1}
    lines = (lib.drop / "journal.jsonl").read_bytes().splitlines()
    assert json.loads(lines[1])["line"] == "begin"


def test_rotation_keeps_the_last_run_and_what_is_unfinished(lib, monkeypatch):
    monkeypatch.setattr(journal, "KEPT", 3)
    for number in range(6):
        save(lib.drop / f"{number}.safetensors", samples.lora(number))
        lib.run()
        path = lib.drop / "journal.jsonl"
        size = path.stat().st_size
        assert journal.rotate(lib.drop, largest=size + 1) is False
        assert journal.rotate(lib.drop, largest=size) is True
        assert last_run(lib.policy()).steps[0].file == f"{number}.safetensors"
    names = sorted(path.name for path in lib.drop.glob("journal*"))
    assert names == ["journal.1.jsonl", "journal.2.jsonl", "journal.3.jsonl"]
    files = [json.loads((lib.drop / name).read_text().splitlines()[2])["file"] for name in names]
    assert files == ["5.safetensors", "4.safetensors", "3.safetensors"]


@pytest.mark.parametrize("held", ["journal.jsonl", "journal.1.jsonl", "journal.5.jsonl"])
def test_rotation_loses_nothing_while_a_journal_is_held(tmp_path, monkeypatch, held):
    """Windows renames no file that another program reads."""
    texts = {"journal.jsonl": "new", **{f"journal.{number}.jsonl": f"old {number}" for number in range(1, 10)}}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    usual = Path.rename

    def rename(self, target):
        if self.name == held:
            raise PermissionError(errno.EACCES, "Another process uses it")
        return usual(self, target)

    def told():
        return [path.read_text() for path in sorted(tmp_path.iterdir())]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        for _ in range(12):
            assert journal.rotate(tmp_path, largest=1) is False
            lost = set(texts.values()).difference(told())
            assert lost == (set() if held == "journal.jsonl" else {"old 9"})
    assert journal.rotate(tmp_path, largest=1) is True
    assert told() == ["new", *(f"old {number}" for number in range(1, 9))]


def test_a_journal_on_its_way_aside_is_read(lib, monkeypatch):
    """Killed, or refused, between two renames."""
    for name, run in (("journal.1.jsonl", "one"), ("journal.0.jsonl", "two")):
        (lib.drop / name).write_text(json.dumps({"line": "begin", "run": run, "time": "now"}) + "\n")
    assert last_run(lib.policy()).id == "two"
    save(lib.drop / "a.safetensors", samples.lora())
    assert outcomes(lib.run()) == {"a.safetensors": WRITTEN}, "it is no stranger in the folder"
    names = sorted(path.name for path in lib.drop.glob("journal*"))
    assert names == ["journal.1.jsonl", "journal.2.jsonl", "journal.jsonl"]
    assert '"two"' in (lib.drop / "journal.1.jsonl").read_text()


def test_a_journal_grown_large_is_put_aside_before_a_run(lib):
    (lib.drop / "journal.jsonl").write_bytes((b'{"line": "' + b"x" * 10_000 + b'"}\n') * (journal.LARGEST // 10_000))
    save(lib.drop / "a.safetensors", samples.lora())
    lib.run()
    assert (lib.drop / "journal.1.jsonl").stat().st_size >= journal.LARGEST
    assert (lib.drop / "journal.jsonl").stat().st_size < 20_000


def test_a_journal_that_cannot_be_made(tmp_path):
    (tmp_path / "journal.jsonl").mkdir()
    with pytest.raises(TargetError, match="journal"):
        Journal(tmp_path, "x")


def test_between_file_systems_a_file_is_copied_verified_and_then_removed(tmp_path, monkeypatch):
    def other_device(source, final):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(moving, "rename_new", other_device)
    source, final = tmp_path / "a.bin", tmp_path / "b.bin"
    data = bytes(range(256)) * 5000
    source.write_bytes(data)
    os.utime(source, (1e9, 1e9))
    moving.move_new(source, final)
    assert (source.exists(), final.read_bytes()) == (False, data)
    assert final.stat().st_mtime == 1e9, "as after a rename"
    source.write_bytes(b"another")
    with pytest.raises(FileExistsError):
        moving.move_new(source, final)
    assert (source.read_bytes(), final.read_bytes()) == (b"another", data)
    write_at = moving.TemporaryFile.write_at
    zeros = lambda self, offset, data: write_at(self, offset, memoryview(bytes(len(data))))  # noqa: E731
    monkeypatch.setattr(moving.TemporaryFile, "write_at", zeros)
    with pytest.raises(VerificationError):
        moving.move_new(source, tmp_path / "c.bin")
    assert source.read_bytes() == b"another"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "b.bin"]


@pytest.fixture
def other_disk(monkeypatch):
    """Windows, where no file with the attribute read-only is removed, and a folder on another drive."""
    usual = os.unlink

    def unlink(path, **how):
        if not os.lstat(path).st_mode & stat.S_IWRITE:
            raise PermissionError(errno.EACCES, "Access is denied")
        usual(path, **how)

    def other_device(source, final):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "unlink", unlink)
    monkeypatch.setattr(moving, "_KEEPS_READ_ONLY", True)
    monkeypatch.setattr(moving, "rename_new", other_device)


def _read_only(path):
    path.write_bytes(b"model")
    os.utime(path, (1e9, 1e9))
    path.chmod(0o444)
    return path


def test_a_read_only_file_moves_to_another_disk_as_it_is(tmp_path, other_disk):
    source, final = _read_only(tmp_path / "a.bin"), tmp_path / "b.bin"
    moving.move_new(source, final)
    assert [path.name for path in tmp_path.iterdir()] == ["b.bin"]
    assert final.read_bytes() == b"model"
    assert (final.stat().st_mtime, final.stat().st_mode & 0o777) == (1e9, 0o444)


def test_a_read_only_file_in_use_stays_read_only_and_alone(tmp_path, other_disk, monkeypatch):
    source = _read_only(tmp_path / "a.bin")
    usual = os.unlink

    def held(path, **how):
        if Path(path) == source:
            raise PermissionError(errno.EACCES, "Another process uses it")
        usual(path, **how)

    monkeypatch.setattr(os, "unlink", held)
    with pytest.raises(TargetError, match="close what uses it"):
        moving.move_new(source, tmp_path / "b.bin")
    assert list(tmp_path.iterdir()) == [source]
    assert source.stat().st_mode & 0o777 == 0o444


def test_the_copy_of_a_read_only_file_goes_again_when_its_name_is_taken(tmp_path, other_disk, monkeypatch):
    source, final = _read_only(tmp_path / "a.bin"), tmp_path / "b.bin"
    usual = moving._verify

    def meanwhile(*given):
        usual(*given)
        final.write_bytes(b"another")

    monkeypatch.setattr(moving, "_verify", meanwhile)
    with pytest.raises(FileExistsError):
        moving.move_new(source, final)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "b.bin"]
    assert final.read_bytes() == b"another"


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (
            errno.ENOENT,
            "the folder was moved or deleted, or its disk is not there: bring it back, or choose another one.",
        ),
        (errno.EACCES, "give the folder the rights, or choose another one."),
        (errno.EROFS, "its disk takes no changes, so choose a folder on another one."),
        (errno.ENOSPC, "make room, or choose a folder on another disk."),
        (errno.EIO, "check the disk, or choose another one."),
    ],
)
def test_advice_is_that_of_the_error(lib, monkeypatch, number, advice):
    def refuse(*given, **named):
        raise OSError(number, os.strerror(number))

    journal = Journal(lib.drop, "x")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(TargetError) as told:
            journal.sync()
    assert str(told.value).endswith(f"({os.strerror(number)}), and nothing is done without it; {advice}")
    journal.close()
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(TargetError) as told, FolderLock(lib.drop):
        pass
    assert str(told.value).endswith(f"{lib.drop} ({os.strerror(number)}); {advice}")


def test_a_move_that_is_refused_tells_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("x")
    with pytest.raises(TargetError, match=r"b could not be put.*moved or deleted"):
        moving.move_new(tmp_path / "a", tmp_path / "gone" / "b")

    def refuse(source, final):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(moving, "rename_new", refuse)
    monkeypatch.setattr(moving, "_PATIENCE", 0.0)
    with pytest.raises(TargetError, match="close what uses it, or give its folder the rights"):
        moving.move_new(tmp_path / "a", tmp_path / "b")


def test_sentences_are_printable_and_say_what_matters():
    step = Step("a\x1b[31m.ckpt", "written", 2_000_000, target="/t/a.safetensors", target_size=1_000_000)
    assert "\x1b" not in sentence(step)
    assert "2.00 MB → 1.00 MB" in sentence(step)
    failed = Step("b", "failed", reason="Why.", target="/drop/Failed/b")
    assert sentence(failed) == f"b → {Path('/drop/Failed/b')}: cannot be used\n  Why."
    equal = Step("b", "duplicate", reason="Why.", target="/t/a", source="Done/b")
    told = [f"b = {Path('/t/a')}: there already", "  Why.", "  source:   Done/b in the drop folder"]
    assert sentence(equal).split("\n") == told
    assert "source:" not in sentence(replace(equal, source="b"))
    run = Run("x", "done", "", steps=(step, Step("b", "failed", reason="why")))
    assert telling.summary(run) == "Files: 1 pruned, 1 moved to Failed; 1.00 MB saved."
    assert telling.summary(Run("", "done", "")) == "Nothing lies in the drop folder."
    assert telling.summary(Run("", "running", "")) == "No file is done yet."
    for state in ("cancelled", "stopped", "interrupted"):
        assert telling.summary(Run("", state, "")) == "It ended before a file was dealt with."


@pytest.mark.parametrize("sidecars", [[1], [[1]], ["ab"], {"a": 1}, [None, ["a", "b", "c"]]])
def test_an_odd_line_stops_no_run(lib, sidecars):
    line = {"line": "intent", "file": "a.safetensors", "sidecars": sidecars, "step": [], "modified": "x"}
    (lib.drop / "journal.jsonl").write_text(json.dumps(line) + "\n")
    save(lib.drop / "a.safetensors", samples.lora())
    assert lib.run().counts == {"left": 1, "written": 1}


def test_looks_without_work_leave_the_journal_alone(lib, monkeypatch):
    """A file that cannot be dealt with now is tried again later; meanwhile its reason stays the last run."""
    save(lib.drop / "a.safetensors", samples.lora())
    lib.folder("lora").write_text("in the way")
    looks, stop = [], threading.Event()
    original = runs.look

    def counted(drop):
        looks.append((lib.drop / "journal.jsonl").stat().st_size if len(looks) > 3 else 0)
        if len(looks) > 12:
            stop.set()
        return original(drop)

    monkeypatch.setattr(runs, "look", counted)
    with pytest.raises(CancelledError):
        watch(lib.policy(), 0.01, Progress(cancelled=stop.is_set))
    assert looks[-1] == looks[4] > 0
    (step,) = last_run(lib.policy()).steps
    assert (step.file, step.outcome) == ("a.safetensors", "postponed")


def test_a_journal_line_with_a_name_that_cannot_be_does_not_end_every_run(lib):
    save(lib.drop / "a.safetensors", samples.lora(1))
    told = {"line": "intent", "file": "q\0.safetensors", "action": "moved"}
    line = json.dumps({**told, "target": str(lib.folder("lora") / "q.safetensors")})
    (lib.drop / "journal.jsonl").write_text(line + "\n")
    assert outcomes(lib.run())["a.safetensors"] == WRITTEN


def test_watch_outlives_a_folder_that_is_away_for_a_while(lib, monkeypatch):
    """A share that is not there, a full disk: told of once, and looked at again."""
    steps, passes, away = [], [], lib.root / "away"
    lib.drop.rename(away)

    def sleep(seconds, progress):
        passes.append(seconds)
        if len(passes) == 4:
            save(away / "a.safetensors", samples.lora())
            away.rename(lib.drop)
        if len(passes) == 8:
            raise CancelledError("enough")

    lib.drop.mkdir()
    monkeypatch.setattr(runs, "_sleep", sleep)
    policy = lib.policy()
    usual = runs.look

    def looked(drop):
        if not passes:
            lib.drop.rmdir()  # it goes when the first look is over
        return usual(drop)

    monkeypatch.setattr(runs, "look", looked)
    with pytest.raises(CancelledError):
        watch(policy, 2.0, report=steps.append)
    assert [step.outcome for step in steps] == ["postponed", "waiting", "begun", "written"]
    assert steps[0].file == "Autoprune"
    assert "the folder was moved or deleted" in steps[0].reason


@pytest.mark.parametrize("other_device", [False, True])
def test_a_source_that_goes_during_its_move_does_not_take_the_result_along(tmp_path, monkeypatch, other_device):
    source, final = tmp_path / "a", tmp_path / "b"
    source.write_text("x")
    usual = os.unlink

    def taken(path, **how):
        if Path(path) == source:
            usual(path)
        usual(path, **how)

    def elsewhere(one, other):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "unlink", taken)
    if other_device:
        monkeypatch.setattr(moving, "rename_new", elsewhere)
    moving.move_new(source, final)
    assert final.read_text() == "x"


@pytest.mark.parametrize("count", [1 << 63, -5, 10**400])
def test_a_count_that_no_file_has_is_none(count):
    step = step_of({"file": "a", "outcome": "written", "size": count, "removed": [{"reason": "x", "bytes": count}]})
    assert (step.size, step.removed[0].bytes) == (0, 0)
    assert "a → " in sentence(step)
    assert step_of({"size": (1 << 63) - 1}).size == (1 << 63) - 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names")
@pytest.mark.parametrize("name", ["journal.jsonl", "journal.1.jsonl", ".autoprune.cache.json"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_nobody_waits_for_a_pipe_in_the_place_of_a_file(lib, name, make):
    source = save(lib.drop / "a.safetensors", samples.lora())
    make(lib.drop / name)
    asked = threading.Thread(target=lambda: (last_run(lib.policy()), waiting(lib.policy())), daemon=True)
    asked.start()
    asked.join(30)
    assert not asked.is_alive()
    if name == "journal.jsonl":
        with pytest.raises(TargetError, match="is no regular file"):
            lib.run()
        assert source.is_file() and not lib.folder("lora").exists()
    else:
        assert outcomes(lib.run())["a.safetensors"] == "written"
