"""A run in a child: what it tells, its end in every way, and that nobody else's code gets in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from lib_toolkit.autoprune import last_run, starter
from lib_toolkit.autoprune.starter import run_in_child
from lib_toolkit.errors import CancelledError, ToolkitError
from lib_toolkit.progress import Progress
from tests.autoprune import samples
from tests.autoprune.samples import assert_halved, library, save


@pytest.fixture
def lib(tmp_path):
    return library(tmp_path / "models")


@pytest.fixture
def children(monkeypatch):
    """The processes that are started, and no window between start and note."""
    started = []
    usual = subprocess.Popen

    def popen(*arguments, **options):
        started.append(usual(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(starter.subprocess, "Popen", popen)
    return started


def many(lib, count=60):
    for seed in range(count):
        save(lib.drop / f"m{seed:03}.safetensors", samples.lora(seed, modules=1))


def places(lib):
    return sorted(path.name for path in (*lib.drop.glob("*.safetensors"), *(lib.drop / "Done").glob("*.safetensors")))


def test_steps_progress_and_the_run_come_back(lib):
    arrays = samples.lora()
    save(lib.drop / "sub" / "a.safetensors", arrays)
    (lib.drop / "bad.ckpt").write_text("<html>")
    steps, told = [], []
    run = run_in_child(lib.policy(), Progress(told.append), steps.append)
    assert run.state == "done"
    assert run.counts == {"failed": 1, "written": 1}
    assert [step.outcome for step in steps] == ["begun", "failed", "begun", "written"]
    assert run.steps == tuple(step for step in steps if step.outcome != "begun")
    assert last_run(lib.policy()).steps == run.steps
    assert_halved(lib.folder("lora") / "sub" / "a.safetensors", arrays)
    assert told[0].phase == "starting"
    assert any(status.phase == "2 small files" and status.total for status in told)


def test_a_dry_run_in_a_child_changes_nothing(lib):
    save(lib.drop / "a.safetensors", samples.lora())
    before = lib.files()
    steps = []
    run = run_in_child(lib.policy(), report=steps.append, dry=True)
    assert (run.counts, run.steps) == ({"planned": 1}, tuple(steps))
    assert (run.steps[0].foreseen, run.steps[0].target) == ("written", str(lib.folder("lora") / "a.safetensors"))
    assert lib.files() == before and last_run(lib.policy()) is None


def test_an_empty_folder_leaves_the_journal_as_it_is(lib):
    save(lib.drop / "a.safetensors", samples.lora())
    first = run_in_child(lib.policy())
    again = run_in_child(lib.policy())
    assert (again.state, again.steps) == ("done", ())
    assert last_run(lib.policy()).id == first.id, "the last run is the last one that did something"


def test_cancel_ends_the_child_and_leaves_nothing_half_written(lib, children):
    many(lib)
    before, stop = places(lib), threading.Event()

    def report(step):
        if step.outcome == "written":
            stop.set()

    with pytest.raises(CancelledError):
        run_in_child(lib.policy(), Progress(None, stop.is_set), report)
    assert children[0].poll() is not None
    assert lib.temporary() == []
    assert places(lib) == before
    done = len(lib.files("Lora"))
    assert 0 < done < len(before)
    assert last_run(lib.policy()).state == "cancelled"
    assert run_in_child(lib.policy()).counts == {"written": len(before) - done}


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_child_that_is_killed_is_an_error_in_words(lib, children):
    many(lib)

    def report(step):
        if step.outcome == "written":
            children[0].send_signal(signal.SIGKILL)

    with pytest.raises(ToolkitError, match="ended before its work was done"):
        run_in_child(lib.policy(), report=report)
    assert last_run(lib.policy()).state == "interrupted"
    run = run_in_child(lib.policy())
    assert run.state == "done"
    assert lib.temporary() == []
    assert len(lib.files("Lora")) == 60


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_child_that_does_not_listen_is_killed(lib, children, monkeypatch):
    monkeypatch.setattr(starter, "_PATIENCE", 0.2)
    many(lib)
    stop = threading.Event()

    def report(step):
        children[0].send_signal(signal.SIGSTOP)
        stop.set()

    with pytest.raises(CancelledError):
        run_in_child(lib.policy(), Progress(None, stop.is_set), report)
    assert children[0].returncode == -signal.SIGKILL


def test_what_the_child_cannot_do_is_its_own_sentence(lib):
    (lib.root / "Lora").mkdir()
    policy = lib.policy()
    lib.drop.rmdir()
    lib.drop.write_text("a file in place of the folder")
    with pytest.raises(ToolkitError, match="cannot be used: it is a file; take that away, or name another one"):
        run_in_child(policy)


def test_another_run_on_the_folder_is_no_error(lib):
    from lib_toolkit.autoprune.lock import FolderLock

    many(lib, 1)
    with FolderLock(lib.drop):
        run = run_in_child(lib.policy())
    assert run.state == "busy"
    assert "deals with what lies there" in run.reason


def test_packages_of_the_environment_and_the_folder_do_not_come_first(lib, tmp_path, monkeypatch):
    evil = tmp_path / "evil"
    for folder in (evil, lib.root, lib.drop):
        (folder / "lib_toolkit").mkdir(parents=True)
        (folder / "lib_toolkit" / "__init__.py").write_text(f"open({str(tmp_path / 'acted')!r}, 'w').close()")
    for folder in (lib.root, lib.drop):
        (folder / "json.py").write_text(f"open({str(tmp_path / 'acted')!r}, 'w').close()")
    monkeypatch.setenv("PYTHONPATH", str(evil))
    monkeypatch.chdir(lib.drop)
    save(lib.drop / "a.safetensors", samples.lora())
    assert run_in_child(lib.policy()).counts == {"written": 1, "left": 2}
    assert not (tmp_path / "acted").exists()


def test_without_a_python_of_its_own_it_says_so(lib, monkeypatch):
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(ToolkitError, match="model-toolkit autoprune"):
        run_in_child(lib.policy())
    monkeypatch.setattr(sys, "executable", str(lib.root / "no-python"))
    with pytest.raises(ToolkitError, match="could not be started"):
        run_in_child(lib.policy())


@pytest.mark.skipif(not hasattr(os, "getpgid"), reason="groups of processes")
def test_an_interrupt_at_the_terminal_does_not_reach_the_child(lib, children):
    many(lib, 3)
    groups = []
    run_in_child(lib.policy(), report=lambda step: groups.append(os.getpgid(children[0].pid)))
    assert set(groups) == {children[0].pid} != {os.getpgid(0)}
