"""Two processes on one drop folder, two drop folders on one target, the lock, and ends asked for from outside."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from lib_toolkit.autoprune import Policy, last_run, lock, run_once
from lib_toolkit.autoprune.lock import BusyError, FolderLock, is_held
from lib_toolkit.errors import TargetError
from tests.autoprune import samples
from tests.autoprune.samples import assert_halved, library, save

ROOT = Path(__file__).parents[2]

RUNNER = textwrap.dedent(
    """
    import json, sys
    sys.path.insert(0, {root!r})
    from lib_toolkit.autoprune import Policy, lock, run_once
    if "nolocks" in sys.argv:
        lock._system_lock = lambda fd, deadline: False
    policy = Policy.from_json(sys.argv[1])
    print("ready", flush=True)
    sys.stdin.readline()
    while True:
        run = run_once(policy, pause=0.05)
        if run.state != "busy":
            break
    print(json.dumps([[step.file, step.outcome] for step in run.steps]))
    """
).format(root=str(ROOT))


def _race(*arguments: list[str]) -> list[list[list[str]]]:
    """Start them, let them go at once, and return what each of them did."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen([sys.executable, "-c", RUNNER, *some], **pipes) for some in arguments]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    results = [racer.communicate(timeout=200) for racer in racers]
    assert [error for _, error in results] == ["", ""]
    return [json.loads(out) for out, _ in results]


@pytest.mark.parametrize("locks", [[], ["nolocks"]], ids=["locks of the system", "none"])
def test_two_processes_on_fifty_files(tmp_path, locks):
    lib = library(tmp_path / "models")
    made = {f"m{seed}": samples.lora(seed, modules=1) for seed in range(50)}
    for name, arrays in made.items():
        save(lib.drop / f"{name}.safetensors", arrays)
        (lib.drop / f"{name}.png").write_text(name)
    policy = lib.policy().to_json()
    done = [step for steps in _race([policy, *locks], [policy, *locks]) for step in steps]
    assert sorted(done) == sorted([f"{name}.safetensors", "written"] for name in made)
    assert lib.files("Lora") == sorted(f"Lora/{name}{ending}" for name in made for ending in (".png", ".safetensors"))
    assert lib.files("Autoprune") == sorted(f"Autoprune/Done/{name}.safetensors" for name in made)
    for name, arrays in list(made.items())[::10]:
        assert_halved(lib.folder("lora") / f"{name}.safetensors", arrays)
    assert lib.temporary() == []


def test_two_drop_folders_with_the_same_names_and_one_target(tmp_path):
    """Numbers are shared out without a file replaced or a picture beside the wrong model."""
    libs = [library(tmp_path / name) for name in ("one", "two")]
    target = tmp_path / "Lora"
    for which, lib in enumerate(libs):
        for number in range(15):
            save(lib.drop / f"m{number}.safetensors", samples.lora(100 * which + number, modules=1))
            (lib.drop / f"m{number}.png").write_text(f"{which} {number}")
    policies = [Policy(lib.drop, {"component": target}).to_json() for lib in libs]
    _race(*([policy] for policy in policies))
    models = sorted(target.glob("*.safetensors"))
    assert len(models) == 30
    for path in models:
        which, number = map(int, path.with_suffix(".png").read_text().split())
        assert_halved(path, samples.lora(100 * which + number, modules=1))


@pytest.mark.parametrize("system", [True, False])
def test_one_run_at_a_time(tmp_path, monkeypatch, system):
    if not system:
        monkeypatch.setattr(lock, "_system_lock", lambda fd, deadline: False)
    lib = library(tmp_path / "models")
    save(lib.drop / "a.safetensors", samples.lora())
    assert not is_held(lib.drop)
    with FolderLock(lib.drop):
        assert is_held(lib.drop)
        run = lib.run()
        assert (run.state, run.steps) == ("busy", ())
        with pytest.raises(BusyError), FolderLock(lib.drop):
            pass
    assert not is_held(lib.drop)
    assert lib.run().counts == {"written": 1}


