"""Where clicks arrive: the session of each browser tab, its one running job, and what becomes of the result.

An error becomes a sentence in the status line, and the tab stays usable.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Hashable, Iterable, Sequence

from lib_toolkit.edits.components import new_names
from lib_toolkit.edits.recipes import Wishes
from lib_toolkit.errors import ToolkitError, UsageError
from lib_toolkit.hosts.host import Entry, Host
from lib_toolkit.jobs import Jobs, JobView
from lib_toolkit.plan import SUFFIXES
from lib_toolkit.progress import Progress
from lib_toolkit.ui import advanced_panel, looking, measuring, panel, screen
from lib_toolkit.ui.known import Known
from lib_toolkit.ui.measuring import Measured
from lib_toolkit.ui.screen import Updates, merge
from lib_toolkit.ui.workspace import LASTING, Purpose, Running, Session, Workspace

PATIENCE = 0.15
"""Seconds that a click waits for its result before it shows progress instead."""

REMAIN = 4.0
"""Seconds that a refusal stays readable while a job goes on reporting."""

LATE = "What was loaded here has been forgotten, since it was long ago; load the model again."

_SAYING = frozenset({"status", "saving", "identity", "report_view", "compare_view", "autoprune_view"})
"""The parts of the page that say sentences, which may name files."""

_DOING: dict[Purpose, str] = {
    "load": "Loading",
    "preview": "Planning",
    "import": "Importing from",
    "undo": "Undoing in",
    "save": "Saving",
    "export": "Exporting",
    "report": "Reporting on",
    "compare": "Comparing",
}
"""What is said while a job runs, before what it works on."""

Taker = Callable[[Session, object], Updates]
"""Takes over the result of a job."""


class Desk:
    """Sessions and jobs of one host. Answers are the session's key and the changes of the page."""

    def __init__(self, host: Host, jobs: Jobs, sessions: Workspace | None = None) -> None:
        self.host = host
        self.jobs = jobs
        self.sessions = sessions or Workspace()
        self._takers: dict[type, Taker] = {}
        self._lists: list[Callable[[Sequence[Entry]], Updates]] = []
        self.known = Known()

    def hands_to(self, result: type, taker: Taker) -> None:
        """Give every job's result of this type to ``taker``."""
        self._takers[result] = taker

    def lists(self, choices: Callable[[Sequence[Entry]], Updates]) -> None:
        """Renew these choices too whenever the models are listed again."""
        self._lists.append(choices)

    def models(self) -> tuple[Entry, ...]:
        """The models to choose from, as they are on disk now, with what is known of them in their labels."""
        return self.known.shown(self.host.models())

    def choices(self) -> Updates:
        """The choices of every list of models."""
        entries = self.models()
        labels = [entry.label for entry in entries]
        own: Updates = {"source": {"choices": [*labels, *new_names()]}, "import_source": {"choices": labels}}
        return merge(own, *(listed(entries) for listed in self._lists))

    def answer(self, key: str | None, action: Callable[[Session], Updates]) -> tuple[str, Updates]:
        """Run an action on the session of a key; an error is said in the status line. No text of the answer says
        where folders lie on this computer."""
        key, updates = self._answered(key, action)
        return key, {part: self._private(part, properties) for part, properties in updates.items()}

    def _private(self, part: str, properties: dict[str, object]) -> dict[str, object]:
        value = properties.get("value")
        if part not in _SAYING or not isinstance(value, str):
            return properties
        return {**properties, "value": self.host.private(value)}

    def _answered(self, key: str | None, action: Callable[[Session], Updates]) -> tuple[str, Updates]:
        known = key if isinstance(key, str) and key else None
        key, session = self.sessions.session(known, self._fresh())
        with session.lock:
            try:
                if known is not None and key != known:
                    return key, merge(empty(), screen.idle(), screen.status(LATE, "error"))
                return key, action(session)
            except ToolkitError as error:
                settled = self.rest(session) if session.running is None else {}
                session.refusal = (str(error), time.monotonic() + REMAIN)
                return key, merge(settled, screen.status(str(error), "error"))

    def _fresh(self) -> Session:
        file_format = str(self.host.setting("format", "safetensors"))
        return Session(file_format=file_format if file_format in SUFFIXES else "safetensors")

    def not_while(self, session: Session, purposes: Iterable[Purpose] = tuple(LASTING)) -> None:
        """Raise UsageError while work of these kinds runs that is not given up for another click."""
        running = session.running
        if running is not None and running.purpose in purposes:
            word = LASTING[running.purpose]
            raise UsageError(f"{running.subject} is still being {word}; wait until it is done, or cancel it.")

    def asks(self, session: Session, about: Hashable, question: str) -> Updates | None:
        """The question, when this click has not just been answered with it; None for the second such click."""
        if session.asked == about:
            session.asked = None
            return None
        session.asked = about
        return screen.status(question, "error")

    def drop_job(self, session: Session) -> None:
        """Give up a job whose result nobody waits for any more."""
        if session.running is not None:
            with contextlib.suppress(UsageError):  # it ended long ago
                self.jobs.cancel(session.running.job)
            session.running = None

    def start(self, session: Session, purpose: Purpose, subject: str, work: Callable[[Progress], object]) -> Updates:
        """Begin a job in place of the one that runs, and say how it goes."""
        self.drop_job(session)
        name = f"{_DOING[purpose].lower()} {subject}"
        session.running = Running(self.jobs.start(name, work), purpose, subject)
        session.refusal, session.asked = ("", 0.0), None
        if purpose != "preview":
            session.stale = False
        return self.look(session, self.jobs.wait(session.running.job, PATIENCE))

    def replan(self, session: Session) -> Updates:
        """Plan what is loaded again, with the session's wishes of now."""
        loaded, wishes, file_format = session.loaded, session.wishes, session.file_format
        assert loaded is not None
        return self.start(
            session, "preview", loaded.name, lambda progress: looking.preview(loaded, wishes, file_format, progress)
        )

    def poll(self, session: Session) -> Updates:
        """How the job goes that the page waits for."""
        if session.running is None:
            return self._measured(session)
        try:
            view = self.jobs.status(session.running.job)
        except UsageError:
            session.running = None
            raise
        return self.look(session, view)

    def cancel(self, session: Session) -> Updates:
        """Stop what runs."""
        if session.running is None and session.measuring:
            self.stop_measuring(session)
            return merge(screen.idle(), panel.identity(session), screen.status("The metric is not computed."))
        if session.running is None:
            return merge(screen.idle(), screen.status("Nothing runs that could be cancelled."))
        self.jobs.cancel(session.running.job)
        return self.look(session, self.jobs.wait(session.running.job, PATIENCE))

    def start_measuring(self, session: Session) -> None:
        """Compute the metric of what is loaded, where one is defined and not known, behind everything else."""
        self.stop_measuring(session)
        loaded, before = session.loaded, session.measured
        if loaded is None or session.metric is not None:
            return
        stale = measuring.stale_figures(loaded.draft, before)
        cost = sum(size for figure, size in loaded.figures.items() if figure in stale)
        if not loaded.figures or cost > measuring.LARGEST:
            return
        # Where too much runs already, the page goes without.
        with contextlib.suppress(UsageError):
            session.measuring = self.jobs.start(
                f"computing the metric of {loaded.name}",
                lambda progress: measuring.measure(loaded.draft, before, progress),
            )

    def stop_measuring(self, session: Session) -> None:
        """Give the metric up."""
        if session.measuring:
            with contextlib.suppress(UsageError):
                self.jobs.cancel(session.measuring)
            session.measuring = ""

    def rest(self, session: Session) -> Updates:
        """No job runs that was clicked for; the metric may still be on its way."""
        if not session.measuring:
            return screen.idle()
        try:
            view = self.jobs.status(session.measuring)
        except UsageError:
            session.measuring = ""
            return screen.idle()
        session.step += 1
        return screen.running(view, session.step)

    def _measured(self, session: Session) -> Updates:
        """The metric, when it is there."""
        shown = self.rest(session)
        if not session.measuring:
            return shown
        view = self.jobs.status(session.measuring)
        if view.running:
            return shown
        session.measuring = ""
        if view.state == "done":
            result = self.jobs.take(view.id)
            assert isinstance(result, Measured)
            session.measured = result
        measured = panel.measured(self.host, session) if session.loaded is not None else {}
        return merge(screen.idle(), measured)

    def look(self, session: Session, view: JobView) -> Updates:
        """Show a job's progress, or take over its result."""
        running = session.running
        assert running is not None
        if view.running:
            session.step += 1
            return merge(self._busy(session, running), screen.running(view, session.step))
        session.running = None
        if view.state != "done":
            tone = "info" if view.state == "cancelled" else "error"
            shown = screen.status(view.message, tone)
        else:
            result = self.jobs.take(view.id)
            shown = self._takers[type(result)](session, result)
        shown = merge(self.rest(session), shown)
        if session.stale and session.loaded is not None:
            session.stale = False
            shown = merge(shown, self.replan(session))
        return shown

    def _busy(self, session: Session, running: Running) -> Updates:
        if running.purpose == "preview":
            return {}
        refusal, until = session.refusal
        if time.monotonic() < until:
            return screen.status(refusal, "error")
        return screen.status(f"{_DOING[running.purpose]} {running.subject} …", "busy")


def empty() -> Updates:
    """The page of a session without a model."""
    return merge(screen.blank(), panel.no_findings(), advanced_panel.blank())


def first_wishes(host: Host, precision: str) -> Wishes:
    """What a fresh model is wished to become, by the user's settings."""
    return Wishes(
        precision,
        keep_ema=host.setting("keep_ema", False) is True,
        fix_clip=host.setting("fix_clip", False) is True,
    )
