"""Power cuts: a process that is killed anywhere leaves every model whole somewhere, and the next run takes the rest."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from lib_toolkit import temporary
from lib_toolkit.autoprune import journal, last_run, moving, naming, processing, recovery, watch
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

    def report(step):
        print(step.outcome, flush=True)
        sys.stdin.readline()  # it goes on when it is told to, or nobody listens

    while True:
        run = run_once(policy, report=report, pause=0.0)
        if run.state != "busy":
            break
    """
).format(root=ROOT)


def _start(policy):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
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
        for _ in range(chance.randint(1, 6)):
            assert process.stdout.readline() in {"begun\n", "written\n", "moved\n", "failed\n"}
            process.stdin.write("\n")
            process.stdin.flush()
        time.sleep(chance.uniform(0.0, 0.02))  # wherever it is now, it waits for us before it tells of more
        process.kill()
        process.communicate()
        _whole_somewhere(lib, made)
        assert any((lib.drop / f"{name}.safetensors").exists() for name in made), "nothing was left to be cut short"
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


@dataclass(frozen=True)
class _Case:
    """What lies in the drop folder and where it goes. ``linked``: the target folder, Done and Failed are links to
    another disk. ``conflict``: a sidecar's place is taken. ``shared``: another model has the same sidecars."""

    kind: str
    linked: bool = False
    sources: str = "done"
    conflict: bool = False
    shared: bool = False


CASES = [
    *(_Case(kind) for kind in ("pruned", "clean", "failing", "duplicate")),
    _Case("pruned", linked=True),
    _Case("pruned", sources="delete", conflict=True, shared=True),
    _Case("clean", sources="keep", conflict=True, shared=True),
    _Case("clean", linked=True, conflict=True, shared=True),
    _Case("clean", linked=True, sources="keep"),
    _Case("failing", linked=True, sources="keep", shared=True),
    _Case("duplicate", linked=True, sources="delete"),
    _Case("overflowing", linked=True),
    _Case("overflowing", linked=True, sources="delete", conflict=True),
]


class _Power:
    """Goes off before or after a change of a name on disk, and nothing changes any more. Between disks there are
    neither links nor renames; what lies below ``disk`` is on another one."""

    def __init__(self, patch: pytest.MonkeyPatch, disk: Path, stop: int, after: bool) -> None:
        self.calls, self.is_off = 0, False
        self._disk, self._stop, self._after = os.path.realpath(disk), stop, after
        patch.setattr(os, "link", self._counted(os.link, moves=True))
        patch.setattr(Path, "rename", self._counted(Path.rename, moves=True))
        patch.setattr(Path, "unlink", self._counted(Path.unlink))
        patch.setattr(Path, "mkdir", self._while_on(Path.mkdir))
        patch.setattr(journal.Journal, "write", self._while_on(journal.Journal.write))
        patch.setattr(temporary.TemporaryFile, "__init__", self._while_on(temporary.TemporaryFile.__init__))
        leave = temporary.TemporaryFile.__exit__
        patch.setattr(
            temporary.TemporaryFile, "__exit__", lambda file, *e: file._close() if self.is_off else leave(file, *e)
        )

    def _counted(self, original, moves=False):
        def call(path, *given, **named):
            self.calls += 1
            if self.calls == self._stop and not self._after:
                self.is_off = True
            if not self.is_off and moves and self._is_on_disk(path) != self._is_on_disk(given[0]):
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
            result = self._while_on(original)(path, *given, **named)
            if self.calls == self._stop:
                self.is_off = True
                raise _Killed
            return result

        return call

    def _while_on(self, original):
        def call(*given, **named):
            if self.is_off:
                raise _Killed
            return original(*given, **named)

        return call

    def _is_on_disk(self, path) -> bool:
        return os.path.realpath(Path(path).parent).startswith(self._disk)


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps open files in place, and links need rights there")
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(str(value) for value in vars(case).values()))
def test_killed_before_and_after_each_step_on_disk(tmp_path, case):
    """Every call that changes a name is, in its turn, the last one: once before and once after it takes effect. Each
    time the next run comes to what a run comes to that nobody kills."""
    whole = _situation(tmp_path / "whole", case)
    steps = _run_until(whole, tmp_path / "whole" / "disk", case)
    wanted = _tree(whole)
    assert steps > 5
    for number, after in itertools.product(range(1, steps + 1), (False, True)):
        base = tmp_path / f"{number} {after}"
        lib = _situation(base, case)
        _run_until(lib, base / "disk", case, number, after)
        _is_all_there(lib)
        _run_until(lib, base / "disk", case)
        assert _tree(lib) == wanted, (number, after)
        assert list(base.rglob(".model-toolkit-*")) == []
        assert journal.unfinished(lib.drop) == {}
        shutil.rmtree(base)


