"""Several small files at a time: the outcome is that of one after another, whatever thread is faster."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import replace

import pytest

from lib_toolkit.autoprune import last_run
from lib_toolkit.autoprune.journal import lines
from lib_toolkit.autoprune.line import Line, Stoppable, alone
from lib_toolkit.autoprune.run import run_once
from lib_toolkit.autoprune.steps import Step
from lib_toolkit.errors import CancelledError, TargetError
from lib_toolkit.progress import SILENT, Progress
from tests.autoprune import samples
from tests.autoprune.samples import save


@pytest.fixture
def lib(tmp_path):
    return samples.library(tmp_path / "models")


def mixture(lib):
    """Files whose outcome depends on which of them comes first, several times over."""
    for number in range(6):
        save(lib.drop / f"n{number}.ckpt", samples.lora(number))
        save(lib.drop / f"n{number}.safetensors", samples.lora(100 + number))
        (lib.drop / f"n{number}.png").write_text(f"picture {number}")
        save(lib.drop / f"t{number}.safetensors", samples.lora(200 + number))
        save(lib.drop / f"t{number} again.safetensors", samples.lora(200 + number))
        save(lib.drop / f"t{number} clean.safetensors", samples.lora(200 + number, "<f2"))
        save(lib.drop / "sub" / f"n{number}.safetensors", samples.lora(300 + number))
        (lib.drop / f"page{number}.ckpt").write_text("<html>")
        save(lib.drop / f"N{number}.pt", samples.lora(400 + number))


def contents(lib):
    return {name: (lib.root / name).read_bytes() for name in lib.files()}


def plain(run, lib):
    """Each file's step without what depends on the clock and on the place."""
    steps = {}
    for step in run.steps:
        told = replace(step, time="", target=step.target.removeprefix(str(lib.root)), sidecars=())
        steps[step.file] = told
    assert len(steps) == len(run.steps)
    return steps


@pytest.mark.parametrize("threads", [2, 4])
def test_the_outcome_is_that_of_one_file_after_another(lib, tmp_path, threads):
    mixture(lib)
    other = samples.library(tmp_path / "other" / "models")
    shutil.copytree(lib.drop, other.drop, dirs_exist_ok=True)
    one, several = lib.run(workers=1), other.run(workers=threads)
    assert one.counts == several.counts
    assert set(one.counts) == {"written", "duplicate", "failed"}
    mine, theirs = contents(lib), contents(other)
    assert mine.keys() == theirs.keys()
    assert {name for name in mine if mine[name] != theirs[name] and not name.endswith(".why.txt")} == set()
    assert plain(one, lib) == plain(several, other)
    assert lib.temporary() == other.temporary() == []


def test_steps_are_told_in_the_order_of_the_files_whatever_becomes_of_them(lib, monkeypatch):
    whole = save(lib.drop / "a.safetensors", samples.lora(1)).read_bytes()
    (lib.drop / "b.ckpt").write_text("<html>")
    save(lib.drop / "c.safetensors", samples.lora(2))
    (lib.drop / "d.safetensors").write_bytes(whole[:-100])  # the rest may still come
    save(lib.drop / "e.safetensors", samples.lora(3))
    (lib.drop / "f.ckpt").write_text("<html>")
    save(lib.drop / "g.safetensors", samples.lora(1))
    run = lib.run(workers=4)
    expected = ["written", "failed", "written", "waiting", "written", "failed", "duplicate"]
    assert [(step.file[0], step.outcome) for step in run.steps] == list(zip("abcdefg", expected, strict=True))
    assert last_run(lib.policy()).steps == run.steps
    intents = [line["file"][0] for line in lines(lib.drop) if line["line"] == "intent" and line["action"] == "failed"]
    assert intents == ["b", "f"]


def test_files_are_worked_on_at_the_same_time(lib, monkeypatch):
    from lib_toolkit.autoprune import processing

    for number in range(4):
        save(lib.drop / f"{number}.safetensors", samples.lora(number))
    usual, both = processing.write, threading.Barrier(2)

    def write(*given):
        both.wait(30)  # for another one that is being written
        return usual(*given)

    monkeypatch.setattr(processing, "write", write)
    assert lib.run(workers=2).counts == {"written": 4}


