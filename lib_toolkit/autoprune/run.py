"""One run over the drop folder, or one after another; and what the panel asks between them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import groupby
from pathlib import Path

from lib_toolkit.autoprune import journal as journals
from lib_toolkit.autoprune.duplicates import Known
from lib_toolkit.autoprune.foreseeing import Promised, preview
from lib_toolkit.autoprune.journal import Intent, Journal
from lib_toolkit.autoprune.line import SEVERAL, Line, Stoppable, alone
from lib_toolkit.autoprune.lock import BusyError, FolderLock, is_held
from lib_toolkit.autoprune.looking import Aside, Found, Look, Mark, look, stable, unchanged
from lib_toolkit.autoprune.policy import Policy
from lib_toolkit.autoprune.processing import Worker
from lib_toolkit.autoprune.recovery import recover, remove_temporaries
from lib_toolkit.autoprune.refusals import stands_in_the_way
from lib_toolkit.autoprune.sketching import blank
from lib_toolkit.autoprune.steps import BEGUN, LEFT, POSTPONED, WAITING, Run, Step, now
from lib_toolkit.errors import CancelledError, TargetError, ToolkitError, UsageError
from lib_toolkit.progress import SILENT, Portion, Progress
from lib_toolkit.streaming import default_workers

PAUSE = 2.0
"""Seconds between two looks: what changes meanwhile is still being copied."""

_SAVE_EVERY = 10.0
_SMALL = 32 << 20
"""Bytes of a file below which several are worked on at a time: one alone keeps few processors busy."""

_RETRY = 600.0
"""Seconds after which ``watch`` tries a postponed file again that nobody has touched."""

Report = Callable[[Step], None]


def run_once(
    policy: Policy,
    progress: Progress = SILENT,
    report: Report = lambda step: None,
    pause: float | None = None,
    dry: bool = False,
) -> Run:
    """Deal with every file of the drop folder that is complete; ``report`` gets each step as it is taken.

    A step with the outcome ``begun`` goes to ``report`` before the work on a file; it is no part of the result. Files
    that cannot be used do not keep others from being dealt with. ``pause``: seconds between the two looks, by default
    PAUSE. ``dry`` only looks: nothing is changed. The state is
    ``busy`` when another run works on this folder. Raises CancelledError (what was being written is removed),
    TargetError when the drop folder cannot be written to, UsageError when it cannot be.
    """
    drop = _drop_folder(policy, dry)
    pause = PAUSE if pause is None else pause
    if dry:
        return _dry_run(policy, drop, progress, report, pause)
    try:
        with FolderLock(drop):
            return _Session(policy, drop, progress, report).run(look(drop), pause)
    except BusyError:
        reason = f"Another run works on {drop.name} already; it deals with what lies there."
        return Run("", "busy", now(), now(), reason)


def watch(policy: Policy, every: float, progress: Progress = SILENT, report: Report = lambda step: None) -> None:
    """Look every ``every`` seconds, and deal with each file that two looks found the same, until cancelled. Less than
    PAUSE seconds are too short for that.

    The end is a CancelledError. Files that are set aside are told of once, and so is what keeps the whole folder from
    being worked on: a step with the folder's name. Raises UsageError when there is no such folder at the beginning.
    """
    drop = _drop_folder(policy, dry=False)
    memory = _Memory()
    before = look(drop)
    wait, trouble = PAUSE if journals.unfinished(drop) else every, ""
    while True:
        _sleep(wait, progress)
        wait = every
        try:
            with FolderLock(drop):
                session = _Session(policy, drop, progress, report, memory)
                session.run(before, 0.0)
            trouble = ""
        except BusyError:
            pass
        except TargetError as error:  # a full disk, a share that is away: it may pass
            if trouble != (trouble := str(error)):
                report(Step(drop.name, POSTPONED, 0, now(), trouble))
        before = look(drop)


def waiting(policy: Policy) -> tuple[Step, ...]:
    """What lies in the drop folder now and why it lies there: ``waiting``, or ``left`` for what is not taken.

    Raises UsageError when no folder can be there.
    """
    drop = _folder_of(policy)
    known, seen = Known(drop, wishes=policy.mark), look(drop)
    ready, kept = _divided(seen.models, known)
    return (
        *(blank(found, WAITING, "The next run deals with it.") for found in ready),
        *map(_set_aside, seen.aside),
        *(
            blank(found, LEFT, "It was dealt with before, and is left here until it or what is wished changes.")
            for found in kept
        ),
    )


def last_run(policy: Policy) -> Run | None:
    """The last run that the journal tells of; ``running`` while it goes on, None where there was none."""
    drop = policy.real_drop
    run = journals.last(drop)
    if run is not None and run.state == "interrupted" and is_held(drop):
        return Run(run.id, "running", run.began, "", "", run.steps)
    return run


@dataclass
class _Memory:
    """What ``watch`` has told already, and what it need not try again soon."""

    told: set[tuple[str, str]] = field(default_factory=set)
    postponed: dict[str, tuple[Mark, float]] = field(default_factory=dict)

    def tries(self, found: Found) -> bool:
        mark, since = self.postponed.get(found.name, (None, 0.0))
        return mark != found.mark or time.monotonic() - since >= _RETRY


class _Session:
    """A run that holds the lock."""

    def __init__(
        self, policy: Policy, drop: Path, progress: Progress, report: Report, memory: _Memory | None = None
    ) -> None:
        self.policy, self.drop = policy, drop
        self.progress, self._report = progress, report
        self._memory = memory
        self._steps: list[Step] = []
        self._kept = 0
        self._id = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{os.urandom(3).hex()}"
        self._began = now()
        self._known = Known(drop, policy.threads, policy.mark)
        self._saved = time.monotonic()

    def run(self, before: Look, pause: float) -> Run:
        """Recover, look again, work."""
        begun = journals.unfinished(self.drop)
        if before.models:
            _sleep(pause, self.progress)
        seen = look(self.drop)
        ready, changing = stable(before, seen)
        ready, kept = _divided(ready, self._known)
        self._kept = len(kept)
        if self._memory is not None:
            ready = [found for found in ready if self._memory.tries(found)]
        # What was begun with a file that lies here goes on when its turn comes.
        gone = [name for name in begun if not os.path.lexists(self.drop / name)]
        if not (ready or gone):
            # Nothing is done, so that what the journal last told stays the last run.
            remove_temporaries(self.policy, self.drop, seen, begun.values())
            self._tell_once((*seen.aside, *changing))
            return self._ended("done")
        journals.rotate(self.drop)
        journal = Journal(self.drop, self._id)
        try:
            return self._journalled(journal, seen, ready, changing, begun)
        finally:
            self._known.save()
            journal.close()

    def _journalled(
        self, journal: Journal, seen: Look, ready: list[Found], changing: list[Aside], begun: Mapping[str, Intent]
    ) -> Run:
        def tell(step: Step) -> None:
            journal.write("step", {**step.as_json()})
            self._steps.append(step)
            self._report(step)

        journal.write("begin", {"policy": self.policy.to_json()})
        state, reason = "stopped", ""
        try:
            remove_temporaries(self.policy, self.drop, seen, begun.values())
            rest = recover(self.policy, self.drop, begun, self.progress, tell)
            ended = {step.file for step in self._steps}
            ready = [found for found in ready if found.name not in ended or os.path.lexists(found.path)]
            for intent in rest.values():
                journal.intend(intent)  # it may stand in a journal that was put aside
            for one in (*seen.aside, *changing):
                if os.path.lexists(self.drop / one.name):  # recovery may have let it follow its model
                    tell(_set_aside(one))
            for several, group in groupby(ready, key=self._may_share):
                batch = list(group)
                if several and len(batch) > 1:
                    self._side_by_side(batch, journal, rest, tell)
                else:
                    worker = Worker(self.policy, self.drop, journal, self._known, rest, self.progress)
                    for found in batch:
                        self._one_alone(worker, found, tell)
            state = "done"
        except CancelledError:
            state = "cancelled"
            raise
        except ToolkitError as error:
            reason = str(error)
            raise
        finally:
            with suppress(TargetError):
                journal.write("end", {"state": state, "reason": reason})
        return self._ended(state)

    def _may_share(self, found: Found) -> bool:
        """Whether the processors are used better by several files of this size than by one at a time."""
        return found.size < _SMALL and self._threads > 1

    @property
    def _threads(self) -> int:
        return self.policy.threads or default_workers()

    def _one_alone(self, worker: Worker, found: Found, tell: Report) -> None:
        if self._begin(found, tell):
            self._end(found, alone(worker.work(found)), tell)

    def _side_by_side(self, batch: list[Found], journal: Journal, rest: Mapping[str, Intent], tell: Report) -> None:
        by_name = {found.name: found for found in batch}
        self.progress.start(f"{len(batch)} {SEVERAL}", sum(found.size for found in batch))

        def ended(step: Step) -> None:
            self._end(by_name[step.file], step, tell)
            self.progress.advance(by_name[step.file].size)

        progress = Stoppable(self.progress)
        worker = Worker(self.policy, self.drop, journal, self._known, rest, progress)
        with Line(self._threads, progress, ended) as line:
            for found in batch:
                if self._begin(found, tell):
                    line.put(worker.work(found))

    def _begin(self, found: Found, tell: Report) -> bool:
        self.progress.check()
        if not unchanged(found):
            tell(blank(found, WAITING, "It was changed or taken away since the last look."))
            return False
        self._report(blank(found, BEGUN))
        return True

    def _end(self, found: Found, step: Step, tell: Report) -> None:
        tell(step)
        if self._memory is not None and step.outcome == POSTPONED:
            self._memory.postponed[found.name] = (found.mark, time.monotonic())
        if time.monotonic() - self._saved > _SAVE_EVERY:
            self._known.save()
            self._saved = time.monotonic()

    def _tell_once(self, asides: tuple[Aside, ...]) -> None:
        told = set() if self._memory is None else self._memory.told
        for one in asides:
            if (one.name, one.reason) not in told:
                told.add((one.name, one.reason))
                self._steps.append(_set_aside(one))
                self._report(self._steps[-1])

    def _ended(self, state: str) -> Run:
        return Run(self._id, state, self._began, now(), "", tuple(self._steps), self._kept)


def _dry_run(policy: Policy, drop: Path, progress: Progress, report: Report, pause: float) -> Run:
    began, before = now(), look(drop)
    if before.models:
        _sleep(pause, progress)
    seen = look(drop)
    ready, changing = stable(before, seen)
    known, promised = Known(drop, policy.threads, policy.mark), Promised()
    steps = [_set_aside(one) for one in (*seen.aside, *changing)]
    for step in steps:
        report(step)
    ready, kept = _divided(ready, known)
    progress.start(f"looking at what waits in {drop.name}", sum(found.size for found in ready))
    for found in ready:
        piece = Portion(progress, found.size)
        steps.append(preview(found, policy, known, piece, promised))
        report(steps[-1])
        piece.finish()
    return Run("", "done", began, now(), "", tuple(steps), len(kept))


def _divided(models: Iterable[Found], known: Known) -> tuple[list[Found], list[Found]]:
    """The files that are to be dealt with, and sources that were before and are kept."""
    ready: list[Found] = []
    kept: list[Found] = []
    for found in models:
        (kept if known.was_kept(found.name, found.mark) else ready).append(found)
    return ready, kept


def _drop_folder(policy: Policy, dry: bool) -> Path:
    """The drop folder with links resolved; it is made where only itself is missing."""
    drop = _folder_of(policy)
    if not drop.is_dir() and not (dry and drop.parent.is_dir()):
        try:
            drop.mkdir()
        except OSError as error:
            raise UsageError(f"The drop folder {drop} cannot be used: {error.strerror}; name another one.") from None
    return drop


def _folder_of(policy: Policy) -> Path:
    """The drop folder with links resolved, whether it was made yet or not."""
    drop = policy.real_drop
    if what := stands_in_the_way(drop):
        raise UsageError(f"The drop folder {drop} cannot be used: {what}; take that away, or name another one.")
    return drop


def _set_aside(one: Aside) -> Step:
    return Step(one.name, WAITING if one.waits else LEFT, one.size, now(), one.reason, source=one.name)


def _sleep(seconds: float, progress: Progress) -> None:
    deadline = time.monotonic() + seconds
    while True:
        progress.check()
        left = deadline - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(left, 0.1))
