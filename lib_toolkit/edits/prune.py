"""Leave out what is not needed to use the model, each tensor with its reason."""

from __future__ import annotations

from dataclasses import replace

from lib_toolkit.architectures.junk import EMA
from lib_toolkit.counting import counted
from lib_toolkit.errors import UsageError
from lib_toolkit.identify import Identification, Leftover
from lib_toolkit.plan import Plan, drop

UNKNOWN_SHARE = 0.10
"""An intact model may lose unknown tensors only while they are at most this part of its bytes."""


def prune(plan: Plan, found: Identification, keep_ema: bool = False, drop_unknown: bool = False) -> Plan:
    """The plan without EMA and trainer state, and without unknown tensors where that is safe.

    Unknown tensors go when the architecture is intact and they are a small part of the file, or when
    ``drop_unknown`` says so; otherwise they stay, with a warning. No component is ever taken apart: a model has
    as many intact components after a prune as before, EMA copies aside. Raises UsageError where nothing would be left.
    """
    reasons = {left.key: left.reason for left in found.leftovers.removable if not (keep_ema and _is_ema(left))}
    unknown = found.leftovers.unknown
    warnings = list(plan.warnings)
    if drop_unknown or _may_drop_unknown(plan, found):
        reasons |= {left.key: left.reason or "unknown to the architecture" for left in unknown}
    elif unknown:
        share = sum(left.bytes for left in unknown)
        were, they = ("was", "it") if len(unknown) == 1 else ("were", "they")
        are = "is" if len(unknown) == 1 else "are"
        warnings.append(
            f"{counted(len(unknown), 'unknown tensor')} ({counted(share, 'byte')}) {were} kept: "
            f"{_why_kept(found, they, are)}. {they.capitalize()} {are} left out only when asked for (drop unknown)."
        )
    if plan.tensors and plan.tensors.keys() <= reasons.keys():
        raise UsageError(
            f"Nothing of {plan.source.origin.path} would be left: {next(iter(reasons.values()))}; convert keeps it all."
        )
    operations = (*plan.operations, "prune") if any(key in plan.tensors for key in reasons) else plan.operations
    return replace(drop(plan, reasons), warnings=tuple(warnings), operations=operations)


def _why_kept(found: Identification, they: str, are: str) -> str:
    if found.kind == "lora":
        return f"what a LoRA may hold is an open set, and {they} may matter"
    if found.architecture is None:
        return "which tensors the architecture has is not known"
    return f"{they} {are} a large part of the file" if found.intact else "the architecture is not intact"


def _is_ema(left: Leftover) -> bool:
    return left.reason == EMA


def _may_drop_unknown(plan: Plan, found: Identification) -> bool:
    if not found.intact or found.architecture is None or found.kind == "lora":
        return False
    total = plan.source.origin.size
    return sum(left.bytes for left in found.leftovers.unknown) <= UNKNOWN_SHARE * total
