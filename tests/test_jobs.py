"""Jobs: every end of a job, its limits, and that no traceback reaches who asks."""

from __future__ import annotations

import threading
import time

import pytest

from lib_toolkit.errors import CancelledError, FormatError, ToolkitError, UsageError
from lib_toolkit.jobs import Jobs

SOON = 5.0


def counting(progress, steps=10_000):
    """Long work that counts: 10,000 × 1 ms."""
    progress.start("counting", steps)
    for _ in range(steps):
        time.sleep(0.001)
        progress.advance(1)
    return "counted"


def test_result_and_progress_of_a_job():
    jobs = Jobs()
    job = jobs.start("adding", lambda progress: 2 + 3)
    assert jobs.wait(job, SOON).state == "done"
    assert jobs.result(job) == 5
    assert jobs.status(job).message == ""
    assert jobs.take(job) == 5
    assert jobs.result(job) is None, "a large result is not kept beside its taker's"


def test_first_progress_is_there_at_once_and_figures_follow():
    jobs = Jobs()
    job = jobs.start("counting", counting)
    first = jobs.status(job)
    assert first.running
    assert first.status.phase in {"starting", "counting"}
    deadline = time.monotonic() + SOON
    while (view := jobs.status(job)).status.done < 100 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert view.status.phase == "counting"
    assert view.status.total == 10_000
    assert 100 <= view.status.done < 10_000
    assert view.status.speed > 0
    with pytest.raises(UsageError, match="still runs"):
        jobs.result(job)
    jobs.cancel(job)
    assert jobs.wait(job, SOON).state == "cancelled"


def test_cancel_is_said_and_kept():
    jobs = Jobs()
    job = jobs.start("counting", counting)
    jobs.cancel(job)
    view = jobs.wait(job, SOON)
    assert (view.state, view.cancelling) == ("cancelled", True)
    assert "nothing was left behind" in view.message
    with pytest.raises(CancelledError):
        jobs.result(job)


def test_cancel_after_the_end_changes_nothing():
    jobs = Jobs()
    job = jobs.start("adding", lambda progress: "kept")
    jobs.wait(job, SOON)
    jobs.cancel(job)
    assert jobs.status(job).state == "done"
    assert jobs.result(job) == "kept"


def test_our_own_errors_keep_their_sentence():
    def fail(progress):
        raise FormatError("x.ckpt is empty; get it again.")

    jobs = Jobs()
    job = jobs.start("loading x.ckpt", fail)
    assert jobs.wait(job, SOON).message == "x.ckpt is empty; get it again."
    with pytest.raises(FormatError):
        jobs.result(job)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (KeyError("secret\nsecond line"), "KeyError"),
        (ZeroDivisionError(), "ZeroDivisionError"),
        (SystemExit(3), "SystemExit"),
    ],
)
def test_other_errors_become_one_sentence_without_a_traceback(error, told):
    def fail(progress):
        raise error

    jobs = Jobs()
    job = jobs.start("loading x", fail)
    view = jobs.wait(job, SOON)
    assert view.state == "failed"
    assert told in view.message
    assert "\n" not in view.message
    assert "Traceback" not in view.message
    assert "jobs.py" not in view.message
    with pytest.raises(ToolkitError, match=told):
        jobs.result(job)


def test_lack_of_memory_has_its_own_sentence():
    def fail(progress):
        raise MemoryError

    jobs = Jobs()
    assert "memory" in jobs.wait(jobs.start("loading x", fail), SOON).message


def test_ids_cannot_be_guessed_and_unknown_ones_are_refused():
    jobs = Jobs()
    ids = {jobs.start("nothing", lambda progress: None) for _ in range(8)}
    assert len(ids) == 8
    assert all(len(job) >= 32 for job in ids)
    for ask in (jobs.status, jobs.cancel, jobs.result):
        with pytest.raises(UsageError, match="not known"):
            ask("0")


def test_no_more_jobs_run_than_allowed():
    jobs, gate = Jobs(running=2), threading.Event()
    held = [jobs.start(f"job {n}", lambda progress: gate.wait(SOON)) for n in range(2)]
    with pytest.raises(UsageError, match="2 jobs run already"):
        jobs.start("one more", lambda progress: None)
    gate.set()
    for job in held:
        jobs.wait(job, SOON)
    jobs.start("now it may", lambda progress: None)


def test_finished_jobs_are_forgotten_by_number_and_age():
    jobs = Jobs(kept=3)
    done = [jobs.start(str(n), lambda progress: None) for n in range(6) if not time.sleep(0.01)]
    for job in done[-3:]:
        assert jobs.wait(job, SOON).state == "done"
    with pytest.raises(UsageError, match="not known"):
        jobs.status(done[0])
    short = Jobs(seconds=0.05)
    job = short.start("nothing", lambda progress: None)
    short.wait(job, SOON)
    time.sleep(0.1)
    with pytest.raises(UsageError, match="not known"):
        short.result(job)


def test_close_stops_what_runs():
    jobs = Jobs()
    running = [jobs.start("counting", counting) for _ in range(3)]
    begun = time.monotonic()
    jobs.close(SOON)
    assert time.monotonic() - begun < SOON
    assert [jobs.status(job).state for job in running] == ["cancelled"] * 3


def test_many_threads_may_ask_at_once():
    jobs = Jobs(running=50)
    results: list[object] = []

    def one(number):
        job = jobs.start(f"job {number}", lambda progress: number)
        while jobs.status(job).running:
            time.sleep(0.001)
        results.append(jobs.result(job))

    threads = [threading.Thread(target=one, args=(n,)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert sorted(results) == list(range(40))
