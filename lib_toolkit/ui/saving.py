"""Saving what a session has previewed: the target's name and folder, and the job that writes it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lib_toolkit.casting import Narrowing
from lib_toolkit.edits.recipes import Wishes, plan_prune
from lib_toolkit.errors import TargetError, UsageError
from lib_toolkit.formats import open_model
from lib_toolkit.hosts.host import MODEL_SUFFIXES, Host
from lib_toolkit.plan import SUFFIXES, file_format_of
from lib_toolkit.progress import Progress
from lib_toolkit.reports.summary import difference
from lib_toolkit.target import safe_output_name
from lib_toolkit.ui.workspace import Loaded, Session, check_unchanged
from lib_toolkit.writing import WriteOptions, write


@dataclass(frozen=True)
class Saved:
    """A finished save, small enough to be kept. Sizes in bytes; ``remarks`` are what only the pass could find out."""

    target: Path
    kind: str
    size: int
    source_size: int
    remarks: tuple[str, ...]

    def sentence(self) -> str:
        """What was done, in words."""
        return " ".join(
            (
                f"Saved {self.target}: {self.size:,} bytes, {difference(self.source_size, self.size)}.",
                "Verified by reading it back; the source is untouched.",
                *self.remarks,
            )
        )


@dataclass(frozen=True)
class SaveJob:
    """Everything that one save needs to know, fixed when Save was pressed."""

    loaded: Loaded
    wishes: Wishes
    file_format: str
    target: Path
    host: Host

    def run(self, progress: Progress) -> Saved:
        """Write the file. Raises a ToolkitError; nothing is then left behind, the target's folder neither."""
        progress.start("checking the source", 0)
        check_unchanged(self.loaded)
        made = _make_folder(self.target.parent)
        try:
            return self._write(progress)
        except BaseException:
            if made:
                with contextlib.suppress(OSError):
                    self.target.parent.rmdir()
            raise

    def _write(self, progress: Progress) -> Saved:
        options = WriteOptions(self.file_format, in_use=self.host.in_use)
        with open_model(self.loaded.entry.path) as model:
            plan = plan_prune(model, self.loaded.found, self.wishes)
            written = write(plan, self.target, options, progress)
        found = [warning for warning in written.plan.warnings if warning not in plan.warnings]
        remarks = (*found, *_remarks(written.narrowing))
        return Saved(written.path, self.loaded.folder_kind, written.size, self.loaded.facts.size, remarks)


def prepare(host: Host, session: Session) -> SaveJob:
    """The save that a session wishes for. Raises UsageError or TargetError when it cannot be."""
    loaded = session.loaded
    assert loaded is not None
    if not host.may_write:
        raise UsageError("Saving is switched off here (may_write in the settings); nothing was written.")
    target = target_of(host, session)
    if os.path.lexists(target):
        raise TargetError(_exists(target))
    check_unchanged(loaded)
    return SaveJob(loaded, session.wishes, session.file_format, target, host)


def target_of(host: Host, session: Session) -> Path:
    """Where the session's model would be saved. Raises UsageError when its name cannot be a file name."""
    assert session.loaded is not None
    folder = host.output_folder(session.loaded.folder_kind)
    return folder / _file_name(session.name or session.proposed, session.file_format)


def problem_of(host: Host, session: Session) -> str:
    """Why a save would be refused for its name, empty when it would not."""
    try:
        target = target_of(host, session)
    except UsageError as error:
        return str(error)
    return _exists(target) if os.path.lexists(target) else ""


def _exists(target: Path) -> str:
    return f"{target.name} exists already in {target.parent} and is never overwritten from here; choose another name."


def _file_name(name: str, file_format: str) -> str:
    """The name with the format's ending; an ending that the user typed must agree with the format."""
    typed = os.path.splitext(name)[1].lower() in MODEL_SUFFIXES  # noqa: PTH122 (the name need not be a path)
    whole = safe_output_name(name if typed or not name else name + SUFFIXES[file_format])
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


def _remarks(narrowing: Mapping[str, Narrowing]) -> list[str]:
    lost = sum(narrowing.values(), Narrowing())
    remarks = []
    if lost.vanished:
        remarks.append(f"{lost.vanished:,} tiny values became zero at the new precision.")
    if lost.nan:
        remarks.append(f"{lost.nan:,} values are NaN, in the source as in the result.")
    return remarks
