"""What a step says of a file: the sentences and figures that runs and dry runs have in common."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from lib_toolkit.autoprune.identity import is_link_to
from lib_toolkit.autoprune.looking import Found
from lib_toolkit.autoprune.naming import Group, usable
from lib_toolkit.autoprune.sorting import Verdict, changed_of, removed_of
from lib_toolkit.autoprune.steps import Step, now
from lib_toolkit.casting import losses
from lib_toolkit.counting import counted
from lib_toolkit.errors import ToolkitError
from lib_toolkit.writing import Written

MAY_COME = (
    "It ends too early, but was written to less than a minute ago: the rest may still come; a later run looks again."
)


def blank(found: Found, outcome: str, reason: str = "") -> Step:
    """A step that says no more than this of a file, which lies where it lay."""
    return Step(found.name, outcome, found.size, now(), reason, source=found.name)


def told(step: Step, verdict: Verdict) -> Step:
    found, plan = verdict.found, verdict.plan
    return replace(
        step,
        architecture=found.name,
        kind=found.kind,
        removed=() if verdict.as_it_is else removed_of(plan),
        changed=changed_of(plan),
        findings=verdict.findings,
    )


def unwritten(step: Step, verdict: Verdict) -> Step:
    """The step without what only a result would have lost or changed."""
    of_plan = set(verdict.plan.warnings) - set(verdict.plan.source.warnings)
    findings = tuple(finding for finding in step.findings if finding not in of_plan)
    return replace(step, removed=(), changed=(), findings=findings)


def with_result(step: Step, written: Written) -> Step:
    """What the write found out: the source's hashes, what casts lost, tensors that kept their type."""
    lost = losses(written.narrowing, written.plan.tensors)
    more = list(written.plan.warnings)
    if lost.vanished:
        more.append(f"{counted(lost.vanished, 'tiny value')} became zero at the new precision.")
    if lost.nan:
        are = "is" if lost.nan == 1 else "are"
        more.append(f"{counted(lost.nan, 'value')} {are} NaN, in the source as in the result.")
    return replace(
        step,
        hashes=dict(written.hashes.as_dict()) if written.hashes else {},
        target_hashes=dict(written.result_hashes.as_dict()) if written.result_hashes else {},
        changed=changed_of(written.plan),
        findings=tuple(dict.fromkeys((*step.findings, *more))),
    )


def placed(step: Step, group: Group, troubles: tuple[str, ...]) -> Step:
    try:
        size = group.model.stat().st_size
    except OSError:
        size = 0
    return replace(
        step,
        time=now(),
        target=str(group.model),
        target_size=size,
        findings=(*step.findings, *troubles),
        sidecars=tuple(str(place) for one in group.sidecars if os.path.lexists(place := group.place(one))),
    )


def named(error: ToolkitError, found: Found) -> str:
    """What went wrong, with the file called as the user knows it."""
    return str(error).replace(str(found.path), found.name)


def refused(error: OSError) -> str:
    """What to say where the system would not take a step that nobody foresaw."""
    return f"The system refused a step ({error.strerror or error}); check the disk."


def why_kept(equal: Path, found: Found) -> str:
    """Why a file that is there already stays nevertheless; empty where it does not."""
    if is_link_to(equal, found.path):
        return f"{equal} is a link to it, which would lead nowhere then."
    return ""


def group_of(found: Found, verdict: Verdict) -> Group:
    stem = usable(found.path.stem, verdict.ending, found.sidecars)
    return Group(verdict.folder / found.folder, stem, verdict.ending, found.sidecars)
