"""End what a run that was killed has begun: see the steps in ``processing``.

While a file's source is in the drop folder, the next run does it again from the beginning (and finds its result, if
that was in place). Where the source has gone on already, or lies whole at its new place too, only the last steps are
missing, and are taken here. The journal is a file like any other in the drop folder: what it says is done only inside
of the policy's folders.
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
from lib_toolkit.autoprune.looking import Look, sight
from lib_toolkit.autoprune.moving import is_copy, remove_source
from lib_toolkit.autoprune.policy import DONE, FAILED, Policy
from lib_toolkit.autoprune.sidecars import Sidecar, belongs_to
from lib_toolkit.autoprune.steps import HAS_FAILED, LEFT, POSTPONED, WRITTEN, Step, now
from lib_toolkit.errors import FormatError, TargetError, ToolkitError, UnreadableError
from lib_toolkit.formats import open_model
from lib_toolkit.plan import source_of
from lib_toolkit.progress import Progress
from lib_toolkit.temporary import remove_stale


def remove_temporaries(policy: Policy, drop: Path, seen: Look, begun: Iterable[Intent]) -> None:
    """Temporary files of runs that were killed, in every folder that a run writes to."""
    subs = {Path(), *(found.folder for found in seen.models)}
    bases = {*policy.folders.values(), drop, drop / DONE, drop / FAILED}
    folders = {base / sub for base in bases for sub in subs}
    intents = (_in_these_folders(intent, policy, drop) for intent in begun)
    folders |= {Path(intent.target).parent for intent in intents if intent is not None}
    for folder in folders:
        remove_stale(folder)


def recover(
    policy: Policy, drop: Path, begun: Mapping[str, Intent], progress: Progress, tell: Callable[[Step], None]
) -> dict[str, Intent]:
    """Take the missing steps of files that have left the drop folder, and tell of each; returns the other intents."""
    waiting = {}
    for name, told in begun.items():
        intent = _in_these_folders(told, policy, drop)
        if intent is None:
            reason = "The journal tells of a step outside of the folders that are worked on; nothing was done for it."
            tell(Step(name, LEFT, told.step.size, now(), reason))
            continue
        source, whole = drop / name, False
        with suppress(TargetError, FormatError, OSError):  # it lies in two places then, and is dealt with again
            whole = _end_move(source, intent, policy.sources == "keep", progress)
        if os.path.lexists(source):
            waiting[name] = intent
            continue
        try:
            if whole or _is_result(Path(intent.target), intent):
                step = _ended(intent, drop, progress)
            else:
                reason = "It was taken away before its work was ended."
                step = replace(intent.step, outcome=LEFT, time=now(), reason=reason)
        except (UnreadableError, OSError) as error:
            what = (error.strerror if isinstance(error, OSError) else None) or error
            reason = f"Its last steps were refused by the system ({what}); check the disk."
            step, waiting[name] = replace(intent.step, outcome=POSTPONED, time=now(), reason=reason), intent
        tell(step)
    return waiting


def _end_move(source: Path, intent: Intent, keeps: bool, progress: Progress) -> bool:
    """Remove a source that was at its new place already, whole, but not yet rid of its old name; True when that was
    done. Raises TargetError and UnreadableError when the system refuses, and CancelledError."""
    place = intent.source_to if intent.action == WRITTEN else intent.target
    if not place or (keeps and intent.action != HAS_FAILED):
        return False
    if intent.action == WRITTEN and not _is_result(Path(intent.target), intent):
        return False
    mark = sight(source)
    if not is_copy(Path(place), source, progress):
        return False
    remove_source(source, Path(place), mark)
    return True


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
        if not step.hashes:
            with suppress(ToolkitError), open_model(Path(moved)) as model:
                step = replace(step, hashes=dict(hashes.of_source(model, progress, None).as_dict()))
    along = tuple(end for _, end in intent.sidecars if os.path.lexists(end))
    return replace(step, findings=(*step.findings, *troubles), sidecars=along)


def _is_result(target: Path, intent: Intent) -> bool:
    """Whether the file is the one that was intended: made of this source, or this source itself. Another one may
    have got the name since. Raises OSError and UnreadableError when the system does not say."""
    try:
        status = target.stat()
        if not stat.S_ISREG(status.st_mode):
            return False
        if intent.action != WRITTEN:
            return status.st_size == intent.step.size and abs(status.st_mtime_ns - intent.modified) <= _COARSE
        with open_model(target) as model:
            source = source_of(model.metadata)
    except UnreadableError:
        raise
    except (FormatError, FileNotFoundError, NotADirectoryError, ValueError):
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


def _in_these_folders(intent: Intent, policy: Policy, drop: Path) -> Intent | None:
    """The intent with its places as the folders are called now, if a run over these folders could have written it."""
    name, source = PurePosixPath(intent.file), drop / intent.file
    if name.is_absolute() or ".." in name.parts or _is_linked(source.parent):
        return None
    target = _below(Path(intent.target), (*policy.folders.values(), drop / DONE, drop / FAILED))
    source_to = _below(Path(intent.source_to), (drop / DONE,)) if intent.source_to else Path()
    if target is None or source_to is None:
        return None
    beside = Path(intent.target).parent
    for begin, end in intent.sidecars:
        if not (Path(begin).parent == source.parent and Path(end).parent == beside):
            return None
        if not belongs_to(Path(begin).name, source.name):
            return None
    pairs = tuple((begin, str(target.parent / Path(end).name)) for begin, end in intent.sidecars)
    return replace(intent, target=str(target), source_to=str(source_to) if intent.source_to else "", sidecars=pairs)


def _is_linked(folder: Path) -> bool:
    """Whether the way to a folder below the drop folder, whose own links are resolved, goes through a link."""
    return os.path.normcase(os.path.realpath(folder)) != os.path.normcase(folder)


def _below(path: Path, bases: Iterable[Path]) -> Path | None:
    """The path by way of the folder that it lies below, which may have been reached through other links when it was
    written down; None where it lies below none of them."""
    if ".." in path.parts:
        return None
    bases = tuple(bases)
    if any(path.is_relative_to(base) and path != base for base in bases):
        return path
    real = {os.path.realpath(base): base for base in bases}
    if path.drive.startswith("\\\\") and path.drive.lower() not in {Path(base).drive.lower() for base in real}:
        return None  # another computer is not asked because a journal names it
    for folder in path.parents:
        if base := real.get(os.path.realpath(folder)):
            return base / path.relative_to(folder)
    return None
