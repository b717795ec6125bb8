"""Long work behind a door: start it, ask how it goes, stop it, fetch what it made.

A job runs in a thread of its own and is known by an id that nobody can guess. Finished jobs are kept for a
while, so that a page which asks late still hears how it ended, and are then forgotten.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from lib_toolkit.counting import counted
from lib_toolkit.errors import CancelledError, ToolkitError, UsageError
from lib_toolkit.progress import Progress, Status

State: TypeAlias = Literal["running", "done", "failed", "cancelled"]

STARTING = Status("starting", 0, 0, 0.0, None)
"""What a job says before its work has counted anything."""


@dataclass(frozen=True, slots=True)
class JobView:
    """A moment of a job. ``message`` is a sentence when it failed or was cancelled, else empty."""

    id: str
    name: str
    state: State
    status: Status
    message: str
    cancelling: bool

    @property
    def running(self) -> bool:
        return self.state == "running"


@dataclass
class _Job:
    id: str
    name: str
    state: State = "running"
    status: Status = STARTING
    result: object = None
    error: ToolkitError | None = None
    ended: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)

    def view(self) -> JobView:
        message = str(self.error) if self.error is not None else ""
        return JobView(self.id, self.name, self.state, self.status, message, self.stop.is_set())


class Jobs:
    """The jobs of one server. Every method may be called from any thread.

    At most ``running`` jobs work at a time; of the finished ones the latest ``kept`` are remembered, none for
    longer than ``seconds``.
    """

    def __init__(self, running: int = 8, kept: int = 64, seconds: float = 3600.0) -> None:
        self._most_running = running
        self._most_kept = kept
        self._seconds = seconds
        self._jobs: dict[str, _Job] = {}
        self._lock = threading.Lock()

    def start(self, name: str, work: Callable[[Progress], object]) -> str:
        """Begin ``work`` in a thread and return the job's id.

        ``name`` says in words what is done, for messages. Raises UsageError when too much runs already.
        """
        job = _Job(secrets.token_urlsafe(24), name)
        with self._lock:
            self._forget_old()
            busy = [other.name for other in self._jobs.values() if other.state == "running"]
            if len(busy) >= self._most_running:
                run = "runs" if len(busy) == 1 else "run"
                raise UsageError(
                    f"{counted(len(busy), 'job')} {run} already ({busy[0]} …); wait for one to end, or cancel one."
                )
            self._jobs[job.id] = job
        threading.Thread(target=self._run, args=(job, work), name=f"job: {name}", daemon=True).start()
        return job.id

    def status(self, job_id: str) -> JobView:
        """How the job goes now. Raises UsageError for an id that is not, or no longer, known."""
        with self._lock:
            return self._find(job_id).view()

    def cancel(self, job_id: str) -> None:
        """Ask the job to stop; it does so at its next count of progress. Without effect once it has ended."""
        with self._lock:
            self._find(job_id).stop.set()

    def wait(self, job_id: str, seconds: float) -> JobView:
        """How the job goes when it has ended, or after ``seconds``, whichever comes first."""
        with self._lock:
            job = self._find(job_id)
        job.finished.wait(seconds)
        return self.status(job_id)

    def result(self, job_id: str) -> object:
        """What the work returned. Raises the ToolkitError that ended it, or UsageError while it still runs."""
        with self._lock:
            job = self._find(job_id)
            if job.error is not None:
                raise job.error
            if job.state == "running":
                raise UsageError(f"The job ({job.name}) still runs; wait until it has ended.")
            return job.result

    def take(self, job_id: str) -> object:
        """As ``result``, but the job then keeps it no longer: results may be large, and have one taker."""
        result = self.result(job_id)
        with self._lock:
            self._find(job_id).result = None
        return result

    def close(self, seconds: float = 10.0) -> None:
        """Stop everything and wait for it, at most ``seconds`` in all; for the end of the server."""
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            job.stop.set()
        deadline = time.monotonic() + seconds
        for job in jobs:
            job.finished.wait(max(0.0, deadline - time.monotonic()))

    def _find(self, job_id: str) -> _Job:
        self._forget_old()
        job = self._jobs.get(job_id)
        if job is None:
            raise UsageError("This job is not known any more; start the work again.")
        return job

    def _forget_old(self) -> None:
        ended = sorted((job for job in self._jobs.values() if job.state != "running"), key=lambda job: job.ended)
        limit = time.monotonic() - self._seconds
        surplus = max(0, len(ended) - self._most_kept)
        for position, job in enumerate(ended):
            if position < surplus or job.ended < limit:
                del self._jobs[job.id]

    def _run(self, job: _Job, work: Callable[[Progress], object]) -> None:
        def report(status: Status) -> None:
            with self._lock:
                job.status = status

        state: State = "failed"
        result: object = None
        error: ToolkitError | None = None
        try:
            result = work(Progress(report, job.stop.is_set))
            state = "done"
        except CancelledError as caught:
            state, error = "cancelled", caught
        except ToolkitError as caught:
            error = caught
        except BaseException as caught:
            error = _unforeseen(job.name, caught)
        with self._lock:
            job.state, job.result, job.error, job.ended = state, result, error, time.monotonic()
        job.finished.set()


def _unforeseen(name: str, error: BaseException) -> ToolkitError:
    """One sentence for a fault of ours or of the machine; the traceback is for a developer, not for a page."""
    if isinstance(error, MemoryError):
        return ToolkitError(f"There was not enough memory ({name}); close other programs and try again.")
    told = str(error).strip().splitlines()
    detail = f"{type(error).__name__}: {told[0][:300]}" if told else type(error).__name__
    return ToolkitError(f"Something unforeseen went wrong ({name}; {detail}); please report it with the file's kind.")
