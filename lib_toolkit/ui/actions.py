"""What the controls of the top row and of the Basic panel do with what the browser sent.

Nothing from the browser is trusted: models are looked up in the host's listing, names are checked, choices are
compared with their tables.
"""

from __future__ import annotations

from lib_toolkit.edits.components import new_names
from lib_toolkit.edits.recipes import Wishes
from lib_toolkit.errors import UsageError
from lib_toolkit.hosts.host import LOCAL_VISITOR, Host, Visitor
from lib_toolkit.jobs import Jobs
from lib_toolkit.progress import Progress
from lib_toolkit.reports.memory import edit_title
from lib_toolkit.reports.numbers import counted
from lib_toolkit.reports.summary import Preview
from lib_toolkit.ui import advanced_panel, looking, panel, saving, screen
from lib_toolkit.ui.autoprune_actions import Autopruning
from lib_toolkit.ui.compare_actions import Comparing
from lib_toolkit.ui.desk import Desk, empty, first_wishes
from lib_toolkit.ui.drafts import Draft, Taken, take
from lib_toolkit.ui.editing import Editing
from lib_toolkit.ui.pruner import Pruner
from lib_toolkit.ui.saving import Saved
from lib_toolkit.ui.screen import Updates, merge
from lib_toolkit.ui.workspace import Aim, Controls, Loaded, Opened, Session, Workspace


