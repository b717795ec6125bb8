"""Writing files: what a session has previewed, and single components; names, folders and the jobs that write."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from lib_toolkit.casting import losses
from lib_toolkit.edits.components import export_component
from lib_toolkit.edits.precision import set_precision
from lib_toolkit.edits.recipes import Wishes
from lib_toolkit.errors import TargetError, UsageError
from lib_toolkit.hosts.host import MODEL_SUFFIXES, Host, Visitor
from lib_toolkit.identify import Identification, identify
from lib_toolkit.plan import SUFFIXES, Plan, file_format_of
from lib_toolkit.progress import Progress
from lib_toolkit.reports.numbers import counted
from lib_toolkit.reports.summary import difference
from lib_toolkit.target import safe_output_name
from lib_toolkit.ui.drafts import Built, Draft, building
from lib_toolkit.ui.workspace import AUTO, Session
from lib_toolkit.writing import WriteOptions, Written, write


@dataclass(frozen=True)
class Saved:
    """A finished file, small enough to be kept. Sizes in bytes; ``source_size`` is None where there is nothing to
    compare with; ``remarks`` are what only the pass could find out. ``draft`` is what was saved, None for a part."""

    target: Path
    kind: str
    size: int
    source_size: int | None
    remarks: tuple[str, ...]
    draft: Draft | None = None

    def sentence(self) -> str:
        """What was done, in words."""
        than = "" if self.source_size is None else f", {difference(self.source_size, self.size)}"
        return " ".join(
            (
                f"{'Saved' if self.draft else 'Exported'} {self.target}: {counted(self.size, 'byte')}{than}.",
                "Verified by reading it back; the source is untouched.",
                *self.remarks,
            )
        )


@dataclass(frozen=True)
class Export:
    """A component to be taken out: of class ``cls``, the one called ``component`` or the best one (``auto``)."""

    cls: str
    component: str = AUTO


@dataclass(frozen=True)
class WriteJob:
    """Everything that one save or export needs to know, fixed when the button was pressed.

    ``kind`` is that of the target's folder; ``found`` is what the draft is; ``export`` is None for the whole model.
    """

    draft: Draft
    found: Identification
    wishes: Wishes
    file_format: str
    target: Path
    kind: str
    host: Host
    export: Export | None = None

    def run(self, progress: Progress) -> Saved:
        """Write the file. Raises a ToolkitError; nothing is then left behind, the target's folder neither."""
        progress.start("checking the source", 0)
        self.draft.check()
        made = _make_folder(self.target.parent)
        try:
            return self._write(progress)
        except BaseException:
            if made:
                with contextlib.suppress(OSError):
                    self.target.parent.rmdir()
            raise

    def _write(self, progress: Progress) -> Saved:
        workers = self.host.setting("workers", 0)
        options = WriteOptions(self.file_format, in_use=self.host.in_use, workers=int(workers) or None)
        with building(self.draft, self.wishes.precision, self.found) as built:
            plan = built.pruned(self.wishes) if self.export is None else _part(built, self.export, self.wishes)
            written = write(plan, self.target, options, progress)
        found = [warning for warning in written.plan.warnings if warning not in plan.warnings]
        remarks = (*found, *_remarks(written))
        if self.export is not None:
            return Saved(written.path, self.kind, written.size, None, remarks)
        return Saved(written.path, self.kind, written.size, plan.source.origin.size, remarks, self.draft)


def _part(built: Built, export: Export, wishes: Wishes) -> Plan:
    """The plan of a component of the edited model, at the wished precision."""
    plan = export_component(built.model, built.found, export.cls, export.component)
    plan = replace(plan, others=built.plan.others)
    return set_precision(plan, identify(plan.as_model()), wishes.precision)


def prepare(host: Host, session: Session, visitor: Visitor) -> WriteJob:
    """The save that a session wishes for. Raises UsageError or TargetError when it cannot be."""
    loaded = session.loaded
    assert loaded is not None
    check_may_write(host, visitor)
    target = target_of(host, session)
    if loaded.draft.is_new and not loaded.draft.edits:
        raise UsageError(f"{loaded.name} is empty: import its parts under Advanced first.")
    check_free(target)
    loaded.draft.check()
    return WriteJob(loaded.draft, loaded.found, session.wishes, session.file_format, target, loaded.folder_kind, host)


def check_may_write(host: Host, visitor: Visitor) -> None:
    """Raise UsageError with the host's reason where this visitor may not write."""
    refusal = host.write_refusal(visitor)
    if refusal is not None:
        raise UsageError(refusal)


def check_free(target: Path) -> None:
    """Raise TargetError when there is something of this name already."""
    if os.path.lexists(target):
        raise TargetError(_exists(target))


def target_of(host: Host, session: Session) -> Path:
    """Where the session's model would be saved. Raises UsageError when its name cannot be a file name."""
    assert session.loaded is not None
    folder = host.output_folder(session.loaded.folder_kind)
    return folder / file_name(session.name or session.proposed, session.file_format)


def problem_of(host: Host, session: Session) -> str:
    """Why a save would be refused for its name, empty when it would not."""
    try:
        target = target_of(host, session)
    except UsageError as error:
        return str(error)
    return _exists(target) if os.path.lexists(target) else ""


def _exists(target: Path) -> str:
    return f"{target.name} exists already in {target.parent} and is never overwritten from here; choose another name."


def file_name(name: str, file_format: str, ending: str = "") -> str:
    """The name with the format's ending (or another one of it); one that the user typed must agree with the format.

    Raises UsageError where it does not, and for a name that cannot be that of a file.
    """
    typed = os.path.splitext(name)[1].lower() in MODEL_SUFFIXES  # noqa: PTH122 (the name need not be a path)
    whole = safe_output_name(name if typed or not name else name + (ending or SUFFIXES[file_format]))
    file_format_of(Path(whole), file_format)
    return whole


def _make_folder(folder: Path) -> bool:
    """Make the target's folder where it is missing; returns whether it was."""
    if folder.is_dir():
        return False
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise TargetError(f"The folder {folder} cannot be made: {error.strerror}; make it, then save again.") from None
    return True


def _remarks(written: Written) -> list[str]:
    lost = losses(written.narrowing, written.plan.tensors)
    remarks = []
    if lost.vanished:
        remarks.append(f"{counted(lost.vanished, 'tiny value')} became zero at the new precision.")
    if lost.nan:
        are = "is" if lost.nan == 1 else "are"
        remarks.append(f"{counted(lost.nan, 'value')} {are} NaN, in the source as in the result.")
    return remarks