def _run_until(lib, disk: Path, case: _Case, number: int = 0, after: bool = False) -> int:
    """A run by a new process, which ends at the step of this number; returns how many steps there were."""
    naming._LISTED.clear()
    temporary._mine.clear()
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(_Killed):
        power = _Power(patch, disk, number, after)
        lib.run(sources=case.sources, workers=1)
    return power.calls


def _situation(base: Path, case: _Case):
    lib = library(base / "models")
    (base / "disk").mkdir()
    for folder in (lib.folder("lora"), lib.drop / "Done", lib.drop / "Failed") if case.linked else ():
        (base / "disk" / folder.name).mkdir()
        folder.symlink_to(base / "disk" / folder.name)
    save(lib.drop / "sub" / "a.safetensors", _arrays(case))
    if case.kind == "failing":
        (lib.drop / "sub" / "a.safetensors").write_text("<html>")
    if case.kind == "duplicate":
        save(lib.folder("lora") / "there.safetensors", samples.lora(1, "<f2", modules=1))
    for name, text in TEXTS.items():
        (lib.drop / "sub" / name).write_text(text)
    if case.shared:
        save(lib.drop / "sub" / "a.ckpt", samples.lora(2, modules=1))
    if case.conflict:
        (lib.folder("lora") / "sub").mkdir(parents=True)
        (lib.folder("lora") / "sub" / "a.json").write_text("another's")
    return lib


TEXTS = {"a.png": "picture", "a.json": "words"}


def _arrays(case: _Case) -> dict[str, np.ndarray]:
    arrays = samples.lora(1, "<f2" if case.kind == "clean" else "<f4", modules=1)
    if case.kind == "overflowing":
        arrays.update({key: np.full_like(array, 1e6) for key, array in arrays.items() if "lora_up" in key})
    return arrays


def _tree(lib) -> dict[str, object]:
    """Every file that a user sees, through links, and what it holds: a model what its first tensor does."""
    found: dict[str, object] = {}
    for here, _, names in os.walk(lib.root, followlinks=True):
        for path in (Path(here, name) for name in names if not (name.startswith(".") or name.endswith(".jsonl"))):
            name = path.relative_to(lib.root).as_posix()
            if name.endswith((".safetensors", ".ckpt")) and path.read_bytes() != b"<html>":
                found[name] = [
                    (key, str(array.dtype), array.tobytes()) for key, array in sorted(arrays_of(path).items())
                ]
            elif name.endswith(".why.txt"):
                found[name] = ""
            else:
                found[name] = path.read_text()
    return found


def _is_all_there(lib) -> None:
    """The source or its result, whole, as all that is named like a model can be read; and each text."""
    there = _tree(lib)
    assert any(PurePosixPath(name).match("a*.safetensors") for name in there)
    assert set(TEXTS.values()) <= {text for text in there.values() if isinstance(text, str)}


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
        ("d.safetensors", lora / "\ud800" / "d.safetensors", ()),
        ("e.safetensors", lora / "e\0.safetensors", ()),
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

    def killed(self, *given):
        usual(self, *given)
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
