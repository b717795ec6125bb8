"""What a prune with the usual options would make of a file: the part of a report that helps to decide."""

from __future__ import annotations

from dataclasses import replace

from lib_toolkit.analysis.results import Report, TensorHealth
from lib_toolkit.casting import Cast, Narrowing
from lib_toolkit.dtypes import DType
from lib_toolkit.edits.recipes import Wishes, plan_prune
from lib_toolkit.errors import ToolkitError
from lib_toolkit.plan import Plan
from lib_toolkit.reports.numbers import counted, human_bytes
from lib_toolkit.reports.summary import Preview, difference, preview_of
from lib_toolkit.tensors import Tensor


def pruned(report: Report) -> Preview | None:
    """What ``prune`` would write as safetensors; None where the format cannot hold it. No values are read.

    Of a full report the size is exact; a quick one cannot know of values too large or too small for FP16, whose
    tensors keep their type.
    """
    model, found = report.model, report.found
    try:
        plan = plan_prune(model, found, Wishes())
        return preview_of(model, found, _as_it_fits(plan, report), "safetensors")
    except ToolkitError:
        return None


def _as_it_fits(plan: Plan, report: Report) -> Plan:
    """The plan in which tensors that FP16 would spoil keep their type, as the writer will find."""
    old_names = {new: old for old, new in report.found.renames.items()}
    kept: dict[str, Tensor] = {}
    for key, tensor in plan.tensors.items():
        health = report.health.get(key) or report.health.get(old_names.get(key, key))
        if isinstance(tensor, Cast) and tensor.dtype is DType.F16 and health is not None and _spoilt(health):
            kept[key] = tensor.source
    if not kept:
        return plan
    changed = tuple(one for one in plan.changed if one.key not in kept or "renamed" in one.what)
    return replace(plan, tensors={**plan.tensors, **kept}, changed=changed)


def _spoilt(health: TensorHealth) -> bool:
    lost = Narrowing(health.beyond_fp16, health.below_fp16, zeros=health.zero)
    return health.beyond_fp16 > 0 or lost.empties(health.count)


def worth_pruning(preview: Preview) -> bool:
    """Whether a prune would leave out or change anything."""
    return bool(preview.dropped or preview.changed)


def pruning_sentences(report: Report, preview: Preview) -> tuple[str, ...]:
    """What a prune would do, in words; that there is nothing to do, where that is so."""
    if not worth_pruning(preview):
        return ("There is nothing to prune: a prune would leave out nothing and change no tensor.",)
    done = [
        f"leaves out {counted(group.count, 'item')} of {human_bytes(group.bytes)}: {group.what}"
        for group in preview.dropped
    ]
    done += [f"changes {counted(group.count, 'tensor')}: {group.what}" for group in preview.changed]
    unsure = "; tensors with values too large or too small for FP16 would keep their type" if report.quick else ""
    size = f"{preview.size:,} bytes ({human_bytes(preview.size)}), {difference(preview.source_size, preview.size)}"
    return (f"A prune would write {size}{unsure}.", f"It {'; it '.join(done)}.")