def test_an_owner_that_is_gone_or_silent_is_taken_over_and_a_living_one_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_system_lock", lambda fd, deadline: False)
    owner = tmp_path / lock.OWNER
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    if os.name != "nt":
        owner.write_text(json.dumps({"host": lock._host(), "pid": child.pid, "mark": "x"}))
        with FolderLock(tmp_path):
            pass
    elsewhere = json.dumps({"host": "another computer", "pid": 1, "mark": "x"})
    for text in (elsewhere, "", "[]"):
        owner.write_text(text)
        with pytest.raises(BusyError), FolderLock(tmp_path):
            pass
        old = time.time() - 200
        os.utime(owner, (old, old))
        with FolderLock(tmp_path):
            assert json.loads(owner.read_text())["pid"] == os.getpid()
        assert not owner.exists()


def test_an_owner_that_a_full_disk_keeps_from_its_text_holds_nobody_up(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_system_lock", lambda fd, deadline: False)
    lib = library(tmp_path / "models")
    save(lib.drop / "a.safetensors", samples.lora())
    usual = os.fdopen

    class Full:
        """A file that takes no bytes; what was written is refused when it is closed."""

        def __init__(self, fd):
            self._file = usual(fd, "w")

        def write(self, text):
            return len(text)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self._file.close()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", lambda fd, *how, **more: Full(fd))
        with pytest.raises(TargetError, match="make room"):
            lib.run()
    assert not (lib.drop / lock.OWNER).exists()
    assert lib.run().counts == {"written": 1}


def test_the_last_run_is_running_while_it_is(tmp_path):
    lib = library(tmp_path / "models")
    save(lib.drop / "a.safetensors", samples.lora())
    seen = []
    run_once(lib.policy(), report=lambda step: seen.append(last_run(lib.policy()).state), pause=0.01)
    assert seen == ["running", "running"]
    assert last_run(lib.policy()).state == "done"


def _child(lib, *options: str, **more: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lib_toolkit", "autoprune", "--child", *options]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    child = subprocess.Popen(command, cwd=ROOT, **pipes, **more)
    child.stdin.write(lib.policy().to_json() + "\n")
    child.stdin.flush()
    return child


def test_a_child_does_its_work_at_low_priority_and_tells_of_it(tmp_path):
    lib = library(tmp_path / "models")
    save(lib.drop / "a.safetensors", samples.lora())
    child = _child(lib)
    lines, niceness = [], None
    for line in child.stdout:
        lines.append(json.loads(line))
        if lines[-1].get("step") == "begun" and hasattr(os, "getpriority"):
            niceness = os.getpriority(os.PRIO_PROCESS, child.pid)
    assert child.wait() == 0, child.stderr.read()
    steps = [line["step"] for line in lines if "step" in line]
    assert steps == ["begun", "written"]
    assert lines[-1]["run"]["state"] == "done"
    assert lines[-1]["counts"] == {"written": 1}
    if niceness is not None:
        assert niceness >= 10
    child.stdin.close(), child.stdout.close(), child.stderr.close()


@pytest.mark.skipif(os.name == "nt", reason="pipes with names")
@pytest.mark.parametrize("end", ["terminate", "parent gone"])
def test_a_child_ends_cleanly_in_the_middle_of_a_file(tmp_path, end):
    """The target is slow: its temporary file is on disk when the end comes."""
    lib = library(tmp_path / "models")
    big = {f"lora_unet_x_{i}.lora_down.weight": samples.values(str(i), (512, 1024)) for i in range(6)}
    big |= {f"lora_unet_x_{i}.lora_up.weight": samples.values(f"u{i}", (1024, 512)) for i in range(6)}
    for name in "abc":
        save(lib.drop / f"{name}.safetensors", {key: array + ord(name) for key, array in big.items()})
    before = {path.name: path.stat().st_size for path in lib.drop.glob("*.safetensors")}
    child = _child(lib)
    deadline = time.monotonic() + 60
    while not lib.temporary() and time.monotonic() < deadline:
        time.sleep(0.002)
    if end == "terminate":
        child.send_signal(signal.SIGTERM)
    else:
        child.stdin.close()
    killer = threading.Timer(60, child.kill)
    killer.start()
    assert child.wait() == 130
    killer.cancel()
    assert lib.temporary() == []
    places = [*lib.drop.glob("*.safetensors"), *(lib.drop / "Done").glob("*.safetensors")]
    assert {path.name: path.stat().st_size for path in places} == before
    assert last_run(lib.policy()).state == "cancelled"
    child.stdout.close(), child.stderr.close()
    if not child.stdin.closed:
        child.stdin.close()
