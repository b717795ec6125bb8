"""What the Autoprune panel does: says how the run goes, what the last one did and what waits; begins and ends runs
and previews.

These belong to no session: every page that looks sees them, and may go on with other work meanwhile.
"""

from __future__ import annotations

import contextlib

from lib_toolkit.autoprune import last_run, policy_of, waiting
from lib_toolkit.autoprune.steps import DEALT_WITH
from lib_toolkit.errors import ToolkitError, UsageError
from lib_toolkit.hosts.host import LOCAL_VISITOR, Visitor
from lib_toolkit.jobs import JobView
from lib_toolkit.reports.html import Html, join, tag
from lib_toolkit.reports.numbers import counted, human_bytes
from lib_toolkit.ui import autoprune_view, preview_view, saving, screen
from lib_toolkit.ui.desk import Desk
from lib_toolkit.ui.previews import Outlook
from lib_toolkit.ui.pruner import Pruner
from lib_toolkit.ui.screen import Updates, merge
from lib_toolkit.ui.workspace import Session

_EVERY = 1000
"""Milliseconds between two questions of a page how the run goes: it may take an hour."""

_LATEST = 20
"""Files that are shown while the run goes on."""

_SURE = (
    "Its sources will be deleted once their results are verified, as the settings say. Press Run now again to begin."
)


class Autopruning:
    """The panel's behaviour. Methods return the session's key and the changes of the page."""

    def __init__(self, desk: Desk, pruner: Pruner) -> None:
        self._desk = desk
        self._pruner = pruner

    def look(self, key: str | None) -> tuple[str, Updates]:
        """Everything as it is now."""
        return self._desk.answer(key, self.shown)

    def run(self, key: str | None, visitor: Visitor = LOCAL_VISITOR) -> tuple[str, Updates]:
        """Begin a run, or watch the one that goes on."""

        def begin(session: Session) -> Updates:
            saving.check_may_write(self._desk.host, visitor)
            answers = session.asked is not None
            if self._pruner.running is None and self._desk.host.setting("sources", "done") == "delete":
                question = self._desk.asks(session, "autoprune", _SURE)
                if question is not None:
                    return question
            session.watched = self._pruner.begin()
            session.asked = None
            begun = screen.status("Autoprune works on what lies in its folder; its panel tells how it goes.")
            return merge(self.shown(session), begun if answers else {})

        return self._desk.answer(key, begin)

    def preview(self, key: str | None) -> tuple[str, Updates]:
        """Begin to look what a run would do, or watch the look that goes on. Nothing is changed, so that everybody
        may."""

        def begin(session: Session) -> Updates:
            try:
                session.watched = self._pruner.preview()
            except UsageError as error:  # the page may not know yet why
                return merge(self.shown(session), screen.status(str(error), "error"))
            return self.watch(session)

        return self._desk.answer(key, begin)

    def cancel(self, key: str | None, visitor: Visitor = LOCAL_VISITOR) -> tuple[str, Updates]:
        """End the run or the preview; the file that is being written is removed, and its source stays."""

        def ask(session: Session) -> Updates:
            if self._pruner.running is None and self._pruner.previews.cancel():
                return self.watch(session)
            saving.check_may_write(self._desk.host, visitor)
            if not self._pruner.cancel():
                raise UsageError("No autoprune run goes on here that could be cancelled.")
            return self.watch(session)

        return self._desk.answer(key, ask)

    def shown(self, session: Session) -> Updates:
        """The whole panel."""
        view = self._pruner.running or self._pruner.previews.running
        if view is not None:
            session.watched = view.id
            return self.watch(session)
        session.watched = ""
        return merge(_still(), {"autoprune_view": {"value": self._state()}})

    def watch(self, session: Session) -> Updates:
        """How the run or preview goes that the page watches, and once, how it ended."""
        view = self._pruner.running
        if view is not None:
            return _goes_on(session, view, self._so_far(), may_run=False)
        view = self._pruner.previews.running
        if view is not None:
            return _goes_on(session, view, self._foreseen_so_far(), may_run=True)
        if not session.watched:
            return _still()
        job, session.watched = session.watched, ""
        outlook = self._pruner.previews.outcome(job)
        if outlook is not None:
            return merge(_still(), {"autoprune_view": {"value": self._foreseen(outlook)}})
        said, looks = "The run has ended.", "model-toolkit-said"  # the panel says the same to the eye
        with contextlib.suppress(UsageError):  # it ended too long ago
            said, good = self._pruner.outcome(job)
            looks = looks if good else "model-toolkit-status model-toolkit-error"
        ended = tag("p", said, role="status", class_=looks)
        shown: Updates = {"autoprune_view": {"value": join([ended, self._state()])}}
        return merge(_still(), shown, self._desk.choices())

    def _so_far(self) -> Html:
        policy = policy_of(self._desk.host)
        steps = self._pruner.steps
        saved = sum(max(0, step.saved) for step in steps)
        count = sum(step.outcome in DEALT_WITH for step in steps)
        told = f"{counted(count, 'file')} so far, {human_bytes(saved)} saved." if count else "No file is done yet."
        return join([tag("p", told), autoprune_view.steps_html(steps[-_LATEST:], policy)])

    def _foreseen_so_far(self) -> Html:
        steps = self._pruner.previews.steps
        said = f"{counted(len(steps), 'file')} looked at so far." if steps else "No file is looked at yet."
        return preview_view.preview_html(said, steps[-_LATEST:], policy_of(self._desk.host))

    def _foreseen(self, outlook: Outlook) -> Html:
        looks = "model-toolkit-said" if outlook.good else "model-toolkit-status model-toolkit-error"
        ended = tag("p", outlook.said, role="status", class_=looks)
        return join([ended, self._state(outlook if outlook.good else None)])

    def _state(self, outlook: Outlook | None = None) -> Html:
        """Everything that stands still. A preview says more of what waits, in whose place it stands."""
        host = self._desk.host
        try:
            policy = policy_of(host)
            rules = autoprune_view.rules_html(policy, host.setting("autoprune", False) is True, host.settings_place)
            if outlook is None:
                there = autoprune_view.waiting_html(waiting(policy), policy)
            else:
                there = preview_view.preview_html(outlook.said, outlook.steps, policy)
            # Lists on a page may be older than the run: the page makes the host's afresh, once for each mark.
            mark = tag("span", data_model_toolkit_saved=self._pruner.changed or None)
            run = autoprune_view.run_html(last_run(policy), policy, self._pruner.notes)
            return join([mark, rules, there, run])
        except ToolkitError as error:
            return tag("p", str(error), class_="model-toolkit-problem")


def _goes_on(session: Session, view: JobView, so_far: Html, may_run: bool) -> Updates:
    """A run or a preview goes on, which the page watches from now on."""
    session.watched = view.id
    session.step += 1
    return {
        "autoprune_progress": {"value": screen.progress_html(view, session.step, _EVERY)},
        "autoprune_run": {"interactive": may_run},
        "autoprune_preview": {"interactive": False},
        "autoprune_cancel": {"interactive": not view.cancelling},
        "autoprune_view": {"value": so_far},
    }


def _still() -> Updates:
    """Nothing runs."""
    return {
        "autoprune_progress": {"value": screen.IDLE},
        "autoprune_run": {"interactive": True},
        "autoprune_preview": {"interactive": True},
        "autoprune_cancel": {"interactive": False},
    }
