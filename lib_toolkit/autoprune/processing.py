"""One file from the drop folder to its place, in steps of which each leaves the model whole in at least one place.

1. The journal says what is intended: names of the result, of the sidecars, of the source's later place.
2. The result is written to a temporary file in the target folder, synced, read back, and given its name without
   replacing a file. (A file that needs nothing is renamed to that name, or, on another file system, copied to a
   temporary file, synced, read back, named, and only then removed.)
3. Sidecars follow under the same number. Is one of their names taken meanwhile, all go on to the next number.
4. The source moves to Done, or is deleted where the policy says so, or stays.
5. The journal says what was done.

A process that is killed before step 2 is complete leaves the source as it was and at most a temporary file, which the
next run removes. Killed later, it leaves result and source, or result and moved source: the next run finds the intent
without an end, sees which steps were taken (``recovery``), and takes the rest.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from lib_toolkit.autoprune import hashes
from lib_toolkit.autoprune.duplicates import About, Known, describe
from lib_toolkit.autoprune.filing import aside, dispose, explain, follow, make_place, place_model
from lib_toolkit.autoprune.identity import are_apart, is_one_folder
from lib_toolkit.autoprune.journal import Intent, Journal
from lib_toolkit.autoprune.line import Task, Work, its_turn
from lib_toolkit.autoprune.looking import Found, is_fresh, unchanged
from lib_toolkit.autoprune.moving import is_copy, remove, remove_source
from lib_toolkit.autoprune.naming import Group, Names, forget, note
from lib_toolkit.autoprune.policy import DONE, FAILED, Policy
from lib_toolkit.autoprune.sketching import (
    MAY_COME,
    blank,
    group_of,
    named,
    placed,
    refused,
    told,
    unwritten,
    why_kept,
    with_result,
)
from lib_toolkit.autoprune.sorting import Verdict, judge
from lib_toolkit.autoprune.steps import (
    DUPLICATE,
    HAS_FAILED,
    LEFT,
    MOVED,
    POSTPONED,
    WAITING,
    WRITTEN,
    Step,
    now,
)
from lib_toolkit.errors import (
    CancelledError,
    FormatError,
    IncompleteError,
    TakenError,
    ToolkitError,
    UnreadableError,
    UsageError,
)
from lib_toolkit.formats import open_model
from lib_toolkit.model import Model
from lib_toolkit.plan import PROVENANCE
from lib_toolkit.progress import Progress
from lib_toolkit.reports.plain import printable
from lib_toolkit.writing import OutgrownError, WriteOptions, Written, write

_SMALL = 4 << 20
"""Bytes of a file below which one thread is faster than several."""


@dataclass(frozen=True)
class _Job:
    """One file on its way. ``about``: what ``duplicates`` should know of its result."""

    found: Found
    verdict: Verdict
    step: Step
    group: Group
    about: About


@dataclass
class Worker:
    """What the files of a run share. ``begun``: what earlier runs left unfinished, by file."""

    policy: Policy
    drop: Path
    journal: Journal
    known: Known
    begun: Mapping[str, Intent]
    progress: Progress
    _on_the_way: set[About | Path] = field(default_factory=set)

    def work(self, found: Found) -> Work:
        """Deal with one file; what is wrong with it or with its place is told in the step.

        Raises TargetError when the journal cannot be written, and CancelledError; then the file lies where it lay.
        """
        try:
            step = yield from self._file(found)
            keeps = self.policy.sources == "keep" and step.source == found.name
            if keeps and step.outcome in {WRITTEN, MOVED, DUPLICATE}:
                self.known.keep(found.name, found.mark, step.target)
            return step
        except CancelledError:
            raise
        except Exception as error:
            trouble = error.with_traceback(None)  # which holds all that was read
        yield its_turn
        return self._troubled(found, trouble)

    def _troubled(self, found: Found, error: Exception) -> Step:
        """What becomes of a file that could not be dealt with; one must not keep the others from it."""
        if isinstance(error, UnreadableError):
            return blank(found, POSTPONED, named(error, found))
        if isinstance(error, (OutgrownError, FormatError, UsageError)):
            if isinstance(error, IncompleteError) and is_fresh(found):
                return blank(found, WAITING, MAY_COME)
            if unchanged(found):
                return self._fail(found, named(error, found))
            return blank(found, WAITING, "It was changed or taken away while it was read.")
        if isinstance(error, ToolkitError):
            return blank(found, POSTPONED, str(error))
        if isinstance(error, MemoryError):
            return blank(found, POSTPONED, "There was not enough memory; close other programs.")
        if isinstance(error, OSError):
            return blank(found, POSTPONED, refused(error))
        what = f"{type(error).__name__}: {error}"
        return blank(found, POSTPONED, f"Something unforeseen went wrong ({what}); please report it.")

    def _file(self, found: Found) -> Work:
        with open_model(found.path) as model:
            verdict = judge(model, self.policy)
            planned = verdict.plan.as_model()
            job = _Job(found, verdict, told(blank(found, ""), verdict), group_of(found, verdict), describe(planned))
            if job.about in self._on_the_way:
                yield None  # it may be a duplicate of what is being written
            standing, equal = self._standing(job, planned), None
            if standing is None:
                equal = self.known.equal_to(planned, job.about, verdict.folder, self.progress)
            with self._going(job.about):
                if standing is None and equal is None and not verdict.as_it_is:
                    job, equal = yield from self._write(job)
                else:
                    taken = yield partial(hashes.of_source, model, self.progress, self.policy.threads)
                    job = replace(job, step=replace(job.step, hashes=dict(taken.as_dict())))
        if equal is not None and (why := why_kept(equal, found)):
            return replace(job.step, outcome=LEFT, reason=why)
        if equal is not None:
            lacking = _only_here(verdict.plan.metadata, equal)
            return self._duplicate(replace(job, step=replace(job.step, findings=(*job.step.findings, *lacking))), equal)
        if standing is not None:
            job = replace(job, group=standing, step=replace(job.step, recovered=True))
        return self._move(job, standing is not None) if verdict.as_it_is else self._finish(job)

    def _standing(self, job: _Job, planned: Model) -> Group | None:
        """The result, if an earlier run put it in place and did not get further."""
        found, intent = job.found, self.begun.get(job.found.name)
        if intent is None or intent.action not in {WRITTEN, MOVED} or intent.modified != found.mark[1]:
            return None
        target = Path(intent.target)
        if not is_one_folder(target.parent, job.group.folder):
            return None
        if job.verdict.as_it_is:
            same = is_copy(target, found.path, self.progress)
        else:
            same = are_apart(target, found.path) and self.known.is_equal(planned, target, self.progress)
        return _numbered(job.group, target) if same else None

    def _write(self, job: _Job) -> Generator[Task | None, Any, tuple[_Job, Path | None]]:
        """Write the result. Which tensors keep their type is known only then: where a file turns out to hold the same
        already, that is given too, and the result goes again."""
        make_place(job.group.folder, self.drop)
        verdict, names = job.verdict, Names(job.group)
        threads = self.policy.threads or (1 if job.found.size < _SMALL else None)
        how = WriteOptions(verdict.file_format, hash_source=True, hash_result=True, workers=threads)
        while True:
            group = names.free()
            if not self._on_the_way.isdisjoint(group.places):
                yield None  # the next number is known when those have their names
                continue
            if os.path.lexists(group.model):  # it came after the folder was listed
                names.refuse(group)
                continue
            self._intend(job, WRITTEN, group)
            try:
                with self._going(*group.places):
                    written: Written = yield partial(write, verdict.plan, group.model, how, self.progress)
                break
            except TakenError:
                names.refuse(group)
        about, equal, step = job.about, None, with_result(job.step, written)
        if written.plan is not verdict.plan:
            result = written.plan.as_model()
            about = describe(result)
            standing = self._standing(job, result)
            if standing is not None and are_apart(standing.model, group.model):  # an earlier run did not get further
                remove(group.model)
                forget(group.folder)
                step = replace(step, target_hashes={}, recovered=True)
                return replace(job, group=standing, step=step, about=about), None
            equal = self.known.equal_to(result, about, verdict.folder, self.progress)
        if equal is not None:
            remove(group.model)
            forget(group.folder)
            return replace(job, step=replace(job.step, hashes=step.hashes)), equal
        note(group)
        self.known.add(verdict.folder, group.model, about)
        return replace(job, group=group, step=step, about=about), None

    @contextmanager
    def _going(self, *what: About | Path) -> Iterator[None]:
        """While open, files that come later wait before they decide about the same."""
        self._on_the_way.update(what)
        try:
            yield
        finally:
            self._on_the_way.difference_update(what)

    def _finish(self, job: _Job) -> Step:
        """The result is in place; sidecars and source follow."""
        group, troubles = follow(
            job.group, job.found.path, self.policy.sources == "keep", lambda group: self._intend(job, WRITTEN, group)
        )
        step = job.step
        if not step.target_hashes:  # it stood there already
            is_safetensors = job.verdict.file_format == "safetensors"
            taken = hashes.of_result(group.model, is_safetensors, self.progress, self.policy.threads)
            step = replace(step, target_hashes=dict(taken.as_dict()))
        source, trouble = self._dispose(job.found, group.model)
        return placed(replace(step, outcome=WRITTEN, source=source), group, (*troubles, *trouble))

    def _dispose(self, found: Found, result: Path) -> tuple[str, tuple[str, ...]]:
        """Where the source lies after its result was verified, and what went wrong."""
        if not unchanged(found):
            return found.name, ("The source was changed or taken away meanwhile, and was left as it is now.",)
        try:
            if self.policy.sources == "done":
                return dispose(found, self.drop), ()
            if self.policy.sources == "delete":
                remove_source(found.path, result, found.mark)
                return "", ()
        except (ToolkitError, OSError) as error:
            return found.name, (f"The source stays where it is: {error}",)
        return found.name, ()

    def _move(self, job: _Job, stands: bool) -> Step:
        """The file needs nothing: it goes to its folder itself. ``stands``: its copy is there already."""
        found, keeps = job.found, self.policy.sources == "keep"
        if not unchanged(found):
            return replace(job.step, outcome=WAITING, reason="It was changed while it was read.")

        def intend(group: Group) -> None:
            self._intend(job, MOVED, group)

        if not stands:
            group = place_model(found, self.drop, job.group, intend, copy=keeps)
        else:
            group = job.group
            if not keeps:
                remove_source(found.path, group.model, found.mark)
        group, troubles = follow(group, found.path, keeps, intend)
        self.known.add(job.verdict.folder, group.model, job.about)
        source = found.name if keeps else ""
        step = replace(job.step, outcome=MOVED, target_hashes=job.step.hashes, source=source)
        return placed(step, group, troubles)

    def _duplicate(self, job: _Job, equal: Path) -> Step:
        """Nothing is written. Likeness is no reason to delete: where sources are deleted, this one goes to Done."""
        found, reason = job.found, f"{equal.name} holds the same already; nothing was written."
        step = replace(unwritten(job.step, job.verdict), outcome=DUPLICATE, reason=reason)
        step = replace(step, target=str(equal), target_size=equal.stat().st_size)
        if self.policy.sources == "keep" or not unchanged(found):
            return replace(step, time=now(), source=found.name)
        self._intend(replace(job, step=step), DUPLICATE, aside(found, self.drop, DONE, found.sidecars))
        return replace(step, time=now(), source=dispose(found, self.drop, found.sidecars))

    def _fail(self, found: Found, reason: str) -> Step:
        """Move it to Failed, with the reason."""
        step = replace(blank(found, HAS_FAILED, reason), source="")
        try:
            step = replace(step, hashes=self._hashes_of_unusable(found))
            if not unchanged(found):  # hashing takes its time
                return blank(found, WAITING, "It was changed or taken away while it was read.")
            group = aside(found, self.drop, FAILED, found.sidecars)

            def intend(group: Group) -> None:
                self.journal.intend(_intent(found, step, HAS_FAILED, group))

            group = place_model(found, self.drop, group, intend, copy=False)
            group, troubles = follow(group, found.path, False, intend)
            troubles = (*troubles, *explain(group.model, reason))
        except CancelledError:
            raise
        except (ToolkitError, OSError) as error:
            return blank(found, POSTPONED, f"{reason} It could not be moved to {FAILED}: {error}")
        return placed(step, group, troubles)

    def _hashes_of_unusable(self, found: Found) -> dict[str, str | None]:
        try:
            return dict(hashes.of_unusable(found.path, self.progress, self.policy.threads).as_dict())
        except FormatError:
            return {}

    def _intend(self, job: _Job, action: str, group: Group) -> None:
        moves = action == WRITTEN and self.policy.sources == "done"
        to = str(aside(job.found, self.drop, DONE).model) if moves else ""
        self.journal.intend(_intent(job.found, job.step, action, group, to))


def _only_here(metadata: Mapping[str, str], equal: Path) -> tuple[str, ...]:
    """What is to be told of metadata that an equal model lacks, or has otherwise."""
    try:
        with open_model(equal) as other:
            there = other.metadata
    except FormatError:
        return ()  # it went away meanwhile, for which this file is not to blame
    keys = [key for key in metadata if key not in {PROVENANCE, "format"} and there.get(key) != metadata[key]]
    names = printable(", ".join(keys), 200)
    return (f"{equal.name} does not say the same in its metadata ({names}); this file does.",) if keys else ()


def _numbered(group: Group, target: Path) -> Group:
    """The group whose model is ``target``."""
    number = re.fullmatch(re.escape(group.stem) + r"\((\d+)\)", target.stem)
    return replace(group, number=int(number[1]) if number else 0)


def _intent(found: Found, step: Step, action: str, group: Group, source_to: str = "") -> Intent:
    pairs = tuple((str(one.path), str(group.place(one))) for one in group.sidecars)
    return Intent(found.name, action, str(group.model), source_to, pairs, step, found.mark[1])
