"""End what a run that was killed has begun: see the steps in ``processing``.

While a file's source is in the drop folder, the next run does it again from the beginning (and finds its result, if
that was in place). Where the source has gone on already, only the last steps are missing, and are taken here. The
journal is a file like any other in the drop folder: what it says is done only inside of the policy's folders.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

from lib_toolkit.autoprune import hashes
from lib_toolkit.autoprune.filing import bring, explain, has_text, is_shared
from lib_toolkit.autoprune.journal import Intent
from lib_toolkit.autoprune.looking import Look
from lib_toolkit.autoprune.moving import remove
from lib_toolkit.autoprune.policy import DONE, FAILED, Policy
from lib_toolkit.autoprune.sidecars import Sidecar, belongs_to
from lib_toolkit.autoprune.steps import HAS_FAILED, LEFT, POSTPONED, WRITTEN, Step, now
from lib_toolkit.errors import FormatError, ToolkitError
from lib_toolkit.formats import open_model
from lib_toolkit.plan import source_of
from lib_toolkit.progress import Progress
from lib_toolkit.target import remove_stale


def remove_temporaries(policy: Policy, drop: Path, seen: Look, begun: Iterable[Intent]) -> None:
    """Temporary files of runs that were killed, in every folder that a run writes to."""
    subs = {Path(), *(found.folder for found in seen.models)}
    bases = {*policy.folders.values(), drop, drop / DONE, drop / FAILED}
    folders = {base / sub for base in bases for sub in subs}
    folders |= {Path(intent.target).parent for intent in begun if _inside(Path(intent.target), policy, drop)}
    for folder in folders:
        remove_stale(folder)


def recover(
    policy: Policy, drop: Path, begun: Mapping[str, Intent], progress: Progress, tell: Callable[[Step], None]
) -> dict[str, Intent]:
    """Take the missing steps of files that have left the drop folder, and tell of each; returns the other intents."""
    waiting = {}
    for name, intent in begun.items():
        if not _is_sound(intent, policy, drop):
            reason = "The journal tells of a step outside of the folders that are worked on; nothing was done for it."
            tell(Step(name, LEFT, intent.step.size, now(), reason))
            continue
        source = drop / name
        with suppress(ToolkitError, OSError):
            _end_move(source, intent)
        if os.path.lexists(source):
            waiting[name] = intent
        elif not _is_result(Path(intent.target), intent):
            tell(replace(intent.step, outcome=LEFT, time=now(), reason="It was taken away before its work was ended."))
        else:
            try:
                step = _ended(intent, drop, progress)
            except OSError as error:
                reason = f"Its last steps were refused by the system ({error.strerror or error}); check the disk."
                step, waiting[name] = replace(intent.step, outcome=POSTPONED, time=now(), reason=reason), intent
            tell(step)
    return waiting


def _end_move(source: Path, intent: Intent) -> None:
    """Source and its new place are one file: it had its new name, but was not yet rid of the old one."""
    for place in (intent.target, intent.source_to):
        if place and os.path.samestat(source.lstat(), Path(place).lstat()):
            remove(source)
            return


def _ended(intent: Intent, drop: Path, progress: Progress) -> Step:
    target, troubles = Path(intent.target), []
    for begin, end in intent.sidecars:
        if os.path.lexists(begin):
            troubles += _bring(Path(begin), Path(end), drop / intent.file)
    if intent.action == HAS_FAILED and not has_text(target):
        troubles += explain(target, intent.step.reason)
    step = replace(intent.step, outcome=intent.action, time=now(), recovered=True, source="")
    if intent.action in {WRITTEN, HAS_FAILED} or not step.target:
        step = replace(step, target=str(target), target_size=target.stat().st_size)
    if intent.action == WRITTEN:
        with suppress(ToolkitError):
            taken = hashes.of_result(target, target.suffix == ".safetensors", progress, None)
            step = replace(step, target_hashes=dict(taken.as_dict()))
    moved = intent.source_to or (str(target) if intent.action not in {WRITTEN, HAS_FAILED} else "")
    if moved and Path(moved).is_relative_to(drop) and Path(moved).is_file():
        step = replace(step, source=Path(moved).relative_to(drop).as_posix())
    along = tuple(end for _, end in intent.sidecars if os.path.lexists(end))
    return replace(step, findings=(*step.findings, *troubles), sidecars=along)


def _is_result(target: Path, intent: Intent) -> bool:
    """Whether the file is the one that was intended: made of this source, or this source itself. Another one may
    have got the name since."""
    try:
        status = target.stat()
        if not stat.S_ISREG(status.st_mode):
            return False
        if intent.action != WRITTEN:
            return status.st_size == intent.step.size and abs(status.st_mtime_ns - intent.modified) <= _COARSE
        with open_model(target) as model:
            source = source_of(model.metadata)
    except (FormatError, OSError, ValueError):
        return False
    return source == (PurePosixPath(intent.file).name, intent.step.size)


_COARSE = 2 * 10**9
"""Nanoseconds by which a time may differ after a copy to a file system that counts in steps of two seconds."""


def _bring(begin: Path, end: Path, source: Path) -> list[str]:
    try:
        bring(begin, end, is_shared(Sidecar(begin, ""), source))
    except FileExistsError:
        return [f"{begin.name} could not follow: {end.name} has come into being meanwhile."]
    except (ToolkitError, OSError) as error:
        return [f"{begin.name} could not follow: {error}"]
    return []


def _is_sound(intent: Intent, policy: Policy, drop: Path) -> bool:
    """Whether it is one that a run over these folders could have written."""
    name, target = PurePosixPath(intent.file), Path(intent.target)
    if name.is_absolute() or ".." in name.parts or not _inside(target, policy, drop):
        return False
    if intent.source_to and not _is_below(Path(intent.source_to), drop / DONE):
        return False
    source = drop / intent.file
    return all(
        Path(begin).parent == source.parent
        and Path(end).parent == target.parent
        and belongs_to(Path(begin).name, source.name)
        for begin, end in intent.sidecars
    )


def _inside(path: Path, policy: Policy, drop: Path) -> bool:
    return any(_is_below(path, base) for base in (*policy.folders.values(), drop / DONE, drop / FAILED))


def _is_below(path: Path, base: Path) -> bool:
    return ".." not in path.parts and path.is_relative_to(base) and path != base