class Actions:
    """The tab's behaviour for one host; ``editing``, ``comparing`` and ``autopruning`` are those of the panels
    Advanced, Compare and Autoprune.

    Methods return the session's key and the changes of the page.
    """

    def __init__(self, host: Host, jobs: Jobs, sessions: Workspace | None = None, pruner: Pruner | None = None) -> None:
        self.host = host
        self.desk = Desk(host, jobs, sessions)
        self.editing = Editing(self.desk)
        self.comparing = Comparing(self.desk)
        self.autopruning = Autopruning(self.desk, pruner or Pruner(host, jobs))
        self.desk.hands_to(Opened, self._take_opened)
        self.desk.hands_to(Preview, self._take_preview)
        self.desk.hands_to(Saved, self._take_saved)

    def refresh(self, key: str | None, arrives: bool = False) -> tuple[str, Updates]:
        """List the models again; ``arrives``: because the page was opened, not because somebody asked."""

        def listed(session: Session) -> Updates:
            count = len(self.host.models())
            told = f"{counted(count, 'model')} found."
            if not count:
                told = "No models were found; put some into the models folder, then press Refresh."
            shown = merge(self.desk.choices(), self.autopruning.shown(session))
            # A page that is reloaded goes on with its session, whose state is still said.
            if session.running is not None or (arrives and session.loaded is not None):
                return shown
            return merge(shown, screen.status(told))

        return self.desk.answer(key, listed)

    def load(self, key: str | None, label: object, controls: Controls) -> tuple[str, Updates]:
        """Look at a model, or begin a new one."""

        def begin(session: Session) -> Updates:
            self.desk.not_while(session)
            chosen = controls.checked()
            wanted = label if isinstance(label, str) else ""
            question = self._gives_up(session, "load", wanted)
            if question is not None:
                return question
            draft = Draft(wanted if wanted in new_names() else take(self.host.find(wanted)))
            wishes, file_format = first_wishes(self.host, chosen.precision), chosen.file_format

            def work(progress: Progress) -> Opened:
                return looking.look(draft, wishes, file_format, progress)

            session.wishes, session.file_format = wishes, file_format
            return self.desk.start(session, "load", draft.name, work)

        return self.desk.answer(key, begin)

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
            return self.desk.replan(session)

        return self.desk.answer(key, changed)

    def save(self, key: str | None, controls: Controls, visitor: Visitor = LOCAL_VISITOR) -> tuple[str, Updates]:
        """Write what was previewed."""

        def begin(session: Session) -> Updates:
            self.desk.not_while(session)
            if session.loaded is None:
                raise UsageError("There is nothing to save yet: choose a model under Source and press Load first.")
            session.take(controls.checked())
            job = saving.prepare(self.host, session, visitor)
            if session.loaded.incomplete:
                warning = _warning(session.loaded.name, session.loaded.missing)
                question = self.desk.asks(session, ("save", job.target, session.loaded.draft), warning)
                if question is not None:
                    return question
            return self.desk.start(session, "save", job.target.name, job.run)

        return self.desk.answer(key, begin)

    def clear(self, key: str | None) -> tuple[str, Updates]:
        """Forget the model and what was changed in memory; nothing on disk changes."""

        def cleared(session: Session) -> Updates:
            self.desk.not_while(session, ("save", "export"))
            question = self._gives_up(session, "clear", "")
            if question is not None:
                return question
            self.desk.drop_job(session)
            self.desk.stop_measuring(session)
            session.forget()
            session.wishes = Wishes(session.wishes.precision)
            return merge(empty(), screen.idle(), screen.status("Cleared."))

        return self.desk.answer(key, cleared)

    def cancel(self, key: str | None) -> tuple[str, Updates]:
        """Stop what runs."""
        return self.desk.answer(key, self.desk.cancel)

    def poll(self, key: str | None) -> tuple[str, Updates]:
        """How the job goes that the page waits for, and the autoprune run that goes on for all."""
        return self.desk.answer(key, lambda session: merge(self.desk.poll(session), self.autopruning.watch(session)))

    def _gives_up(self, session: Session, purpose: str, label: str) -> Updates | None:
        """The question before unsaved edits are given up, None where there are none or it was answered."""
        if not session.unsaved or session.loaded is None:
            return None
        count = counted(len(session.loaded.draft.edits), "edit")
        name = session.loaded.name
        return self.desk.asks(
            session,
            (purpose, label),
            f"{name} has {count} in memory that no file holds yet: save it first, or press {purpose.capitalize()} "
            "once more to give that up.",
        )

    def _take_opened(self, session: Session, result: object) -> Updates:
        """A model was looked at: freshly loaded, or with one edit more or less."""
        assert isinstance(result, Opened)
        before = session.loaded
        listed: Updates = {}
        session.loaded, session.preview = result.loaded, result.preview
        name = result.loaded.name
        if result.after == "import":
            said = f"Imported {result.told} Changed in memory, not saved yet."
        elif result.after == "undo":
            assert before is not None
            undone = before.draft.edits[-1]
            said = f"Undone: {edit_title(undone.cls, undone.source.entry.name)}. Nothing was changed on disk."
        else:
            session.name = session.proposed = ""
            session.report = session.saved = None
            session.aim = Aim()
            said = f"Loaded {name}; nothing is changed on disk yet."
            listed = self._listed(result.loaded)
            if result.loaded.draft.is_new:
                said = f"{name} is empty; nothing is changed on disk yet. Import its parts under Advanced."
        self.desk.start_measuring(session)
        return merge(
            panel.loaded(self.host, session),
            advanced_panel.loaded(self.host, session, result.tree),
            listed,
            screen.status(said, "good"),
        )

    def _listed(self, loaded: Loaded) -> Updates:
        """The lists, which call a file by its architecture too from now on."""
        if not isinstance(loaded.draft.begun, Taken):
            return {}
        entry = self.desk.known.note(loaded.draft.begun, loaded.found.name)
        return merge(self.desk.choices(), {"source": {"value": entry.label}})

    def _take_preview(self, session: Session, result: object) -> Updates:
        assert isinstance(result, Preview)
        session.preview = result
        return merge(panel.planned(self.host, session), advanced_panel.planned(session))

    def _take_saved(self, session: Session, result: object) -> Updates:
        assert isinstance(result, Saved)
        self.host.refresh(result.kind)
        if result.draft is not None:
            session.saved = result.draft
        session.step += 1
        shown = merge(self.desk.choices(), screen.status(result.sentence(), "good", f"{result.kind}:{session.step}"))
        if session.loaded is not None:
            # The name is taken now.
            shown = merge(shown, panel.proposed(self.host, session), panel.saving(self.host, session))
        return merge(shown, advanced_panel.state(session), panel.identity(session))


def _warning(name: str, missing: tuple[str, ...]) -> str:
    return (
        f"{name} still lacks {', '.join(missing)}: no program can use it as it is. Import what is missing under "
        "Advanced, or press Save once more to write it all the same."
    )
