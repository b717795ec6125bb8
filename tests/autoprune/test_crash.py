"""Power cuts: a process that is killed anywhere leaves every model whole somewhere, and the next run takes the rest."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from lib_toolkit import target
from lib_toolkit.autoprune import journal, last_run, moving, processing, recovery, watch
from lib_toolkit.autoprune import run as runs
from lib_toolkit.autoprune.journal import Intent
from lib_toolkit.autoprune.steps import LEFT, MOVED, Step
from lib_toolkit.errors import CancelledError
from tests.autoprune import samples
from tests.autoprune.samples import arrays_of, library, outcomes, save

ROOT = str(Path(__file__).parents[2])


class _Killed(BaseException):
    """Stands for the end of the process: nothing after it runs, not even what cleans up."""


@pytest.fixture
def lib(tmp_path):
    return library(tmp_path / "models")


RUNNER = textwrap.dedent(
    """
    import sys
    sys.path.insert(0, {root!r})
    from lib_toolkit.autoprune import Policy, run_once
    print("ready", flush=True)
    policy = Policy.from_json(sys.argv[1])
    while True:
        run = run_once(policy, report=lambda step: print(step.outcome, flush=True), pause=0.0)
        if run.state != "busy":
            break
    """
).format(root=ROOT)


def _start(policy):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", RUNNER, policy.to_json()], **pipes)
    assert process.stdout.readline() == "ready\n"
    return process


def _fill(lib, count: int) -> dict[str, dict[str, np.ndarray]]:
    made = {}
    for seed in range(count):
        dtype = "<f2" if seed % 4 == 3 else "<f4"
        name = f"{'sub/' if seed % 2 else ''}m{seed}"
        made[name] = samples.lora(seed, dtype, modules=2)
        save(lib.drop / f"{name}.safetensors", made[name])
        (lib.drop / f"{name}.png").write_text(name)
    (lib.drop / "bad.ckpt").write_text("<html>")
    return made


def _whole_somewhere(lib, made) -> None:
    """Each model is whole in source, Done or target, and no final name holds a part of one."""
    for name, arrays in made.items():
        places = [lib.drop / f"{name}.safetensors", lib.drop / "Done" / f"{name}.safetensors"]
        places.append(lib.folder("lora") / f"{name}.safetensors")
        found = [arrays_of(path) for path in places if path.exists()]
        assert found, name
        for one in found:
            assert one.keys() == arrays.keys(), name
            assert all(np.array_equal(one[key], array.astype(one[key].dtype)) for key, array in arrays.items()), name


@pytest.mark.skipif(os.name == "nt", reason="kill -9")
def test_killed_at_random_moments(lib):
    made = _fill(lib, 24)
    chance = random.Random(5)
    for _ in range(5):
        process = _start(lib.policy())
        time.sleep(chance.uniform(0.0, 0.5))
        process.kill()
        process.communicate()
        _whole_somewhere(lib, made)
    process = _start(lib.policy())
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 0, errors
    _finished(lib, made)


def _finished(lib, made) -> None:
    _whole_somewhere(lib, made)
    assert lib.temporary() == []
    assert lib.files("Lora") == sorted(f"Lora/{name}{ending}" for name in made for ending in (".png", ".safetensors"))
    clean = {name for name, arrays in made.items() if next(iter(arrays.values())).dtype == np.float16}
    done = [f"Autoprune/Done/{name}.safetensors" for name in made if name not in clean]
    assert lib.files("Autoprune") == sorted([*done, "Autoprune/Failed/bad.ckpt", "Autoprune/Failed/bad.ckpt.why.txt"])
    for name in made:
        assert (lib.folder("lora") / f"{name}.png").read_text() == name
    assert journal.unfinished(lib.drop) == {}


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps open files in place")
@pytest.mark.parametrize("kind", ["pruned", "clean", "failing", "duplicate"])
def test_killed_before_and_after_each_step_on_disk(lib, kind, monkeypatch):
    """Every call that changes a name is, in its turn, the last one: once before and once after it takes effect."""
    made = {}
    calls, stop_at, after = 0, 0, False

    def counted(original):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == stop_at and not after:
                raise _Killed
            result = original(*args, **kwargs)
            if calls == stop_at and after:
                raise _Killed
            return result

        return call

    number = 0
    while True:
        number += 1
        for after in (False, True):  # noqa: B007 (read by counted)
            shutil.rmtree(lib.root)
            library(lib.root)
            made = _one(lib, kind)
            calls, stop_at = 0, number
            with monkeypatch.context() as patch, contextlib.suppress(_Killed):
                if hasattr(os, "link"):
                    patch.setattr(os, "link", counted(os.link))
                patch.setattr(Path, "rename", counted(Path.rename))
                patch.setattr(Path, "unlink", counted(Path.unlink))
                # What a killed process would not do either.
                patch.setattr(target.TemporaryFile, "__exit__", lambda self, *error: self._close())
                lib.run()
            target._mine.clear()
            _one_is_whole(lib, kind, made)
            lib.run()
            _one_is_finished(lib, kind, made)
        if calls < number:
            break
    assert number > 3


def _one(lib, kind: str) -> dict[str, np.ndarray]:
    arrays = samples.lora(dtype="<f2" if kind == "clean" else "<f4", modules=1)
    path = save(lib.drop / "sub" / "a.safetensors", arrays)
    if kind == "failing":
        path.write_bytes(path.read_bytes()[:-50])
        samples.age(path)
    if kind == "duplicate":
        save(lib.folder("lora") / "there.safetensors", samples.lora(dtype="<f2", modules=1))
    (lib.drop / "sub" / "a.png").write_text("picture")
    (lib.drop / "sub" / "a.json").write_text("words")
    return arrays


def _one_is_whole(lib, kind: str, arrays) -> None:
    models = [path for path in lib.root.rglob("*.safetensors") if path.name.startswith("a")]
    assert models
    if kind != "failing":
        for path in models:
            found = arrays_of(path)
            assert all(np.array_equal(found[key], array.astype(found[key].dtype)) for key, array in arrays.items())
    for name, text in (("a*.png", "picture"), ("a*.json", "words")):
        found = list(lib.root.rglob(name))
        assert found
        assert {path.read_text() for path in found} == {text}


def _one_is_finished(lib, kind: str, arrays) -> None:
    assert lib.temporary() == []
    beside = ["sub/a.json", "sub/a.png", "sub/a.safetensors"]
    wanted = {
        "pruned": ["Autoprune/Done/sub/a.safetensors", *(f"Lora/{name}" for name in beside)],
        "clean": [f"Lora/{name}" for name in beside],
        "failing": [*(f"Autoprune/Failed/{name}" for name in beside), "Autoprune/Failed/sub/a.safetensors.why.txt"],
        "duplicate": [*(f"Autoprune/Done/{name}" for name in beside), "Lora/there.safetensors"],
    }
    assert lib.files() == wanted[kind]
    assert journal.unfinished(lib.drop) == {}


@pytest.mark.parametrize("value", [None, 1e6])
def test_a_result_in_place_is_not_written_again(lib, monkeypatch, value):
    """Killed after the result got its name: the source is still there, and so are the sidecars. With ``value`` a
    tensor keeps its type, which is seen only when it is written."""
    arrays = samples.lora()
    if value is not None:
        key = next(key for key in arrays if "lora_up" in key)
        arrays[key] = np.full_like(arrays[key], value)
    save(lib.drop / "a.safetensors", arrays)
    (lib.drop / "a.png").write_text("picture")

    def killed(*args):
        raise _Killed

    monkeypatch.setattr(processing, "follow", killed)
    with pytest.raises(_Killed):
        lib.run()
    monkeypatch.undo()
    result = lib.folder("lora") / "a.safetensors"
    before = result.stat()
    assert last_run(lib.policy()).state in {"interrupted", "stopped"}
    (step,) = lib.run().steps
    assert (step.outcome, step.recovered) == ("written", True)
    assert (result.stat().st_ino, result.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert lib.files() == ["Autoprune/Done/a.safetensors", "Lora/a.png", "Lora/a.safetensors"]
    assert step.target_hashes["sha256"] == hashlib.sha256(result.read_bytes()).hexdigest()


def test_a_copy_between_file_systems_survives_a_kill_before_the_source_goes(lib, monkeypatch):
    arrays = samples.lora(dtype="<f2")
    before = save(lib.drop / "a.safetensors", arrays).read_bytes()

    def other_device(source, final):
        raise OSError(18, "Invalid cross-device link")

    def killed(path, **more):
        if path == lib.drop / "a.safetensors":
            raise _Killed
        original(path, **more)

    original = Path.unlink
    monkeypatch.setattr(moving, "rename_new", other_device)
    monkeypatch.setattr(Path, "unlink", lambda self, **more: killed(self, **more))
    with pytest.raises(_Killed):
        lib.run()
    monkeypatch.undo()
    assert (lib.drop / "a.safetensors").read_bytes() == before
    assert (lib.folder("lora") / "a.safetensors").read_bytes() == before
    (step,) = lib.run().steps
    assert (step.outcome, step.recovered) == ("moved", True)
    assert lib.files() == ["Lora/a.safetensors"]


def test_a_forged_journal_moves_nothing(lib, tmp_path):
    """It lies in a folder that people unpack downloads into."""
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    lora = lib.folder("lora")
    lora.mkdir()
    (lora / "x.safetensors").write_text("x")
    evil = [
        ("../../secret.txt", lora / "x.safetensors", ()),
        ("a.safetensors", lora / "x.safetensors", ((str(secret), str(lora / "s.txt")),)),
        ("b.safetensors", tmp_path / "out.safetensors", ()),
        ("c.safetensors", lora / ".." / ".." / "secret.txt", ()),
        ("x.safetensors", lora / "x.safetensors", ((str(lib.drop / "x.exe"), str(lora / "y")),)),
    ]
    with (lib.drop / "journal.jsonl").open("w") as file:
        for name, target, sidecars in evil:
            intent = Intent(name, "written", str(target), "", sidecars, Step(name, ""), 0)
            file.write(json.dumps({"line": "intent", **intent.as_json()}) + "\n")
    (lib.drop / "x.exe").write_text("x")
    told = {step.file for step in lib.run().steps}
    assert told == {"x.exe", *(name for name, _, _ in evil)}
    (left,) = lib.run().steps
    assert (left.file, left.outcome) == ("x.exe", "left"), "what the journal said is told once"
    assert secret.read_text() == "secret"
    assert (lib.drop / "x.exe").exists()
    assert not (tmp_path / "out.safetensors").exists()


def test_watch_takes_its_time_between_the_first_looks_after_a_crash_too(lib, monkeypatch):
    save(lib.drop / "a.safetensors", samples.lora(1))

    def killed(self, job):
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(processing.Worker, "_finish", killed)
        with pytest.raises(_Killed):
            lib.run()
    slept: list[float] = []

    def sleep(seconds, progress):
        slept.append(seconds)

    def session(self, before, pause):
        slept.append(pause)
        raise CancelledError("enough")

    monkeypatch.setattr(runs, "_sleep", sleep)
    monkeypatch.setattr(runs._Session, "run", session)
    with pytest.raises(CancelledError):
        watch(lib.policy(), 30.0)
    assert sum(slept) >= runs.PAUSE


def test_temporary_files_of_a_computer_that_was_renamed_go(lib):
    """A container gets another host name each time that it is made."""
    save(lib.drop / "a.safetensors", samples.lora(1))
    lib.folder("lora").mkdir()
    stray = lib.folder("lora") / ".model-toolkit-00c0ffee-123-0123abcd.part"
    stray.write_bytes(b"x")
    os.utime(stray, (1e9, 1e9))
    lib.run()
    assert not lib.temporary()


def test_recovery_leaves_a_shared_sidecar_to_the_other_model(lib, monkeypatch):
    save(lib.drop / "a.ckpt", samples.lora(1))
    save(lib.drop / "a.safetensors", samples.lora(2))
    (lib.drop / "a.png").write_text("picture")
    usual = processing.Worker._dispose

    def killed(self, found):
        usual(self, found)
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(processing.Worker, "_dispose", killed)
        with pytest.raises(_Killed):
            lib.run()
    lib.run()
    assert [name for name in lib.files("Lora") if name.endswith("png")] == ["Lora/a(1).png", "Lora/a.png"]


def _killed_before_the_sidecars(lib, monkeypatch) -> None:
    def killed(*given):
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(processing, "follow", killed)
        with pytest.raises(_Killed):
            lib.run()


def test_a_sidecar_that_cannot_go_keeps_no_other_file_from_its_place(lib, monkeypatch):
    """Killed between copy and removal; meanwhile a viewer has the picture open."""
    save(lib.drop / "a.safetensors", samples.lora(1, "<f2"))
    (lib.drop / "a.png").write_text("picture")
    _killed_before_the_sidecars(lib, monkeypatch)
    (lib.folder("lora") / "a.png").write_text("picture")
    save(lib.drop / "b.safetensors", samples.lora(2))
    usual = Path.unlink

    def held(self, **how):
        if self == lib.drop / "a.png":
            raise PermissionError(13, "Another process uses it")
        usual(self, **how)

    with monkeypatch.context() as patch:
        patch.setattr(moving, "_PATIENCE", 0.0)
        patch.setattr(Path, "unlink", held)
        steps = {step.file: step for step in lib.run().steps}
    assert {name: step.outcome for name, step in steps.items()} == {
        "a.safetensors": "moved",
        "a.png": "left",
        "b.safetensors": "written",
    }
    assert "a.png could not follow" in steps["a.safetensors"].findings[-1]
    assert journal.unfinished(lib.drop) == {}


def test_a_step_that_the_system_refuses_is_taken_by_a_later_run(lib, monkeypatch):
    save(lib.drop / "a.safetensors", samples.lora(1, "<f2"))
    (lib.drop / "a.png").write_text("picture")
    _killed_before_the_sidecars(lib, monkeypatch)
    save(lib.drop / "b.safetensors", samples.lora(2))

    def refused(*given):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(recovery, "_ended", refused)
        assert {"a.safetensors": "postponed", "b.safetensors": "written"}.items() <= outcomes(lib.run()).items()
    assert outcomes(lib.run())["a.safetensors"] == "moved"
    assert (lib.folder("lora") / "a.png").read_text() == "picture"


def test_what_the_user_moved_by_hand_after_a_crash_is_not_called_pruned(lib, monkeypatch):
    save(lib.drop / "a.safetensors", samples.lora(1))

    def killed(*given, **named):
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(processing, "write", killed)
        with pytest.raises(_Killed):
            lib.run()
    (lib.drop / "a.safetensors").rename(lib.folder("lora") / "a.safetensors")
    assert outcomes(lib.run()) == {"a.safetensors": LEFT}


def test_one_step_for_a_file_that_recovery_has_dealt_with(lib, monkeypatch):
    save(lib.drop / "a.safetensors", samples.lora(1, "<f2"))
    usual = os.link

    def link(source, target, **how):
        usual(source, target, **how)
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", link)
        with pytest.raises(_Killed):
            lib.run()
    assert [step.outcome for step in lib.run().steps] == [MOVED]
