"""What was written goes to the disk early, and a failure of that is not lost."""

from __future__ import annotations

import os
import threading

import pytest

from lib_toolkit import flushing
from lib_toolkit.errors import TargetError
from lib_toolkit.temporary import TemporaryFile

pytestmark = pytest.mark.skipif(not hasattr(os, "fdatasync"), reason="this system has no fdatasync")

DATA = memoryview(bytes(1000))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(flushing, "FLUSH", 2500)


def test_every_so_many_bytes_are_sent_to_the_disk(tmp_path, monkeypatch):
    sent, usual = [], os.fdatasync
    reached = threading.Semaphore(0)

    def note(fd):
        usual(fd)
        sent.append(os.fstat(fd).st_size)
        reached.release()

    monkeypatch.setattr(os, "fdatasync", note)
    with TemporaryFile(tmp_path / "a") as file:
        for number in range(6):
            file.write_at(1000 * number, DATA)
            if number in {2, 5}:
                assert reached.acquire(timeout=10)
        file.sync()
        file.commit()
    assert len(sent) == 2
    assert (tmp_path / "a").read_bytes() == bytes(6000)


def test_a_failure_is_told_by_sync_although_the_system_tells_it_once(tmp_path, monkeypatch):
    tried = threading.Event()

    def fail(fd):
        tried.set()
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    with TemporaryFile(tmp_path / "a") as file:
        for number in range(6):
            file.write_at(1000 * number, DATA)
        assert tried.wait(10)
        with pytest.raises(TargetError, match="Input/output error"):
            file.sync()
    assert list(tmp_path.iterdir()) == []


def test_leaving_early_waits_for_the_flush_and_removes_the_file(tmp_path, monkeypatch):
    begun, go = threading.Event(), threading.Event()
    states = []

    def slow(fd):
        begun.set()
        go.wait(10)
        states.append(os.fstat(fd).st_size)

    monkeypatch.setattr(os, "fdatasync", slow)
    with pytest.raises(RuntimeError, match="stop"), TemporaryFile(tmp_path / "a") as file:
        for number in range(3):
            file.write_at(1000 * number, DATA)
        assert begun.wait(10)
        threading.Timer(0.2, go.set).start()
        raise RuntimeError("stop")
    assert states == [3000], "the file was still open"
    assert list(tmp_path.iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name == "flush"]
