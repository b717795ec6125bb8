"""Steps and runs in sentences, for the terminal and for logs; names out of files are made printable."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from lib_toolkit.autoprune.steps import (
    BEGUN,
    DUPLICATE,
    HAS_FAILED,
    LEFT,
    MOVED,
    PLANNED,
    POSTPONED,
    WAITING,
    WRITTEN,
    Run,
    Step,
)
from lib_toolkit.reports.numbers import human_bytes
from lib_toolkit.reports.plain import printable

_COUNTED = {
    WRITTEN: "pruned",
    MOVED: "moved as they were",
    DUPLICATE: "there already",
    HAS_FAILED: "moved to Failed",
    POSTPONED: "postponed",
    WAITING: "waiting",
    LEFT: "left alone",
}
_FORESEEN = {
    WRITTEN: "to prune",
    MOVED: "to move as they are",
    DUPLICATE: "there already",
    HAS_FAILED: "to move to Failed",
    POSTPONED: "to postpone",
    LEFT: "to leave alone",
}


_NOTHING = {"done": "Nothing lies in the drop folder.", "running": "No file is done yet."}


def sentence(step: Step) -> str:
    """One step as text; what more there is to say of it follows in lines that are set in."""
    name = printable(step.file)
    head = {
        BEGUN: f"{name} …",
        WRITTEN: f"{name} → {_place(step)}: {_sizes(step)}",
        MOVED: f"{name} → {_place(step)}: nothing to do, moved as it was",
        DUPLICATE: f"{name} = {_place(step)}: there already",
        HAS_FAILED: f"{name} → {_place(step)}: cannot be used",
        PLANNED: f"{name} → {_place(step)}: {_sizes(step)}" if step.target else name,
    }.get(step.outcome, f"{name}: {step.outcome}")
    lines = [head]
    if step.reason:
        lines.append(f"  {printable(step.reason)}")
    lines += [f"  left out: {one.count:,} × {printable(one.reason)} ({human_bytes(one.bytes)})" for one in step.removed]
    lines += [f"  changed:  {one.count:,} × {printable(one.what)}" for one in step.changed]
    lines += [f"  {printable(finding)}" for finding in step.findings]
    if step.source != step.file and step.source:
        lines.append(f"  source:   {printable(step.source)} in the drop folder")
    lines += [f"  along:    {printable(Path(path).name)}" for path in step.sidecars]
    return "\n".join(lines)


def summary(run: Run) -> str:
    """What a run did, or a dry run found, in one sentence."""
    if run.state == "busy":
        return run.reason
    told = [f"{count:,} {what}" for what, count in Counter(map(_counted, run.steps)).items()]
    if run.kept:
        told.append(f"{run.kept:,} dealt with before and kept in place")
    if not told:
        return _NOTHING.get(run.state, "It ended before a file was dealt with.")
    planned = any(step.outcome == PLANNED for step in run.steps)
    saved = f"; {human_bytes(run.saved)} {'would be saved' if planned else 'saved'}" if run.saved > 0 else ""
    return f"Files: {', '.join(told)}{saved}."


def _counted(step: Step) -> str:
    if step.outcome == PLANNED:
        return _FORESEEN.get(step.foreseen, "looked at")
    return _COUNTED.get(step.outcome, step.outcome)


def _place(step: Step) -> str:
    return printable(str(Path(step.target))) if step.target else "?"


def _sizes(step: Step) -> str:
    return f"{human_bytes(step.size)} → {human_bytes(step.target_size)}, {printable(step.architecture)}"
