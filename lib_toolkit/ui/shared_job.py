"""A job on the drop folder that every page knows of: at most one at a time, with the steps that it has told so far."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from lib_toolkit.autoprune import Policy, Run, Step
from lib_toolkit.autoprune.steps import BEGUN
from lib_toolkit.errors import UsageError
from lib_toolkit.jobs import Jobs, JobView
from lib_toolkit.progress import Progress

_END = 25.0
"""Seconds in which a job that was asked to stop has ended: its child is killed before."""

Note = Callable[[Step], None]

Runner = Callable[[Policy, Progress, Note], Run]


class SharedJob:
    """Every method but ``start`` may be called from any thread; ``id`` is that of the last job, empty before."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._steps: list[Step] = []
        self.id = ""

    def start(self, name: str, work: Callable[[Progress, Note], Run]) -> str:
        """Begin, when none is ``running``; the job's id. Raises UsageError when too many jobs run."""
        steps: list[Step] = []

        def note(step: Step) -> None:
            if step.outcome != BEGUN:
                steps.append(step)

        before, self._steps = self._steps, steps
        try:
            self.id = self._jobs.start(name, lambda progress: work(progress, note))
        except UsageError:
            self._steps = before
            raise
        return self.id

    @property
    def running(self) -> JobView | None:
        """The job that goes on now."""
        with contextlib.suppress(UsageError):  # it ended long ago
            view = self._jobs.status(self.id)
            return view if view.running else None
        return None

    @property
    def steps(self) -> tuple[Step, ...]:
        """What the job that goes on, or the last one, has told so far."""
        return tuple(self._steps)

    def cancel(self) -> bool:
        """Ask the job to stop; False when none goes on."""
        view = self.running
        if view is None:
            return False
        self._jobs.cancel(view.id)
        return True

    def end(self) -> None:
        """Stop the job, and wait for that."""
        view = self.running
        if view is not None:
            self._jobs.cancel(view.id)
            self._jobs.wait(view.id, _END)
