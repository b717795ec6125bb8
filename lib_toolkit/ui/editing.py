"""What the controls of the Advanced panel do: choose, import, export, undo, report.

What the browser sends counts only where it is among the choices that the panel offers for the loaded model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lib_toolkit.errors import UsageError
from lib_toolkit.hosts.host import LOCAL_VISITOR, Visitor
from lib_toolkit.progress import Progress
from lib_toolkit.ui import advanced_panel, looking, saving
from lib_toolkit.ui.choices import EXPORT_FORMATS, aimed, export_kind
from lib_toolkit.ui.drafts import Import, Taken, take
from lib_toolkit.ui.saving import Export, WriteJob
from lib_toolkit.ui.screen import Updates
from lib_toolkit.ui.workspace import AUTO, Aim, Controls, Loaded, Opened, Reported, Session

if TYPE_CHECKING:
    from lib_toolkit.ui.desk import Desk

NOTHING = "There is nothing to {} yet: choose a model under Source and press Load first."


@dataclass(frozen=True)
class Pointed:
    """The values of the panel's dropdowns and boxes as the browser sent them, still to be checked."""

    architecture: object = ""
    cls: object = ""
    component: object = AUTO
    import_source: object = ""
    import_component: object = AUTO
    export_name: object = ""
    export_format: object = "safetensors"

    def aim(self, session: Session, import_component: bool = True) -> Aim:
        """What is pointed at. Raises UsageError for a value that the panel does not offer."""
        assert session.loaded is not None
        wanted = Aim(_text(self.architecture), _text(self.cls), _text(self.component), _text(self.import_component))
        aim = aimed(session.loaded, wanted)
        for noun, value, taken in (
            ("an architecture", wanted.architecture, aim.architecture),
            ("a class", wanted.cls, aim.cls),
            ("a component", wanted.component, aim.component),
            ("a component to import", wanted.import_component, aim.import_component if import_component else None),
        ):
            if taken is not None and value != taken:
                raise UsageError(f"{value[:60]!r} is not {noun} that can be chosen here; choose one of the list.")
        return aim


class Editing:
    """The Advanced panel's behaviour. Methods return the session's key and the changes of the page."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        desk.hands_to(Reported, _take_report)

    def point(self, key: str | None, pointed: Pointed) -> tuple[str, Updates]:
        """Another architecture or class was chosen: offer what goes with it."""

        def chosen(session: Session) -> Updates:
            if session.loaded is None:
                return {}
            wanted = Aim(
                _text(pointed.architecture),
                _text(pointed.cls),
                _text(pointed.component),
                _text(pointed.import_component),
            )
            if wanted == session.aim:
                # Gradio 6 tells of a choice once more when the dropdown is left; a name typed since then must stay.
                return {}
            session.aim = aimed(session.loaded, wanted, session.aim)
            return advanced_panel.aim(self._desk.host, session)

        return self._desk.answer(key, chosen)

    def bring_in(self, key: str | None, pointed: Pointed, controls: Controls) -> tuple[str, Updates]:
        """Put a component of another file in, in memory."""

        def begin(session: Session) -> Updates:
            loaded = self._loaded(session, "import into")
            session.take(controls.checked())
            session.aim = aim = pointed.aim(session)
            label = _text(pointed.import_source)
            if not label:
                raise UsageError("No file to import from is chosen; choose one under Import from.")
            taken = take(self._desk.host.find(label))
            wishes, file_format = session.wishes, session.file_format
            edit = Import(aim.cls, aim.import_component, taken)

            def work(progress: Progress) -> Opened:
                return looking.add(loaded.draft, edit, wishes, file_format, progress)

            return self._desk.start(session, "import", taken.entry.path.name, work)

        return self._desk.answer(key, begin)

    def undo(self, key: str | None, controls: Controls) -> tuple[str, Updates]:
        """Drop the last edit."""

        def begin(session: Session) -> Updates:
            loaded = self._loaded(session, "undo")
            if not loaded.draft.edits:
                raise UsageError(f"Nothing of {loaded.name} was changed in memory, so there is nothing to undo.")
            session.take(controls.checked())
            draft = replace(loaded.draft, edits=loaded.draft.edits[:-1])
            wishes, file_format = session.wishes, session.file_format

            def work(progress: Progress) -> Opened:
                return replace(looking.look(draft, wishes, file_format, progress), after="undo")

            return self._desk.start(session, "undo", loaded.name, work)

        return self._desk.answer(key, begin)

    def export(
        self, key: str | None, pointed: Pointed, controls: Controls, visitor: Visitor = LOCAL_VISITOR
    ) -> tuple[str, Updates]:
        """Write one component to a file of its own."""

        def begin(session: Session) -> Updates:
            loaded = self._loaded(session, "export")
            session.take(controls.checked())
            session.aim = aim = pointed.aim(session, import_component=False)
            job = self._export(loaded, session, aim, pointed, visitor)
            return self._desk.start(session, "export", job.target.name, job.run)

        return self._desk.answer(key, begin)

    def _export(self, loaded: Loaded, session: Session, aim: Aim, pointed: Pointed, visitor: Visitor) -> WriteJob:
        host = self._desk.host
        saving.check_may_write(host, visitor)
        file_format, ending = EXPORT_FORMATS.get(_text(pointed.export_format), ("", ""))
        if not file_format:
            raise UsageError(
                f"{_text(pointed.export_format)[:40]!r} is not a format; choose {', '.join(EXPORT_FORMATS)}."
            )
        kind = export_kind(loaded.found, aim.cls)
        name = pointed.export_name.strip() if isinstance(pointed.export_name, str) else ""
        target = host.output_folder(kind) / saving.file_name(name, file_format, ending)
        saving.check_free(target)
        loaded.draft.check()
        export = Export(aim.cls, aim.component)
        return WriteJob(loaded.draft, loaded.found, session.wishes, file_format, target, kind, host, export)

    def report(self, key: str | None) -> tuple[str, Updates]:
        """Read the whole file and tell everything about it."""

        def begin(session: Session) -> Updates:
            loaded = self._loaded(session, "report on")
            source = loaded.draft.begun
            if not isinstance(source, Taken):
                raise UsageError(f"{loaded.name} is not a file yet: save it, load that file, then make its report.")

            def work(progress: Progress) -> Reported:
                # Only here, since a page without a report should not wait for what it takes to make one.
                from lib_toolkit.ui import reporting

                return Reported(reporting.make(source.entry.path, source.stamp, progress), source)

            return self._desk.start(session, "report", loaded.name, work)

        return self._desk.answer(key, begin)

    def _loaded(self, session: Session, verb: str) -> Loaded:
        """What is loaded, when nothing lasting runs. Raises UsageError otherwise."""
        self._desk.not_while(session)
        if session.loaded is None:
            raise UsageError(NOTHING.format(verb))
        return session.loaded


def _take_report(session: Session, result: object) -> Updates:
    assert isinstance(result, Reported)
    session.report = result
    return advanced_panel.reported(session)


def _text(value: object) -> str:
    """A value of the browser, which can send any type, as a text; other types are none that the page offers."""
    return value if isinstance(value, str) else "" if value is None else f"({type(value).__name__})"
