"""Autoprune for one host: the run that goes on, known to every page, and the one at the host's start.

A run is a child process, watched by a job. There is at most one of ours; another WebUI's on the same folder is told
apart by the folder's lock. Reload UI ends it and begins anew, and what lives here goes on meanwhile. A preview gives
way to a run.
"""

from __future__ import annotations

import threading

from lib_toolkit.autoprune import Policy, Run, Step, policy_of
from lib_toolkit.autoprune.sorting import PLACES
from lib_toolkit.autoprune.starter import run_in_child
from lib_toolkit.autoprune.steps import DEALT_WITH, MOVED, WRITTEN
from lib_toolkit.autoprune.telling import summary
from lib_toolkit.errors import UsageError
from lib_toolkit.hosts.host import Host
from lib_toolkit.jobs import Jobs, JobView
from lib_toolkit.progress import Progress
from lib_toolkit.ui.previews import Previews
from lib_toolkit.ui.shared_job import Note, Runner, SharedJob

_FILED = frozenset({WRITTEN, MOVED})


class Pruner:
    """Runs over the drop folder, one at a time. Every method may be called from any thread."""

    def __init__(self, host: Host, jobs: Jobs, runner: Runner = run_in_child) -> None:
        self.host = host
        self._jobs = jobs
        self._runner = runner
        self.previews = Previews(jobs)
        self._lock = threading.Lock()
        self._last = SharedJob(jobs)
        self._notes: tuple[str, ...] = ()

    def begin(self, tell: bool = False) -> str:
        """Begin a run, or go on with the one that runs; its job's id. ``tell``: say on the console what it did.

        Raises UsageError when it cannot be.
        """
        with self._lock:
            if self.running is None:
                policy = policy_of(self.host)
                self.previews.give_way()
                self._notes = ()
                self._last.start("autopruning", lambda progress, note: self._run(policy, progress, note, tell))
            return self._last.id

    def preview(self) -> str:
        """Begin to look what a run would do, or go on with the look that goes on; its job's id.

        Raises UsageError when it cannot be, and while a run of ours goes on.
        """
        with self._lock:
            if self.running is not None:
                raise UsageError("Autoprune works on what lies in its folder; preview what is left when it has ended.")
            return self.previews.begin(policy_of(self.host))

    @property
    def running(self) -> JobView | None:
        """The run that goes on now."""
        return self._last.running

    @property
    def steps(self) -> tuple[Step, ...]:
        """What the run that goes on, or the last one of ours, has done so far."""
        return self._last.steps

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user has to do to see in the host what the last run of ours has filed, in sentences."""
        return self._notes

    @property
    def changed(self) -> str:
        """A mark of the last run of ours that brought models into the host's folders; empty before the first one."""
        done = self.running is None and any(step.outcome in DEALT_WITH for step in self.steps)
        return f"autoprune:{self._last.id}" if done else ""

    def outcome(self, job: str) -> tuple[str, bool]:
        """How a run ended, in a sentence, and whether as was wished. Raises UsageError when it is forgotten."""
        view = self._jobs.status(job)
        if view.state != "done":
            return view.message, view.state == "cancelled"
        result = self._jobs.result(job)
        assert isinstance(result, Run)
        return summary(result), result.state == "done"

    def cancel(self) -> bool:
        """Ask the run to stop; False when none goes on."""
        return self._last.cancel()

    def started(self) -> None:
        """The host is up: begin a run where the setting says so. Never raises, and waits for nothing."""
        try:
            if self.host.setting("autoprune", False) is True:
                self.begin(tell=True)
        except Exception as error:
            # Whatever it is, the host's own start goes on.
            print(f"Model Toolkit: autopruning cannot begin: {error}")

    def ended(self) -> None:
        """The host lets go of the tab: end the run or the preview, and wait for that."""
        self.previews.end()
        self._last.end()
        self._notes = ()

    def _run(self, policy: Policy, progress: Progress, note: Note, tell: bool) -> Run:
        try:
            self.previews.end()  # on some systems nobody can move a file while a preview reads it
            run = self._runner(policy, progress, note)
        finally:
            self._notes = self._refresh()
        if tell and run.steps:
            print(f"Model Toolkit: autopruning has ended. {' '.join((summary(run), *self._notes))}")
        return run

    def _refresh(self) -> tuple[str, ...]:
        """Make the host's lists of those kinds afresh that were filed; returns what the user has to do."""
        filed = {PLACES[step.kind].folder for step in self.steps if step.outcome in _FILED and step.kind in PLACES}
        return tuple(told for kind in sorted(filed) if (told := self.host.refresh(kind)))
