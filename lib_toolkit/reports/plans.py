"""What a write will do, or has done: as JSON, and as text for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from lib_toolkit.casting import Narrowing, losses
from lib_toolkit.hashing import FileHashes
from lib_toolkit.identify import Identification
from lib_toolkit.plan import Plan
from lib_toolkit.reports.numbers import counted, human_bytes
from lib_toolkit.reports.plain import printable

SCHEMA = 1


def plan_json(
    plan: Plan,
    found: Identification,
    target: Path,
    file_format: str,
    predicted: int,
    written: int | None,
    narrowing: Mapping[str, Narrowing],
    hashes: FileHashes | None,
) -> dict[str, object]:
    """Everything about one write. ``written`` is None for a dry run."""
    origin = plan.source.origin
    return {
        "schema": SCHEMA,
        "source": str(origin.path),
        "source_bytes": origin.size,
        "source_hashes": dict(hashes.as_dict()) if hashes else None,
        "target": str(target),
        "format": file_format,
        "dry_run": written is None,
        "predicted_bytes": predicted,
        "bytes": written,
        "architecture": found.name,
        "id": found.id,
        "tensors": len(plan.tensors),
        "dropped": [{"key": d.key, "what": d.what, "bytes": d.bytes, "reason": d.reason} for d in plan.dropped],
        "changed": [{"key": c.key, "what": c.what} for c in plan.changed],
        "narrowing": {
            key: {"overflowed": lost.overflowed, "vanished": lost.vanished, "nan": lost.nan}
            for key, lost in narrowing.items()
        },
        "operations": list(plan.operations),
        "metadata": dict(plan.metadata),
        "notes": list(found.notes),
        "warnings": list(dict.fromkeys((*plan.warnings, *found.warnings))),
    }


def plan_text(
    plan: Plan, target: Path, size: int, done: bool, narrowing: Mapping[str, Narrowing], read_back: bool = True
) -> str:
    """The same in sentences."""
    before = plan.source.origin.size
    lines = [
        f"{'Wrote' if done else 'Would write'} {printable(str(target))}: {size:,} bytes ({human_bytes(size)}), "
        + ("a new model." if plan.is_new else _difference(before, size) + ".")
    ]
    for reason, (count, total) in _by_reason(plan).items():
        times = f"{count:,} × " if count else ""
        lines.append(f"  left out: {times}{printable(reason)} ({human_bytes(total)})")
    for what, count in Counter(c.what if "→" in c.what else c.what.split(" from ")[0] for c in plan.changed).items():
        lines.append(f"  changed:  {count:,} × {printable(what)}")
    if not plan.dropped and not plan.changed:
        lines.append("  nothing to leave out and nothing to change: the tensors are those of the source")
    lost = losses(narrowing, plan.tensors)
    if lost.vanished:
        lines.append(f"  {counted(lost.vanished, 'tiny value')} became zero at the new precision")
    if lost.nan:
        are = "is" if lost.nan == 1 else "are"
        lines.append(f"  {counted(lost.nan, 'value')} {are} NaN, in the source as in the result")
    lines += [f"  warning:  {printable(warning)}" for warning in plan.warnings]
    if done and read_back:
        lines.append("  verified by reading it back; the source is untouched")
    return "\n".join(lines)


def _difference(before: int, after: int) -> str:
    if after <= before:
        return f"{human_bytes(before - after)} less than the source"
    return f"{human_bytes(after - before)} more than the source"


def _by_reason(plan: Plan) -> dict[str, tuple[int, int]]:
    """Number and bytes of what was left out for each reason; a group says itself how many tensors it stands for."""
    table: dict[str, tuple[int, int]] = {}
    for left in plan.dropped:
        count, total = table.get(left.reason, (0, 0))
        table[left.reason] = (count + (left.what != "group"), total + left.bytes)
    return table
