"""What a run of Autoprune would do: looked at by a child that changes nothing, for every page that wants to know.

There is at most one look at a time. It gives way to runs, whose files it could hold open, and does not begin beside one
of another program, which would take the files away under its eyes.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass

from lib_toolkit.autoprune import Policy, Run, Step
from lib_toolkit.autoprune.lock import is_held
from lib_toolkit.autoprune.starter import run_in_child
from lib_toolkit.autoprune.telling import summary
from lib_toolkit.errors import UsageError
from lib_toolkit.jobs import Jobs, JobView
from lib_toolkit.progress import Progress
from lib_toolkit.reports.numbers import counted
from lib_toolkit.ui.shared_job import Note, Runner, SharedJob


def dry_run(policy: Policy, progress: Progress, report: Note) -> Run:
    """A dry run in a child."""
    return run_in_child(policy, progress, report, dry=True)


@dataclass(frozen=True)
class Outlook:
    """How a preview ended, in a sentence, and what it found until then; not ``good``: it could not be made."""

    said: str
    steps: tuple[Step, ...] = ()
    good: bool = True


class Previews:
    """One preview at a time. Every method may be called from any thread."""

    def __init__(self, jobs: Jobs, runner: Runner = dry_run) -> None:
        self._jobs = jobs
        self._runner = runner
        self._lock = threading.Lock()
        self._look = SharedJob(jobs)
        self._outdated = ""

    def begin(self, policy: Policy) -> str:
        """Begin to look, or go on with the look that goes on; its job's id. Raises UsageError when it cannot be."""
        with self._lock:
            if self.running is None:
                self._look.start("previewing", lambda progress, note: self._run(policy, progress, note))
            return self._look.id

    @property
    def running(self) -> JobView | None:
        """The look that goes on now."""
        return self._look.running

    @property
    def steps(self) -> tuple[Step, ...]:
        """What the look that goes on, or the last one, has found so far."""
        return self._look.steps

    def outcome(self, job: str) -> Outlook | None:
        """How the last look ended; None when ``job`` is not the last look's, or forgotten, or a run came after it."""
        if job != self._look.id or job in {"", self._outdated}:
            return None
        with contextlib.suppress(UsageError):
            view = self._jobs.status(job)
            if view.state == "cancelled":
                count = counted(len(self.steps), "file")
                return Outlook(f"The preview was stopped after {count}; nothing was changed.", self.steps)
            if view.state != "done":
                return Outlook(view.message, good=False)
            result = self._jobs.result(job)
            assert isinstance(result, Run)
            return Outlook(summary(result), result.steps)
        return None

    def cancel(self) -> bool:
        """Ask the look to stop; False when none goes on."""
        return self._look.cancel()

    def give_way(self) -> None:
        """A run begins: stop the look; what it found is no longer true."""
        self._outdated = self._look.id
        self.cancel()

    def end(self) -> None:
        """Stop the look, and wait for that."""
        self._look.end()

    def _run(self, policy: Policy, progress: Progress, note: Note) -> Run:
        _check_free(policy)
        run = self._runner(policy, progress, note)
        _check_free(policy)
        return run


def _check_free(policy: Policy) -> None:
    if is_held(policy.real_drop):
        raise UsageError(f"Another run works on {policy.drop.name} now; preview what is left when it has ended.")