def test_cancelled_in_the_middle_all_is_whole_and_told(lib):
    for number in range(12):
        save(lib.drop / f"{number:02}.safetensors", samples.lora(number))
    ended = []

    def report(step):
        if step.outcome == "written":
            ended.append(step.file)

    with pytest.raises(CancelledError):
        run_once(lib.policy(workers=3), Progress(cancelled=lambda: len(ended) >= 4), report, pause=0.0)
    told = {step.file for step in last_run(lib.policy()).steps if step.outcome == "written"}
    assert last_run(lib.policy()).state == "cancelled"
    assert told == set(ended)
    assert {f"{name}" for name in lib.files("Lora")} == {f"Lora/{name}" for name in told}
    assert {path.name for path in lib.drop.glob("*.safetensors")} == {f"{n:02}.safetensors" for n in range(12)} - told
    assert lib.temporary() == []
    assert lib.run().counts == {"written": 12 - len(told)}


def test_a_journal_that_takes_no_more_ends_all(lib, monkeypatch):
    from lib_toolkit.autoprune.journal import Journal

    for number in range(8):
        save(lib.drop / f"{number}.safetensors", samples.lora(number))
    usual, count = Journal.write, []

    def write(self, line, table):
        count.append(line)
        if line == "step" and count.count("step") == 3:
            raise TargetError("The journal cannot be written.")
        usual(self, line, table)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "write", write)
        with pytest.raises(TargetError, match="journal"):
            lib.run(workers=2)
    assert lib.temporary() == []
    lib.run()
    assert sorted(name.split("/")[1] for name in lib.files("Lora")) == [f"{n}.safetensors" for n in range(8)]
    assert not list(lib.drop.glob("*.safetensors"))


def work(name, log, tasks):
    """What stands for the work on a file: each task is done elsewhere, None waits for those before."""
    for task in tasks:
        try:
            log.append((name, (yield task)))
        except TargetError as error:
            log.append((name, str(error)))
    return Step(name, "written")


def slow(result):
    def task():
        time.sleep(0.05)
        return result

    return task


def failing():
    raise TargetError("full")


def test_steps_end_in_the_order_of_the_files():
    log, ended = [], []
    with Line(3, Stoppable(SILENT), lambda step: ended.append(step.file)) as line:
        line.put(work("a", log, [slow(1)]))
        line.put(work("b", log, [lambda: 2, failing]))
        line.put(work("c", log, [None, slow(3)]))
        assert ended == ["a", "b"], "c has waited for both"
        line.put(work("d", log, []))
    assert sorted(ended) == ["a", "b", "c", "d"]
    assert log == [("a", 1), ("b", 2), ("b", "full"), ("c", None), ("c", 3)]


def test_one_that_takes_several_tasks_is_not_overtaken():
    ended = []
    with Line(3, Stoppable(SILENT), lambda step: ended.append(step.file)) as line:
        line.put(work("a", [], [slow(1), slow(2), slow(3)]))
        line.put(work("b", [], [slow(1), slow(2)]))
        line.put(work("c", [], [lambda: 1]))
    assert ended == ["a", "b", "c"]


def test_alone_does_the_same():
    log = []
    assert alone(work("a", log, [lambda: 1, None, failing])) == Step("a", "written")
    assert log == [("a", 1), ("a", None), ("a", "full")]


def test_an_error_of_one_stops_the_others():
    progress, ended, begun = Stoppable(SILENT), [], threading.Event()

    def until_stopped():
        begun.set()
        while True:
            progress.check()
            time.sleep(0.01)

    def crash():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Line(2, progress, ended.append) as line:
        line.put(work("a", [], [crash]))
        line.put(work("b", [], [until_stopped]))
        assert begun.wait(10)
        line.drain()
    assert ended == []
