"""What the tab's controls do: each method takes what the browser sent and answers with changes of the page.

Nothing from the browser is trusted: models are looked up in the host's listing, names are checked, choices are
compared with their tables. An error becomes a sentence in the status line, and the tab stays usable.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from lib_toolkit.edits.recipes import Wishes
from lib_toolkit.errors import ToolkitError, UsageError
from lib_toolkit.hosts.host import Host
from lib_toolkit.jobs import Jobs, JobView
from lib_toolkit.plan import SUFFIXES
from lib_toolkit.progress import Progress
from lib_toolkit.reports.summary import Preview
from lib_toolkit.ui import panel, saving, screen, workspace
from lib_toolkit.ui.saving import Saved
from lib_toolkit.ui.screen import Updates, merge
from lib_toolkit.ui.workspace import Controls, Opened, Purpose, Running, Session, Workspace

PATIENCE = 0.15
"""Seconds that a click waits for its result before it shows progress instead."""

REMAIN = 2.0
"""Seconds that a refusal stays readable while a job goes on reporting."""

LATE = "What was loaded here has been forgotten, since it was long ago; load the model again."


class Actions:
    """The tab's behaviour for one host. Methods return the session's key and the changes of the page."""

    def __init__(self, host: Host, jobs: Jobs, sessions: Workspace | None = None) -> None:
        self.host = host
        self.jobs = jobs
        self.sessions = sessions or Workspace()

    def refresh(self, key: str | None) -> tuple[str, Updates]:
        """List the models again."""

        def listed(session: Session) -> Updates:
            labels = [entry.label for entry in self.host.models()]
            told = f"{len(labels):,} models found."
            if not labels:
                told = "No models were found; put some into the models folder, then press Refresh."
            if session.loaded is not None or session.running is not None:
                return {"source": {"choices": labels}}
            return merge({"source": {"choices": labels}}, screen.status(told))

        return self._answer(key, listed)

    def load(self, key: str | None, label: str, controls: Controls) -> tuple[str, Updates]:
        """Look at a model."""

        def begin(session: Session) -> Updates:
            self._not_while_saving(session)
            chosen = controls.checked()
            entry = self.host.find(str(label or ""))
            wishes = Wishes(chosen.precision, fix_clip=self.host.setting("fix_clip", False) is True)
            file_format = chosen.file_format

            def work(progress: Progress) -> Opened:
                return workspace.load(entry, wishes, file_format, progress)

            session.wishes, session.file_format = wishes, file_format
            return self._start(session, "load", entry.path.name, work)

        return self._answer(key, begin)

    def change(self, key: str | None, controls: Controls) -> tuple[str, Updates]:
        """Take over changed wishes, name or format, and plan again."""

        def changed(session: Session) -> Updates:
            loaded = session.loaded
            planned = (session.wishes, session.file_format)
            session.take(controls.checked())
            if loaded is None:
                return {}
            if session.running is not None and session.running.purpose != "preview":
                session.stale = True
                return {}
            if planned == (session.wishes, session.file_format) and session.preview is not None:
                return panel.saving(self.host, session)
            return self._replan(session)

        return self._answer(key, changed)

    def save(self, key: str | None, controls: Controls) -> tuple[str, Updates]:
        """Write what was previewed."""

        def begin(session: Session) -> Updates:
            self._not_while_saving(session)
            if session.loaded is None:
                raise UsageError("There is nothing to save yet: choose a model under Source and press Load first.")
            session.take(controls.checked())
            job = saving.prepare(self.host, session)
            return self._start(session, "save", job.target.name, job.run)

        return self._answer(key, begin)

    def clear(self, key: str | None) -> tuple[str, Updates]:
        """Forget the model; nothing on disk changes."""

        def cleared(session: Session) -> Updates:
            self._not_while_saving(session)
            self._drop_job(session)
            session.forget()
            session.wishes = Wishes(session.wishes.precision)
            return merge(screen.blank(), panel.no_findings(), screen.idle(), screen.status("Cleared."))

        return self._answer(key, cleared)

    def cancel(self, key: str | None) -> tuple[str, Updates]:
        """Stop what runs."""

        def stop(session: Session) -> Updates:
            if session.running is None:
                return merge(screen.idle(), screen.status("Nothing runs that could be cancelled."))
            self.jobs.cancel(session.running.job)
            return self._look(session, self.jobs.wait(session.running.job, PATIENCE))

        return self._answer(key, stop)

    def poll(self, key: str | None) -> tuple[str, Updates]:
        """How the job goes that the page waits for."""

        def look(session: Session) -> Updates:
            if session.running is None:
                return screen.idle()
            return self._look(session, self.jobs.status(session.running.job))

        return self._answer(key, look)

    def _answer(self, key: str | None, action: Callable[[Session], Updates]) -> tuple[str, Updates]:
        """Run an action on the session of a key; an error is said in the status line."""
        known = key or None
        key, session = self.sessions.session(known, self._fresh())
        with session.lock:
            try:
                if known is not None and key != known:
                    return key, merge(screen.blank(), panel.no_findings(), screen.idle(), screen.status(LATE, "error"))
                return key, action(session)
            except ToolkitError as error:
                settled = screen.idle() if session.running is None else {}
                session.refusal = (str(error), time.monotonic() + REMAIN)
                return key, merge(settled, screen.status(str(error), "error"))

    def _fresh(self) -> Session:
        file_format = str(self.host.setting("format", "safetensors"))
        return Session(file_format=file_format if file_format in SUFFIXES else "safetensors")

    def _not_while_saving(self, session: Session) -> None:
        if session.running is not None and session.running.purpose == "save":
            raise UsageError(f"{session.running.subject} is still being saved; wait until it is done, or cancel it.")

    def _drop_job(self, session: Session) -> None:
        """Give up a load or preview whose result nobody waits for any more."""
        if session.running is not None:
            self.jobs.cancel(session.running.job)
            session.running = None

    def _start(self, session: Session, purpose: Purpose, subject: str, work: Callable[[Progress], object]) -> Updates:
        self._drop_job(session)
        name = {"load": "loading", "preview": "planning", "save": "saving"}[purpose] + f" {subject}"
        session.running = Running(self.jobs.start(name, work), purpose, subject)
        session.refusal = ("", 0.0)
        if purpose != "preview":
            session.stale = False
        return self._look(session, self.jobs.wait(session.running.job, PATIENCE))

    def _replan(self, session: Session) -> Updates:
        loaded, wishes, file_format = session.loaded, session.wishes, session.file_format
        assert loaded is not None

        def work(progress: Progress) -> Preview:
            return workspace.preview(loaded, wishes, file_format, progress)

        return self._start(session, "preview", loaded.entry.path.name, work)

    def _look(self, session: Session, view: JobView) -> Updates:
        """Show a job's progress, or take over its result."""
        running = session.running
        assert running is not None
        if view.running:
            session.step += 1
            busy: Updates = {}
            if running.purpose != "preview":
                verb = "Loading" if running.purpose == "load" else "Saving"
                refusal, until = session.refusal
                refused = time.monotonic() < until
                busy = (
                    screen.status(refusal, "error") if refused else screen.status(f"{verb} {running.subject} …", "busy")
                )
            return merge(busy, screen.running(view, session.step))
        session.running = None
        if view.state != "done":
            tone = "info" if view.state == "cancelled" else "error"
            shown = merge(screen.idle(), screen.status(view.message, tone))
        else:
            shown = merge(screen.idle(), self._take(session, self.jobs.result(view.id)))
        if session.stale and session.loaded is not None:
            session.stale = False
            shown = merge(shown, self._replan(session))
        return shown

    def _take(self, session: Session, result: object) -> Updates:
        if isinstance(result, Opened):
            session.loaded, session.preview = result.loaded, result.preview
            session.name = ""
            said = f"Loaded {result.loaded.entry.name}; nothing is changed on disk yet."
            return merge(panel.loaded(self.host, session), screen.status(said, "good"))
        if isinstance(result, Preview):
            session.preview = result
            return panel.planned(self.host, session)
        assert isinstance(result, Saved)
        self.host.refresh(result.kind)
        choices: Updates = {"source": {"choices": [entry.label for entry in self.host.models()]}}
        return merge(choices, screen.status(result.sentence(), "good"))
